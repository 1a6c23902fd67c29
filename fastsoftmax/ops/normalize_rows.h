// softmax of contiguous rows: batches whose exponentials are kept, and long rows.
#pragma once

#include "kernels/drivers/kept_rows.h"
#include "kernels/drivers/long_rows.h"
#include "ops/normalize_arguments.h"

namespace {
namespace fs {

template <class X, class C, class Exp, class N>
inline void write_exp(const C *x, C *y, Index n, bool streaming, const Exp &exp,
                      const N &normalizer) {
    write_span<X, true>(y, n, streaming, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        return normalizer.apply(exp(lanes.load(x + i, masked_logit<C>)));
    });
}

// softmax tries the fixed shift and sums at once (the shift need not be the maximum); where the sum
// shows that it was wrong (a logit far above, NaN, infinities) the maximum is found and the
// sum made again. Logarithms need the maximum too, and find it in the same sweep.
//
// A row of one chunk is done in one go, softmax keeping its exponentials; a longer one in sweeps
// over chunks, computing them twice.
template <class C, bool Scaled>
struct RowOfArguments {
    using X = Vec<C>;
    const NormalizeArguments *a;
    explicit RowOfArguments(const NormalizeArguments &arguments) : a(&arguments) {}

    Index n() const { return a->x.n; }
    FS_ALWAYS_INLINE Scale<X> scale_of(Index o, Index i) const {
        return Scaled ? Scale<X>::all(a->scale(o, i)) : Scale<X>::one();
    }
};

// Rows of one chunk, the results of which are exponentials. S is the type of numbers that are
// converted on their way in and out.
template <class C, Result R, bool Scaled, class S = C>
struct ExpRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n;
    using Kept = KeptRows<C, R == Result::softmax, Scaled, S>;
    RowSource<C, S> logits{};
    Kept kept{};

    using Base::Base;

    // Once per piece of work: what all its rows have in common.
    void begin(Index) {
        C *buffer = scratch<C>(chunk + kept.memory);
        logits = RowSource<C, S>(*a, buffer);
        kept.begin(a->x, a->out, a->where, a->template writer<R, C>(0, 0), buffer + chunk,
                   logits.limit(Kept::most));
    }
    void end() {
        if (kept.unsettled()) settle();
        kept.end();
    }
    void rows(Index o, Index i, Index count) {
        for (const Index end = i + count; i < end;) {
            i += kept.push(logits.get(o, i, kept.place()), a->x.inner_stride, o, i,
                           logits.direct ? end - i : 1);
            if (kept.full()) settle();
        }
    }

  private:
    FS_ALWAYS_INLINE void settle() {
        kept.finalize([this](Index o, Index i) FS_ALWAYS_INLINE { return this->scale_of(o, i); },
                      [this](typename Kept::Batch &b) FS_ALWAYS_INLINE {
                          for (Index k = 0; R != Result::softmax && k < b.count; ++k)
                              b.numerator[k] =
                                  numerator<R>(this->a->gradient, b.outer[k], b.inner[k]);
                      });
    }
};

// Longer ones.
template <class C, Result R, bool Scaled>
struct LongExpRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n;
    using X = Vec<C>;
    enum Stage { fixed_shift, maximum, total, write };
    struct Partial {
        C max = masked_logit<C>;
        DoubleDouble<> sum{};
        void add(const Partial &p) { max = larger(p.max, max), sum.add(p.sum); }
    };
    Index outer = 0, inner = 0;
    InputLine<C> from{};
    OutputLine<C> to{};
    bool streaming = false, shift_is_fixed = false;
    Stage stage = fixed_shift;
    Scale<X> scale{};
    Shift<X> shift{};
    ScaleEpilogue<X, R == Result::softmax> normalizer{};

    using Base::Base;

    void start(Index o, Index i) {
        outer = o, inner = i;
        from = a->template reader<C>(o, i), to = a->template writer<R, C>(o, i),
        streaming = streams<C>(a->x, a->out, a->where);
        scale = this->scale_of(o, i);
        C first;
        shift_is_fixed = fixed_shift_plausible(*from.load_block(0, 1, &first) * scale.hi[0]);
        stage = shift_is_fixed ? fixed_shift : maximum;
    }

    void sweep(Index start, Index end, Partial &p) {
        const Index step = from.direct() && (stage != write || to.direct()) ? chunk : gather_block;
        Scratch<C> buffer(gather_block), results(gather_block);
        Accumulator<X> sums;
        p.max = masked_logit<C>;
        const auto shifted = [sh = shift, sc = scale](auto v) FS_ALWAYS_INLINE {
            return exp_max_shift<X, Scaled>(v, sh, sc);
        };
        for_each_block(start, end, step, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const C *x = from.load_block(at, size, buffer);
            if (stage == fixed_shift) {
                add_exp<X>(x, size, FixedShiftExp<X, Scaled>(scale), sums);
            } else if (stage == maximum) {
                p.max = larger(p.max, span_max<X>(x, size));
            } else if (stage == total) {
                add_exp<X>(x, size, shifted, sums);
            } else {
                C *y = to.block_for(at, results);
                normalizer.hand_to([&](const auto &shorter) FS_ALWAYS_INLINE {
                    if (shift_is_fixed)
                        write_exp<X>(x, y, size, streaming, FixedShiftExp<X, Scaled>(scale),
                                     shorter);
                    else
                        write_exp<X>(x, y, size, streaming, shifted, shorter);
                });
                to.store_block(at, size, results);
            }
        });
        if (streaming && stage == write) stream_fence();
        p.sum = sums.total();
    }

    bool next(const ChunkResults<Partial> &partial) {
        if (stage == write) return false;
        const Partial all = merged(partial);
        const double g = numerator<R>(a->gradient, outer, inner);
        const bool right =
            fixed_shift_was_right<C>(all.sum.value()) && numerator_fits<C>(g, all.sum.hi);
        if (stage == fixed_shift && !right) return shift_is_fixed = false, stage = maximum, true;
        if (stage == maximum) {
            shift = Shift<X>::from(X::set(all.max), scale);
            if (R != Result::softmax)
                shift = shift.lifted(lifts_of<X>(X::set(static_cast<C>(g))), scale);
            return stage = total, true;
        }
        normalizer = ScaleEpilogue<X, R == Result::softmax>::all(g, all.sum);
        return stage = write, true;
    }
};

}  // namespace fs
}  // namespace
