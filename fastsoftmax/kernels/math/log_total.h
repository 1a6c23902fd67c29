// RowTotals whose maximum may dominate them, relative to it.
#pragma once

#include "kernels/math/exp_sums.h"
#include "kernels/math/log_sum_exp.h"

namespace {
namespace fs {

// Whether each exponential of a row is added to the wider sums by itself, so that none takes digits
// of the others. Of short rows this takes less time than to sum the maximum's block again, of every
// second row.
template <class X>
FS_ALWAYS_INLINE inline bool summed_singly(Index n) {
    return n < 4 * accumulator_vectors * X::lanes || n <= singly_summed;
}

template <bool singly, class X, class C, class Exp>
FS_ALWAYS_INLINE inline C add_exp_and_max(const C *x, Index n, const Exp &exp,
                                          Accumulator<X> &sums) {
    auto most = X::set(masked_logit<C>);
    const auto term = [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        fetch_ahead<X>(x + i);
        const auto v = lanes.load(x + i, masked_logit<C>);
        most = larger(v, most);
        return exp(v);
    };
    if constexpr (singly)
        for_each_vector<X>(
            n, [&](Index i, auto lanes) FS_ALWAYS_INLINE { sums.add_stored(term(i, lanes)); });
    else
        sum_vectors<X, added_by_twos, true>(n, sums, term);
    return largest_lane<X>(most);
}

// The same with the fixed shift: the maximum tells whether all exponentials were in its reach.
template <bool Scaled, class X, class C>
__attribute__((noinline)) C add_fixed_exp_apart(const C *x, Index n, const Scale<X> &scale,
                                                Accumulator<X> &sums) {
    const FixedShiftExp<X, Scaled> fixed(Scaled ? scale : Scale<X>::one());
    Accumulator<X> own = sums;
    const C max = add_exp_and_max<false, X>(
        x, n, [&](typename X::V v) FS_ALWAYS_INLINE { return fixed.unlimited(v); }, own);
    sums = own;
    return max;
}
// Where registers are few, by a function of its own with sums of its own: inlined beside other
// loops, or by reference, GCC keeps the sums in memory. (logsumexp of rows of 1000 to 100000
// float32, AVX2: 0.91 to 0.94 of the time.)
template <bool Scaled, class X, class C>
FS_ALWAYS_INLINE inline C add_fixed_exp_and_max(const C *x, Index n,
                                                const FixedShiftExp<X, Scaled> &fixed,
                                                Accumulator<X> &sums) {
    if constexpr (sizeof(typename X::V) == 64)
        return add_exp_and_max<false, X>(x, n, fixed, sums);
    else
        return add_fixed_exp_apart<Scaled, X>(x, n, fixed.scale, sums);
}

// The others of a dominated total: the maximum's block is summed again without it. get(start,
// count) are logits of the chunk that holds the maximum.
template <class X, class C, class Get, class Exp>
void recompute_tail(ExpTotal<C> &t, Index start, Index end, Get get, const Exp &exp) {
    constexpr Index size = accumulator_block<X>;
    for (Index at = start; at < end; at += size) {
        const Index count = end - at < size ? end - at : size;
        const C *x = get(at, count);
        const Index j = span_find<X>(x, count, t.max);
        if (j < count) return t.set_others(sum_without<X, added_by_twos>(x, count, j, exp, t.sum));
    }
}

// Of a contiguous row, with the shift from its maximum.
template <class X, bool Scaled, class C>
ExpTotal<C> careful_total(const C *x, Index n, const Scale<X> &scale) {
    ExpTotal<C> t;
    t.max = span_max<X>(x, n);
    const Shift<X> shift = Shift<X>::from(X::set(t.max), scale);
    const auto exp = [&](auto v) FS_ALWAYS_INLINE {
        return exp_max_shift<X, Scaled>(v, shift, scale);
    };
    const bool singly = summed_singly<X>(n);
    Accumulator<X> sums;
    if (singly)
        for_each_vector<X>(n, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
            sums.add(exp(lanes.load(x + i, masked_logit<C>)));
        });
    else
        add_exp<X, added_by_twos>(x, n, exp, sums);
    t.sum = sums.total(), t.at_max = exp(X::set(t.max))[0], t.center = shift.center[0],
    t.exponent = shift.exponent(0);
    if (!singly && t.max_dominates())
        recompute_tail<X>(t, 0, n, [&](Index at, Index) { return x + at; }, exp);
    return t;
}

}  // namespace fs
}  // namespace
