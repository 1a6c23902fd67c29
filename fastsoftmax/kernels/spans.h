// Sweeps over contiguous blocks: maxima, sums with bounded error, and the loops that all operations
// are made of.
#pragma once

#include <new>
#include <type_traits>

#include "half.h"
#include "thresholds.h"
#include "vexp.h"

namespace {
namespace fs {

// --- loops ---------------------------------------------------------------------------------------
// A loop body gets the index and one of these, which load and store a whole vector or its first
// lanes.
template <class X>
struct AllLanes {
    static constexpr bool whole = true;
    template <class S>
    FS_INLINE typename X::V load(const S *p, typename X::Scalar) const {
        return load_as<X>(p);
    }
    template <class S>
    FS_INLINE void store(S *p, typename X::V v) const {
        store_as<X>(p, v);
    }
};
template <class X>
struct FirstLanes {
    static constexpr bool whole = false;
    isize count;
    template <class S>
    FS_INLINE typename X::V load(const S *p, typename X::Scalar fill) const {
        return load_part_as<X>(p, count, fill);
    }
    template <class S>
    FS_INLINE void store(S *p, typename X::V v) const {
        store_part_as<X>(p, v, count);
    }
};

template <class X, class Body>
FS_INLINE void each_vector(isize n, Body body) {
    isize i = 0;
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
        for (isize a = 0; a < 4; ++a) body(i + a * X::lanes, AllLanes<X>());
    }
    for (; i + X::lanes <= n; i += X::lanes) body(i, AllLanes<X>());
    if (i < n) body(i, FirstLanes<X>{n - i});
}

// y[i] = value(i, lanes) for n contiguous elements.
//
// Stores of whole vectors that cross cache lines cost two: long spans begin with what makes all
// others meet them (15 % at 32000 elements, AVX-512). Streaming ones must, and go past the caches:
// that saves reading what is overwritten, where it is not in the cache anyway.
template <class X, class C, class Value>
FS_INLINE void write_span(C *y, isize n, bool streaming, Value value) {
    isize i = 0;
    if (streaming || n > kept_in_l1) {
        i = static_cast<isize>(-reinterpret_cast<std::uintptr_t>(y) % (X::lanes * sizeof(C)) /
                               sizeof(C));
        if (i > n) i = n;
        if (i) store_part_as<X>(y, value(0, FirstLanes<X>{i}), i);
    }
    if (streaming) {
        for (; i + X::lanes <= n; i += X::lanes) stream_as<X>(y + i, value(i, AllLanes<X>()));
    } else {
        for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
            for (isize a = i; a < i + 4 * X::lanes; a += X::lanes)
                store_as<X>(y + a, value(a, AllLanes<X>()));
        }
        for (; i + X::lanes <= n; i += X::lanes) store_as<X>(y + i, value(i, AllLanes<X>()));
    }
    if (i < n) store_part_as<X>(y + i, value(i, FirstLanes<X>{n - i}), n - i);
}

// For loops that read once and store nothing, where a vector is a line of the cache: the
// processor's own fetching falls behind them. (Measured on Sapphire Rapids: out of the cache 20 to
// 35 % less time for logsumexp and cross_entropy, in it no more.)
template <class X, class S>
FS_INLINE void fetch_ahead(const S *p) {
    if constexpr (sizeof(typename X::V) == 64)
        __builtin_prefetch(reinterpret_cast<const char *>(p) + fetched_ahead);
}

// --- sums ----------------------------------------------------------------------------------------
struct Sum {
    double hi = 0, lo = 0;
    void add(Sum other) {
        const double s = hi + other.hi, t = s - hi;
        lo += ((hi - (s - t)) + (other.hi - t)) + other.lo;
        hi = s;
    }
    // the error of an infinite sum is NaN
    double value() const { return hi - hi == 0 ? hi + lo : hi; }
};

// One running sum per lane. A few terms are added to each other first, in their own precision, then
// to it: in float64 for float32 terms, with the rounding errors kept for float64 terms (two_sum).
// What remains of a long sum's error is that of the additions in the terms' own precision, whatever
// the sum's length.
//
// They form a tree, each level of which costs half an ulp of the sum at most: small terms next to a
// large one all lose the same half of an ulp, so one after another, seven additions would cost 3.5.
// The budgets that follow from it are in docs/accuracy.md: two levels for what is divided by the
// sum, one for its logarithm.
constexpr isize block = 8;
constexpr isize added_by_fours = 4, added_by_twos = 2, added_singly = 1;

template <class X, class T = typename X::Scalar>
struct LaneSums;
using TwoDoubles = typename Vec<double, 16>::V;

template <class X>
struct LaneSums<X, float> {
    using D = Vec<double, FS_VECTOR_BYTES>;
    typename D::V lower = {}, upper = {};
    FS_INLINE void add(typename X::V v) {
        lower = lower + widened<X>(v, 0);
        upper = upper + widened<X>(v, 1);
    }
    // The same for loops that store nothing else. By way of memory no shuffles are needed, which
    // take the ports of arithmetic.
    FS_INLINE void add_stored(typename X::V v) {
#if defined(__AVX512F__)
        asm("" : "+m"(v));
        const float *p = reinterpret_cast<const float *>(&v);
        lower = lower + (typename D::V)_mm512_cvtps_pd(_mm256_load_ps(p));
        upper = upper + (typename D::V)_mm512_cvtps_pd(_mm256_load_ps(p + X::lanes / 2));
#else
        add(v);
#endif
    }
    Sum lane(isize l) const { return {l < D::lanes ? lower[l] : upper[l - D::lanes], 0}; }
    FS_INLINE Pair<typename D::V> part(int which) const {
        return {which ? upper : lower, typename D::V{}};
    }
    Sum total() const {
        return {fold<D>(lower + upper, [](auto a, auto b) { return a + b; }), 0};
    }

    // Those of two rows are folded together.
    using Unfolded = typename D::V;
    FS_INLINE Unfolded unfolded() const { return lower + upper; }
    static FS_INLINE Pair<TwoDoubles> two_totals(Unfolded a, Unfolded b) {
        return {folded<D>(zip_low(a, b) + zip_high(a, b)), TwoDoubles{}};
    }

  private:
    template <class Y>
    static FS_INLINE TwoDoubles folded(typename Y::V v) {
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
    FS_INLINE void add(typename X::V v) {
        const Pair<typename X::V> s = two_sum(hi, v);
        hi = s.hi;
        lo = lo + s.lo;
    }
};

template <class X>
struct LaneSums<X, double> : PairSums<X> {
    using PairSums<X>::hi, PairSums<X>::lo;
    FS_INLINE void add_stored(typename X::V v) { this->add(v); }
    Sum lane(isize l) const { return {hi[l], lo[l]}; }
    FS_INLINE Pair<typename X::V> part(int) const { return {hi, lo}; }
    Sum total() const {
        const auto t = two_totals({hi, lo}, {hi, lo});
        return {t.hi[0], t.lo[0]};
    }

    using Unfolded = Pair<typename X::V>;
    FS_INLINE Unfolded unfolded() const { return {hi, lo}; }
    static FS_INLINE Pair<TwoDoubles> two_totals(Unfolded a, Unfolded b) {
        const auto s = two_sum(zip_low(a.hi, b.hi), zip_high(a.hi, b.hi));
        return folded<X>(s.hi, s.lo + (zip_low(a.lo, b.lo) + zip_high(a.lo, b.lo)));
    }

  private:
    template <class Y>
    static FS_INLINE Pair<TwoDoubles> folded(typename Y::V h, typename Y::V l) {
        if constexpr (sizeof h == 16) {
            return {h, l};
        } else {
            const auto s = two_sum(half<Y>(h, 0), half<Y>(h, 1));
            return folded<Vec<double, sizeof(h) / 2>>(s.hi, s.lo + (half<Y>(l, 0) + half<Y>(l, 1)));
        }
    }
};

template <class X>
FS_INLINE Sum folded(const typename LaneSums<X>::Unfolded &sums) {
    const auto both = LaneSums<X>::two_totals(sums, sums);
    return {both.hi[0], both.lo[0]};
}

// Elements of a row after which every vector begins a new group of those that are added together.
template <class X>
constexpr isize summed_elements = block * X::lanes;

// Adds term(i, lanes) for every vector of n elements, `together` vectors at a time; `only` where
// the terms are not kept. Terms of several sums go together.
template <class X, isize together = added_by_fours, bool only = false, class Sums, class Term>
FS_INLINE void sum_vectors(isize n, Sums &sums, Term term) {
    constexpr isize lanes = X::lanes;
    const AllLanes<X> all;
    using Terms = decltype(term(n, all));
    const auto add = [&](const Terms &v) FS_INLINE_LAMBDA {
        if constexpr (only)
            sums.add_stored(v);
        else
            sums.add(v);
    };
    isize i = 0;
    if constexpr (together == added_singly) {
        for (; i + lanes <= n; i += lanes) add(term(i, all));
        if (i < n) add(term(i, FirstLanes<X>{n - i}));
        return;
    }
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
        const auto a = term(i, all), b = term(i + lanes, all);
        const auto c = term(i + 2 * lanes, all), d = term(i + 3 * lanes, all);
        if constexpr (together == added_by_fours)
            add((a + b) + (c + d));
        else
            add(a + b), add(c + d);
    }
    if (i == n) return;
    Terms pair = {}, last = {};
    if (i + 2 * lanes <= n) {
        const auto a = term(i, all), b = term(i + lanes, all);
        pair = a + b, i += 2 * lanes;
        if constexpr (together == added_by_twos) sums.add(pair), pair = Terms{};
    }
    if (i + lanes <= n) last = term(i, all), i += lanes;
    if (i < n) last = last + term(i, FirstLanes<X>{n - i});
    sums.add(pair + last);
}

// The sum of the next four rows, or of what is left of them, of one vector of columns.
template <class Term>
FS_INLINE auto sum_of_four(isize j, isize end, Term term) {
    const auto a = term(j);
    if (j + 1 == end) return a;
    const auto b = a + term(j + 1);
    if (j + 2 == end) return b;
    const auto c = term(j + 2);
    return b + (j + 3 == end ? c : c + term(j + 3));
}
// The same for the rows first .. end of one vector of columns.
template <class X, class Term>
FS_INLINE void sum_rows(isize first, isize end, LaneSums<X> &sums, Term term) {
    isize j = first;
    for (; j + 4 <= end; j += 4) {
        const auto a = term(j), b = term(j + 1), c = term(j + 2), d = term(j + 3);
        sums.add((a + b) + (c + d));
    }
    if (j < end) sums.add(sum_of_four(j, end, term));
}

// --- maxima --------------------------------------------------------------------------------------
template <class X>
FS_INLINE typename X::Scalar largest_lane(typename X::V v) {
    return fold<X>(v, [](auto a, auto b) { return larger(a, b); });
}

// The maximum; of a block with NaN, any of its values.
template <class X, class S>
inline typename X::Scalar span_max(const S *x, isize n) {
    using V = typename X::V;
    const typename X::Scalar least = -std::numeric_limits<typename X::Scalar>::infinity();
    V m[4] = {X::set(least), X::set(least), X::set(least), X::set(least)};
    isize i = 0;
    for (; i + 4 * X::lanes <= n; i += 4 * X::lanes) {
#pragma GCC unroll 4
        for (isize a = 0; a < 4; ++a) m[a] = larger(load_as<X>(x + i + a * X::lanes), m[a]);
    }
    for (; i + X::lanes <= n; i += X::lanes) m[0] = larger(load_as<X>(x + i), m[0]);
    if (i < n) m[1] = larger(load_part_as<X>(x + i, n - i, least), m[1]);
    return largest_lane<X>(larger(larger(m[0], m[1]), larger(m[2], m[3])));
}

// The first index of a value, or n.
template <class X>
inline isize span_find(const typename X::Scalar *x, isize n, typename X::Scalar value) {
    const auto wanted = X::set(value);
    isize i = 0;
    while (i + X::lanes <= n && !any<X>(X::load(x + i) == wanted)) i += X::lanes;
    while (i < n && x[i] != value) ++i;
    return i;
}

template <class T>
inline bool span_has_nan(const T *x, isize n) {
    bool found = false;
    for (isize j = 0; j < n; ++j) found |= x[j] != x[j];
    return found;
}

// --- memory --------------------------------------------------------------------------------------
// What a thread computes in, beside inputs and results: one room, that the calling thread has
// allocated before the first piece of work began (work.h). So stacks may be small, no kernel can
// run out of memory, and nothing was written if there is too little. enough for every kernel, but
// for what a Work says (memory())
constexpr isize room_bytes = isize(1) << 20;

struct Room {
    char *next = nullptr;
};
static thread_local Room this_room;

FS_INLINE isize rounded_up(isize bytes) {
    return (bytes + 63) & ~isize(63);
}

// `count` of T until the end of the piece of work; memory alone, without values.
template <class T>
FS_INLINE T *scratch(isize count) {
    Room &room = this_room;
    T *p = reinterpret_cast<T *>(room.next);
    room.next += rounded_up(count * isize(sizeof(T)));
    return p;
}

// The same until the end of a scope: instead of an array on the stack.
template <class T>
class Scratch {
    Room &room;
    T *p;

  public:
    explicit FS_INLINE Scratch(isize count) : room(this_room), p(reinterpret_cast<T *>(room.next)) {
        room.next += rounded_up(count * isize(sizeof(T)));
        if constexpr (!std::is_trivially_default_constructible<T>::value) {
            for (isize k = 0; k < count; ++k) new (p + k) T;
        }
    }
    FS_INLINE ~Scratch() { room.next = reinterpret_cast<char *>(p); }
    Scratch(const Scratch &) = delete;
    FS_INLINE operator T *() const { return p; }
};

// What the chunks of a long row have found. A row takes it when it is first begun; a copy of one
// that was not begun has none. of all that a row keeps for one chunk, in two of these at most
constexpr isize chunk_bytes = 256;

template <class T>
class ChunkResults {
    T *p = nullptr;
    isize count = 0;
    static_assert(sizeof(T) <= chunk_bytes / 2 && std::is_trivially_destructible<T>::value, "");

  public:
    void resize(std::size_t chunks) {
        if (p) return;
        count = static_cast<isize>(chunks), p = scratch<T>(count);
        for (isize k = 0; k < count; ++k) new (p + k) T();
    }
    T &operator[](std::size_t k) { return p[k]; }
    const T &operator[](std::size_t k) const { return p[k]; }
    std::size_t size() const { return static_cast<std::size_t>(count); }
    const T *begin() const { return p; }
    const T *end() const { return p + count; }
};

// There was too little memory: execute() does nothing, and whoever called for it raises the error.
static thread_local bool out_of_memory;

// One value of T() for each piece of work.
template <class T>
class PieceResults {
    T *p;
    isize count;

  public:
    explicit PieceResults(std::size_t pieces)
        : p(new (std::nothrow) T[pieces ? pieces : 1]()),
          count(p ? static_cast<isize>(pieces) : 0) {
        if (!p) out_of_memory = true;
    }
    ~PieceResults() { delete[] p; }
    PieceResults(const PieceResults &) = delete;
    T &operator[](std::size_t k) { return p[k]; }
    const T *begin() const { return p; }
    const T *end() const { return p + count; }
};

}  // namespace fs
}  // namespace
