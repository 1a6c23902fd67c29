// Strips of columns of softmax and its relatives, swept row by row.
#pragma once

#include "kernels/math/exp_precise.h"
#include "ops/normalize_columns.h"

namespace {
namespace fs {

// Wide strips of columns in memory, where no scale is wanted. Rows of a strip are long runs of
// memory, which the processor fetches ahead of itself: sums for eight rows at a time, with the
// fixed shift, then the results. Where a strip that is still wide fits L2, its exponentials are
// kept, in the output; else they are computed again: to store and to load them would take more
// time, and tiles as narrow as they would have to be are a few cache lines from each of many pages.
// (Measured, AVX-512, ns per element of softmax, tiles and strips: 32 x 1000 0.32 and 0.23, 100 x
// 1000 0.30 and 0.25, 32 x 32000 0.42 and 0.28 (0.32 computed again), 4000 x 4000 0.83 and 0.55, 20
// x 1000000 1.15 and 0.48.)
//
// Columns whose sums show that the shift was wrong are done again, by MaxShiftTile, with those next
// to them (`group`: the same ones wherever strips end).
template <class C, Result R, class MaxShiftTile>
struct NormalizeStrip {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    using Normal = ScaleEpilogue<X, R == Result::softmax>;
    using Logarithm = LogEpilogue<X, false>;
    static constexpr bool logarithmic = takes_logarithm(R), keeps = R != Result::logsumexp;
    static constexpr Index group = tile_vectors * X::lanes, most = strip_bytes / Index(sizeof(C));

    const NormalizeArguments *a;
    MaxShiftTile max_shift_tile;
    bool exact;  // scores on a grid are not for this: they have exact differences
    bool streaming;
    bool kept;  // exponentials, in the output, until they are scaled there

    Index n() const { return a->x.n; }

    // Columns of a strip that fits L2 with all its rows, and whether they are enough.
    static Index in_l2(const NormalizeArguments &a) {
        return tile_bytes / (a.x.n * Index(sizeof(C)));
    }
    static bool fits(const NormalizeArguments &a) { return in_l2(a) >= strip_columns; }
    static Index width(const NormalizeArguments &a, Index threads) {
        const Index narrow = !fits(a)              ? most
                             : in_l2(a) < most / 4 ? in_l2(a) / group * group
                                                   : most / 4;
        const Index share = (a.x.outer * a.x.inner + threads - 1) / threads;
        const Index wide = narrow < share ? narrow : share;
        return (wide + group - 1) / group * group;
    }

    void run(Index outer, Index first, Index count) const {
        Strip s{};
        s.outer = outer, s.first = first, s.count = count;
        s.x = reinterpret_cast<const C *>(a->x.at(outer, first)),
        s.step = a->x.n_stride / Index(sizeof(C));
        if constexpr (keeps)
            s.y = reinterpret_cast<C *>(a->out.at(outer, first)),
            s.y_step = a->out.n_stride / Index(sizeof(C));
        const Index vectors = (count + X::lanes - 1) / X::lanes;
        const Scratch<Column> columns(vectors);
        const Scratch<C> max(keeps && logarithmic ? vectors * X::lanes : 0);
        const Scratch<C> hi(keeps ? vectors * X::lanes : 0), lo(keeps ? vectors * X::lanes : 0);
        s.columns = columns, s.max = max, s.hi = hi, s.lo = lo;
        sum(s);
        judge(s);
        if constexpr (keeps && logarithmic) {
            write(s, [&](Index at, auto lanes, V v) FS_ALWAYS_INLINE {
                const V top = lanes.load(s.max + at, 0), log = lanes.load(s.hi + at, 0);
                return Logarithm{top, log, lanes.load(s.lo + at, 0), V{}, V{}, V{}}.apply(v);
            });
        } else if constexpr (keeps) {
            if (Normal::seldom_two && !s.two_terms)
                write(s, [&](Index at, auto lanes, V e) FS_ALWAYS_INLINE {
                    return Normal{lanes.load(s.hi + at, 1), V{}}.template apply<true>(e);
                });
            else
                write(s, [&](Index at, auto lanes, V e) FS_ALWAYS_INLINE {
                    return Normal{lanes.load(s.hi + at, 1), lanes.load(s.lo + at, 0)}.apply(e);
                });
        }
        for (Index g = 0; g * group < count; ++g) {
            if (s.wrong[g])
                max_shift_tile.run(outer, first + g * group,
                                   count - g * group < group ? count - g * group : group);
        }
    }

  private:
    struct Column {  // a vector of columns
        Accumulator<X> sum;
        V max;              // of logits; for softmax, of the sums of four exponentials
        typename X::I off;  // where it is 0, all scores are on the grid
    };
    struct Watched {
        Accumulator<X> sum;
        V max;
        FS_ALWAYS_INLINE void add(V v) {
            sum.add(v);
            if constexpr (Normal::watches) max = larger(v, max);
        }
    };
    struct Strip {
        Index outer, first, count;
        const C *x;
        Index step;
        C *y;
        Index y_step;
        Column *columns;
        C *max, *hi, *lo;  // what results are made with, of each column
        bool wrong[most / group + 1];
        bool two_terms;  // at least one normalizer has them
    };

    // body(vector, offset, lanes) for the columns from `at` to `end`.
    template <class Body>
    static FS_ALWAYS_INLINE void vectors(Index at, Index end, Body body) {
        for (; at + X::lanes <= end; at += X::lanes) body(at / X::lanes, at, FullVector<X>());
        if (at < end) body(at / X::lanes, at, PartialVector<X>{end - at});
    }

    __attribute__((noinline)) void sum(Strip &s) const {
        const FixedShiftExp<X, false> exp(Scale<X>::one());
        vectors(0, s.count, [&](Index v, Index, auto) {
            s.columns[v].sum = {}, s.columns[v].max = X::set(masked_logit<C>),
            s.columns[v].off = typename X::I{};
        });
        // (1000 x 1000 sixteen at a time: 4 % less; 32 x 32000 and 4000 x 4000 7 to 10 % more)
        const Index rows = accumulator_vectors * (logarithmic || kept || streaming ? 1 : 2);
        for (Index i = 0; i < n(); i += rows) {
            const Index end = n() - i < rows ? n() : i + rows;
            vectors(0, s.count, [&](Index v, Index at, auto lanes) FS_ALWAYS_INLINE {
                Column &c = s.columns[v];
                Watched sums{c.sum, c.max};
                const C *x = s.x + at;
                const auto term = [&](Index j) FS_ALWAYS_INLINE {
                    return exp(lanes.load(x + j * s.step, 0));
                };
                if (exact && any<X>(c.off == 0)) {  // hardly ever after the first rows
                    for (Index j = i; j < end; ++j)
                        c.off |= off_grid<X>(lanes.load(x + j * s.step, 0));
                }
                if constexpr (logarithmic) {
                    for (Index j = i; j < end; ++j) {
                        const V logit = lanes.load(x + j * s.step, 0);
                        sums.max = larger(logit, sums.max);
                        sums.sum.add(exp(logit));
                    }
                } else if (kept) {
                    C *e = s.y + at;
                    sum_rows(i, end, sums, term, [&](Index j, V y) FS_ALWAYS_INLINE {
                        lanes.store(e + j * s.y_step, y);
                    });
                } else {
                    sum_rows(i, end, sums, term);
                }
                c.sum = sums.sum, c.max = sums.max;
            });
        }
    }

    // Which groups are wrong, and what the others' results are made with.
    void judge(Strip &s) const {
        vectors(0, s.count, [&](Index v, Index at, auto) {
            Column &c = s.columns[v];
            bool wrong = exact && any<X>(c.off == 0);
            for (int k = 0; k < wide_parts<X>; ++k) {
                wrong |= any<D>(~fixed_shift_was_right<C>(c.sum.part(k).hi));
            }
            s.wrong[at / group] |= wrong || !settle(s, v, at);
        });
    }
    // False: one of the columns wants more than its total.
    bool settle(Strip &s, Index v, Index at) const {
        Column &c = s.columns[v];
        const Index count = s.count - at < X::lanes ? s.count - at : X::lanes;
        if constexpr (!logarithmic) {
            double numerators[X::lanes];
            const bool given =
                numerators_of<R>(a->gradient, s.outer, s.first + at, count, numerators);
            const Normal normalizer = Normal::each(given ? numerators : nullptr, c.sum, c.max);
            X::store(s.hi + at, normalizer.hi), X::store(s.lo + at, normalizer.lo);
            s.two_terms |= !normalizer.has_one_term();
            bool all_fit = true;
            for (Index l = 0; given && l < count; ++l)
                all_fit &= numerator_fits<C>(numerators[l], c.sum.lane(l).value());
            return all_fit;
        } else {
            const UsualLogs<X> log(c.max, FixedShiftExp<X, false>(Scale<X>::one())(c.max),
                                   [&](int k) FS_ALWAYS_INLINE { return c.sum.part(k); });
            if (log.any_tail_underflows()) return false;
            if constexpr (!keeps) return store(s.outer, s.first + at, count, log);
            X::store(s.max + at, log.max), X::store(s.hi + at, log.hi), X::store(s.lo + at, log.lo);
            return true;
        }
    }
    bool store(Index outer, Index first, Index count, const UsualLogs<X> &log) const {
        const V y = log.sum();
        if (any<X>(cancels(log.max, y, y))) return false;
        if (a->out.number == number_of<C> && a->out.inner_stride == Index(sizeof(C))) {
            X::store_part(reinterpret_cast<C *>(a->out.at(outer, first)), y, count);
        } else {
            for (Index l = 0; l < count; ++l)
                a->out.store(outer, 0, first + l, static_cast<double>(y[l]));
        }
        return true;
    }

    template <class Apply>
    void write(const Strip &s, Apply apply) const {
        const FixedShiftExp<X, false> exp(Scale<X>::one());
        const C *x = s.x;
        C *y = s.y;
        for (Index i = 0; i < n(); ++i, x += s.step, y += s.y_step) {
            // the groups from one wrong one to the next
            for (Index start = 0, end; start < s.count; start = end) {
                end = start + group;
                if (s.wrong[start / group]) continue;
                while (end < s.count && !s.wrong[end / group]) end += group;
                if (end > s.count) end = s.count;
                write_span<X, !logarithmic>(
                    y + start, end - start, streaming, [&](Index k, auto lanes) FS_ALWAYS_INLINE {
                        const V value = lanes.load((kept ? y : x) + start + k, 0);
                        return apply(start + k, lanes, logarithmic || kept ? value : exp(value));
                    });
            }
        }
        if (streaming) stream_fence();
    }
};

}  // namespace fs
}  // namespace
