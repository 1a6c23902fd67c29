// Shares of squares, and their gradient from the input.
#pragma once

#include "kernels/drivers/row_map.h"

namespace {
namespace fs {

template <int inputs, int sums>
struct OfSquares : RowMap<inputs, sums> {
    static constexpr bool rescales = true;
    // each addition in the terms' precision costs an ulp
    static constexpr Index added_together = added_singly;
};

// x^2 / sum(x^2): squares of 2^k x over 4^k sum(x^2), which is from 1 to 4, so that they underflow
// only where results do.
struct SquareNormalize : OfSquares<1, 1> {
    template <class X>
    struct Row {
        typename X::V power, sum;
    };
    template <class X, class V>
    static FS_ALWAYS_INLINE Vectors<X, 1> terms(V x) {
        return {x * x};
    }
    template <class X>
    static FS_ALWAYS_INLINE auto lost(const Vectors<X, 1> &sum) {
        return ~is_moderate<X>(sum[0], Format<typename X::Scalar>::bias - 29);
    }
    template <class X>
    static FS_ALWAYS_INLINE Row<X> settled(const Vectors<X, 1> &sum) {
        const auto power = power_of_two<X>(half_power_towards_one<X>(sum[0]));
        return {power, sum[0] * power * power};
    }
    template <class X, class V>
    static FS_ALWAYS_INLINE V result(const Row<X> &row, V x) {
        return (x * row.power) * (x * row.power) / row.sum;
    }
};

// 2 x (g - sum(g x^2) / sum(x^2)) / sum(x^2). Sums this moderate keep the digits of what is not
// 2^-80 of the rest of its row.
struct SquareNormalizeVjp : OfSquares<2, 2> {
    template <class X, class V>
    static FS_ALWAYS_INLINE Vectors<X, 2> terms(V g, V x) {
        return {x * x, g * (x * x)};
    }
    template <class X>
    static FS_ALWAYS_INLINE auto lost(const Vectors<X, 2> &sums) {
        constexpr int third = Format<typename X::Scalar>::bias / 3;
        return ~(is_moderate<X>(sums[0], third) & is_moderate<X>(sums[1], 2 * third));
    }
    template <class X>
    static FS_ALWAYS_INLINE Vectors<X, 2> settled(const Vectors<X, 2> &sums) {
        return {2 / sums[0], sums[1] / sums[0]};
    }
    template <class X, class V>
    static FS_ALWAYS_INLINE V result(const Vectors<X, 2> &row, V g, V x) {
        return x * row[0] * (g - row[1]);
    }
    template <class X, class V, class I>
    static FS_ALWAYS_INLINE V restored(V r, const I *powers) {
        return times_quotient<X>(r, powers[1], powers[0]);
    }
};

}  // namespace fs
}  // namespace
