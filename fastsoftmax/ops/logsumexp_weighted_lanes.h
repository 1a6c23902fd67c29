// logsumexp with weights of rows in lanes of double.
#pragma once

#include "kernels/drivers/tiles.h"
#include "ops/logsumexp_weighted.h"

namespace {
namespace fs {

// Rows in lanes; those that sums of plain numbers will not do for, one by one.
struct WeightedTile {
    using X = WeightedRow::X;
    using V = X::V;
    static constexpr Index width = tile_vectors * X::lanes;

    const NormalizeArguments *a;
    AnyView weights;

    // b may broadcast
    WeightedTile(const NormalizeArguments &arguments, const AnyView &b)
        : a(&arguments), weights(b) {
        weights.n = n();
    }

    Index n() const { return a->x.n; }

    void run(Index outer, Index first, Index count) const {
        LongRow<WeightedRow> row(WeightedRow(*a, weights));
        row.begin();
        TileColumns<X> x(a->x, outer, first, count, a->where),
            b(weights, outer, first, count, a->where, 0);
        x.gather(), b.gather();
        for (Index at = 0; at < count; at += X::lanes)
            vector(row, x.from(at), b.from(at), outer, first + at,
                   count - at < X::lanes ? count - at : X::lanes);
    }

    // Logarithms of a vector of rows, and in which lanes they are right; those of the others are
    // any numbers.
    X::I logarithms(const Columns<X> &x, const Columns<X> &b, V &y) const {
        const V none = X::set(-WeightedRow::infinity);
        const auto logit = [&](Index j) FS_ALWAYS_INLINE {
            return b[j] == 0.0 ? none : x[j];
        };
        V max = none;
        for (Index j = 0; j < n(); ++j) max = larger(logit(j), max);
        const auto sum = [&](auto terms) FS_ALWAYS_INLINE {
            for (Index j = 0; j < n(); ++j) terms.add(logit(j), b[j]);
            return WeightedRow::will_do<X>(*a, terms.sum.part(0), terms.magnitude, terms.heaviest,
                                           max, y);
        };
        X::I settled = a->ln_base.is_one() ? sum(WeightedRow::Terms<false>(a->ln_base, max))
                                           : sum(WeightedRow::Terms<true>(a->ln_base, max));
        if (any<X>(~settled)) settle(x, b, max, settled, y);
        return settled;
    }

  private:
    void vector(LongRow<WeightedRow> &row, const Columns<X> &x, const Columns<X> &b, Index outer,
                Index first, Index count) const {
        V y;
        const X::I settled = logarithms(x, b, y);
        double results[X::lanes];
        X::store(results, y);
        if (!any<X>(~settled)) return write_rows(a->out, outer, first, count, results);
        for (Index l = 0; l < count; ++l) {
            if (settled[l])
                a->out.store(outer, 0, first + l, results[l]);
            else
                row.run(outer, first + l);
        }
    }
    // With better exponentials.
    __attribute__((noinline)) void settle(const Columns<X> &x, const Columns<X> &b, V max,
                                          X::I &settled, V &y) const {
        const auto scale = Scale<X>::all(a->ln_base);
        const V none = X::set(-WeightedRow::infinity);
        Accumulator<X> sum;
        V size = {}, heaviest = {};
        for (Index j = 0; j < n(); ++j) {
            const V w = b[j], v = w == 0.0 ? none : x[j];
            const DoubleDouble<V> e = exp_of_difference_pair<X, true>(v, max, V{}, scale);
            const V term = w * e.hi;
            sum.add(term), sum.add(multiply_subtract_exact<X>(w, e.hi, term) + w * e.lo);
            size = size + absolute<X>(term), heaviest = larger(absolute<X>(w), heaviest);
        }
        V better;
        // 2^-57, and 2^4 times that in the result
        const auto enough =
            WeightedRow::will_do<X>(*a, sum.part(0), size, heaviest, max, better, 0x1p-4);
        y = settled ? y : better;
        settled |= enough;
        if (any<X>(~settled)) settle_in_pairs(x, b, max, settled, y);
    }
    // With the best ones, where the terms are finite and the largest is moderate.
    __attribute__((noinline)) void settle_in_pairs(const Columns<X> &x, const Columns<X> &b, V max,
                                                   X::I &settled, V &y) const {
        const V none = X::set(-WeightedRow::infinity), center = WeightedRow::center_of(*a, max);
        WeightedRow::PairTerms terms(a->ln_base, center, 0);
        V largest = none, whole = {};  // exponent; and a sum that tells of NaN
        for (Index j = 0; j < n(); ++j) {
            const V w = b[j], v = w == 0.0 ? none : x[j];
            largest = larger(terms.exponent(v, w), largest);
            whole = whole + (w == 0.0 ? V{} : absolute<X>(w) + absolute<X>(v));
            terms.add(v, w);
        }
        const auto fine = ~settled & (max - max == V{}) & (whole == whole) &
                          (largest >= -WeightedRow::moderate) &
                          (largest < WeightedRow::moderate + 1);
        y = fine ? terms.result<X>(*a, terms.weights.part(0), terms.near.part(0), terms.far.part(0),
                                   center)
                 : y;
        settled |= fine;
    }
};

inline Index further_memory(const WeightedTile &tile) {
    return tile_memory(tile.n(), 2, 0) + ChunkResults<WeightedRow::Partial>::memory(tile.n());
}

}  // namespace fs
}  // namespace
