// softmax, and its gradient from its output.
#pragma once

#include "kernels/drivers/row_map.h"
#include "ops/normalize.h"

namespace {
namespace fs {

using SoftmaxArguments = NormalizeArguments;

inline void softmax(const SoftmaxArguments &a, Index threads) {
    normalize<Result::softmax>(a, threads);
}

// Contiguous rows and default options.
template <class C>
void plain_softmax(const void *x, void *out, Index rows, Index n, Index threads) {
    normalize_plain<Result::softmax, C>(x, out, rows, n, threads);
}

// y = softmax(x):      y (g - sum(g y)) / temperature
struct SoftmaxVjp : RowMap<2, 1> {
    static constexpr bool has_temperature = true;
    static constexpr const char *operation = "softmax_vjp";

    template <class X, class V>
    static FS_ALWAYS_INLINE Vectors<X, 1> terms(V g, V y) {
        return {g * y};
    }
    template <class X, class V>
    static FS_ALWAYS_INLINE V result(const Vectors<X, 1> &sum, V g, V y) {
        return y * (g - sum[0]);
    }
};

}  // namespace fs
}  // namespace
