// 1 / (1 + exp(-x)), and its gradient from its output.
#pragma once

#include "kernels/drivers/elementwise.h"

namespace {
namespace fs {

struct Sigmoid {
    template <class X>
    static FS_ALWAYS_INLINE typename X::V apply(typename X::V x) {
        return sigmoid<X>(x);
    }
};

struct SigmoidVjp {
    static constexpr int sigmoid_sign = 0;
    template <class X>
    static FS_ALWAYS_INLINE typename X::V apply(typename X::V g, typename X::V y) {
        return g * (y * (X::set(1) - y));
    }
};

}  // namespace fs
}  // namespace
