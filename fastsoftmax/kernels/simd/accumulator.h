// Sums of many numbers with bounded error.
#pragma once

#include "kernels/simd/double_double.h"
#include "kernels/simd/loops.h"

namespace {
namespace fs {

// One running sum per lane. A few terms are added to each other first, in their own precision, then
// to it: in float64 for float32 terms, with the rounding errors kept for float64 terms (two_sum).
// What remains of a long sum's error is that of the additions in the terms' own precision, whatever
// the sum's length.
//
// They form a tree, each level of which costs half an ulp of the sum at most: small terms next to a
// large one all lose the same half of an ulp, so one after another, seven additions would cost 3.5.
// The budgets that follow from it are in docs/accuracy.md: two levels for what is divided by the
// sum, one for its logarithm.
constexpr Index accumulator_vectors = 8;
constexpr Index added_by_fours = 4, added_by_twos = 2, added_singly = 1;

template <class X, class T = typename X::Scalar>
struct Accumulator;
using TwoDoubles = typename Vec<double, 16>::V;

template <class X>
struct Accumulator<X, float> {
    using D = Vec<double, FS_VECTOR_BYTES>;
    typename D::V lower = {}, upper = {};
    FS_ALWAYS_INLINE void assign(typename X::V v) {
        lower = widened<X>(v, 0), upper = widened<X>(v, 1);
    }
    FS_ALWAYS_INLINE void add(typename X::V v) {
        lower = lower + widened<X>(v, 0);
        upper = upper + widened<X>(v, 1);
    }
    // The same for loops that store nothing else, or convert what they load and store. By way of
    // memory no shuffles are needed, which take the ports of arithmetic.
    FS_ALWAYS_INLINE void add_stored(typename X::V v) {
#if defined(__AVX512F__)
        asm("" : "+m"(v));
        const float *p = reinterpret_cast<const float *>(&v);
        lower = lower + (typename D::V)_mm512_cvtps_pd(_mm256_load_ps(p));
        upper = upper + (typename D::V)_mm512_cvtps_pd(_mm256_load_ps(p + X::lanes / 2));
#else
        add(v);
#endif
    }
    DoubleDouble<> lane(Index l) const {
        return {l < D::lanes ? lower[l] : upper[l - D::lanes], 0};
    }
    FS_ALWAYS_INLINE DoubleDouble<typename D::V> part(int which) const {
        return {which ? upper : lower, typename D::V{}};
    }
    DoubleDouble<> total() const {
        return {fold<D>(lower + upper, [](auto a, auto b) { return a + b; }), 0};
    }

    // Those of two rows are folded together.
    using Unfolded = typename D::V;
    FS_ALWAYS_INLINE Unfolded unfolded() const { return lower + upper; }
    static FS_ALWAYS_INLINE DoubleDouble<TwoDoubles> two_totals(Unfolded a, Unfolded b) {
        return {folded<D>(zip_low(a, b) + zip_high(a, b)), TwoDoubles{}};
    }

  private:
    template <class Y>
    static FS_ALWAYS_INLINE TwoDoubles folded(typename Y::V v) {
        if constexpr (sizeof v == 16)
            return v;
        else
            return folded<Vec<double, sizeof(v) / 2>>(half<Y>(v, 0) + half<Y>(v, 1));
    }
};

// Sums with their rounding errors.
template <class X>
struct PairSums {
    typename X::V hi = {}, lo = {};
    FS_ALWAYS_INLINE void assign(typename X::V v) { hi = v, lo = typename X::V{}; }
    FS_ALWAYS_INLINE void add(typename X::V v) {
        const DoubleDouble<typename X::V> s = two_sum(hi, v);
        hi = s.hi;
        lo = lo + s.lo;
    }
};

template <class X>
struct Accumulator<X, double> : PairSums<X> {
    using PairSums<X>::hi, PairSums<X>::lo;
    FS_ALWAYS_INLINE void add_stored(typename X::V v) { this->add(v); }
    DoubleDouble<> lane(Index l) const { return {hi[l], lo[l]}; }
    FS_ALWAYS_INLINE DoubleDouble<typename X::V> part(int) const { return {hi, lo}; }
    DoubleDouble<> total() const {
        const auto t = two_totals({hi, lo}, {hi, lo});
        return {t.hi[0], t.lo[0]};
    }

    using Unfolded = DoubleDouble<typename X::V>;
    FS_ALWAYS_INLINE Unfolded unfolded() const { return {hi, lo}; }
    static FS_ALWAYS_INLINE DoubleDouble<TwoDoubles> two_totals(Unfolded a, Unfolded b) {
        const auto s = two_sum(zip_low(a.hi, b.hi), zip_high(a.hi, b.hi));
        return folded<X>(s.hi, s.lo + (zip_low(a.lo, b.lo) + zip_high(a.lo, b.lo)));
    }

  private:
    template <class Y>
    static FS_ALWAYS_INLINE DoubleDouble<TwoDoubles> folded(typename Y::V h, typename Y::V l) {
        if constexpr (sizeof h == 16) {
            return {h, l};
        } else {
            const auto s = two_sum(half<Y>(h, 0), half<Y>(h, 1));
            return folded<Vec<double, sizeof(h) / 2>>(s.hi, s.lo + (half<Y>(l, 0) + half<Y>(l, 1)));
        }
    }
};

template <class X>
FS_ALWAYS_INLINE inline DoubleDouble<> folded(const typename Accumulator<X>::Unfolded &sums) {
    const auto both = Accumulator<X>::two_totals(sums, sums);
    return {both.hi[0], both.lo[0]};
}

// Elements of a row after which every vector begins a new group of those that are added together.
template <class X>
constexpr Index accumulator_block = accumulator_vectors * X::lanes;

// Adds term(i, lanes) for every vector of n elements, `together` vectors at a time, by way
// of memory if so told. Terms of several sums go together. keep(i, terms...) is called with those
// of whole vectors, from i on, up to four at a time: see map_vectors. `first`: nothing was added to
// these sums before, and the first group is assigned to them.
template <class X, Index together = added_by_fours, bool by_memory = false, bool first = false,
          class Sums, class Term, class Keep>
FS_ALWAYS_INLINE inline void sum_vectors(Index n, Sums &sums, Term term, Keep keep) {
    static_assert(!first || together == added_by_fours, "");
    constexpr Index lanes = X::lanes;
    const FullVector<X> all;
    using Terms = decltype(term(n, all));
    const auto add = [&](const Terms &v) FS_ALWAYS_INLINE {
        if constexpr (by_memory)
            sums.add_stored(v);
        else
            sums.add(v);
    };
    Index i = 0;
    if constexpr (together == added_singly) {
        for (; i + lanes <= n; i += lanes) {
            const auto a = term(i, all);
            add(a), keep(i, a);
        }
        if (i < n) add(term(i, PartialVector<X>{n - i}));
        return;
    }
    const auto four = [&](Index at, auto add_pair) FS_ALWAYS_INLINE {
        const auto a = term(at, all), b = term(at + lanes, all);
        const auto c = term(at + 2 * lanes, all), d = term(at + 3 * lanes, all);
        add_pair(a + b, c + d);
        keep(at, a, b, c, d);
    };
    if constexpr (first) {
        if (4 * lanes <= n) {
            four(0, [&](const Terms &a, const Terms &b) FS_ALWAYS_INLINE { sums.assign(a + b); });
            i = 4 * lanes;
        }
    }
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
        four(i, [&](const Terms &a, const Terms &b) FS_ALWAYS_INLINE {
            if constexpr (together == added_by_fours)
                add(a + b);
            else
                add(a), add(b);
        });
    }
    if (i == n) return;
    Terms pair = {}, last = {};
    if (i + 2 * lanes <= n) {
        const auto a = term(i, all), b = term(i + lanes, all);
        keep(i, a, b);
        pair = a + b, i += 2 * lanes;
        if constexpr (together == added_by_twos) sums.add(pair), pair = Terms{};
    }
    if (i + lanes <= n) last = term(i, all), keep(i, last), i += lanes;
    if (i < n) last = last + term(i, PartialVector<X>{n - i});
    sums.add(pair + last);
}

template <class X, Index together = added_by_fours, bool by_memory = false, class Sums, class Term>
FS_ALWAYS_INLINE inline void sum_vectors(Index n, Sums &sums, Term term) {
    sum_vectors<X, together, by_memory>(n, sums, term, [](Index, const auto &...) {});
}

// The sum of the next four rows, or of what is left of them, of one vector of columns.
template <class Term, class Keep>
FS_ALWAYS_INLINE inline auto sum_of_four(Index j, Index end, Term term, Keep keep) {
    if (j + 4 <= end) {
        const auto a = term(j), b = term(j + 1), c = term(j + 2), d = term(j + 3);
        keep(j, a), keep(j + 1, b), keep(j + 2, c), keep(j + 3, d);
        return (a + b) + (c + d);
    }
    const auto a = term(j);
    keep(j, a);
    if (j + 1 == end) return a;
    const auto b = term(j + 1);
    keep(j + 1, b);
    if (j + 2 == end) return a + b;
    const auto c = term(j + 2);
    keep(j + 2, c);
    return (a + b) + c;
}

// The same for the rows first .. end of one vector of columns.
template <class Sums, class Term, class Keep>
FS_ALWAYS_INLINE inline void sum_rows(Index first, Index end, Sums &sums, Term term, Keep keep) {
    Index j = first;
    for (; j + 4 <= end; j += 4) sums.add(sum_of_four(j, end, term, keep));
    if (j < end) sums.add(sum_of_four(j, end, term, keep));
}

template <class Sums, class Term>
FS_ALWAYS_INLINE inline void sum_rows(Index first, Index end, Sums &sums, Term term) {
    sum_rows(first, end, sums, term, [](Index, const auto &) {});
}

}  // namespace fs
}  // namespace
