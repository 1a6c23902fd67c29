// Loops over contiguous blocks that all operations are made of, and their maxima.
#pragma once

#include <type_traits>

#include "kernels/simd/half.h"
#include "kernels/tuning.h"

namespace {
namespace fs {

// A loop body gets the index and one of these, which load and store a whole vector or its first
// lanes.
template <class X>
struct FullVector {
    static constexpr bool whole = true;
    template <class S>
    FS_ALWAYS_INLINE typename X::V load(const S *p, typename X::Scalar) const {
        return load_as<X>(p);
    }
    template <class S>
    FS_ALWAYS_INLINE void store(S *p, typename X::V v) const {
        store_as<X>(p, v);
    }
};

template <class X>
struct PartialVector {
    static constexpr bool whole = false;
    Index count;
    template <class S>
    FS_ALWAYS_INLINE typename X::V load(const S *p, typename X::Scalar fill) const {
        return load_part_as<X>(p, count, fill);
    }
    template <class S>
    FS_ALWAYS_INLINE void store(S *p, typename X::V v) const {
        store_part_as<X>(p, v, count);
    }
};

template <class X, class Body>
FS_ALWAYS_INLINE inline void for_each_vector(Index n, Body body) {
    Index i = 0;
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
        for (Index a = 0; a < 4; ++a) body(i + a * X::lanes, FullVector<X>());
    }
    for (; i + X::lanes <= n; i += X::lanes) body(i, FullVector<X>());
    if (i < n) body(i, PartialVector<X>{n - i});
}

// body(first, size) for the elements from `first` to `end`, at most `step` of them at a time.
template <class Body>
FS_ALWAYS_INLINE inline void for_each_block(Index first, Index end, Index step, Body body) {
    for (Index at = first; at < end; at += step) body(at, end - at < step ? end - at : step);
}

// store(i, lanes, value(i, lanes)) for every vector of n elements. Where much is computed, four
// values before the first of them is stored: the compiler must take a store for one to what is
// loaded next, and would compute them one after another. What has next to no arithmetic is better
// off with that, in the order of memory. (Measured, AVX-512: softplus 0.73 of the time, sigmoid_vjp
// 1.17.)
template <class X, bool computes = true, class Value, class Store>
FS_ALWAYS_INLINE inline void map_vectors(Index n, Value value, Store store) {
    if constexpr (!computes)
        return for_each_vector<X>(
            n, [&](Index i, auto lanes) FS_ALWAYS_INLINE { store(i, lanes, value(i, lanes)); });
    const FullVector<X> all;
    Index i = 0;
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
        const auto a = value(i, all), b = value(i + X::lanes, all);
        const auto c = value(i + 2 * X::lanes, all), d = value(i + 3 * X::lanes, all);
        store(i, all, a), store(i + X::lanes, all, b);
        store(i + 2 * X::lanes, all, c), store(i + 3 * X::lanes, all, d);
    }
    for (; i + X::lanes <= n; i += X::lanes) store(i, all, value(i, all));
    const PartialVector<X> rest{n - i};
    if (i < n) store(i, rest, value(i, rest));
}

// Elements from y to the next multiple of so many bytes, or n.
template <class C>
FS_ALWAYS_INLINE inline Index elements_to(Index bytes, const C *y, Index n) {
    const Index i = static_cast<Index>(-reinterpret_cast<std::uintptr_t>(y) %
                                       static_cast<std::uintptr_t>(bytes) / sizeof(C));
    return i < n ? i : n;
}

// The elements first .. end of a span that may go past the caches: whole lines, so that none is
// stored to in both ways, by this row or by its neighbours.
struct Streamed {
    Index first, end;
    template <class C>
    static FS_ALWAYS_INLINE Streamed of(const C *y, Index n) {
        constexpr Index line = cache_line / Index(sizeof(C));
        const Index first = elements_to(cache_line, y, n);
        return {first, first + (n - first) / line * line};
    }
};

// y[i] = value(i, lanes) for n contiguous elements; `computed`: by map_vectors.
//
// Stores of whole vectors that cross cache lines cost two: long spans begin with what makes all
// others meet them (15 % at 32000 elements, AVX-512). Streaming ones go past the caches: that saves
// reading what is overwritten, where it is not in the cache anyway.
template <class X, bool computed = false, class C, class Value>
FS_ALWAYS_INLINE inline void write_span(C *y, Index n, bool streaming, Value value) {
    Index i = 0;
    const auto write_part = [&](Index end) FS_ALWAYS_INLINE {
        if (i < end) store_part_as<X>(y + i, value(i, PartialVector<X>{end - i}), end - i);
        i = end;
    };
    if (streaming) {
        const Streamed lines = Streamed::of(y, n);
        for (; i + X::lanes <= lines.first; i += X::lanes)
            store_as<X>(y + i, value(i, FullVector<X>()));
        write_part(lines.first);
        for (; i < lines.end; i += X::lanes) stream_as<X>(y + i, value(i, FullVector<X>()));
        for (; i + X::lanes <= n; i += X::lanes) store_as<X>(y + i, value(i, FullVector<X>()));
        return write_part(n);
    }
    if (n > kept_in_l1) write_part(elements_to(X::lanes * Index(sizeof(C)), y, n));
    if (computed) {
        const auto from = [&](Index j, auto lanes) FS_ALWAYS_INLINE {
            return value(i + j, lanes);
        };
        map_vectors<X>(n - i, from, [&](Index j, auto lanes, auto v) FS_ALWAYS_INLINE {
            lanes.store(y + i + j, v);
        });
        return;
    }
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
        for (Index a = i; a < i + 4 * X::lanes; a += X::lanes)
            store_as<X>(y + a, value(a, FullVector<X>()));
    }
    for (; i + X::lanes <= n; i += X::lanes) store_as<X>(y + i, value(i, FullVector<X>()));
    write_part(n);
}

// For loops that read once and store nothing, where a vector is a line of the cache: the
// processor's own fetching falls behind them. (Measured on Sapphire Rapids: out of the cache 20 to
// 35 % less time for logsumexp and cross_entropy, in it no more.)
template <class X, class S>
FS_ALWAYS_INLINE inline void fetch_ahead(const S *p) {
    if constexpr (sizeof(typename X::V) == 64)
        __builtin_prefetch(reinterpret_cast<const char *>(p) + fetched_ahead);
}

template <class X>
FS_ALWAYS_INLINE inline typename X::Scalar largest_lane(typename X::V v) {
    return fold<X>(v, [](auto a, auto b) { return larger(a, b); });
}

// The maximum; of a block with NaN, any of its values.
template <class X, class S>
inline typename X::Scalar span_max(const S *x, Index n) {
    using V = typename X::V;
    const typename X::Scalar least = -std::numeric_limits<typename X::Scalar>::infinity();
    V m[4] = {X::set(least), X::set(least), X::set(least), X::set(least)};
    Index i = 0;
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
        for (Index a = 0; a < 4; ++a) m[a] = larger(load_as<X>(x + i + a * X::lanes), m[a]);
    }
    for (; i + X::lanes <= n; i += X::lanes) m[0] = larger(load_as<X>(x + i), m[0]);
    if (i < n) m[1] = larger(load_part_as<X>(x + i, n - i, least), m[1]);
    return largest_lane<X>(larger(larger(m[0], m[1]), larger(m[2], m[3])));
}

// The first index of a value, or n.
template <class X>
inline Index span_find(const typename X::Scalar *x, Index n, typename X::Scalar value) {
    const auto wanted = X::set(value);
    Index i = 0;
    while (i + X::lanes <= n && !any<X>(X::load(x + i) == wanted)) i += X::lanes;
    while (i < n && x[i] != value) ++i;
    return i;
}

template <class T>
inline bool span_has_nan(const T *x, Index n) {
    using X = Vec<T>;
    typename X::I found{};
    for_each_vector<X>(n, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        const typename X::V v = lanes.load(x + i, 0);
        found |= v != v;
    });
    return any<X>(found);
}

}  // namespace fs
}  // namespace
