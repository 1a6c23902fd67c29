// logsumexp with weights of rows in lanes of double.
#pragma once

#include "kernels/drivers/lanes.h"
#include "kernels/drivers/rows_apart.h"
#include "kernels/drivers/tiles.h"
#include "ops/logsumexp_weighted.h"

namespace {
namespace fs {

// Columns of so many elements are one piece of work, tile by tile: few are set apart in a tile of
// short ones.
constexpr Index weighted_piece = 4096;
// terms of a row up to which its logarithm is a good part of the work
constexpr Index few_weighted = 16;

// A vector of rows and their weights.
template <class X>
struct WeightedColumns {
    Columns<X> x, b;
    LaneRows rows;
};
// body(vectors, how many) for columns first .. first + count: of short rows as many vectors at a
// time as a tile has, so that none waits for the logarithm of another.
template <class X, class Body>
FS_ALWAYS_INLINE inline void for_each_tile(const NormalizeArguments &a, const AnyView &weights,
                                           Index outer, Index first, Index count, Body body) {
    const bool all = a.x.n <= few_weighted;
    const Scratch<WeightedColumns<X>> vectors(tile_vectors);
    for_each_block(first, first + count, tile_vectors * X::lanes, [&](Index at, Index size) {
        const auto none = -std::numeric_limits<typename X::Scalar>::infinity();
        TileColumns<X> x(a.x, outer, at, size, a.where, none, all),
            b(weights, outer, at, size, a.where, 0, all);
        x.gather(), b.gather();
        Index used = 0;
        for_each_block(0, size, X::lanes, [&](Index k, Index some) FS_ALWAYS_INLINE {
            vectors[used++] = {x.from(k), b.from(k), LaneRows{outer, at + k, some}};
            if (all && k + some < size) return;
            body(static_cast<const WeightedColumns<X> *>(vectors), used);
            used = 0;
        });
    });
}
// Of right ones alone: where the others will be stored there may still be logits or weights.
template <class X>
__attribute__((noinline)) void store_each(const AnyView &out, const LaneRows &rows, typename X::V y,
                                          typename X::I right) {
    for (Index l = 0; l < rows.count; ++l)
        if (right[l]) out.store(rows.outer, 0, rows.first + l, y[l]);
}
template <class X>
FS_ALWAYS_INLINE inline void store_right(const AnyView &out, const LaneRows &rows, typename X::V y,
                                         typename X::I right) {
    using C = typename X::Scalar;
    if (out.number == number_of<C> && out.inner_stride == Index(sizeof(C))) {
        C *place = reinterpret_cast<C *>(out.at(rows.outer, rows.first));
        const auto before = X::load_part(place, rows.count, 0);
        return X::store_part(place, right ? y : before, rows.count);
    }
    store_each<X>(out, rows, y, right);
}

// Rows in lanes. Those that sums of plain numbers will not do for are set apart, and done again
// with better exponentials; what these will not do for, one by one.
struct WeightedTile {
    using X = WeightedRow::X;
    using V = X::V;
    static constexpr Index width = tile_vectors * X::lanes;
    // up to which rows that are set apart find room; longer ones take all of their vector along
    static constexpr Index longest_apart = 256;

    const NormalizeArguments *a;
    AnyView weights;

    // b may broadcast
    WeightedTile(const NormalizeArguments &arguments, const AnyView &b)
        : a(&arguments), weights(b) {
        weights.n = n();
    }

    Index n() const { return a->x.n; }
    Index memory() const {
        return tile_memory(n(), 2, 0) + room_apart() +
               ChunkResults<WeightedRow::Partial>::memory(n());
    }

    Index room_apart() const { return n() > longest_apart ? 0 : RowsApart<X>::memory(2 * n()); }

    void run(Index outer, Index first, Index count) const {
        LongRow<WeightedRow> row(WeightedRow(*a, weights));
        row.begin();
        const Scratch<char> room(room_apart());
        RowsApart<X> apart(2 * n(), first, room);
        const Scratch<Sums> sums(tile_vectors);
        const Scratch<V> y(tile_vectors);
        const Scratch<X::I> right(tile_vectors);
        for_each_tile<X>(*a, weights, outer, first, count,
                         [&](const WeightedColumns<X> *v, Index vectors) {
                             for (Index k = 0; k < vectors; ++k) sums[k] = sums_of(v[k].x, v[k].b);
                             for (Index k = 0; k < vectors; ++k) right[k] = will_do(sums[k], y[k]);
                             for (Index k = 0; k < vectors; ++k)
                                 write(v[k], sums[k].max, right[k], y[k], apart, row);
                         });
        settle(apart, row, outer);
    }

    struct Sums {
        V max, size, heaviest;
        DoubleDouble<V> total;
    };
    FS_ALWAYS_INLINE Sums sums_of(const Columns<X> &x, const Columns<X> &b) const {
        const V none = X::set(-WeightedRow::infinity);
        const auto logit = [&](Index j) FS_ALWAYS_INLINE {
            return b[j] == 0.0 ? none : x[j];
        };
        V max = none;
        for (Index j = 0; j < n(); ++j) max = larger(logit(j), max);
        const auto sum = [&](auto terms) FS_ALWAYS_INLINE {
            for (Index j = 0; j < n(); ++j) terms.add(logit(j), b[j]);
            return Sums{max, terms.magnitude, terms.heaviest, terms.sum.part(0)};
        };
        return a->ln_base.is_one() ? sum(WeightedRow::Terms<false>(a->ln_base, max))
                                   : sum(WeightedRow::Terms<true>(a->ln_base, max));
    }
    // In which lanes they will do; results of the others are any numbers.
    FS_ALWAYS_INLINE X::I will_do(const Sums &s, V &y) const {
        return WeightedRow::will_do<X>(*a, s.total, s.size, s.heaviest, s.max, y);
    }

    // Results of rows l .. l + lanes of those set apart.
    template <class Apart>
    void store_or_run(const Apart &apart, Index first, X::I settled, V y, LongRow<WeightedRow> &row,
                      Index outer) const {
        for (Index l = first; l < apart.count() && l < first + X::lanes; ++l) {
            const Index i = apart.index(l);
            if (!settled[l - first])
                row.run(outer, i);
            else if (a->out.number == Number::float32)
                *reinterpret_cast<float *>(a->out.at(outer, i)) = static_cast<float>(y[l - first]);
            else
                a->out.store(outer, 0, i, y[l - first]);
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

  private:
    // The results that are right; the other rows are set apart, unless they are long.
    FS_ALWAYS_INLINE void write(const WeightedColumns<X> &v, V max, X::I right, V y,
                                RowsApart<X> &apart, LongRow<WeightedRow> &row) const {
        const LaneRows &rows = v.rows;
        const bool together = n() > longest_apart;
        const X::I counted = X::indices() < rows.count;
        if (together && any<X>(~right & counted)) settle(v.x, v.b, max, right, y);
        store_right<X>(a->out, rows, y, right);
        const X::I wrong = ~right & counted;
        if (!any<X>(wrong)) return;
        if (together) {
            for (Index l = 0; l < rows.count; ++l)
                if (wrong[l]) row.run(rows.outer, rows.first + l);
            return;
        }
        apart.put(0, v.x, n(), wrong), apart.put(n(), v.b, n(), wrong);
        if (apart.set_apart(wrong, rows.first)) settle(apart, row, rows.outer);
    }
    void settle(RowsApart<X> &apart, LongRow<WeightedRow> &row, Index outer) const {
        for (Index k = 0, blocks = apart.blocks<X::lanes>(); k < blocks; ++k) {
            const Columns<X> x = apart.from(k * X::lanes), b{x.x + n() * x.step, x.step};
            const V none = X::set(-WeightedRow::infinity);
            V max = none, y = none;
            for (Index j = 0; j < n(); ++j) max = larger(b[j] == 0.0 ? none : x[j], max);
            X::I settled{};
            settle(x, b, max, settled, y);
            store_or_run(apart, k * X::lanes, settled, y, row, outer);
        }
        apart.clear();
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
    return tile.memory();
}

}  // namespace fs
}  // namespace
