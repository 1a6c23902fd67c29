// Exponentials relative to a maximum that keep their digits where they are small, and what double
// and its pairs do for single rows.
#pragma once

#include <cmath>

#include "kernels/math/exp_shift.h"
#include "kernels/simd/accumulator.h"

namespace {
namespace fs {

// Those of a row relative to its maximum, as many powers of two larger as the factor is that
// multiplies them in the gradient: none underflows before it is multiplied by a large weight.
template <class X, bool Scaled>
struct LiftedExp {
    using V = typename X::V;
    V max;
    Shift<X> shift;
    Scale<X> scale;

    LiftedExp(V max_, V lifts, const Scale<X> &scale_)
        : max(max_), shift(Shift<X>::fixed(-lifts, scale_)), scale(scale_) {}
    static V all(double factor) { return X::set(static_cast<typename X::Scalar>(lift(factor))); }
    static int lift(double factor) {
        constexpr int most = sizeof(typename X::Scalar) == 4 ? 100 : 900;
        const int octaves = factor != 0 && factor - factor == 0 ? std::ilogb(factor) + 2 : 0;
        return octaves < 0 ? 0 : octaves < most ? octaves : most;
    }
    FS_ALWAYS_INLINE V operator()(V x) const {
        return exp_of_difference<X, Scaled>(x, max, shift, scale);
    }
};

// Whether e * (factor / total) has all its digits wherever it is a normal number, if none of the
// exponentials e is above their total.
template <class C>
FS_ALWAYS_INLINE inline bool fits(double factor, double total) {
    const double m = std::abs(factor);
    return m <= total && m >= total * (sizeof(C) == 4 ? 0x1p-100 : 0x1p-960);
}

// exp(s (x - max)) 2^precise_lift in two terms, of numbers of any type.
constexpr int precise_lift = 900;
template <class X, bool Scaled>
FS_ALWAYS_INLINE inline DoubleDouble<typename X::V> precise_exp(typename X::V x, typename X::V max,
                                                                const Scale<X> &scale) {
    return exp_of_difference_pair<X, Scaled>(x, max, X::set(-precise_lift), scale);
}

// exp(hi + lo), and less 1.
inline double exp_of(DoubleDouble<> s) {
    const auto y = two_sum(s.hi, s.lo);
    return y.hi - y.hi == 0 ? std::exp(y.hi) * (1 + y.lo) : std::exp(s.hi);
}

inline double expm1_of(DoubleDouble<> s) {
    const auto y = two_sum(s.hi, s.lo);
    return y.hi - y.hi == 0 ? std::expm1(y.hi) + y.lo * std::exp(y.hi) : std::expm1(s.hi);
}

// s (x - from); the difference itself may overflow where the product does not.
inline DoubleDouble<> scaled_difference(double x, double from, DoubleDouble<> s) {
    const double d = x - from, infinity = std::numeric_limits<double>::infinity();
    const bool overflows = (d == infinity || d == -infinity) && x - x == 0 && from - from == 0;
    const auto part = overflows ? DoubleDouble<double>{x / 2 - from / 2, 0} : two_sum(x, -from);
    const DoubleDouble<> y = s.times(part.hi);
    const double lo = y.lo + (part.lo == part.lo ? part.lo : 0) * s.hi;
    return overflows ? DoubleDouble<>{2 * y.hi, 2 * y.lo} : DoubleDouble<>{y.hi, lo};
}

}  // namespace fs
}  // namespace
