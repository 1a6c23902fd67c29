// Losses that are sums of terms of single elements, and their gradients: binary cross-entropy, nll
// and the divergence of distributions.
#pragma once

#include "flat.h"
#include "lane_rows.h"

namespace {
namespace fs {

// Losses and gradients of single elements. apply(x, target, weight, positive, loss, gradient)
// writes the last two; `weight` and `positive` are 1 where there are none.
//
// Some results are within the range of their type and what they are made of is not: a quotient that
// overflows before a small weight multiplies it, an exponential that is subnormal before a large
// one does. Blocks of elements in which that may be (is_hard) are left to apply_hard, which has no
// such limits, multiplies the gradient by `scale` and gives all others what apply() does.
template <class Op>
constexpr bool may_be_hard = false;

// e = exp(-|x|), log(1 + e) and 1 / (1 + e): what sigmoid and softplus of both signs are made of.
template <class X>
struct Logistic {
    using V = typename X::V;
    V e, inverse;
    Pair<V> log;
    explicit FS_INLINE Logistic(V x)
        : e(exp_nonpositive<X>(minus_absolute<X>(x))),
          inverse(X::set(1) / (X::set(1) + e)),
          log(log1p_nonnegative<X>(e, V{})) {}
    FS_INLINE V softplus(V x) const {
        const Pair<V> s = two_sum(larger(x, V{}), log.hi);
        const V y = s.hi + (s.lo + log.lo);
        // infinities and NaN
        return absolute<X>(x) <= std::numeric_limits<typename X::Scalar>::max() ? y
                                                                                : larger(V{}, x);
    }
    FS_INLINE V sigmoid(V x) const { return x < V{} ? e * inverse : inverse; }
};

// A coefficient of 0 drops its term, be it infinite.
template <class V>
FS_INLINE V term(V coefficient, V value) {
    return coefficient == V{} ? V{} : coefficient * value;
}

// n sigmoid(x) - p sigmoid(-x) = (c + d e) / (1 + e) with e = exp(-|x|), and c the slope of the
// loss towards large |x|.
template <class X>
struct BinarySlope {
    using V = typename X::V;
    V c, d;
    FS_INLINE BinarySlope(V x, V n, V p) {
        const auto negative = x < V{};
        c = negative ? -p : n, d = negative ? n : -p;
    }
    FS_INLINE V above(V e) const { return multiply_add(d, e, c); }
};

struct BinaryLogits {
    template <class X, class V = typename X::V>
    FS_INLINE void apply(V x, V t, V weight, V positive, V &loss, V &gradient) const {
        const Logistic<X> f(x);
        const V p = positive * t, n = X::set(1) - t;
        loss = term(weight, term(p, f.softplus(-x)) + term(n, f.softplus(x)));
        gradient = term(weight, BinarySlope<X>(x, n, p).above(f.e) * f.inverse);
    }
    template <class X, class V = typename X::V>
    FS_INLINE void apply_hard(V x, V t, V weight, V positive, typename X::Scalar scale, V &loss,
                              V &gradient) const {
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
    FS_INLINE bool is_hard(const C *x, const C *, isize n, bool weighted, bool) const {
        return weighted &&
               (any_tail<X, 1>(x, n, hard_from<X>) || any_tail<X, -1>(x, n, hard_from<X>));
    }
    // The product of a small weight with an exponential may be subnormal before that is.
    template <class X>
    static constexpr typename X::Scalar hard_from = tail_from<X> / 2;
};
template <>
constexpr bool may_be_hard<BinaryLogits> = true;

// log(a) for 0 < a < inf in two terms.
template <class X>
FS_INLINE Pair<typename X::V> log_pair(typename X::V a) {
    using T = typename X::Scalar;
    using V = typename X::V;
    constexpr int lift = Format<T>::mantissa + 1;
    const V zero = {};
    const auto subnormal = a < std::numeric_limits<T>::min();
    const V up = subnormal ? a * T(isize(1) << lift) : a;
    return log_ratio<X>({up, zero}, {X::set(1), zero}, up, subnormal ? X::set(-lift) : zero);
}
// log(a) for a >= 0; -inf for a = 0.
template <class X>
FS_INLINE typename X::V log_of(typename X::V a) {
    using T = typename X::Scalar;
    const typename X::V l = sum_of(log_pair<X>(a));
    return a == typename X::V{}                 ? X::set(-std::numeric_limits<T>::infinity())
           : a <= std::numeric_limits<T>::max() ? l
                                                : a;
}

// log(1 - p) = -log(1 / (1 - p)) with 1 - p in two terms.
template <class X>
FS_INLINE typename X::V log_complement(typename X::V p) {
    using T = typename X::Scalar;
    const Pair<typename X::V> q = two_sum(X::set(1), -p);
    const typename X::V one = X::set(1),
                        l = sum_of(log_ratio<X>(q, {one, typename X::V{}}, q.hi, typename X::V{}));
    return p == one ? X::set(-std::numeric_limits<T>::infinity()) : l;
}

// The smaller one of numbers >= 0, or less (its bits, of which the upper halves decide between
// doubles); others do not matter.
template <class X>
FS_INLINE typename X::V closer_to_zero(typename X::V x, typename X::V m) {
#if defined(__AVX512F__)
    if constexpr (sizeof x == 64) return (typename X::V)_mm512_min_epu32((__m512i)m, (__m512i)x);
#elif defined(__AVX2__)
    if constexpr (sizeof x == 32) return (typename X::V)_mm256_min_epu32((__m256i)m, (__m256i)x);
#endif
    return smaller(x, m);
}

struct BinaryProbabilities {
    double clamp;  // the logarithms are at least -clamp
    template <class X, class V = typename X::V>
    FS_INLINE void apply(V p, V t, V weight, V, V &loss, V &gradient) const {
        using T = typename X::Scalar;
        const V zero = {}, one = X::set(1), n = one - t, least = X::set(static_cast<T>(-clamp)),
                nan = X::set(std::numeric_limits<T>::quiet_NaN());
        const V log_p = log_of<X>(p), log_q = log_complement<X>(p);
        // not -0
        const V y = zero - (term(t, larger(least, log_p)) + term(n, larger(least, log_q)));
        // Where a logarithm is clamped it is flat. -t/p and (1-t)/(1-p) apart: their sum (p - t) /
        // (p (1 - p)) would lose the clamp.
        const V rise = log_q < least ? zero : n / (one - p), fall = log_p < least ? zero : t / p;
        const V g = (n == zero ? zero : rise) - (t == zero ? zero : fall);
        const auto inside = p >= zero;
        loss = inside ? (p <= one ? term(weight, y) : nan) : nan;
        gradient = inside ? (p <= one ? term(weight, g) : nan) : nan;
    }
    template <class X, class V = typename X::V>
    FS_INLINE void apply_hard(V p, V t, V weight, V positive, typename X::Scalar scale, V &loss,
                              V &gradient) const {
        apply<X>(p, t, weight, positive, loss, gradient);
        gradient = gradient * scale;
        const V log_p = log_of<X>(p);
        for (isize l = 0; l < X::lanes; ++l) {
            if (!(p[l] > 0 && p[l] < hard_below<X>) || weight[l] == 0) continue;
            const auto most = static_cast<typename X::Scalar>(clamp);
            const long double target = t[l],
                              fall = t[l] == 0 || log_p[l] < -most ? 0 : target / p[l],
                              rise = p[l] > most ? 0 : 1 - target;
            gradient[l] = static_cast<typename X::Scalar>((rise - fall) * weight[l] * scale);
        }
    }
    template <class X, class C = typename X::Scalar>
    FS_INLINE bool is_hard(const C *p, const C *, isize n, bool, bool with_gradient) const {
        if (!with_gradient) return false;
        typename X::V least = X::set(1);
        each_vector<X>(n, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
            least = closer_to_zero<X>(lanes.load(p + i, 1), least);
        });
        if (!any_lane<X>(least < hard_below<X>)) return false;
        bool found = false;  // 0 alone is not
        for (isize i = 0; i < n; ++i) found |= p[i] > 0 && p[i] < hard_below<X>;
        return found;
    }

  private:
    // From here on 1 / p may be large enough that it, or its product with a weight, overflows.
    template <class X>
    static constexpr typename X::Scalar hard_below =
        sizeof(typename X::Scalar) == 4 ? 0x1p-64 : 0x1p-512;
};
template <>
constexpr bool may_be_hard<BinaryProbabilities> = true;

struct Nll {
    template <class X, class V = typename X::V>
    FS_INLINE void apply(V log_p, V t, V weight, V, V &loss, V &gradient) const {
        const V q = weight * t;
        loss = V{} - term(q, log_p);  // not -0
        gradient = V{} - q;
    }
};

struct Divergence {
    template <class X, class V = typename X::V>
    FS_INLINE void apply(V log_q, V p, V, V, V &loss, V &gradient) const {
        const V nan = X::set(std::numeric_limits<typename X::Scalar>::quiet_NaN());
        const Pair<V> log_p = log_pair<X>(p);
        // which may be less than the rounding error of log p
        const V d = (log_p.hi - log_q) + log_p.lo;
        loss =
            term(p, p >= V{} ? (p <= std::numeric_limits<typename X::Scalar>::max() ? d : p - log_q)
                             : nan);
        gradient = V{} - p;
    }
};

// Rows of float whose sum is below this are summed again in double: what their logarithms lack
// (2^-30 of them) would show next to differences of logarithms that are so small. 0: none are.
template <class Op>
constexpr double precise_below = 0;
template <>
constexpr double precise_below<Divergence> = 0x1p-4;

struct DivergenceOfLogs {
    template <class X, class V = typename X::V>
    FS_INLINE void apply(V log_q, V log_p, V, V, V &loss, V &gradient) const {
        const V p = exp_plain<X>(log_p);
        loss = term(p, log_p - log_q);
        gradient = V{} - p;
    }
    template <class X, class V = typename X::V>
    FS_INLINE void apply_hard(V log_q, V log_p, V weight, V positive, typename X::Scalar scale,
                              V &loss, V &gradient) const {
        apply<X>(log_q, log_p, weight, positive, loss, gradient);
        const V d = log_p - log_q;
        const auto tail = log_p < -tail_from<X>;
        loss = tail && absolute<X>(d) <= std::numeric_limits<typename X::Scalar>::max()
                   ? SplitExp<X>(smaller(log_p, V{})).times(d)
                   : loss;
        gradient = gradient * scale;
    }
    template <class X, class C = typename X::Scalar>
    FS_INLINE bool is_hard(const C *, const C *log_p, isize n, bool, bool) const {
        return any_tail<X, 1>(log_p, n);
    }
};
template <>
constexpr bool may_be_hard<DivergenceOfLogs> = true;

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
    void compute(const C *xs, const C *ts, const C *ws, const C *ps, isize n, C *losses,
                 C *gradients, bool keeps_gradient, LaneSums<X> &sums) const {
        bool is_hard = false;
        if constexpr (may_be_hard<Op>) {
            is_hard = op.template is_hard<X>(xs, ts, n, ws || ps, keeps_gradient);
            if (is_hard) hard(xs, ts, ws, ps, n, losses, gradients);
        }
        if (!is_hard) {
            each_vector<X>(n, [&](isize i, auto lanes) {
                V l, g;
                const V one = X::set(1);
                op.template apply<X>(lanes.load(xs + i, 0), lanes.load(ts + i, 0),
                                     ws ? lanes.load(ws + i, 0) : one,
                                     ps ? lanes.load(ps + i, 0) : one, l, g);
                lanes.store(losses + i, l);
                lanes.store(gradients + i, g * scale);
            });
        }
        each_vector<X>(n, [&](isize i, auto lanes) { sums.add(lanes.load(losses + i, 0)); });
    }

  private:
    __attribute__((noinline)) void hard(const C *xs, const C *ts, const C *ws, const C *ps, isize n,
                                        C *losses, C *gradients) const {
        each_vector<X>(n, [&](isize i, auto lanes) {
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
    PieceResults<Sum> sums;

    explicit ElementLossWork(const ElementArguments &arguments)
        : ElementsWork({&arguments.x, &arguments.target, &arguments.weight, &arguments.positive,
                        &arguments.loss, &arguments.gradient}),
          a(arguments),
          sums(static_cast<std::size_t>(pieces())) {}
    void add(isize piece, Sum sum) { sums[static_cast<std::size_t>(piece)].add(sum); }
    double total() const {
        Sum all;
        for (const Sum &s : sums) all.add(s);
        return all.value();
    }
};

template <class Op, class C>
struct PointwiseWork final : ElementLossWork {
    const PointwiseBlock<Op, C> losses;

    PointwiseWork(Op op, const ElementArguments &arguments)
        : ElementLossWork(arguments), losses(op, arguments.scale) {}
    void run(isize piece) override {
        Source<C> x(a.x), target(a.target), weight(a.weight), positive(a.positive);
        const Sink<C> loss(a.loss), gradient(a.gradient);
        each_box(piece, [&](Box &box) {
            LaneSums<Vec<C>> lanes;
            each_block(
                box, [] { return false; },
                [&](const Box &block) {
                    C *to_loss = loss.place(block), *to_gradient = gradient.place(block);
                    losses.compute(x.get(block), target.get(block), weight.get(block),
                                   positive.get(block), block.count, to_loss, to_gradient,
                                   bool(a.gradient), lanes);
                    loss.put(block, to_loss);
                    gradient.put(block, to_gradient);
                });
            add(piece, lanes.total());
        });
    }
};

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
    static constexpr isize group = 8;

    explicit PlainBinaryWork(const ElementArguments &arguments) : ElementLossWork(arguments) {}

    void run(isize piece) override {
        Source<C> x(a.x), target(a.target);
        const Sink<C> gradient(a.gradient);
        const V scale = X::set(static_cast<C>(a.scale));
        each_box(piece, [&](Box &box) {
            LaneSums<X> lanes;
            const auto direct = [&] {
                return x.is_direct(box) && target.is_direct(box) &&
                       (!a.gradient || gradient.is_direct(box));
            };
            each_block(box, direct, [&](const Box &block) {
                const C *xs = x.get(block), *ts = target.get(block);
                C *g = gradient.place(block);
                const auto put = [&](isize i, auto lanes, V above, V below) FS_INLINE_LAMBDA {
                    lanes.store(g + i, above * (X::set(1) / below) * scale);
                };
                if (a.gradient)
                    sweep(xs, ts, block.count, lanes, put);
                else
                    sweep(xs, ts, block.count, lanes, [](isize, auto, V, V) FS_INLINE_LAMBDA {});
                gradient.put(block, g);
            });
            add(piece, lanes.total());
        });
    }

  private:
    template <class Put>
    static FS_INLINE void sweep(const C *x, const C *t, isize n, LaneSums<X> &sums, Put put) {
        // contributes nothing where the target is 0
        const C least = -std::numeric_limits<C>::infinity();
        const typename std::conditional<ExpCore<X>::overflows, FixedExp<X, false, 0>,
                                        NonpositiveExp<X>>::type exp(Scale<X>::one());
        for (isize i = 0; i < n;) {
            V u = {}, linear = {};
            const auto add = [&](auto lanes) FS_INLINE_LAMBDA {
                const V v = lanes.load(x + i, least), y = lanes.load(t + i, 0),
                        e = exp(minus_absolute<X>(v));
                const BinarySlope<X> slope(v, X::set(1) - y, y);
                linear = linear + term(slope.c, v);
                u = multiply_add(u, e, u) + e;
                put(i, lanes, slope.above(e), X::set(1) + e);
            };
            isize k = 0;
            for (; k < group && i + X::lanes <= n; ++k, i += X::lanes) add(AllLanes<X>());
            if (k < group && i < n) add(FirstLanes<X>{n - i}), i = n;
            sums.add(sum_of(log1p_nonnegative<X>(u, V{})));
            sums.add(linear);
        }
    }
};

// Targets and weights of float64 next to narrower scores are used as they are: 1 - t may be less
// than their rounding error in float32. So are integers, but for booleans.
template <class Array>
Number number_in(const Array &v) {
    return v && v.number != Number::boolean ? v.number : Number::float32;
}

template <class Op>
double elements_loss(Op op, const ElementArguments &a, isize threads) {
    return with_compute(
        {a.x.number, number_in(a.target), number_in(a.weight), number_in(a.positive)},
        [&](auto zero) {
            PointwiseWork<Op, decltype(zero)> work(op, a);
            execute(work, threads);
            return work.total();
        });
}

template <class C>
bool is_plain_binary(const ElementArguments &a) {
    return !a.weight && !a.positive && !a.loss && a.x.has_plain_runs<C>() &&
           a.target.has_plain_runs<C>() && (!a.gradient || a.gradient.has_plain_runs<C>());
}
inline double binary_logits_loss(const ElementArguments &a, isize threads) {
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
                           isize rows, isize n, double scale, isize threads) {
    const Contiguous scores(rows * n, number_of<C>), targets(rows * n, number);
    ElementArguments a;
    a.x = scores.array(x), a.target = targets.array(target);
    if (gradient) a.gradient = scores.array(gradient);
    a.scale = scale;
    return binary_logits_loss(a, threads);
}

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
    Reader<C> x, target, weight;
    Writer<C> gradient;
    bool keeps_gradient;

    PointwiseLine(Op op, const PointwiseArguments &a, isize o, isize i, double scale)
        : losses(op, scale),
          x(a.x, o, i),
          target(Reader<C>::broadcast(a.target, o, i)),
          keeps_gradient(a.gradient) {
        if (a.weight) weight = Reader<C>::broadcast(a.weight, o, i);
        if (keeps_gradient) gradient = Writer<C>(a.gradient, o, i);
    }

    void sweep(isize start, isize end, LaneSums<X> &sums) const {
        Scratch<C> x_buffer(gather_block), t_buffer(gather_block), w_buffer(gather_block),
            each(gather_block), results(gather_block);
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const C *xs = x.get(at, size, x_buffer), *ts = target.get(at, size, t_buffer);
            const C *ws = weight.p ? weight.get(at, size, w_buffer) : nullptr;
            losses.compute(xs, ts, ws, nullptr, size, each,
                           keeps_gradient ? gradient.place(at, results) : results, keeps_gradient,
                           sums);
            if (keeps_gradient) gradient.put(at, size, results);
        }
    }
};

// One loss for each row, the sum of its elements', times the weight of the row.
template <class Op, class C>
struct PointwiseRow {
    enum Stage { sum, precise, gradient };
    Op op;
    const PointwiseArguments *a;
    PieceResults<Sum> *sums;  // one for each piece
    isize outer = 0, inner = 0;
    double weight = 1;
    Stage stage = sum;
    ChunkResults<Sum> partial;

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i, stage = sum;
        weight = a->row_weight ? a->row_weight.value(o, i) : 1;
        partial.resize(static_cast<std::size_t>(chunks()));
    }
    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        Sum &result = partial[static_cast<std::size_t>(k)];
        if (stage == precise) {
            result = precise_sum(start, end);
            return;
        }
        LaneSums<Vec<C>> lanes;
        if (weight == 0 && a->gradient)
            clear(start, end);
        else if (weight != 0)
            line(stage == sum && in_place()).sweep(start, end, lanes);
        result = lanes.total();
    }
    bool next() {
        if (stage == gradient) return false;
        Sum all;
        for (const Sum &s : partial) all.add(s);
        if (precise_below<Op> > 0 && sizeof(C) == 4 && stage == sum &&
            std::abs(all.value()) < precise_below<Op>)
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
    __attribute__((noinline)) Sum precise_sum(isize start, isize end) const {
        LaneSums<Vec<double>> lanes;
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
    void clear(isize start, isize end) const {
        Writer<C> to(a->gradient, outer, inner);
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
    static constexpr int inputs = 2;
    enum Stage { sum, precise, gradient };
    struct State {
        LaneSums<X> terms;
        LaneSums<D> wide[wide_parts<X>];
        typename D::V weight[wide_parts<X>], total[wide_parts<X>];
        Stage stage;
    };
    Op op;
    PointwiseArguments a;
    LaneLosses losses;

    PointwiseLanes(Op op_, const PointwiseArguments &arguments, PieceResults<Sum> *sums)
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

    void begin(isize piece) { losses.begin(piece); }
    void end() { losses.end(); }
    void start(State &s, const LaneRows &rows) const {
        s.stage = sum, s.terms = {};
        for (auto &w : s.wide) w = {};
        for (auto &w : s.weight) w = D::set(1);
        for (isize l = 0; a.row_weight && l < rows.count; ++l)
            s.weight[l / D::lanes][l % D::lanes] = a.row_weight.value(rows.outer, rows.first + l);
    }
    void sweep(State &s, const Block &b) const {
        if (s.stage == sum) {
            LaneSums<X> terms = s.terms;
            each_class(b, [&](isize, V loss, V) FS_INLINE_LAMBDA { terms.add(loss); });
            s.terms = terms;
        } else if (s.stage == precise) {
            add_precise(s, b);
        } else {
            typename D::V wide[wide_parts<X>];
            for (int p = 0; p < wide_parts<X>; ++p) wide[p] = s.weight[p] * a.scale;
            const V factor = from_wide<X>(wide), weight = from_wide<X>(s.weight);
            each_class(b, [&](isize j, V, V g)
                              FS_INLINE_LAMBDA { b.store(j, weight == V{} ? V{} : g * factor); });
        }
    }
    bool next(State &s, const LaneRows &rows, const Block &) {
        if (s.stage == gradient) return false;
        double loss[X::lanes];
        bool small = false;
        for (int p = 0; p < wide_parts<X>; ++p) {
            if (s.stage == sum) s.total[p] = value(s.terms.part(p));
            const auto again = are_small(s, p);
            small |= any_lane<D>(again & ((D::indices() + p * D::lanes) < rows.count));
            if (s.stage == precise) s.total[p] = again ? value(s.wide[p].part(0)) : s.total[p];
            D::store(loss + p * D::lanes,
                     s.weight[p] == typename D::V{} ? typename D::V{} : s.weight[p] * s.total[p]);
        }
        if (small && s.stage == sum) return s.stage = precise, true;
        losses.put(rows, loss);
        s.stage = gradient;
        return static_cast<bool>(a.gradient);
    }

  private:
    static FS_INLINE typename D::V value(Pair<typename D::V> s) {
        return s.hi - s.hi == typename D::V{} ? s.hi + s.lo : s.hi;
    }
    // Which rows are summed again, in double.
    static FS_INLINE typename D::I are_small(const State &s, int part) {
        if (!(precise_below<Op> > 0 && sizeof(C) == 4)) return typename D::I{};
        return (absolute<D>(s.total[part]) < precise_below<Op>)&(s.weight[part] != typename D::V{});
    }
    double class_weight(isize c) const { return a.weight ? a.weight.value(0, c, 0) : 1; }

    // body(index in the block, loss, gradient without the factor)
    template <class Body>
    FS_INLINE void each_class(const Block &b, Body body) const {
        for (isize j = 0; j < b.count; ++j) {
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
        for (isize j = 0; j < b.count; ++j) {
            for (int p = 0; p < wide_parts<X>; ++p) {
                typename D::V loss, g;
                op.template apply<D>(wide_part<X>(b.x[0][j], p), wide_part<X>(b.x[1][j], p),
                                     D::set(class_weight(b.first + j)), D::set(1), loss, g);
                s.wide[p].add(loss);
            }
        }
    }
};

template <class Op>
double rows_loss(Op op, const PointwiseArguments &a, isize threads) {
    const isize rows = a.x.outer * a.x.inner;
    return with_compute({a.x.number, number_in(a.target), number_in(a.weight)}, [&](auto zero) {
        using C = decltype(zero);
        const std::size_t row_pieces =
            static_cast<std::size_t>((rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n));
        PieceResults<Sum> sums(std::max(row_pieces, lane_pieces<Vec<C>>(a.x)));
        using Lanes = PointwiseLanes<Op, C>;
        if (!Lanes::suit(a) || !run_in_lanes(Lanes(op, a, &sums), threads)) {
            RowsWork<PointwiseRow<Op, C>> work({op, &a, &sums}, a.x.outer, a.x.inner, a.x.n,
                                               threads);
            execute(work, threads);
        }
        return total_of(sums);
    });
}

// nll with labels: one number of each row is read, one of its gradient is not 0. (Pieces are rows;
// `ignored` and labels that are no classes do not count.)
struct NllLabelRow {
    const PointwiseArguments *a;
    PieceResults<Sum> *sums;
    isize ignored, piece = 0;

    void begin(isize p) { piece = p; }
    void end() {}
    void rows(isize o, isize first, isize count) {
        for (isize i = first; i < first + count; ++i) row(o, i);
    }

  private:
    void row(isize o, isize i) {
        const isize y = a->target.integer(o, i), n = a->x.n;
        const double row = a->row_weight ? a->row_weight.value(o, i) : 1;
        const bool counts = y >= 0 && y < n && y != ignored && row != 0;
        const double c = counts && a->weight ? a->weight.value(0, y, 0) : 1, w = c * row;
        // a class of no weight: whatever its logarithm is
        const double loss = counts && c != 0 ? 0 - w * a->x.value(o, y, i) : 0;
        if (a->loss) a->loss.store(o, 0, i, loss);
        (*sums)[static_cast<std::size_t>(piece)].add({loss, 0});
        if (!a->gradient) return;
        const isize size = size_of(a->gradient.number);
        if (a->gradient.n_stride == size)
            std::memset(a->gradient.at(o, i), 0, static_cast<std::size_t>(n * size));
        else
            Writer<float>(a->gradient, o, i).fill(n, 0);
        if (counts) a->gradient.store(o, y, i, -w * a->scale);
    }
};

inline double nll_labels_loss(const PointwiseArguments &a, isize ignored, isize threads) {
    const isize rows = a.x.outer * a.x.inner;
    PieceResults<Sum> sums(
        static_cast<std::size_t>((rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n)));
    WholeRowsWork<NllLabelRow> work({&a, &sums, ignored}, a.x.outer, a.x.inner, a.x.n);
    execute(work, threads);
    Sum all;
    for (const Sum &s : sums) all.add(s);
    return all.value();
}

// --- boosting ------------------------------------------------------------------------------------
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

    void run(isize piece) override {
        Source<C> x(a.x), target(a.target), weight(a.weight);
        const Sink<C> gradient(a.gradient), hessian(a.hessian);
        each_box(piece, [&](Box &box) {
            each_block(
                box, [] { return false; },
                [&](const Box &block) {
                    C *to_gradient = gradient.place(block), *to_hessian = hessian.place(block);
                    compute(x.get(block), target.get(block), weight.get(block), block.count,
                            to_gradient, to_hessian);
                    gradient.put(block, to_gradient);
                    hessian.put(block, to_hessian);
                });
        });
    }

  private:
    void compute(const C *xs, const C *ts, const C *ws, isize n, C *gradients, C *hessians) const {
        const V one = X::set(1), f = X::set(static_cast<C>(a.factor)),
                least = X::set(static_cast<C>(a.floor));
        const bool hard = BinaryLogits().template is_hard<X>(xs, ts, n, ws, true);
        each_vector<X>(n, [&](isize i, auto lanes) {
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

inline void binary_grad_hess(const BinaryGradHessArguments &a, isize threads) {
    with_compute({a.x.number, number_in(a.target), number_in(a.weight)}, [&](auto zero) {
        BinaryGradHessWork<decltype(zero)> work(a);
        execute(work, threads);
    });
}

}  // namespace fs
}  // namespace
