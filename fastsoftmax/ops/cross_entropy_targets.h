// Cross-entropy of targets for every class, row by row.
#pragma once

#include "kernels/math/scale_epilogue.h"
#include "ops/cross_entropy_arguments.h"
#include "ops/row_log.h"

namespace {
namespace fs {

// Any targets, any length: with log p of every class as log_softmax has it, the loss is a sum of
// terms q (-log p) of one sign, so that nothing cancels.
//
//     q_c = w_c ((1 - s) t_c + s / K),   Q = sum q,   loss = sum q (-log p),
//     derivative = (Q + 2 z log(total)) p_c - q_c
//
// Where p_c is above 1/2, the derivative is made of p_c - 1 = expm1(log p_c).
struct Derivative {  // of single classes
    double max;
    DoubleDouble<> log;  // of the total, relative to the maximum; NaN: the row has no distribution
    DoubleDouble<> scale;
    double p_factor, q_factor;  // what p and q are multiplied by

    // At a class of mass `own`, which may be nearly all there is, and a little more.
    double at(double logit, double own, double more) const {
        const DoubleDouble<> l = log_p(logit);
        const double p = exp_of(l), others = p_factor - q_factor * own;
        // A p that underflows is multiplied in two steps.
        const double push =
            p >= std::numeric_limits<double>::min()
                ? others * p
                : others * exp_of({l.hi / 2, l.lo / 2}) * exp_of({l.hi / 2, l.lo / 2});
        return q_factor * own * expm1_of(l) + push - q_factor * more;
    }
    DoubleDouble<> log_p(double logit) const {
        if (log.hi != log.hi) return log;
        DoubleDouble<> l = scaled_difference(logit, max, scale);
        if (!(l.hi - l.hi == 0)) return {l.hi, 0};
        l.add({-log.hi, -log.lo});
        return l;
    }
};

template <class C, bool Scaled>
struct TargetRow {
    using X = Vec<C>;
    using V = typename X::V;
    enum Stage { logarithm, value, derivative };
    using LogPartial = typename RowLog<C, Scaled>::Partial;
    struct Partial : LogPartial {
        DoubleDouble<> loss{}, mass{};
        void add(const Partial &p) { LogPartial::add(p), loss.add(p.loss), mass.add(p.mass); }
    };

    const CrossEntropyArguments *a;
    RowLosses *losses;
    RowLog<C, Scaled> row;
    Index outer = 0, inner = 0, label = -1;
    double spread = 0;  // s / K
    InputLine<C> t{};
    Stage stage = logarithm;
    bool counted = true;
    double p_factor = 0, q_factor = 0;  // what p and q are multiplied by in the derivative

    TargetRow(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), row(arguments) {}

    Index n() const { return a->x.n; }

    void start(Index o, Index i) {
        outer = o, inner = i;
        row.start(o, i);
        label = a->labels() ? a->label(o, i) : -1;
        if (!a->labels()) t = InputLine<C>::broadcast(a->target, o, i);
        const Index present = a->present(o, i);
        spread = present ? a->smoothing / static_cast<double>(present) : 0;
        stage = logarithm;
        counted = present && (label >= 0 || !a->labels()) && a->row_weight(o, i) != 0;
        if (counted) return;
        a->clear_gradient(o, i);
        losses->put(o, i, 0);
        stage = derivative;
    }

    void sweep(Index start, Index end, Partial &p) {
        if (!counted) return;
        if (stage == logarithm) return row.sweep(start, end, p);
        Accumulator<X> sums, masses;
        Scratch<C> x_buffer(gather_block);
        for_each_block(start, end, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const C *logit = row.x.load_block(at, size, x_buffer);
            if (stage == value)
                add_terms(logit, at, size, sums, masses);
            else
                write(logit, at, size);
        });
        p.loss = sums.total(), p.mass = masses.total();
    }

    bool next(const ChunkResults<Partial> &partial) {
        if (stage == derivative) return false;
        if (stage == logarithm) {
            if (!row.next(partial)) stage = value;
            return true;
        }
        const Partial all = merged(partial);
        finish(all.loss.value(), all.mass.value());
        stage = derivative;
        return a->gradient.data != nullptr;
    }

  private:
    // q of a block, without the label's own part. Masked classes have no part of what is spread.
    const C *masses_of(Index at, Index size, C *q) const {
        const C *given = nullptr;
        Scratch<C> t_buffer(gather_block);
        if (!a->labels()) given = t.load_block(at, size, t_buffer);
        const std::uint8_t *mask =
            a->where.data ? a->where.at(outer, inner) + at * a->where.n_stride : nullptr;
        const C keep = static_cast<C>(1 - a->smoothing), add = static_cast<C>(spread);
        for (Index j = 0; j < size; ++j) q[j] = given ? keep * given[j] : C(0);
        if (spread != 0) {
            for (Index j = 0; j < size; ++j)
                q[j] += !mask || mask[j * a->where.n_stride] ? add : C(0);
        }
        if (a->weight && a->weight.n_stride == Index(sizeof(double))) {
            const double *weights = a->class_weights(at);
            for (Index j = 0; j < size; ++j) q[j] = static_cast<C>(q[j] * weights[j]);
        } else {
            for (Index j = 0; a->weight && j < size; ++j)
                q[j] = static_cast<C>(q[j] * *a->class_weights(at + j));
        }
        return q;
    }

    // Classes without mass are left out: 0 times infinity is 0 here.
    void add_terms(const C *logit, Index at, Index size, Accumulator<X> &sums,
                   Accumulator<X> &masses) const {
        if (a->labels() && spread == 0) return;
        Scratch<C> buffer(gather_block);
        const C *q = masses_of(at, size, buffer);
        for_each_vector<X>(size, [&](Index j, auto lanes) {
            const V m = lanes.load(q + j, 0), l = row.writer.apply(lanes.load(logit + j, 0));
            sums.add(m == V{} ? V{} : -(m * l));
            masses.add(m);
        });
    }

    void finish(double loss, double mass) {
        if (a->labels()) {
            const double own = (1 - a->smoothing) * a->class_weight(label);
            if (own != 0)
                loss -= own * of_classes().log_p(static_cast<double>(row.logit(label))).value();
            mass += own;
        }
        if (!row.defined()) loss = std::numeric_limits<double>::quiet_NaN();
        const double factor = row.a.scale(outer, inner).hi, weight = a->row_weight(outer, inner);
        const double log_sum = a->z_loss != 0 ? log_sum_of_row() : 0;
        losses->put(outer, inner, weight * (loss + a->z_loss * log_sum * log_sum));
        q_factor = weight * a->scale * factor;
        p_factor = q_factor * (mass + 2 * a->z_loss * log_sum);
    }

    void write(const C *logit, Index at, Index size) const {
        // Twice as large, the exponentials make a total above 1: multiplied by a factor over it,
        // they do not grow.
        const DoubleDouble<> total{2 * row.sum.hi, 2 * row.sum.lo};
        if (fits<C>(p_factor, total.hi) || p_factor == 0 || !row.defined()) {
            Shift<X> shift = row.shift;
            shift.magic = shift.magic + 1, shift.lowest = shift.lowest - row.scale.unit;
            const auto exp = [&](V v) FS_ALWAYS_INLINE {
                return exp_max_shift<X, Scaled>(v, shift, row.scale);
            };
            write_with(exp, ScaleEpilogue<X, false>::all(p_factor, total), logit, at, size);
        } else {
            write_lifted(logit, at, size);
        }
    }
    // Exponentials would underflow before they are multiplied by a large factor, or what multiplies
    // them would.
    __attribute__((noinline)) void write_lifted(const C *logit, Index at, Index size) const {
        using Exp = LiftedExp<X, Scaled>;
        const Exp exp(X::set(row.max), Exp::all(p_factor), row.scale);
        const double total = std::ldexp(exp_of(row.log), Exp::lift(p_factor));
        write_with(exp, ScaleEpilogue<X, false>::all(p_factor, {total, 0}), logit, at, size);
    }
    template <class Exp>
    FS_ALWAYS_INLINE void write_with(const Exp &exp, const ScaleEpilogue<X, false> &normalizer,
                                     const C *logit, Index at, Index size) const {
        Scratch<C> buffer(gather_block), results(gather_block);
        const C *q = masses_of(at, size, buffer);
        const V factor = X::set(static_cast<C>(q_factor));
        const OutputLine<C> to = a->gradient_writer<C>(outer, inner);
        // One class may have p above 1/2: the label if there is one, else that of the maximum. Its
        // logit and masses are read before the results, which may overwrite them, are written.
        const Index one = a->labels()              ? label - at
                          : row.log_total() < 0.69 ? find(logit, size, row.max)
                                                   : -1;
        const bool here = one >= 0 && one < size;
        const double own = !here         ? 0
                           : a->labels() ? (1 - a->smoothing) * a->class_weight(label)
                                         : static_cast<double>(q[one]);
        const double spread_mass = here && a->labels() ? static_cast<double>(q[one]) : 0;
        const C exact =
            here
                ? static_cast<C>(of_classes().at(static_cast<double>(logit[one]), own, spread_mass))
                : C(0);
        C *g = to.block_for(at, results);
        for_each_vector<X>(size, [&](Index j, auto lanes) {
            const V e = exp(lanes.load(logit + j, masked_logit<C>));
            lanes.store(g + j, normalizer.apply(e) - lanes.load(q + j, 0) * factor);
        });
        if (here) g[one] = exact;
        to.store_block(at, size, g);
    }
    Derivative of_classes() const {
        return {static_cast<double>(row.max),
                row.defined() ? DoubleDouble<>{row.log.hi, row.log.lo}
                              : DoubleDouble<>{std::numeric_limits<double>::quiet_NaN(), 0},
                row.a.scale(outer, inner), p_factor, q_factor};
    }
    static Index find(const C *x, Index size, C value) {
        for (Index j = 0; j < size; ++j) {
            if (x[j] == value) return j;
        }
        return -1;
    }
    double log_sum_of_row() const {
        const DoubleDouble<> top = row.a.scale(outer, inner).times(static_cast<double>(row.max));
        DoubleDouble<> s{top.hi, top.lo};
        if (!(s.hi - s.hi == 0)) return s.hi;
        s.add({row.log.hi, row.log.lo});
        const double sum = s.value();
        return is_small_log_sum(sum) ? small_log_sum<C>(row.a, outer, inner) : sum;
    }
};

}  // namespace fs
}  // namespace
