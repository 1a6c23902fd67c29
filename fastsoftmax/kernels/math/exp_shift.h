// exp of a shifted argument without subtracting first, and the shift itself.
//     exp(s (x - c)) 2^-N,   n = round(s (x - c) log2 e),     r = s (x - c) - n ln 2 in two terms,
// 2^(n-N) in the exponent
// Softmax does not change when all logits move, so the shift is a power of two: N = round(max *
// log2 e) and c = 0. Nothing is rounded before the range reduction. Above |max| = 256 (float; 2048
// for double) x - max is exact for every x that matters (each lies within a factor of two of the
// maximum: Sterbenz), and c = max, N = 0 takes over; below, |n| < 2^9 (2^12), so that n * ln2_hi is
// exact without fused multiply-add too.
#pragma once

#include "kernels/math/exp.h"

namespace {
namespace fs {

// What multiplies the logits inside the exponential: ln(base) / temperature, as hi + lo of the
// compute type.
struct Factor {
    double hi, lo;
    bool is_one() const { return hi == 1 && lo == 0; }
    Factor times(double m) const {
        using D = Vec<double, 16>;
        const double product = m * hi,
                     error = multiply_subtract_exact<D>(D::set(m), D::set(hi), D::set(product))[0] +
                             m * lo;
        return {product, product - product == 0 ? error : 0};
    }
    // Over |t|: a negative temperature is that of softmin.
    Factor over(double t) const {
        using D = Vec<double, 16>;
        t = t < 0 ? -t : t;
        const double quotient = hi / t, residue = -multiply_subtract_exact<D>(
                                            D::set(quotient), D::set(t), D::set(hi))[0];
        return {quotient, (residue + lo) / t};
    }
};

// The factor in vectors (one value for a row, a value per lane for columns), and what one step of n
// is in units of the logits.
template <class X>
struct Scale {
    typename X::V hi, lo, log2e, unit;
    void set_lane(isize lane, Factor f) {
        using T = typename X::Scalar;
        T h = static_cast<T>(f.hi);
        hi[lane] = h;
        lo[lane] = static_cast<T>((f.hi - h) + f.lo);
        log2e[lane] = static_cast<T>(f.hi * ExpConstants<double>::log2e);
        unit[lane] = 1 / log2e[lane];
    }
    static Scale all(Factor f) {
        Scale s;
        s.set_lane(0, f);
        s.hi = X::set(s.hi[0]), s.lo = X::set(s.lo[0]), s.log2e = X::set(s.log2e[0]),
        s.unit = X::set(s.unit[0]);
        return s;
    }
    static FS_INLINE Scale one() {
        using C = ExpConstants<typename X::Scalar>;
        return {X::set(1), typename X::V{}, X::set(C::log2e), X::set(1 / C::log2e)};
    }
};

// c, N and the range of x - c: below it exponentials are 0, above +inf.
template <class X>
struct Shift {
    typename X::V center, magic, lowest, highest;

    double exponent(isize lane) const {  // N
        return static_cast<double>(ExpCore<X>::magic) +
               (ExpCore<X>::bias - static_cast<double>(magic[lane]));
    }

    // No center, and the given N.
    static FS_INLINE Shift fixed(typename X::Scalar exponent, const Scale<X> &scale) {
        return fixed(X::set(exponent), scale);
    }
    static FS_INLINE Shift fixed(typename X::V exponent, const Scale<X> &scale) {
        using T = typename X::Scalar;
        using F = Format<T>;
        Shift s;
        s.center = typename X::V{};
        s.magic = ExpCore<X>::magic + (ExpCore<X>::bias - exponent);
        s.lowest = (exponent - ExpCore<X>::least) * scale.unit;
        s.highest = (exponent + (F::bias + 1 - T(0.25))) * scale.unit;
        return s;
    }
    // A shift that needs no look at the row: sums of exponentials between 2^-31 and 2^70 (double:
    // 2^-401 and 2^500), those of almost all logits, stay far from both ends of the range.
    static constexpr int typical_exponent = sizeof(typename X::Scalar) == 4 ? -30 : -400;
    static FS_INLINE Shift typical(const Scale<X> &scale) { return fixed(typical_exponent, scale); }

    // From the (approximate or exact) maximum of each lane. An infinite or NaN maximum shifts by
    // nothing. Where differences from the maximum are known to be exact, it may be the center
    // whatever its size.
    static FS_INLINE Shift from(typename X::V max, const Scale<X> &scale,
                                typename X::I exact = typename X::I{}) {
        using T = typename X::Scalar;
        using V = typename X::V;
        using F = Format<T>;
        const V zero = {}, magic = X::set(F::round_magic);
        max = absolute<X>(max) <= std::numeric_limits<T>::max() ? max : zero;
        const auto far = (absolute<X>(max) * scale.hi >= ExpConstants<T>::subtract_from) | exact;
        Shift s;
        s.center = far ? max : zero;
        const V exponent = ((far ? zero : max) * scale.log2e + magic) - magic;
        s.magic = ExpCore<X>::magic + (ExpCore<X>::bias - exponent);
        s.lowest = (exponent - ExpCore<X>::least) * scale.unit;
        s.highest = (exponent + (F::bias + 1 - T(0.25))) * scale.unit;
        return s;
    }
};

// Bits that are 0 if x is a multiple of 2^-10 (2^-20), as integers and hand-written scores are.
// Where all logits are, so are their differences, and those are exact where they matter: either the
// maximum is below 2^8 (2^11), or it is the center anyway.
template <class X>
FS_INLINE typename X::I off_lattice(typename X::V x) {
    const typename X::V magic = X::set(sizeof(typename X::Scalar) == 4 ? 0x1.8p13 : 0x1.8p32);
    return bits<X>((x + magic) - magic) ^ bits<X>(x);
}

// r = s (d + error) - n ln 2. Scaled says whether s differs from 1, Corrected whether there is an
// error of the subtraction to put back.
template <class X, bool Scaled, bool Corrected>
FS_INLINE typename X::V reduced(typename X::V d, typename X::V n, const Scale<X> &scale,
                                typename X::V error) {
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

// exp(s * (d + error)) * 2^-N for d = x - c; `free`: times ExpCore::unit.
template <class X, bool Scaled, bool Corrected, bool free>
FS_INLINE typename X::V exp_reduced(typename X::V d, const Shift<X> &shift, const Scale<X> &scale,
                                    typename X::V error) {
    const typename X::V t = multiply_add(
        d, Scaled ? scale.log2e : X::set(ExpConstants<typename X::Scalar>::log2e), shift.magic);
    return ExpCore<X>::template finish<free>(
        reduced<X, Scaled, Corrected>(d, t - shift.magic, scale, error), t);
}

template <class X, bool Scaled, bool free>
FS_INLINE typename X::V exp_reduced(typename X::V d, const Shift<X> &shift, const Scale<X> &scale) {
    return exp_reduced<X, Scaled, false, free>(d, shift, scale, typename X::V{});
}

// The form for x at most the maximum that set the shift (-inf included: exact zero), in units.
template <class X, bool Scaled>
FS_INLINE typename X::V exp_shifted(typename X::V x, const Shift<X> &shift, const Scale<X> &scale) {
    return exp_reduced<X, Scaled, true>(larger(shift.lowest, x - shift.center), shift, scale);
}

// x - max as hi + lo; where the exponential is flushed to zero anyway, at `lowest`, lo is 0 (it is
// NaN for infinite x).
template <class X>
FS_INLINE Pair<typename X::V> difference(typename X::V x, typename X::V max, typename X::V lowest) {
    const Pair<typename X::V> d = two_sum(x, -max);
    return {larger(lowest, d.hi), absolute<X>(d.hi) <= -lowest ? d.lo : typename X::V{}};
}

// exp(s * (x - max)) * 2^-N with the rounding error of the subtraction put back: a function of the
// exact difference, and 1 at the maximum (times 2^-N). `shift` is a fixed one.
template <class X, bool Scaled>
FS_INLINE typename X::V exp_below(typename X::V x, typename X::V max, const Shift<X> &shift,
                                  const Scale<X> &scale) {
    const Pair<typename X::V> d = difference<X>(x, max, shift.lowest);
    return exp_reduced<X, Scaled, true, false>(d.hi, shift, scale, d.lo);
}

// exp(s * (x - max)) * 2^-exponent as hi + lo, good to 2^-55.7 relative: for double, where even the
// last bit of an exponential is too much of an error. By the general method, whatever ExpCore does.
template <class X, bool Scaled>
FS_INLINE Pair<typename X::V> exp_below_pair(typename X::V x, typename X::V max,
                                             typename X::V exponent, const Scale<X> &scale) {
    using V = typename X::V;
    using T = typename X::Scalar;
    using C = ExpConstants<T>;
    using F = Format<T>;
    const V magic = F::round_magic + (F::bias - exponent),
            lowest = (exponent - (F::bias - T(0.25))) * scale.unit;
    const Pair<V> d = difference<X>(x, max, lowest);
    const V p = Scaled ? d.hi * scale.hi : d.hi;
    const V p_lo =
        Scaled ? multiply_subtract_exact<X>(d.hi, scale.hi, p) + (d.hi * scale.lo + d.lo * scale.hi)
               : d.lo;
    const V t = multiply_add(d.hi, scale.log2e, magic), n = t - magic,
            power = power_of_two<X>(bits<X>(t));
    const Pair<V> r = two_sum(p - n * C::ln2_hi, p_lo - n * C::ln2_lo);
    const Pair<V> head = two_sum(X::set(1), r.hi),
                  e = two_sum(head.hi, C::quadratic(r.hi) * (r.hi * r.hi));
    return {e.hi * power, (e.lo + (head.lo + (r.lo + r.lo * r.hi))) * power};
}

// The form for any x and a shift without center: far above it gives +inf, which tells the caller
// that the shift was wrong.
template <class X, bool Scaled, bool free>
FS_INLINE typename X::V exp_uncentered(typename X::V x, const Shift<X> &shift,
                                       const Scale<X> &scale) {
    const typename X::V d = larger(shift.lowest, x);
    return exp_reduced<X, Scaled, free>(ExpCore<X>::overflows ? d : smaller(shift.highest, d),
                                        shift, scale);
}

// exp(s x) 2^-exponent for any x, as a function object that is made once for a row; `free`: in
// units.
template <class X, bool Scaled, int exponent, bool free = false>
struct FixedExp {
    Shift<X> shift;
    Scale<X> scale;

    explicit FS_INLINE FixedExp(const Scale<X> &s)
        : shift(Shift<X>::fixed(exponent, s)), scale(s) {}
    FS_INLINE typename X::V operator()(typename X::V x) const {
        return exp_uncentered<X, Scaled, free>(x, shift, scale);
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

    explicit FS_INLINE FixedExp(const Scale<X> &s)
        : scale(s),
          lowest(held(Shift<X>::fixed(exponent, s).lowest)),
          log2e(held(Scaled ? s.log2e : X::set(Constants::log2e))),
          magic(held(X::set(Core::magic))),
          ln2_hi(held(X::set(-Constants::ln2_hi))),
          ln2_lo(held(X::set(-Constants::ln2_lo))),
          c3(held(X::set(Core::c3))),
          c2(held(X::set(Core::c2))),
          table(held(Core::units(1 << -exponent))) {}

    FS_INLINE V operator()(V x) const {
        const V d = larger(lowest, x), t = multiply_add(d, log2e, magic), n = t - magic;
        const V r = Scaled ? reduced<X, true, false>(d, n, scale, V{})
                           : multiply_add(n, ln2_lo, multiply_add(n, ln2_hi, d));
        return Core::scaled_first(r, t, n, table, c3, c2);
    }

  private:
    static FS_INLINE V held(V v) {
        asm("" : "+v"(v));  // now it is a value that cannot be made again from memory
        return v;
    }
};
#endif

template <class X, bool Scaled>
using TypicalExp = FixedExp<X, Scaled, Shift<X>::typical_exponent, true>;

// exp(x) itself, without shift or scale; +inf from overflow on, 0 where the result is subnormal.
template <class X>
FS_INLINE typename X::V exp_plain(typename X::V x) {
    return exp_uncentered<X, false, false>(x, Shift<X>::fixed(0, Scale<X>::one()), Scale<X>::one());
}

// exp(x) 2^lift for x <= 0.
template <class X, int lift>
FS_INLINE typename X::V exp_lifted(typename X::V x) {
    const Scale<X> one = Scale<X>::one();
    const Shift<X> shift = Shift<X>::fixed(-lift, one);
    return exp_reduced<X, false, false>(larger(shift.lowest, x), shift, one);
}

// exp(x) for x <= 0, below the smallest normal number within one step of the subnormal ones. In
// general it is made too large, so that all of them are normal, and multiplied by a power of two,
// which rounds once.
template <class X>
FS_INLINE typename X::V exp_nonpositive(typename X::V x) {
    using T = typename X::Scalar;
    constexpr int lift = ExpCore<X>::overflows ? 0 : Format<T>::mantissa + 1;
    const typename X::V e = exp_lifted<X, lift>(x);
    return lift ? e * (1 / T(isize(1) << lift)) : e;
}

template <class X>
struct NonpositiveExp {
    explicit FS_INLINE NonpositiveExp(const Scale<X> &) {}
    FS_INLINE typename X::V operator()(typename X::V x) const { return exp_nonpositive<X>(x); }
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
    explicit FS_INLINE SplitExp(V x) {
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
    FS_INLINE V times(V a) const { return a * fourth * fraction * fourth * fourth * rest; }
    // a b exp(x) in some lanes, whatever the sizes of all three; by the number, since they are few.
    FS_INLINE V times(V a, V b, typename X::I wanted) const {
        V product{};
        for (isize l = 0; l < X::lanes; ++l) {
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
    explicit FS_INLINE SplitExp(V x) {
        const V y = larger(X::set(SplitExp<X, false>::least_argument), x),
                t = multiply_add(y, X::set(ExpConstants<typename X::Scalar>::log2e),
                                 X::set(Core::magic));
        half = Core::half_fraction(
            reduced<X, false, false>(y, t - Core::magic, Scale<X>::one(), V{}), t);
        n = t - (Core::magic - 1);
    }
    FS_INLINE V value() const { return Core::scaled(half, n); }
    FS_INLINE V times(V a) const { return Core::scaled(a * half, n); }
};
#endif

// The |x| from which 1 + exp(-|x|) is 1 and exp(-|x|) next to the smallest normal number.
template <class X>
constexpr typename X::Scalar tail_from = sizeof(typename X::Scalar) == 4 ? 87 : 708;

}  // namespace fs
}  // namespace
