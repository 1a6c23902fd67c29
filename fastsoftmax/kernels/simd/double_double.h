// Numbers as unevaluated sums hi + lo, and the error-free transformations that make them.
#pragma once

#include "kernels/simd/vector_parts.h"

namespace {
namespace fs {

// (Knuth 1969; Dekker 1971; see Ogita, Rump, Oishi, "Accurate sum and dot product", 2005.) The
// transformations need -ffp-contract=off.

// One number, or a vector of them. {} is 0; without it, there is no value to begin with.
template <class V = double>
struct DoubleDouble {
    V hi, lo;

    bool is_one() const { return hi == 1 && lo == 0; }
    // The error of an infinite number is NaN.
    FS_ALWAYS_INLINE V value() const { return hi - hi == V{} ? hi + lo : hi; }
    void add(DoubleDouble other);
    DoubleDouble times(double m) const;
    DoubleDouble over(double t) const;
};

// Pairs of double (as many as the vector is wide) as one pair of the vector's type.
template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> pair_from_wide(
    const DoubleDouble<typename Vec<double, sizeof(typename X::V)>::V> *parts) {
    typename Vec<double, sizeof(typename X::V)>::V part[wide_parts<X>];
    for (int k = 0; k < wide_parts<X>; ++k) part[k] = parts[k].hi;
    const typename X::V hi = from_wide<X>(part);
    for (int k = 0; k < wide_parts<X>; ++k)
        part[k] = (parts[k].hi - wide_part<X>(hi, k)) + parts[k].lo;
    return {hi, from_wide<X>(part)};
}

template <class V>
FS_ALWAYS_INLINE inline DoubleDouble<V> two_sum(V a, V b) {
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
FS_ALWAYS_INLINE inline DoubleDouble<V> fast_two_sum(V a, V b) {  // for |a| >= |b| (Dekker 1971)
    const V s = a + b;
    return {s, b - (s - a)};
}

template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> product(DoubleDouble<typename X::V> a,
                                                            DoubleDouble<typename X::V> b) {
    const typename X::V p = a.hi * b.hi;
    return {p, multiply_subtract_exact<X>(a.hi, b.hi, p) + (a.hi * b.lo + a.lo * b.hi)};
}

template <class V>
inline void DoubleDouble<V>::add(DoubleDouble other) {
    const DoubleDouble s = two_sum(hi, other.hi);
    hi = s.hi, lo += s.lo + other.lo;
}

template <>
inline DoubleDouble<> DoubleDouble<>::times(double m) const {
    using D = Vec<double, 16>;
    const double p = m * hi,
                 error = multiply_subtract_exact<D>(D::set(m), D::set(hi), D::set(p))[0] + m * lo;
    return {p, p - p == 0 ? error : 0};
}

// Over |t|: a negative temperature is that of softmin.
template <>
inline DoubleDouble<> DoubleDouble<>::over(double t) const {
    using D = Vec<double, 16>;
    t = t < 0 ? -t : t;
    const double quotient = hi / t,
                 residue = -multiply_subtract_exact<D>(D::set(quotient), D::set(t), D::set(hi))[0];
    return {quotient, (residue + lo) / t};
}

}  // namespace fs
}  // namespace
