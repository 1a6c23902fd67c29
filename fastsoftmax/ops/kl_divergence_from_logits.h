// The divergence of two softmaxes, KL(softmax(b / T) || softmax(a / T)), and its gradient with
// respect to a.
#pragma once

#include "kernels/drivers/long_rows.h"
#include "ops/kl_divergence_sums.h"

namespace {
namespace fs {

// Row by row.
template <class C, bool Scaled>
struct LogitsDivergenceRow {
    using State = LogitsDivergence<C, Scaled>;
    using X = typename State::X;
    using V = typename X::V;
    enum Stage { maximum, total, value, derivative };
    struct Partial {
        C max_a = masked_logit<C>, max_b = masked_logit<C>;
        DoubleDouble<> matched{}, unmatched{}, total_b{}, mean{}, growth{};
        double size = 0;
        void add(const Partial &p) {
            max_a = larger(p.max_a, max_a), max_b = larger(p.max_b, max_b);
            matched.add(p.matched), unmatched.add(p.unmatched), total_b.add(p.total_b),
                mean.add(p.mean), growth.add(p.growth);
            size += p.size;
        }
    };

    const LogitsDivergenceArguments *a;
    PieceResults<DoubleDouble<>> *sums;
    Index outer = 0, inner = 0;
    Stage stage = maximum;
    State state{};

    Index n() const { return a->x.n; }

    void start(Index o, Index i) {
        outer = o, inner = i;
        state.scale = Scale<X>::all(DoubleDouble<>{1, 0}.over(*a->temperature.at(o, i)));
        stage = maximum;
    }

    void sweep(Index start, Index end, Partial &p) {
        const InputLine<C> of_a(a->x, outer, inner),
            of_b = InputLine<C>::broadcast(a->target, outer, inner);
        typename State::Sums totals;
        Accumulator<X> growths;
        p.max_a = p.max_b = masked_logit<C>;
        Scratch<C> a_buffer(gather_block), b_buffer(gather_block);
        Scratch<double> results(gather_block);
        for_each_block(start, end, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const Index whole = size / X::lanes, left = size % X::lanes;
            const C *as = of_a.load_block(at, size, a_buffer),
                    *bs = of_b.load_block(at, size, b_buffer), *last_a = as + size - left,
                    *last_b = bs + size - left;
            const auto pair = [&](Index j) FS_ALWAYS_INLINE {
                return DoubleDouble<V>{load_wide<X>(as + j * X::lanes),
                                       load_wide<X>(bs + j * X::lanes)};
            };
            const auto last = [&](Index) FS_ALWAYS_INLINE {
                return DoubleDouble<V>{load_wide_part<X>(last_a, left),
                                       load_wide_part<X>(last_b, left)};
            };
            if (stage == maximum) {
                p.max_a = larger(p.max_a, span_max<Vec<C>>(as, size));
                p.max_b = larger(p.max_b, span_max<Vec<C>>(bs, size));
            } else if (stage == total) {
                state.add_totals(totals, whole, pair);
                if (left) state.add_totals(totals, 1, last);
            } else if (stage == value) {
                state.add_growth(growths, whole, pair);
                if (left) state.add_growth(growths, 1, last);
            } else {
                state.derivatives(a->scale, whole, pair, [&](Index j, V y) FS_ALWAYS_INLINE {
                    X::store(results + j * X::lanes, y);
                });
                if (left)
                    state.derivatives(a->scale, 1, last, [&](Index, V y) FS_ALWAYS_INLINE {
                        X::store_part(results + size - left, y, left);
                    });
                OutputLine<double>(a->gradient, outer, inner).copy(at, size, results);
            }
        });
        p.matched = totals.matched.total(), p.unmatched = totals.unmatched.total(),
        p.total_b = totals.total_b.total(), p.mean = totals.mean.total();
        p.growth = growths.total(),
        p.size = fold<X>(totals.size, [](auto u, auto v) { return u + v; });
    }

    bool next(const ChunkResults<Partial> &partial) {
        if (stage == derivative) return false;
        const Partial all = merged(partial);
        const auto lanes = [](DoubleDouble<> s) {
            return DoubleDouble<V>{X::set(s.hi), X::set(s.lo)};
        };
        if (stage == maximum) {
            state.set_maxima(X::set(static_cast<double>(all.max_a)),
                             X::set(static_cast<double>(all.max_b)));
            return stage = total, true;
        }
        if (stage == total) {
            state.settle_totals(lanes(all.matched), lanes(all.unmatched), lanes(all.total_b),
                                lanes(all.mean), X::set(all.size));
            if (!state.settled[0]) return stage = value, true;
        } else {
            state.settle_growth(lanes(all.growth));
        }
        const double loss = state.loss[0];
        if (a->loss) a->loss.store(outer, 0, inner, loss);
        (*sums)[static_cast<std::size_t>((outer * a->x.inner + inner) / rows_per_piece(n()))].add(
            {loss, 0});
        stage = derivative;
        return static_cast<bool>(a->gradient);
    }
};

// With rows in lanes.
template <class C, bool Scaled>
struct LogitsDivergenceLanes {
    using X = Vec<C>;
    using D = Vec<double>;
    using Row = LogitsDivergence<C, Scaled>;
    using Block = LaneBlock<X, 2>;
    static constexpr Traits traits = in_lanes("kl_divergence_from_logits", short_log_row);
    static constexpr int inputs = 2, parts = wide_parts<X>;
    enum Stage { maximum, total, value, derivative };
    struct State {
        typename X::V max_a, max_b;
        Row part[parts];
        typename Row::Sums sums[parts];
        Accumulator<D> growth[parts];
        Stage stage;
    };
    LogitsDivergenceArguments a;
    LaneLosses losses;

    LogitsDivergenceLanes(const LogitsDivergenceArguments &arguments,
                          PieceResults<DoubleDouble<>> *sums)
        : a(arguments), losses{arguments.loss, sums} {}
    LogitsDivergenceLanes swapped() const { return {a.swapped(), losses.sums}; }
    const AnyView &input(int k) const { return k ? a.target : a.x; }
    const AnyView &output() const { return a.gradient; }
    bool writes(const State &s) const { return s.stage == derivative; }

    void begin(Index piece) { losses.begin(piece); }
    void end() { losses.end(); }
    void start(State &s, const LaneRows &rows) const {
        s.stage = maximum, s.max_a = s.max_b = X::set(masked_logit<C>);
        for (int p = 0; p < parts; ++p) {
            s.sums[p] = {}, s.growth[p] = {};
            if (!Scaled) s.part[p].scale = Scale<D>::one();
            for (Index l = 0; Scaled && l < D::lanes; ++l) {
                const Index lane = p * D::lanes + l;
                s.part[p].scale.set_lane(
                    l, DoubleDouble<>{1, 0}.over(*a.temperature.at(
                           rows.outer, rows.first + (lane < rows.count ? lane : 0))));
            }
        }
    }
    void sweep(State &s, const Block &b) const {
        if (s.stage == maximum) {
            auto max_a = s.max_a, max_b = s.max_b;
            for (Index j = 0; j < b.count; ++j)
                max_a = larger(b.x[0][j], max_a), max_b = larger(b.x[1][j], max_b);
            s.max_a = max_a, s.max_b = max_b;
        } else if (s.stage == derivative) {
            write(s, b);
        } else {
            for (int p = 0; p < parts; ++p) {
                const auto pair = [&](Index j) FS_ALWAYS_INLINE {
                    return pair_of(b, j, p);
                };
                if (s.stage == total) {
                    typename Row::Sums sums = s.sums[p];
                    s.part[p].add_totals(sums, b.count, pair);
                    s.sums[p] = sums;
                } else {
                    Accumulator<D> growth = s.growth[p];
                    s.part[p].add_growth(growth, b.count, pair);
                    s.growth[p] = growth;
                }
            }
        }
    }
    bool next(State &s, const LaneRows &rows, const Block &) {
        if (s.stage == derivative) return false;
        if (s.stage == maximum) {
            for (int p = 0; p < parts; ++p)
                s.part[p].set_maxima(wide_part<X>(s.max_a, p), wide_part<X>(s.max_b, p));
            return s.stage = total, true;
        }
        bool settled = true;
        for (int p = 0; p < parts; ++p) {
            Row &row = s.part[p];
            const auto &t = s.sums[p];
            if (s.stage == value)
                row.settle_growth(s.growth[p].part(0));
            else
                row.settle_totals(t.matched.part(0), t.unmatched.part(0), t.total_b.part(0),
                                  t.mean.part(0), t.size);
            for (Index l = 0; l < D::lanes && p * D::lanes + l < rows.count; ++l)
                settled &= s.stage == value || row.settled[l];
        }
        if (!settled) return s.stage = value, true;
        double loss[X::lanes];
        for (int p = 0; p < parts; ++p) D::store(loss + p * D::lanes, s.part[p].loss);
        losses.put(rows, loss);
        s.stage = derivative;
        return static_cast<bool>(a.gradient);
    }

  private:
    static FS_ALWAYS_INLINE DoubleDouble<D::V> pair_of(const Block &b, Index j, int part) {
        return {wide_part<X>(b.x[0][j], part), wide_part<X>(b.x[1][j], part)};
    }

    void write(const State &s, const Block &b) const {
        for (Index j = 0; j < b.count; ++j) {
            D::V y[parts];
            for (int p = 0; p < parts; ++p) {
                s.part[p].derivatives(
                    a.scale, 1, [&](Index) FS_ALWAYS_INLINE { return pair_of(b, j, p); },
                    [&](Index, D::V v) FS_ALWAYS_INLINE { y[p] = v; });
            }
            b.store(j, from_wide<X>(y));
        }
    }
};

template <class C, bool Scaled>
double logits_divergence_of(const LogitsDivergenceArguments &a, Index threads) {
    const std::size_t rows = static_cast<std::size_t>(
        (a.x.outer * a.x.inner + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n));
    PieceResults<DoubleDouble<>> sums(
        std::max(rows, lane_pieces<Vec<C>>(a.x, LogitsDivergenceLanes<C, Scaled>::traits)));
    if (a.target.n != a.x.n || !run_in_lanes(LogitsDivergenceLanes<C, Scaled>(a, &sums), threads)) {
        run_long_rows(LogitsDivergenceRow<C, Scaled>{&a, &sums}, a.x.outer, a.x.inner, threads);
    }
    return merged(sums).value();
}

inline double logits_divergence(const LogitsDivergenceArguments &a, Index threads) {
    return with_compute({a.x.number, a.target.number}, [&](auto zero) {
        using C = decltype(zero);
        return !a.plain() ? logits_divergence_of<C, true>(a, threads)
                          : logits_divergence_of<C, false>(a, threads);
    });
}

}  // namespace fs
}  // namespace
