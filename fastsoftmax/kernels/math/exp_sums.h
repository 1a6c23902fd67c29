// Sums of the exponentials of contiguous rows, by a fixed shift or from the maximum.
#pragma once

#include "kernels/math/exp_shift.h"
#include "kernels/simd/accumulator.h"

namespace {
namespace fs {

// Whether the constant shift may do: judged by the first logit, and by the sum when that is known.
// The constant makes rows independent of what they hold until their sums are known, so that the
// processor works on several at once.
template <class V>
FS_INLINE auto worth_a_guess(V scaled_logit) {
    return (scaled_logit > -16) & (scaled_logit < 40);
}

template <class X>
FS_INLINE bool all_worth_a_guess(const typename X::Scalar *logits, isize count) {
    typename X::I wrong = {};
    each_vector<X>(count, [&](isize k, auto lanes) FS_INLINE_LAMBDA {
        wrong |= ~worth_a_guess(lanes.load(logits + k, 0));
    });
    return !any<X>(wrong);
}

// Whether the sum came from a shift near enough: between 1 and 2^100 (2^900), nothing that
// matters was lost.
template <class C, class V>
FS_INLINE auto near_enough(V sum) {
    return (sum >= 1) & (sum <= (sizeof(C) == 4 ? 0x1p100 : 0x1p900));
}

// The totals of rows that are settled together: what is done once a row costs less in vectors of
// them, and none waits for another.
template <isize most>
struct Totals {
    double hi[most], lo[most];

    FS_INLINE Sum operator[](isize k) const { return {hi[k], lo[k]}; }
    FS_INLINE void set(isize k, Sum sum) { hi[k] = sum.hi, lo[k] = sum.lo; }
    template <class D>
    FS_INLINE Pair<typename D::V> part(isize k) const {
        return {D::load(hi + k), D::load(lo + k)};
    }
    // Whether a guess was right for all rows.
    template <class C>
    FS_INLINE bool near_enough(isize count) const {
        using D = Vec<double>;
        typename D::I right = ~typename D::I{};
        for (isize k = 0; k < count; k += D::lanes) right &= fs::near_enough<C>(D::load(hi + k));
        return !any<D>(~right);
    }
    // In whole vectors, as they are loaded again: loads that span several stores wait for these to
    // reach the cache. Those from `count` on repeat the last.
    template <class X>
    FS_INLINE void set(const typename LaneSums<X>::Unfolded *sums, isize count) {
        using D = Vec<double>;
        for (isize k = 0; k < count; k += D::lanes) {
            const auto vector = folded<X, D>(sums, k, count - 1);
            D::store(hi + k, vector.hi), D::store(lo + k, vector.lo);
        }
        for (isize k = (count + D::lanes - 1) / D::lanes * D::lanes; k % X::lanes; k += D::lanes)
            D::store(hi + k, D::set(1)), D::store(lo + k, D::set(0));
    }

  private:
    template <class X, class D>
    static FS_INLINE Pair<typename D::V> folded(const typename LaneSums<X>::Unfolded *sums, isize k,
                                                isize last) {
        if constexpr (D::lanes == 2) {
            return LaneSums<X>::two_totals(sums[k < last ? k : last],
                                           sums[k + 1 < last ? k + 1 : last]);
        } else {
            using Half = Vec<double, sizeof(typename D::V) / 2>;
            const auto a = folded<X, Half>(sums, k, last),
                       b = folded<X, Half>(sums, k + Half::lanes, last);
            return {joined<D>(a.hi, b.hi), joined<D>(a.lo, b.lo)};
        }
    }
};

// Sweeps over a contiguous block of one row. Exp is a function of vectors.
template <class C>
constexpr C absent_logit = -std::numeric_limits<C>::infinity();

template <class X, isize together = added_by_fours, class C, class Exp>
FS_INLINE void add_exp(const C *x, isize n, const Exp &exp, LaneSums<X> &sums) {
    sum_vectors<X, together, true>(n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        fetch_ahead<X>(x + i);
        return exp(lanes.load(x + i, absent_logit<C>));
    });
}

// `sum` less the exponential at one place of it, with all digits of the others even if it is nearly
// all there is: what its block of `count` elements (at a multiple of summed_elements from the start
// of the row) added to the sum, so many vectors together, is taken away, and added again without
// it, each by itself.
template <class X, isize together, class C, class Exp>
Sum sum_without(const C *x, isize count, isize place, const Exp &exp, Sum sum) {
    C e[summed_elements<X>];
    LaneSums<X> with, without;
    sum_vectors<X, together>(count, with, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        const auto v = exp(lanes.load(x + i, absent_logit<C>));
        lanes.store(e + i, v);
        return v;
    });
    each_vector<X>(count, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        without.add(X::without(lanes.load(e + i, 0), place - i));
    });
    const Sum all = with.total();
    sum.add({-all.hi, -all.lo});
    sum.add(without.total());
    return sum;
}

// exp(x) of a row, kept in e to be scaled. Where the row does not end with a vector, its last
// vector overlaps the one before: that costs less than masked loads and stores. (A row of less than
// a vector is padded.) beside(i) comes along with every whole vector.
template <class X, class S, class C, class Exp, class Beside>
FS_INLINE typename LaneSums<X>::Unfolded keep_exp(const S *x, C *e, isize n, const Exp &exp,
                                                  Beside beside) {
    LaneSums<X> sums;
    const auto term = [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        if constexpr (decltype(lanes)::whole) {
            return exp(load_as<X>(x + i));
        } else {
            const isize at = n < X::lanes ? 0 : n - X::lanes;
            const auto y = exp(n < X::lanes ? lanes.load(x, absent_logit<C>) : load_as<X>(x + at));
            X::store(e + at, y);
            return n < X::lanes ? y : X::last(y, n - i);
        }
    };
    sum_vectors<X>(n, sums, term, [&](isize i, const auto &...y) FS_INLINE_LAMBDA {
        isize at = i;
        ((X::store(e + at, y), at += X::lanes), ...);
        for (; i < at; i += X::lanes) beside(i);
    });
    return sums.unfolded();
}

template <class X, class S, class C, class Exp>
FS_INLINE typename LaneSums<X>::Unfolded keep_exp(const S *x, C *e, isize n, const Exp &exp) {
    return keep_exp<X>(x, e, n, exp, [](isize) {});
}

}  // namespace fs
}  // namespace
