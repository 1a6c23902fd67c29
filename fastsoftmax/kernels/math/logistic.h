// sigmoid, softplus and logit of vectors, and whether their arguments are in a tail.
#pragma once

#include "kernels/math/exp_shift.h"
#include "kernels/math/log.h"
#include "kernels/simd/loops.h"

namespace {
namespace fs {

// With e = exp(-|x|) <= 1 neither tail loses relative accuracy: 1 / (1 + e) for x >= 0, e / (1 + e)
// below. e where sign x is negative, else 1; for e <= 1 (or NaN). The sign of 0 does not matter:
// there e is 1, too.
template <class X, int sign>
FS_ALWAYS_INLINE inline typename X::V one_or_below(typename X::V x, typename X::V e) {
    const typename X::V zero = {}, one = X::set(1);
    [[maybe_unused]] const typename X::V positive = sign > 0 ? one : e,
                                         negative = sign > 0 ? e : one;
#if defined(__AVX__)
    if constexpr (sizeof x == 32 && X::lanes == 8)
        return (typename X::V)_mm256_blendv_ps((__m256)positive, (__m256)negative, (__m256)x);
    if constexpr (sizeof x == 32 && X::lanes == 4)
        return (typename X::V)_mm256_blendv_pd((__m256d)positive, (__m256d)negative, (__m256d)x);
#endif
    const auto below = sign > 0 ? x < zero : x > zero;
    if constexpr (sizeof x == 16) return larger(below ? zero : one, e);
    return below ? e : one;
}

template <class X>
FS_ALWAYS_INLINE inline typename X::V sigmoid(typename X::V x) {
    const typename X::V e = exp_nonpositive<X>(minus_absolute<X>(x));
    return one_or_below<X, 1>(x, e) / (X::set(1) + e);
}

// g sigmoid(sign x), rounded as if the exponential had no least value. In general for sign x >=
// -tail_from alone.
template <class X, int sign>
FS_ALWAYS_INLINE inline typename X::V times_sigmoid(typename X::V g, typename X::V x) {
    const typename X::V one = X::set(1), z = minus_absolute<X>(x);
    if constexpr (ExpCore<X>::overflows) {
        const SplitExp<X> e(z);
        return ((sign > 0 ? x < typename X::V{} : x > typename X::V{}) ? e.times(g) : g) /
               (one + e.value());
    } else {
        const typename X::V e = exp_lifted<X, 0>(z);
        return g * (one_or_below<X, sign>(x, e) / (one + e));
    }
}

template <class X>
constexpr bool has_tails = !ExpCore<X>::overflows;

// The same for spans in which some are further below.
template <class X, int sign>
__attribute__((noinline)) void times_sigmoid_with_tails(const typename X::Scalar *g,
                                                        const typename X::Scalar *x,
                                                        typename X::Scalar *out, Index n) {
    for_each_vector<X>(n, [&](Index i, auto lanes) {
        const typename X::V a = lanes.load(g + i, 0), z = lanes.load(x + i, 0);
        lanes.store(out + i, sign * z < -tail_from<X> ? SplitExp<X>(minus_absolute<X>(z)).times(a)
                                                      : times_sigmoid<X, sign>(a, z));
    });
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))
template <class X>
FS_ALWAYS_INLINE inline typename X::V softplus(typename X::V x) {
    using V = typename X::V;
    const DoubleDouble<V> l = log1p_nonnegative<X>(exp_nonpositive<X>(minus_absolute<X>(x)), V{});
    const V top = larger(x, V{});
    const DoubleDouble<V> s = two_sum(top, l.hi);
    const V y = s.hi + (s.lo + l.lo);
    return x <= std::numeric_limits<typename X::Scalar>::max() ? y : x;  // +inf and NaN
}

template <class X>
FS_ALWAYS_INLINE inline typename X::V log_sigmoid(typename X::V x) {
    return -softplus<X>(-x);
}

// log(p / (1 - p)) as the logarithm of a quotient, 1 - p kept in two terms: exact to the last
// digits next to p = 1/2, 0 and 1.
template <class X>
FS_ALWAYS_INLINE inline typename X::V logit(typename X::V p) {
    using T = typename X::Scalar;
    using V = typename X::V;
    constexpr int lift = Format<T>::mantissa + 1;
    const V zero = {}, one = X::set(1);
    const auto subnormal = p < std::numeric_limits<T>::min();
    const V a = subnormal ? p * T(Index(1) << lift) : p;
    const DoubleDouble<V> b = two_sum(one, -p);
    const V l = sum_of(log_ratio<X>({a, zero}, b, a / b.hi, subnormal ? X::set(-lift) : zero));
    const V inf = X::set(std::numeric_limits<T>::infinity()),
            nan = X::set(std::numeric_limits<T>::quiet_NaN());
    const V y = p == zero ? -inf : p == one ? inf : l;
    return p >= zero ? (p <= one ? y : nan) : nan;
}

// What is further below 0 (sign 1), or above it (-1). From AVX2 on by the bits, since the minimum
// with a number in memory would forget others because of a NaN: as unsigned numbers those of
// negative ones grow downwards, as signed ones those of positive ones upwards. The upper halves
// decide between doubles.
template <class X, int sign>
FS_ALWAYS_INLINE inline typename X::V beyond(typename X::V x, typename X::V m) {
#if defined(__AVX512F__)
    if constexpr (sizeof x == 64 && sign > 0)
        return (typename X::V)_mm512_max_epu32((__m512i)m, (__m512i)x);
    if constexpr (sizeof x == 64 && sign < 0)
        return (typename X::V)_mm512_max_epi32((__m512i)m, (__m512i)x);
#elif defined(__AVX2__)
    if constexpr (sizeof x == 32 && sign > 0)
        return (typename X::V)_mm256_max_epu32((__m256i)m, (__m256i)x);
    if constexpr (sizeof x == 32 && sign < 0)
        return (typename X::V)_mm256_max_epi32((__m256i)m, (__m256i)x);
#endif
    return sign > 0 ? smaller(x, m) : larger(x, m);  // a NaN in the first argument is dropped
}

// Elements that are looked at together.
template <class X>
constexpr Index tails_block = 128 * X::lanes;

// Whether sign x <= -from for any of n numbers; NaN may count, too.
template <class X, int sign>
FS_ALWAYS_INLINE inline bool any_tail(const typename X::Scalar *x, Index n,
                                      typename X::Scalar from = tail_from<X>) {
    using T = typename X::Scalar;
    typename X::V m = {};  // the least (largest) number
    Index i = 0;
    for (; i + 8 * X::lanes <= n; i += 8 * X::lanes) {
#pragma GCC unroll 8
        for (Index a = 0; a < 8; ++a) m = beyond<X, sign>(X::load(x + i + a * X::lanes), m);
    }
    for (; i + X::lanes <= n; i += X::lanes) m = beyond<X, sign>(X::load(x + i), m);
    if (i < n) m = beyond<X, sign>(X::load_part(x + i, n - i, 0), m);
    return any_lane<X>(~(m * T(sign) > -from));
}

}  // namespace fs
}  // namespace
