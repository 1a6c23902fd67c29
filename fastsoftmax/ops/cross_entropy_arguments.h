// What cross-entropy is given, and where its losses go.
#pragma once

#include <cmath>

#include "kernels/drivers/row_tasks.h"
#include "kernels/drivers/rows.h"
#include "kernels/math/exp_precise.h"

namespace {
namespace fs {

struct CrossEntropyArguments : Rows {
    AnyView target;                 // labels (one integer a row), or a probability for every class
    AnyView loss, gradient;         // without data: not wanted
    AnyView weight, sample_weight;  // of classes, of rows; without data: 1
    Index ignored = -1;
    double smoothing = 0, z_loss = 0, scale = 1;

    CrossEntropyArguments swapped() const {
        CrossEntropyArguments a = *this;
        static_cast<Rows &>(a) = Rows::swapped();
        a.target = target.swapped();
        a.loss = loss.swapped();
        a.gradient = gradient.swapped();
        a.sample_weight = sample_weight.swapped();
        return a;
    }

    bool labels() const { return is_integer(target.number); }
    // Whether to compute in double whatever the logits are: targets of it are used as they are
    // given, and weights of classes (double, too) are rounded with the masses they multiply, unless
    // these might leave the range of float.
    bool wide() const {
        if (target.number == Number::float64) return true;
        if (!weight || (labels() && smoothing == 0)) return false;
        bool extreme = false;
        for (Index c = 0; c < x.n; ++c) {
            const double w = std::abs(*class_weights(c));
            extreme |= w != 0 && !(w >= 0x1p-40 && w <= 0x1p40);
        }
        return extreme;
    }
    const double *class_weights(Index c) const {
        return reinterpret_cast<const double *>(weight.data + c * weight.n_stride);
    }
    // The label of a row; -1 where it is not to be counted. All others were checked before.
    Index label(Index o, Index i) const {
        Index y;
        return labels_of(o, i, 1, &y), y;
    }
    // Those of `count` rows from an inner index on.
    void labels_of(Index o, Index i, Index count, Index *labels) const {
        with_type(target.number, [&](auto *type) {
            const auto *p = reinterpret_cast<decltype(type)>(target.at(o, i));
            for (Index k = 0; k < count; ++k, p = advance(p, target.inner_stride)) {
                const Index y = static_cast<Index>(*p);
                labels[k] = y >= 0 && y < x.n && y != ignored ? y : -1;
            }
        });
    }
    // The weights of `count` rows, a vector of them at most; 0 for the other lanes.
    void row_weights_of(Index o, Index i, Index count, Index lanes, double *weights) const {
        for (Index l = 0; l < lanes; ++l) weights[l] = l < count;
        if (sample_weight) read_rows(sample_weight, o, i, count, weights);
    }
    double class_weight(Index c) const { return weight ? *class_weights(c) : 1; }
    double row_weight(Index o, Index i) const {
        return sample_weight ? sample_weight.value(o, i) : 1;
    }
    // Whether a row is left out, whatever its label: for a weight of 0, or as no class takes part.
    bool may_leave_out() const { return sample_weight || where.data; }
    bool leaves_out(Index o, Index i) const { return row_weight(o, i) == 0 || !present(o, i); }
    // How many classes of a row take part.
    Index present(Index o, Index i) const {
        if (!where.data) return x.n;
        Index count = 0;
        const std::uint8_t *mask = where.at(o, i);
        for (Index c = 0; c < x.n; ++c) count += mask[c * where.n_stride] != 0;
        return count;
    }
    template <class C>
    OutputLine<C> gradient_writer(Index o, Index i) const {
        OutputLine<C> w(gradient, o, i);
        if (where.data) w.mask = where.at(o, i), w.mask_stride = where.n_stride;
        return w;
    }
    void clear_gradient(Index o, Index i) const {
        if (gradient) OutputLine<float>(gradient, o, i).fill(x.n, 0);
    }
};

// Where the losses of rows go: each to its place, if they are wanted one by one, and all into one
// sum for each piece of work, so that the total does not depend on who ran which piece.
struct RowLosses {
    const CrossEntropyArguments *a;
    PieceResults<DoubleDouble<>> sums;

    RowLosses(const CrossEntropyArguments &arguments, Index pieces)
        : a(&arguments), sums(static_cast<std::size_t>(pieces)) {}
    void add(Index piece, DoubleDouble<> losses) {
        sums[static_cast<std::size_t>(piece)].add(losses);
    }
    void store(Index o, Index i, double loss) {
        if (a->loss) a->loss.store(o, 0, i, loss);
    }
    void put(Index o, Index i, double loss) {
        add((o * a->x.inner + i) / rows_per_piece(a->x.n), {loss, 0});
        store(o, i, loss);
    }
    double total() const { return merged(sums).value(); }
};

// The losses of rows next to each other, one by one if they are wanted so.
inline void store_losses(const CrossEntropyArguments &a, Index outer, Index first, Index count,
                         double *loss) {
    if (a.loss) write_rows(a.loss, outer, first, count, loss);
}

// A loss times the weight of its class, which may be 0 where the loss is infinite.
FS_ALWAYS_INLINE inline double weighted(double weight, double loss) {
    return weight == 0 && loss == std::numeric_limits<double>::infinity() ? 0 : weight * loss;
}

// logsumexp for z_loss, which must have its own digits: where it is small, exponentials to the last
// bit of their type are not enough.
template <class C>
__attribute__((noinline)) double small_log_sum(const Rows &a, Index o, Index i) {
    const auto source = a.reader<C>(o, i);
    Scratch<C> buffer(gather_block);
    C top = masked_logit<C>;
    for_each_block(0, a.x.n, gather_block, [&](Index at, Index size) {
        top = larger(span_max<Vec<C>>(source.load_block(at, size, buffer), size), top);
    });
    const auto log = precise_log_of_total(a, o, i, static_cast<double>(top));
    const DoubleDouble<> scaled = a.scale(o, i).times(static_cast<double>(top));
    DoubleDouble<> s{scaled.hi, scaled.lo};
    s.add({log.hi[0], log.lo[0]});
    return s.value();
}

template <class V>
FS_ALWAYS_INLINE inline bool is_small_log_sum(V sum) {
    return sum < 1 && sum > -1;
}

}  // namespace fs
}  // namespace
