// The divergence of two softmaxes, KL(softmax(b / T) || softmax(a / T)), and its gradient with
// respect to a.
#pragma once

#include <cmath>

#include "lane_rows.h"

namespace {
namespace fs {

struct LogitsDivergenceArguments : Rows {  // a, and the temperature of both
    AnyView target;                        // b
    AnyView loss, gradient;                // without data: not wanted
    double scale = 1;

    LogitsDivergenceArguments swapped() const {
        LogitsDivergenceArguments a = *this;
        static_cast<Rows &>(a) = Rows::swapped();
        a.target = target.swapped();
        a.loss = loss.swapped();
        a.gradient = gradient.swapped();
        return a;
    }
};

constexpr double inverse_factorial(int k) {
    return k < 2 ? 1 : inverse_factorial(k - 1) / k;
}

// exp(d) - 1 - d for |d| < 0.35, where it cancels: its series. Sixteen terms leave 2^-60 of the
// sum.
template <class V>
FS_INLINE V beyond_line(V d) {
    V p{};
#pragma GCC unroll 16
    for (int k = 16; k >= 2; --k) p = multiply_add(p, d, V{} + inverse_factorial(k));
    return p * d * d;
}

// Contiguous numbers as vectors of double.
template <class X>
FS_INLINE typename X::V load_wide(const double *p) {
    return X::load(p);
}
template <class X>
FS_INLINE typename X::V load_wide(const float *p) {
#if defined(__AVX512F__)
    return (typename X::V)_mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(__AVX__)
    return (typename X::V)_mm256_cvtps_pd(_mm_loadu_ps(p));
#else
    typename VectorOf<float, sizeof(typename X::V) / 2>::type v;
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, typename X::V);
#endif
}
template <class X, class C>
FS_INLINE typename X::V load_wide_part(const C *p, isize count) {
    typename X::V v = X::set(absent_logit<double>);
    for (isize l = 0; l < count; ++l) v[l] = static_cast<double>(p[l]);
    return v;
}

// The divergence of a row, whose numbers all lanes hold, or of the rows in the lanes of a vector;
// all in double, from logits of type C.
//
// With d = (a - b - level) / T and exponentials e relative to the largest logits, which are the
// first level, too,
//
//     KL = log(sum e_a / sum e_b) - mean,   mean = sum p_b d
//
// has absolute errors of a few units of 2^-53 (1 + sum p_b |d|). That is enough wherever KL is not
// far below that: a constant part of it for float64, and 2^-18 of it for float32, whose results
// need half of the digits. Elsewhere, with the level raised by the mean, so that sum p_b d = 0,
//
//     KL = log(sum p_b exp(d)) = log1p(sum p_b (exp(d) - 1 - d)),
//
// whose terms are not negative: nothing cancels, and equal logits give 0. Where d is large its
// rounding would show in the exponential: there exp(b / T) exp(d) is exp(a / T) times a constant c.
// Classes whose p_b is 0, with a share u of p_a, are not in that sum s; they make it (s + u) / (1 -
// u). Where it overflows, log total_a - log total_b + log c is as good. The derivative is p_a - p_b
// = p_b (exp(d) - 1 - s) / (1 + s) where d and s are small, and the difference elsewhere.
template <class C, bool Scaled>
struct LogitsDivergence {
    using X = Vec<double>;
    using V = X::V;
    using I = X::I;
    // differences of logits are those of double, and need no second term
    static constexpr bool narrow = sizeof(C) == 4;

    Scale<X> scale;
    Shift<X> zero;
    V max_a, max_b;
    Pair<V> level;
    V mean, constant;                        // of d at the first level, and exp(-mean)
    V matched, unmatched, total_a, total_b;  // e_a where p_b > 0, and elsewhere; ...
    V loss, growth;                          // exp(KL) - 1, if it was asked for
    I settled;                               // where it was not

    struct Sums {
        LaneSums<X> matched, unmatched, total_b, mean;
        V size{};  // sum e_b |d|
    };
    struct Logit {  // relative to the largest one
        V hi, lo, e;
    };
    struct Terms {
        V a, b, mean;
        FS_INLINE Terms operator+(const Terms &t) const {
            return {a + t.a, b + t.b, mean + t.mean};
        }
    };

    void set_maxima(V a, V b) {
        max_a = a, max_b = b, level = two_sum(a, -b);
        zero = Shift<X>::fixed(0, narrow ? Scale<X>::one() : scale);
    }

    // The sums of the first level. pair(k) are the k-th logits of a and b.
    template <class Pairs>
    FS_INLINE void add_totals(Sums &s, isize count, Pairs pair) const {
        const auto put = [&](const Terms &t) FS_INLINE_LAMBDA {
            s.matched.add(t.a), s.total_b.add(t.b), s.mean.add(t.mean);
        };
        const auto term = [&](isize k) FS_INLINE_LAMBDA {
            return terms(s, pair(k));
        };
        isize k = 0;
        for (; k + 4 <= count; k += 4) {
            const Terms first = term(k) + term(k + 1);
            put(first + (term(k + 2) + term(k + 3)));
        }
        for (; k < count; ++k) put(term(k));
    }
    void settle_totals(Pair<V> of_matched, Pair<V> of_unmatched, Pair<V> b, Pair<V> of_mean,
                       V size) {
        Pair<V> a = two_sum(of_matched.hi, of_unmatched.hi);
        a = two_sum(a.hi, a.lo + (of_matched.lo + of_unmatched.lo)), b = two_sum(b.hi, b.lo);
        matched = value(of_matched), unmatched = value(of_unmatched), total_a = value(a),
        total_b = value(b);
        mean = value(of_mean) / total_b;
        const Pair<V> log = log_ratio<X>(a, b, total_a / total_b, V{});
        loss = (log.hi - mean) + log.lo;
        const V least = (narrow ? 0x1p-18 : 0.5) * (1 + size / total_b);
        settled = (loss >= least) & (loss <= std::numeric_limits<double>::max());
        growth = X::set(std::numeric_limits<double>::infinity());
        raise_level();
    }

    // The sum of the raised level.
    template <class Pairs>
    FS_INLINE void add_growth(LaneSums<X> &growths, isize count, Pairs pair) const {
        for (isize k = 0; k < count; ++k) {
            const Pair<V> x = pair(k);
            const V d = above_level(x.hi, x.lo), e_b = below(x.lo, max_b).e;
            const auto close = absolute<X>(d) < 0.35;
            V y = e_b * beyond_line(d);
            if (any_lane<X>(~close))
                y = close ? y : below(x.hi, max_a).e * constant - e_b * (1 + d);
            growths.add(e_b == V{} ? V{} : y);
        }
    }
    void settle_growth(Pair<V> sum) {
        const V s = (value(sum) / total_b + unmatched / total_a) / (matched / total_a);
        growth = settled ? growth : s;
        const auto usual =
            (s >= 0) & (s < std::numeric_limits<double>::infinity()) & (mean - mean == V{});
        const V near = sum_of(log1p_nonnegative<X>(s, V{}));
        loss = usual & ~settled ? near : loss;
        if (!any_lane<X>(~(usual | settled))) return;
        for (isize l = 0; l < X::lanes; ++l)
            loss[l] = usual[l] | settled[l] ? loss[l] : divergence(l);
    }

    // The derivative times a factor.
    template <class Pairs, class Store>
    FS_INLINE void derivatives(double factor, isize count, Pairs pair, Store store) const {
        const V near = growth < 0.35 ? X::set(0.35) : V{}, f = factor * scale.hi,
                of_a = f / total_a, of_b = f / total_b;
        const bool any_near = any_lane<X>(growth < 0.35);
        for (isize k = 0; k < count; ++k) {
            const Pair<V> x = pair(k);
            const V e_b = below(x.lo, max_b).e;
            V y = below(x.hi, max_a).e * of_a - e_b * of_b;
            if (any_near) {
                const V d = above_level(x.hi, x.lo),
                        close = e_b * of_b * ((d + beyond_line(d) - growth) / (1 + growth));
                y = (absolute<X>(d) < near) & ~(e_b == V{}) ? close : y;
            }
            store(k, y);
        }
    }

  private:
    static FS_INLINE V value(Pair<V> s) { return s.hi - s.hi == V{} ? s.hi + s.lo : s.hi; }

    FS_INLINE Logit below(V v, V max) const {
        if constexpr (narrow) {
            const V z = Scaled ? (v - max) * scale.hi : v - max;
            return {z, V{},
                    exp_reduced<X, false, false>(larger(zero.lowest, z), zero, Scale<X>::one())};
        } else {
            const Pair<V> z = two_sum(v, -max);
            const V lo = absolute<X>(z.hi) <= -zero.lowest ? z.lo : V{};
            return {
                z.hi, lo,
                exp_reduced<X, Scaled, true, false>(larger(zero.lowest, z.hi), zero, scale, lo)};
        }
    }
    FS_INLINE Terms terms(Sums &s, Pair<V> x) const {
        const Logit a = below(x.hi, max_a), b = below(x.lo, max_b);
        V d = narrow ? a.hi - b.hi : (a.hi - b.hi) + (a.lo - b.lo);
        if (Scaled && !narrow) d = d * scale.hi;
        const auto none = b.e == V{};
        if (any_lane<X>(none)) s.unmatched.add(none ? a.e : V{});
        const V mean = none ? V{} : b.e * d;
        s.size = s.size + absolute<X>(mean);
        return {none ? V{} : a.e, b.e, mean};
    }
    // a - b - level, rounded once, over T.
    FS_INLINE V above_level(V a, V b) const {
        const Pair<V> d = two_sum(a, -b);
        const V lo = d.lo - level.lo;
        return ((d.hi - level.hi) + (lo == lo ? lo : V{})) * scale.hi;
    }
    void raise_level() {
        const Pair<V> raised = two_sum(level.hi, mean / scale.hi);
        mean = mean - mean == V{} ? (raised.hi - level.hi + raised.lo) * scale.hi : mean;
        level = {raised.hi, raised.lo + level.lo};
        constant = sum_of(exp_below_pair<X, false>(-mean, V{}, V{}, Scale<X>::one()));
        const auto extreme = ~(settled | (absolute<X>(mean) < 700));
        if (!any_lane<X>(extreme)) return;
        for (isize l = 0; l < X::lanes; ++l)
            constant[l] = extreme[l] ? std::exp(-mean[l]) : constant[l];
    }
    double divergence(isize l) const {
        const double infinity = std::numeric_limits<double>::infinity(),
                     sum = total_a[l] + total_b[l];
        if (!(sum - sum == 0 && total_a[l] > 0 && total_b[l] > 0))
            return std::numeric_limits<double>::quiet_NaN();
        if (mean[l] == -infinity) return infinity;  // a class that b has and a has not
        if (growth[l] < infinity) return std::log1p(growth[l]);
        return std::log(total_a[l]) - std::log(total_b[l]) - mean[l];
    }
};

// Row by row.
template <class C, bool Scaled>
struct LogitsDivergenceRow {
    using State = LogitsDivergence<C, Scaled>;
    using X = typename State::X;
    using V = typename X::V;
    enum Stage { maximum, total, value, derivative };
    struct Partial {
        C max_a, max_b;
        Sum matched, unmatched, total_b, mean, growth;
        double size;
    };

    const LogitsDivergenceArguments *a;
    PieceResults<Sum> *sums;
    isize outer = 0, inner = 0;
    Stage stage = maximum;
    State state{};
    ChunkResults<Partial> partial;

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i;
        state.scale = Scale<X>::all(Factor{1, 0}.over(*a->temperature.at(o, i)));
        partial.resize(static_cast<std::size_t>(chunks()));
        stage = maximum;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        const Reader<C> of_a(a->x, outer, inner),
            of_b = Reader<C>::broadcast(a->target, outer, inner);
        typename State::Sums totals;
        LaneSums<X> growths;
        Partial &p = partial[static_cast<std::size_t>(k)];
        p.max_a = p.max_b = absent_logit<C>;
        Scratch<C> a_buffer(gather_block), b_buffer(gather_block);
        Scratch<double> results(gather_block);
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block,
                        whole = size / X::lanes, left = size % X::lanes;
            const C *as = of_a.get(at, size, a_buffer), *bs = of_b.get(at, size, b_buffer),
                    *last_a = as + size - left, *last_b = bs + size - left;
            const auto pair = [&](isize j) FS_INLINE_LAMBDA {
                return Pair<V>{load_wide<X>(as + j * X::lanes), load_wide<X>(bs + j * X::lanes)};
            };
            const auto last = [&](isize) FS_INLINE_LAMBDA {
                return Pair<V>{load_wide_part<X>(last_a, left), load_wide_part<X>(last_b, left)};
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
                state.derivatives(a->scale, whole, pair, [&](isize j, V y) FS_INLINE_LAMBDA {
                    X::store(results + j * X::lanes, y);
                });
                if (left)
                    state.derivatives(a->scale, 1, last, [&](isize, V y) FS_INLINE_LAMBDA {
                        X::store_part(results + size - left, y, left);
                    });
                Writer<double>(a->gradient, outer, inner).copy(at, size, results);
            }
        }
        p.matched = totals.matched.total(), p.unmatched = totals.unmatched.total(),
        p.total_b = totals.total_b.total(), p.mean = totals.mean.total();
        p.growth = growths.total(),
        p.size = fold<X>(totals.size, [](auto u, auto v) { return u + v; });
    }

    bool next() {
        if (stage == derivative) return false;
        Partial all{absent_logit<C>, absent_logit<C>, {}, {}, {}, {}, {}, 0};
        for (const Partial &p : partial) {
            all.max_a = larger(p.max_a, all.max_a), all.max_b = larger(p.max_b, all.max_b);
            all.matched.add(p.matched), all.unmatched.add(p.unmatched), all.total_b.add(p.total_b),
                all.mean.add(p.mean), all.growth.add(p.growth);
            all.size += p.size;
        }
        const auto lanes = [](Sum s) {
            return Pair<V>{X::set(s.hi), X::set(s.lo)};
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
    static constexpr int inputs = 2, parts = wide_parts<X>;
    enum Stage { maximum, total, value, derivative };
    struct State {
        typename X::V max_a, max_b;
        Row part[parts];
        typename Row::Sums sums[parts];
        LaneSums<D> growth[parts];
        Stage stage;
    };
    LogitsDivergenceArguments a;
    LaneLosses losses;

    LogitsDivergenceLanes(const LogitsDivergenceArguments &arguments, PieceResults<Sum> *sums)
        : a(arguments), losses{arguments.loss, sums} {}
    LogitsDivergenceLanes swapped() const { return {a.swapped(), losses.sums}; }
    const AnyView &input(int k) const { return k ? a.target : a.x; }
    const AnyView &output() const { return a.gradient; }
    bool writes(const State &s) const { return s.stage == derivative; }

    void begin(isize piece) { losses.begin(piece); }
    void end() { losses.end(); }
    void start(State &s, const LaneRows &rows) const {
        s.stage = maximum, s.max_a = s.max_b = X::set(absent_logit<C>);
        for (int p = 0; p < parts; ++p) {
            s.sums[p] = {}, s.growth[p] = {};
            if (!Scaled) s.part[p].scale = Scale<D>::one();
            for (isize l = 0; Scaled && l < D::lanes; ++l) {
                const isize lane = p * D::lanes + l;
                s.part[p].scale.set_lane(
                    l, Factor{1, 0}.over(*a.temperature.at(
                           rows.outer, rows.first + (lane < rows.count ? lane : 0))));
            }
        }
    }
    void sweep(State &s, const Block &b) const {
        if (s.stage == maximum) {
            auto max_a = s.max_a, max_b = s.max_b;
            for (isize j = 0; j < b.count; ++j)
                max_a = larger(b.x[0][j], max_a), max_b = larger(b.x[1][j], max_b);
            s.max_a = max_a, s.max_b = max_b;
        } else if (s.stage == derivative) {
            write(s, b);
        } else {
            for (int p = 0; p < parts; ++p) {
                const auto pair = [&](isize j) FS_INLINE_LAMBDA {
                    return pair_of(b, j, p);
                };
                if (s.stage == total) {
                    typename Row::Sums sums = s.sums[p];
                    s.part[p].add_totals(sums, b.count, pair);
                    s.sums[p] = sums;
                } else {
                    LaneSums<D> growth = s.growth[p];
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
            for (isize l = 0; l < D::lanes && p * D::lanes + l < rows.count; ++l)
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
    static FS_INLINE Pair<D::V> pair_of(const Block &b, isize j, int part) {
        return {wide_part<X>(b.x[0][j], part), wide_part<X>(b.x[1][j], part)};
    }

    void write(const State &s, const Block &b) const {
        for (isize j = 0; j < b.count; ++j) {
            D::V y[parts];
            for (int p = 0; p < parts; ++p) {
                s.part[p].derivatives(
                    a.scale, 1, [&](isize) FS_INLINE_LAMBDA { return pair_of(b, j, p); },
                    [&](isize, D::V v) FS_INLINE_LAMBDA { y[p] = v; });
            }
            b.store(j, from_wide<X>(y));
        }
    }
};

template <class C, bool Scaled>
double logits_divergence_of(const LogitsDivergenceArguments &a, isize threads) {
    const std::size_t rows = static_cast<std::size_t>(
        (a.x.outer * a.x.inner + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n));
    PieceResults<Sum> sums(std::max(rows, lane_pieces<Vec<C>>(a.x)));
    if (a.target.n != a.x.n || !run_in_lanes(LogitsDivergenceLanes<C, Scaled>(a, &sums), threads)) {
        RowsWork<LogitsDivergenceRow<C, Scaled>> work({&a, &sums}, a.x.outer, a.x.inner, a.x.n,
                                                      threads);
        execute(work, threads);
    }
    return total_of(sums);
}

inline double logits_divergence(const LogitsDivergenceArguments &a, isize threads) {
    return with_compute({a.x.number, a.target.number}, [&](auto zero) {
        using C = decltype(zero);
        return !a.plain() ? logits_divergence_of<C, true>(a, threads)
                          : logits_divergence_of<C, false>(a, threads);
    });
}

}  // namespace fs
}  // namespace
