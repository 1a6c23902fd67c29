// logsumexp with weights of rows in lanes of float32, and which way a call takes.
#pragma once

#include "kernels/drivers/lanes.h"
#include "ops/logsumexp_weighted_lanes.h"

namespace {
namespace fs {

// Rows that are done in double, as many at a time as a vector has lanes.
class WeightedRowsInDouble {
    using X = WeightedTile::X;
    using F = Vec<float>;
    const WeightedTile tile;
    LongRow<WeightedRow> row;
    Index outer;
    Scratch<char> room;
    RowsApart<F> apart;
    Scratch<double> wide;
    static constexpr Index most = RowsApart<F>::most_blocks(X::lanes);
    Scratch<WeightedTile::Sums> sums;
    Scratch<X::V> y;
    Scratch<X::I> right;

  public:
    WeightedRowsInDouble(const NormalizeArguments &a, const AnyView &weights, Index o, Index first)
        : tile(a, weights),
          row(WeightedRow(a, weights)),
          outer(o),
          room(RowsApart<F>::memory(2 * tile.n())),
          apart(2 * tile.n(), first, room),
          wide(2 * tile.n() * X::lanes),
          sums(most),
          y(most),
          right(most) {
        row.begin();
    }
    // Bytes of what it keeps for rows of n elements.
    static Index memory(Index n) {
        return 2 * n * FS_VECTOR_BYTES + RowsApart<F>::memory(2 * n) +
               ChunkResults<WeightedRow::Partial>::memory(n);
    }

    // The lanes of a vector of rows from index i on that are wanted.
    void add(const Columns<F> &logits, const Columns<F> &weights, F::I wanted, Index i) {
        apart.put(0, logits, tile.n(), wanted), apart.put(tile.n(), weights, tile.n(), wanted);
        if (apart.set_apart(wanted, i)) finish();
    }
    // Step by step for all of them, so that none waits for the logarithm of another.
    void finish() {
        const Index n = tile.n(), blocks = apart.blocks<X::lanes>();
        for (Index k = 0; k < blocks; ++k) {
            widen(k);
            sums[k] = tile.sums_of({wide, X::lanes}, {wide + n * X::lanes, X::lanes});
        }
        for (Index k = 0; k < blocks; ++k) right[k] = tile.will_do(sums[k], y[k]);
        for (Index k = 0; k < blocks; ++k) {
            if (any<X>(~right[k])) {
                widen(k);
                tile.settle({wide, X::lanes}, {wide + n * X::lanes, X::lanes}, sums[k].max,
                            right[k], y[k]);
            }
            tile.store_or_run(apart, k * X::lanes, right[k], y[k], row, outer);
        }
        apart.clear();
    }

  private:
    void widen(Index block) {
        const Columns<F> rows = apart.from(block * X::lanes);
        for (Index j = 0; j < 2 * tile.n(); ++j)
            for (Index l = 0; l < X::lanes; ++l) wide[j * X::lanes + l] = rows.x[j * rows.step + l];
    }
};

// Exponentials of float32 do for most rows: an error of a term is one of the logarithm, which shows
// where that is next to 0, or where terms cancel. Such rows are set apart, and done in double.
// (4 x 90000 along axis 0: 4.3 -> 2.4 ns per element, 3 with weights of both signs; 21 terms, along
// the last axis: 1.75 -> 1.14. Step by step for the vectors of a tile, rows set apart packed: 0.8
// to 0.9 of that for 2 to 8 terms, 1.03 for 21 and more.)
struct WeightedFloatTile {
    using X = Vec<float>;
    using V = X::V;
    using D = Vec<double>;
    static constexpr Index width = tile_vectors * X::lanes;
    // up to which rows that are set apart find room
    static constexpr Index longest = 1024;
    static constexpr bool exact_products = FS_HAS_FMA;  // else it takes 12 instructions

    const NormalizeArguments *a;
    AnyView weights;

    // b may broadcast
    WeightedFloatTile(const NormalizeArguments &arguments, const AnyView &b)
        : a(&arguments), weights(b) {
        weights.n = n();
    }
    static bool fits(const NormalizeArguments &a, const AnyView &b) {
        return a.x.n <= longest && a.x.number == Number::float32 && b.number == Number::float32 &&
               a.out.number == Number::float32;
    }

    Index n() const { return a->x.n; }

    Index memory() const { return tile_memory(n(), 2, 0) + WeightedRowsInDouble::memory(n()); }

    void run(Index outer, Index first, Index count) const {
        WeightedRowsInDouble apart(*a, weights, outer, first);
        const Scratch<Sums> sums(tile_vectors);
        const Scratch<V> y(tile_vectors);
        const Scratch<X::I> right(tile_vectors);
        for_each_tile<X>(
            *a, weights, outer, first, count, [&](const WeightedColumns<X> *v, Index vectors) {
                for (Index k = 0; k < vectors; ++k)
                    sums[k] = a->ln_base.is_one() ? sums_of<false>(v[k].x, v[k].b)
                                                  : sums_of<true>(v[k].x, v[k].b);
                for (Index k = 0; k < vectors; ++k) right[k] = logarithms(sums[k], y[k]);
                for (Index k = 0; k < vectors; ++k) {
                    const LaneRows &rows = v[k].rows;
                    const X::I wrong =
                        ~right[k] & (X::indices() < static_cast<std::int32_t>(rows.count));
                    store_right<X>(a->out, rows, y[k], right[k]);
                    if (any<X>(wrong)) apart.add(v[k].x, v[k].b, wrong, rows.first);
                }
            });
        apart.finish();
    }

  private:
    struct Sums {
        V max;
        DoubleDouble<V> total;
        // without their signs: the terms, those of the others than the maxima, the largest weight
        V size, others, heaviest;
    };
    template <bool Scaled>
    FS_ALWAYS_INLINE Sums sums_of(const Columns<X> &x, const Columns<X> &b) const {
        const V none = X::set(masked_logit<float>);
        const auto logit = [&](Index j) FS_ALWAYS_INLINE {
            return b[j] == 0.0f ? none : x[j];
        };
        V max = none;
        for (Index j = 0; j < n(); ++j) max = larger(logit(j), max);
        const Scale<X> scale = Scale<X>::all(a->ln_base);
        const Shift<X> zero = Shift<X>::fixed(0, scale);
        Accumulator<X> sum;
        V residues{};
        V size{}, others{}, heaviest{};
        for (Index j = 0; j < n(); ++j) {
            const V v = logit(j), w = b[j], magnitude = absolute<X>(w),
                    e = exp_of_difference<X, Scaled>(v, max, zero, scale), term = w * e;
            sum.add(term);
            if (exact_products) residues = residues + multiply_subtract_exact<X>(w, e, term);
            size = size + absolute<X>(term);
            others = others + (v == max ? V{} : absolute<X>(term));
            heaviest = larger(magnitude, heaviest);
        }
        sum.add(residues);
        DoubleDouble<D::V> totals[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) totals[k] = sum.part(k);
        return {max, pair_from_wide<X>(totals), size, others, heaviest};
    }
    // In which lanes they are right, too.
    FS_ALWAYS_INLINE X::I logarithms(const Sums &s, V &y) const {
        const auto [max, total, size, others, heaviest] = s;
        const DoubleDouble<V> one{X::set(1), V{}},
            log = log_to_base<X>(log_ratio<X>(total, one, total.hi, V{}), a->ln_base),
            result = two_sum(max, log.hi);
        y = result.hi + (result.lo + log.lo);
        // Terms but those of the maxima, which are their weights, have errors in units of 2^-23:
        // those of exponentials, and half a unit where products are rounded. Where the logarithm
        // has 2.3 ulp of that, it has 2.8 rounded; an ulp is half of such a unit of it, or more.
        // The total is good to 2^-48, and each term may lack an exponential of 2^-126.
        constexpr float error = difference_error<X> + (exact_products ? 0.0f : 0.5f),
                        units = 2 * error / 2.3f;
        const V natural =
            larger(absolute<X>(y), absolute<X>(max) * 0.0625f) * static_cast<float>(a->ln_base.hi);
        const auto known = (max - max == V{}) & (size <= 0x1p100f) & (size >= 0x1p-100f) &
                           (size >= heaviest * (static_cast<float>(n()) * 0x1p-84f));
        const auto negative = total.hi < size * -0x1p-20f;
        y = negative ? X::set(std::numeric_limits<float>::quiet_NaN()) : y;
        return known & (negative | ((total.hi > size * 0x1p-20f) &
                                    (natural * total.hi >= units * others + 0x1p-18f * size)));
    }
};

template <class Tile>
void weighted_tiles(const NormalizeArguments &a, const AnyView &weights, Index threads) {
    const Index together = std::max(weighted_piece / (a.x.n * Tile::width), Index(1));
    TilesTask<Tile> work(Tile(a, weights), a.x.outer, a.x.inner, together * Tile::width);
    execute(work, threads);
}

inline Index further_memory(const WeightedFloatTile &tile) {
    return tile.memory();
}

inline void weighted_logsumexp(const NormalizeArguments &a, const AnyView &weights, Index threads) {
    static constexpr Traits traits = in_lanes("logsumexp, b", short_target_row, chunk);
    const Driver driver = decide(Problem::of(a.x, sizeof(double), false), traits);
    if (const int lanes_run = lanes_along(a.x, driver)) {
        const bool swap = lanes_run != along_inner;
        const NormalizeArguments s = swap ? a.swapped() : a;
        const AnyView w = swap ? weights.swapped() : weights;
        return WeightedFloatTile::fits(s, w) ? weighted_tiles<WeightedFloatTile>(s, w, threads)
                                             : weighted_tiles<WeightedTile>(s, w, threads);
    }
    run_long_rows(WeightedRow(a, weights), a.x.outer, a.x.inner, threads);
}

}  // namespace fs
}  // namespace
