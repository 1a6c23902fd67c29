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
// largest is found by bisection of the bits, each step of which is a count in vectors. So a number
// costs a comparison or, where every one is better than all before it, a few ns (k = 500 of 5000
// ascending ones: 12 times less than with a heap).
template <class C>
class BestNumbers {
    using X = Vec<C>;
    using Int = typename Format<C>::Int;
    static constexpr isize step = 64, few = 16;
    struct Entry {
        C value;
        isize index;
    };

    isize k, count = 0;
    C *values;  // of more than a few
    isize *indices;
    Entry *sorted;
    bool full = false;
    C threshold = 0;

  public:
    static isize capacity(isize k) { return k > few ? 2 * k + 2 * step : 0; }
    static isize memory(isize k) {
        return capacity(k) * isize(sizeof(C) + sizeof(isize)) + k * isize(sizeof(Entry)) + 3 * 64;
    }

    explicit BestNumbers(isize k_)
        : k(k_),
          values(scratch<C>(capacity(k))),
          indices(scratch<isize>(capacity(k))),
          sorted(scratch<Entry>(k)) {}

    void clear() { count = 0, full = k == 0, threshold = std::numeric_limits<C>::infinity(); }
    void add(const C *x, isize n, isize first) {
        for (isize at = 0; at < n; at += step) {
            const isize size = n - at < step ? n - at : step;
            if (full && !(span_max<X>(x + at, size) > threshold)) continue;
            if (k <= few)
                insert(x + at, size, first + at);
            else
                collect(x + at, size, first + at);
        }
    }
    // From here on they are in descending order.
    void finish() {
        if (k <= few) return;
        if (count > k) drop();
        for (isize j = 0; j < count; ++j) sorted[j] = {values[j], indices[j]};
        std::sort(sorted, sorted + count, [](const Entry &p, const Entry &q) {
            return p.value > q.value || (p.value == q.value && p.index < q.index);
        });
    }
    isize index(isize j) const { return sorted[j].index; }
    C value(isize j) const { return sorted[j].value; }

  private:
    void insert(const C *x, isize size, isize first) {
        for (isize j = 0; j < size; ++j) {
            if (full && !(x[j] > threshold)) continue;
            isize t = full ? k - 1 : count++;
            for (; t > 0 && sorted[t - 1].value < x[j]; --t) sorted[t] = sorted[t - 1];
            sorted[t] = {x[j], first + j};
            full = count == k;
            if (full) threshold = sorted[k - 1].value;
        }
    }
    void collect(const C *x, isize size, isize first) {
        if (count + size > capacity(k)) drop();
        for (isize j = 0; j < size; ++j) {
            values[count] = x[j], indices[count] = first + j;
            count += !full || x[j] > threshold;
        }
    }
    // All but the k best, of more than k.
    void drop() {
        const C least = kth();
        isize equals = k - count_if([&](auto v) FS_INLINE_LAMBDA { return v > X::set(least); }),
              kept = 0;
        C worst = std::numeric_limits<C>::infinity();
        for (isize j = 0; j < count; ++j) {
            const C v = values[j];
            const bool keeps = v > least || (v == least && equals-- > 0);
            values[kept] = v, indices[kept] = indices[j];
            worst = keeps && v < worst ? v : worst;
            kept += keeps;
        }
        count = k, threshold = worst, full = true;
    }
    template <class Holds>
    FS_INLINE isize count_if(Holds holds) const {
        typename X::I found{};
        each_vector<X>(count, [&](isize j, auto lanes) FS_INLINE_LAMBDA {
            found -= holds(lanes.load(values + j, std::numeric_limits<C>::quiet_NaN()));
        });
        isize sum = 0;
        for (isize l = 0; l < X::lanes; ++l) sum += static_cast<isize>(found[l]);
        return sum;
    }
    // A number that at least k are not below, and fewer than k above.
    C kth() const {
        C least = values[0], most = values[0];
        for (isize j = 1; j < count; ++j)
            least = std::min(least, values[j]), most = std::max(most, values[j]);
        // at least k are not below the first; fewer are above the second
        Int low = order(least), high = order(most);
        while (low < high) {
            const Int middle =
                low + static_cast<Int>((static_cast<typename Format<C>::Uint>(high) -
                                        static_cast<typename Format<C>::Uint>(low) + 1) /
                                       2);
            const C v = number(middle);
            const isize not_below =
                count_if([&](auto w) FS_INLINE_LAMBDA { return w >= X::set(v); });
            if (not_below == k) return v;
            if (not_below > k)
                low = middle;
            else
                high = middle - 1;
        }
        return number(low);
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
