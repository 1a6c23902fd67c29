// logsumexp with weights of rows in lanes of float32, and which way a call takes.
#pragma once

#include "kernels/drivers/lanes.h"
#include "ops/logsumexp_weighted_lanes.h"

namespace {
namespace fs {

// Rows of a tile that are done in double, as many at a time as a vector has lanes.
class WeightedRowsInDouble {
    using X = WeightedTile::X;
    using F = Vec<float>;
    const WeightedTile tile;
    LongRow<WeightedRow> row;
    Index outer, count = 0;
    Scratch<double> x, b;
    Index inner[X::lanes];

  public:
    WeightedRowsInDouble(const NormalizeArguments &a, const AnyView &weights, Index o)
        : tile(a, weights),
          row(WeightedRow(a, weights)),
          outer(o),
          x(a.x.n * X::lanes),
          b(a.x.n * X::lanes) {
        row.begin();
    }
    // Bytes of what it keeps for rows of n elements.
    static Index memory(Index n) {
        return 2 * n * FS_VECTOR_BYTES + ChunkResults<WeightedRow::Partial>::memory(n);
    }

    // One lane of a vector of rows: row i.
    void add(const Columns<F> &logits, const Columns<F> &weights, Index lane, Index i) {
        const float *from = logits.x + lane, *factors = weights.x + lane;
        double *to = x + count, *w = b + count;
        for (Index j = 0; j < tile.n(); ++j, from += logits.step, factors += weights.step)
            to[j * X::lanes] = *from, w[j * X::lanes] = *factors;
        inner[count++] = i;
        if (count == X::lanes) finish();
    }
    void finish() {
        if (count == 0) return;
        for (Index l = count; l < X::lanes; ++l)  // filled up with the first row
            for (Index j = 0; j < tile.n(); ++j)
                x[j * X::lanes + l] = x[j * X::lanes], b[j * X::lanes + l] = b[j * X::lanes];
        X::V y;
        const X::I settled = tile.logarithms({x, X::lanes}, {b, X::lanes}, y);
        for (Index l = 0; l < count; ++l) {
            if (settled[l])
                *reinterpret_cast<float *>(tile.a->out.at(outer, inner[l])) =
                    static_cast<float>(y[l]);
            else
                row.run(outer, inner[l]);
        }
        count = 0;
    }
};

// Exponentials of float32 do for most rows: an error of a term is one of the logarithm, which shows
// where that is next to 0, or where terms cancel. Such rows are set apart, and done in double.
// (4 x 90000 along axis 0: 4.3 -> 2.4 ns per element, 3 with weights of both signs; 21 terms, along
// the last axis: 1.75 -> 1.14. Vectors settled together instead of one by one: 6 % more, not worth
// it.)
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

    void run(Index outer, Index first, Index count) const {
        WeightedRowsInDouble apart(*a, weights, outer);
        TileColumns<X> x(a->x, outer, first, count, a->where),
            b(weights, outer, first, count, a->where, 0);
        x.gather(), b.gather();
        for (Index at = 0; at < count; at += X::lanes) {
            const LaneRows rows{outer, first + at, count - at < X::lanes ? count - at : X::lanes};
            vector(x.from(at), b.from(at), rows, apart);
        }
        apart.finish();
    }

  private:
    void vector(const Columns<X> &x, const Columns<X> &b, const LaneRows &rows,
                WeightedRowsInDouble &apart) const {
        V y;
        const X::I right =
            a->ln_base.is_one() ? logarithms<false>(x, b, y) : logarithms<true>(x, b, y);
        store(rows, y, right);
        const auto count = static_cast<std::int32_t>(rows.count);
        for (unsigned wrong = lane_bits<X>(~right & (X::indices() < count)); wrong;
             wrong &= wrong - 1) {
            const Index lane = __builtin_ctz(wrong);
            apart.add(x, b, lane, rows.first + lane);
        }
    }
    // Of right ones alone: where the others will be stored there may still be logits or weights.
    void store(const LaneRows &rows, V y, X::I right) const {
        const auto place = [&](Index l) {
            return reinterpret_cast<float *>(a->out.at(rows.outer, rows.first + l));
        };
        if (a->out.inner_stride == Index(sizeof(float))) {
            const V before = X::load_part(place(0), rows.count, 0);
            return X::store_part(place(0), right ? y : before, rows.count);
        }
        for (Index l = 0; l < rows.count; ++l)
            if (right[l]) *place(l) = y[l];
    }
    // In which lanes they are right, too.
    template <bool Scaled>
    FS_ALWAYS_INLINE X::I logarithms(const Columns<X> &x, const Columns<X> &b, V &y) const {
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
        // without their signs: the terms, those of the others than the maxima, the largest weight
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
        const DoubleDouble<V> total = pair_from_wide<X>(totals), one{X::set(1), V{}},
                              log = log_to_base<X>(log_ratio<X>(total, one, total.hi, V{}),
                                                   a->ln_base),
                              result = two_sum(max, log.hi);
        y = result.hi + (result.lo + log.lo);
        // Terms but those of the maxima, which are their weights, have errors: exponentials of 1.4
        // units of 2^-23, products of half a one. Where the logarithm has 2.3 ulp of that, it has
        // 2.8 rounded. The total is good to 2^-48, and each term may lack an exponential of 2^-126.
        constexpr float units = exact_products ? 1.22f : 1.66f;
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
    TilesTask<Tile> work(Tile(a, weights), a.x.outer, a.x.inner, Tile::width);
    execute(work, threads);
}

inline Index further_memory(const WeightedFloatTile &tile) {
    return tile_memory(tile.n(), 2, 0) + WeightedRowsInDouble::memory(tile.n());
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
