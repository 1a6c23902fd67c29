// The negative log-likelihood of log-probabilities.
#pragma once

#include "kernels/drivers/row_losses.h"

namespace {
namespace fs {

struct Nll {
    static constexpr const char *operation = "nll_loss";
    template <class X, class V = typename X::V>
    FS_ALWAYS_INLINE void apply(V log_p, V t, V weight, V, V &loss, V &gradient) const {
        const V q = weight * t;
        loss = V{} - term(q, log_p);  // not -0
        gradient = V{} - q;
    }
};

// nll with labels: one number of each row is read, one of its gradient is not 0. (Pieces are rows;
// `ignored` and labels that are no classes do not count.)
struct NllLabelRow {
    const PointwiseArguments *a;
    PieceResults<DoubleDouble<>> *sums;
    Index ignored, piece = 0;

    void begin(Index p) { piece = p; }
    void end() {}
    void rows(Index o, Index first, Index count) {
        for (Index i = first; i < first + count; ++i) row(o, i);
    }

  private:
    void row(Index o, Index i) {
        const Index y = a->target.integer(o, i), n = a->x.n;
        const double row = a->row_weight ? a->row_weight.value(o, i) : 1;
        const bool counts = y >= 0 && y < n && y != ignored && row != 0;
        const double c = counts && a->weight ? a->weight.value(0, y, 0) : 1, w = c * row;
        // a class of no weight: whatever its logarithm is
        const double loss = counts && c != 0 ? 0 - w * a->x.value(o, y, i) : 0;
        if (a->loss) a->loss.store(o, 0, i, loss);
        (*sums)[static_cast<std::size_t>(piece)].add({loss, 0});
        if (!a->gradient) return;
        const Index size = size_of(a->gradient.number);
        if (a->gradient.n_stride == size)
            std::memset(a->gradient.at(o, i), 0, static_cast<std::size_t>(n * size));
        else
            OutputLine<float>(a->gradient, o, i).fill(n, 0);
        if (counts) a->gradient.store(o, y, i, -w * a->scale);
    }
};

inline double nll_labels_loss(const PointwiseArguments &a, Index ignored, Index threads) {
    const Index rows = a.x.outer * a.x.inner;
    PieceResults<DoubleDouble<>> sums(
        static_cast<std::size_t>((rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n)));
    WholeRowsTask<NllLabelRow> work({&a, &sums, ignored}, a.x.outer, a.x.inner, a.x.n);
    execute(work, threads);
    return merged(sums).value();
}

}  // namespace fs
}  // namespace
