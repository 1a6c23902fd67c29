// Cross-entropy of rows of logits, with its gradient: which way a call takes.
#pragma once

#include "kernels/drivers/regime.h"
#include "ops/cross_entropy_label_gradients.h"
#include "ops/cross_entropy_label_lanes.h"
#include "ops/cross_entropy_target_lanes.h"

namespace {
namespace fs {

// The loss of a label y is log1p(R / e_y), with R the sum of the other classes' exponentials, and
// the derivative there -R / (R + e_y): a confident row keeps its digits in both, whatever the
// shift.

// The sum of the losses of rows in lanes.
template <class Tile>
double cross_entropy_tiles(const CrossEntropyArguments &a, Index threads) {
    RowLosses losses(a, a.x.outer * ((a.x.inner + Tile::width - 1) / Tile::width));
    TilesTask<Tile> work(Tile(a, losses), a.x.outer, a.x.inner, Tile::width);
    execute(work, threads);
    return losses.total();
}

// The same if rows are for that; NaN is a sum, so there is a flag.
template <bool Scaled, bool Gradient, class C>
bool cross_entropy_across(const CrossEntropyArguments &a, Index threads, double &sum) {
    const bool by_label = a.labels() && a.smoothing == 0 && a.z_loss == 0;
    static constexpr Traits labels = in_lanes("cross_entropy", short_label_row, chunk, true),
                            targets = in_lanes("cross_entropy", short_target_row, chunk);
    const int lanes_run =
        lanes_along(a.x, decide(Problem::of(a.x, sizeof(C), Scaled), by_label ? labels : targets));
    if (!lanes_run) return false;
    const CrossEntropyArguments s = lanes_run == along_inner ? a : a.swapped();
    sum = by_label ? cross_entropy_tiles<LabelTile<C, Scaled, Gradient>>(s, threads)
                   : cross_entropy_tiles<TargetTile<C, Scaled, Gradient>>(s, threads);
    return true;
}

template <bool Scaled, class C>
double cross_entropy_scaled(const CrossEntropyArguments &given, Index threads) {
    double sum = 0;
    if (given.gradient ? cross_entropy_across<Scaled, true, C>(given, threads, sum)
                       : cross_entropy_across<Scaled, false, C>(given, threads, sum)) {
        return sum;
    }
    // runs of rows go along the inner axis
    const CrossEntropyArguments a = given.x.inner == 1 ? given.swapped() : given;
    const Index rows = a.x.outer * a.x.inner;
    RowLosses losses(a, (rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n));
    if (a.labels() && a.smoothing == 0 && a.x.n <= chunk) {
        if (a.gradient) {
            WholeRowsTask<LabelGradientRow<C, Scaled>> work({a, losses}, a.x.outer, a.x.inner,
                                                            a.x.n);
            execute(work, threads);
        } else {
            WholeRowsTask<LabelLossRow<C, Scaled>> work({a, losses}, a.x.outer, a.x.inner, a.x.n);
            execute(work, threads);
        }
    } else {
        run_long_rows(TargetRow<C, Scaled>(a, losses), a.x.outer, a.x.inner, threads);
    }
    return losses.total();
}

// The sum of all rows' losses.
inline double cross_entropy(const CrossEntropyArguments &a, Index threads) {
    return with_compute({a.wide() ? Number::float64 : a.x.number}, [&](auto zero) {
        using C = decltype(zero);
        return a.plain() ? cross_entropy_scaled<false, C>(a, threads)
                         : cross_entropy_scaled<true, C>(a, threads);
    });
}

// Contiguous rows and default options; targets are contiguous, too, and labels if they are
// integers.
template <class C>
double plain_cross_entropy(const void *x, const void *target, Number number, void *gradient,
                           Index rows, Index n, double scale, Index threads) {
    CrossEntropyArguments a;
    a.x = AnyView::matrix(x, number_of<C>, rows, n);
    a.target = AnyView::matrix(target, number, rows, is_integer(number) ? 1 : n);
    if (gradient) a.gradient = AnyView::matrix(gradient, number_of<C>, rows, n);
    a.scale = scale;
    return with_compute({number == Number::float64 ? number : number_of<C>}, [&](auto zero) {
        return cross_entropy_scaled<false, decltype(zero)>(a, threads);
    });
}

}  // namespace fs
}  // namespace
