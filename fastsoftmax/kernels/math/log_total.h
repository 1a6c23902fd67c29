// Totals whose maximum may dominate them, relative to it.
#pragma once

#include "kernels/math/exp_sums.h"
#include "kernels/math/log_sum_exp.h"

namespace {
namespace fs {

// Whether each exponential of a row is added to the wider sums by itself, so that none takes digits
// of the others. Of short rows this takes less time than to sum the maximum's block again, of every
// second row.
template <class X>
FS_INLINE bool summed_singly(isize n) {
    return n < 4 * accumulator_vectors * X::lanes || n <= singly_summed;
}

template <bool singly, class X, class C, class Exp>
FS_INLINE C add_exp_and_max(const C *x, isize n, const Exp &exp, LaneSums<X> &sums) {
    auto most = X::set(absent_logit<C>);
    const auto term = [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        fetch_ahead<X>(x + i);
        const auto v = lanes.load(x + i, absent_logit<C>);
        most = larger(v, most);
        return exp(v);
    };
    if constexpr (singly)
        each_vector<X>(
            n, [&](isize i, auto lanes) FS_INLINE_LAMBDA { sums.add_stored(term(i, lanes)); });
    else
        sum_vectors<X, added_by_twos, true>(n, sums, term);
    return largest_lane<X>(most);
}

// The others of a dominated total: the maximum's block is summed again without it. get(start,
// count) are logits of the chunk that holds the maximum.
template <class X, class C, class Get, class Exp>
void refine(ExpTotal<C> &t, isize start, isize end, Get get, const Exp &exp) {
    constexpr isize size = summed_elements<X>;
    for (isize at = start; at < end; at += size) {
        const isize count = end - at < size ? end - at : size;
        const C *x = get(at, count);
        const isize j = span_find<X>(x, count, t.max);
        if (j < count) return t.set_others(sum_without<X, added_by_twos>(x, count, j, exp, t.sum));
    }
}

// Of a contiguous row, with the shift from its maximum.
template <class X, bool Scaled, class C>
ExpTotal<C> careful_total(const C *x, isize n, const Scale<X> &scale) {
    ExpTotal<C> t;
    t.max = span_max<X>(x, n);
    const Shift<X> shift = Shift<X>::from(X::set(t.max), scale);
    const auto exp = [&](auto v) FS_INLINE_LAMBDA {
        return exp_shifted<X, Scaled>(v, shift, scale);
    };
    const bool singly = summed_singly<X>(n);
    LaneSums<X> sums;
    if (singly)
        each_vector<X>(n, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
            sums.add(exp(lanes.load(x + i, absent_logit<C>)));
        });
    else
        add_exp<X, added_by_twos>(x, n, exp, sums);
    t.sum = sums.total(), t.at_max = exp(X::set(t.max))[0], t.center = shift.center[0],
    t.exponent = shift.exponent(0);
    if (!singly && t.dominated()) refine<X>(t, 0, n, [&](isize at, isize) { return x + at; }, exp);
    return t;
}

}  // namespace fs
}  // namespace
