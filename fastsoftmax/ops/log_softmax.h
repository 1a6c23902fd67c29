// log_softmax, and its gradient from its output.
#pragma once

#include "kernels/drivers/row_map.h"
#include "ops/normalize.h"

namespace {
namespace fs {

using LogSoftmaxArguments = NormalizeArguments;

inline void log_softmax(const LogSoftmaxArguments &a, isize threads) {
    normalize<Result::log_softmax>(a, threads);
}

// Contiguous rows and default options.
template <class C>
void plain_log_softmax(const void *x, void *out, isize rows, isize n, isize threads) {
    normalize_plain<Result::log_softmax, C>(x, out, rows, n, threads);
}

// y = log_softmax(x):  (g - exp(y) sum(g)) / temperature
struct LogSoftmaxVjp : RowMap<2, 1> {
    static constexpr bool has_temperature = true;
    static constexpr const char *operation = "log_softmax_vjp";

    template <class X, class V>
    static FS_INLINE Vectors<X, 1> terms(V g, V) {
        return {g};
    }
    template <class X, class V>
    static FS_INLINE V result(const Vectors<X, 1> &sum, V g, V y) {
        return g - exp_plain<X>(y) * sum[0];
    }
};

}  // namespace fs
}  // namespace
