// Gradients of the cross-entropy of labels, of contiguous rows.
#pragma once

#include "ops/cross_entropy_labels.h"

namespace {
namespace fs {

// The loss and the gradient.
template <class C, bool Scaled>
struct LabelGradientRow : LabelRows<C, Scaled> {
    using Base = LabelRows<C, Scaled>;
    using Kept = KeptRows<C, false, Scaled>;
    using X = typename Base::X;
    using D = typename Base::D;
    using Base::n, Base::a, Base::scale_of;
    Kept kept{};

    using Base::Base;

    void begin(Index p) {
        C *buffer = scratch<C>(chunk + kept.memory);
        Base::begin(p, buffer);
        kept.begin(a->x, a->gradient, a->where, a->template gradient_writer<C>(0, 0),
                   buffer + chunk, this->source.limit(Kept::most));
    }
    void end() {
        if (kept.unsettled()) settle();
        kept.end();
        this->flush();
    }
    void rows(Index o, Index first, Index count) {
        this->each_label(o, first, count, [&](Index i, Index y) FS_ALWAYS_INLINE {
            if (y < 0)
                a->clear_gradient(o, i), this->losses->store(o, i, 0);
            else
                kept.push(this->source.get(o, i, kept.place()), o, i, y);
            if (kept.full()) settle();
        });
    }

  private:
    FS_ALWAYS_INLINE void settle() {
        kept.finalize([this](Index o, Index i) FS_ALWAYS_INLINE { return this->scale_of(o, i); },
                      [this](typename Kept::Batch &b) FS_ALWAYS_INLINE { this->settle_rows(b); });
    }
    // In vectors, as far as rows are usual.
    FS_ALWAYS_INLINE void settle_rows(typename Kept::Batch &b) {
        constexpr Index most = Kept::most;
        double label[most], weight[most], others[most];
        for (Index k = 0; k < b.count; ++k) {
            label[k] = static_cast<double>(b.e[k][b.place[k]]);
            weight[k] = a->class_weight(b.place[k]) * a->row_weight(b.outer[k], b.inner[k]);
        }
        for (Index k = b.count; k % X::lanes; ++k) label[k] = weight[k] = 0;
        for (Index k = 0; k < b.count; k += X::lanes) {
            typename D::V value[wide_parts<X>];
            for (int p = 0; p < wide_parts<X>; ++p) {
                const Index at = k + p * D::lanes;
                const auto total = b.total.template part<D>(at);
                const auto rest = (total.hi - D::load(label + at)) + total.lo,
                           factor = D::load(weight + at) * a->scale;
                D::store(others + at, rest);
                D::store(b.numerator + at, factor);
                value[p] = factor * (-rest / (total.hi + total.lo));
            }
            X::store(b.value + k, from_wide<X>(value));
        }
        for (Index k = 0; k < b.count; ++k) {
            const bool usual = !Scaled && a->z_loss == 0 &&
                               !LabelSums<C>::confident(label[k], b.total.hi[k]) &&
                               others[k] <= Base::likely * label[k];
            if (usual && fits<C>(b.numerator[k], b.total.hi[k]))
                this->wait(b.outer[k], b.inner[k], others[k], label[k], weight[k]);
            else
                settle_row(b, k);
        }
    }
    __attribute__((noinline)) void settle_row(typename Kept::Batch &b, Index k) {
        const Index y = b.place[k], o = b.outer[k], i = b.inner[k];
        LabelSums<C> s(b.total[k], b.e[k][y], b.center[k], b.exponent[k]);
        if (s.confident())
            s.set_others(kept.others(b.e[k], y)), this->find_tiny(s, b.x[k], y, o, i);
        const double w = a->class_weight(y), weight = a->row_weight(o, i);
        const double log_sum = this->add(s, b.x[k][y], w, weight, o, i);
        const double factor = weight * a->scale * (Scaled ? this->logits.scale(o, i).hi : 1),
                     square = 2 * a->z_loss * log_sum;
        b.numerator[k] = (w + square) * factor;
        b.value[k] = static_cast<C>(factor * (square * s.label - w * s.others) / s.total.value());
    }
};

}  // namespace fs
}  // namespace
