// The sums that the divergence of two softmaxes is made of.
#pragma once

#include <cmath>

#include "kernels/drivers/lane_log.h"

namespace {
namespace fs {

struct LogitsDivergenceArguments : Rows {  // a, and the temperature of both
    AnyView target;                        // b
    AnyView loss, gradient;                // without data: not wanted
    double scale = 1;

    LogitsDivergenceArguments swapped() const {
        LogitsDivergenceArguments a = *this;
        static_cast<Rows &>(a) = Rows::swapped();
        a.target = target.swapped();
        a.loss = loss.swapped();
        a.gradient = gradient.swapped();
        return a;
    }
};

constexpr double inverse_factorial(int k) {
    return k < 2 ? 1 : inverse_factorial(k - 1) / k;
}

// exp(d) - 1 - d for |d| < 0.35, where it cancels: its series. Sixteen terms leave 2^-60 of the
// sum.
template <class V>
FS_ALWAYS_INLINE inline V beyond_line(V d) {
    V p{};
#pragma GCC unroll 16
    for (int k = 16; k >= 2; --k) p = multiply_add(p, d, V{} + inverse_factorial(k));
    return p * d * d;
}

// Contiguous numbers as vectors of double.
template <class X>
FS_ALWAYS_INLINE inline typename X::V load_wide(const double *p) {
    return X::load(p);
}

template <class X>
FS_ALWAYS_INLINE inline typename X::V load_wide(const float *p) {
#if defined(__AVX512F__)
    return (typename X::V)_mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX__)
    return (typename X::V)_mm256_cvtps_pd(_mm_loadu_ps(p));
#else
    typename VectorOf<float, sizeof(typename X::V) / 2>::type v;
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, typename X::V);
#endif
}

template <class X, class C>
FS_ALWAYS_INLINE inline typename X::V load_wide_part(const C *p, Index count) {
    typename X::V v = X::set(masked_logit<double>);
    for (Index l = 0; l < count; ++l) v[l] = static_cast<double>(p[l]);
    return v;
}

// The divergence of a row, whose numbers all lanes hold, or of the rows in the lanes of a vector;
// all in double, from logits of type C.
//
// With d = (a - b - level) / T and exponentials e relative to the largest logits, which are the
// first level, too,
//
//     KL = log(sum e_a / sum e_b) - mean,   mean = sum p_b d
//
// has absolute errors of a few units of 2^-53 (1 + sum p_b |d|). That is enough wherever KL is not
// far below that: a constant part of it for float64, and 2^-18 of it for float32, whose results
// need half of the digits. Elsewhere, with the level raised by the mean, so that sum p_b d = 0,
//
//     KL = log(sum p_b exp(d)) = log1p(sum p_b (exp(d) - 1 - d)),
//
// whose terms are not negative: nothing cancels, and equal logits give 0. Where d is large its
// rounding would show in the exponential: there exp(b / T) exp(d) is exp(a / T) times a constant c.
// Classes whose p_b is 0, with a share u of p_a, are not in that sum s; they make it (s + u) / (1 -
// u). Where it overflows, log total_a - log total_b + log c is as good. The derivative is p_a - p_b
// = p_b (exp(d) - 1 - s) / (1 + s) where d and s are small, and the difference elsewhere.
template <class C, bool Scaled>
struct LogitsDivergence {
    using X = Vec<double>;
    using V = X::V;
    using I = X::I;
    // differences of logits are those of double, and need no second term
    static constexpr bool narrow = sizeof(C) == 4;

    Scale<X> scale;
    Shift<X> zero;
    V max_a, max_b;
    DoubleDouble<V> level;
    V mean, constant;                        // of d at the first level, and exp(-mean)
    V matched, unmatched, total_a, total_b;  // e_a where p_b > 0, and elsewhere; ...
    V loss, growth;                          // exp(KL) - 1, if it was asked for
    I settled;                               // where it was not

    struct Sums {
        Accumulator<X> matched, unmatched, total_b, mean;
        V size{};  // sum e_b |d|
    };
    struct Logit {  // relative to the largest one
        V hi, lo, e;
    };
    struct Terms {
        V a, b, mean;
        FS_ALWAYS_INLINE Terms operator+(const Terms &t) const {
            return {a + t.a, b + t.b, mean + t.mean};
        }
    };

    void set_maxima(V a, V b) {
        max_a = a, max_b = b, level = two_sum(a, -b);
        zero = Shift<X>::fixed(0, narrow ? Scale<X>::one() : scale);
    }

    // The sums of the first level. pair(k) are the k-th logits of a and b.
    template <class Pairs>
    FS_ALWAYS_INLINE void add_totals(Sums &s, Index count, Pairs pair) const {
        const auto put = [&](const Terms &t) FS_ALWAYS_INLINE {
            s.matched.add(t.a), s.total_b.add(t.b), s.mean.add(t.mean);
        };
        const auto term = [&](Index k) FS_ALWAYS_INLINE {
            return terms(s, pair(k));
        };
        Index k = 0;
        for (; k + 4 <= count; k += 4) {
            const Terms first = term(k) + term(k + 1);
            put(first + (term(k + 2) + term(k + 3)));
        }
        for (; k < count; ++k) put(term(k));
    }
    void settle_totals(DoubleDouble<V> of_matched, DoubleDouble<V> of_unmatched, DoubleDouble<V> b,
                       DoubleDouble<V> of_mean, V size) {
        DoubleDouble<V> a = two_sum(of_matched.hi, of_unmatched.hi);
        a = two_sum(a.hi, a.lo + (of_matched.lo + of_unmatched.lo)), b = two_sum(b.hi, b.lo);
        matched = of_matched.value(), unmatched = of_unmatched.value(), total_a = a.value(),
        total_b = b.value();
        mean = of_mean.value() / total_b;
        const DoubleDouble<V> log = log_ratio<X>(a, b, total_a / total_b, V{});
        loss = (log.hi - mean) + log.lo;
        const V least = (narrow ? 0x1p-18 : 0.5) * (1 + size / total_b);
        settled = (loss >= least) & (loss <= std::numeric_limits<double>::max());
        growth = X::set(std::numeric_limits<double>::infinity());
        raise_level();
    }

    // The sum of the raised level.
    template <class Pairs>
    FS_ALWAYS_INLINE void add_growth(Accumulator<X> &growths, Index count, Pairs pair) const {
        for (Index k = 0; k < count; ++k) {
            const DoubleDouble<V> x = pair(k);
            const V d = above_level(x.hi, x.lo), e_b = below(x.lo, max_b).e;
            const auto close = absolute<X>(d) < 0.35;
            V y = e_b * beyond_line(d);
            if (any_lane<X>(~close))
                y = close ? y : below(x.hi, max_a).e * constant - e_b * (1 + d);
            growths.add(e_b == V{} ? V{} : y);
        }
    }
    void settle_growth(DoubleDouble<V> sum) {
        const V s = (sum.value() / total_b + unmatched / total_a) / (matched / total_a);
        growth = settled ? growth : s;
        const auto usual =
            (s >= 0) & (s < std::numeric_limits<double>::infinity()) & (mean - mean == V{});
        const V near = sum_of(log1p_nonnegative<X>(s, V{}));
        loss = usual & ~settled ? near : loss;
        if (!any_lane<X>(~(usual | settled))) return;
        for (Index l = 0; l < X::lanes; ++l)
            loss[l] = usual[l] | settled[l] ? loss[l] : divergence(l);
    }

    // The derivative times a factor.
    template <class Pairs, class Store>
    FS_ALWAYS_INLINE void derivatives(double factor, Index count, Pairs pair, Store store) const {
        const V near = growth < 0.35 ? X::set(0.35) : V{}, f = factor * scale.hi,
                of_a = f / total_a, of_b = f / total_b;
        const bool any_near = any_lane<X>(growth < 0.35);
        for (Index k = 0; k < count; ++k) {
            const DoubleDouble<V> x = pair(k);
            const V e_b = below(x.lo, max_b).e;
            V y = below(x.hi, max_a).e * of_a - e_b * of_b;
            if (any_near) {
                const V d = above_level(x.hi, x.lo),
                        close = e_b * of_b * ((d + beyond_line(d) - growth) / (1 + growth));
                y = (absolute<X>(d) < near) & ~(e_b == V{}) ? close : y;
            }
            store(k, y);
        }
    }

  private:
    FS_ALWAYS_INLINE Logit below(V v, V max) const {
        if constexpr (narrow) {
            const V z = Scaled ? (v - max) * scale.hi : v - max;
            return {z, V{}, exp_at<X, false, false>(z, zero, Scale<X>::one())};
        } else {
            const DoubleDouble<V> z = two_sum(v, -max);
            const V lo = absolute<X>(z.hi) <= -zero.lowest ? z.lo : V{};
            return {z.hi, lo, exp_at<X, Scaled, true, false>(z, zero, scale)};
        }
    }
    FS_ALWAYS_INLINE Terms terms(Sums &s, DoubleDouble<V> x) const {
        const Logit a = below(x.hi, max_a), b = below(x.lo, max_b);
        V d = narrow ? a.hi - b.hi : (a.hi - b.hi) + (a.lo - b.lo);
        if (Scaled && !narrow) d = d * scale.hi;
        const auto none = b.e == V{};
        if (any_lane<X>(none)) s.unmatched.add(none ? a.e : V{});
        const V weighted = none ? V{} : b.e * d;
        s.size = s.size + absolute<X>(weighted);
        return {none ? V{} : a.e, b.e, weighted};
    }
    // a - b - level, rounded once, over T.
    FS_ALWAYS_INLINE V above_level(V a, V b) const {
        const DoubleDouble<V> d = two_sum(a, -b);
        const V lo = d.lo - level.lo;
        return ((d.hi - level.hi) + (lo == lo ? lo : V{})) * scale.hi;
    }
    void raise_level() {
        const DoubleDouble<V> raised = two_sum(level.hi, mean / scale.hi);
        mean = mean - mean == V{} ? (raised.hi - level.hi + raised.lo) * scale.hi : mean;
        level = {raised.hi, raised.lo + level.lo};
        constant = sum_of(exp_of_difference_pair<X, false>(-mean, V{}, V{}, Scale<X>::one()));
        const auto extreme = ~(settled | (absolute<X>(mean) < 700));
        if (!any_lane<X>(extreme)) return;
        for (Index l = 0; l < X::lanes; ++l)
            constant[l] = extreme[l] ? std::exp(-mean[l]) : constant[l];
    }
    double divergence(Index l) const {
        const double infinity = std::numeric_limits<double>::infinity(),
                     sum = total_a[l] + total_b[l];
        if (!(sum - sum == 0 && total_a[l] > 0 && total_b[l] > 0))
            return std::numeric_limits<double>::quiet_NaN();
        if (mean[l] == -infinity) return infinity;  // a class that b has and a has not
        if (growth[l] < infinity) return std::log1p(growth[l]);
        return std::log(total_a[l]) - std::log(total_b[l]) - mean[l];
    }
};

}  // namespace fs
}  // namespace
