// softmax, log_softmax, logsumexp and the gradient of logsumexp: one maximum, one sum of
// exponentials, one way out.
#pragma once

#include "kernels/drivers/regime.h"
#include "ops/normalize_log_rows.h"
#include "ops/normalize_strips.h"

namespace {
namespace fs {

template <Result R>
constexpr Traits traits_of = {R == Result::softmax       ? "softmax"
                              : R == Result::log_softmax ? "log_softmax"
                              : R == Result::logsumexp   ? "logsumexp"
                                                         : "logsumexp_vjp",
                              takes_logarithm(R) ? short_log_row : short_row,
                              R != Result::logsumexp_vjp,
                              true,
                              takes_logarithm(R),
                              true,
                              true};

// Columns where they are, of rows as they are: without options that only gathering understands.
template <Result R, class C>
bool direct(const NormalizeArguments &a) {
    const bool written = R != Result::logsumexp;
    return !a.where.data && !a.negative() && columns_direct<C>(a.x) &&
           (!written || columns_direct<C>(a.out));
}

template <Result R, class C, class MaxShiftTile>
void normalize_strips(const NormalizeArguments &a, const MaxShiftTile &max_shift_tile,
                      Index threads) {
    using Strip = NormalizeStrip<C, R, MaxShiftTile>;
    const bool apart = a.out.data != a.x.data;
    const bool streaming = R != Result::logsumexp &&
                           a.x.outer * a.x.n * a.x.inner * Index(sizeof(C)) >= stream_from && apart;
    const bool exact = a.x.n <= traits_of<R>.longest_lane_row;
    const bool kept = !takes_logarithm(R) && Strip::fits(a) && apart;
    TilesTask<Strip> work(Strip{&a, max_shift_tile, exact, streaming && !kept, kept}, a.x.outer,
                          a.x.inner, Strip::width(a, threads));
    execute(work, threads);
}

template <class Tile>
void normalize_tiles(const Tile &tile, const NormalizeArguments &a, Index threads) {
    TilesTask<Tile> work(tile, a.x.outer, a.x.inner, Tile::width);
    execute(work, threads);
}

template <class Row>
void normalize_whole(const NormalizeArguments &a, Index threads) {
    WholeRowsTask<Row> work(Row(a), a.x.outer, a.x.inner, a.x.n);
    execute(work, threads);
}

// Logits and results are lines of contiguous 16-bit numbers.
template <class H>
bool halves(const NormalizeArguments &a) {
    return a.x.contiguous(half_number<H>) && a.out.contiguous(half_number<H>);
}

template <Result R, bool Scaled, class C>
void normalize_batches(const NormalizeArguments &a, Index threads) {
    const bool as_they_are = !a.where.data && !a.negative();
    if constexpr (takes_logarithm(R)) return normalize_whole<LogRow<C, R, Scaled>>(a, threads);
    if (sizeof(C) == 4 && as_they_are && halves<Float16>(a))
        return normalize_whole<ExpRow<C, R, Scaled, Float16>>(a, threads);
    if (sizeof(C) == 4 && as_they_are && halves<BFloat16>(a))
        return normalize_whole<ExpRow<C, R, Scaled, BFloat16>>(a, threads);
    normalize_whole<ExpRow<C, R, Scaled>>(a, threads);
}

template <Result R, bool Scaled, class C>
void normalize_scaled(const NormalizeArguments &a, Index threads) {
    using Tile = NormalizeColumns<C, R, Scaled>;
    using Short = NormalizeLanes<C, R, Scaled>;
    using Row =
        std::conditional_t<takes_logarithm(R), LongLogRow<C, R, Scaled>, LongExpRow<C, R, Scaled>>;
    Problem p = Problem::of(a.x, sizeof(C), Scaled);
    p.columns_direct = direct<R, C>(a);
    const NormalizeArguments s = a.swapped();
    switch (decide(p, traits_of<R>)) {
        case Driver::column_lanes:  // of operations without tiles
        case Driver::small:         // was done before there were arguments
        case Driver::strips:
            if constexpr (Scaled)
                return;
            else if (p.n <= traits_of<R>.longest_lane_row)
                return normalize_strips<R, C>(a, Short{&a, true}, threads);
            else
                return normalize_strips<R, C>(a, Tile{&a, false}, threads);
        case Driver::lanes: {
            const bool inner = short_rows_run(a.x, p.n) == along_inner;
            const NormalizeArguments &t = inner ? a : s;
            return normalize_tiles(Short{&t, p.columns_direct && inner}, t, threads);
        }
        case Driver::tiles:
            return normalize_tiles(Tile{&a, false}, a, threads);
        case Driver::gathered_tiles: {
            const NormalizeArguments &t = columns_staged(a.x) ? a : s;
            return normalize_tiles(Tile{&t, true}, t, threads);
        }
        case Driver::row_batch:
            return normalize_batches<R, Scaled, C>(a.x.inner == 1 ? s : a, threads);
        case Driver::long_rows:
            return run_long_rows(Row(a), a.x.outer, a.x.inner, threads);
    }
}

template <Result R>
void normalize(const NormalizeArguments &a, Index threads) {
    with_compute({a.x.number, a.out.number}, [&](auto zero) {
        using C = decltype(zero);
        if (a.plain())
            normalize_scaled<R, false, C>(a, threads);
        else
            normalize_scaled<R, true, C>(a, threads);
    });
}

// Of so few elements that anything else than computing would take longer.
template <class C>
void softmax_small(const C *x, C *y, Index rows, Index n) {
    using X = Vec<C>;
    alignas(64) C e[small_call + X::lanes];
    const Scale<X> one = Scale<X>::one();
    Shift<X> shift;
    for (Index r = 0; r < rows; ++r, x += n, y += n) {
        const DoubleDouble<> total = folded<X>(exp_with_max_shift<X, false>(x, e, n, one, shift));
        write_with<X>(ScaleEpilogue<X, true>::all(1, total), e, y, n, false);
    }
}

// The logarithm of the total of a row, relative to its maximum, as the sum of the others tells it.
template <class C>
DoubleDouble<> log_of_row(const C *x, Index n, C max) {
    using X = Vec<C>;
    Accumulator<X> rest, copies;
    add_rest<X, false>(x, n, max, Scale<X>::one(), rest, copies);
    return log_of_rest<C>(rest.total(), copies.total());
}

template <class C>
void log_softmax_small(const C *x, C *y, Index rows, Index n) {
    using X = Vec<C>;
    for (Index r = 0; r < rows; ++r, x += n, y += n) {
        const C max = span_max<X>(x, n);
        const DoubleDouble<> log = log_of_row(x, n, max);
        LogEpilogue<X, false> writer;
        // NaN where the maximum is infinite
        writer.set_lane(0, max, log.hi + static_cast<double>(max - max), log.lo, {1, 0});
        writer.broadcast();
        write_with<X>(writer, x, y, n, false);
    }
}

template <class C>
void logsumexp_small(const NormalizeArguments &a) {
    const C *x = reinterpret_cast<const C *>(a.x.data);
    for (Index r = 0; r < a.x.outer; ++r, x += a.x.n) {
        const C max = span_max<Vec<C>>(x, a.x.n);
        store_log_sum(a, r, 0, max, log_of_row(x, a.x.n, max),
                      [&] { return span_has_nan(x, a.x.n); });
    }
}

// Contiguous rows and default options.
template <Result result, class C>
void normalize_plain(const void *x, void *out, Index rows, Index n, Index threads) {
    const bool small = is_small(rows, n);  // the first line of the table, without the others
    if (small && watched.load(std::memory_order_relaxed))
        remember(Problem::fresh_rows(rows, n, sizeof(C)), traits_of<result>);
    if (small && result == Result::softmax)
        return softmax_small(static_cast<const C *>(x), static_cast<C *>(out), rows, n);
    if (small && result == Result::log_softmax)
        return log_softmax_small(static_cast<const C *>(x), static_cast<C *>(out), rows, n);
    NormalizeArguments a;
    a.x = AnyView::matrix(x, number_of<C>, rows, n);
    a.out = AnyView::matrix(out, number_of<C>, rows, result == Result::logsumexp ? 1 : n);
    if (small) return logsumexp_small<C>(a);
    normalize_scaled<result, false, C>(a, threads);
}

}  // namespace fs
}  // namespace
