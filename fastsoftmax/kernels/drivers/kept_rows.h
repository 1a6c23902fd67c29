// Exponentials of contiguous rows, kept until the sums of a batch of rows are known.
#pragma once

#include "kernels/drivers/row_batch.h"
#include "kernels/math/exp_precise.h"
#include "kernels/memory/line.h"

namespace {
namespace fs {

// The shift from the maximum of a row; of short rows as NormalizeLanes has it.
template <class X, class S>
FS_ALWAYS_INLINE inline Shift<X> shift_from_max(const S *x, Index n, const Scale<X> &scale) {
    using V = typename X::V;
    typename X::I off = bits<X>(X::set(n > short_row));
    if (n <= short_row)
        for_each_vector<X>(n,
                           [&](Index i, auto lanes) { off |= off_grid<X>(lanes.load(x + i, 0)); });
    const V max = X::set(span_max<X>(x, n));
    return any<X>(off) ? Shift<X>::from(max, scale) : Shift<X>::from(max, scale, max == max);
}

// exp(x) of a row with this shift, kept.
template <class X, bool Scaled, class S, class C>
FS_ALWAYS_INLINE inline typename Accumulator<X>::Unfolded exp_with_max_shift(const S *x, C *e,
                                                                             Index n,
                                                                             const Scale<X> &scale,
                                                                             Shift<X> &shift) {
    using V = typename X::V;
    shift = shift_from_max<X>(x, n, scale);
    return keep_exp<X>(
        x, e, n, [&](V v) FS_ALWAYS_INLINE { return exp_max_shift<X, Scaled>(v, shift, scale); });
}

// Rows of one chunk whose exponentials are kept until their sum is known, and written then, each
// times a number of its own.
//
// Rows that fit L1 keep them in scratch, a batch of rows at a time. What is done once a row is done
// for the rows of a batch in vectors, hence the arrays, and a batch is written along with the
// exponentials of the next one: that hides the latency of sums and reciprocals, and loads and
// stores among arithmetic. Longer rows keep them in the output itself, if it is not the input,
// which must stay intact until the sum is known to be right. So do large arrays: the exponentials
// of as many rows as a cache holds, then their results, make one stream of loads and one of stores
// after the other. (Measured, AVX-512, float: batches instead of single rows gain 20 % at 64
// elements and 12 % at 100; arrays 40 % and 35 % again; writing along gains 20 % at 1000 and loses
// 40 % at 32000, where scratch doubles the time. Out of the cache, 0.70 -> 0.44 ns per element at
// 400 elements and 0.52 -> 0.43 at 1000, where a copy takes 0.38.)
template <class C, bool UnitNumerators, bool Scaled, class S = C>
class KeptRows {
    using X = Vec<C>;
    using V = typename X::V;
    using Sums = Accumulator<X>;
    using Unfolded = typename Sums::Unfolded;
    using Normal = ScaleEpilogue<X, UnitNumerators>;
    // logits and results are contiguous numbers of another type
    static constexpr bool converts = !std::is_same<S, C>::value;

  public:
    static constexpr Index most = 64;   // rows of a batch
    static constexpr Index in_l1 = 16;  // and of one that is kept in scratch
    struct Batch {
        Index count = 0, outer[most], inner[most];
        const S *x[most];
        C *e[most];     // the exponentials
        S *y[most];     // the results
        C first[most];  // logits
        // the shift of the exponentials: exp(s (x - center)) 2^-exponent
        C center[most];
        double exponent[most];
        RowTotals<most> total;
        double numerator[most];  // none for softmax: 1
        alignas(64) C normal_hi[most], normal_lo[most];
        bool placed = false;  // whether rows have
        Index place[most];    // a result that is
        C value[most];        // this, whatever its exponential
    };
    // The two batches are not a multiple of 4096 bytes apart: the processor would take the loads of
    // one for those of what it has just stored to the other.
    static constexpr Index apart(Index elements) { return elements / 1024 * 1024 + 1024 + 512; }
    // in elements of scratch
    static constexpr Index other_bank = apart(kept_in_l1 + in_l1 * X::lanes),
                           memory = other_bank + chunk;

  private:
    Index n = 0, limit = 1;
    // where exponentials are: in scratch along with those of the batch before, in the output, or in
    // scratch alone
    bool in_scratch = true, in_output = false;
    AnyView out{};
    Mask where{};
    OutputLine<C> to{};
    bool direct = false, streaming = false;
    Batch *current = nullptr, *before = nullptr;
    Index waiting = 0;  // rows of the batch before without results

  public:
    KeptRows() {}
    // begin() sets all there is: a copy of the rows would cost a tiny call a quarter of its time
    KeptRows(const KeptRows &) {}

    // `writer` is that of the first row.
    void begin(const AnyView &x, const AnyView &out_, const Mask &where_,
               const OutputLine<C> &writer, C *scratch, Index most_rows) {
        current = new (fs::scratch<Batch>(2)) Batch, before = new (current + 1) Batch;
        n = x.n, out = out_, where = where_, to = writer;
        direct = out.data && (converts || to.direct());
        streaming = converts && out.outer * out.n * out.inner * Index(sizeof(S)) >= stream_from;
        const bool large =
            direct && !converts && n >= kept_in_output_from && streams<C>(x, out, where);
        in_scratch = n <= kept_in_l1 && !large;
        in_output = !in_scratch && direct && !converts && out.data != x.data;
        // (16384 x 1024 float16: four rows at a time 0.81 of the time of two)
        const Index elements = large ? kept_in_output : streaming ? kept_in_l1 : batch_elements;
        limit = rows_of_batch(elements, n, large || most_rows < in_l1 ? most_rows : in_l1);
        waiting = 0;
        const Index pitch = (n + X::lanes - 1) / X::lanes * X::lanes;
        for (Index k = 0; !in_output && k < limit; ++k)
            current->e[k] = scratch + k * pitch, before->e[k] = scratch + other_bank + k * pitch;
    }

    // Takes rows with inner indices from i on, as many of `count` as there is room for, whose
    // logits (`step` bytes apart) stay where they are until the batch is finalized; place() is that
    // of the next row in it. When it is full() it must be finalized.
    Index place() const { return current->count; }
    bool full() const { return current->count == limit; }
    FS_ALWAYS_INLINE Index push(const S *x, Index step, Index o, Index i, Index count) {
        Batch &b = *current;
        const Index first = b.count, end = limit - first < count ? limit : first + count,
                    y_step = out.inner_stride;
        char *y = out.at(o, i);
        for (Index k = first; k < end; ++k, x = advance(x, step), y += y_step) {
            b.outer[k] = o, b.inner[k] = i + (k - first), b.x[k] = x,
            b.first[k] = static_cast<C>(x[0]);
            b.y[k] = direct ? reinterpret_cast<S *>(y) : reinterpret_cast<S *>(b.e[k]);
            if (in_output) b.e[k] = reinterpret_cast<C *>(y);
        }
        b.count = end;
        return end - first;
    }
    // One row, with a result that is its own.
    FS_ALWAYS_INLINE void push(const S *x, Index o, Index i, Index at) {
        current->place[current->count] = at, current->placed = true;
        push(x, 0, o, i, 1);
    }

    // Finalizes the batch: then(batch) gets the totals, and decides on numerators (and values).
    // scale_of(o, i) is the scale of a row.
    template <class ScaleOf, class Then>
    FS_ALWAYS_INLINE void finalize(ScaleOf scale_of, Then then) {
        Batch &b = *current;
        if (!Scaled && n > short_row && fixed_shifts_plausible<X>(b.first, b.count))
            try_fixed_shifts(b);
        else
            for (Index k = 0; k < b.count; ++k)
                try_fixed_shift(b, k, scale_of(b.outer[k], b.inner[k]));
        write_waiting(0);
        then(b);
        for (Index k = 0; !UnitNumerators && k < b.count; ++k) {
            if (!fits<C>(b.numerator[k], b.total.hi[k]))
                lift(b, k, scale_of(b.outer[k], b.inner[k]));
        }
        Normal::rows(UnitNumerators ? nullptr : b.numerator, b.total, b.count, b.normal_hi,
                     b.normal_lo);
        waiting = out.data ? b.count : 0;
        current = before, before = &b;
        current->count = 0, current->placed = false;
        if (!in_scratch) write_waiting(0);
    }
    bool unsettled() const { return current->count > 0; }
    // After the last batch.
    void end() {
        write_waiting(0);
        if (streaming) stream_fence();
    }

    // The sum of all kept exponentials of a row but one.
    DoubleDouble<> others(const C *e, Index at) const {
        Sums rest;
        for_each_vector<X>(
            n, [&](Index j, auto lanes) { rest.add(X::without(lanes.load(e + j, 0), at - j)); });
        return rest.total();
    }

  private:
    // The exponentials of a batch with the fixed shift, and the results of the rows that wait.
    //
    // Loads of logits whose addresses are a little above those of results, but for multiples of
    // 4096 bytes, would wait for these, as if they read what was just stored (a third more time).
    // Then results come in another order: first those of rows further on or, of long rows, the
    // second half.
    void try_fixed_shifts(Batch &b) {
        const Scratch<Unfolded> sums(most);
        const Index both = b.count < waiting ? b.count : waiting;
        const bool clash = both && (reinterpret_cast<std::uintptr_t>(before->y[0]) -
                                    reinterpret_cast<std::uintptr_t>(b.x[0])) %
                                           4096 <
                                       512;
        const Index ahead = clash && both == waiting ? both / 4 : 0;
        if (converts && streaming)
            keep_and_write<false, converts>(b, both, ahead, sums);
        else if (clash && !ahead)
            keep_and_write<true, false>(b, both, ahead, sums);
        else
            keep_and_write<false, false>(b, both, ahead, sums);
        if (both < b.count) keep_rows(b, both, sums);
        for (Index k = 0; finishes() && k < both; ++k) finish(k);
        write_waiting(both);
        b.total.template set<X>(sums, b.count);
        for (Index k = 0; k < b.count; ++k)
            b.center[k] = 0, b.exponent[k] = Shift<X>::fixed_exponent;
        if (b.total.template fixed_shift_was_right<C>(b.count)) return;
        for (Index k = 0; k < b.count; ++k) {
            if (!fixed_shift_was_right<C>(b.total.hi[k])) use_max_shift(b, k, Scale<X>::one());
        }
    }
    // (The exponential is made anew in each function: one that is shared would have its constants
    // in memory.)
    __attribute__((noinline)) void keep_rows(const Batch &b, Index first, Unfolded *sums) const {
        const FixedShiftExp<X, false> exp(Scale<X>::one());
        for (Index k = first; k < b.count; ++k) sums[k] = keep_exp<X>(b.x[k], b.e[k], n, exp);
    }
    template <bool second_half_first, bool past_caches>
    __attribute__((noinline)) void keep_and_write(const Batch &b, Index rows, Index ahead,
                                                  Unfolded *sums) const {
        const FixedShiftExp<X, false> exp(Scale<X>::one());
        const Index length = n, whole = length / X::lanes * X::lanes,
                    turn = whole / (2 * X::lanes) * X::lanes;
        for (Index k = 0; k < rows; ++k) {
            const Index w = k + ahead < rows ? k + ahead : k + ahead - rows;
            const Normal scaled = Normal::row(before->normal_hi[w], before->normal_lo[w]);
            const C *e = before->e[w];
            S *y = before->y[w];
            if (Normal::is_seldom(before->normal_lo[w])) {
                sums[k] = keep_exp<X>(b.x[k], b.e[k], length, exp);
                write_row(w);
                continue;
            }
            constexpr bool one_term = Normal::seldom_two;
            // overlaps the last whole vector; read before results, which may take the place of e
            const V end = scaled.template apply<one_term>(X::load(e + length - X::lanes));
            const Streamed lines = past_caches ? Streamed::of(y, length) : Streamed{0, length};
            sums[k] = keep_exp<X>(b.x[k], b.e[k], length, exp, [&](Index i) FS_ALWAYS_INLINE {
                const Index turned = !second_half_first ? i
                                     : i + turn < whole ? i + turn
                                                        : i + turn - whole,
                            j = turned + lines.first;
                if (past_caches && j >= lines.end) return;
                const V v = scaled.template apply<one_term>(X::load(e + j));
                if (past_caches)
                    stream_as<X>(y + j, v);
                else
                    store_as<X>(y + j, v);
            });
            if (past_caches) {
                write_with<X>(scaled, e, y, lines.first, false);
                write_with<X>(scaled, e + lines.end, y + lines.end, length - lines.end, false);
            } else if (whole < length) {
                store_as<X>(y + length - X::lanes, end);
            }
        }
    }

    // The same row by row, where the fixed shift will not do for all.
    void try_fixed_shift(Batch &b, Index k, const Scale<X> &scale) {
        if (n > short_row && fixed_shift_plausible(b.first[k] * scale.hi[0])) {
            const FixedShiftExp<X, Scaled> exp(scale);
            b.center[k] = 0, b.exponent[k] = Shift<X>::fixed_exponent;
            set_total(b, k, keep_exp<X>(b.x[k], b.e[k], n, exp));
            if (fixed_shift_was_right<C>(b.total.hi[k])) return;
        }
        use_max_shift(b, k, scale);
    }
    void use_max_shift(Batch &b, Index k, const Scale<X> &scale) const {
        Shift<X> shift;
        set_total(b, k, exp_with_max_shift<X, Scaled>(b.x[k], b.e[k], n, scale, shift));
        b.center[k] = shift.center[0], b.exponent[k] = shift.exponent(0);
    }
    // Exponentials that underflow, while their products with a weight do not, are made again; all
    // are, if products with the normalizer would underflow.
    __attribute__((noinline)) void lift(Batch &b, Index k, const Scale<X> &scale) const {
        const double factor = b.numerator[k], ratio = std::abs(factor) / b.total.hi[k];
        if (factor == 0 ||
            !(ratio > 0 && factor - factor == 0 && b.total.hi[k] - b.total.hi[k] == 0))
            return;
        if (ratio > 1 && !lost_any(b, k, std::log2(ratio), scale)) return;
        using Exp = LiftedExp<X, Scaled>;
        const Exp exp(X::set(span_max<X>(b.x[k], n)), Exp::all(factor), scale);
        Sums sums;
        for_each_vector<X>(n, [&](Index j, auto lanes) {
            const auto e = exp(lanes.load(b.x[k] + j, masked_logit<C>));
            lanes.store(b.e[k] + j, e);
            sums.add(e);
        });
        b.total.set(k, sums.total());
    }
    bool lost_any(const Batch &b, Index k, double octaves, const Scale<X> &scale) const {
        const double least = b.exponent[k] - Format<C>::bias - Format<C>::mantissa - octaves - 2;
        const auto from = X::set(b.center[k] + static_cast<C>(least) * scale.unit[0]),
                   smallest = X::set(std::numeric_limits<C>::min());
        typename X::I lost = {};
        for_each_vector<X>(n, [&](Index j, auto lanes) {
            lost |= (lanes.load(b.e[k] + j, 1) < smallest) &
                    (lanes.load(b.x[k] + j, masked_logit<C>) >= from);
        });
        return any<X>(lost);
    }
    static void set_total(Batch &b, Index k, const Unfolded &sum) {
        b.total.set(k, folded<X>(sum));
    }

    void write_waiting(Index first) {
        for (Index k = first; k < waiting; ++k) {
            write_row(k);
            if (finishes()) finish(k);
        }
        waiting = 0;
    }
    void write_row(Index k) const {
        Normal::row(before->normal_hi[k], before->normal_lo[k])
            .hand_to([&](const auto &normalizer) FS_ALWAYS_INLINE {
                write_with<X>(normalizer, before->e[k], before->y[k], n, streaming);
            });
    }
    bool finishes() const { return before->placed || !direct; }
    void finish(Index k) const {
        if (before->placed) before->y[k][before->place[k]] = static_cast<S>(before->value[k]);
        if constexpr (!converts) {
            if (!direct) scatter(*before, k);
        }
    }
    __attribute__((noinline)) void scatter(const Batch &b, Index k) const {
        OutputLine<C> t = to;
        t.p += out.offset(b.outer[k], b.inner[k]);
        if (t.mask) t.mask += where.offset(b.outer[k], b.inner[k]);
        t.store_block(0, n, b.y[k]);
    }
};

}  // namespace fs
}  // namespace
