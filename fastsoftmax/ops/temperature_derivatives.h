// Derivatives of the loss of labels with respect to a temperature.
#pragma once

#include <cmath>

#include "kernels/drivers/lane_log.h"
#include "kernels/drivers/long_rows.h"

namespace {
namespace fs {

// The sum over rows of w (log(sum exp(b x)) - b x_y) and its first two derivatives with respect to
// b: w (E[x] - x_y) and w Var[x] under softmax(b x).
struct Derivatives {
    DoubleDouble<> loss{}, first{}, second{};
    void add(const Derivatives &other) {
        loss.add(other.loss), first.add(other.first), second.add(other.second);
    }
};

// The sums of exp(b d), exp(b d) d and exp(b d) d^2 with d = x - max.
struct TemperatureSums {
    using X = Vec<double>;
    using V = X::V;
    Accumulator<X> total, mean, square;

    FS_ALWAYS_INLINE void add(V x, V max, V b) {
        const V d = x - max, e = exp_plain<X>(d * b), first = e == V{} ? V{} : e * d;
        total.add(e), mean.add(first), square.add(e == V{} ? V{} : first * d);
    }
};

struct TemperatureRow {
    using X = Vec<double>;
    using V = X::V;
    struct Partial {
        double max = masked_logit<double>;
        DoubleDouble<> total{}, mean{}, square{};
        void add(const Partial &p) {
            max = larger(p.max, max);
            total.add(p.total), mean.add(p.mean), square.add(p.square);
        }
    };

    AnyView x, labels, weight;
    double inverse;                   // b
    PieceResults<Derivatives> *sums;  // one for each piece
    Index outer = 0, inner = 0;
    bool summing = false;
    double max = 0;

    Index n() const { return x.n; }
    void start(Index o, Index i) { outer = o, inner = i, summing = false; }

    void sweep(Index start, Index end, Partial &p) {
        const InputLine<double> from(x, outer, inner);
        const V top = X::set(max), b = X::set(inverse);
        TemperatureSums sums_of_chunk;
        p.max = masked_logit<double>;
        Scratch<double> buffer(gather_block);
        for_each_block(start, end, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const double *v = from.load_block(at, size, buffer);
            if (!summing) {
                p.max = larger(p.max, span_max<X>(v, size));
                return;
            }
            for_each_vector<X>(size, [&](Index j, auto lanes) FS_ALWAYS_INLINE {
                sums_of_chunk.add(lanes.load(v + j, masked_logit<double>), top, b);
            });
        });
        p.total = sums_of_chunk.total.total(), p.mean = sums_of_chunk.mean.total(),
        p.square = sums_of_chunk.square.total();
    }

    bool next(const ChunkResults<Partial> &partial) {
        const Partial all = merged(partial);
        if (!summing) {
            max = all.max;
            return summing = true;
        }
        const double w = weight ? weight.value(outer, inner) : 1, total = all.total.value(),
                     mean = all.mean.value() / total;
        if (w == 0) return false;  // the row is left out, whatever it holds
        const Index y = labels.label(outer, 0, inner, n());
        const double label =
            y < 0 ? std::numeric_limits<double>::quiet_NaN() : x.value(outer, y, inner) - max;
        const double loss = w * (std::log(total) - inverse * label), first = w * (mean - label);
        const double second = w * (all.square.value() / total - mean * mean);
        (*sums)[static_cast<std::size_t>((outer * x.inner + inner) / rows_per_piece(n()))].add(
            {{loss, 0}, {first, 0}, {second, 0}});
        return false;
    }
};

// With rows in lanes.
struct TemperatureLanes {
    using X = Vec<double>;
    using V = X::V;
    using Block = LaneBlock<X, 1>;
    static constexpr Traits traits = in_lanes("temperature_derivatives", short_log_row);
    static constexpr int inputs = 1;
    struct State {
        V max;
        TemperatureSums sums;
        bool summing;
    };
    AnyView x, labels, weight;
    double inverse;
    PieceResults<Derivatives> *sums;
    Index piece = 0;
    Accumulator<X> losses{}, firsts{}, seconds{};

    TemperatureLanes swapped() const {
        return {x.swapped(), labels.swapped(), weight.swapped(), inverse, sums};
    }
    const AnyView &input(int) const { return x; }
    AnyView output() const { return {}; }
    bool writes(const State &) const { return false; }

    void begin(Index p) { piece = p, losses = firsts = seconds = {}; }
    void end() {
        (*sums)[static_cast<std::size_t>(piece)].add(
            {losses.total(), firsts.total(), seconds.total()});
    }
    void start(State &s, const LaneRows &) const { s = {X::set(masked_logit<double>), {}, false}; }
    void sweep(State &s, const Block &b) const {
        if (s.summing) {
            TemperatureSums all = s.sums;
            for (Index j = 0; j < b.count; ++j) all.add(b.x[0][j], s.max, X::set(inverse));
            s.sums = all;
        } else {
            for (Index j = 0; j < b.count; ++j) s.max = larger(b.x[0][j], s.max);
        }
    }
    bool next(State &s, const LaneRows &rows, const Block &) {
        if (!s.summing) return s.summing = true;
        const V total = s.sums.total.part(0).value(), mean = s.sums.mean.part(0).value() / total,
                square = s.sums.square.part(0).value() / total;
        V w{}, label{};
        for (Index l = 0; l < rows.count; ++l) {
            w[l] = weight ? weight.value(rows.outer, rows.first + l) : 1;
            const Index y = labels.label(rows.outer, 0, rows.first + l, x.n);
            label[l] = y < 0 ? std::numeric_limits<double>::quiet_NaN()
                             : x.value(rows.outer, y, rows.first + l) - s.max[l];
        }
        const DoubleDouble<V> log = log_ratio<X>(two_sum(total, V{}), {X::set(1), V{}}, total, V{});
        const auto counts = w != V{};  // others are left out, whatever they hold
        losses.add(counts ? w * (log.hi + log.lo - inverse * label + (total - total)) : V{});
        firsts.add(counts ? w * (mean - label) : V{});
        seconds.add(counts ? w * (square - mean * mean) : V{});
        return false;
    }
};

inline void temperature_derivatives(const AnyView &x, const AnyView &labels, const AnyView &weight,
                                    double inverse, double *results, Index threads) {
    const std::size_t row_pieces = static_cast<std::size_t>(
        (x.outer * x.inner + rows_per_piece(x.n) - 1) / rows_per_piece(x.n));
    PieceResults<Derivatives> sums(
        std::max(row_pieces, lane_pieces<Vec<double>>(x, TemperatureLanes::traits)));
    if (!run_in_lanes(TemperatureLanes{x, labels, weight, inverse, &sums}, threads)) {
        run_long_rows(TemperatureRow{x, labels, weight, inverse, &sums}, x.outer, x.inner, threads);
    }
    const Derivatives all = merged(sums);
    results[0] = all.loss.value(), results[1] = all.first.value(), results[2] = all.second.value();
}

}  // namespace fs
}  // namespace
