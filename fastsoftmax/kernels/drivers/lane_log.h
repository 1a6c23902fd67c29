// What operations on rows in lanes have in common that take the logarithm of a total, or sum
// losses.
#pragma once

#include "kernels/drivers/lanes.h"
#include "kernels/drivers/rows.h"
#include "kernels/math/log_epilogue.h"

namespace {
namespace fs {

// The maxima of a vector of rows, and the logarithms of their totals relative to them, each of the
// sum of the others' exponentials: what RowLog is for a row.
template <class C, bool Scaled>
struct LaneLog {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    Scale<X> scale;
    V max;
    Accumulator<X> others;
    typename D::V copies[wide_parts<X>];  // of the maximum

    void start(const Rows &a, const LaneRows &rows) {
        scale = lane_scales<X, Scaled>(a, rows.outer, rows.first, rows.count);
        max = X::set(masked_logit<C>), others = {};
        for (auto &c : copies) c = typename D::V{};
    }
    void find_max(const Columns<X> &x, Index count) {
        V most[2] = {max, max};
        Index j = 0;
        for (; j + 2 <= count; j += 2)
            most[0] = larger(x[j], most[0]), most[1] = larger(x[j + 1], most[1]);
        if (j < count) most[0] = larger(x[j], most[0]);
        max = larger(most[0], most[1]);
    }
    void add(const Columns<X> &x, Index count) {
        const Shift<X> below = Shift<X>::fixed(rest_exponent<C>, scale);
        const V top = max;
        Accumulator<X> sums = others;
        V equal{};
        for (Index j = 0; j < count; ++j) {
            const V v = x[j];
            const auto is_top = v == top;
            sums.add(is_top ? V{} : exp_of_difference<X, Scaled>(v, top, below, scale));
            equal = equal + (is_top ? X::set(1) : V{});
        }
        others = sums;
        for (int k = 0; k < wide_parts<X>; ++k) copies[k] = copies[k] + wide_part<X>(equal, k);
    }
    // NaN where a row has no distribution.
    LogEpilogue<X, Scaled> writer(const Rows &a, const LaneRows &rows) const {
        DoubleDouble<typename D::V> logs[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k)
            logs[k] = LogTotal<D>::from_rest(true_rest<C>(others.part(k)), copies[k]);
        const DoubleDouble<V> log = pair_from_wide<X>(logs);
        LogEpilogue<X, Scaled> w{max, log.hi + (max - max), log.lo, V{}, V{}, V{}};
        for (Index l = 0; Scaled && l < X::lanes; ++l)
            w.set_inverse(l, a.inverse_temperature(
                                 rows.outer, rows.first + (l < rows.count ? l : rows.count - 1)));
        return w;
    }
};

// Losses of rows in lanes: each to its place, if they are wanted one by one, and the sum to the
// piece of work.
struct LaneLosses {
    using D = Vec<double>;
    AnyView each;
    PieceResults<DoubleDouble<>> *sums;
    Index piece = 0;
    Accumulator<D> sum{};

    void begin(Index p) { piece = p, sum = {}; }
    void end() { (*sums)[static_cast<std::size_t>(piece)].add(sum.total()); }
    // Those of a vector of rows, which may be several of double.
    template <Index lanes>
    void put(const LaneRows &rows, double (&loss)[lanes]) {
        for (Index l = rows.count; l < lanes; ++l) loss[l] = 0;
        for (Index l = 0; l < lanes; l += D::lanes) sum.add(D::load(loss + l));
        if (!each) return;
        OutputLine<double> to(each, rows.outer, rows.first);
        to.stride = each.inner_stride;
        to.copy(0, rows.count, loss);
    }
};

}  // namespace fs
}  // namespace
