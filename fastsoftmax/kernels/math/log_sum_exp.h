// The logarithm of a sum of exponentials, from their total or from the sum of all but the maximum.
#pragma once

#include "kernels/math/exp_shift.h"
#include "kernels/math/exp_sums.h"
#include "kernels/math/log.h"
#include "kernels/simd/accumulator.h"

namespace {
namespace fs {

// log(sum of exponentials relative to the maximum), natural, from the sum of exp(s x) 2^-N (or of
// exp(s (x - max)) where the shift is the maximum) in the given unit. D is a vector of double with
// one row per lane.
template <class D>
struct LogTotal {
    using V = typename D::V;

    static DoubleDouble<V> from(DoubleDouble<V> sum, double unit, V exponent, V scaled_max,
                                V scaled_max_lo) {
        const V zero = {};
        const DoubleDouble<V> total = two_sum(sum.hi, sum.lo);
        DoubleDouble<V> l =
            log_ratio<D>(total, {D::set(unit), zero}, total.hi * D::set(1 / unit), exponent);
        DoubleDouble<V> d = two_sum(l.hi, -scaled_max);
        d.lo = d.lo + (l.lo - scaled_max_lo);
        const V none = D::set(-std::numeric_limits<double>::infinity());
        // NaN from NaN, and from the infinite sum that +inf in a row makes
        const V y = total.hi - total.hi == zero ? d.hi : total.hi - total.hi;
        return {total.hi == zero ? none : y, total.hi == zero ? zero : d.lo};
    }

    // The maximum carries a good part of the total (more than a seventh): log1p of the others,
    // summed without it, keeps the digits that the total would lose. `copies` counts the maxima.
    static DoubleDouble<V> from_rest(DoubleDouble<V> rest, V copies) {
        const DoubleDouble<V> others = two_sum(copies - 1.0, rest.hi);
        const DoubleDouble<V> sum = two_sum(others.hi, others.lo + rest.lo);
        return log1p_nonnegative<D>(sum.hi, sum.lo);
    }
    // The others relative to the maximum, from the sum of all exponentials and that of the maximum,
    // exp(s (max - center)) 2^-exponent as the row's own type has it. The logarithm is log1p of
    // them.
    template <bool Scaled>
    static FS_ALWAYS_INLINE DoubleDouble<V> others(DoubleDouble<V> total, double unit, V at_max,
                                                   V max, V center, V exponent,
                                                   const Scale<D> &scale) {
        DoubleDouble<V> e = exp_of_difference_pair<D, Scaled>(max, center, exponent, scale);
        if (unit != 1) e = product(e, unit);
        const DoubleDouble<V> apart = two_sum(total.hi, -at_max),
                              rest = two_sum(apart.hi, apart.lo + total.lo);
        const V q = rest.hi / e.hi, residue = -multiply_subtract_exact<D>(q, e.hi, rest.hi);
        return {q, (residue + (rest.lo - q * e.lo)) / e.hi};
    }

    static DoubleDouble<V> divide(DoubleDouble<V> a, DoubleDouble<> base) {
        const V q = a.hi / D::set(base.hi);
        const V residue = -multiply_subtract_exact<D>(q, D::set(base.hi), a.hi);
        const V lo = (residue + a.lo - q * base.lo) / D::set(base.hi);
        return {q, absolute<D>(q) <= std::numeric_limits<double>::max() ? lo : V{}};
    }

  private:
    static FS_ALWAYS_INLINE DoubleDouble<V> product(DoubleDouble<V> a, double b) {
        const V p = a.hi * b;
        return {p, multiply_subtract_exact<D>(a.hi, D::set(b), p) + a.lo * b};
    }
};

// Natural logarithms as those to a base.
template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> log_to_base(DoubleDouble<typename X::V> l,
                                                                DoubleDouble<> ln_base) {
    using D = Vec<double>;
    if (ln_base.is_one()) return l;
    DoubleDouble<typename D::V> quotient[wide_parts<X>];
    for (int k = 0; k < wide_parts<X>; ++k) {
        quotient[k] =
            LogTotal<D>::divide(two_sum(wide_part<X>(l.hi, k), wide_part<X>(l.lo, k)), ln_base);
    }
    return pair_from_wide<X>(quotient);
}

// The sum of the exponentials of all but the maxima, relative to the maximum, is made 2^64 (2^256)
// times too large, so that terms below the smallest normal number are not lost where they are all
// there is.
template <class C>
constexpr C rest_exponent = sizeof(C) == 4 ? -64 : -256;
template <class C, class S>
S true_rest(S s) {
    constexpr double power = sizeof(C) == 4 ? 0x1p-64 : 0x1p-256;
    using V = decltype(s.hi);
    const V factor = V{} + power;
    return {s.hi * factor, s.lo * factor};
}

// Those exponentials, and how often the maximum occurs. Each term is added with its rounding error:
// where the rest is small, half an ulp of it is one of the result.
template <class X, bool Scaled, class C>
inline void add_rest(const C *x, Index n, C max, const Scale<X> &scale, Accumulator<X> &rest,
                     Accumulator<X> &copies) {
    const auto top = X::set(max);
    const Shift<X> below = Shift<X>::fixed(rest_exponent<C>, scale);
    for_each_vector<X>(n, [&](Index i, auto lanes) {
        const auto v = lanes.load(x + i, masked_logit<C>);
        rest.add(v == top ? typename X::V{} : exp_of_difference<X, Scaled>(v, top, below, scale));
        copies.add(v == top ? X::set(1) : typename X::V{});
    });
}

// The sum of all exponentials of a row, in units, and its maximum.
template <class C>
struct ExpTotal {
    static constexpr double unit = ExpCore<Vec<C>>::unit;
    DoubleDouble<> sum;
    C max, at_max;  // and its exponential
    C center;       // the shift: unit exp(s (x - center)) 2^-exponent
    double exponent;

    // The logarithm of the total, relative to the maximum, is below 1: then it is made of the sum
    // of the others, which must have its own digits.
    static constexpr double dominates = 2.75;
    bool max_dominates() const { return sum.hi < dominates * static_cast<double>(at_max); }
    // The others are so small that they must be summed relative to the maximum.
    static constexpr double tiny_rest = 0x1p-14;
    bool tail_underflows() const {
        return sum.hi - static_cast<double>(at_max) <= tiny_rest * static_cast<double>(at_max) &&
               at_max > 0;
    }
    void set_others(DoubleDouble<> others) {
        sum = others;
        sum.add({static_cast<double>(at_max), 0});
    }
};

// The logarithms of several such totals, relative to their maxima, in vectors.
template <class C, bool Scaled, Index size>
struct LogTotals {
    using D = Vec<double>;
    using Log = LogTotal<D>;
    static constexpr double unit = ExpTotal<C>::unit;
    double hi[size], lo[size], max[size], at_max[size], center[size], exponent[size], top_hi[size],
        top_lo[size];
    DoubleDouble<> factor[Scaled ? size : 1];

    void set(Index l, const ExpTotal<C> &t, DoubleDouble<> scale) {
        const double m = static_cast<double>(t.max);
        const DoubleDouble<> top =
            t.center == 0 && m - m == 0 ? scale.times(m) : DoubleDouble<>{0, 0};
        hi[l] = t.sum.hi, lo[l] = t.sum.lo, max[l] = m, at_max[l] = static_cast<double>(t.at_max);
        center[l] = static_cast<double>(t.center), exponent[l] = t.exponent, top_hi[l] = top.hi,
        top_lo[l] = top.lo;
        if constexpr (Scaled) factor[l] = scale;
    }
    // Of the first `count`; that of a total that wants the rest is of no use.
    void solve(Index count, DoubleDouble<> *logs) {
        const Index padded = (count + D::lanes - 1) / D::lanes * D::lanes;
        for (Index l = count; l < padded; ++l) set(l, ExpTotal<C>{{1, 0}, 0, 0, 0, 0}, {1, 0});
        Scale<D> scale = Scale<D>::one();
        for (Index l = 0; l < count; l += D::lanes) {
            for (Index k = 0; Scaled && k < D::lanes; ++k) scale.set_lane(k, factor[l + k]);
            const auto x = [&](const double *p) FS_ALWAYS_INLINE {
                return D::load(p + l);
            };
            const auto far = Log::from({x(hi), x(lo)}, unit, x(exponent), x(top_hi), x(top_lo));
            const auto others = Log::template others<Scaled>({x(hi), x(lo)}, unit, x(at_max),
                                                             x(max), x(center), x(exponent), scale);
            const auto near = log1p_nonnegative<D>(others.hi, others.lo);
            // log1p of the others keeps the digits that the total would lose
            const auto dominated = x(hi) < ExpTotal<C>::dominates * x(at_max);
            const auto log_hi = dominated ? near.hi : far.hi, log_lo = dominated ? near.lo : far.lo;
            for (Index k = 0; k < D::lanes && l + k < count; ++k)
                logs[l + k] = {log_hi[k], log_lo[k]};
        }
    }
};

template <bool Scaled, class C>
DoubleDouble<> log_of_total(const ExpTotal<C> &t, DoubleDouble<> scale) {
    LogTotals<C, Scaled, Vec<double>::lanes> totals;
    DoubleDouble<> log;
    totals.set(0, t, scale);
    totals.solve(1, &log);
    return log;
}

// Whether the maximum and the logarithm of the total may cancel in their sum (natural): that needs
// more digits than they have. (From 1/2 on an error of the logarithm, which is at most 2.3 units of
// 2^-24, is 2.3 ulp.)
template <class V>
FS_ALWAYS_INLINE inline auto may_cancel(V max, V natural) {
    return (max < 0) & (natural < 0.5f) & (natural > -0.5f);
}
// The same where it is known what the logarithm has added: an error of it, at most 2.3 units of
// 2^-24 of itself, is at most as many ulp of a sum that is not smaller. All three to one base.
template <class V>
FS_ALWAYS_INLINE inline auto cancels(V max, V sum, V natural) {
    const V log = sum - max;
    return may_cancel(max, natural) & (log > sum) & (log > -sum);
}

// The same for a vector of rows or columns, one in each lane, that all have the fixed shift and
// are not scaled; part(k) are the totals in the k-th vector of double. Where tail_underflows they
// are of no use.
template <class X>
struct UsualLogs {
    using V = typename X::V;
    using D = Vec<double>;
    using Total = ExpTotal<typename X::Scalar>;
    V max, hi, lo;
    typename D::I tail_underflows[wide_parts<X>];

    template <class Part>
    FS_ALWAYS_INLINE UsualLogs(V max_, V at_max, Part part) : max(max_) {
        DoubleDouble<typename D::V> others[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            const DoubleDouble<typename D::V> total = part(k);
            const auto m = wide_part<X>(max, k), e = wide_part<X>(at_max, k);
            others[k] = relative(total, e, m);
            tail_underflows[k] = total.hi - e <= Total::tiny_rest * e;
        }
        const DoubleDouble<V> rest = pair_from_wide<X>(others),
                              log = log1p_nonnegative<X>(rest.hi, rest.lo);
        hi = log.hi, lo = log.lo;
    }
    FS_ALWAYS_INLINE bool any_tail_underflows() const {
        typename D::I wants = tail_underflows[0];
        for (int k = 1; k < wide_parts<X>; ++k) wants |= tail_underflows[k];
        return any<D>(wants);
    }
    // logsumexp, but where they may_cancel.
    FS_ALWAYS_INLINE V sum() const {
        const DoubleDouble<V> s = two_sum(max, hi);
        return s.hi + (s.lo + lo);
    }

  private:
    static FS_ALWAYS_INLINE DoubleDouble<typename D::V> relative(DoubleDouble<typename D::V> total,
                                                                 typename D::V at_max,
                                                                 typename D::V max) {
        constexpr int exponent = Shift<X>::fixed_exponent;
        if constexpr (wide_parts<X> > 1)
            return {(total.hi - at_max) /
                        (FixedExp<D, false, exponent>(Scale<D>::one())(max) * Total::unit),
                    typename D::V{}};
        else
            return LogTotal<D>::template others<false>(total, Total::unit, at_max, max,
                                                       typename D::V{}, D::set(exponent),
                                                       Scale<D>::one());
    }
};

// The same from what add_rest adds.
template <class C>
DoubleDouble<> log_of_rest(DoubleDouble<> rest, DoubleDouble<> copies) {
    using D = Vec<double, 16>;
    const DoubleDouble<> r = true_rest<C>(rest);
    const auto log = LogTotal<D>::from_rest({D::set(r.hi), D::set(r.lo)}, D::set(copies.value()));
    return {log.hi[0], log.lo[0]};
}

}  // namespace fs
}  // namespace
