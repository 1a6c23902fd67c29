// Losses that are sums of terms of single elements, and their gradients: binary cross-entropy, nll and the divergence of distributions.
#pragma once

#include "flat.h"
#include "rows.h"

namespace {
namespace fs {

// Losses and gradients of single elements. apply(x, target, weight, positive, loss, gradient) writes the last two; `weight` and `positive` are 1
// where there are none.

// e = exp(-|x|), log(1 + e) and 1 / (1 + e): what sigmoid and softplus of both signs are made of.
template <class X> struct Logistic {
    using V = typename X::V;
    V e, inverse;
    Pair<V> log;
    explicit FS_INLINE Logistic(V x) : e(exp_plain<X>(-absolute<X>(x))), inverse(X::set(1) / (X::set(1) + e)), log(log1p_nonnegative<X>(e, V{})) {}
    FS_INLINE V softplus(V x) const {
        const Pair<V> s = two_sum(larger(x, V{}), log.hi);
        const V y = s.hi + (s.lo + log.lo);
        return absolute<X>(x) <= std::numeric_limits<typename X::Scalar>::max() ? y : larger(V{}, x);  // infinities and NaN
    }
    FS_INLINE V sigmoid(V x) const { return x < V{} ? e * inverse : inverse; }
};

// A coefficient of 0 drops its term, be it infinite.
template <class V> FS_INLINE V term(V coefficient, V value) { return coefficient == V{} ? V{} : coefficient * value; }

// n sigmoid(x) - p sigmoid(-x) = (c + d e) / (1 + e) with e = exp(-|x|), and c the slope of the loss towards large |x|.
template <class X> struct BinarySlope {
    using V = typename X::V;
    V c, d;
    FS_INLINE BinarySlope(V x, V n, V p) {
        const auto negative = x < V{};
        c = negative ? -p : n, d = negative ? n : -p;
    }
    FS_INLINE V above(V e) const { return multiply_add(d, e, c); }
};

struct BinaryLogits {
    template <class X, class V = typename X::V> FS_INLINE void apply(V x, V t, V weight, V positive, V &loss, V &gradient) const {
        const Logistic<X> f(x);
        const V p = positive * t, n = X::set(1) - t;
        loss = term(weight, term(p, f.softplus(-x)) + term(n, f.softplus(x)));
        gradient = term(weight, BinarySlope<X>(x, n, p).above(f.e) * f.inverse);
    }
};

// log(a / b) for 0 <= a, b = 1 or 1 - a; -inf for a = 0.
template <class X> FS_INLINE typename X::V log_quotient(typename X::V a, Pair<typename X::V> b) {
    using T = typename X::Scalar;
    using V = typename X::V;
    constexpr int lift = Format<T>::mantissa + 1;
    const V zero = {};
    const auto subnormal = a < std::numeric_limits<T>::min();
    const V up = subnormal ? a * T(isize(1) << lift) : a;
    const V l = sum_of(log_ratio<X>({up, zero}, b, up / b.hi, subnormal ? X::set(-lift) : zero));
    return a == zero ? X::set(-std::numeric_limits<T>::infinity()) : a <= std::numeric_limits<T>::max() ? l : a;
}
template <class X> FS_INLINE typename X::V log_of(typename X::V a) { return log_quotient<X>(a, {X::set(1), typename X::V{}}); }

// log(1 - p) = -log(1 / (1 - p)) with 1 - p in two terms.
template <class X> FS_INLINE typename X::V log_complement(typename X::V p) {
    using T = typename X::Scalar;
    const Pair<typename X::V> q = two_sum(X::set(1), -p);
    const typename X::V one = X::set(1), l = sum_of(log_ratio<X>(q, {one, typename X::V{}}, q.hi, typename X::V{}));
    return p == one ? X::set(-std::numeric_limits<T>::infinity()) : l;
}

struct BinaryProbabilities {
    double clamp;  // the logarithms are at least -clamp
    template <class X, class V = typename X::V> FS_INLINE void apply(V p, V t, V weight, V, V &loss, V &gradient) const {
        using T = typename X::Scalar;
        const V zero = {}, one = X::set(1), n = one - t, least = X::set(static_cast<T>(-clamp)), nan = X::set(std::numeric_limits<T>::quiet_NaN());
        const V log_p = log_of<X>(p), log_q = log_complement<X>(p);
        const V y = zero - (term(t, larger(least, log_p)) + term(n, larger(least, log_q)));  // not -0
        // Where a logarithm is clamped it is flat. -t/p and (1-t)/(1-p) apart: their sum (p - t) / (p (1 - p)) would lose the clamp.
        const V g = term(n, log_q < least ? zero : one / (one - p)) - term(t, log_p < least ? zero : one / p);
        const auto inside = p >= zero;
        loss = inside ? (p <= one ? term(weight, y) : nan) : nan;
        gradient = inside ? (p <= one ? term(weight, g) : nan) : nan;
    }
};

struct Nll {
    template <class X, class V = typename X::V> FS_INLINE void apply(V log_p, V t, V weight, V, V &loss, V &gradient) const {
        const V q = weight * t;
        loss = V{} - term(q, log_p);  // not -0
        gradient = V{} - q;
    }
};

struct Divergence {
    template <class X, class V = typename X::V> FS_INLINE void apply(V log_q, V p, V, V, V &loss, V &gradient) const {
        const V nan = X::set(std::numeric_limits<typename X::Scalar>::quiet_NaN());
        loss = term(p, (p >= V{} ? log_of<X>(p) : nan) - log_q);
        gradient = V{} - p;
    }
};

struct DivergenceOfLogs {
    template <class X, class V = typename X::V> FS_INLINE void apply(V log_q, V log_p, V, V, V &loss, V &gradient) const {
        const V p = exp_plain<X>(log_p);
        loss = term(p, log_p - log_q);
        gradient = V{} - p;
    }
};

struct PointwiseArguments {
    AnyView x;
    AnyView target, weight, positive;  // of the shape of x, or broadcast to it; without data: 1 (not target)
    AnyView row_weight;                // of rows
    AnyView loss, gradient;            // without data: not wanted
    double scale = 1;
};

// A line of elements, in blocks.
template <class Op, class C> struct PointwiseLine {
    using X = Vec<C>;
    using V = typename X::V;
    Op op;
    Reader<C> x, target, weight, positive;
    Writer<C> loss, gradient;
    bool keeps_loss, keeps_gradient;
    C factor;  // of losses; `scale` that of gradients
    C scale;

    PointwiseLine(Op op_, const PointwiseArguments &a, isize o, isize i, bool each_loss, double factor_, double scale_)
        : op(op_), x(a.x, o, i), target(Reader<C>::broadcast(a.target, o, i)), keeps_loss(each_loss && a.loss), keeps_gradient(a.gradient),
          factor(static_cast<C>(factor_)), scale(static_cast<C>(scale_)) {
        if (a.weight) weight = Reader<C>::broadcast(a.weight, o, i);
        if (a.positive) positive = Reader<C>::broadcast(a.positive, o, i);
        if (keeps_loss) loss = Writer<C>(a.loss, o, i);
        if (keeps_gradient) gradient = Writer<C>(a.gradient, o, i);
    }

    void sweep(isize start, isize end, LaneSums<X> &sums) const {
        Scratch<C> x_buffer(gather_block), t_buffer(gather_block), w_buffer(gather_block), p_buffer(gather_block), losses(gather_block), results(gather_block);
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const C *xs = x.get(at, size, x_buffer), *ts = target.get(at, size, t_buffer);
            const C *ws = weight.p ? weight.get(at, size, w_buffer) : nullptr, *ps = positive.p ? positive.get(at, size, p_buffer) : nullptr;
            C *to_loss = keeps_loss ? loss.place(at, losses) : losses, *to_gradient = keeps_gradient ? gradient.place(at, results) : results;
            each_vector<X>(size, [&](isize i, auto lanes) {
                V l, g;
                const V one = X::set(1);
                op.template apply<X>(lanes.load(xs + i, 0), lanes.load(ts + i, 0), ws ? lanes.load(ws + i, 0) : one,
                                     ps ? lanes.load(ps + i, 0) : one, l, g);
                lanes.store(to_loss + i, l * factor);
                lanes.store(to_gradient + i, g * scale);
            });
            each_vector<X>(size, [&](isize i, auto lanes) { sums.add(lanes.load(to_loss + i, 0)); });
            if (keeps_loss) loss.put(at, size, losses);
            if (keeps_gradient) gradient.put(at, size, results);
        }
    }
};

// One loss for each element.
template <class Op, class C> struct PointwiseWork : FlatWork {
    Op op;
    const PointwiseArguments *a;
    PieceResults<Sum> sums;

    PointwiseWork(Op op_, const PointwiseArguments &arguments)
        : FlatWork(arguments.x.outer, arguments.x.n), op(op_), a(&arguments), sums(static_cast<std::size_t>(pieces())) {}
    void line(isize piece, isize row, isize start, isize end) override {
        LaneSums<Vec<C>> lanes;
        PointwiseLine<Op, C>(op, *a, row, 0, true, 1, a->scale).sweep(start, end, lanes);
        sums[static_cast<std::size_t>(piece)].add(lanes.total());
    }
    double total() const {
        Sum all;
        for (const Sum &s : sums) all.add(s);
        return all.value();
    }
};

// The mean or sum of binary cross-entropies from logits without weights, targets as they are: x, t and the gradient are touched once.
//
//     loss = c x + log(1 + e),   gradient = (c + d e) / (1 + e),   e = exp(-|x|)   (BinarySlope)
//
// The logarithms of `group` vectors are taken as one: u = (1 + e1)(1 + e2)... - 1 = u + e + u e has no cancellation, all being positive.
template <class C> struct PlainBinaryWork final : PointwiseWork<BinaryLogits, C> {
    using X = Vec<C>;
    using V = typename X::V;
    static constexpr isize group = 8;
    using PointwiseWork<BinaryLogits, C>::a;

    explicit PlainBinaryWork(const PointwiseArguments &arguments) : PointwiseWork<BinaryLogits, C>(BinaryLogits(), arguments) {}

    void line(isize piece, isize row, isize start, isize end) override {
        const C *x = reinterpret_cast<const C *>(a->x.at(row, 0)) + start, *t = reinterpret_cast<const C *>(a->target.at(row, 0)) + start;
        C *g = a->gradient ? reinterpret_cast<C *>(a->gradient.at(row, 0)) + start : nullptr;
        const V scale = X::set(static_cast<C>(a->scale));
        LaneSums<X> sums;
        if (g) sweep(x, t, end - start, sums, [&](isize i, auto lanes, V above, V below) FS_INLINE_LAMBDA { lanes.store(g + i, above * (X::set(1) / below) * scale); });
        else sweep(x, t, end - start, sums, [](isize, auto, V, V) FS_INLINE_LAMBDA {});
        this->sums[static_cast<std::size_t>(piece)].add(sums.total());
    }

  private:
    template <class Put> static FS_INLINE void sweep(const C *x, const C *t, isize n, LaneSums<X> &sums, Put put) {
        const C least = -std::numeric_limits<C>::infinity();  // contributes nothing where the target is 0
        const FixedExp<X, false, 0> exp(Scale<X>::one());
        for (isize i = 0; i < n;) {
            V u = {}, linear = {};
            const auto add = [&](auto lanes) FS_INLINE_LAMBDA {
                const V v = lanes.load(x + i, least), y = lanes.load(t + i, 0), e = exp(-absolute<X>(v));
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

template <class Op> double elements_loss(Op op, const PointwiseArguments &a, isize threads, Execute execute) {
    return with_compute({a.x.number}, [&](auto zero) {
        PointwiseWork<Op, decltype(zero)> work(op, a);
        execute(&work, threads);
        return work.total();
    });
}

template <class C> bool is_plain_binary(const PointwiseArguments &a) {
    return !a.weight && !a.positive && !a.loss && a.x.plain<C>() && a.target.plain<C>() && (!a.gradient || a.gradient.plain<C>());
}
inline double binary_logits_loss(const PointwiseArguments &a, isize threads, Execute execute) {
    return with_compute({a.x.number}, [&](auto zero) {
        using C = decltype(zero);
        if (!is_plain_binary<C>(a)) return elements_loss(BinaryLogits(), a, threads, execute);
        PlainBinaryWork<C> work(a);
        execute(&work, threads);
        return work.total();
    });
}

// Contiguous logits, targets and gradient, of one shape.
template <class C>
double plain_binary_logits(const void *x, const void *target, Number number, void *gradient, isize rows, isize n, double scale, isize threads,
                           Execute execute) {
    PointwiseArguments a;
    a.x = AnyView::matrix(x, number_of<C>, 1, rows * n);
    a.target = AnyView::matrix(target, number, 1, rows * n);
    if (gradient) a.gradient = AnyView::matrix(gradient, number_of<C>, 1, rows * n);
    a.scale = scale;
    return binary_logits_loss(a, threads, execute);
}

// One loss for each row, the sum of its elements', times the weight of the row.
template <class Op, class C> struct PointwiseRow {
    Op op;
    const PointwiseArguments *a;
    PieceResults<Sum> *sums;  // one for each piece
    isize outer = 0, inner = 0;
    double weight = 1;
    ChunkResults<Sum> partial;

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i;
        weight = a->row_weight ? a->row_weight.value(o, i) : 1;
        partial.resize(static_cast<std::size_t>(chunks()));
    }
    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        LaneSums<Vec<C>> lanes;
        if (weight != 0) PointwiseLine<Op, C>(op, *a, outer, inner, false, 1, weight * a->scale).sweep(start, end, lanes);
        else if (a->gradient) clear(start, end);
        partial[static_cast<std::size_t>(k)] = lanes.total();
    }
    bool next() {
        Sum all;
        for (const Sum &s : partial) all.add(s);
        const double loss = weight * all.value();
        if (a->loss) a->loss.store(outer, 0, inner, loss);
        (*sums)[static_cast<std::size_t>((outer * a->x.inner + inner) / rows_per_piece(n()))].add({loss, 0});
        return false;
    }

  private:
    // A row of weight 0 is left out, whatever it holds.
    void clear(isize start, isize end) const {
        Writer<C> to(a->gradient, outer, inner);
        to.p += start * to.stride;
        to.fill(end - start, 0);
    }
};

template <class Op> double rows_loss(Op op, const PointwiseArguments &a, isize threads, Execute execute) {
    const isize rows = a.x.outer * a.x.inner;
    PieceResults<Sum> sums(static_cast<std::size_t>((rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n)));
    with_compute({a.x.number, a.target.number, a.weight ? a.weight.number : a.x.number}, [&](auto zero) {
        RowsWork<PointwiseRow<Op, decltype(zero)>> work({op, &a, &sums}, a.x.outer, a.x.inner, a.x.n, threads);
        execute(&work, threads);
    });
    Sum all;
    for (const Sum &s : sums) all.add(s);
    return all.value();
}

// nll with labels: one number of each row is read, one of its gradient is not 0. (Pieces are rows; `ignored` and labels that are no classes do not
// count.)
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
        const double loss = counts && c != 0 ? 0 - w * a->x.value(o, y, i) : 0;  // a class of no weight: whatever its logarithm is
        if (a->loss) a->loss.store(o, 0, i, loss);
        (*sums)[static_cast<std::size_t>(piece)].add({loss, 0});
        if (!a->gradient) return;
        const isize size = size_of(a->gradient.number);
        if (a->gradient.n_stride == size) std::memset(a->gradient.at(o, i), 0, static_cast<std::size_t>(n * size));
        else Writer<float>(a->gradient, o, i).fill(n, 0);
        if (counts) a->gradient.store(o, y, i, -w * a->scale);
    }
};

inline double nll_labels_loss(const PointwiseArguments &a, isize ignored, isize threads, Execute execute) {
    const isize rows = a.x.outer * a.x.inner;
    PieceResults<Sum> sums(static_cast<std::size_t>((rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n)));
    WholeRowsWork<NllLabelRow> work({&a, &sums, ignored}, a.x.outer, a.x.inner, a.x.n);
    execute(&work, threads);
    Sum all;
    for (const Sum &s : sums) all.add(s);
    return all.value();
}

// ------------------------------------------------------------------------------------------------------- boosting
// p - t and max(factor p (1 - p), floor) of binary logits, each times a weight.
template <class C> struct BinaryGradHessWork final : FlatWork {
    using X = Vec<C>;
    using V = typename X::V;
    const PointwiseArguments *a;  // `loss` is where the second derivative goes
    double factor, floor;

    BinaryGradHessWork(const PointwiseArguments &arguments, double factor_, double floor_)
        : FlatWork(arguments.x.outer, arguments.x.n), a(&arguments), factor(factor_), floor(floor_) {}

    void line(isize, isize row, isize start, isize end) override {
        using Line = PointwiseLine<BinaryLogits, C>;
        const Line line(BinaryLogits(), *a, row, 0, true, 1, 1);
        Scratch<C> x_buffer(gather_block), t_buffer(gather_block), w_buffer(gather_block), g_buffer(gather_block), h_buffer(gather_block);
        const V one = X::set(1), f = X::set(static_cast<C>(factor)), least = X::set(static_cast<C>(floor));
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const C *xs = line.x.get(at, size, x_buffer), *ts = line.target.get(at, size, t_buffer);
            const C *ws = line.weight.p ? line.weight.get(at, size, w_buffer) : nullptr;
            C *g = line.gradient.place(at, g_buffer), *h = line.loss.place(at, h_buffer);
            each_vector<X>(size, [&](isize i, auto lanes) {
                const V x = lanes.load(xs + i, 0), t = lanes.load(ts + i, 0), w = ws ? lanes.load(ws + i, 0) : one;
                const V e = exp_plain<X>(-absolute<X>(x)), inverse = one / (one + e);
                lanes.store(g + i, term(w, BinarySlope<X>(x, one - t, t).above(e) * inverse));
                lanes.store(h + i, term(w, larger(least, f * (e * inverse * inverse))));
            });
            line.gradient.put(at, size, g_buffer);
            line.loss.put(at, size, h_buffer);
        }
    }
};

inline void binary_grad_hess(const PointwiseArguments &a, double factor, double floor, isize threads, Execute execute) {
    with_compute({a.x.number}, [&](auto zero) {
        BinaryGradHessWork<decltype(zero)> work(a, factor, floor);
        execute(&work, threads);
    });
}

}  // namespace fs
}  // namespace
