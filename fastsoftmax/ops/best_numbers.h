// The k best of many numbers.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/memory/scratch.h"
#include "kernels/simd/loops.h"

namespace {
namespace fs {

// The k best of numbers that are given in ascending order of their indices, which decide between
// equals.
//
// A few are kept in order. Of many, numbers above a threshold are collected; when there is no room
// for more, all but the k best are dropped, and the worst of these is the next threshold. The k-th
// largest is found by dividing the range of their bits, each step of which is a count in vectors.
// In the end they are sorted by their digits, which leaves equals in the order of their indices. So
// a number costs a comparison or, where every one is better than all before it, a few ns.
template <class C>
class BestNumbers {
    using X = Vec<C>;
    using Int = typename Format<C>::Int;
    using Uint = typename Format<C>::Uint;
    static constexpr Index step = 64, few = 16;
    // of numbers from which sorting by digits takes less time than by comparisons
    static constexpr Index many = 64;
    struct Entry {
        C value;
        Index index;
    };

    Index k, count = 0;
    C *values;  // of more than a few
    Index *indices;
    Entry *sorted, *other;
    Index *counts;  // of digits
    bool full = false;
    C threshold = 0;

  public:
    static Index capacity(Index k) { return k > few ? 3 * k + 2 * step : 0; }
    static Index memory(Index k) {
        return (capacity(k) + X::lanes) * Index(sizeof(C) + sizeof(Index)) +
               2 * k * Index(sizeof(Entry)) + 256 * Index(sizeof(C) * sizeof(Index)) + 5 * 64;
    }

    explicit BestNumbers(Index k_)
        : k(k_),
          values(scratch<C>(capacity(k) + X::lanes)),
          indices(scratch<Index>(capacity(k) + X::lanes)),
          sorted(scratch<Entry>(k)),
          other(scratch<Entry>(k > few ? k : 0)),
          counts(scratch<Index>(k > few ? 256 * Index(sizeof(C)) : 0)) {}

    void clear() { count = 0, full = k == 0, threshold = std::numeric_limits<C>::infinity(); }
    void add(const C *x, Index n, Index first) {
        for_each_block(0, n, step, [&](Index at, Index size) FS_ALWAYS_INLINE {
            if (full && !(span_max<X>(x + at, size) > threshold)) return;
            if (k <= few)
                insert(x + at, size, first + at);
            else
                collect(x + at, size, first + at);
        });
    }
    // From here on they are in descending order.
    void finish() {
        if (k <= few) return;
        if (count > k) drop();
        for (Index j = 0; j < count; ++j) sorted[j] = {values[j], indices[j]};
        if (count >= many) return sort_by_digits();
        std::sort(sorted, sorted + count, [](const Entry &p, const Entry &q) {
            return p.value > q.value || (p.value == q.value && p.index < q.index);
        });
    }
    Index index(Index j) const { return sorted[j].index; }
    C value(Index j) const { return sorted[j].value; }

  private:
    void insert(const C *x, Index size, Index first) {
        for (Index j = 0; j < size; ++j) {
            if (full && !(x[j] > threshold)) continue;
            Index t = full ? k - 1 : count++;
            for (; t > 0 && sorted[t - 1].value < x[j]; --t) sorted[t] = sorted[t - 1];
            sorted[t] = {x[j], first + j};
            full = count == k;
            if (full) threshold = sorted[k - 1].value;
        }
    }
    void collect(const C *x, Index size, Index first) {
        if (count + size > capacity(k)) drop();
        for_each_vector<X>(size, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
            const typename X::V v = lanes.load(x + i, -std::numeric_limits<C>::infinity());
            const unsigned valid = size - i < X::lanes ? (1u << (size - i)) - 1 : all_bits;
            take(v, first + i, full ? lane_bits<X>(v > X::set(threshold)) & valid : valid);
        });
    }
    static constexpr unsigned all_bits = (1u << X::lanes) - 1;
    // Appends the chosen lanes of a vector, whose indices follow each other from `first` on.
    FS_ALWAYS_INLINE void take(typename X::V v, Index first, unsigned chosen) {
        if (chosen == all_bits) {
            X::store(values + count, v);
            for (Index l = 0; l < X::lanes; ++l) indices[count + l] = first + l;
            count += X::lanes;
            return;
        }
        for (; chosen; chosen &= chosen - 1, ++count) {
            const int l = __builtin_ctz(chosen);
            values[count] = v[l], indices[count] = first + l;
        }
    }
    // All but the k best, of more than k.
    void drop() {
        const C least = kth();
        Index equals = k - count_if([&](auto v) FS_ALWAYS_INLINE { return v > X::set(least); }),
              kept = 0;
        C worst = std::numeric_limits<C>::infinity();
        for_each_vector<X>(count, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
            const typename X::V v = lanes.load(values + i, std::numeric_limits<C>::quiet_NaN());
            unsigned keeps = lane_bits<X>(v > X::set(least)),
                     same = lane_bits<X>(v == X::set(least));
            for (; same && equals > 0; same &= same - 1, --equals) keeps |= same & (~same + 1);
            for (; keeps; keeps &= keeps - 1, ++kept) {
                const int l = __builtin_ctz(keeps);
                values[kept] = v[l], indices[kept] = indices[i + l];
                worst = v[l] < worst ? v[l] : worst;
            }
        });
        count = k, threshold = worst, full = true;
    }
    template <class Holds>
    FS_ALWAYS_INLINE Index count_if(Holds holds) const {
        typename X::I found{};
        for_each_vector<X>(count, [&](Index j, auto lanes) FS_ALWAYS_INLINE {
            found -= holds(lanes.load(values + j, std::numeric_limits<C>::quiet_NaN()));
        });
        const auto counts_of_lanes = __builtin_convertvector(found, typename X::V);
        typename Vec<double>::V sum{};
        for (int part = 0; part < wide_parts<X>; ++part)
            sum = sum + wide_part<X>(counts_of_lanes, part);
        return static_cast<Index>(fold<Vec<double>>(sum, [](auto a, auto b) { return a + b; }));
    }
    // A number that at least k are not below, and fewer than k above.
    C kth() const {
        // at least k are not below the first; fewer are above the second
        Int low = order(full ? threshold : -std::numeric_limits<C>::infinity()),
            high = order(span_max<X>(values, count));
        double not_below_low = double(count), above_high = 0;
        for (bool interpolates = full; low < high; interpolates = !interpolates) {
            // Halving the range is safe, and going by the counts at both ends quick.
            const double part =
                interpolates ? (not_below_low - double(k)) / (not_below_low - above_high) : 0.5;
            const Uint range = static_cast<Uint>(high) - static_cast<Uint>(low),
                       ahead = static_cast<Uint>(part * static_cast<double>(range));
            const Int middle = static_cast<Int>(static_cast<Uint>(low) +
                                                std::min(std::max(ahead, Uint(1)), range));
            const C v = number(middle);
            const Index not_below =
                count_if([&](auto w) FS_ALWAYS_INLINE { return w >= X::set(v); });
            if (not_below == k) return v;
            if (not_below > k)
                low = middle, not_below_low = double(not_below);
            else
                high = middle - 1, above_high = double(not_below);
        }
        return number(low);
    }
    // Counting sort of each byte in turn, from the lowest one on; descending.
    void sort_by_digits() {
        constexpr int digits = sizeof(C);
        for (Index j = 0; j < 256 * digits; ++j) counts[j] = 0;
        for (Index j = 0; j < count; ++j) {
            const Uint key = descending(sorted[j].value);
            for (int d = 0; d < digits; ++d) ++counts[256 * d + (key >> (8 * d) & 255)];
        }
        for (int d = 0; d < digits; ++d) {
            Index *places = counts + 256 * d, next = 0;
            if (places[descending(sorted[0].value) >> (8 * d) & 255] == count) continue;
            for (Index digit = 0; digit < 256; ++digit) {
                const Index size = places[digit];
                places[digit] = next;
                next += size;
            }
            for (Index j = 0; j < count; ++j)
                other[places[descending(sorted[j].value) >> (8 * d) & 255]++] = sorted[j];
            std::swap(sorted, other);
        }
    }
    // Larger for smaller numbers; the same for both zeros.
    static Uint descending(C v) {
        constexpr Uint top = Uint(1) << (8 * sizeof(C) - 1);
        return ~(static_cast<Uint>(order(v)) ^ top);
    }
    // Numbers as integers of the same order.
    static Int order(C v) {
        Int i;
        std::memcpy(&i, &v, sizeof i);
        return i < 0 ? std::numeric_limits<Int>::min() - i : i;
    }
    static C number(Int i) {
        if (i < 0) i = std::numeric_limits<Int>::min() - i;
        C v;
        std::memcpy(&v, &i, sizeof v);
        return v;
    }
};

}  // namespace fs
}  // namespace
