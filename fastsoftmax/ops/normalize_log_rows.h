// log_softmax and logsumexp of contiguous rows: batches, and long rows.
#pragma once

#include "ops/normalize_rows.h"
#include "ops/row_log.h"

namespace {
namespace fs {

// What becomes of the logarithm of a total (relative to the maximum): logsumexp itself ...
template <class C, class HasNan>
void store_log_sum(const NormalizeArguments &a, Index o, Index i, C max, DoubleDouble<> log,
                   HasNan has_nan) {
    using D = Vec<double, 16>;
    a.out.store(
        o, 0, i,
        log_sum(a, o, i, static_cast<double>(max), {D::set(log.hi), D::set(log.lo)}, has_nan));
}

// Rows of one chunk, the results of which are logarithms. These are taken of several rows together,
// if they are still in the cache when they are written.
template <class C, Result R, bool Scaled>
struct LogRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n, Base::scale_of;
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    static constexpr bool keeps = R == Result::log_softmax;
    RowSource<C> logits{};
    OutputLine<C> to{};
    bool direct_out = false, streaming = false;
    C *results = nullptr;

    static constexpr Index most = 16;
    struct Row {
        Index outer, inner;
        const C *x;
    };
    Waiting<Row, most> batch;

    using Base::Base;

    void begin(Index) {
        C *buffer = scratch<C>(2 * chunk);
        logits = RowSource<C>(*a, buffer), results = buffer + chunk;
        if constexpr (keeps)
            to = a->template writer<R, C>(0, 0), streaming = streams<C>(a->x, a->out, a->where);
        direct_out = keeps ? to.direct() : a->out.number == number_of<C>;
        batch.begin(n() > kept_in_l1 ? 1 : logits.limit(most));
    }
    void end() {
        flush();
        if (streaming) stream_fence();
    }
    void rows(Index o, Index i, Index count) {
        for (const Index end = i + count; i < end; ++i) {
            if (batch.add({o, i, logits.get(o, i, batch.count)})) flush();
        }
    }

  private:
    struct FixedShiftSums {  // of the batch
        RowTotals<most> sum;
        C max[most] = {}, at_max[most] = {};
    };

    void flush() {
        FixedShiftSums g;
        try_fixed_shift(g);
        if (!Scaled && g.sum.template fixed_shift_was_right<C>(batch.count))
            write_usual(g);
        else
            write_any(g);
        batch.count = 0;
    }
    bool singly() const { return summed_singly<X>(n()); }
    __attribute__((noinline)) void try_fixed_shift(FixedShiftSums &g) const {
        const auto scale_at = [this](Index k) {
            return this->scale_of(batch.rows[k].outer, batch.rows[k].inner);
        };
        fixed_shift_sums<X, Scaled, most>(
            batch.count, scale_at, g.sum, g.max, g.at_max,
            [this, alone = singly()](Index k, const FixedShiftExp<X, Scaled> &fixed,
                                     Accumulator<X> &s) FS_ALWAYS_INLINE {
                const C *x = batch.rows[k].x;
                if (!fixed_shift_plausible(x[0] * fixed.scale.hi[0])) return C(0);
                const auto exp = [&](V v) FS_ALWAYS_INLINE {
                    return fixed.unlimited(v);
                };
                const C max = alone ? add_exp_and_max<true, X>(x, this->n(), exp, s)
                                    : add_fixed_exp_and_max<Scaled, X>(x, this->n(), fixed, s);
                if (!fixed.in_reach(max)) s = {};
                return max;
            });
    }
    ExpTotal<C> total_of(const FixedShiftSums &g, Index k) const {
        ExpTotal<C> t{g.sum[k], g.max[k], g.at_max[k], 0, Shift<X>::fixed_exponent};
        const Row &row = batch.rows[k];
        if (!singly() && t.max_dominates()) {
            recompute_tail<X>(
                t, 0, n(), [&](Index at, Index) { return row.x + at; },
                FixedShiftExp<X, Scaled>(scale_of(row.outer, row.inner)));
        }
        return t;
    }

    // All shifts were right.
    void write_usual(FixedShiftSums &g) const {
        for (Index k = 0; !singly() && k < batch.count; ++k) g.sum.set(k, total_of(g, k).sum);
        alignas(64) C hi[most], lo[most], sum[most];
        for (Index k = 0; k < batch.count; k += X::lanes) {
            const UsualLogs<X> log(
                X::load(g.max + k), X::load(g.at_max + k),
                [&](int p) FS_ALWAYS_INLINE { return g.sum.template part<D>(k + p * D::lanes); });
            X::store(hi + k, log.hi), X::store(lo + k, log.lo), X::store(sum + k, log.sum());
        }
        for (Index k = 0; k < batch.count; ++k) {
            const Row &row = batch.rows[k];
            const ExpTotal<C> t{g.sum[k], g.max[k], g.at_max[k], 0, 0};
            if (t.tail_underflows() || (!keeps && cancels(g.max[k], sum[k], sum[k])))
                write(row, t, {static_cast<double>(hi[k]), static_cast<double>(lo[k])});
            else if (keeps)
                write(row, LogEpilogue<X, Scaled>{X::set(g.max[k]), X::set(hi[k]), X::set(lo[k]),
                                                  V{}, V{}, V{}});
            else if (direct_out)
                *reinterpret_cast<C *>(a->out.at(row.outer, row.inner)) = sum[k];
            else
                a->out.store(row.outer, 0, row.inner, static_cast<double>(sum[k]));
        }
    }
    void write_any(const FixedShiftSums &g) const {
        ExpTotal<C> total[most];
        DoubleDouble<> log[most];
        LogTotals<C, Scaled, most> totals;
        for (Index k = 0; k < batch.count; ++k) {
            const Row &row = batch.rows[k];
            total[k] = fixed_shift_was_right<C>(g.sum.hi[k])
                           ? total_of(g, k)
                           : careful_total<X, Scaled>(row.x, n(), scale_of(row.outer, row.inner));
            totals.set(k, total[k], Scaled ? a->scale(row.outer, row.inner) : DoubleDouble<>{1, 0});
        }
        totals.solve(batch.count, log);
        for (Index k = 0; k < batch.count; ++k) write(batch.rows[k], total[k], log[k]);
    }
    __attribute__((noinline)) void write(const Row &row, const ExpTotal<C> &t,
                                         DoubleDouble<> log) const {
        if (t.tail_underflows()) {
            Accumulator<X> rest, copies;
            add_rest<X, Scaled>(row.x, n(), t.max, scale_of(row.outer, row.inner), rest, copies);
            log = log_of_rest<C>(rest.total(), copies.total());
        }
        if constexpr (keeps)
            write(row, log_writer<Scaled>(*a, row.outer, row.inner, t.max, log));
        else
            store_log_sum(*a, row.outer, row.inner, t.max, log,
                          [&] { return span_has_nan(row.x, n()); });
    }
    FS_ALWAYS_INLINE void write(const Row &row, const LogEpilogue<X, Scaled> &writer) const {
        C *y = direct_out ? reinterpret_cast<C *>(a->out.at(row.outer, row.inner)) : results;
        write_with<X>(writer, row.x, y, n(), streaming);
        if (!direct_out) scatter(row);
    }
    __attribute__((noinline)) void scatter(const Row &row) const {
        OutputLine<C> t = to;
        t.p += a->out.offset(row.outer, row.inner);
        if (t.mask) t.mask += a->where.offset(row.outer, row.inner);
        t.store_block(0, n(), results);
    }
};

// Longer ones.
template <class C, Result R, bool Scaled>
struct LongLogRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n;
    using X = Vec<C>;
    static constexpr bool keeps = R == Result::log_softmax;
    using Partial = typename RowLog<C, Scaled>::Partial;
    RowLog<C, Scaled> row;
    OutputLine<C> to{};
    bool streaming = false, writes = false;

    explicit LongLogRow(const NormalizeArguments &arguments) : Base(arguments), row(arguments) {}

    void start(Index o, Index i) {
        row.start(o, i);
        if constexpr (keeps)
            to = a->template writer<R, C>(o, i), streaming = streams<C>(a->x, a->out, a->where);
        writes = false;
    }
    void sweep(Index start, Index end, Partial &p) {
        if (!writes)
            row.sweep(start, end, p);
        else
            write(start, end);
    }
    bool next(const ChunkResults<Partial> &partial) {
        if (writes) return false;
        if (row.next(partial)) return true;
        if constexpr (!keeps)
            store_log_sum(*a, row.outer, row.inner, row.max, row.log, [&] { return has_nan(); });
        return writes = keeps;
    }

  private:
    void write(Index start, Index end) const {
        Scratch<C> buffer(gather_block), results(gather_block);
        const Index step = row.x.direct() && to.direct() ? chunk : gather_block;
        for_each_block(start, end, step, [&](Index at, Index size) FS_ALWAYS_INLINE {
            write_with<X>(row.writer, row.x.load_block(at, size, buffer), to.block_for(at, results),
                          size, streaming);
            to.store_block(at, size, results);
        });
        if (streaming) stream_fence();
    }
    bool has_nan() const {
        Scratch<C> buffer(gather_block);
        bool found = false;
        for_each_block(0, n(), gather_block, [&](Index at, Index size) {
            found |= span_has_nan(row.x.load_block(at, size, buffer), size);
        });
        return found;
    }
};

}  // namespace fs
}  // namespace
