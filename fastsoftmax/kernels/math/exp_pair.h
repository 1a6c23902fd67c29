// Exponentials in full pairs.
// The sum of weighted exponentials may be next to 1 while its terms are not small, and then every
// digit that a term lacks is missed in the logarithm. So these exponentials are good to about
// 2^-100.
#pragma once

#include "kernels/math/exp_shift.h"

namespace {
namespace fs {

// exp(r) - 1 for |r| <= ln(2) / 2, good to about 2^-100 of itself: r + r^2 (1/2 + r/6 + ...),
// Taylor's series to r^22 / 22!. Terms from r^13 / 13! on are below 2^-50 of the first and need no
// pairs.
template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> expm1_pair(DoubleDouble<typename X::V> r) {
    using V = typename X::V;
    constexpr double single[] = {
        0x1.0ce396db7f853p-70, 0x1.71b8ef6dcf572p-66, 0x1.e542ba4020225p-62, 0x1.2f49b46814157p-57,
        0x1.6827863b97d97p-53, 0x1.952c77030ad4ap-49, 0x1.ae7f3e733b81fp-45, 0x1.ae7f3e733b81fp-41,
        0x1.93974a8c07c9dp-37, 0x1.6124613a86d09p-33};
    constexpr double high[] = {0x1.1eed8eff8d898p-29,
                               0x1.ae64567f544e4p-26,
                               0x1.27e4fb7789f5cp-22,
                               0x1.71de3a556c734p-19,
                               0x1.a01a01a01a01ap-16,
                               0x1.a01a01a01a01ap-13,
                               0x1.6c16c16c16c17p-10,
                               0x1.1111111111111p-7,
                               0x1.5555555555555p-5,
                               0x1.5555555555555p-3,
                               0x1p-1};
    constexpr double low[] = {-0x1.2aec959e14c06p-83,
                              -0x1.c062e06d1f209p-80,
                              0x1.cbbc05b4fa99ap-76,
                              -0x1.c154f8ddc6c00p-73,
                              0x1.a01a01a01a01ap-76,
                              0x1.a01a01a01a01ap-73,
                              -0x1.f49f49f49f49fp-65,
                              0x1.1111111111111p-63,
                              0x1.5555555555555p-59,
                              0x1.5555555555555p-57,
                              0};
    V tail = X::set(single[0]);
#pragma GCC unroll 16
    for (int k = 1; k < 10; ++k) tail = multiply_add(tail, r.hi, X::set(single[k]));
    DoubleDouble<V> q{tail, V{}};
#pragma GCC unroll 16
    for (int k = 0; k < 11; ++k) {
        const DoubleDouble<V> p = product<X>(q, r), s = fast_two_sum(X::set(high[k]), p.hi);
        q = {s.hi, s.lo + (p.lo + low[k])};
    }
    const DoubleDouble<V> p = product<X>(product<X>(r, r), q), s = fast_two_sum(r.hi, p.hi);
    return fast_two_sum(s.hi, s.lo + (r.lo + p.lo));
}

// exp(a) = 2^n (1 + fraction) for |a| < 2800, with n = 0 wherever a is next to 0.
template <class X>
struct ExpPair {
    using V = typename X::V;
    V n;
    DoubleDouble<V> fraction;

    explicit FS_ALWAYS_INLINE ExpPair(DoubleDouble<V> a) {
        // the first two times n are exact
        constexpr double ln2[] = {0x1.62e42fee00000p-1, 0x1.a39ef35793000p-33,
                                  0x1.8ece600fcbdacp-74};
        const V magic = X::set(Format<double>::round_magic);
        n = multiply_add(a.hi, X::set(ExpConstants<double>::log2e), magic) - magic;
        const DoubleDouble<V> d = two_sum(a.hi - n * ln2[0], -(n * ln2[1]));
        fraction = expm1_pair<X>(fast_two_sum(d.hi, d.lo + (a.lo - n * ln2[2])));
    }
};

}  // namespace fs
}  // namespace
