// log_softmax, and its gradient from its output.
#pragma once

#include "kernels/drivers/row_map.h"
#include "ops/normalize.h"

namespace {
namespace fs {

using LogSoftmaxArguments = NormalizeArguments;

inline void log_softmax(const LogSoftmaxArguments &a, Index threads) {
    normalize<Result::log_softmax>(a, threads);
}

// Contiguous rows and default options.
template <class C>
void plain_log_softmax(const void *x, void *out, Index rows, Index n, Index threads) {
    normalize_plain<Result::log_softmax, C>(x, out, rows, n, threads);
}

// y = log_softmax(x):  (g - exp(y) sum(g)) / temperature
//
// Where the sum is above 1, the exponentials are as many powers of two larger and the sum as many
// smaller, so that none is flushed before it is multiplied.
struct LogSoftmaxVjp : RowMap<2, 1> {
    static constexpr bool has_temperature = true, computes = true;
    static constexpr const char *operation = "log_softmax_vjp";

    template <class X>
    struct Settled {
        typename X::V sum;
        Shift<X> shift;
    };

    template <class X, class V>
    static FS_ALWAYS_INLINE Vectors<X, 1> terms(V g, V) {
        return {g};
    }
    template <class X>
    static FS_ALWAYS_INLINE Settled<X> settled(const Vectors<X, 1> &sum) {
        constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias;
        const Scale<X> one = Scale<X>::one();
        const typename X::I lifts = lifts_of<X>(sum[0]);
        return {sum[0] * power_of_two<X>(bias - lifts), Shift<X>::fixed(0, one).lifted(lifts, one)};
    }
    template <class X, class V>
    static FS_ALWAYS_INLINE V result(const Settled<X> &row, V g, V y) {
        return g - exp_fixed_shift<X, false, false>(y, row.shift, Scale<X>::one()) * row.sum;
    }
};

}  // namespace fs
}  // namespace
