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
FS_ALWAYS_INLINE inline auto fixed_shift_plausible(V scaled_logit) {
    return (scaled_logit > -16) & (scaled_logit < 40);
}

template <class X>
FS_ALWAYS_INLINE inline bool fixed_shifts_plausible(const typename X::Scalar *logits, Index count) {
    typename X::I wrong = {};
    for_each_vector<X>(count, [&](Index k, auto lanes) FS_ALWAYS_INLINE {
        wrong |= ~fixed_shift_plausible(lanes.load(logits + k, 0));
    });
    return !any<X>(wrong);
}

// Whether the sum came from a shift near enough: between 1 and 2^100 (2^900), nothing that
// matters was lost.
template <class C, class V>
FS_ALWAYS_INLINE inline auto fixed_shift_was_right(V sum) {
    return (sum >= 1) & (sum <= (sizeof(C) == 4 ? 0x1p100 : 0x1p900));
}

// The totals of rows that are settled together: what is done once a row costs less in vectors of
// them, and none waits for another.
template <Index most>
struct RowTotals {
    double hi[most], lo[most];

    FS_ALWAYS_INLINE DoubleDouble<> operator[](Index k) const { return {hi[k], lo[k]}; }
    FS_ALWAYS_INLINE void set(Index k, DoubleDouble<> sum) { hi[k] = sum.hi, lo[k] = sum.lo; }
    template <class D>
    FS_ALWAYS_INLINE DoubleDouble<typename D::V> part(Index k) const {
        return {D::load(hi + k), D::load(lo + k)};
    }
    // Whether the fixed shift was right for all rows.
    template <class C>
    FS_ALWAYS_INLINE bool fixed_shift_was_right(Index count) const {
        using D = Vec<double>;
        typename D::I right = ~typename D::I{};
        for (Index k = 0; k < count; k += D::lanes)
            right &= fs::fixed_shift_was_right<C>(D::load(hi + k));
        return !any<D>(~right);
    }
    // In whole vectors, as they are loaded again: loads that span several stores wait for these to
    // reach the cache. Those from `count` on repeat the last.
    template <class X>
    FS_ALWAYS_INLINE void set(const typename Accumulator<X>::Unfolded *sums, Index count) {
        using D = Vec<double>;
        for (Index k = 0; k < count; k += D::lanes) {
            const auto vector = folded<X, D>(sums, k, count - 1);
            D::store(hi + k, vector.hi), D::store(lo + k, vector.lo);
        }
        for (Index k = (count + D::lanes - 1) / D::lanes * D::lanes; k % X::lanes; k += D::lanes)
            D::store(hi + k, D::set(1)), D::store(lo + k, D::set(0));
    }

  private:
    template <class X, class D>
    static FS_ALWAYS_INLINE DoubleDouble<typename D::V> folded(
        const typename Accumulator<X>::Unfolded *sums, Index k, Index last) {
        if constexpr (D::lanes == 2) {
            return Accumulator<X>::two_totals(sums[k < last ? k : last],
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
constexpr C masked_logit = -std::numeric_limits<C>::infinity();

template <class X, Index together = added_by_fours, class C, class Exp>
FS_ALWAYS_INLINE inline void add_exp(const C *x, Index n, const Exp &exp, Accumulator<X> &sums) {
    sum_vectors<X, together, true>(n, sums, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        fetch_ahead<X>(x + i);
        return exp(lanes.load(x + i, masked_logit<C>));
    });
}

// `sum` less the exponential at one place of it, with all digits of the others even if it is nearly
// all there is: what its block of `count` elements (at a multiple of accumulator_block from the
// start of the row) added to the sum, so many vectors together, is taken away, and added again
// without it, each by itself.
template <class X, Index together, class C, class Exp>
DoubleDouble<> sum_without(const C *x, Index count, Index place, const Exp &exp,
                           DoubleDouble<> sum) {
    C e[accumulator_block<X>];
    Accumulator<X> with, without;
    sum_vectors<X, together>(count, with, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        const auto v = exp(lanes.load(x + i, masked_logit<C>));
        lanes.store(e + i, v);
        return v;
    });
    for_each_vector<X>(count, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        without.add(X::without(lanes.load(e + i, 0), place - i));
    });
    const DoubleDouble<> all = with.total();
    sum.add({-all.hi, -all.lo});
    sum.add(without.total());
    return sum;
}

// exp(x) of a row, kept in e to be scaled. Where the row does not end with a vector, its last
// vector overlaps the one before: that costs less than masked loads and stores. (A row of less than
// a vector is padded.) beside(i) comes along with every whole vector. (The first group assigned to
// the sums instead of added to 0: 3846 x 65 float32 1.05 -> 0.99, float64 1.09 -> 0.97 of before;
// sums of float16 by way of memory: 256 x 1000 1.05 -> 1.01.)
template <class X, class S, class C, class Exp, class Beside>
FS_ALWAYS_INLINE inline typename Accumulator<X>::Unfolded keep_exp(const S *x, C *e, Index n,
                                                                   const Exp &exp, Beside beside) {
    Accumulator<X> sums;
    const auto term = [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        if constexpr (decltype(lanes)::whole) {
            return exp(load_as<X>(x + i));
        } else {
            const Index at = n < X::lanes ? 0 : n - X::lanes;
            const auto y = exp(n < X::lanes ? lanes.load(x, masked_logit<C>) : load_as<X>(x + at));
            X::store(e + at, y);
            return n < X::lanes ? y : X::last(y, n - i);
        }
    };
    const auto store = [&](Index i, const auto &...y) FS_ALWAYS_INLINE {
        Index at = i;
        ((X::store(e + at, y), at += X::lanes), ...);
        for (; i < at; i += X::lanes) beside(i);
    };
    constexpr bool converts = !std::is_same<S, C>::value;
    sum_vectors<X, added_by_fours, converts, true>(n, sums, term, store);
    return sums.unfolded();
}

template <class X, class S, class C, class Exp>
FS_ALWAYS_INLINE inline typename Accumulator<X>::Unfolded keep_exp(const S *x, C *e, Index n,
                                                                   const Exp &exp) {
    return keep_exp<X>(x, e, n, exp, [](Index) {});
}

}  // namespace fs
}  // namespace
