// Losses of elements of rows that have weights of their own, and their gradients.
#pragma once

#include "kernels/drivers/element_losses.h"
#include "kernels/drivers/lane_log.h"
#include "kernels/drivers/long_rows.h"
#include "kernels/simd/loops.h"

namespace {
namespace fs {

// Rows of float whose sum is below this are summed again in double. 0: none are.
template <class Op>
constexpr double precise_below = 0;

struct PointwiseArguments {
    AnyView x;
    AnyView target, weight;  // of the shape of x, or broadcast to it; without data: 1 (not target)
    AnyView row_weight;      // of rows
    AnyView loss, gradient;  // without data: not wanted
    double scale = 1;
};

// A line of elements, in blocks.
template <class Op, class C>
struct PointwiseLine {
    using X = Vec<C>;
    PointwiseBlock<Op, C> losses;
    InputLine<C> x, target, weight;
    OutputLine<C> gradient;
    bool keeps_gradient;

    PointwiseLine(Op op, const PointwiseArguments &a, Index o, Index i, double scale)
        : losses(op, scale),
          x(a.x, o, i),
          target(InputLine<C>::broadcast(a.target, o, i)),
          keeps_gradient(a.gradient) {
        if (a.weight) weight = InputLine<C>::broadcast(a.weight, o, i);
        if (keeps_gradient) gradient = OutputLine<C>(a.gradient, o, i);
    }

    void sweep(Index start, Index end, Accumulator<X> &sums) const {
        Scratch<C> x_buffer(gather_block), t_buffer(gather_block), w_buffer(gather_block),
            each(gather_block), results(gather_block);
        for_each_block(start, end, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const C *xs = x.load_block(at, size, x_buffer),
                    *ts = target.load_block(at, size, t_buffer);
            const C *ws = weight.p ? weight.load_block(at, size, w_buffer) : nullptr;
            losses.compute(xs, ts, ws, nullptr, size, each,
                           keeps_gradient ? gradient.block_for(at, results) : results,
                           keeps_gradient, sums);
            if (keeps_gradient) gradient.store_block(at, size, results);
        });
    }
};

// One loss for each row, the sum of its elements', times the weight of the row.
template <class Op, class C>
struct PointwiseRow {
    enum Stage { sum, precise, gradient };
    Op op;
    const PointwiseArguments *a;
    PieceResults<DoubleDouble<>> *sums;  // one for each piece
    double small = precise_below<Op>;
    Index outer = 0, inner = 0;
    double weight = 1;
    Stage stage = sum;
    using Partial = DoubleDouble<>;

    Index n() const { return a->x.n; }

    void start(Index o, Index i) {
        outer = o, inner = i, stage = sum;
        weight = a->row_weight ? a->row_weight.value(o, i) : 1;
    }
    void sweep(Index start, Index end, DoubleDouble<> &result) {
        if (stage == precise) {
            result = precise_sum(start, end);
            return;
        }
        Accumulator<Vec<C>> lanes;
        if (weight == 0 && a->gradient)
            clear(start, end);
        else if (weight != 0)
            line(stage == sum && in_place()).sweep(start, end, lanes);
        result = lanes.total();
    }
    bool next(const ChunkResults<DoubleDouble<>> &partial) {
        if (stage == gradient) return false;
        const DoubleDouble<> all = merged(partial);
        if (precise_below<Op> > 0 && sizeof(C) == 4 && stage == sum &&
            std::abs(all.value()) < small)
            return stage = precise, true;
        const double loss = weight * all.value();
        if (a->loss) a->loss.store(outer, 0, inner, loss);
        (*sums)[static_cast<std::size_t>((outer * a->x.inner + inner) / rows_per_piece(n()))].add(
            {loss, 0});
        stage = gradient;
        return in_place();
    }

  private:
    PointwiseLine<Op, C> line(bool loss_alone) const {
        if (loss_alone) return {op, losses(), outer, inner, weight * a->scale};
        return {op, *a, outer, inner, weight * a->scale};
    }
    __attribute__((noinline)) DoubleDouble<> precise_sum(Index start, Index end) const {
        Accumulator<Vec<double>> lanes;
        PointwiseLine<Op, double>(op, losses(), outer, inner, 0).sweep(start, end, lanes);
        return lanes.total();
    }
    PointwiseArguments losses() const {
        PointwiseArguments without_gradient = *a;
        without_gradient.gradient = {};
        return without_gradient;
    }
    // Whether the gradient must wait, since it takes the place of numbers that may be read again.
    bool in_place() const {
        return precise_below<Op> > 0 && sizeof(C) == 4 && a->gradient &&
               (a->gradient.data == a->x.data || a->gradient.data == a->target.data);
    }
    // A row of weight 0 is left out, whatever it holds.
    void clear(Index start, Index end) const {
        OutputLine<C> to(a->gradient, outer, inner);
        to.p += start * to.stride;
        to.fill(end - start, 0);
    }
};

// The same with rows in lanes.
template <class Op, class C>
struct PointwiseLanes {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    using Block = LaneBlock<X, 2>;
    static constexpr Traits traits = in_lanes(Op::operation, short_log_row);
    static constexpr int inputs = 2;
    enum Stage { sum, precise, gradient };
    struct State {
        Accumulator<X> terms;
        Accumulator<D> wide[wide_parts<X>];
        typename D::V weight[wide_parts<X>], total[wide_parts<X>];
        Stage stage;
    };
    Op op;
    PointwiseArguments a;
    LaneLosses losses;

    PointwiseLanes(Op op_, const PointwiseArguments &arguments, PieceResults<DoubleDouble<>> *sums)
        : op(op_), a(arguments), losses{arguments.loss, sums} {}
    // Weights of classes, if there are any, are those of every row.
    static bool suit(const PointwiseArguments &a) {
        return a.target.n == a.x.n && !a.weight.outer_stride && !a.weight.inner_stride;
    }

    PointwiseLanes swapped() const {
        PointwiseArguments s = a;
        s.x = a.x.swapped(), s.target = a.target.swapped(), s.row_weight = a.row_weight.swapped();
        s.loss = a.loss.swapped(), s.gradient = a.gradient.swapped();
        return {op, s, losses.sums};
    }
    const AnyView &input(int k) const { return k ? a.target : a.x; }
    const AnyView &output() const { return a.gradient; }
    bool writes(const State &s) const { return s.stage == gradient; }

    void begin(Index piece) { losses.begin(piece); }
    void end() { losses.end(); }
    void start(State &s, const LaneRows &rows) const {
        s.stage = sum, s.terms = {};
        for (auto &w : s.wide) w = {};
        for (auto &w : s.weight) w = D::set(1);
        for (Index l = 0; a.row_weight && l < rows.count; ++l)
            s.weight[l / D::lanes][l % D::lanes] = a.row_weight.value(rows.outer, rows.first + l);
    }
    void sweep(State &s, const Block &b) const {
        if (s.stage == sum) {
            Accumulator<X> terms = s.terms;
            each_class(b, [&](Index, V loss, V) FS_ALWAYS_INLINE { terms.add(loss); });
            s.terms = terms;
        } else if (s.stage == precise) {
            add_precise(s, b);
        } else {
            typename D::V wide[wide_parts<X>];
            for (int p = 0; p < wide_parts<X>; ++p) wide[p] = s.weight[p] * a.scale;
            const V factor = from_wide<X>(wide), weight = from_wide<X>(s.weight);
            each_class(b, [&](Index j, V, V g)
                              FS_ALWAYS_INLINE { b.store(j, weight == V{} ? V{} : g * factor); });
        }
    }
    bool next(State &s, const LaneRows &rows, const Block &) {
        if (s.stage == gradient) return false;
        double loss[X::lanes];
        bool small = false;
        for (int p = 0; p < wide_parts<X>; ++p) {
            if (s.stage == sum) s.total[p] = s.terms.part(p).value();
            const auto again = are_small(s, p);
            small |= any_lane<D>(again & ((D::indices() + p * D::lanes) < rows.count));
            if (s.stage == precise) s.total[p] = again ? s.wide[p].part(0).value() : s.total[p];
            D::store(loss + p * D::lanes,
                     s.weight[p] == typename D::V{} ? typename D::V{} : s.weight[p] * s.total[p]);
        }
        if (small && s.stage == sum) return s.stage = precise, true;
        losses.put(rows, loss);
        s.stage = gradient;
        return static_cast<bool>(a.gradient);
    }

  private:
    // Which rows are summed again, in double.
    static FS_ALWAYS_INLINE typename D::I are_small(const State &s, int part) {
        if (!(precise_below<Op> > 0 && sizeof(C) == 4)) return typename D::I{};
        return (absolute<D>(s.total[part]) < precise_below<Op>)&(s.weight[part] != typename D::V{});
    }
    double class_weight(Index c) const { return a.weight ? a.weight.value(0, c, 0) : 1; }

    // body(index in the block, loss, gradient without the factor)
    template <class Body>
    FS_ALWAYS_INLINE void each_class(const Block &b, Body body) const {
        for (Index j = 0; j < b.count; ++j) {
            const V x = b.x[0][j], t = b.x[1][j], one = X::set(1),
                    w = a.weight ? X::set(static_cast<C>(class_weight(b.first + j))) : one;
            V loss, g;
            if constexpr (may_be_hard<Op>) {
                if (op.template is_hard<X>(b.x[0].x + j * b.x[0].step, b.x[1].x + j * b.x[1].step,
                                           X::lanes, bool(a.weight), bool(a.gradient))) {
                    op.template apply_hard<X>(x, t, w, one, C(1), loss, g);
                    body(j, loss, g);
                    continue;
                }
            }
            op.template apply<X>(x, t, w, one, loss, g);
            body(j, loss, g);
        }
    }
    __attribute__((noinline)) void add_precise(State &s, const Block &b) const {
        for (Index j = 0; j < b.count; ++j) {
            for (int p = 0; p < wide_parts<X>; ++p) {
                typename D::V loss, g;
                op.template apply<D>(wide_part<X>(b.x[0][j], p), wide_part<X>(b.x[1][j], p),
                                     D::set(class_weight(b.first + j)), D::set(1), loss, g);
                s.wide[p].add(loss);
            }
        }
    }
};

// Whether the elements of a view are next to each other, the last axis first.
inline bool is_dense(const AnyView &v) {
    const Index size = size_of(v.number);
    return (v.inner == 1 || v.inner_stride == size) && (v.n == 1 || v.n_stride == v.inner * size) &&
           (v.outer == 1 || v.outer_stride == v.n * v.inner * size);
}
// Where the sum of all rows is wanted alone, it does not matter which element is of which row: if
// the arrays are blocks of memory in the same order, they are one long row. (Rows of three: a
// seventh of the time.)
inline bool is_one_row(const PointwiseArguments &a) {
    if (a.loss || a.weight || a.row_weight || a.target.n != a.x.n) return false;
    const auto all = [&](auto holds) {
        return holds(a.x) && holds(a.target) && (!a.gradient || holds(a.gradient));
    };
    return all([](const AnyView &v) { return is_dense(v); }) ||
           all([](const AnyView &v) { return is_dense(v.swapped()); });
}
inline AnyView as_one_row(AnyView v) {
    v.n *= v.outer * v.inner;
    v.outer = v.inner = 1;
    v.n_stride = size_of(v.number);
    return v;
}

template <class Op>
double rows_loss(Op op, const PointwiseArguments &given, Index threads) {
    PointwiseArguments a = given;
    if (is_one_row(given)) {
        a.x = as_one_row(a.x), a.target = as_one_row(a.target);
        if (a.gradient) a.gradient = as_one_row(a.gradient);
    }
    const double small =
        precise_below<Op> * static_cast<double>(a.x.n / std::max(given.x.n, Index(1)));
    const Index rows = a.x.outer * a.x.inner;
    return with_compute({a.x.number, number_in(a.target), number_in(a.weight)}, [&](auto zero) {
        using C = decltype(zero);
        const std::size_t row_pieces =
            static_cast<std::size_t>((rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n));
        PieceResults<DoubleDouble<>> sums(
            std::max(row_pieces, lane_pieces<Vec<C>>(a.x, PointwiseLanes<Op, C>::traits)));
        using Lanes = PointwiseLanes<Op, C>;
        if (!Lanes::suit(a) || !run_in_lanes(Lanes(op, a, &sums), threads)) {
            run_long_rows(PointwiseRow<Op, C>{op, &a, &sums, small}, a.x.outer, a.x.inner, threads);
        }
        return merged(sums).value();
    });
}

}  // namespace fs
}  // namespace
