// logsumexp with weights: log(sum(b exp(x))), in double whatever the input.
#pragma once

#include "normalize.h"

namespace {
namespace fs {

// The terms at the maximum and the others are summed apart, so that a total next to 1 keeps the digits of its logarithm.
// Terms of weight 0 do not take part, whatever x is there.
struct WeightedRow {
    static constexpr double infinity = std::numeric_limits<double>::infinity();
    using X = Vec<double>;
    using D = Vec<double, 16>;
    struct Partial {
        double max;
        Sum rest, top;
    };

    const NormalizeArguments *a;
    AnyView weights;
    Reader<double> x, b;
    bool summing = false;
    isize outer = 0, inner = 0;
    double max = 0;
    ChunkResults<Partial> partial;

    WeightedRow(const NormalizeArguments &arguments, const AnyView &b_) : a(&arguments), weights(b_) {}

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i;
        partial.resize(static_cast<std::size_t>(chunks()));
        x = a->reader<double>(o, i);
        b = Reader<double>::broadcast(weights, o, i);
        b.mask = x.mask, b.mask_stride = x.mask_stride, b.absent = 0;
        summing = false;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        const auto scale = Scale<X>::all(a->ln_base);
        const Shift<X> zero = Shift<X>::fixed(0, scale);
        const auto top = X::set(max);
        Scratch<double> x_room(gather_block), b_buffer(gather_block);
        double *x_buffer = x_room;
        LaneSums<X> rest, at_top;
        Partial &p = partial[static_cast<std::size_t>(k)];
        p.max = -infinity;
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const double *xs = x.get(at, size, x_buffer), *bs = b.get(at, size, b_buffer);
            for (isize j = 0; j < size; ++j) x_buffer[j] = bs[j] == 0 ? -infinity : xs[j];
            if (!summing) {
                const double m = span_max<X>(x_buffer, size);
                p.max = p.max > m ? p.max : m;
                continue;
            }
            each_vector<X>(size, [&](isize i, auto lanes) {
                const auto v = lanes.load(x_buffer + i, -infinity), w = lanes.load(bs + i, 0);
                rest.add(v == top ? X::V{} : w * exp_below<X, true>(v, top, zero, scale));
                at_top.add(v == top ? w : X::V{});
            });
        }
        p.rest = rest.total();
        p.top = at_top.total();
    }

    bool next() {
        if (!summing) {
            max = partial[0].max;
            for (isize k = 1; k < chunks(); ++k) max = max > partial[static_cast<std::size_t>(k)].max ? max : partial[static_cast<std::size_t>(k)].max;
            return summing = true;
        }
        Sum total;
        for (isize k = 0; k < chunks(); ++k) {
            total.add(partial[static_cast<std::size_t>(k)].rest);
            total.add(partial[static_cast<std::size_t>(k)].top);
        }
        a->out.store(outer, 0, inner, logarithm(total));
        return false;
    }

    double logarithm(Sum total) const {
        const double t = total.value(), nan = std::numeric_limits<double>::quiet_NaN();
        if (t != t) return nan;
        if (max == -infinity) return -infinity;
        if (t < 0 || (t == 0 && max == infinity)) return nan;
        if (t == 0) return -infinity;
        if (t == infinity || max == infinity) return infinity;
        const double lift = t > 0x1p900 ? -200 : t < 0x1p-900 ? 200 : 0, power = lift < 0 ? 0x1p-200 : lift > 0 ? 0x1p200 : 1;
        const Pair<D::V> scaled = two_sum(D::set(total.hi * power), D::set(total.lo * power)), one{D::set(1), D::set(0)};
        auto l = log_ratio<D>(scaled, one, scaled.hi, D::set(-lift));
        if (!a->ln_base.is_one()) l = LogTotal<D>::divide(l, a->ln_base);
        Sum s{max, 0};
        s.add({l.hi[0], l.lo[0]});
        return s.value();
    }
};

inline void weighted_logsumexp(const NormalizeArguments &a, const AnyView &weights, isize threads, Execute execute) {
    RowsWork<WeightedRow> work(WeightedRow(a, weights), a.x.outer, a.x.inner, a.x.n, threads);
    execute(&work, threads);
}

}  // namespace fs
}  // namespace
