// -log(1 + exp(-x)), and its gradient.
#pragma once

#include "kernels/drivers/elementwise.h"

namespace {
namespace fs {

struct LogSigmoid {
    template <class X>
    static FS_ALWAYS_INLINE typename X::V apply(typename X::V x) {
        return log_sigmoid<X>(x);
    }
};

struct LogSigmoidVjp {
    static constexpr int sigmoid_sign = -1;
    template <class X>
    static FS_ALWAYS_INLINE typename X::V apply(typename X::V g, typename X::V y) {
        return times_sigmoid<X, -1>(g, y);
    }
};

}  // namespace fs
}  // namespace
