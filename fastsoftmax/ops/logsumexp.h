// logsumexp, and its gradient, which is g softmax(x).
#pragma once

#include "ops/logsumexp_weighted_floats.h"
#include "ops/normalize.h"

namespace {
namespace fs {

using LogSumExpArguments = NormalizeArguments;

inline void logsumexp(const LogSumExpArguments &a, Index threads) {
    normalize<Result::logsumexp>(a, threads);
}

// Contiguous rows and default options.
template <class C>
void plain_logsumexp(const void *x, void *out, Index rows, Index n, Index threads) {
    normalize_plain<Result::logsumexp, C>(x, out, rows, n, threads);
}

inline void logsumexp_vjp(const LogSumExpArguments &a, Index threads) {
    normalize<Result::logsumexp_vjp>(a, threads);
}

template <class C>
void plain_logsumexp_vjp(const void *g, const void *x, void *out, Index rows, Index n,
                         Index threads) {
    LogSumExpArguments a;
    a.gradient = AnyView::matrix(g, number_of<C>, rows, 1);
    a.x = AnyView::matrix(x, number_of<C>, rows, n);
    a.out = AnyView::matrix(out, number_of<C>, rows, n);
    normalize_scaled<Result::logsumexp_vjp, false, C>(a, threads);
}

}  // namespace fs
}  // namespace
