// What logits are multiplied by inside an exponential, and the shift that keeps it in range.
#pragma once

#include <limits>

#include "kernels/math/exp.h"

namespace {
namespace fs {

// What multiplies the logits inside the exponential, ln(base) / temperature, in vectors (one value
// for a row, a value per lane for columns), and what one step of n is in units of the logits.
template <class X>
struct Scale {
    typename X::V hi, lo, log2e, unit;
    void set_lane(Index lane, DoubleDouble<> f) {
        using T = typename X::Scalar;
        T h = static_cast<T>(f.hi);
        hi[lane] = h;
        lo[lane] = static_cast<T>((f.hi - h) + f.lo);
        log2e[lane] = static_cast<T>(f.hi * ExpConstants<double>::log2e);
        unit[lane] = 1 / log2e[lane];
    }
    static Scale all(DoubleDouble<> f) {
        Scale s;
        s.set_lane(0, f);
        s.hi = X::set(s.hi[0]), s.lo = X::set(s.lo[0]), s.log2e = X::set(s.log2e[0]),
        s.unit = X::set(s.unit[0]);
        return s;
    }
    static FS_ALWAYS_INLINE Scale one() {
        using C = ExpConstants<typename X::Scalar>;
        return {X::set(1), typename X::V{}, X::set(C::log2e), X::set(1 / C::log2e)};
    }
};

// As exponents with their bias: what power_of_two() takes.
template <class X>
FS_ALWAYS_INLINE inline typename X::I biased_exponent(typename X::V v) {
    return (typename X::I)((typename X::U)bits<X>(absolute<X>(v)) >>
                           Format<typename X::Scalar>::mantissa);
}

// The powers of two by which exponentials are larger that are multiplied by a factor, so that none
// is flushed before: as many as the factor has and two more.
template <class X>
FS_ALWAYS_INLINE inline typename X::I lifts_of(typename X::V factor) {
    using I = typename X::I;
    constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias,
                                                       most = bias - 27;
    const I wanted = biased_exponent<X>(factor) - (bias - 2), none = {};
    return wanted < none ? none : wanted > most ? none + most : wanted;
}

// c, N and the range of x - c: below it exponentials are 0, above +inf.
template <class X>
struct Shift {
    typename X::V center, magic, lowest, highest;

    double exponent(Index lane) const {  // N
        return static_cast<double>(ExpCore<X>::magic) +
               (ExpCore<X>::bias - static_cast<double>(magic[lane]));
    }

    // No center, and the given N.
    static FS_ALWAYS_INLINE Shift fixed(typename X::Scalar exponent, const Scale<X> &scale) {
        return fixed(X::set(exponent), scale);
    }
    static FS_ALWAYS_INLINE Shift fixed(typename X::V exponent, const Scale<X> &scale,
                                        typename X::Scalar least = ExpCore<X>::least) {
        using T = typename X::Scalar;
        using F = Format<T>;
        Shift s;
        s.center = typename X::V{};
        s.magic = ExpCore<X>::magic + (ExpCore<X>::bias - exponent);
        s.lowest = (exponent - least) * scale.unit;
        s.highest = (exponent + (F::bias + 1 - T(0.25))) * scale.unit;
        return s;
    }
    // The same for exponentials that keep subnormal results, where the core has them.
    static FS_ALWAYS_INLINE Shift gradual(typename X::Scalar exponent, const Scale<X> &scale) {
        return fixed(X::set(exponent), scale, ExpCore<X>::gradual);
    }
    // A shift that needs no look at the row: sums of exponentials between 2^-31 and 2^70 (double:
    // 2^-401 and 2^500), those of almost all logits, stay far from both ends of the range.
    static constexpr int fixed_exponent = sizeof(typename X::Scalar) == 4 ? -30 : -400;
    static FS_ALWAYS_INLINE Shift fixed(const Scale<X> &scale) {
        return fixed(fixed_exponent, scale);
    }

    // So many powers of two more.
    FS_ALWAYS_INLINE Shift lifted(typename X::I octaves, const Scale<X> &scale) const {
        const typename X::V by = __builtin_convertvector(octaves, typename X::V);
        return {center, magic + by, lowest - by * scale.unit, highest - by * scale.unit};
    }

    // From the (approximate or exact) maximum of each lane. An infinite or NaN maximum shifts by
    // nothing. Where differences from the maximum are known to be exact, it may be the center
    // whatever its size.
    static FS_ALWAYS_INLINE Shift from(typename X::V max, const Scale<X> &scale,
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
FS_ALWAYS_INLINE inline typename X::I off_grid(typename X::V x) {
    const typename X::V magic = X::set(sizeof(typename X::Scalar) == 4 ? 0x1.8p13 : 0x1.8p32);
    return bits<X>((x + magic) - magic) ^ bits<X>(x);
}

}  // namespace fs
}  // namespace
