// The divergence of two softmaxes, KL(softmax(b / T) || softmax(a / T)), and its gradient with respect to a.
#pragma once

#include <cmath>

#include "normalize.h"

namespace {
namespace fs {

struct LogitsDivergenceArguments {
    AnyView x, target;       // a and b
    AnyView loss, gradient;  // without data: not wanted
    View<const double> temperature = View<const double>::one();
    double scale = 1;

    void set_temperature(const double *p, const isize *shape, const isize *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }
};

constexpr double inverse_factorial(int k) { return k < 2 ? 1 : inverse_factorial(k - 1) / k; }

// exp(d) - 1 - d for |d| < 0.35, where it cancels: its series. Sixteen terms leave 2^-60 of the sum.
template <class V> FS_INLINE V beyond_line(V d) {
    V p{};
#pragma GCC unroll 16
    for (int k = 16; k >= 2; --k) p = multiply_add(p, d, V{} + inverse_factorial(k));
    return p * d * d;
}

// With d = (a - b - level) / T, all in double, where the level is that of the mean, sum(p_b d) = 0,
//
//     KL = log(sum p_b exp(d)) = log1p(sum p_b (exp(d) - 1 - d)),
//
// whose terms are not negative: nothing cancels, and equal logits give 0. Where d is large its rounding would show in the exponential: there
// exp(b / T) exp(d) is exp(a / T) times a constant c. Classes whose p_b is 0, with a share u of p_a, are not in that sum s; they make it
// (s + u) / (1 - u). Where it overflows, log total_a - log total_b + log c is as good. The derivative is p_a - p_b = p_b (exp(d) - 1 - s) / (1 + s)
// where d and s are small, and the difference elsewhere. Exponentials are relative to the largest logits, and so is the first level.
struct LogitsDivergenceRow {
    using X = Vec<double>;
    using V = X::V;
    enum Stage { maximum, total, value, derivative };
    struct Partial {
        double max_a, max_b;
        Sum matched, unmatched, total_b, mean, growth;  // e_a where p_b > 0, and elsewhere; ...
    };

    const LogitsDivergenceArguments *x;
    PieceResults<Sum> *sums;
    isize outer = 0, inner = 0;
    Stage stage = maximum;
    Factor inverse{1, 0};  // 1 / T
    double max_a = 0, max_b = 0, mean = 0, growth = 0;  // the mean of d at the first level
    Pair<double> level{0, 0};
    Sum matched, unmatched, total_b;
    ChunkResults<Partial> partial;

    isize n() const { return x->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i;
        inverse = Factor{1, 0}.over(*x->temperature.at(o, i));
        partial.resize(static_cast<std::size_t>(chunks()));
        stage = maximum;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        const Reader<double> of_a(x->x, outer, inner), of_b = Reader<double>::broadcast(x->target, outer, inner);
        const Scale<X> scale = Scale<X>::all(inverse);
        const Shift<X> zero = Shift<X>::fixed(0, scale);
        const auto exp = [&](V v, V top) FS_INLINE_LAMBDA { return exp_below<X, true>(v, top, zero, scale); };
        const double near = growth < 0.35 ? 0.35 : 0;
        const V top_a = X::set(max_a), top_b = X::set(max_b), heat = X::set(inverse.hi), c = X::set(std::exp(-mean));
        const auto above_level = [&](V a, V b) FS_INLINE_LAMBDA {
            const Pair<V> d = two_sum(a, -b);
            const V lo = d.lo - level.lo;
            return ((d.hi - level.hi) + (lo == lo ? lo : V{})) * heat;
        };
        LaneSums<X> matched_a, unmatched_a, totals_b, means, growths;
        const double sum_a = total_a().value();
        Partial &p = partial[static_cast<std::size_t>(k)];
        p.max_a = p.max_b = absent_logit<double>;
        Scratch<double> a_buffer(gather_block), b_buffer(gather_block), results(gather_block);
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const double *as = of_a.get(at, size, a_buffer), *bs = of_b.get(at, size, b_buffer);
            if (stage == maximum) {
                p.max_a = larger(p.max_a, span_max<X>(as, size));
                p.max_b = larger(p.max_b, span_max<X>(bs, size));
                continue;
            }
            each_vector<X>(size, [&](isize j, auto lanes) {
                const V a = lanes.load(as + j, absent_logit<double>), b = lanes.load(bs + j, absent_logit<double>);
                const V e_b = exp(b, top_b), d = above_level(a, b);
                const auto none = e_b == V{};
                if (stage == total) {
                    const V e_a = exp(a, top_a);
                    matched_a.add(none ? V{} : e_a);
                    unmatched_a.add(none ? e_a : V{});
                    totals_b.add(e_b);
                    means.add(none ? V{} : e_b * d);
                } else if (stage == value) {
                    const V close = e_b * beyond_line(d), far = exp(a, top_a) * c - e_b * (1 + d);
                    growths.add(none ? V{} : absolute<X>(d) < 0.35 ? close : far);
                } else {
                    const V p_b = e_b / X::set(total_b.value());
                    const V p_a = exp(a, top_a) / X::set(sum_a);
                    const V close = p_b * ((d + beyond_line(d) - growth) / (1 + growth));
                    lanes.store(results + j, (absolute<X>(d) < near && !none ? close : p_a - p_b) * (x->scale * inverse.hi));
                }
            });
            if (stage == derivative) Writer<double>(x->gradient, outer, inner).copy(at, size, results);
        }
        p.matched = matched_a.total(), p.unmatched = unmatched_a.total(), p.total_b = totals_b.total(), p.mean = means.total(), p.growth = growths.total();
    }

    bool next() {
        if (stage == derivative) return false;
        Partial all{absent_logit<double>, absent_logit<double>, {}, {}, {}, {}, {}};
        for (const Partial &p : partial) {
            all.max_a = larger(p.max_a, all.max_a), all.max_b = larger(p.max_b, all.max_b);
            all.matched.add(p.matched), all.unmatched.add(p.unmatched), all.total_b.add(p.total_b), all.mean.add(p.mean), all.growth.add(p.growth);
        }
        if (stage == maximum) {
            max_a = all.max_a, max_b = all.max_b;
            level = two_sum(max_a, -max_b);
            return stage = total, true;
        }
        if (stage == total) {
            matched = all.matched, unmatched = all.unmatched, total_b = all.total_b;
            raise_level(all.mean.value() / total_b.value());
            return stage = value, true;
        }
        growth = (all.growth.value() / total_b.value() + unmatched.value() / total_a().value()) / (matched.value() / total_a().value());
        const double loss = divergence();
        if (x->loss) x->loss.store(outer, 0, inner, loss);
        (*sums)[static_cast<std::size_t>((outer * x->x.inner + inner) / rows_per_piece(n()))].add({loss, 0});
        stage = derivative;
        return static_cast<bool>(x->gradient);
    }

  private:
    Sum total_a() const {
        Sum s = matched;
        s.add(unmatched);
        return s;
    }
    void raise_level(double by) {
        const Pair<double> raised = two_sum(level.hi, by / inverse.hi);
        mean = by - by == 0 ? (raised.hi - level.hi + raised.lo) * inverse.hi : by;
        level = {raised.hi, raised.lo + level.lo};
    }
    double divergence() const {
        const double infinity = std::numeric_limits<double>::infinity(), sum_a = total_a().value(), sum = sum_a + total_b.hi;
        if (!(sum - sum == 0 && sum_a > 0 && total_b.hi > 0)) return std::numeric_limits<double>::quiet_NaN();
        if (mean == -infinity) return infinity;  // a class that b has and a has not
        if (growth < infinity) return std::log1p(growth);
        return std::log(sum_a) - std::log(total_b.value()) - mean;
    }
};

inline double logits_divergence(const LogitsDivergenceArguments &a, isize threads, Execute execute) {
    const isize rows = a.x.outer * a.x.inner;
    PieceResults<Sum> sums(static_cast<std::size_t>((rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n)));
    RowsWork<LogitsDivergenceRow> work({&a, &sums}, a.x.outer, a.x.inner, a.x.n, threads);
    execute(&work, threads);
    Sum all;
    for (const Sum &s : sums) all.add(s);
    return all.value();
}

}  // namespace fs
}  // namespace
