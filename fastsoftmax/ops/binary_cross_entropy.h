// Binary cross-entropy of probabilities.
#pragma once

#include "kernels/drivers/element_losses.h"

namespace {
namespace fs {

// The smaller one of numbers >= 0, or less (its bits, of which the upper halves decide between
// doubles); others do not matter.
template <class X>
FS_ALWAYS_INLINE inline typename X::V closer_to_zero(typename X::V x, typename X::V m) {
#if defined(__AVX512F__)
    if constexpr (sizeof x == 64) return (typename X::V)_mm512_min_epu32((__m512i)m, (__m512i)x);
#elif defined(__AVX2__)
    if constexpr (sizeof x == 32) return (typename X::V)_mm256_min_epu32((__m256i)m, (__m256i)x);
#endif
    return smaller(x, m);
}

struct BinaryProbabilities {
    double clamp;  // the logarithms are at least -clamp
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply(V p, V t, V weight, V, V &loss, V &gradient) const {
        using T = typename X::Scalar;
        const V zero = {}, one = X::set(1), n = one - t, least = X::set(static_cast<T>(-clamp)),
                nan = X::set(std::numeric_limits<T>::quiet_NaN());
        const V log_p = log_of<X>(p), log_q = log_complement<X>(p);
        // not -0
        const V y = zero - (term(t, larger(least, log_p)) + term(n, larger(least, log_q)));
        // Where a logarithm is clamped it is flat. -t/p and (1-t)/(1-p) apart: their sum (p - t) /
        // (p (1 - p)) would lose the clamp.
        const V rise = log_q < least ? zero : n / (one - p), fall = log_p < least ? zero : t / p;
        const V g = (n == zero ? zero : rise) - (t == zero ? zero : fall);
        const auto inside = p >= zero;
        loss = inside ? (p <= one ? term(weight, y) : nan) : nan;
        gradient = inside ? (p <= one ? term(weight, g) : nan) : nan;
    }
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply_hard(V p, V t, V weight, V positive, typename X::Scalar scale,
                                     V &loss, V &gradient) const {
        apply<X>(p, t, weight, positive, loss, gradient);
        gradient = gradient * scale;
        const V log_p = log_of<X>(p);
        for (Index l = 0; l < X::lanes; ++l) {
            if (!(p[l] > 0 && p[l] < hard_below<X>) || weight[l] == 0) continue;
            const auto most = static_cast<typename X::Scalar>(clamp);
            const long double target = t[l],
                              fall = t[l] == 0 || log_p[l] < -most ? 0 : target / p[l],
                              rise = p[l] > most ? 0 : 1 - target;
            gradient[l] = static_cast<typename X::Scalar>((rise - fall) * weight[l] * scale);
        }
    }
    template <class X, class C = typename X::Scalar>
    FS_ALWAYS_INLINE bool is_hard(const C *p, const C *, Index n, bool, bool with_gradient) const {
        if (!with_gradient) return false;
        typename X::V least = X::set(1);
        for_each_vector<X>(n, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
            least = closer_to_zero<X>(lanes.load(p + i, 1), least);
        });
        if (!any_lane<X>(least < hard_below<X>)) return false;
        bool found = false;  // 0 alone is not
        for (Index i = 0; i < n; ++i) found |= p[i] > 0 && p[i] < hard_below<X>;
        return found;
    }

  private:
    // From here on 1 / p may be large enough that it, or its product with a weight, overflows.
    template <class X>
    static constexpr typename X::Scalar hard_below =
        sizeof(typename X::Scalar) == 4 ? 0x1p-64 : 0x1p-512;
};

template <>
constexpr bool may_be_hard<BinaryProbabilities> = true;

}  // namespace fs
}  // namespace
