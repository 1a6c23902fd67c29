// Cross-entropy of labels, of contiguous rows.
// The loss of a label y is log1p(R / e_y), with R the sum of the other classes' exponentials, and
// the derivative there -R / (R + e_y): a confident row keeps its digits in both, whatever the
// shift.
#pragma once

#include "kernels/drivers/kept_rows.h"
#include "ops/cross_entropy_arguments.h"

namespace {
namespace fs {

template <class C>
struct LabelSums {
    double others;  // R
    double label;   // e_y
    DoubleDouble<> total;
    C center;  // the shift: unit exp(s (x - center)) 2^-exponent
    double exponent, unit = ExpTotal<C>::unit;

    LabelSums(DoubleDouble<> sum, C label_, C center_, double exponent_)
        : others((sum.hi - static_cast<double>(label_)) + sum.lo),
          label(static_cast<double>(label_)),
          total(sum),
          center(center_),
          exponent(exponent_) {}
    // The label carries so much of the total that the others must be summed without it.
    static bool confident(double label, double total) { return label > 0.5 * total; }
    bool confident() const { return confident(label, total.hi); }
    void set_others(DoubleDouble<> s) {
        others = s.value();
        s.add({label, 0});
        total = s;
    }
};

// The exponentials of a row but the label's, in one sweep, which leaves its lane out.
template <class X, class C, class Exp>
DoubleDouble<> sum_others(const C *x, Index n, Index y, const Exp &exp) {
    Accumulator<X> sums;
    for_each_vector<X>(n, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        sums.add(X::without(exp(lanes.load(x + i, masked_logit<C>)), y - i));
    });
    return sums.total();
}

// The same in precise exponentials relative to `top`.
template <class C>
DoubleDouble<> sum_precisely(const C *x, Index n, Index y, double top, DoubleDouble<> factor) {
    using D = Vec<double>;
    constexpr Index step = 64;
    const Scale<D> scale = Scale<D>::all(factor);
    double block[step];
    Accumulator<D> others;
    for_each_block(0, n, step, [&](Index at, Index size) {
        for (Index j = 0; j < size; ++j) block[j] = static_cast<double>(x[at + j]);
        for_each_vector<D>(size, [&](Index j, auto lanes) {
            const auto e = precise_exp<D, true>(lanes.load(block + j, masked_logit<double>),
                                                D::set(top), scale);
            others.add(D::without(e.hi, y - at - j));
            others.add(D::without(e.lo, y - at - j));
        });
    });
    return others.total();
}

// Rows of one chunk; what those that want the loss alone and those that want a gradient have in
// common.
template <class C, bool Scaled>
struct LabelRows {
    using X = Vec<C>;
    using D = Vec<double>;
    using V = typename X::V;
    static constexpr double likely = 0x1p60;  // R / e_y up to which e_y has all its digits
    // and below which R may have lost some
    static constexpr double tiny = sizeof(C) == 4 ? 0x1p-70 : 0x1p-900;

    const CrossEntropyArguments *a;
    RowLosses *losses;
    Rows logits;
    RowSource<C> source{};
    Index piece = 0;

    // Rows whose logarithms are taken together.
    struct Batch {
        static constexpr Index size = 64;
        Index count = 0, outer[size], inner[size];
        double others[size], label[size], weight[size];
    };
    Batch *waits = nullptr;

    LabelRows(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), logits(arguments) {}

    Index n() const { return a->x.n; }
    FS_ALWAYS_INLINE Scale<X> scale_of(Index o, Index i) const {
        return Scaled ? Scale<X>::all(logits.scale(o, i)) : Scale<X>::one();
    }

    void begin(Index p, C *buffer) {
        piece = p, source = RowSource<C>(logits, buffer), waits = new (scratch<Batch>(1)) Batch;
    }
    // body(i, label) for rows from an inner index on; the label is -1 if the row does not count.
    template <class Body>
    FS_ALWAYS_INLINE void each_label(Index o, Index i, Index count, Body body) const {
        Index labels[Batch::size];
        const bool leaves_out = a->may_leave_out();
        for (const Index end = i + count; i < end;) {
            const Index some = end - i < Batch::size ? end - i : Batch::size;
            a->labels_of(o, i, some, labels);
            for (Index k = 0; k < some; ++k, ++i)
                body(i, leaves_out && labels[k] >= 0 && a->leaves_out(o, i) ? -1 : labels[k]);
        }
    }

    // Adds the loss of a row. The result is logsumexp if that is needed, for z_loss.
    FS_ALWAYS_INLINE double add(const LabelSums<C> &s, C logit, double w, double weight, Index o,
                                Index i) {
        const double log_sum = a->z_loss != 0 ? log_sum_of(s, o, i) : 0;
        const bool usual = s.others <= likely * s.label;
        if (usual && a->z_loss == 0 && s.others >= tiny * s.label)
            return wait(o, i, s.others, s.label, w * weight), log_sum;
        put(s, usual, logit, w, weight, log_sum, o, i);
        return log_sum;
    }
    // Of a row that does not wait.
    __attribute__((noinline)) void put(const LabelSums<C> &s, bool usual, C logit, double w,
                                       double weight, double log_sum, Index o, Index i) const {
        const double square = a->z_loss * log_sum * log_sum;
        // log1p(R / e_y) is its argument, which may underflow until it is multiplied
        if (usual && s.others < tiny * s.label) {
            losses->put(o, i, s.others * (w * weight) / s.label + weight * square);
            return;
        }
        const double loss = usual ? std::log1p(s.others / s.label)
                                  : log_sum_less(static_cast<double>(logit), o, i, s);
        losses->put(o, i, weight * (weighted(w, loss) + square));
    }

    // Others so far below the label that some may have been flushed to zero are summed again,
    // relative to it.
    FS_ALWAYS_INLINE void find_tiny(LabelSums<C> &s, const C *x, Index y, Index o, Index i) const {
        if (s.others < tiny * s.label) sum_tiny(s, x, y, o, i);
    }
    __attribute__((noinline)) void sum_tiny(LabelSums<C> &s, const C *x, Index y, Index o,
                                            Index i) const {
        s.label = std::ldexp(1.0, precise_lift), s.center = x[y], s.exponent = -precise_lift,
        s.unit = 1;
        s.set_others(sum_precisely(x, n(), y, static_cast<double>(x[y]), logits.scale(o, i)));
    }

    void flush() {
        Batch &waiting = *waits;
        double loss[Batch::size];
        Accumulator<D> sums;
        for_each_vector<D>(waiting.count, [&](Index k, auto lanes) {
            const auto odds = lanes.load(waiting.others + k, 0) / lanes.load(waiting.label + k, 1);
            const auto l = lanes.load(waiting.weight + k, 0) *
                           sum_of(log1p_nonnegative<D>(odds, typename D::V{}));
            D::store(loss + k, l);
            sums.add(l);
        });
        losses->add(piece, sums.total());
        for (Index k = 0; a->loss && k < waiting.count; ++k)
            losses->store(waiting.outer[k], waiting.inner[k], loss[k]);
        waiting.count = 0;
    }

    FS_ALWAYS_INLINE void wait(Index o, Index i, double others, double label, double weight) {
        Batch &waiting = *waits;
        const Index k = waiting.count++;
        waiting.outer[k] = o, waiting.inner[k] = i;
        waiting.others[k] = others, waiting.label[k] = label, waiting.weight[k] = weight;
        if (waiting.count == Batch::size) flush();
    }

  private:
    double log_sum_of(const LabelSums<C> &s, Index o, Index i) const {
        const double sum = log_sum_less(0, o, i, s);
        return is_small_log_sum(sum) ? small_log_sum<C>(logits, o, i) : sum;
    }
    // logsumexp(s x) - s v, the logarithm in two terms, since they may cancel; NaN for a row
    // without a distribution, else +inf where v is -inf.
    __attribute__((noinline)) double log_sum_less(double v, Index o, Index i,
                                                  const LabelSums<C> &s) const {
        using One = Vec<double, 16>;
        const double sum = s.total.value();
        if (!(sum > 0 && sum - sum == 0)) return std::numeric_limits<double>::quiet_NaN();
        const DoubleDouble<> y =
            scaled_difference(v, static_cast<double>(s.center), logits.scale(o, i));
        if (y.hi == -std::numeric_limits<double>::infinity()) return -y.hi;
        // so that the logarithm does not become one of two that cancel
        const bool near = std::abs(s.exponent) <= 512;
        const double power = near ? std::ldexp(1.0, static_cast<int>(s.exponent)) : 1;
        const auto total = two_sum(One::set(s.total.hi * power), One::set(s.total.lo * power));
        const auto l = log_ratio<One>(total, {One::set(s.unit), One::set(0)},
                                      total.hi / One::set(s.unit), One::set(near ? 0 : s.exponent));
        const auto d = two_sum(l.hi, -One::set(y.hi));
        return d.hi[0] + (d.lo[0] + (l.lo[0] - y.lo));
    }
};

// The loss alone: rows are read once, and only those that turn out to be unusual again.
template <class C, bool Scaled>
struct LabelLossRow : LabelRows<C, Scaled> {
    using Base = LabelRows<C, Scaled>;
    using X = typename Base::X;
    using V = typename Base::V;
    using Exp = FixedShiftExp<X, Scaled>;
    using Base::n, Base::scale_of;
    static constexpr Index most = 64;

    struct Row {
        Index outer, inner, label;
        const C *x;
    };
    Waiting<Row, most> batch;

    using Base::Base;

    void begin(Index p) {
        Base::begin(p, scratch<C>(chunk));
        batch.begin(this->source.limit(most));
    }
    void end() {
        settle();
        this->flush();
    }
    void rows(Index o, Index first, Index count) {
        this->each_label(o, first, count, [&](Index i, Index y) FS_ALWAYS_INLINE {
            if (y < 0)
                this->losses->store(o, i, 0);
            else if (batch.add({o, i, y, this->source.get(o, i, batch.count)}))
                settle();
        });
    }

  private:
    // (Inlined twice, the loop of one copy spills: rows of 240 to 256 classes 1.18.)
    __attribute__((noinline)) void settle() {
        RowTotals<most> sums;
        C logit[most], label[most];
        const auto scale_at = [this](Index k) {
            return this->scale_of(batch.rows[k].outer, batch.rows[k].inner);
        };
        fixed_shift_sums<X, Scaled, most>(
            batch.count, scale_at, sums, logit, label,
            [this](Index k, const Exp &exp, Accumulator<X> &s) FS_ALWAYS_INLINE {
                const Row &row = batch.rows[k];
                if (this->n() > short_row && fixed_shift_plausible(row.x[0] * exp.scale.hi[0]))
                    add_exp<X>(row.x, this->n(), exp, s);
                return row.x[row.label];
            });
        for (Index k = 0; k < batch.count; ++k) {
            const Row &row = batch.rows[k];
            LabelSums<C> s(sums[k], label[k], 0, Shift<X>::fixed_exponent);
            if (!fixed_shift_was_right<C>(s.total.value()))
                s = use_max_shift(row);
            else if (s.confident())
                be_exact(s, row);
            this->add(s, row.x[row.label], this->a->class_weight(row.label),
                      this->a->row_weight(row.outer, row.inner), row.outer, row.inner);
        }
        batch.count = 0;
    }

    // The label has most of the total.
    __attribute__((noinline)) void be_exact(LabelSums<C> &s, const Row &row) const {
        const Scale<X> scale = scale_of(row.outer, row.inner);
        const Exp exp(scale);
        const Index start = row.label / accumulator_block<X> * accumulator_block<X>,
                    end = start + accumulator_block<X> < n() ? start + accumulator_block<X> : n();
        s.set_others(sum_without<X, added_by_fours>(row.x + start, end - start, row.label - start,
                                                    exp, s.total));
        if (!(s.others >= (sizeof(C) == 4 ? 0x1p-20 : 0x1p-40) * static_cast<double>(s.label)))
            s.set_others(sum_others<X>(row.x, n(), row.label, exp));
        this->find_tiny(s, row.x, row.label, row.outer, row.inner);
    }
    // With the shift from the maximum.
    __attribute__((noinline)) LabelSums<C> use_max_shift(const Row &row) const {
        const Scale<X> scale = scale_of(row.outer, row.inner);
        const Shift<X> shift = shift_from_max<X>(row.x, n(), scale);
        const auto exp = [&](V v) FS_ALWAYS_INLINE {
            return exp_max_shift<X, Scaled>(v, shift, scale);
        };
        const C label = exp(X::set(row.x[row.label]))[0];
        // no distribution: +inf
        LabelSums<C> s({}, label - label == 0 ? label : std::numeric_limits<C>::quiet_NaN(),
                       shift.center[0], shift.exponent(0));
        s.set_others(sum_others<X>(row.x, n(), row.label, exp));
        this->find_tiny(s, row.x, row.label, row.outer, row.inner);
        return s;
    }
};

}  // namespace fs
}  // namespace
