// exp of a shifted argument without subtracting first, and the shift itself.
//     exp(s (x - c)) 2^-N,   n = round(s (x - c) log2 e),     r = s (x - c) - n ln 2 in two terms,
// 2^(n-N) in the exponent
// Softmax does not change when all logits move, so the shift is a power of two: N = round(max *
// log2 e) and c = 0. Nothing is rounded before the range reduction. Above |max| = 256 (float; 2048
// for double) x - max is exact for every x that matters (each lies within a factor of two of the
// maximum: Sterbenz), and c = max, N = 0 takes over; below, |n| < 2^9 (2^12), so that n * ln2_hi is
// exact without fused multiply-add too.
#pragma once

#include "kernels/math/shift.h"

namespace {
namespace fs {

// r = s (d + error) - n ln 2. Scaled says whether s differs from 1, Corrected whether there is an
// error of the subtraction to put back.
template <class X, bool Scaled, bool Corrected>
FS_ALWAYS_INLINE inline typename X::V reduced(typename X::V d, typename X::V n,
                                              const Scale<X> &scale, typename X::V error) {
    using V = typename X::V;
    using C = ExpConstants<typename X::Scalar>;
    const V p = Scaled ? d * scale.hi : d;
    const V r = multiply_add(n, X::set(-C::ln2_hi), p);  // exact: the leading bits cancel
    if (!Scaled && !Corrected) return multiply_add(n, X::set(-C::ln2_lo), r);
    V rest = error;
    if (Scaled) {
        const V p_lo = multiply_subtract_exact<X>(d, scale.hi, p);
        rest = multiply_add(d, scale.lo, Corrected ? multiply_add(error, scale.hi, p_lo) : p_lo);
    }
    return r + multiply_add(n, X::set(-C::ln2_lo), rest);
}

// exp(s * (d.hi + d.lo)) * 2^-N for d = x - c, 0 below the range of the shift; `free`: times
// ExpCore::unit.
template <class X, bool Scaled, bool Corrected, bool free>
FS_ALWAYS_INLINE inline typename X::V exp_at(DoubleDouble<typename X::V> d, const Shift<X> &shift,
                                             const Scale<X> &scale) {
    using V = typename X::V;
    using Core = ExpCore<X>;
    const auto in = Core::in_range(d.hi, shift.lowest);
    const V hi = Core::moved(d.hi, shift.lowest),
            lo = Corrected ? Core::error_of(d, shift.lowest) : V{},
            log2e = Scaled ? scale.log2e : X::set(ExpConstants<typename X::Scalar>::log2e),
            t = multiply_add(hi, log2e, shift.magic);
    return Core::template finish<free>(
        reduced<X, Scaled, Corrected>(hi, t - shift.magic, scale, lo), t, in);
}

template <class X, bool Scaled, bool free>
FS_ALWAYS_INLINE inline typename X::V exp_at(typename X::V d, const Shift<X> &shift,
                                             const Scale<X> &scale) {
    return exp_at<X, Scaled, false, free>({d, typename X::V{}}, shift, scale);
}

// The form for x at most the maximum that set the shift (-inf included: exact zero), in units.
template <class X, bool Scaled>
FS_ALWAYS_INLINE inline typename X::V exp_max_shift(typename X::V x, const Shift<X> &shift,
                                                    const Scale<X> &scale) {
    return exp_at<X, Scaled, true>(x - shift.center, shift, scale);
}

// exp(s * (x - max)) * 2^-N with the rounding error of the subtraction put back: a function of the
// exact difference, and 1 at the maximum (times 2^-N). `shift` is a fixed one. Largest error of
// float32 0.66 units of 2^-23 with fused multiply-add, 0.69 without; the table of AVX-512 at most
// difference_error.
template <class X, bool Scaled>
FS_ALWAYS_INLINE inline typename X::V exp_of_difference(typename X::V x, typename X::V max,
                                                        const Shift<X> &shift,
                                                        const Scale<X> &scale) {
    return exp_at<X, Scaled, true, false>(two_sum(x, -max), shift, scale);
}

template <class X>
constexpr float difference_error = ExpCore<X>::overflows ? 0.97f : 0.7f;

// x - max as hi + lo; where the exponential is flushed to zero anyway, at `lowest`, lo is 0 (it is
// NaN for infinite x).
template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> difference(typename X::V x, typename X::V max,
                                                               typename X::V lowest) {
    const DoubleDouble<typename X::V> d = two_sum(x, -max);
    return {larger(lowest, d.hi), absolute<X>(d.hi) <= -lowest ? d.lo : typename X::V{}};
}

// exp(s * (x - max)) * 2^-exponent as hi + lo, good to 2^-55.7 relative: for double, where even the
// last bit of an exponential is too much of an error. By the general method, whatever ExpCore does.
template <class X, bool Scaled>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> exp_of_difference_pair(typename X::V x,
                                                                           typename X::V max,
                                                                           typename X::V exponent,
                                                                           const Scale<X> &scale) {
    using V = typename X::V;
    using T = typename X::Scalar;
    using C = ExpConstants<T>;
    using F = Format<T>;
    const V magic = F::round_magic + (F::bias - exponent),
            lowest = (exponent - (F::bias - T(0.25))) * scale.unit;
    const DoubleDouble<V> d = difference<X>(x, max, lowest);
    const V p = Scaled ? d.hi * scale.hi : d.hi;
    const V p_lo =
        Scaled ? multiply_subtract_exact<X>(d.hi, scale.hi, p) + (d.hi * scale.lo + d.lo * scale.hi)
               : d.lo;
    const V t = multiply_add(d.hi, scale.log2e, magic), n = t - magic,
            power = power_of_two<X>(bits<X>(t));
    const DoubleDouble<V> r = two_sum(p - n * C::ln2_hi, p_lo - n * C::ln2_lo);
    const DoubleDouble<V> head = two_sum(X::set(1), r.hi),
                          e = two_sum(head.hi, C::quadratic(r.hi) * (r.hi * r.hi));
    return {e.hi * power, (e.lo + (head.lo + (r.lo + r.lo * r.hi))) * power};
}

// The form for any x and a shift without center: far above it gives +inf, which tells the caller
// that the shift was wrong.
template <class X, bool Scaled, bool free>
FS_ALWAYS_INLINE inline typename X::V exp_fixed_shift(typename X::V x, const Shift<X> &shift,
                                                      const Scale<X> &scale) {
    return exp_at<X, Scaled, free>(ExpCore<X>::overflows ? x : smaller(shift.highest, x), shift,
                                   scale);
}

// exp(s x) 2^-exponent for any x, as a function object that is made once for a row; `free`: in
// units.
template <class X, bool Scaled, int exponent, bool free = false>
struct FixedExp {
    Shift<X> shift;
    Scale<X> scale;

    explicit FS_ALWAYS_INLINE FixedExp(const Scale<X> &s)
        : shift(free ? Shift<X>::fixed(exponent, s) : Shift<X>::gradual(exponent, s)), scale(s) {}
    FS_ALWAYS_INLINE typename X::V operator()(typename X::V x) const {
        return exp_fixed_shift<X, Scaled, free>(x, shift, scale);
    }
    // The same where it turns out later that in_reach(the largest x): of one that is not, any
    // number. (Sums of float32, AVX2: 0.95 of the time.)
    FS_ALWAYS_INLINE typename X::V unlimited(typename X::V x) const {
        return exp_at<X, Scaled, free>(x, shift, scale);
    }
    FS_ALWAYS_INLINE bool in_reach(typename X::Scalar max) const {
        return ExpCore<X>::overflows || !(max > shift.highest[0]);
    }
};

#if defined(__AVX512F__)
// The table of powers holds 2^-exponent already, and the constants are kept in registers: GCC would
// load them again for the remainder of every row, 7 % of the time of a row of 100.
template <bool Scaled, int exponent>
struct FixedExp<Vec<float, 64>, Scaled, exponent, true> {
    using X = Vec<float, 64>;
    using V = X::V;
    using Core = ExpCore<X>;
    using Constants = ExpConstants<float>;
    Scale<X> scale;
    V lowest, log2e, magic, ln2_hi, ln2_lo, c3, c2, table;

    explicit FS_ALWAYS_INLINE FixedExp(const Scale<X> &s)
        : scale(s),
          lowest(held(Shift<X>::fixed(exponent, s).lowest)),
          log2e(held(Scaled ? s.log2e : X::set(Constants::log2e))),
          magic(held(X::set(Core::magic))),
          ln2_hi(held(X::set(-Constants::ln2_hi))),
          ln2_lo(held(X::set(-Constants::ln2_lo))),
          c3(held(X::set(Core::c3))),
          c2(held(X::set(Core::c2))),
          table(held(Core::units(1 << -exponent))) {}

    FS_ALWAYS_INLINE V operator()(V x) const {
        const V t = multiply_add(x, log2e, magic), n = t - magic;
        const V r = Scaled ? reduced<X, true, false>(x, n, scale, V{})
                           : multiply_add(n, ln2_lo, multiply_add(n, ln2_hi, x));
        return Core::scaled_first(r, t, n, table, c3, c2, Core::in_range(x, lowest));
    }
    FS_ALWAYS_INLINE V unlimited(V x) const { return (*this)(x); }
    FS_ALWAYS_INLINE bool in_reach(float) const { return true; }

  private:
    static FS_ALWAYS_INLINE V held(V v) {
        asm("" : "+v"(v));  // now it is a value that cannot be made again from memory
        return v;
    }
};
#endif

template <class X, bool Scaled>
using FixedShiftExp = FixedExp<X, Scaled, Shift<X>::fixed_exponent, true>;

// exp(x) itself, without shift or scale; +inf from overflow on, 0 where the result is subnormal.
template <class X>
FS_ALWAYS_INLINE inline typename X::V exp_plain(typename X::V x) {
    return exp_fixed_shift<X, false, false>(x, Shift<X>::fixed(0, Scale<X>::one()),
                                            Scale<X>::one());
}

// exp(x) 2^lift for x <= 0.
template <class X, int lift>
FS_ALWAYS_INLINE inline typename X::V exp_lifted(typename X::V x) {
    const Scale<X> one = Scale<X>::one();
    return exp_at<X, false, false>(x, Shift<X>::gradual(-lift, one), one);
}

// exp(x) for x <= 0, below the smallest normal number within one step of the subnormal ones. In
// general it is made too large, so that all of them are normal, and multiplied by a power of two,
// which rounds once.
template <class X>
FS_ALWAYS_INLINE inline typename X::V exp_nonpositive(typename X::V x) {
    using T = typename X::Scalar;
    constexpr int lift = ExpCore<X>::overflows ? 0 : Format<T>::mantissa + 1;
    const typename X::V e = exp_lifted<X, lift>(x);
    return lift ? e * (1 / T(Index(1) << lift)) : e;
}

template <class X>
struct NonpositiveExp {
    explicit FS_ALWAYS_INLINE NonpositiveExp(const Scale<X> &) {}
    FS_ALWAYS_INLINE typename X::V operator()(typename X::V x) const {
        return exp_nonpositive<X>(x);
    }
};

// exp(x) for x <= 0 (down to where its product with the largest number is 0) in parts, for products
// that are rounded once whatever the sizes of both factors: an exponential that is rounded to a
// subnormal number before it is multiplied has lost its digits. for x far from 0 alone: there the
// power of two may come first
template <class X, bool scales = ExpCore<X>::overflows>
struct SplitExp {
    using T = typename X::Scalar;
    using V = typename X::V;
    V n, fraction, fourth, rest;  // 2^n fraction = fraction fourth^3 rest
    explicit FS_ALWAYS_INLINE SplitExp(V x) {
        using C = ExpConstants<T>;
        using F = Format<T>;
        const V magic = X::set(F::round_magic), y = larger(X::set(least_argument), x);
        n = multiply_add(y, X::set(C::log2e), magic) - magic;
        const V r = reduced<X, false, false>(y, n, Scale<X>::one(), V{});
        fraction = from_quadratic(C::quadratic(r), r);
        const V k = multiply_add(n, X::set(T(0.25)), magic) - magic;
        fourth = power_of_two<X>(bits<X>(k + (magic + F::bias)));
        rest = power_of_two<X>(bits<X>((n - 3 * k) + (magic + F::bias)));
    }
    FS_ALWAYS_INLINE V times(V a) const { return a * fourth * fraction * fourth * fourth * rest; }
    // a b exp(x) in some lanes, whatever the sizes of all three; by the number, since they are few.
    FS_ALWAYS_INLINE V times(V a, V b, typename X::I wanted) const {
        V product{};
        for (Index l = 0; l < X::lanes; ++l) {
            if (!wanted[l]) continue;
            int of_a, of_b;
            const T p = std::frexp(a[l], &of_a), q = std::frexp(b[l], &of_b);
            product[l] = std::ldexp(p * q * fraction[l], of_a + of_b + static_cast<int>(n[l]));
        }
        return product;
    }

    // 2^-(3 times the bits of the largest number, and those of the smallest)
    static constexpr T least_argument =
        -T(0.6931471805599453) * (3 * Format<T>::bias + Format<T>::mantissa + 3);
};

#if defined(__AVX512F__)
// Half the fraction, that products with the largest numbers do not overflow before they are scaled.
// For all x.
template <class X>
struct SplitExp<X, true> {
    using V = typename X::V;
    using Core = ExpCore<X>;
    V half, n;
    explicit FS_ALWAYS_INLINE SplitExp(V x) {
        const V y = larger(X::set(SplitExp<X, false>::least_argument), x),
                t = multiply_add(y, X::set(ExpConstants<typename X::Scalar>::log2e),
                                 X::set(Core::magic));
        half = Core::half_fraction(
            reduced<X, false, false>(y, t - Core::magic, Scale<X>::one(), V{}), t);
        n = t - (Core::magic - 1);
    }
    FS_ALWAYS_INLINE V value() const { return Core::scaled(half, n); }
    FS_ALWAYS_INLINE V times(V a) const { return Core::scaled(a * half, n); }
};
#endif

// The |x| from which 1 + exp(-|x|) is 1 and exp(-|x|) next to the smallest normal number.
template <class X>
constexpr typename X::Scalar tail_from = sizeof(typename X::Scalar) == 4 ? 87 : 708;

}  // namespace fs
}  // namespace
