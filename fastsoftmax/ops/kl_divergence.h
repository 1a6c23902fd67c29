// The divergence of distributions.
#pragma once

#include "kernels/drivers/row_losses.h"

namespace {
namespace fs {

struct Divergence {
    static constexpr const char *operation = "kl_divergence";
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply(V log_q, V p, V, V, V &loss, V &gradient) const {
        const V nan = X::set(std::numeric_limits<typename X::Scalar>::quiet_NaN());
        const DoubleDouble<V> log_p = log_pair<X>(p);
        // which may be less than the rounding error of log p
        const V d = (log_p.hi - log_q) + log_p.lo;
        loss =
            term(p, p >= V{} ? (p <= std::numeric_limits<typename X::Scalar>::max() ? d : p - log_q)
                             : nan);
        gradient = V{} - p;
    }
};

// What logarithms lack (2^-30 of them) would show next to differences that are so small.
template <>
constexpr double precise_below<Divergence> = 0x1p-4;

struct DivergenceOfLogs {
    static constexpr const char *operation = "kl_divergence";
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply(V log_q, V log_p, V, V, V &loss, V &gradient) const {
        const V p = exp_plain<X>(log_p);
        loss = term(p, log_p - log_q);
        gradient = V{} - p;
    }
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply_hard(V log_q, V log_p, V weight, V positive,
                                     typename X::Scalar scale, V &loss, V &gradient) const {
        apply<X>(log_q, log_p, weight, positive, loss, gradient);
        const V d = log_p - log_q;
        const auto tail = log_p < -tail_from<X>;
        loss = tail && absolute<X>(d) <= std::numeric_limits<typename X::Scalar>::max()
                   ? SplitExp<X>(smaller(log_p, V{})).times(d)
                   : loss;
        gradient = gradient * scale;
    }
    template <class X, class C = typename X::Scalar>
    FS_ALWAYS_INLINE bool is_hard(const C *, const C *log_p, Index n, bool, bool) const {
        return any_tail<X, 1>(log_p, n);
    }
};

template <>
constexpr bool may_be_hard<DivergenceOfLogs> = true;

}  // namespace fs
}  // namespace
