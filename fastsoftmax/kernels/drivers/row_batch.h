// Contiguous rows that are done together, so that none waits for its sum.
#pragma once

#include "kernels/math/scale_epilogue.h"
#include "kernels/memory/scratch.h"

namespace {
namespace fs {

// Rows of n elements that make `elements` together: at least one, and no more than `most`.
FS_ALWAYS_INLINE inline Index rows_of_batch(Index elements, Index n, Index most) {
    return n > elements ? 1 : elements / n < most ? elements / n : most;
}

// The sums of the exponentials of rows with the constant shift, together, and the exponential of
// one logit of each: sum_row(k, exp, sums) adds those of a row (or not, where that is not worth it)
// and returns the logit.
template <class X, bool Scaled, Index most, class C, class ScaleOf, class SumRow>
FS_ALWAYS_INLINE inline void fixed_shift_sums(Index count, ScaleOf scale_of, RowTotals<most> &total,
                                              C *logit, C *at_logit, SumRow sum_row) {
    const Scratch<typename Accumulator<X>::Unfolded> unfolded(most);
    const auto one = [&](Index k, const FixedShiftExp<X, Scaled> &exp) FS_ALWAYS_INLINE {
        Accumulator<X> sums;
        logit[k] = sum_row(k, exp, sums);
        unfolded[k] = sums.unfolded();
        if constexpr (Scaled) at_logit[k] = exp(X::set(logit[k]))[0];
    };
    if constexpr (Scaled) {
        for (Index k = 0; k < count; ++k) one(k, FixedShiftExp<X, true>(scale_of(k)));
    } else {
        const FixedShiftExp<X, false> exp(Scale<X>::one());
        for (Index k = 0; k < count; ++k) one(k, exp);
        for_each_vector<X>(count, [&](Index k, auto lanes) {
            lanes.store(at_logit + k, exp(lanes.load(logit + k, 0)));
        });
    }
    total.template set<X>(unfolded, count);
}

// Rows that wait to be done together, at most `most_rows`.
template <class Row, Index most>
struct Waiting {
    Index count = 0, limit = most;
    Row *rows = nullptr;

    void begin(Index most_rows) { count = 0, limit = most_rows, rows = scratch<Row>(most); }
    // True: there is no room for another one.
    FS_ALWAYS_INLINE bool add(const Row &row) {
        rows[count] = row;
        return ++count == limit;
    }
};

}  // namespace fs
}  // namespace
