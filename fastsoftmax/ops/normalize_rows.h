// softmax of contiguous rows: batches whose exponentials are kept, and long rows.
#pragma once

#include "kernels/drivers/kept_rows.h"
#include "kernels/drivers/row_tasks.h"
#include "ops/normalize_arguments.h"

namespace {
namespace fs {

template <class X, class C, class Exp, class N>
inline void write_exp(const C *x, C *y, isize n, bool streaming, const Exp &exp,
                      const N &normalizer) {
    write_span<X, true>(y, n, streaming, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        return normalizer.apply(exp(lanes.load(x + i, absent_logit<C>)));
    });
}

// softmax guesses the shift and sums at once (the shift need not be the maximum); where the sum
// shows that the guess was wrong (a logit far above, NaN, infinities) the maximum is found and the
// sum made again. Logarithms need the maximum too, and find it in the same sweep.
//
// A row of one chunk is done in one go, softmax keeping its exponentials; a longer one in sweeps
// over chunks, computing them twice.
template <class C, bool Scaled>
struct RowOfArguments {
    using X = Vec<C>;
    const NormalizeArguments *a;
    explicit RowOfArguments(const NormalizeArguments &arguments) : a(&arguments) {}

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }
    isize chunk_end(isize start) const { return n() - start < chunk ? n() : start + chunk; }
    FS_INLINE Scale<X> scale_of(isize o, isize i) const {
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
    void begin(isize) {
        C *buffer = scratch<C>(chunk + kept.memory);
        logits = RowSource<C, S>(*a, buffer);
        kept.begin(a->x, a->out, a->where, a->template writer<R, C>(0, 0), buffer + chunk,
                   logits.limit(Kept::most));
    }
    void end() {
        if (kept.unsettled()) settle();
        kept.end();
    }
    void rows(isize o, isize i, isize count) {
        for (const isize end = i + count; i < end;) {
            i += kept.keep(logits.get(o, i, kept.place()), a->x.inner_stride, o, i,
                           logits.direct ? end - i : 1);
            if (kept.full()) settle();
        }
    }

  private:
    FS_INLINE void settle() {
        kept.settle([this](isize o, isize i) FS_INLINE_LAMBDA { return this->scale_of(o, i); },
                    [this](typename Kept::Batch &b) FS_INLINE_LAMBDA {
                        for (isize k = 0; R != Result::softmax && k < b.count; ++k)
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
    enum Stage { guess, maximum, total, write };
    struct Partial {
        C max;
        Sum sum;
    };
    isize outer = 0, inner = 0;
    Reader<C> from{};
    Writer<C> to{};
    bool streaming = false, guessed = false;
    Stage stage = guess;
    Scale<X> scale{};
    Shift<X> shift{};
    Normalizer<X, R == Result::softmax> normalizer{};
    ChunkResults<Partial> partial;

    using Base::Base;

    void start(isize o, isize i) {
        outer = o, inner = i;
        partial.resize(static_cast<std::size_t>(this->chunks()));
        from = a->template reader<C>(o, i), to = a->template writer<R, C>(o, i),
        streaming = streams<C>(a->x, a->out, a->where);
        scale = this->scale_of(o, i);
        C first;
        guessed = worth_a_guess(*from.get(0, 1, &first) * scale.hi[0]);
        stage = guessed ? guess : maximum;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = this->chunk_end(start),
                    step = from.direct() && (stage != write || to.direct()) ? chunk : gather_block;
        Partial &p = partial[static_cast<std::size_t>(k)];
        Scratch<C> buffer(gather_block), results(gather_block);
        LaneSums<X> sums;
        p.max = absent_logit<C>;
        const auto shifted = [sh = shift, sc = scale](auto v) FS_INLINE_LAMBDA {
            return exp_shifted<X, Scaled>(v, sh, sc);
        };
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const C *x = from.get(at, size, buffer);
            if (stage == guess) {
                add_exp<X>(x, size, TypicalExp<X, Scaled>(scale), sums);
            } else if (stage == maximum) {
                p.max = larger(p.max, span_max<X>(x, size));
            } else if (stage == total) {
                add_exp<X>(x, size, shifted, sums);
            } else {
                C *y = to.place(at, results);
                normalizer.hand_to([&](const auto &shorter) FS_INLINE_LAMBDA {
                    if (guessed)
                        write_exp<X>(x, y, size, streaming, TypicalExp<X, Scaled>(scale), shorter);
                    else
                        write_exp<X>(x, y, size, streaming, shifted, shorter);
                });
                to.put(at, size, results);
            }
        }
        if (streaming && stage == write) stream_fence();
        p.sum = sums.total();
    }

    bool next() {
        if (stage == write) return false;
        Partial all{absent_logit<C>, {}};
        for (const Partial &p : partial) all.max = larger(p.max, all.max), all.sum.add(p.sum);
        const double g = numerator<R>(a->gradient, outer, inner);
        const bool right = near_enough<C>(all.sum.value()) && (g == 0 || fits<C>(g, all.sum.hi));
        if (stage == guess && !right) return guessed = false, stage = maximum, true;
        if (stage == maximum) {
            shift = Shift<X>::from(X::set(all.max), scale);
            if (R != Result::softmax)
                shift = shift.lifted(lifts_of<X>(X::set(static_cast<C>(g))), scale);
            return stage = total, true;
        }
        normalizer = Normalizer<X, R == Result::softmax>::all(g, all.sum);
        return stage = write, true;
    }
};

}  // namespace fs
}  // namespace
