// Losses that are sums of terms of single elements, and their gradients.
#pragma once

#include "kernels/drivers/elementwise.h"
#include "kernels/simd/accumulator.h"
#include "kernels/simd/loops.h"

namespace {
namespace fs {

// A coefficient of 0 drops its term, be it infinite.
template <class V>
FS_ALWAYS_INLINE inline V term(V coefficient, V value) {
    return coefficient == V{} ? V{} : coefficient * value;
}

// Losses and gradients of single elements. apply(x, target, weight, positive, loss, gradient)
// writes the last two; `weight` and `positive` are 1 where there are none.
//
// Some results are within the range of their type and what they are made of is not: a quotient that
// overflows before a small weight multiplies it, an exponential that is subnormal before a large
// one does. Blocks of elements in which that may be (is_hard) are left to apply_hard, which has no
// such limits, multiplies the gradient by `scale` and gives all others what apply() does.
template <class Op>
constexpr bool may_be_hard = false;

// Arrays of one shape. Without data, a weight is 1, and results are not wanted.
struct ElementArguments {
    AnyArray x, target, weight, positive;
    AnyArray loss, gradient;
    double scale = 1;  // of gradients
};

// Losses and gradients of elements in contiguous blocks.
template <class Op, class C>
struct PointwiseBlock {
    using X = Vec<C>;
    using V = typename X::V;
    Op op;
    C scale;  // of gradients

    PointwiseBlock(Op op_, double scale_) : op(op_), scale(static_cast<C>(scale_)) {}
    void compute(const C *xs, const C *ts, const C *ws, const C *ps, Index n, C *losses,
                 C *gradients, bool keeps_gradient, Accumulator<X> &sums) const {
        bool is_hard = false;
        if constexpr (may_be_hard<Op>) {
            is_hard = op.template is_hard<X>(xs, ts, n, ws || ps, keeps_gradient);
            if (is_hard) hard(xs, ts, ws, ps, n, losses, gradients);
        }
        if (!is_hard) {
            for_each_vector<X>(n, [&](Index i, auto lanes) {
                V l, g;
                const V one = X::set(1);
                op.template apply<X>(lanes.load(xs + i, 0), lanes.load(ts + i, 0),
                                     ws ? lanes.load(ws + i, 0) : one,
                                     ps ? lanes.load(ps + i, 0) : one, l, g);
                lanes.store(losses + i, l);
                lanes.store(gradients + i, g * scale);
            });
        }
        for_each_vector<X>(n, [&](Index i, auto lanes) { sums.add(lanes.load(losses + i, 0)); });
    }

  private:
    __attribute__((noinline)) void hard(const C *xs, const C *ts, const C *ws, const C *ps, Index n,
                                        C *losses, C *gradients) const {
        for_each_vector<X>(n, [&](Index i, auto lanes) {
            V l, g;
            const V one = X::set(1);
            op.template apply_hard<X>(lanes.load(xs + i, 0), lanes.load(ts + i, 0),
                                      ws ? lanes.load(ws + i, 0) : one,
                                      ps ? lanes.load(ps + i, 0) : one, scale, l, g);
            lanes.store(losses + i, l);
            lanes.store(gradients + i, g);
        });
    }
};

// One loss for each element; the sum of them.
struct ElementLossWork : ElementsWork {
    const ElementArguments &a;
    PieceResults<DoubleDouble<>> sums;

    explicit ElementLossWork(const ElementArguments &arguments)
        : ElementsWork({&arguments.x, &arguments.target, &arguments.weight, &arguments.positive,
                        &arguments.loss, &arguments.gradient}),
          a(arguments),
          sums(static_cast<std::size_t>(pieces())) {}
    void add(Index piece, DoubleDouble<> sum) { sums[static_cast<std::size_t>(piece)].add(sum); }
    double total() const { return merged(sums).value(); }
};

template <class Op, class C>
struct PointwiseWork final : ElementLossWork {
    const PointwiseBlock<Op, C> losses;

    PointwiseWork(Op op, const ElementArguments &arguments)
        : ElementLossWork(arguments), losses(op, arguments.scale) {}
    void run(Index piece) override {
        Source<C> x(a.x), target(a.target), weight(a.weight), positive(a.positive);
        const Sink<C> loss(a.loss), gradient(a.gradient);
        each_box(piece, [&](Box &box) {
            Accumulator<Vec<C>> lanes;
            each_block(
                box, [] { return false; },
                [&](const Box &block) {
                    C *to_loss = loss.block_for(block), *to_gradient = gradient.block_for(block);
                    losses.compute(x.load_block(block), target.load_block(block),
                                   weight.load_block(block), positive.load_block(block),
                                   block.count, to_loss, to_gradient, bool(a.gradient), lanes);
                    loss.store_block(block, to_loss);
                    gradient.store_block(block, to_gradient);
                });
            add(piece, lanes.total());
        });
    }
};

// Targets and weights of float64 next to narrower scores are used as they are: 1 - t may be less
// than their rounding error in float32. So are integers, but for booleans.
template <class Array>
Number number_in(const Array &v) {
    return v && v.number != Number::boolean ? v.number : Number::float32;
}

template <class Op>
double elements_loss(Op op, const ElementArguments &a, Index threads) {
    return with_compute(
        {a.x.number, number_in(a.target), number_in(a.weight), number_in(a.positive)},
        [&](auto zero) {
            PointwiseWork<Op, decltype(zero)> work(op, a);
            execute(work, threads);
            return work.total();
        });
}

}  // namespace fs
}  // namespace
