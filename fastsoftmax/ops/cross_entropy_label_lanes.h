// Cross-entropy of labels, with rows in lanes.
#pragma once

#include "kernels/drivers/tiles.h"
#include "ops/cross_entropy_labels.h"

namespace {
namespace fs {

// Rows in lanes.
template <class C, bool Scaled, bool Gradient>
struct LabelTile {
    using X = Vec<C>;
    using D = Vec<double>;
    using V = typename X::V;
    using I = typename X::I;
    static constexpr Index width = tile_vectors * X::lanes;
    // R / e_y within which both have all their digits
    static constexpr double likely = 0x1p60, confident = sizeof(C) == 4 ? 0x1p-70 : 0x1p-900;

    const CrossEntropyArguments *a;
    RowLosses *losses;
    Rows logits;

    LabelTile(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), logits(arguments) {}

    Index n() const { return a->x.n; }

    void run(Index outer, Index first, Index count) const {
        const Scratch<C> e(Gradient ? n() * X::lanes : 0);
        TileColumns<X> x(a->x, outer, first, count, a->where);
        const TileResults<X> g(a->gradient, outer, first, count, a->where);
        x.gather();
        Accumulator<D> sums;
        for (Index at = 0; at < count; at += X::lanes) {
            vector(x.from(at), e, g.place(at), outer, first + at,
                   count - at < X::lanes ? count - at : X::lanes, sums);
            if constexpr (Gradient) g.put(at);
        }
        if constexpr (Gradient) g.put();
        losses->add(outer * ((a->x.inner + width - 1) / width) + first / width, sums.total());
    }

  private:
    struct Lanes {  // of a vector of rows
        typename Format<C>::Int label[X::lanes];
        double weight[X::lanes], factor[X::lanes];  // of the loss, of the gradient
        double loss[X::lanes], at_label[X::lanes];  // and the gradient there
        double largest;                             // factor
    };

    using Place = typename TileResults<X>::Place;

    void vector(const Columns<X> &x, C *e, const Place &g, Index outer, Index first, Index count,
                Accumulator<D> &sums) const {
        Lanes lane;
        describe(lane, outer, first, count);
        I label;
        std::memcpy(&label, lane.label, sizeof label);
        const Scale<X> scale = lane_scales<X, Scaled>(logits, outer, first, count);
        V max = X::set(masked_logit<C>);
        for (Index j = 0; j < n(); ++j) max = larger(x[j], max);
        Shift<X> shift = Shift<X>::from(max, scale);
        Accumulator<X> others;
        V own = {};
        if constexpr (Gradient) {
            // Twice as large, the exponentials make a total above 1: multiplied by a factor over
            // it, they do not grow.
            shift.magic = shift.magic + 1, shift.lowest = shift.lowest - scale.unit;
            if (lane.largest > 1)
                sum_lifted(lane, x, max, shift, scale, label, e, others, own);
            else
                sum(
                    x,
                    [&](V v) FS_ALWAYS_INLINE { return exp_max_shift<X, Scaled>(v, shift, scale); },
                    label, e, others, own);
        } else {
            sum(
                x, [&](V v) FS_ALWAYS_INLINE { return exp_max_shift<X, Scaled>(v, shift, scale); },
                label, e, others, own);
        }
        settle(lane, others, own, outer, first, count);
        for (Index l = 0; l < X::lanes; l += D::lanes) sums.add(D::load(lane.loss + l));
        store_losses(*a, outer, first, count, lane.loss);
        if constexpr (Gradient) write(lane, label, others, own, e, g);
    }

    // The exponentials of the labels, the sums of the others'; all are kept for the gradient.
    template <class Exp>
    FS_ALWAYS_INLINE void sum(const Columns<X> &x, const Exp &exp, I label, C *kept,
                              Accumulator<X> &others, V &own) const {
        sum_rows(0, n(), others, [&](Index j) FS_ALWAYS_INLINE {
            const V e = exp(x[j]);
            const I here = label == static_cast<typename Format<C>::Int>(j);
            if constexpr (Gradient) X::store(kept + j * X::lanes, e);
            own = here ? e : own;
            return here ? V{} : e;
        });
    }
    // Lanes of factors above 1 take lifted exponentials. The others take those that they take
    // beside any rows.
    __attribute__((noinline)) void sum_lifted(const Lanes &lane, const Columns<X> &x, V max,
                                              const Shift<X> &shift, const Scale<X> &scale, I label,
                                              C *kept, Accumulator<X> &others, V &own) const {
        using Exp = LiftedExp<X, Scaled>;
        V lifts = {}, large = {};
        for (Index l = 0; l < X::lanes; ++l) {
            lifts[l] = static_cast<C>(Exp::lift(lane.factor[l]));
            large[l] = std::abs(lane.factor[l]) > 1;
        }
        const Exp lifted(max, lifts, scale);
        sum(
            x,
            [&](V v) FS_ALWAYS_INLINE {
                return large != V{} ? lifted(v) : exp_max_shift<X, Scaled>(v, shift, scale);
            },
            label, kept, others, own);
    }

    // Rows that do not count have the label -1.
    void describe(Lanes &lane, Index outer, Index first, Index count) const {
        Index labels[X::lanes];
        a->labels_of(outer, first, count, labels);
        for (Index l = count; l < X::lanes; ++l) labels[l] = -1;
        a->row_weights_of(outer, first, count, X::lanes, lane.weight);
        for (Index l = 0; l < X::lanes; ++l) {
            if (lane.weight[l] == 0 ||
                (labels[l] >= 0 && a->where.data && !a->present(outer, first + l)))
                labels[l] = -1;
            lane.label[l] = static_cast<typename Format<C>::Int>(labels[l]);
        }
        for (Index l = 0; l < X::lanes; ++l)
            lane.weight[l] = labels[l] < 0 ? 0 : a->class_weight(labels[l]) * lane.weight[l];
        lane.largest = 0;
        for (Index l = 0; l < X::lanes; ++l) {
            lane.factor[l] = lane.weight[l] * a->scale *
                             (Scaled && labels[l] >= 0 ? logits.scale(outer, first + l).hi : 1);
            lane.largest = larger(std::abs(lane.factor[l]), lane.largest);
        }
    }

    FS_ALWAYS_INLINE void settle(Lanes &lane, const Accumulator<X> &others, V own, Index outer,
                                 Index first, Index count) const {
        double ratio[X::lanes];  // R / e_y
        bool far = false;
        for (int k = 0; k < wide_parts<X>; ++k) {
            const Index at = k * D::lanes;
            const auto r = others.part(k).hi + others.part(k).lo, e = wide_part<X>(own, k),
                       weight = D::load(lane.weight + at), odds = r / e;
            const auto loss = weight * sum_of(log1p_nonnegative<D>(odds, typename D::V{}));
            D::store(ratio + at, odds);
            D::store(lane.loss + at, weight == typename D::V{} ? weight : loss);
            if constexpr (Gradient)
                D::store(lane.at_label + at, -D::load(lane.factor + at) * (r / (r + e)));
            far |= any<D>(~((odds <= likely) & (odds >= confident)));
        }
        for (Index l = 0; far && l < count; ++l) {
            if (lane.label[l] >= 0 && !(ratio[l] <= likely && ratio[l] >= confident))
                settle_far(lane, l, outer, first + l);
        }
    }

    // The exponentials of the label or of the others may have underflowed, or the row has no
    // distribution.
    __attribute__((noinline)) void settle_far(Lanes &lane, Index l, Index outer, Index i) const {
        const Scratch<C> buffer(n());
        const C *x = logits.reader<C>(outer, i).load_block(0, n(), buffer);
        const Index y = lane.label[l];
        const double own = static_cast<double>(x[y]), weight = a->row_weight(outer, i),
                     nan = std::numeric_limits<double>::quiet_NaN();
        const DoubleDouble<> s = logits.scale(outer, i);
        double max = own;
        bool defined = true;
        for (Index j = 0; j < n(); ++j)
            max = x[j] > max ? static_cast<double>(x[j]) : max, defined &= x[j] == x[j];
        if (!defined || !(max - max == 0)) {
            lane.loss[l] = weight * weighted(a->class_weight(y), nan), lane.at_label[l] = nan;
            return;
        }
        const DoubleDouble<> others = sum_precisely(x, n(), y, max, s);
        // log1p of them is their sum, which may underflow until it is multiplied
        if (own == max && others.hi < confident * std::ldexp(1.0, precise_lift)) {
            lane.loss[l] = std::ldexp(others.value() * lane.weight[l], -precise_lift);
            lane.at_label[l] = -std::ldexp(others.value() * lane.factor[l], -precise_lift);
            return;
        }
        const double ratio = std::ldexp(others.value(), -precise_lift);
        const DoubleDouble<> below = scaled_difference(own, max, s);
        const double loss = own == max ? std::log1p(ratio)
                                       : (std::log(ratio + exp_of(below)) - below.hi) - below.lo;
        if (own == max) lane.at_label[l] = -lane.factor[l] * (ratio / (1 + ratio));
        lane.loss[l] = weight * weighted(a->class_weight(y), loss);
    }

    FS_ALWAYS_INLINE void write(const Lanes &lane, I label, Accumulator<X> total, V own, const C *e,
                                const Place &g) const {
        total.add(own);
        const auto normalizer = ScaleEpilogue<X, false>::each(lane.factor, total);
        C at_label[X::lanes];
        for (Index l = 0; l < X::lanes; ++l) at_label[l] = static_cast<C>(lane.at_label[l]);
        const V own_result = X::load(at_label);
        for (Index j = 0; j < n(); ++j) {
            const V p = normalizer.apply(X::load(e + j * X::lanes));
            const V y = label == static_cast<typename Format<C>::Int>(j) ? own_result : p;
            g.store(j, label >= 0 ? y : V{});
        }
    }
};

template <class C, bool Scaled, bool Gradient>
Index further_memory(const LabelTile<C, Scaled, Gradient> &tile) {
    return tile_memory(tile.n(), 2, 1);
}

}  // namespace fs
}  // namespace
