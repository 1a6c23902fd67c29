// Strips of columns of softmax and its relatives, swept row by row.
#pragma once

#include "kernels/math/exp_precise.h"
#include "ops/normalize_columns.h"

namespace {
namespace fs {

// Wide strips of columns in memory, where no scale is wanted. Rows of a strip are long runs of
// memory, which the processor fetches ahead of itself: sums for eight rows at a time, with the
// typical shift, then the results. Where a strip that is still wide fits L2, its exponentials are
// kept, in the output; else they are computed again: to store and to load them would take more
// time, and tiles as narrow as they would have to be are a few cache lines from each of many pages.
// (Measured, AVX-512, ns per element of softmax, tiles and strips: 32 x 1000 0.32 and 0.23, 100 x
// 1000 0.30 and 0.25, 32 x 32000 0.42 and 0.28 (0.32 computed again), 4000 x 4000 0.83 and 0.55, 20
// x 1000000 1.15 and 0.48.)
//
// Columns whose sums show that the shift was wrong are done again, by Careful, with those next to
// them (`group`: the same ones wherever strips end).
template <class C, Result R, class Careful>
struct NormalizeStrip {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    using Normal = Normalizer<X, R == Result::softmax>;
    using Writer = LogWriter<X, false>;
    static constexpr bool logarithmic = takes_logarithm(R), keeps = R != Result::logsumexp;
    static constexpr isize group = tile_vectors * X::lanes, most = strip_bytes / isize(sizeof(C));

    const NormalizeArguments *a;
    Careful careful;
    bool exact;  // scores on a lattice are not for this: they have exact differences
    bool streaming;
    bool kept;  // exponentials, in the output, until they are scaled there

    isize n() const { return a->x.n; }

    // Columns of a strip that fits L2 with all its rows, and whether they are enough.
    static isize in_l2(const NormalizeArguments &a) {
        return tile_bytes / (a.x.n * isize(sizeof(C)));
    }
    static bool fits(const NormalizeArguments &a) { return in_l2(a) >= strip_columns; }
    static isize width(const NormalizeArguments &a, isize threads) {
        const isize narrow = !fits(a)              ? most
                             : in_l2(a) < most / 4 ? in_l2(a) / group * group
                                                   : most / 4;
        const isize share = (a.x.outer * a.x.inner + threads - 1) / threads;
        const isize wide = narrow < share ? narrow : share;
        return (wide + group - 1) / group * group;
    }

    void run(isize outer, isize first, isize count) const {
        Strip s{};
        s.outer = outer, s.first = first, s.count = count;
        s.x = reinterpret_cast<const C *>(a->x.at(outer, first)),
        s.step = a->x.n_stride / isize(sizeof(C));
        if constexpr (keeps)
            s.y = reinterpret_cast<C *>(a->out.at(outer, first)),
            s.y_step = a->out.n_stride / isize(sizeof(C));
        const isize vectors = (count + X::lanes - 1) / X::lanes;
        const Scratch<Column> columns(vectors);
        const Scratch<C> max(keeps && logarithmic ? vectors * X::lanes : 0);
        const Scratch<C> hi(keeps ? vectors * X::lanes : 0), lo(keeps ? vectors * X::lanes : 0);
        s.columns = columns, s.max = max, s.hi = hi, s.lo = lo;
        sum(s);
        judge(s);
        if constexpr (keeps && logarithmic) {
            write(s, [&](isize at, auto lanes, V v) FS_INLINE_LAMBDA {
                const V top = lanes.load(s.max + at, 0), log = lanes.load(s.hi + at, 0);
                return Writer{top, log, lanes.load(s.lo + at, 0), V{}, V{}, V{}}.apply(v);
            });
        } else if constexpr (keeps) {
            if (Normal::seldom_two && !s.two_terms)
                write(s, [&](isize at, auto lanes, V e) FS_INLINE_LAMBDA {
                    return Normal{lanes.load(s.hi + at, 1), V{}}.template apply<true>(e);
                });
            else
                write(s, [&](isize at, auto lanes, V e) FS_INLINE_LAMBDA {
                    return Normal{lanes.load(s.hi + at, 1), lanes.load(s.lo + at, 0)}.apply(e);
                });
        }
        for (isize g = 0; g * group < count; ++g) {
            if (s.wrong[g])
                careful.run(outer, first + g * group,
                            count - g * group < group ? count - g * group : group);
        }
    }

  private:
    struct Column {  // a vector of columns
        LaneSums<X> sum;
        V max;              // of logits; for softmax, of the sums of four exponentials
        typename X::I off;  // where it is 0, all scores are on the lattice
    };
    struct Watched {
        LaneSums<X> sum;
        V max;
        FS_INLINE void add(V v) {
            sum.add(v);
            if constexpr (Normal::watches) max = larger(v, max);
        }
    };
    struct Strip {
        isize outer, first, count;
        const C *x;
        isize step;
        C *y;
        isize y_step;
        Column *columns;
        C *max, *hi, *lo;  // what results are made with, of each column
        bool wrong[most / group + 1];
        bool two_terms;  // at least one normalizer has them
    };

    // body(vector, offset, lanes) for the columns from `at` to `end`.
    template <class Body>
    static FS_INLINE void vectors(isize at, isize end, Body body) {
        for (; at + X::lanes <= end; at += X::lanes) body(at / X::lanes, at, AllLanes<X>());
        if (at < end) body(at / X::lanes, at, FirstLanes<X>{end - at});
    }

    __attribute__((noinline)) void sum(Strip &s) const {
        const TypicalExp<X, false> exp(Scale<X>::one());
        vectors(0, s.count, [&](isize v, isize, auto) {
            s.columns[v].sum = {}, s.columns[v].max = X::set(absent_logit<C>),
            s.columns[v].off = typename X::I{};
        });
        // (1000 x 1000 sixteen at a time: 4 % less; 32 x 32000 and 4000 x 4000 7 to 10 % more)
        const isize rows = accumulator_vectors * (logarithmic || kept || streaming ? 1 : 2);
        for (isize i = 0; i < n(); i += rows) {
            const isize end = n() - i < rows ? n() : i + rows;
            vectors(0, s.count, [&](isize v, isize at, auto lanes) FS_INLINE_LAMBDA {
                Column &c = s.columns[v];
                Watched sums{c.sum, c.max};
                const C *x = s.x + at;
                const auto term = [&](isize j) FS_INLINE_LAMBDA {
                    return exp(lanes.load(x + j * s.step, 0));
                };
                if (exact && any<X>(c.off == 0)) {  // hardly ever after the first rows
                    for (isize j = i; j < end; ++j)
                        c.off |= off_lattice<X>(lanes.load(x + j * s.step, 0));
                }
                if constexpr (logarithmic) {
                    for (isize j = i; j < end; ++j) {
                        const V logit = lanes.load(x + j * s.step, 0);
                        sums.max = larger(logit, sums.max);
                        sums.sum.add(exp(logit));
                    }
                } else if (kept) {
                    C *e = s.y + at;
                    sum_rows(i, end, sums, term, [&](isize j, V y) FS_INLINE_LAMBDA {
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
        vectors(0, s.count, [&](isize v, isize at, auto) {
            Column &c = s.columns[v];
            bool wrong = exact && any<X>(c.off == 0);
            for (int k = 0; k < wide_parts<X>; ++k) {
                wrong |= any<D>(~near_enough<C>(c.sum.part(k).hi));
            }
            s.wrong[at / group] |= wrong || !settle(s, v, at);
        });
    }
    // False: one of the columns wants more than its total.
    bool settle(Strip &s, isize v, isize at) const {
        Column &c = s.columns[v];
        const isize count = s.count - at < X::lanes ? s.count - at : X::lanes;
        if constexpr (!logarithmic) {
            double numerators[X::lanes];
            const bool given =
                numerators_of<R>(a->gradient, s.outer, s.first + at, count, numerators);
            Normal normalizer = Normal::each(given ? numerators : nullptr, c.sum);
            typename D::V total[wide_parts<X>];
            for (int k = 0; k < wide_parts<X>; ++k) total[k] = c.sum.part(k).hi;
            normalizer.settle(c.max, from_wide<X>(total));
            X::store(s.hi + at, normalizer.hi), X::store(s.lo + at, normalizer.lo);
            s.two_terms |= !normalizer.has_one_term();
            bool all_fit = true;
            for (isize l = 0; given && l < count; ++l)
                all_fit &= numerators[l] == 0 || fs::fits<C>(numerators[l], c.sum.lane(l).value());
            return all_fit;
        } else {
            const UsualLogs<X> log(c.max, TypicalExp<X, false>(Scale<X>::one())(c.max),
                                   [&](int k) FS_INLINE_LAMBDA { return c.sum.part(k); });
            if (log.any_wants_rest()) return false;
            if constexpr (!keeps) return store(s.outer, s.first + at, count, log);
            X::store(s.max + at, log.max), X::store(s.hi + at, log.hi), X::store(s.lo + at, log.lo);
            return true;
        }
    }
    bool store(isize outer, isize first, isize count, const UsualLogs<X> &log) const {
        const V y = log.sum();
        if (any<X>(cancels(log.max, y, y))) return false;
        if (a->out.number == number_of<C> && a->out.inner_stride == isize(sizeof(C))) {
            X::store_part(reinterpret_cast<C *>(a->out.at(outer, first)), y, count);
        } else {
            for (isize l = 0; l < count; ++l)
                a->out.store(outer, 0, first + l, static_cast<double>(y[l]));
        }
        return true;
    }

    template <class Apply>
    void write(const Strip &s, Apply apply) const {
        const TypicalExp<X, false> exp(Scale<X>::one());
        const C *x = s.x;
        C *y = s.y;
        for (isize i = 0; i < n(); ++i, x += s.step, y += s.y_step) {
            // the groups from one wrong one to the next
            for (isize start = 0, end; start < s.count; start = end) {
                end = start + group;
                if (s.wrong[start / group]) continue;
                while (end < s.count && !s.wrong[end / group]) end += group;
                if (end > s.count) end = s.count;
                write_span<X, !logarithmic>(
                    y + start, end - start, streaming, [&](isize k, auto lanes) FS_INLINE_LAMBDA {
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
