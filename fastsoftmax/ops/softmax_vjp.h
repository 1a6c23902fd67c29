// The gradients of softmax and log_softmax, from their outputs.
#pragma once

#include "row_map.h"

namespace {
namespace fs {

struct GradientOfOutput : RowMap<2, 1> {
    static constexpr bool has_temperature = true;
};

// y = softmax(x):      y (g - sum(g y)) / temperature
struct SoftmaxVjp : GradientOfOutput {
    template <class X, class V>
    static FS_INLINE Vectors<X, 1> terms(V g, V y) {
        return {g * y};
    }
    template <class X, class V>
    static FS_INLINE V result(const Vectors<X, 1> &sum, V g, V y) {
        return y * (g - sum[0]);
    }
};

// y = log_softmax(x):  (g - exp(y) sum(g)) / temperature
struct LogSoftmaxVjp : GradientOfOutput {
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
