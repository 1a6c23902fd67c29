// log(p / (1 - p)).
#pragma once

#include "kernels/drivers/elementwise.h"

namespace {
namespace fs {

struct Logit {
    template <class X>
    static FS_ALWAYS_INLINE typename X::V apply(typename X::V x) {
        return logit<X>(x);
    }
};

}  // namespace fs
}  // namespace
