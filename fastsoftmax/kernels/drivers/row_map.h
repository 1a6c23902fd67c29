// Columns and short rows of operations that map a row by sums of it; which driver runs.
#pragma once

#include "kernels/drivers/regime.h"
#include "kernels/drivers/row_map_rows.h"

namespace {
namespace fs {

// A vector of columns at a time: those of tiles of the inner axis, where they are or gathered, and
// short rows across lanes.
template <class T, class Op>
struct MapTile {
    using X = Vec<T>;
    using V = typename X::V;
    using Inputs = Vectors<X, Op::inputs>;
    static constexpr Index width = tile_vectors * X::lanes;

    const RowMapArguments *a;
    bool direct;  // the columns are contiguous in memory

    void run(Index outer, Index first, Index count) const {
        const Index n = a->n(), size = sizeof(T);
        if (!direct && n <= short_row) return run_short(outer, first, count);
        const bool staged = !direct;
        const Scratch<T> room(staged ? Op::inputs * n * width : 0);
        Columns c;
        for (int k = 0; k < Op::inputs; ++k) {
            c.in[k] = gather_columns<T>(a->input[k], staged, outer, first, count, width,
                                        room + k * n * width, a->where, false, 0);
            c.step[k] = staged ? width : a->input[k].n_stride / size;
        }
        c.out = staged ? room : reinterpret_cast<T *>(a->out.at(outer, first));
        c.out_step = staged ? width : a->out.n_stride / size;
        for (Index at = 0; at < count; at += X::lanes) {
            if (count - at >= X::lanes)
                columns(c.from(at), outer, first + at, X::lanes, FullVector<X>());
            else
                columns(c.from(at), outer, first + at, count - at, PartialVector<X>{count - at});
        }
        if (staged) scatter_columns(a->out, outer, first, count, width, c.out, a->where, T(0));
    }

  private:
    struct Columns {
        const T *in[Op::inputs];
        T *out;
        Index step[Op::inputs], out_step;

        FS_ALWAYS_INLINE Columns from(Index at) const {
            Columns c = *this;
            for (const T *&p : c.in) p += at;
            c.out += at;
            return c;
        }
        template <class Lanes>
        FS_ALWAYS_INLINE Inputs load(Index i, Lanes lanes) const {
            return Inputs::each(
                [&](int k) FS_ALWAYS_INLINE { return lanes.load(in[k] + i * step[k], 0); });
        }
    };

    void run_short(Index outer, Index first, Index count) const {
        for (Index at = 0; at < count; at += X::lanes) {
            const Index size = count - at < X::lanes ? count - at : X::lanes;
            ShortRows<X> rows[Op::inputs];
            Columns c;
            for (int k = 0; k < Op::inputs; ++k) {
                rows[k].gather(a->input[k], outer, first + at, size, a->where, false, 0);
                c.in[k] = rows[k].columns, c.step[k] = X::lanes;
            }
            ShortRows<X> &results = rows[Op::inputs - 1];
            c.out = results.columns, c.out_step = X::lanes;
            columns(c, outer, first + at, size, FullVector<X>());
            results.scatter(a->out, outer, first + at, size, a->where, T(0));
        }
    }

    // One vector of columns, `count` of which are there.
    template <class Lanes>
    void columns(const Columns &c, Index outer, Index first, Index count, Lanes lanes) const {
        const auto sums = sum(c, lanes, Unscaled<X, Op::inputs>());
        const V factor = factors(outer, first, count);
        if constexpr (Op::rescales) {
            const typename X::I lost =
                Op::lost(sums) & (X::indices() < static_cast<typename Format<T>::Int>(count));
            if (any_lane<X>(lost)) return rescaled(c, lanes, lost, factor);
        }
        write(c, lanes, RowResult<X, Op, Unscaled<X, Op::inputs>>(sums, {}, factor));
    }
    template <class Lanes>
    __attribute__((noinline)) void rescaled(const Columns &c, Lanes lanes, typename X::I lost,
                                            V factor) const {
        Inputs largest = {};
        for (Index i = 0; i < a->n(); ++i) keep_larger(largest, c.load(i, lanes));
        const PowersOfTwo<X, Op::inputs> scales(largest, lost);
        write(c, lanes,
              RowResult<X, Op, PowersOfTwo<X, Op::inputs>>(sum(c, lanes, scales), scales, factor));
    }
    template <class Lanes, class Scales>
    FS_ALWAYS_INLINE Vectors<X, Op::sums> sum(const Columns &c, Lanes lanes,
                                              const Scales &scales) const {
        constexpr Index together = Op::added_together;
        const Index n = a->n();
        RowSums<X, Op::sums> sums;
        for (Index i = 0; i < n; i += together) {
            Vectors<X, Op::sums> some = {};
            for (Index j = i; j < n && j < i + together; ++j)
                some = some + terms_of<X, Op>(scales.apply(c.load(j, lanes)));
            sums.add(some);
        }
        return Vectors<X, Op::sums>::each([&](int s) FS_ALWAYS_INLINE {
            typename Vec<double>::V wide[wide_parts<X>];
            for (int k = 0; k < wide_parts<X>; ++k) {
                const auto sum = sums.sums[s].part(k);
                // the error of an infinite sum is NaN
                wide[k] = sum.hi + (sum.lo == sum.lo ? sum.lo : typename Vec<double>::V{});
            }
            return from_wide<X>(wide);
        });
    }
    template <class Lanes, class Result>
    FS_ALWAYS_INLINE void write(const Columns &c, Lanes lanes, const Result &result) const {
        for (Index i = 0; i < a->n(); ++i)
            lanes.store(c.out + i * c.out_step, result(c.load(i, lanes)));
    }

    // 1 / temperature of each column.
    V factors(Index outer, Index first, Index count) const {
        if (!Op::has_temperature) return X::set(1);
        if (!a->temperature.outer_stride && !a->temperature.inner_stride)
            return X::set(static_cast<T>(1 / *a->temperature.data));
        V f = {};
        for (Index l = 0; l < count; ++l)
            f[l] = static_cast<T>(1 / *a->temperature.at(outer, first + l));
        return f;
    }
};

template <class Op, class T>
void row_map_of(const RowMapArguments &a, Index threads) {
    using Tile = MapTile<T, Op>;
    const bool direct =
        !a.where.data && a.all<Op>([](const AnyView &v) { return columns_direct<T>(v); });
    const RowMapArguments s = a.swapped();
    const AnyView &x = a.input[0];
    const bool plain =
        !a.where.data && a.all<Op>([](const AnyView &v) { return v.template plain<T>(); });
    static constexpr Traits traits = {Op::operation, short_row, false, false, false, true, true},
                            gathered = {Op::operation, short_row, false, false, false, true, false};
    Problem p = Problem::of(x, sizeof(T), false);
    p.columns_direct = direct;
    const Driver driver = decide(p, plain && a.n() >= Vec<T>::lanes ? traits : gathered);
    if (driver != Driver::row_batch && driver != Driver::long_rows) {
        const int lanes_run = lanes_along(x, driver);
        const RowMapArguments &t =
            direct || lanes_run == along_inner || (!lanes_run && columns_staged(x)) ? a : s;
        TilesTask<Tile> work(Tile{&t, direct}, t.out.outer, t.out.inner, Tile::width);
        return execute(work, threads);
    }
    if (driver == Driver::row_batch) {
        const RowMapArguments &t = x.inner == 1 ? s : a;
        WholeRowsTask<MapRows<T, Op>> work(MapRows<T, Op>(t), t.out.outer, t.out.inner, t.n());
        return execute(work, threads);
    }
    run_long_rows(MapRow<T, Op>(a), x.outer, x.inner, threads);
}

template <class Op>
void row_map(Op, const RowMapArguments &a, Index threads) {
    const Number first = a.input[0].number;
    with_compute({first, Op::inputs == 1 ? first : a.input[1].number, a.out.number},
                 [&](auto zero) { row_map_of<Op, decltype(zero)>(a, threads); });
}

// Contiguous rows, without options.
template <class Op, class T>
void plain_row_map_pair(const void *x, const void *y, void *out, Index rows, Index n,
                        Index threads) {
    const auto matrix = [&](const void *p) {
        return AnyView::matrix(p, number_of<T>, rows, n);
    };
    RowMapArguments a{{matrix(x), matrix(y)}, matrix(out), View<const double>::one(), {}};
    row_map_of<Op, T>(a, threads);
}

template <class Op, class T>
void plain_row_map(const void *x, void *out, Index rows, Index n, Index threads) {
    plain_row_map_pair<Op, T>(x, x, out, rows, n, threads);
}

}  // namespace fs
}  // namespace
