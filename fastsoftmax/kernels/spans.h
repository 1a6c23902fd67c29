// Sweeps over contiguous blocks: maxima, sums with bounded error, and the loops that all operations are made of.
#pragma once

#include "vexp.h"

namespace {
namespace fs {

// ------------------------------------------------------------------------------------------------------------------ loops
// A loop body gets the index and one of these, which load and store a whole vector or its first lanes.
template <class X> struct AllLanes {
    static constexpr bool whole = true;
    FS_INLINE typename X::V load(const typename X::Scalar *p, typename X::Scalar) const { return X::load(p); }
    FS_INLINE void store(typename X::Scalar *p, typename X::V v) const { X::store(p, v); }
};
template <class X> struct FirstLanes {
    static constexpr bool whole = false;
    isize count;
    FS_INLINE typename X::V load(const typename X::Scalar *p, typename X::Scalar fill) const { return X::load_part(p, count, fill); }
    FS_INLINE void store(typename X::Scalar *p, typename X::V v) const { X::store_part(p, v, count); }
};

template <class X, class Body> FS_INLINE void each_vector(isize n, Body body) {
    isize i = 0;
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
        for (isize a = 0; a < 4; ++a) body(i + a * X::lanes, AllLanes<X>());
    }
    for (; i + X::lanes <= n; i += X::lanes) body(i, AllLanes<X>());
    if (i < n) body(i, FirstLanes<X>{n - i});
}

// ------------------------------------------------------------------------------------------------------------------- sums
struct Sum {
    double hi = 0, lo = 0;
    void add(Sum other) {
        const double s = hi + other.hi, t = s - hi;
        lo += ((hi - (s - t)) + (other.hi - t)) + other.lo;
        hi = s;
    }
    double value() const { return hi - hi == 0 ? hi + lo : hi; }  // the error of an infinite sum is NaN
};

// One running sum per lane. Vectors of at most `block` terms are added to it: in float64 for float32 terms, with the rounding errors kept
// for float64 terms (two_sum). What remains of a long sum's error is that of ten additions, whatever its length.
constexpr isize block = 8;

template <class X, class T = typename X::Scalar> struct LaneSums;

template <class X> struct LaneSums<X, float> {
    using D = Vec<double, FS_VECTOR_BYTES>;
    typename D::V lower = {}, upper = {};
    FS_INLINE void add(typename X::V v) {
        lower = lower + widened<X>(v, 0);
        upper = upper + widened<X>(v, 1);
    }
    Sum lane(isize l) const { return {l < D::lanes ? lower[l] : upper[l - D::lanes], 0}; }
    Sum total() const {
        return {fold<D>(lower + upper, [](auto a, auto b) { return a + b; }), 0};
    }
};

template <class X> struct LaneSums<X, double> {
    typename X::V hi = {}, lo = {};
    FS_INLINE void add(typename X::V v) {
        const Pair<typename X::V> s = two_sum(hi, v);
        hi = s.hi;
        lo = lo + s.lo;
    }
    Sum lane(isize l) const { return {hi[l], lo[l]}; }
    Sum total() const { return folded<X>(hi, lo); }

  private:
    template <class Y> static FS_INLINE Sum folded(typename Y::V h, typename Y::V l) {
        if constexpr (Y::lanes > 2) {
            const Pair<typename Vec<double, sizeof(h) / 2>::V> s = two_sum(half<Y>(h, 0), half<Y>(h, 1));
            return folded<Vec<double, sizeof(h) / 2>>(s.hi, s.lo + (half<Y>(l, 0) + half<Y>(l, 1)));
        } else {
            Sum s{h[0], l[0]};
            s.add({h[1], l[1]});
            return s;
        }
    }
};

// Adds term(i, lanes) for every vector of n elements: four partial sums of at most `block` terms each. With few, short latency counts.
template <class X, class Term> FS_INLINE void sum_vectors(isize n, LaneSums<X> &sums, Term term) {
    constexpr isize lanes = X::lanes, stretch = 4 * block * lanes;
    for (isize i = 0; i < n;) {
        const isize end = n - i < stretch ? n : i + stretch;
        typename X::V s[4] = {};
        for (; i + 4 * lanes <= end; i += 4 * lanes) {
#pragma GCC unroll 4
            for (isize a = 0; a < 4; ++a) s[a] = s[a] + term(i + a * lanes, AllLanes<X>());
        }
        for (; i + lanes <= end; i += lanes) s[0] = s[0] + term(i, AllLanes<X>());
        if (i < end) s[1] = s[1] + term(i, FirstLanes<X>{end - i}), i = end;
        sums.add((s[0] + s[1]) + (s[2] + s[3]));
    }
}

// ----------------------------------------------------------------------------------------------------------------- maxima
template <class X> FS_INLINE typename X::Scalar largest_lane(typename X::V v) {
    return fold<X>(v, [](auto a, auto b) { return larger(a, b); });
}

// The maximum; of a block with NaN, any of its values.
template <class X> inline typename X::Scalar span_max(const typename X::Scalar *x, isize n) {
    using V = typename X::V;
    const typename X::Scalar least = -std::numeric_limits<typename X::Scalar>::infinity();
    V m[4] = {X::set(least), X::set(least), X::set(least), X::set(least)};
    isize i = 0;
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
        for (isize a = 0; a < 4; ++a) m[a] = larger(X::load(x + i + a * X::lanes), m[a]);
    }
    for (; i + X::lanes <= n; i += X::lanes) m[0] = larger(X::load(x + i), m[0]);
    if (i < n) m[1] = larger(X::load_part(x + i, n - i, least), m[1]);
    return largest_lane<X>(larger(larger(m[0], m[1]), larger(m[2], m[3])));
}

template <class T> inline bool span_has_nan(const T *x, isize n) {
    bool found = false;
    for (isize j = 0; j < n; ++j) found |= x[j] != x[j];
    return found;
}

// ----------------------------------------------------------------------------------------------------------------- memory
// Scratch of this thread: grows to what the largest kernel needs (a few hundred kB) and is freed with the thread.
template <class T> inline T *scratch(isize count) {
    struct Block {
        char *p = nullptr;
        isize size = 0;
        ~Block() { delete[] p; }
    };
    static thread_local Block held;
    const isize size = count * static_cast<isize>(sizeof(T)) + 64;
    if (held.size < size) {
        delete[] held.p;
        held.p = new char[size];
        held.size = size;
    }
    return reinterpret_cast<T *>((reinterpret_cast<std::uintptr_t>(held.p) + 63) & ~std::uintptr_t(63));
}

}  // namespace fs
}  // namespace
