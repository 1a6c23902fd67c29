// Rows in the lanes of vectors, one in each: short rows of any layout, and columns of any length.
// An operation says what it does with a vector of one class.
#pragma once

#include "kernels/drivers/regime.h"

namespace {
namespace fs {

// A vector of rows, next to each other along the inner axis; `count` of its lanes hold one.
struct LaneRows {
    Index outer, first, count;
};

// The classes first .. first + count of such rows: vector x[k][j] is class first + j in the k-th
// input; lanes without a row hold any number. Results go to y(j), which may be where x[0][j] is.
template <class X, int inputs>
struct LaneBlock {
    using C = typename X::Scalar;
    Index first, count;
    Columns<X> x[inputs];
    C *y;
    Index y_step;

    FS_ALWAYS_INLINE void store(Index j, typename X::V v) const { X::store(y + j * y_step, v); }
    // Class c of a lane, which must be among them.
    FS_ALWAYS_INLINE C lane(int k, Index c, Index l) const {
        return x[k].x[(c - first) * x[k].step + l];
    }
};

// One number for each row, at index c of the middle axis.
template <class X>
FS_ALWAYS_INLINE inline void store_lanes(const AnyView &v, const LaneRows &rows, Index c,
                                         typename X::V y) {
    typename X::Scalar lanes[X::lanes];
    X::store(lanes, y);
    OutputLine<typename X::Scalar> to(v, rows.outer, rows.first);
    to.p += c * v.n_stride, to.stride = v.inner_stride;
    to.copy(0, rows.count, lanes);
}

// An operation on such rows, a copy of which does each tile:
//
//     using X;                        the vector of one class
//     static constexpr int inputs;    how many arrays there are of all classes
//     static constexpr Traits traits; what the table of drivers asks of it
//     const AnyView &input(int k) const;    those arrays, of one shape
//     const AnyView &output() const;  results of all classes; without data: there are none
//     Op swapped() const;             the same with outer and inner axis exchanged
//     void begin(Index piece), end(); of a tile
//     void start(State &, const LaneRows &);    of a vector of rows
//     void sweep(State &, const Block &);       over the classes, in blocks of ascending ones
//     bool next(State &, const LaneRows &, const Block &);
//                                     after all classes, the last block of which is given (that
//                                     holds all of them if they are few): whether to sweep again
//     bool writes(const State &) const;         whether that sweep writes the results
//
// Short rows are gathered across lanes. Columns whose classes fit `tile_bytes` are gathered, since
// rows of memory a multiple of 4096 bytes apart share few lines of the caches; longer ones are read
// where they are in every sweep, or gathered block by block where they cannot be.
template <class Op>
struct LaneTile {
    using X = typename Op::X;
    using C = typename X::Scalar;
    using Block = LaneBlock<X, Op::inputs>;
    static constexpr Index width = tile_vectors * X::lanes;
    static constexpr Index longest = ShortRows<X>::longest;
    // done step by step, so that none waits for its own results
    static constexpr Index short_vectors = 4;
    static constexpr Index room = tile_bytes / 2 / Op::inputs, block_classes = 64;

    Op operation;
    bool direct;  // the columns are contiguous in memory

    Index n() const { return operation.input(0).n; }

    void run(Index outer, Index first, Index count) const {
        Op mine(operation);
        mine.begin(outer * ((mine.input(0).inner + width - 1) / width) + first / width);
        if (n() <= longest) {
            short_rows(mine, outer, first, count);
        } else if (n() * Index(sizeof(typename X::V)) <= room) {
            const Index fit = room / (n() * Index(sizeof(typename X::V))) * X::lanes;
            for_each_block(first, first + count, fit, [&](Index at, Index size) {
                gathered_columns(mine, outer, at, size, n());
            });
        } else {
            const Index whole = direct ? count / X::lanes * X::lanes : 0;
            if (whole) columns_in_memory(mine, outer, first, whole);
            for_each_block(first + whole, first + count, X::lanes, [&](Index at, Index size) {
                gathered_columns(mine, outer, at, size, block_classes);
            });
        }
        mine.end();
    }

  private:
    struct Vector {
        LaneRows rows;
        bool active;
        Block block;
        typename Op::State state;
    };

    static Index begin(Op &op, Vector *vector, Index outer, Index first, Index count) {
        Index used = 0;
        for_each_block(first, first + count, X::lanes, [&](Index at, Index size) {
            Vector &v = vector[used++];
            v.rows = {outer, at, size}, v.active = true;
            op.start(v.state, v.rows);
        });
        return used;
    }
    static void sweep(Op &op, Vector *vector, Index used) {
        for (Index v = 0; v < used; ++v) {
            if (vector[v].active) op.sweep(vector[v].state, vector[v].block);
        }
    }
    static bool next(Op &op, Vector *vector, Index used) {
        bool more = false;
        for (Index v = 0; v < used; ++v) {
            if (vector[v].active)
                vector[v].active = op.next(vector[v].state, vector[v].rows, vector[v].block);
            more |= vector[v].active;
        }
        return more;
    }

    void short_rows(Op &op, Index outer, Index first, Index count) const {
        const Scratch<Vector> vector(short_vectors);
        const Scratch<ShortRows<X>> rows(short_vectors * Op::inputs);
        for_each_block(first, first + count, short_vectors * X::lanes, [&](Index from, Index part) {
            const Index used = begin(op, vector, outer, from, part);
            for (Index v = 0; v < used; ++v) {
                Block &b = vector[v].block;
                ShortRows<X> *own = rows + v * Op::inputs;
                for (int k = 0; k < Op::inputs; ++k)
                    gather(own[k], op.input(k), vector[v].rows),
                        b.x[k] = {own[k].columns, X::lanes};
                b.first = 0, b.count = n(), b.y = own->columns, b.y_step = X::lanes;
            }
            do sweep(op, vector, used);
            while (next(op, vector, used));
            for (Index v = 0; op.output() && v < used; ++v)
                scatter(rows[v * Op::inputs], op.output(), vector[v].rows);
        });
    }
    void gather(ShortRows<X> &to, const AnyView &v, const LaneRows &rows) const {
        if (!direct || rows.count < X::lanes)
            return to.gather(v, rows.outer, rows.first, rows.count);
        const Columns<X> x = in_memory(v, rows.outer, rows.first);
        for (Index j = 0; j < v.n; ++j) X::store(to.columns + j * X::lanes, x[j]);
    }
    void scatter(ShortRows<X> &from, const AnyView &v, const LaneRows &rows) const {
        if (!direct || rows.count < X::lanes)
            return from.scatter(v, rows.outer, rows.first, rows.count);
        const Columns<X> y = in_memory(v, rows.outer, rows.first);
        for (Index j = 0; j < v.n; ++j)
            X::store(const_cast<C *>(y.x) + j * y.step, X::load(from.columns + j * X::lanes));
    }

    static Columns<X> in_memory(const AnyView &v, Index outer, Index first) {
        return {reinterpret_cast<const C *>(v.at(outer, first)), v.n_stride / Index(sizeof(C))};
    }
    static AnyView classes(AnyView v, Index first, Index count) {
        v.data += first * v.n_stride, v.n = count;
        return v;
    }

    // `step` classes at a time: all of them, which are gathered once, or (of a single vector) those
    // of a block, gathered anew in every sweep.
    void gathered_columns(Op &op, Index outer, Index first, Index count, Index step) const {
        const Index across = (count + X::lanes - 1) / X::lanes * X::lanes;
        const Scratch<Vector> vector(tile_vectors);
        const Scratch<C> tiles(Op::inputs * step * across);
        const Index used = begin(op, vector, outer, first, count);
        const bool all = step == n();
        bool gathered = false;
        do {
            const bool writes = !all && op.writes(vector[0].state);
            for (Index i = 0; i < n(); i += step) {
                const Index size = n() - i < step ? n() - i : step;
                for (int k = 0; k < Op::inputs && !gathered; ++k) {
                    C *tile = tiles + k * step * across;
                    gather_columns(classes(op.input(k), i, size), true, outer, first, count, across,
                                   tile);
                    for (Index j = 0; j < size; ++j)
                        std::fill(tile + j * across + count, tile + (j + 1) * across, C(0));
                }
                for (Index v = 0; v < used; ++v) {
                    Block &b = vector[v].block;
                    b.first = i, b.count = size, b.y = tiles + v * X::lanes, b.y_step = across;
                    for (int k = 0; k < Op::inputs; ++k)
                        b.x[k] = {tiles + k * step * across + v * X::lanes, across};
                }
                sweep(op, vector, used);
                if (writes)
                    scatter_columns(classes(op.output(), i, size), outer, first, count, across,
                                    static_cast<C *>(tiles), Mask(), C(0));
            }
            gathered = all;
        } while (next(op, vector, used));
        if (all && op.output())
            scatter_columns(op.output(), outer, first, count, across, static_cast<C *>(tiles),
                            Mask(), C(0));
    }

    // Whole vectors, a block of classes of all of them after another.
    void columns_in_memory(Op &op, Index outer, Index first, Index count) const {
        const Scratch<Vector> vector(tile_vectors);
        const Index used = begin(op, vector, outer, first, count);
        do {
            for (Index i = 0; i < n(); i += block_classes) {
                const Index size = n() - i < block_classes ? n() - i : block_classes;
                for (Index v = 0; v < used; ++v) {
                    Block &b = vector[v].block;
                    b.first = i, b.count = size, b.y = nullptr, b.y_step = 0;
                    for (int k = 0; k < Op::inputs; ++k)
                        b.x[k] =
                            in_memory(classes(op.input(k), i, size), outer, first + v * X::lanes);
                    if (!op.output()) continue;
                    const Columns<X> y =
                        in_memory(classes(op.output(), i, size), outer, first + v * X::lanes);
                    b.y = const_cast<C *>(y.x), b.y_step = y.step;
                }
                sweep(op, vector, used);
            }
        } while (next(op, vector, used));
    }
};

template <class Op>
bool all_direct(const Op &op) {
    using C = typename Op::X::Scalar;
    bool direct = !op.output() || columns_direct<C>(op.output());
    for (int k = 0; k < Op::inputs; ++k) direct &= columns_direct<C>(op.input(k));
    return direct;
}

// What the table of drivers is asked about them.
template <class C>
Problem lane_problem(const AnyView &x) {
    return Problem::of(x, sizeof(C), false);
}
// In how many pieces they are done.
template <class X>
std::size_t lane_pieces(const AnyView &x, const Traits &traits) {
    constexpr Index width = tile_vectors * X::lanes;
    const Driver driver = driver_for(lane_problem<typename X::Scalar>(x), traits);
    const int along = lanes_along(x, driver);
    const Index outer = along == along_inner ? x.outer : x.inner,
                inner = along == along_inner ? x.inner : x.outer;
    return along ? static_cast<std::size_t>(outer * ((inner + width - 1) / width)) : 0;
}

// Does an operation with its rows in lanes, or returns false where they are not for that.
template <class Op>
bool run_in_lanes(const Op &op, Index threads) {
    using Tile = LaneTile<Op>;
    static_assert(Op::traits.longest_lane_row <= Tile::longest, "");
    const AnyView &x = op.input(0);
    const int along = lanes_along(x, decide(lane_problem<typename Op::X::Scalar>(x), Op::traits));
    if (!along) return false;
    const Op turned = along == along_inner ? op : op.swapped();
    TilesTask<Tile> work(Tile{turned, all_direct(turned)}, turned.input(0).outer,
                         turned.input(0).inner, Tile::width);
    return execute(work, threads), true;
}

}  // namespace fs
}  // namespace
