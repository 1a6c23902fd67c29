// Binary cross-entropy of scores, its gradient and its curvature.
#pragma once

#include "kernels/drivers/element_losses.h"

namespace {
namespace fs {

// e = exp(-|x|), log(1 + e) and 1 / (1 + e): what sigmoid and softplus of both signs are made of.
template <class X>
struct Logistic {
    using V = typename X::V;
    V e, inverse;
    DoubleDouble<V> log;
    explicit FS_ALWAYS_INLINE Logistic(V x)
        : e(exp_nonpositive<X>(minus_absolute<X>(x))),
          inverse(X::set(1) / (X::set(1) + e)),
          log(log1p_nonnegative<X>(e, V{})) {}
    FS_ALWAYS_INLINE V softplus(V x) const {
        const DoubleDouble<V> s = two_sum(larger(x, V{}), log.hi);
        const V y = s.hi + (s.lo + log.lo);
        // infinities and NaN
        return absolute<X>(x) <= std::numeric_limits<typename X::Scalar>::max() ? y
                                                                                : larger(V{}, x);
    }
    FS_ALWAYS_INLINE V sigmoid(V x) const { return x < V{} ? e * inverse : inverse; }
};

// n sigmoid(x) - p sigmoid(-x) = (c + d e) / (1 + e) with e = exp(-|x|), and c the slope of the
// loss towards large |x|.
template <class X>
struct BinarySlope {
    using V = typename X::V;
    V c, d;
    FS_ALWAYS_INLINE BinarySlope(V x, V n, V p) {
        const auto negative = x < V{};
        c = negative ? -p : n, d = negative ? n : -p;
    }
    FS_ALWAYS_INLINE V above(V e) const { return multiply_add(d, e, c); }
};

struct BinaryLogits {
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply(V x, V t, V weight, V positive, V &loss, V &gradient) const {
        const Logistic<X> f(x);
        const V p = positive * t, n = X::set(1) - t;
        loss = term(weight, term(p, f.softplus(-x)) + term(n, f.softplus(x)));
        gradient = term(weight, BinarySlope<X>(x, n, p).above(f.e) * f.inverse);
    }
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply_hard(V x, V t, V weight, V positive, typename X::Scalar scale,
                                     V &loss, V &gradient) const {
        const V size = absolute<X>(x), p = positive * t, n = X::set(1) - t;
        const BinarySlope<X> slope(x, n, p);
        const SplitExp<X, false> e(minus_absolute<X>(x));
        const auto tail = size > hard_from<X>;  // c |x| + |d| e, c + d e
        apply<X>(x, t, weight, positive, loss, gradient);
        loss = tail ? term(weight, term(absolute<X>(slope.c), size)) +
                          e.times(weight, absolute<X>(slope.d), tail)
                    : loss;
        gradient =
            (tail ? term(weight, slope.c) + e.times(weight, slope.d, tail) : gradient) * scale;
    }
    template <class X, class C = typename X::Scalar>
    FS_ALWAYS_INLINE bool is_hard(const C *x, const C *, Index n, bool weighted, bool) const {
        return weighted &&
               (any_tail<X, 1>(x, n, hard_from<X>) || any_tail<X, -1>(x, n, hard_from<X>));
    }
    // The product of a small weight with an exponential may be subnormal before that is.
    template <class X>
    static constexpr typename X::Scalar hard_from = tail_from<X> / 2;
};

template <>
constexpr bool may_be_hard<BinaryLogits> = true;

// The mean or sum of binary cross-entropies from logits without weights, targets as they are: x, t
// and the gradient are touched once.
//
//     loss = c x + log(1 + e),   gradient = (c + d e) / (1 + e),   e = exp(-|x|)   (BinarySlope)
//
// The logarithms of `group` vectors are taken as one: u = (1 + e1)(1 + e2)... - 1 = u + e + u e has
// no cancellation, all being positive.
template <class C>
struct PlainBinaryWork final : ElementLossWork {
    using X = Vec<C>;
    using V = typename X::V;
    static constexpr Index group = 8;

    explicit PlainBinaryWork(const ElementArguments &arguments) : ElementLossWork(arguments) {}

    void run(Index piece) override {
        Source<C> x(a.x), target(a.target);
        const Sink<C> gradient(a.gradient);
        const V scale = X::set(static_cast<C>(a.scale));
        each_box(piece, [&](Box &box) {
            Accumulator<X> total;
            const auto direct = [&] {
                return x.is_direct(box) && target.is_direct(box) &&
                       (!a.gradient || gradient.is_direct(box));
            };
            each_block(box, direct, [&](const Box &block) {
                const C *xs = x.load_block(block), *ts = target.load_block(block);
                C *g = gradient.block_for(block);
                const auto put = [&](Index i, auto lanes, V above, V below) FS_ALWAYS_INLINE {
                    lanes.store(g + i, above * (X::set(1) / below) * scale);
                };
                if (a.gradient)
                    sweep(xs, ts, block.count, total, put);
                else
                    sweep(xs, ts, block.count, total, [](Index, auto, V, V) FS_ALWAYS_INLINE {});
                gradient.store_block(block, g);
            });
            add(piece, total.total());
        });
    }

  private:
    template <class Put>
    static FS_ALWAYS_INLINE void sweep(const C *x, const C *t, Index n, Accumulator<X> &sums,
                                       Put put) {
        // contributes nothing where the target is 0
        const C least = -std::numeric_limits<C>::infinity();
        const typename std::conditional<ExpCore<X>::overflows, FixedExp<X, false, 0>,
                                        NonpositiveExp<X>>::type exp(Scale<X>::one());
        for (Index i = 0; i < n;) {
            V u = {}, linear = {};
            const auto add = [&](auto lanes) FS_ALWAYS_INLINE {
                const V v = lanes.load(x + i, least), y = lanes.load(t + i, 0),
                        e = exp(minus_absolute<X>(v));
                const BinarySlope<X> slope(v, X::set(1) - y, y);
                linear = linear + term(slope.c, v);
                u = multiply_add(u, e, u) + e;
                put(i, lanes, slope.above(e), X::set(1) + e);
            };
            Index k = 0;
            for (; k < group && i + X::lanes <= n; ++k, i += X::lanes) add(FullVector<X>());
            if (k < group && i < n) add(PartialVector<X>{n - i}), i = n;
            sums.add(sum_of(log1p_nonnegative<X>(u, V{})));
            sums.add(linear);
        }
    }
};

template <class C>
bool is_plain_binary(const ElementArguments &a) {
    return !a.weight && !a.positive && !a.loss && a.x.has_plain_runs<C>() &&
           a.target.has_plain_runs<C>() && (!a.gradient || a.gradient.has_plain_runs<C>());
}

inline double binary_logits_loss(const ElementArguments &a, Index threads) {
    return with_compute({a.x.number}, [&](auto zero) {
        using C = decltype(zero);
        if (!is_plain_binary<C>(a)) return elements_loss(BinaryLogits(), a, threads);
        PlainBinaryWork<C> work(a);
        execute(work, threads);
        return work.total();
    });
}

// Contiguous logits, targets and gradient, of one shape.
template <class C>
double plain_binary_logits(const void *x, const void *target, Number number, void *gradient,
                           Index rows, Index n, double scale, Index threads) {
    const Contiguous scores(rows * n, number_of<C>), targets(rows * n, number);
    ElementArguments a;
    a.x = scores.array(x), a.target = targets.array(target);
    if (gradient) a.gradient = scores.array(gradient);
    a.scale = scale;
    return binary_logits_loss(a, threads);
}

// Arrays of one shape. Without data, the weight is 1.
struct BinaryGradHessArguments {
    AnyArray x, target, weight;
    AnyArray gradient, hessian;
    double factor = 1, floor = 0;
};

// p - t and max(factor p (1 - p), floor) of binary logits, each times a weight.
template <class C>
struct BinaryGradHessWork final : ElementsWork {
    using X = Vec<C>;
    using V = typename X::V;
    const BinaryGradHessArguments &a;

    explicit BinaryGradHessWork(const BinaryGradHessArguments &arguments)
        : ElementsWork({&arguments.x, &arguments.target, &arguments.weight, &arguments.gradient,
                        &arguments.hessian}),
          a(arguments) {}

    void run(Index piece) override {
        Source<C> x(a.x), target(a.target), weight(a.weight);
        const Sink<C> gradient(a.gradient), hessian(a.hessian);
        each_box(piece, [&](Box &box) {
            each_block(
                box, [] { return false; },
                [&](const Box &block) {
                    C *to_gradient = gradient.block_for(block),
                      *to_hessian = hessian.block_for(block);
                    compute(x.load_block(block), target.load_block(block), weight.load_block(block),
                            block.count, to_gradient, to_hessian);
                    gradient.store_block(block, to_gradient);
                    hessian.store_block(block, to_hessian);
                });
        });
    }

  private:
    void compute(const C *xs, const C *ts, const C *ws, Index n, C *gradients, C *hessians) const {
        const V one = X::set(1), f = X::set(static_cast<C>(a.factor)),
                least = X::set(static_cast<C>(a.floor));
        const bool hard = BinaryLogits().template is_hard<X>(xs, ts, n, ws, true);
        for_each_vector<X>(n, [&](Index i, auto lanes) {
            const V x = lanes.load(xs + i, 0), t = lanes.load(ts + i, 0),
                    w = ws ? lanes.load(ws + i, 0) : one;
            const V e = exp_nonpositive<X>(minus_absolute<X>(x)), inverse = one / (one + e);
            const BinarySlope<X> slope(x, one - t, t);
            V gradient = w * (slope.above(e) * inverse),
              hessian = w * larger(least, f * (e * inverse * inverse));
            if (hard) {
                const SplitExp<X, false> split(minus_absolute<X>(x));
                const auto tail = absolute<X>(x) > BinaryLogits::hard_from<X>;
                gradient = tail ? w * slope.c + split.times(w, slope.d, tail) : gradient;
                hessian = tail && !(least > V{}) && f > V{} ? split.times(w, f, tail) : hessian;
            }
            // an element of weight 0 is left out, whatever it holds
            lanes.store(gradients + i, w == V{} ? w : gradient);
            lanes.store(hessians + i, w == V{} ? w : hessian);
        });
    }
};

inline void binary_grad_hess(const BinaryGradHessArguments &a, Index threads) {
    with_compute({a.x.number, number_in(a.target), number_in(a.weight)}, [&](auto zero) {
        BinaryGradHessWork<decltype(zero)> work(a);
        execute(work, threads);
    });
}

}  // namespace fs
}  // namespace
