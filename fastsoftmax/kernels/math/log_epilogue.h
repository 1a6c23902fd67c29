// What becomes of the elements of rows: the logarithm of the total is subtracted.
#pragma once

#include "kernels/math/exp_shift.h"

namespace {
namespace fs {

// (x - max) / temperature - log(total) with the logarithm in two terms.
template <class X, bool Scaled>
struct LogEpilogue {
    using V = typename X::V;
    // unit, if Scaled: 1, or 1/2 where x - max may overflow; then max is half of it, too
    V max, hi, lo, inverse_hi, inverse_lo, unit;

    void set_lane(Index l, double max_, double log_hi, double log_lo, DoubleDouble<> inverse) {
        using T = typename X::Scalar;
        const T h = static_cast<T>(log_hi);
        max[l] = static_cast<T>(max_);
        hi[l] = h;
        lo[l] = h - h == 0 ? static_cast<T>((log_hi - static_cast<double>(h)) + log_lo) : T(0);
        set_inverse(l, inverse);
    }
    void set_inverse(Index l, DoubleDouble<> inverse) {
        using T = typename X::Scalar;
        const bool far = Scaled && absolute<X>(max)[l] > std::numeric_limits<T>::max() / 4;
        unit[l] = far ? T(0.5) : T(1);
        if (far) max[l] *= T(0.5), inverse.hi *= 2, inverse.lo *= 2;
        const T i = static_cast<T>(inverse.hi);
        inverse_hi[l] = i;
        inverse_lo[l] = static_cast<T>((inverse.hi - static_cast<double>(i)) + inverse.lo);
    }
    void broadcast() {
        max = X::set(max[0]), hi = X::set(hi[0]), lo = X::set(lo[0]);
        inverse_hi = X::set(inverse_hi[0]), inverse_lo = X::set(inverse_lo[0]),
        unit = X::set(unit[0]);
    }
    FS_ALWAYS_INLINE V apply(V x) const {
        const V d = Scaled ? multiply_add(x, unit, -max) : x - max;
        if (!Scaled) return (d - hi) - lo;
        const V y = multiply_add(d, inverse_hi, -hi), correction = multiply_add(d, inverse_lo, -lo);
        return y >= -std::numeric_limits<typename X::Scalar>::max() ? y + correction : y;
    }
};

}  // namespace fs
}  // namespace
