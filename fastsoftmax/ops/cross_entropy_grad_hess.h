// What boosting wants of cross-entropy: its gradient and curvature.
#pragma once

#include "kernels/drivers/long_rows.h"
#include "kernels/drivers/regime.h"
#include "kernels/math/exp_sums.h"

namespace {
namespace fs {

// p - t and the diagonal of the second derivative, factor * p (1 - p) but at least a floor, for
// short rows: in double, where 1 - p is (total - e) / total and loses nothing.
struct GradHessArguments {
    AnyView x, target, sample_weight, gradient, hessian;
    double factor = 1, floor = 0;

    bool labels() const { return is_integer(target.number); }
    GradHessArguments swapped() const {
        GradHessArguments a = *this;
        a.x = x.swapped(), a.target = target.swapped(), a.sample_weight = sample_weight.swapped();
        a.gradient = gradient.swapped(), a.hessian = hessian.swapped();
        return a;
    }
};

// The same from exponentials e, of which `sum` is the total; of one row, or of rows in lanes.
struct GradHess {
    using X = Vec<double>;
    using V = X::V;
    DoubleDouble<V> sum;
    V weight, inverse, w, least, factor;  // w, p: times the weight

    GradHess(const GradHessArguments &a, DoubleDouble<V> total, V weight_)
        : sum(total), weight(weight_) {
        const V s = sum.hi - sum.hi == V{} ? sum.hi + sum.lo
                                           : X::set(std::numeric_limits<double>::quiet_NaN());
        inverse = 1 / s, w = weight / s, least = weight * a.floor, factor = X::set(a.factor);
    }
    FS_ALWAYS_INLINE V gradient(V e, V y) const {
        return counted((1.0 - y) * (e * w) - y * (others(e) * w));
    }
    FS_ALWAYS_INLINE V hessian(V e) const {
        const V curvature = factor * ((e * w) * (others(e) * inverse));
        return counted(weight < 0 ? smaller(least, curvature) : larger(least, curvature));
    }
    // Relative to the maximum and so many octaves larger, and by as much again as the weight is
    // above 1, terms of a sum underflow only where its digits end.
    static double lift(double weight) {
        const double m = std::abs(weight);
        return m > 1 ? 60 + smaller(840.0, double(std::ilogb(m))) : m > 0x1p-900 ? 60 : 0;
    }
    static Shift<X> shift(V max, V lifts) {
        const Scale<X> one = Scale<X>::one();
        Shift<X> s = Shift<X>::from(max, one);
        s.magic = s.magic + lifts, s.lowest = s.lowest - lifts * one.unit;
        return s;
    }
    static FS_ALWAYS_INLINE V exp(V x, const Shift<X> &shift) {
        return exp_max_shift<X, false>(x, shift, Scale<X>::one());
    }

  private:
    FS_ALWAYS_INLINE V others(V e) const { return (sum.hi - e) + sum.lo; }
    // or left out, whatever the row holds
    FS_ALWAYS_INLINE V counted(V v) const { return weight == V{} ? V{} : v; }
};

struct GradHessRow {
    using X = Vec<double>;
    using V = X::V;
    enum Stage { maximum, total, write };
    struct Partial {
        double max = masked_logit<double>;
        DoubleDouble<> sum{};
        void add(const Partial &p) { max = larger(p.max, max), sum.add(p.sum); }
    };

    const GradHessArguments *a;
    Index outer = 0, inner = 0, label = -1;
    double weight = 1, max = 0;
    Stage stage = maximum;
    Shift<X> shift{};
    DoubleDouble<> sum{};

    explicit GradHessRow(const GradHessArguments &arguments) : a(&arguments) {}

    Index n() const { return a->x.n; }

    void start(Index o, Index i) {
        outer = o, inner = i;
        label = a->labels() ? a->target.integer(o, i) : -1;
        weight = a->sample_weight ? a->sample_weight.value(o, i) : 1;
        stage = maximum;
    }

    void sweep(Index start, Index end, Partial &p) {
        const InputLine<double> from(a->x, outer, inner);
        Accumulator<X> sums;
        p.max = masked_logit<double>;
        Scratch<double> buffer(gather_block);
        for_each_block(start, end, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const double *x = from.load_block(at, size, buffer);
            if (stage == maximum)
                p.max = larger(p.max, span_max<X>(x, size));
            else if (stage == total)
                for_each_vector<X>(size, [&](Index j, auto lanes) {
                    sums.add(exp(lanes.load(x + j, masked_logit<double>)));
                });
            else
                write_block(x, at, size);
        });
        p.sum = sums.total();
    }

    bool next(const ChunkResults<Partial> &partial) {
        if (stage == write) return false;
        const Partial all = merged(partial);
        max = all.max;
        if (stage == maximum) {
            shift = GradHess::shift(X::set(max), X::set(GradHess::lift(weight)));
            return stage = total, true;
        }
        sum = all.sum;
        return stage = write, true;
    }

  private:
    FS_ALWAYS_INLINE V exp(V x) const { return GradHess::exp(x, shift); }

    void write_block(const double *x, Index at, Index size) const {
        Scratch<double> t_buffer(gather_block), g(gather_block), h(gather_block);
        const double *t = targets(at, size, t_buffer);
        const GradHess result(*a, {X::set(sum.hi), X::set(sum.lo)}, X::set(weight));
        for_each_vector<X>(size, [&](Index j, auto lanes) {
            const V e = exp(lanes.load(x + j, masked_logit<double>));
            lanes.store(g + j, result.gradient(e, lanes.load(t + j, 0)));
            lanes.store(h + j, result.hessian(e));
        });
        OutputLine<double>(a->gradient, outer, inner).copy(at, size, g);
        OutputLine<double>(a->hessian, outer, inner).copy(at, size, h);
    }
    const double *targets(Index at, Index size, double *buffer) const {
        if (!a->labels())
            return InputLine<double>::broadcast(a->target, outer, inner)
                .load_block(at, size, buffer);
        for (Index j = 0; j < size; ++j) buffer[j] = at + j == label;
        return buffer;
    }
};

// Rows in lanes.
struct GradHessTile {
    using X = Vec<double>;
    using V = X::V;
    static constexpr Index width = tile_vectors * X::lanes;

    const GradHessArguments *a;

    Index n() const { return a->x.n; }

    void run(Index outer, Index first, Index count) const {
        const Scratch<double> e(n() * X::lanes);
        TileColumns<X> x(a->x, outer, first, count),
            t(a->labels() ? AnyView() : a->target, outer, first, count);
        const TileResults<X> g(a->gradient, outer, first, count),
            h(a->hessian, outer, first, count);
        x.gather();
        if (!a->labels()) t.gather();
        for (Index at = 0; at < count; at += X::lanes) {
            const Index size = count - at < X::lanes ? count - at : X::lanes;
            vector(x.from(at), a->labels() ? Columns<X>{} : t.from(at), e, g.place(at), h.place(at),
                   outer, first + at, size);
            g.put(at), h.put(at);
        }
        g.put(), h.put();
    }

  private:
    using Place = TileResults<X>::Place;

    void vector(const Columns<X> &x, const Columns<X> &t, double *e, const Place &g, const Place &h,
                Index outer, Index first, Index count) const {
        V max = X::set(masked_logit<double>);
        for (Index j = 0; j < n(); ++j) max = larger(x[j], max);
        double weights[X::lanes], lifts[X::lanes], labels[X::lanes] = {};
        for (double &w : weights) w = 1;
        if (a->sample_weight) read_rows(a->sample_weight, outer, first, count, weights);
        for (Index l = 0; l < X::lanes; ++l) lifts[l] = GradHess::lift(weights[l]);
        const Shift<X> shift = GradHess::shift(max, X::load(lifts));
        Accumulator<X> sums;
        for (Index j = 0; j < n(); ++j) {
            const V y = GradHess::exp(x[j], shift);
            X::store(e + j * X::lanes, y);
            sums.add(y);
        }
        if (a->labels()) read_rows(a->target, outer, first, count, labels);
        const V label = X::load(labels);
        const GradHess result(*a, sums.part(0), X::load(weights));
        for (Index j = 0; j < n(); ++j) {
            const V y = X::load(e + j * X::lanes), one = X::set(1),
                    target = a->labels() ? (label == static_cast<double>(j) ? one : V{}) : t[j];
            g.store(j, result.gradient(y, target));
            h.store(j, result.hessian(y));
        }
    }
};

inline Index further_memory(const GradHessTile &tile) {
    return tile_memory(tile.n(), 4, 1);
}

inline void cross_entropy_grad_hess(const GradHessArguments &a, Index threads) {
    static constexpr Traits traits = in_lanes("cross_entropy_grad_hess", short_target_row, chunk);
    const Driver driver = decide(Problem::of(a.x, sizeof(double), false), traits);
    if (const int lanes_run = lanes_along(a.x, driver)) {
        const GradHessArguments s = lanes_run == along_inner ? a : a.swapped();
        TilesTask<GradHessTile> work(GradHessTile{&s}, s.x.outer, s.x.inner, GradHessTile::width);
        return execute(work, threads);
    }
    run_long_rows(GradHessRow(a), a.x.outer, a.x.inner, threads);
}

}  // namespace fs
}  // namespace
