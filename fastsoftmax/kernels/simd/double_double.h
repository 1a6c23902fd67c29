// Numbers as unevaluated sums hi + lo, and the error-free transformations that make them.
#pragma once

#include "kernels/simd/vector_parts.h"

namespace {
namespace fs {

// (Knuth 1969; Dekker 1971; see Ogita, Rump, Oishi, "Accurate sum and dot product", 2005.) They
// need -ffp-contract=off.
template <class V>
struct Pair {
    V hi, lo;  // the unevaluated sum hi + lo
};

// Pairs of double (as many as the vector is wide) as one pair of the vector's type.
template <class X>
FS_ALWAYS_INLINE inline Pair<typename X::V> pair_from_wide(
    const Pair<typename Vec<double, sizeof(typename X::V)>::V> *parts) {
    typename Vec<double, sizeof(typename X::V)>::V part[wide_parts<X>];
    for (int k = 0; k < wide_parts<X>; ++k) part[k] = parts[k].hi;
    const typename X::V hi = from_wide<X>(part);
    for (int k = 0; k < wide_parts<X>; ++k)
        part[k] = (parts[k].hi - wide_part<X>(hi, k)) + parts[k].lo;
    return {hi, from_wide<X>(part)};
}

template <class V>
FS_ALWAYS_INLINE inline Pair<V> two_sum(V a, V b) {
    V s = a + b, t = s - a;
    return {s, (a - (s - t)) + (b - t)};
}

// a * b - c with one rounding error of the result, not of the product.
template <class X>
FS_ALWAYS_INLINE inline typename X::V multiply_subtract_exact(typename X::V a, typename X::V b,
                                                              typename X::V c) {
#if FS_HAS_FMA
    return multiply_add(a, b, -c);
#else
    // Dekker's product. The factors are cut in two by their bits: Veltkamp's splitting overflows
    // next to the largest number.
    using V = typename X::V;
    using U = typename X::U;
    constexpr auto upper = ~typename Format<typename X::Scalar>::Uint(0)
                           << (Format<typename X::Scalar>::mantissa / 2 + 1);
    V p = a * b;
    V ah = (V)((U)a & upper), al = a - ah, bh = (V)((U)b & upper), bl = b - bh;
    V error = ((ah * bh - p) + ah * bl + al * bh) + al * bl;
    return (p - c) + error;
#endif
}

template <class V>
FS_ALWAYS_INLINE inline Pair<V> fast_two_sum(V a, V b) {  // for |a| >= |b| (Dekker 1971)
    const V s = a + b;
    return {s, b - (s - a)};
}

template <class X>
FS_ALWAYS_INLINE inline Pair<typename X::V> product(Pair<typename X::V> a, Pair<typename X::V> b) {
    const typename X::V p = a.hi * b.hi;
    return {p, multiply_subtract_exact<X>(a.hi, b.hi, p) + (a.hi * b.lo + a.lo * b.hi)};
}

}  // namespace fs
}  // namespace
