// Tiles of columns of softmax and its relatives, one column in each lane.
#pragma once

#include "kernels/math/exp_precise.h"
#include "ops/normalize_lanes.h"
#include "ops/row_log.h"

namespace {
namespace fs {

// A tile of columns, one column per lane, with the shift of each lane from its exact maximum.
template <class C, Result R, bool Scaled>
struct NormalizeColumns {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    static constexpr Index width = tile_vectors * X::lanes;
    static constexpr bool logarithmic = takes_logarithm(R);

    struct Place {  // rows of a tile in memory
        C *p;
        Index step;
    };
    struct Column {     // the state of one vector of columns
        V max, at_max;  // and its exponential
        Scale<X> scale;
        Shift<X> shift, zero;
        LogEpilogue<X, Scaled> logarithm;
        Accumulator<X> sum;
    };

    const NormalizeArguments *a;
    bool staged;  // the tile is gathered into scratch and its results are scattered from there

    Index n() const { return a->x.n; }

    void run(Index outer, Index first, Index count) const {
        constexpr bool keeps = R != Result::logsumexp;
        if (!staged) {
            const Index size = sizeof(C);
            const C *x = reinterpret_cast<const C *>(a->x.at(outer, first));
            C *y = keeps ? reinterpret_cast<C *>(a->out.at(outer, first)) : nullptr;
            const Index step = a->x.n_stride / size, out_step = keeps ? a->out.n_stride / size : 0;
            // Exponentials are kept in scratch, which is contiguous: rows that lie a multiple of
            // 4096 bytes apart share few lines of the cache.
            const Index across = (count + X::lanes - 1) / X::lanes * X::lanes;
            const bool apart = keeps && n() * across * size <= tile_bytes;
            const Scratch<C> exponentials(apart ? n() * across : 0);
            const Place out{y, out_step}, kept = apart ? Place{exponentials, across} : out;
            return solve(x, step, kept, out, x != y || apart, outer, first, count);
        }
        const Scratch<C> room(n() * width);
        C *tile = room;
        const C *x =
            gather_columns(a->x, true, outer, first, count, width, tile, a->where, a->negative());
        solve(x, width, {tile, width}, {tile, width}, false, outer, first, count);
        if (keeps)
            scatter_columns(a->out, outer, first, count, width, tile, a->where,
                            NormalizeArguments::absent<R, C>());
    }

  private:
    // body(vector, offset, lanes) for the vectors of a tile `count` columns wide.
    template <class Body>
    static FS_ALWAYS_INLINE void vectors(Index count, Body body) {
        Index v = 0;
        for (; (v + 1) * X::lanes <= count; ++v) body(v, v * X::lanes, FullVector<X>());
        if (v * X::lanes < count) body(v, v * X::lanes, PartialVector<X>{count - v * X::lanes});
    }

    // Sums term(row, vector, offset, lanes) down every column: in blocks, or each term added to the
    // wider sums by itself. keep(row, offset, lanes, term) is called with each.
    template <bool ByItself, class Term, class Keep>
    FS_ALWAYS_INLINE void sum_columns(Index count, Column *column, Term term, Keep keep) const {
        for (Index i = 0; i < n(); i += 4 * accumulator_vectors) {
            const Index end = n() - i < 4 * accumulator_vectors ? n() : i + 4 * accumulator_vectors;
            vectors(count, [&](Index v, Index at, auto lanes) FS_ALWAYS_INLINE {
                Accumulator<X> sums = column[v].sum;  // in registers, whatever else is stored
                if constexpr (ByItself) {
                    for (Index j = i; j < end; ++j) sums.add(term(j, v, at, lanes));
                } else {
                    sum_rows(
                        i, end, sums,
                        [&](Index k) FS_ALWAYS_INLINE { return term(k, v, at, lanes); },
                        [&](Index k, V e) FS_ALWAYS_INLINE { keep(k, at, lanes, e); });
                }
                column[v].sum = sums;
            });
        }
    }

    // Exponentials are summed, and kept if they are results; then the results are written. The
    // fixed shift, as for rows, needs no maximum first.
    void solve(const C *x, Index step, Place kept, Place out, bool may_try, Index outer,
               Index first, Index count) const {
        const Scratch<Column> column(tile_vectors);
        if (!may_try || !try_fixed_shift(column, x, step, kept, outer, first, count)) {
            for (Index v = 0; v < tile_vectors; ++v) column[v].sum = {};
            find_shifts(column, x, step, outer, first, count);
            sum_exponentials(column, x, step, kept, count);
        }
        if constexpr (logarithmic)
            settle_logarithms(column, x, step, out, outer, first, count);
        else
            write(column, kept, out, outer, first, count);
    }

    // How many rows ahead columns are fetched from memory, which are too far apart for the
    // processor to do so by itself. (Measured, out of the cache: logsumexp 30 to 40 % less time,
    // softmax 10 %.)
    Index ahead(Index rows) const {
        return a->x.outer * n() * a->x.inner * Index(sizeof(C)) >= fetch_from ? rows : 0;
    }

    // False: the fixed shift was wrong. It is judged by the first logit of each column, and by the
    // sums.
    bool try_fixed_shift(Column *column, const C *x, Index step, Place kept, Index outer,
                         Index first, Index count) const {
        if (Scaled || !fixed_shifts_plausible<X>(x, count)) return false;
        const C least = -std::numeric_limits<C>::infinity();
        const Scale<X> one = Scale<X>::one();
        const FixedShiftExp<X, false> exp(one);
        const Index far = ahead(4 * accumulator_vectors);
        for (Index v = 0; v < tile_vectors; ++v)
            column[v].max = X::set(least), column[v].scale = one,
            column[v].shift = Shift<X>::fixed(one);
        sum_columns<logarithmic>(
            count, column,
            [&](Index i, [[maybe_unused]] Index v, Index at, auto lanes) FS_ALWAYS_INLINE {
                __builtin_prefetch(x + (i + far) * step + at);
                const V logit = lanes.load(x + i * step + at, least);
                if constexpr (logarithmic) column[v].max = larger(logit, column[v].max);
                return exp(logit);
            },
            keep_in(kept));
        for (Index v = 0; logarithmic && v * X::lanes < count; ++v)
            column[v].at_max = exp(column[v].max);
        bool right = true;
        for (Index l = 0; l < count; ++l) right &= fixed_shift_was_right<C>(total(column, l));
        for (Index l = 0; R == Result::logsumexp_vjp && l < count; ++l) {
            const double g = numerator<R>(a->gradient, outer, first + l);
            right &= numerator_fits<C>(g, total(column, l));
        }
        return right;
    }

    static double total(const Column *column, Index l) {
        return column[l / X::lanes].sum.lane(l % X::lanes).value();
    }

    void sum_exponentials(Column *column, const C *x, Index step, Place kept, Index count) const {
        const C least = -std::numeric_limits<C>::infinity();
        const auto shifted = [&](Index i, Index v, Index at, auto lanes) FS_ALWAYS_INLINE {
            return exp_max_shift<X, Scaled>(lanes.load(x + i * step + at, least), column[v].shift,
                                            column[v].scale);
        };
        sum_columns<logarithmic>(count, column, shifted, keep_in(kept));
        if constexpr (logarithmic) {
            for (Index v = 0; v * X::lanes < count; ++v)
                column[v].at_max =
                    exp_max_shift<X, Scaled>(column[v].max, column[v].shift, column[v].scale);
        }
    }
    static FS_ALWAYS_INLINE auto keep_in(Place kept) {
        return [kept](Index i, Index at, auto lanes, V e) FS_ALWAYS_INLINE {
            lanes.store(kept.p + i * kept.step + at, e);
        };
    }

    void write(Column *column, Place kept, Place out, Index outer, Index first, Index count) const {
        using Normal = ScaleEpilogue<X, R == Result::softmax>;
        Normal normalizer[tile_vectors];
        bool one_term = true;
        vectors(count, [&](Index v, Index at, auto) {
            double numerators[X::lanes];
            const bool given =
                numerators_of<R>(a->gradient, outer, first + at,
                                 count - at < X::lanes ? count - at : X::lanes, numerators);
            normalizer[v] = Normal::each(given ? numerators : nullptr, column[v].sum);
            one_term &= normalizer[v].has_one_term();
        });
        const Index far = ahead(accumulator_vectors);
        const auto scale_all = [&](auto shorter) FS_ALWAYS_INLINE {
            for (Index i = 0; i < n(); ++i) {
                vectors(count, [&](Index v, Index at, auto lanes) {
                    __builtin_prefetch(out.p + (i + far) * out.step + at, 1);
                    lanes.store(out.p + i * out.step + at,
                                normalizer[v].template apply<decltype(shorter)::value>(
                                    lanes.load(kept.p + i * kept.step + at, 0)));
                });
            }
        };
        if (Normal::seldom_two && one_term)
            scale_all(std::true_type());
        else
            scale_all(std::false_type());
    }

    void find_shifts(Column *column, const C *x, Index step, Index outer, Index first,
                     Index count) const {
        const C least = -std::numeric_limits<C>::infinity();
        vectors(count, [&](Index v, Index, auto) {
            column[v].max = X::set(least);
            column[v].scale = Scale<X>::one();
            for (Index l = 0; Scaled && l < X::lanes; ++l) {
                const Index lane = v * X::lanes + l < count ? v * X::lanes + l : count - 1;
                column[v].scale.set_lane(l, a->scale(outer, first + lane));
            }
        });
        for (Index i = 0; i < n(); ++i) {
            vectors(count, [&](Index v, Index at, auto lanes) {
                column[v].max = larger(lanes.load(x + i * step + at, least), column[v].max);
            });
        }
        vectors(count, [&](Index v, [[maybe_unused]] Index at, auto) {
            column[v].shift = Shift<X>::from(column[v].max, column[v].scale);
            if constexpr (R == Result::logsumexp_vjp) {
                const V factor =
                    numerators_in_lanes<R, X>(a->gradient, outer, first + at, count - at).hi;
                column[v].shift = column[v].shift.lifted(lifts_of<X>(factor), column[v].scale);
            }
            column[v].zero = Shift<X>::fixed(0, column[v].scale);
        });
    }

    // The logarithms of the totals, in vectors of double.
    void settle_logarithms(Column *column, const C *x, Index step, Place out, Index outer,
                           Index first, Index count) const {
        const Scratch<DoubleDouble<>> logs(width);
        const Scratch<LogTotals<C, Scaled, width>> in(1);
        LogTotals<C, Scaled, width> &totals = *in;
        bool wanted[width], any = false;
        for (Index v = 0; v * X::lanes < count; ++v) {
            const Column &c = column[v];
            for (Index k = 0, l = v * X::lanes; k < X::lanes && l < count; ++k, ++l) {
                const ExpTotal<C> t{c.sum.lane(k), c.max[k], c.at_max[k], c.shift.center[k],
                                    c.shift.exponent(k)};
                totals.set(l, t, Scaled ? a->scale(outer, first + l) : DoubleDouble<>{1, 0});
                wanted[l] = t.tail_underflows();
                any |= wanted[l];
            }
        }
        totals.solve(count, logs);
        if (any) sum_rests(column, wanted, logs, x, step, count);
        for (Index l = 0; l < count; ++l)
            finish(column[l / X::lanes], l % X::lanes, logs[l], outer, first + l, x + l, step);
        if (R != Result::log_softmax) return;
        const C least = -std::numeric_limits<C>::infinity();
        const Index far = ahead(accumulator_vectors);
        for (Index i = 0; i < n(); ++i) {
            vectors(count, [&](Index v, Index at, auto lanes) {
                __builtin_prefetch(x + (i + far) * step + at);
                __builtin_prefetch(out.p + (i + far) * out.step + at, 1);
                lanes.store(out.p + i * out.step + at,
                            column[v].logarithm.apply(lanes.load(x + i * step + at, least)));
            });
        }
    }

    void sum_rests(Column *column, const bool *wanted, DoubleDouble<> *logs, const C *x, Index step,
                   Index count) const {
        const C least = -std::numeric_limits<C>::infinity();
        Accumulator<X> rest[tile_vectors], copies[tile_vectors];
        vectors(count, [&](Index v, Index, auto) {
            column[v].zero = Shift<X>::fixed(rest_exponent<C>, column[v].scale);
        });
        for (Index i = 0; i < n(); ++i) {
            vectors(count, [&](Index v, Index at, auto lanes) {
                const Column &c = column[v];
                const V t = lanes.load(x + i * step + at, least);
                rest[v].add(t == c.max ? V{}
                                       : exp_of_difference<X, Scaled>(t, c.max, c.zero, c.scale));
                copies[v].add(t == c.max ? X::set(1) : V{});
            });
        }
        for (Index l = 0; l < count; ++l) {
            if (!wanted[l]) continue;
            logs[l] = log_of_rest<C>(rest[l / X::lanes].lane(l % X::lanes),
                                     copies[l / X::lanes].lane(l % X::lanes));
        }
    }

    void finish(Column &c, Index k, DoubleDouble<> log, Index outer, Index inner, const C *x,
                Index step) const {
        using E = Vec<double, 16>;
        const DoubleDouble<typename E::V> pair{E::set(log.hi), E::set(log.lo)};
        if constexpr (R == Result::logsumexp) {
            a->out.store(outer, 0, inner,
                         log_sum(*a, outer, inner, static_cast<double>(c.max[k]), pair, [&] {
                             bool nan = false;
                             for (Index i = 0; i < n(); ++i) nan |= x[i * step] != x[i * step];
                             return nan;
                         }));
        } else {
            const auto l = a->ln_base.is_one() ? pair : LogTotal<E>::divide(pair, a->ln_base);
            c.logarithm.set_lane(
                k, c.max[k], l.hi[0], l.lo[0],
                Scaled ? a->inverse_temperature(outer, inner) : DoubleDouble<>{1, 0});
        }
    }
};

}  // namespace fs
}  // namespace
