// Logarithms as an unevaluated sum hi + lo.
// One routine serves them all: log(a / b) with a = ah + al and b = bh + bl. With 2^k the power of
// two nearest to a / b,
//     s = (a 2^-k - b) / (a 2^-k + b),   |s| <= (sqrt 2 - 1) / (sqrt 2 + 1) = 0.172     log(a / b)
// = k ln 2 + 2 s + s^3 (2/3 + 2/5 s^2 + 2/7 s^4 + ...)
// (the classical atanh series). The numerator is exact (Sterbenz), so results near zero keep all
// their digits: log1p(y) is a = 1 + y, b = 1; logit(p) is a = p, b = 1 - p. hi + lo is good to
// about 2^-30 (float) and 2^-58 (double) relative to the larger of its terms; log1p(y) relative to
// itself to 2^-26.7 and 2^-55.7, with y next to the last place of 1 (tests/test_math.py).
#pragma once

#include "kernels/simd/double_double.h"

namespace {
namespace fs {

template <class T>
struct LogConstants;

// Truncation of the series: 0.0295^6 / 13 < 2^-34 after six terms, 0.0295^11 / 23 < 2^-60 after
// eleven.
template <>
struct LogConstants<float> {
    static constexpr float sqrt_half = 0x1.6a09e6p-1f, ln2_hi = 0x1.62e4p-1f,
                           ln2_lo = 0x1.7f7d1cp-20f;
    static constexpr int terms = 5;
};

template <>
struct LogConstants<double> {
    static constexpr double sqrt_half = 0x1.6a09e667f3bcdp-1, ln2_hi = 0x1.62e42fee00000p-1,
                            ln2_lo = 0x1.a39ef35793c76p-33;
    static constexpr int terms = 10;
};

// s^3 (2/3 + 2/5 z + ...) with z = s^2.
template <class X>
FS_ALWAYS_INLINE inline typename X::V atanh_series(typename X::V s) {
    using T = typename X::Scalar;
    using V = typename X::V;
    constexpr int terms = LogConstants<T>::terms;
    const V z = s * s;
    V p = X::set(T(2) / (2 * terms + 1));
#pragma GCC unroll 16
    for (int i = terms - 1; i >= 1; --i) p = multiply_add(p, z, X::set(T(2) / (2 * i + 1)));
    return p * (z * s);
}

// log(a / b) + extra * ln 2 for positive normal a / b, whose lower terms are rounding errors of the
// higher ones (sums of very many numbers must be made so: two_sum(hi, lo)). `quotient` is a / b
// within a few ulp.
template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> log_ratio(DoubleDouble<typename X::V> a,
                                                              DoubleDouble<typename X::V> b,
                                                              typename X::V quotient,
                                                              typename X::V extra) {
    using T = typename X::Scalar;
    using F = Format<T>;
    using C = LogConstants<T>;
    using V = typename X::V;
    using U = typename X::U;
    using Uint = typename F::Uint;
    constexpr Uint one = Uint(F::bias) << F::mantissa;
    Uint sqrt_half_bits;
    const T sqrt_half = C::sqrt_half;
    std::memcpy(&sqrt_half_bits, &sqrt_half, sizeof sqrt_half_bits);

    const U biased = ((U)quotient + (one - sqrt_half_bits)) >> F::mantissa;  // k + bias
    const T two_to_mantissa = T(Uint(1) << F::mantissa);
    const V k = (V)(biased | (U)X::set(two_to_mantissa)) - (two_to_mantissa + F::bias) + extra;
    const V down = (V)((Uint(2 * F::bias) - biased) << F::mantissa);  // 2^-k

    const V ah = a.hi * down, al = a.lo * down;
    const DoubleDouble<V> sum = two_sum(ah, b.hi);
    const V numerator = ah - b.hi, numerator_lo = al - b.lo, denominator_lo = sum.lo + (al + b.lo);
    // One division: what the product lacks of a quotient is part of the residue, which is exact.
    const V inverse = T(1) / sum.hi, s = (numerator + numerator_lo) * inverse;
    // Residue of the division: (numerator - s * denominator) / denominator.
    const V rest =
        (numerator_lo - multiply_subtract_exact<X>(s, sum.hi, numerator)) - s * denominator_lo;
    const V twice_s_lo = (rest + rest) * inverse;  // not s_lo, half of a subnormal number
    const DoubleDouble<V> head = two_sum(k * C::ln2_hi, s + s);
    return {head.hi,
            head.lo + (multiply_add(k, X::set(C::ln2_lo), atanh_series<X>(s)) + twice_s_lo)};
}

template <class V>
FS_ALWAYS_INLINE inline V sum_of(DoubleDouble<V> p) {
    return p.hi + p.lo;
}

// log1p(y) for y >= 0, good relative to the result however small it is.
template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> log1p_nonnegative(typename X::V y,
                                                                      typename X::V y_lo) {
    const typename X::V one = X::set(1);
    DoubleDouble<typename X::V> a = two_sum(one, y);
    a.lo = a.lo + y_lo;
    const typename X::V zero = {};
    return log_ratio<X>(a, {one, zero}, a.hi, zero);
}

// log(a) for 0 < a < inf in two terms.
template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> log_pair(typename X::V a) {
    using T = typename X::Scalar;
    using V = typename X::V;
    constexpr int lift = Format<T>::mantissa + 1;
    const V zero = {};
    const auto subnormal = a < std::numeric_limits<T>::min();
    const V up = subnormal ? a * T(Index(1) << lift) : a;
    return log_ratio<X>({up, zero}, {X::set(1), zero}, up, subnormal ? X::set(-lift) : zero);
}

// log(a) for a >= 0; -inf for a = 0.
template <class X>
FS_ALWAYS_INLINE inline typename X::V log_of(typename X::V a) {
    using T = typename X::Scalar;
    const typename X::V l = sum_of(log_pair<X>(a));
    return a == typename X::V{}                 ? X::set(-std::numeric_limits<T>::infinity())
           : a <= std::numeric_limits<T>::max() ? l
                                                : a;
}

// log(1 - p) = -log(1 / (1 - p)) with 1 - p in two terms.
template <class X>
FS_ALWAYS_INLINE inline typename X::V log_complement(typename X::V p) {
    using T = typename X::Scalar;
    const DoubleDouble<typename X::V> q = two_sum(X::set(1), -p);
    const typename X::V one = X::set(1),
                        l = sum_of(log_ratio<X>(q, {one, typename X::V{}}, q.hi, typename X::V{}));
    return p == one ? X::set(-std::numeric_limits<T>::infinity()) : l;
}

}  // namespace fs
}  // namespace
