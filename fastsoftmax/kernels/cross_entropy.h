// Cross-entropy of rows of logits, with its gradient; what boosting wants of it, with its
// curvature.
#pragma once

#include <cmath>

#include "normalize.h"

namespace {
namespace fs {

struct CrossEntropyArguments : Rows {
    AnyView target;                 // labels (one integer a row), or a probability for every class
    AnyView loss, gradient;         // without data: not wanted
    AnyView weight, sample_weight;  // of classes, of rows; without data: 1
    isize ignored = -1;
    double smoothing = 0, z_loss = 0, scale = 1;

    const Rows &logits() const { return *this; }
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
        for (isize c = 0; c < x.n; ++c) {
            const double w = std::abs(*class_weights(c));
            extreme |= w != 0 && !(w >= 0x1p-40 && w <= 0x1p40);
        }
        return extreme;
    }
    const double *class_weights(isize c) const {
        return reinterpret_cast<const double *>(weight.data + c * weight.n_stride);
    }
    // The label of a row; -1 where it is not to be counted. All others were checked before.
    isize label(isize o, isize i) const {
        isize y;
        return labels_of(o, i, 1, &y), y;
    }
    // Those of `count` rows from an inner index on.
    void labels_of(isize o, isize i, isize count, isize *labels) const {
        with_type(target.number, [&](auto *type) {
            const auto *p = reinterpret_cast<decltype(type)>(target.at(o, i));
            for (isize k = 0; k < count; ++k, p = advance(p, target.inner_stride)) {
                const isize y = static_cast<isize>(*p);
                labels[k] = y >= 0 && y < x.n && y != ignored ? y : -1;
            }
        });
    }
    // The weights of `count` rows, a vector of them at most; 0 for the other lanes.
    void row_weights_of(isize o, isize i, isize count, isize lanes, double *weights) const {
        for (isize l = 0; l < lanes; ++l) weights[l] = l < count;
        if (sample_weight) read_rows(sample_weight, o, i, count, weights);
    }
    double class_weight(isize c) const { return weight ? *class_weights(c) : 1; }
    double row_weight(isize o, isize i) const {
        return sample_weight ? sample_weight.value(o, i) : 1;
    }
    // Whether a row is left out, whatever its label: for a weight of 0, or as no class takes part.
    bool may_leave_out() const { return sample_weight || where.data; }
    bool leaves_out(isize o, isize i) const { return row_weight(o, i) == 0 || !present(o, i); }
    // How many classes of a row take part.
    isize present(isize o, isize i) const {
        if (!where.data) return x.n;
        isize count = 0;
        const std::uint8_t *mask = where.at(o, i);
        for (isize c = 0; c < x.n; ++c) count += mask[c * where.n_stride] != 0;
        return count;
    }
    template <class C>
    Writer<C> gradient_writer(isize o, isize i) const {
        Writer<C> w(gradient, o, i);
        if (where.data) w.mask = where.at(o, i), w.mask_stride = where.n_stride;
        return w;
    }
    void clear_gradient(isize o, isize i) const {
        if (gradient) Writer<float>(gradient, o, i).fill(x.n, 0);
    }
};

// Where the losses of rows go: each to its place, if they are wanted one by one, and all into one
// sum for each piece of work, so that the total does not depend on who ran which piece.
struct RowLosses {
    const CrossEntropyArguments *a;
    PieceResults<Sum> sums;

    RowLosses(const CrossEntropyArguments &arguments, isize pieces)
        : a(&arguments), sums(static_cast<std::size_t>(pieces)) {}
    void add(isize piece, Sum losses) { sums[static_cast<std::size_t>(piece)].add(losses); }
    void store(isize o, isize i, double loss) {
        if (a->loss) a->loss.store(o, 0, i, loss);
    }
    void put(isize o, isize i, double loss) {
        add((o * a->x.inner + i) / rows_per_piece(a->x.n), {loss, 0});
        store(o, i, loss);
    }
    double total() const {
        Sum all;
        for (const Sum &s : sums) all.add(s);
        return all.value();
    }
};

// The losses of rows next to each other, one by one if they are wanted so.
inline void store_losses(const CrossEntropyArguments &a, isize outer, isize first, isize count,
                         double *loss) {
    if (a.loss) write_rows(a.loss, outer, first, count, loss);
}

// A loss times the weight of its class, which may be 0 where the loss is infinite.
FS_INLINE double weighted(double weight, double loss) {
    return weight == 0 && loss == std::numeric_limits<double>::infinity() ? 0 : weight * loss;
}

// --- exponentials --------------------------------------------------------------------------------
// Those of a row relative to its maximum, as many powers of two larger as the factor is that
// multiplies them in the gradient: none underflows before it is multiplied by a large weight.
template <class X, bool Scaled>
struct LiftedExp {
    using V = typename X::V;
    V max;
    Shift<X> shift;
    Scale<X> scale;

    LiftedExp(V max_, V lifts, const Scale<X> &scale_)
        : max(max_), shift(Shift<X>::fixed(-lifts, scale_)), scale(scale_) {}
    static V all(double factor) { return X::set(static_cast<typename X::Scalar>(lift(factor))); }
    static int lift(double factor) {
        constexpr int most = sizeof(typename X::Scalar) == 4 ? 100 : 900;
        const int octaves = factor != 0 && factor - factor == 0 ? std::ilogb(factor) + 2 : 0;
        return octaves < 0 ? 0 : octaves < most ? octaves : most;
    }
    FS_INLINE V operator()(V x) const { return exp_below<X, Scaled>(x, max, shift, scale); }
};

// Whether e * (factor / total) has all its digits wherever it is a normal number, if none of the
// exponentials e is above their total.
template <class C>
FS_INLINE bool fits(double factor, double total) {
    const double m = std::abs(factor);
    return m <= total && m >= total * (sizeof(C) == 4 ? 0x1p-100 : 0x1p-960);
}

// exp(s (x - max)) 2^precise_lift in two terms, of numbers of any type.
constexpr int precise_lift = 900;
template <class X, bool Scaled>
FS_INLINE Pair<typename X::V> precise_exp(typename X::V x, typename X::V max,
                                          const Scale<X> &scale) {
    return exp_below_pair<X, Scaled>(x, max, X::set(-precise_lift), scale);
}
// exp(hi + lo), and less 1.
inline double exp_of(Sum s) {
    const auto y = two_sum(s.hi, s.lo);
    return y.hi - y.hi == 0 ? std::exp(y.hi) * (1 + y.lo) : std::exp(s.hi);
}
inline double expm1_of(Sum s) {
    const auto y = two_sum(s.hi, s.lo);
    return y.hi - y.hi == 0 ? std::expm1(y.hi) + y.lo * std::exp(y.hi) : std::expm1(s.hi);
}
// s (x - from); the difference itself may overflow where the product does not.
inline Sum scaled_difference(double x, double from, Factor s) {
    const double d = x - from, infinity = std::numeric_limits<double>::infinity();
    const bool overflows = (d == infinity || d == -infinity) && x - x == 0 && from - from == 0;
    const auto part = overflows ? Pair<double>{x / 2 - from / 2, 0} : two_sum(x, -from);
    const Factor y = s.times(part.hi);
    const double lo = y.lo + (part.lo == part.lo ? part.lo : 0) * s.hi;
    return overflows ? Sum{2 * y.hi, 2 * y.lo} : Sum{y.hi, lo};
}

// logsumexp for z_loss, which must have its own digits: where it is small, exponentials to the last
// bit of their type are not enough.
template <class C>
__attribute__((noinline)) double small_log_sum(const Rows &a, isize o, isize i) {
    const auto source = a.reader<C>(o, i);
    Scratch<C> buffer(gather_block);
    C top = absent_logit<C>;
    for (isize at = 0; at < a.x.n; at += gather_block) {
        const isize size = a.x.n - at < gather_block ? a.x.n - at : gather_block;
        top = larger(span_max<Vec<C>>(source.get(at, size, buffer), size), top);
    }
    const auto log = precise_log_of_total(a, o, i, static_cast<double>(top));
    const Factor scaled = a.scale(o, i).times(static_cast<double>(top));
    Sum s{scaled.hi, scaled.lo};
    s.add({log.hi[0], log.lo[0]});
    return s.value();
}
template <class V>
FS_INLINE bool is_small_log_sum(V sum) {
    return sum < 1 && sum > -1;
}

// --- labels --------------------------------------------------------------------------------------
// The loss of a label y is log1p(R / e_y), with R the sum of the other classes' exponentials, and
// the derivative there -R / (R + e_y): a confident row keeps its digits in both, whatever the
// shift.

template <class C>
struct LabelSums {
    double others;  // R
    double label;   // e_y
    Sum total;
    C center;  // the shift: unit exp(s (x - center)) 2^-exponent
    double exponent, unit = ExpTotal<C>::unit;

    LabelSums(Sum sum, C label_, C center_, double exponent_)
        : others((sum.hi - static_cast<double>(label_)) + sum.lo),
          label(static_cast<double>(label_)),
          total(sum),
          center(center_),
          exponent(exponent_) {}
    // The label carries so much of the total that the others must be summed without it.
    static bool confident(double label, double total) { return label > 0.5 * total; }
    bool confident() const { return confident(label, total.hi); }
    void set_others(Sum s) {
        others = s.value();
        s.add({label, 0});
        total = s;
    }
};

// The exponentials of a row but the label's, in one sweep, which leaves its lane out.
template <class X, class C, class Exp>
Sum sum_others(const C *x, isize n, isize y, const Exp &exp) {
    LaneSums<X> sums;
    each_vector<X>(n, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        sums.add(X::without(exp(lanes.load(x + i, absent_logit<C>)), y - i));
    });
    return sums.total();
}

// The same in precise exponentials relative to `top`.
template <class C>
Sum sum_precisely(const C *x, isize n, isize y, double top, Factor factor) {
    using D = Vec<double>;
    constexpr isize step = 64;
    const Scale<D> scale = Scale<D>::all(factor);
    double block[step];
    LaneSums<D> others;
    for (isize at = 0; at < n; at += step) {
        const isize size = n - at < step ? n - at : step;
        for (isize j = 0; j < size; ++j) block[j] = static_cast<double>(x[at + j]);
        each_vector<D>(size, [&](isize j, auto lanes) {
            const auto e = precise_exp<D, true>(lanes.load(block + j, absent_logit<double>),
                                                D::set(top), scale);
            others.add(D::without(e.hi, y - at - j));
            others.add(D::without(e.lo, y - at - j));
        });
    }
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
    isize piece = 0;

    // Rows whose logarithms are taken together.
    struct Batch {
        static constexpr isize size = 64;
        isize count = 0, outer[size], inner[size];
        double others[size], label[size], weight[size];
    };
    Batch *waits = nullptr;

    LabelRows(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), logits(arguments.logits()) {}

    isize n() const { return a->x.n; }
    FS_INLINE Scale<X> scale_of(isize o, isize i) const {
        return Scaled ? Scale<X>::all(logits.scale(o, i)) : Scale<X>::one();
    }

    void begin(isize p, C *buffer) {
        piece = p, source = RowSource<C>(logits, buffer), waits = new (scratch<Batch>(1)) Batch;
    }
    // body(i, label) for rows from an inner index on; the label is -1 if the row does not count.
    template <class Body>
    FS_INLINE void each_label(isize o, isize i, isize count, Body body) const {
        isize labels[Batch::size];
        const bool leaves_out = a->may_leave_out();
        for (const isize end = i + count; i < end;) {
            const isize some = end - i < Batch::size ? end - i : Batch::size;
            a->labels_of(o, i, some, labels);
            for (isize k = 0; k < some; ++k, ++i)
                body(i, leaves_out && labels[k] >= 0 && a->leaves_out(o, i) ? -1 : labels[k]);
        }
    }

    // Adds the loss of a row. The result is logsumexp if that is needed, for z_loss.
    FS_INLINE double add(const LabelSums<C> &s, C logit, double w, double weight, isize o,
                         isize i) {
        const double log_sum = a->z_loss != 0 ? log_sum_of(s, o, i) : 0;
        const bool usual = s.others <= likely * s.label;
        if (usual && a->z_loss == 0 && s.others >= tiny * s.label)
            return wait(o, i, s.others, s.label, w * weight), log_sum;
        put(s, usual, logit, w, weight, log_sum, o, i);
        return log_sum;
    }
    // Of a row that does not wait.
    __attribute__((noinline)) void put(const LabelSums<C> &s, bool usual, C logit, double w,
                                       double weight, double log_sum, isize o, isize i) const {
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
    FS_INLINE void find_tiny(LabelSums<C> &s, const C *x, isize y, isize o, isize i) const {
        if (s.others < tiny * s.label) sum_tiny(s, x, y, o, i);
    }
    __attribute__((noinline)) void sum_tiny(LabelSums<C> &s, const C *x, isize y, isize o,
                                            isize i) const {
        s.label = std::ldexp(1.0, precise_lift), s.center = x[y], s.exponent = -precise_lift,
        s.unit = 1;
        s.set_others(sum_precisely(x, n(), y, static_cast<double>(x[y]), logits.scale(o, i)));
    }

    void flush() {
        Batch &waiting = *waits;
        double loss[Batch::size];
        LaneSums<D> sums;
        each_vector<D>(waiting.count, [&](isize k, auto lanes) {
            const auto odds = lanes.load(waiting.others + k, 0) / lanes.load(waiting.label + k, 1);
            const auto l = lanes.load(waiting.weight + k, 0) *
                           sum_of(log1p_nonnegative<D>(odds, typename D::V{}));
            D::store(loss + k, l);
            sums.add(l);
        });
        losses->add(piece, sums.total());
        for (isize k = 0; a->loss && k < waiting.count; ++k)
            losses->store(waiting.outer[k], waiting.inner[k], loss[k]);
        waiting.count = 0;
    }

    FS_INLINE void wait(isize o, isize i, double others, double label, double weight) {
        Batch &waiting = *waits;
        const isize k = waiting.count++;
        waiting.outer[k] = o, waiting.inner[k] = i;
        waiting.others[k] = others, waiting.label[k] = label, waiting.weight[k] = weight;
        if (waiting.count == Batch::size) flush();
    }

  private:
    double log_sum_of(const LabelSums<C> &s, isize o, isize i) const {
        const double sum = log_sum_less(0, o, i, s);
        return is_small_log_sum(sum) ? small_log_sum<C>(logits, o, i) : sum;
    }
    // logsumexp(s x) - s v, the logarithm in two terms, since they may cancel; NaN for a row
    // without a distribution, else +inf where v is -inf.
    __attribute__((noinline)) double log_sum_less(double v, isize o, isize i,
                                                  const LabelSums<C> &s) const {
        using One = Vec<double, 16>;
        const double sum = s.total.value();
        if (!(sum > 0 && sum - sum == 0)) return std::numeric_limits<double>::quiet_NaN();
        const Sum y = scaled_difference(v, static_cast<double>(s.center), logits.scale(o, i));
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
    using Exp = TypicalExp<X, Scaled>;
    using Base::n, Base::scale_of;
    static constexpr isize most = 64;

    struct Row {
        isize outer, inner, label;
        const C *x;
    };
    Waiting<Row, most> batch;

    using Base::Base;

    void begin(isize p) {
        Base::begin(p, scratch<C>(chunk));
        batch.begin(this->source.limit(most));
    }
    void end() {
        settle();
        this->flush();
    }
    void rows(isize o, isize first, isize count) {
        this->each_label(o, first, count, [&](isize i, isize y) FS_INLINE_LAMBDA {
            if (y < 0)
                this->losses->store(o, i, 0);
            else if (batch.add({o, i, y, this->source.get(o, i, batch.count)}))
                settle();
        });
    }

  private:
    void settle() {
        Totals<most> sums;
        C logit[most], label[most];
        const auto scale_at = [this](isize k) {
            return this->scale_of(batch.rows[k].outer, batch.rows[k].inner);
        };
        guess_sums<X, Scaled, most>(
            batch.count, scale_at, sums, logit, label,
            [this](isize k, const Exp &exp, LaneSums<X> &s) FS_INLINE_LAMBDA {
                const Row &row = batch.rows[k];
                if (this->n() > short_row && worth_a_guess(row.x[0] * exp.scale.hi[0]))
                    add_exp<X>(row.x, this->n(), exp, s);
                return row.x[row.label];
            });
        for (isize k = 0; k < batch.count; ++k) {
            const Row &row = batch.rows[k];
            LabelSums<C> s(sums[k], label[k], 0, Shift<X>::typical_exponent);
            if (!near_enough<C>(s.total.value()))
                s = be_careful(row);
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
        const isize start = row.label / summed_elements<X> * summed_elements<X>,
                    end = start + summed_elements<X> < n() ? start + summed_elements<X> : n();
        s.set_others(sum_without<X, added_by_fours>(row.x + start, end - start, row.label - start,
                                                    exp, s.total));
        if (!(s.others >= (sizeof(C) == 4 ? 0x1p-20 : 0x1p-40) * static_cast<double>(s.label)))
            s.set_others(sum_others<X>(row.x, n(), row.label, exp));
        this->find_tiny(s, row.x, row.label, row.outer, row.inner);
    }
    // With the shift from the maximum.
    __attribute__((noinline)) LabelSums<C> be_careful(const Row &row) const {
        const Scale<X> scale = scale_of(row.outer, row.inner);
        const Shift<X> shift = careful_shift<X>(row.x, n(), scale);
        const auto exp = [&](V v) FS_INLINE_LAMBDA {
            return exp_shifted<X, Scaled>(v, shift, scale);
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

// The loss and the gradient.
template <class C, bool Scaled>
struct LabelGradientRow : LabelRows<C, Scaled> {
    using Base = LabelRows<C, Scaled>;
    using Kept = KeptRows<C, false, Scaled>;
    using X = typename Base::X;
    using D = typename Base::D;
    using Base::n, Base::a, Base::scale_of;
    Kept kept{};

    using Base::Base;

    void begin(isize p) {
        C *buffer = scratch<C>(chunk + kept.memory);
        Base::begin(p, buffer);
        kept.begin(a->x, a->gradient, a->where, a->template gradient_writer<C>(0, 0),
                   buffer + chunk, this->source.limit(Kept::most));
    }
    void end() {
        if (kept.unsettled()) settle();
        kept.end();
        this->flush();
    }
    void rows(isize o, isize first, isize count) {
        this->each_label(o, first, count, [&](isize i, isize y) FS_INLINE_LAMBDA {
            if (y < 0)
                a->clear_gradient(o, i), this->losses->store(o, i, 0);
            else
                kept.keep(this->source.get(o, i, kept.place()), o, i, y);
            if (kept.full()) settle();
        });
    }

  private:
    FS_INLINE void settle() {
        kept.settle([this](isize o, isize i) FS_INLINE_LAMBDA { return this->scale_of(o, i); },
                    [this](typename Kept::Batch &b) FS_INLINE_LAMBDA { this->settle_rows(b); });
    }
    // In vectors, as far as rows are usual.
    FS_INLINE void settle_rows(typename Kept::Batch &b) {
        constexpr isize most = Kept::most;
        double label[most], weight[most], others[most];
        for (isize k = 0; k < b.count; ++k) {
            label[k] = static_cast<double>(b.e[k][b.place[k]]);
            weight[k] = a->class_weight(b.place[k]) * a->row_weight(b.outer[k], b.inner[k]);
        }
        for (isize k = b.count; k % X::lanes; ++k) label[k] = weight[k] = 0;
        for (isize k = 0; k < b.count; k += X::lanes) {
            typename D::V value[wide_parts<X>];
            for (int p = 0; p < wide_parts<X>; ++p) {
                const isize at = k + p * D::lanes;
                const auto total = b.total.template part<D>(at);
                const auto rest = (total.hi - D::load(label + at)) + total.lo,
                           factor = D::load(weight + at) * a->scale;
                D::store(others + at, rest);
                D::store(b.numerator + at, factor);
                value[p] = factor * (-rest / (total.hi + total.lo));
            }
            X::store(b.value + k, from_wide<X>(value));
        }
        for (isize k = 0; k < b.count; ++k) {
            const bool usual = !Scaled && a->z_loss == 0 &&
                               !LabelSums<C>::confident(label[k], b.total.hi[k]) &&
                               others[k] <= Base::likely * label[k];
            if (usual && fits<C>(b.numerator[k], b.total.hi[k]))
                this->wait(b.outer[k], b.inner[k], others[k], label[k], weight[k]);
            else
                settle_row(b, k);
        }
    }
    __attribute__((noinline)) void settle_row(typename Kept::Batch &b, isize k) {
        const isize y = b.place[k], o = b.outer[k], i = b.inner[k];
        LabelSums<C> s(b.total[k], b.e[k][y], b.center[k], b.exponent[k]);
        if (s.confident())
            s.set_others(kept.others(b.e[k], y)), this->find_tiny(s, b.x[k], y, o, i);
        const double w = a->class_weight(y), weight = a->row_weight(o, i);
        const double log_sum = this->add(s, b.x[k][y], w, weight, o, i);
        const double factor = weight * a->scale * (Scaled ? this->logits.scale(o, i).hi : 1),
                     square = 2 * a->z_loss * log_sum;
        b.numerator[k] = (w + square) * factor;
        b.value[k] = static_cast<C>(factor * (square * s.label - w * s.others) / s.total.value());
        if (!fits<C>(b.numerator[k], b.total.hi[k])) lift(b, k, scale_of(o, i));
    }
    // Exponentials that underflow, while their products with a weight do not, are made again; all
    // are, if products with the normalizer would underflow.
    __attribute__((noinline)) void lift(typename Kept::Batch &b, isize k,
                                        const Scale<X> &scale) const {
        const double factor = b.numerator[k], ratio = std::abs(factor) / b.total.hi[k];
        if (factor == 0 ||
            !(ratio > 0 && factor - factor == 0 && b.total.hi[k] - b.total.hi[k] == 0))
            return;
        if (ratio > 1 && !lost_any(b, k, std::log2(ratio), scale)) return;
        using Exp = LiftedExp<X, Scaled>;
        const Exp exp(X::set(span_max<X>(b.x[k], n())), Exp::all(factor), scale);
        LaneSums<X> sums;
        each_vector<X>(n(), [&](isize j, auto lanes) {
            const auto e = exp(lanes.load(b.x[k] + j, absent_logit<C>));
            lanes.store(b.e[k] + j, e);
            sums.add(e);
        });
        b.total.set(k, sums.total());
    }
    bool lost_any(const typename Kept::Batch &b, isize k, double octaves,
                  const Scale<X> &scale) const {
        const double least = b.exponent[k] - Format<C>::bias - Format<C>::mantissa - octaves - 2;
        const auto from = X::set(b.center[k] + static_cast<C>(least) * scale.unit[0]),
                   smallest = X::set(std::numeric_limits<C>::min());
        typename X::I lost = {};
        each_vector<X>(n(), [&](isize j, auto lanes) {
            lost |= (lanes.load(b.e[k] + j, 1) < smallest) &
                    (lanes.load(b.x[k] + j, absent_logit<C>) >= from);
        });
        return any<X>(lost);
    }
};

// Rows in lanes.
template <class C, bool Scaled, bool Gradient>
struct LabelTile {
    using X = Vec<C>;
    using D = Vec<double>;
    using V = typename X::V;
    using I = typename X::I;
    static constexpr isize width = tile_vectors * X::lanes;
    // R / e_y within which both have all their digits
    static constexpr double likely = 0x1p60, confident = sizeof(C) == 4 ? 0x1p-70 : 0x1p-900;

    const CrossEntropyArguments *a;
    RowLosses *losses;
    Rows logits;

    LabelTile(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), logits(arguments.logits()) {}

    isize n() const { return a->x.n; }

    void run(isize outer, isize first, isize count) const {
        const Scratch<C> e(Gradient ? n() * X::lanes : 0);
        TileColumns<X> x(a->x, outer, first, count, a->where);
        const TileResults<X> g(a->gradient, outer, first, count, a->where);
        x.gather();
        LaneSums<D> sums;
        for (isize at = 0; at < count; at += X::lanes) {
            vector(x.from(at), e, g.place(at), outer, first + at,
                   count - at < X::lanes ? count - at : X::lanes, sums);
            if constexpr (Gradient) g.put(at);
        }
        if constexpr (Gradient) g.put();
        losses->add(outer * ((a->x.inner + width - 1) / width) + first / width, sums.total());
    }

  private:
    struct Lanes {  // of a vector of rows
        typename Format<C>::Int label[X::lanes];
        double weight[X::lanes], factor[X::lanes];  // of the loss, of the gradient
        double loss[X::lanes], at_label[X::lanes];  // and the gradient there
        double largest;                             // factor
    };

    using Place = typename TileResults<X>::Place;

    void vector(const Columns<X> &x, C *e, const Place &g, isize outer, isize first, isize count,
                LaneSums<D> &sums) const {
        Lanes lane;
        describe(lane, outer, first, count);
        I label;
        std::memcpy(&label, lane.label, sizeof label);
        const Scale<X> scale = lane_scales<X, Scaled>(logits, outer, first, count);
        V max = X::set(absent_logit<C>);
        for (isize j = 0; j < n(); ++j) max = larger(x[j], max);
        Shift<X> shift = Shift<X>::from(max, scale);
        LaneSums<X> others;
        V own = {};
        if constexpr (Gradient) {
            // Twice as large, the exponentials make a total above 1: multiplied by a factor over
            // it, they do not grow.
            shift.magic = shift.magic + 1, shift.lowest = shift.lowest - scale.unit;
            if (lane.largest > 1)
                sum_lifted(lane, x, max, shift, scale, label, e, others, own);
            else
                sum(
                    x,
                    [&](V v) FS_INLINE_LAMBDA { return exp_shifted<X, Scaled>(v, shift, scale); },
                    label, e, others, own);
        } else {
            sum(
                x, [&](V v) FS_INLINE_LAMBDA { return exp_shifted<X, Scaled>(v, shift, scale); },
                label, e, others, own);
        }
        settle(lane, others, own, outer, first, count);
        for (isize l = 0; l < X::lanes; l += D::lanes) sums.add(D::load(lane.loss + l));
        store_losses(*a, outer, first, count, lane.loss);
        if constexpr (Gradient) write(lane, label, others, own, e, g);
    }

    // The exponentials of the labels, the sums of the others'; all are kept for the gradient.
    template <class Exp>
    FS_INLINE void sum(const Columns<X> &x, const Exp &exp, I label, C *kept, LaneSums<X> &others,
                       V &own) const {
        sum_rows<X>(0, n(), others, [&](isize j) FS_INLINE_LAMBDA {
            const V e = exp(x[j]);
            const I here = label == static_cast<typename Format<C>::Int>(j);
            if constexpr (Gradient) X::store(kept + j * X::lanes, e);
            own = here ? e : own;
            return here ? V{} : e;
        });
    }
    // Lanes of factors above 1 take lifted exponentials. The others take those that they take
    // beside any rows.
    __attribute__((noinline)) void sum_lifted(const Lanes &lane, const Columns<X> &x, V max,
                                              const Shift<X> &shift, const Scale<X> &scale, I label,
                                              C *kept, LaneSums<X> &others, V &own) const {
        using Exp = LiftedExp<X, Scaled>;
        V lifts = {}, large = {};
        for (isize l = 0; l < X::lanes; ++l) {
            lifts[l] = static_cast<C>(Exp::lift(lane.factor[l]));
            large[l] = std::abs(lane.factor[l]) > 1;
        }
        const Exp lifted(max, lifts, scale);
        sum(
            x,
            [&](V v) FS_INLINE_LAMBDA {
                return large != V{} ? lifted(v) : exp_shifted<X, Scaled>(v, shift, scale);
            },
            label, kept, others, own);
    }

    // Rows that do not count have the label -1.
    void describe(Lanes &lane, isize outer, isize first, isize count) const {
        isize labels[X::lanes];
        a->labels_of(outer, first, count, labels);
        for (isize l = count; l < X::lanes; ++l) labels[l] = -1;
        a->row_weights_of(outer, first, count, X::lanes, lane.weight);
        for (isize l = 0; l < X::lanes; ++l) {
            if (lane.weight[l] == 0 ||
                (labels[l] >= 0 && a->where.data && !a->present(outer, first + l)))
                labels[l] = -1;
            lane.label[l] = static_cast<typename Format<C>::Int>(labels[l]);
        }
        for (isize l = 0; l < X::lanes; ++l)
            lane.weight[l] = labels[l] < 0 ? 0 : a->class_weight(labels[l]) * lane.weight[l];
        lane.largest = 0;
        for (isize l = 0; l < X::lanes; ++l) {
            lane.factor[l] = lane.weight[l] * a->scale *
                             (Scaled && labels[l] >= 0 ? logits.scale(outer, first + l).hi : 1);
            lane.largest = larger(std::abs(lane.factor[l]), lane.largest);
        }
    }

    FS_INLINE void settle(Lanes &lane, const LaneSums<X> &others, V own, isize outer, isize first,
                          isize count) const {
        double ratio[X::lanes];  // R / e_y
        bool far = false;
        for (int k = 0; k < wide_parts<X>; ++k) {
            const isize at = k * D::lanes;
            const auto r = others.part(k).hi + others.part(k).lo, e = wide_part<X>(own, k),
                       weight = D::load(lane.weight + at), odds = r / e;
            const auto loss = weight * sum_of(log1p_nonnegative<D>(odds, typename D::V{}));
            D::store(ratio + at, odds);
            D::store(lane.loss + at, weight == typename D::V{} ? weight : loss);
            if constexpr (Gradient)
                D::store(lane.at_label + at, -D::load(lane.factor + at) * (r / (r + e)));
            far |= any<D>(~((odds <= likely) & (odds >= confident)));
        }
        for (isize l = 0; far && l < count; ++l) {
            if (lane.label[l] >= 0 && !(ratio[l] <= likely && ratio[l] >= confident))
                settle_far(lane, l, outer, first + l);
        }
    }

    // The exponentials of the label or of the others may have underflowed, or the row has no
    // distribution.
    __attribute__((noinline)) void settle_far(Lanes &lane, isize l, isize outer, isize i) const {
        const Scratch<C> buffer(n());
        const C *x = logits.reader<C>(outer, i).get(0, n(), buffer);
        const isize y = lane.label[l];
        const double own = static_cast<double>(x[y]), weight = a->row_weight(outer, i),
                     nan = std::numeric_limits<double>::quiet_NaN();
        const Factor s = logits.scale(outer, i);
        double max = own;
        bool defined = true;
        for (isize j = 0; j < n(); ++j)
            max = x[j] > max ? static_cast<double>(x[j]) : max, defined &= x[j] == x[j];
        if (!defined || !(max - max == 0)) {
            lane.loss[l] = weight * weighted(a->class_weight(y), nan), lane.at_label[l] = nan;
            return;
        }
        const Sum others = sum_precisely(x, n(), y, max, s);
        // log1p of them is their sum, which may underflow until it is multiplied
        if (own == max && others.hi < confident * std::ldexp(1.0, precise_lift)) {
            lane.loss[l] = std::ldexp(others.value() * lane.weight[l], -precise_lift);
            lane.at_label[l] = -std::ldexp(others.value() * lane.factor[l], -precise_lift);
            return;
        }
        const double ratio = std::ldexp(others.value(), -precise_lift);
        const Sum below = scaled_difference(own, max, s);
        const double loss = own == max ? std::log1p(ratio)
                                       : (std::log(ratio + exp_of(below)) - below.hi) - below.lo;
        if (own == max) lane.at_label[l] = -lane.factor[l] * (ratio / (1 + ratio));
        lane.loss[l] = weight * weighted(a->class_weight(y), loss);
    }

    FS_INLINE void write(const Lanes &lane, I label, LaneSums<X> total, V own, const C *e,
                         const Place &g) const {
        total.add(own);
        const auto normalizer = Normalizer<X, false>::each(lane.factor, total);
        C at_label[X::lanes];
        for (isize l = 0; l < X::lanes; ++l) at_label[l] = static_cast<C>(lane.at_label[l]);
        const V own_result = X::load(at_label);
        for (isize j = 0; j < n(); ++j) {
            const V p = normalizer.apply(X::load(e + j * X::lanes));
            const V y = label == static_cast<typename Format<C>::Int>(j) ? own_result : p;
            g.store(j, label >= 0 ? y : V{});
        }
    }
};

template <class C, bool Scaled, bool Gradient>
isize further_memory(const LabelTile<C, Scaled, Gradient> &tile) {
    return tile_memory(tile.n(), 2, 1);
}

// --- targets -------------------------------------------------------------------------------------
// Any targets, any length: with log p of every class as log_softmax has it, the loss is a sum of
// terms q (-log p) of one sign, so that nothing cancels.
//
//     q_c = w_c ((1 - s) t_c + s / K),   loss = sum q (-log p),   derivative: (Q + 2 z log(total))
//     p_c - q_c,   Q = sum q
//
// Where p_c is above 1/2, the derivative is made of p_c - 1 = expm1(log p_c).
struct Derivative {  // of single classes
    double max;
    Sum log;  // of the total, relative to the maximum; NaN: the row has no distribution
    Factor scale;
    double p_factor, q_factor;  // what p and q are multiplied by

    // At a class of mass `own`, which may be nearly all there is, and a little more.
    double at(double logit, double own, double more) const {
        const Sum l = log_p(logit);
        const double p = exp_of(l), others = p_factor - q_factor * own;
        // A p that underflows is multiplied in two steps.
        const double push =
            p >= std::numeric_limits<double>::min()
                ? others * p
                : others * exp_of({l.hi / 2, l.lo / 2}) * exp_of({l.hi / 2, l.lo / 2});
        return q_factor * own * expm1_of(l) + push - q_factor * more;
    }
    Sum log_p(double logit) const {
        if (log.hi != log.hi) return log;
        Sum l = scaled_difference(logit, max, scale);
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
    struct Partial {
        Sum sum, masses;
    };

    const CrossEntropyArguments *a;
    RowLosses *losses;
    RowLog<C, Scaled> row;
    isize outer = 0, inner = 0, label = -1;
    double spread = 0;  // s / K
    Reader<C> t{};
    Stage stage = logarithm;
    bool counted = true;
    double p_factor = 0, q_factor = 0;  // what p and q are multiplied by in the derivative
    ChunkResults<Partial> partial;
    ChunkResults<typename RowLog<C, Scaled>::Partial> of_log;

    TargetRow(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), row(arguments.logits()) {}

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i;
        partial.resize(static_cast<std::size_t>(chunks()));
        of_log.resize(static_cast<std::size_t>(chunks()));
        row.start(o, i);
        label = a->labels() ? a->label(o, i) : -1;
        if (!a->labels()) t = Reader<C>::broadcast(a->target, o, i);
        const isize present = a->present(o, i);
        spread = present ? a->smoothing / static_cast<double>(present) : 0;
        stage = logarithm;
        counted = present && (label >= 0 || !a->labels()) && a->row_weight(o, i) != 0;
        if (counted) return;
        a->clear_gradient(o, i);
        losses->put(o, i, 0);
        stage = derivative;
    }

    void sweep(isize k) {
        if (!counted) return;
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        if (stage == logarithm) {
            of_log[static_cast<std::size_t>(k)] = row.sweep(start, end);
            return;
        }
        LaneSums<X> sums, masses;
        Scratch<C> x_buffer(gather_block);
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const C *logit = row.x.get(at, size, x_buffer);
            if (stage == value)
                add_terms(logit, at, size, sums, masses);
            else
                write(logit, at, size);
        }
        partial[static_cast<std::size_t>(k)] = {sums.total(), masses.total()};
    }

    bool next() {
        if (stage == derivative) return false;
        if (stage == logarithm) {
            if (!row.next(of_log)) stage = value;
            return true;
        }
        Partial all;
        for (const Partial &p : partial) all.sum.add(p.sum), all.masses.add(p.masses);
        finish(all.sum.value(), all.masses.value());
        stage = derivative;
        return a->gradient.data != nullptr;
    }

  private:
    // q of a block, without the label's own part. Masked classes have no part of what is spread.
    const C *masses_of(isize at, isize size, C *q) const {
        const C *given = nullptr;
        Scratch<C> t_buffer(gather_block);
        if (!a->labels()) given = t.get(at, size, t_buffer);
        const std::uint8_t *mask =
            a->where.data ? a->where.at(outer, inner) + at * a->where.n_stride : nullptr;
        const C keep = static_cast<C>(1 - a->smoothing), add = static_cast<C>(spread);
        for (isize j = 0; j < size; ++j) q[j] = given ? keep * given[j] : C(0);
        if (spread != 0) {
            for (isize j = 0; j < size; ++j)
                q[j] += !mask || mask[j * a->where.n_stride] ? add : C(0);
        }
        if (a->weight && a->weight.n_stride == isize(sizeof(double))) {
            const double *weights = a->class_weights(at);
            for (isize j = 0; j < size; ++j) q[j] = static_cast<C>(q[j] * weights[j]);
        } else {
            for (isize j = 0; a->weight && j < size; ++j)
                q[j] = static_cast<C>(q[j] * *a->class_weights(at + j));
        }
        return q;
    }

    // Classes without mass are left out: 0 times infinity is 0 here.
    void add_terms(const C *logit, isize at, isize size, LaneSums<X> &sums,
                   LaneSums<X> &masses) const {
        if (a->labels() && spread == 0) return;
        Scratch<C> buffer(gather_block);
        const C *q = masses_of(at, size, buffer);
        each_vector<X>(size, [&](isize j, auto lanes) {
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

    void write(const C *logit, isize at, isize size) const {
        // Twice as large, the exponentials make a total above 1: multiplied by a factor over it,
        // they do not grow.
        const Sum total{2 * row.sum.hi, 2 * row.sum.lo};
        if (fits<C>(p_factor, total.hi) || p_factor == 0 || !row.defined()) {
            Shift<X> shift = row.shift;
            shift.magic = shift.magic + 1, shift.lowest = shift.lowest - row.scale.unit;
            const auto exp = [&](V v) FS_INLINE_LAMBDA {
                return exp_shifted<X, Scaled>(v, shift, row.scale);
            };
            write_with(exp, Normalizer<X, false>::all(p_factor, total), logit, at, size);
        } else {
            write_lifted(logit, at, size);
        }
    }
    // Exponentials would underflow before they are multiplied by a large factor, or what multiplies
    // them would.
    __attribute__((noinline)) void write_lifted(const C *logit, isize at, isize size) const {
        using Exp = LiftedExp<X, Scaled>;
        const Exp exp(X::set(row.max), Exp::all(p_factor), row.scale);
        const double total = std::ldexp(exp_of(row.log), Exp::lift(p_factor));
        write_with(exp, Normalizer<X, false>::all(p_factor, {total, 0}), logit, at, size);
    }
    template <class Exp>
    FS_INLINE void write_with(const Exp &exp, const Normalizer<X, false> &normalizer,
                              const C *logit, isize at, isize size) const {
        Scratch<C> buffer(gather_block), results(gather_block);
        const C *q = masses_of(at, size, buffer);
        const V factor = X::set(static_cast<C>(q_factor));
        const Writer<C> to = a->gradient_writer<C>(outer, inner);
        // One class may have p above 1/2: the label if there is one, else that of the maximum. Its
        // logit and masses are read before the results, which may overwrite them, are written.
        const isize one = a->labels()              ? label - at
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
        C *g = to.place(at, results);
        each_vector<X>(size, [&](isize j, auto lanes) {
            const V e = exp(lanes.load(logit + j, absent_logit<C>));
            lanes.store(g + j, normalizer.apply(e) - lanes.load(q + j, 0) * factor);
        });
        if (here) g[one] = exact;
        to.put(at, size, g);
    }
    Derivative of_classes() const {
        return {static_cast<double>(row.max),
                row.defined() ? Sum{row.log.hi, row.log.lo}
                              : Sum{std::numeric_limits<double>::quiet_NaN(), 0},
                row.a.scale(outer, inner), p_factor, q_factor};
    }
    static isize find(const C *x, isize size, C value) {
        for (isize j = 0; j < size; ++j) {
            if (x[j] == value) return j;
        }
        return -1;
    }
    double log_sum_of_row() const {
        const Factor top = row.a.scale(outer, inner).times(static_cast<double>(row.max));
        Sum s{top.hi, top.lo};
        if (!(s.hi - s.hi == 0)) return s.hi;
        s.add({row.log.hi, row.log.lo});
        const double sum = s.value();
        return is_small_log_sum(sum) ? small_log_sum<C>(row.a, outer, inner) : sum;
    }
};

// The same for rows in lanes. With d_c = s (x_c - max), at most 0, and the total relative to the
// maximum, 1 + R, the loss is
//
//     log1p(R) sum(q) - sum(q d),
//
// terms of one sign again; and the derivative at the maximum is made of 1 / (1 + R) and R / (1 +
// R), which do not cancel.
template <class C, bool Scaled, bool Gradient>
struct TargetTile {
    using X = Vec<C>;
    using D = Vec<double>;
    using V = typename X::V;
    using I = typename X::I;
    using Wide = typename D::V;
    static constexpr isize width = tile_vectors * X::lanes;
    // the exponential of the maximum: see rest_exponent
    static constexpr C certain = sizeof(C) == 4 ? C(0x1p64) : C(0x1p256);
    // Between these, factors of p and q are numbers of type C, and so are their products with
    // exponentials wherever results are normal numbers.
    static constexpr double least_factor = sizeof(C) == 4 ? 0x1p-60 : 0x1p-700,
                            largest_factor = sizeof(C) == 4 ? 0x1p60 : 0x1p250;

    const CrossEntropyArguments *a;
    RowLosses *losses;
    Rows logits;

    TargetTile(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), logits(arguments.logits()) {}

    isize n() const { return a->x.n; }

    void run(isize outer, isize first, isize count) const {
        const Scratch<C> weights(a->weight ? n() : 0), room(2 * n() * X::lanes);
        for (isize c = 0; a->weight && c < n(); ++c)
            weights[c] = static_cast<C>(a->class_weight(c));
        const AnyView mask = mask_as_numbers();
        TileColumns<X> x(a->x, outer, first, count, a->where),
            t(a->labels() ? AnyView() : a->target, outer, first, count),
            present(mask, outer, first, count);
        const TileResults<X> g(a->gradient, outer, first, count, a->where);
        x.gather();
        if (!a->labels()) t.gather();
        if (mask) present.gather();
        LaneSums<D> sums;
        for (isize at = 0; at < count; at += X::lanes) {
            Group r;
            r.e = room, r.again = room + n() * X::lanes;
            r.outer = outer, r.first = first + at,
            r.count = count - at < X::lanes ? count - at : X::lanes;
            r.class_weights = a->weight ? static_cast<const C *>(weights) : nullptr;
            if (!a->labels()) r.t = t.from(at);
            if (mask) r.present = present.from(at);
            do_rows(r, x.from(at), g.place(at), sums);
            if constexpr (Gradient) g.put(at);
        }
        if constexpr (Gradient) g.put();
        losses->add(outer * ((a->x.inner + width - 1) / width) + first / width, sums.total());
    }

  private:
    struct Group {     // a vector of rows
        C *e, *again;  // logits, then their exponentials; logits where they are wanted again
        isize outer, first, count;
        const C *class_weights;
        Columns<X> t, present;  // targets, if there are not labels; 1 or 0, if there is a mask
        I label;
        V keep, spread, counted, max;  // 1 - s, s / K; not 0 where a row counts
        Scale<X> scale;
        alignas(64) double weight[X::lanes];  // of rows
        alignas(64) double s[X::lanes], s_lo[X::lanes];
    };
    struct Sums {
        LaneSums<X> rest, terms, masses;  // of exponentials below the maximum, q d, q
        V copies = {};                    // of the maximum
    };
    struct Factors {  // of the derivative, in lanes
        // 1 beyond the limits
        alignas(64) double p[X::lanes], q[X::lanes], log[X::lanes], log_lo[X::lanes], far[X::lanes];
        bool any_far;
        Normalizer<X, false> normalizer;
        // q_factor / (1 + R), q_factor R / (1 + R), sum(q), 2 z log(total)
        V q_factor, certain_p, certain_rest, mass, drift;
    };

    void do_rows(Group &r, const Columns<X> &x, const typename TileResults<X>::Place &g,
                 LaneSums<D> &total) const {
        read(r, x);
        Sums sums;
        sum(r, sums);
        Factors f;
        alignas(64) double loss[X::lanes];
        settle(r, sums, f, loss);
        for (isize l = 0; l < X::lanes; l += D::lanes) total.add(D::load(loss + l));
        store_losses(*a, r.outer, r.first, r.count, loss);
        if constexpr (Gradient) write(r, f, g);
    }

    void read(Group &r, const Columns<X> &x) const {
        r.max = X::set(absent_logit<C>);
        for (isize j = 0; j < n(); ++j) {
            const V v = x[j];
            X::store(r.e + j * X::lanes, v);
            r.max = larger(v, r.max);
        }
        r.scale = lane_scales<X, Scaled>(logits, r.outer, r.first, r.count);
        for (isize l = 0; l < X::lanes; ++l) {
            const Factor s =
                Scaled ? logits.scale(r.outer, r.first + (l < r.count ? l : 0)) : Factor{1, 0};
            r.s[l] = s.hi, r.s_lo[l] = s.lo;
        }
        a->row_weights_of(r.outer, r.first, r.count, X::lanes, r.weight);
        if (a->labels()) read_labels(r);
        r.keep = X::set(static_cast<C>(1 - a->smoothing)),
        r.spread = X::set(static_cast<C>(a->smoothing / static_cast<double>(n())));
        if (a->where.data) read_mask(r);
        C counted[X::lanes];
        for (isize l = 0; l < X::lanes; ++l) counted[l] = static_cast<C>(r.weight[l] != 0);
        r.counted = X::load(counted);
    }
    void read_labels(Group &r) const {
        isize labels[X::lanes];
        typename Format<C>::Int label[X::lanes];
        a->labels_of(r.outer, r.first, r.count, labels);
        for (isize l = 0; l < X::lanes; ++l) {
            label[l] = static_cast<typename Format<C>::Int>(l < r.count ? labels[l] : -1);
            if (label[l] < 0) r.weight[l] = 0;
        }
        std::memcpy(&r.label, label, sizeof label);
    }
    AnyView mask_as_numbers() const {
        AnyView mask;
        if (!a->where.data) return mask;
        mask = a->x;
        mask.data = reinterpret_cast<char *>(const_cast<std::uint8_t *>(a->where.data)),
        mask.number = Number::boolean, mask.bytes = Bytes::native;
        mask.outer_stride = a->where.outer_stride, mask.n_stride = a->where.n_stride,
        mask.inner_stride = a->where.inner_stride;
        return mask;
    }
    // How many classes take part.
    void read_mask(Group &r) const {
        V present = {};
        for (isize j = 0; j < n(); ++j) present = present + r.present[j];
        for (isize l = 0; l < X::lanes; ++l) {
            r.spread[l] = present[l] != 0
                              ? static_cast<C>(a->smoothing / static_cast<double>(present[l]))
                              : C(0);
            if (present[l] == 0) r.weight[l] = 0;
        }
    }

    // q of class j.
    FS_INLINE V mass(const Group &r, isize j) const {
        V q = a->labels() ? (r.label == static_cast<typename Format<C>::Int>(j) ? r.keep : V{})
                          : r.keep * r.t[j];
        q = q + (a->where.data ? r.present[j] * r.spread : r.spread);
        return r.class_weights ? q * X::set(r.class_weights[j]) : q;
    }

    // Classes without mass are left out: 0 times infinity is 0 here.
    void sum(const Group &r, Sums &s) const {
        const Shift<X> below = Shift<X>::fixed(rest_exponent<C>, r.scale);
        // The difference of finite numbers may overflow where it is scaled down.
        const V unit = Scaled ? (absolute<X>(r.max) > std::numeric_limits<C>::max() / 4
                                     ? X::set(C(0.5))
                                     : X::set(1))
                              : X::set(1),
                top = r.max * unit;
        for (isize j = 0; j < n(); ++j) {
            const V v = X::load(r.e + j * X::lanes),
                    e = exp_below<X, Scaled>(v, r.max, below, r.scale), q = mass(r, j);
            const V d = Scaled ? multiply_add(v, unit, -top) : v - r.max;
            s.rest.add(v == r.max ? V{} : e);
            s.copies = s.copies + (v == r.max ? X::set(1) : V{});
            s.terms.add(q == V{} ? V{} : q * d);
            s.masses.add(q);
            if constexpr (Gradient) X::store(r.e + j * X::lanes, e);
        }
    }

    static FS_INLINE auto beyond(Wide v) {
        return ((v < least_factor) | (v > largest_factor)) & (v != 0.0);
    }
    static FS_INLINE Wide number(Pair<Wide> p) {
        return p.hi - p.hi == Wide{} ? p.hi + p.lo : p.hi;
    }

    // In double: the losses, and what the derivatives are made with.
    void settle(const Group &r, const Sums &sums, Factors &f, double *loss) const {
        Pair<Wide> log[wide_parts<X>], others[wide_parts<X>];
        // NaN for a row without a distribution; logsumexp
        Wide none[wide_parts<X>], log_sum[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            const auto rest = true_rest<C>(sums.rest.part(k));
            const Wide max = wide_part<X>(r.max, k), s = D::load(r.s + k * D::lanes);
            others[k] = two_sum(wide_part<X>(sums.copies, k) - 1.0, rest.hi),
            others[k].lo = others[k].lo + rest.lo;
            log[k] = log1p_nonnegative<D>(others[k].hi, others[k].lo);
            none[k] = (max - max) + (log[k].hi - log[k].hi);
            D::store(f.log + k * D::lanes, log[k].hi + none[k]),
                D::store(f.log_lo + k * D::lanes, log[k].lo);
            const Wide scaled = max * s, scaled_lo = multiply_subtract_exact<D>(max, s, scaled) +
                                                     max * D::load(r.s_lo + k * D::lanes);
            const auto sum = two_sum(scaled, log[k].hi);
            log_sum[k] = (sum.hi + (sum.lo + (scaled_lo + log[k].lo))) + none[k];
        }
        if (a->z_loss != 0) find_small_log_sums(r, log_sum);
        f.any_far = false;
        Wide factor[wide_parts<X>], at_p[wide_parts<X>], at_rest[wide_parts<X>],
            masses[wide_parts<X>], drift[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            const isize at = k * D::lanes;
            const Wide weight = D::load(r.weight + at), s = D::load(r.s + at),
                       z = a->z_loss != 0 ? log_sum[k] : Wide{};
            const Wide unit = Scaled
                                  ? (absolute<D>(wide_part<X>(r.max, k)) >
                                             static_cast<double>(std::numeric_limits<C>::max() / 4)
                                         ? s + s
                                         : s)
                                  : s;
            const Wide mass = number(sums.masses.part(k)), terms = number(sums.terms.part(k));
            const Wide plain =
                (log[k].hi * mass + log[k].lo * mass) - (Scaled ? unit * terms : terms);
            D::store(loss + at, weight == Wide{}
                                    ? Wide{}
                                    : weight * ((plain + a->z_loss * (z * z)) + none[k]));
            if constexpr (Gradient) {
                const Wide rest = others[k].hi + others[k].lo, total = rest + 1.0,
                           q = weight * a->scale * s, p = q * (mass + 2 * a->z_loss * z),
                           ratio = absolute<D>(p / total);
                D::store(f.q + at, q), D::store(f.p + at, p + none[k]);
                factor[k] = q, at_p[k] = q / total + none[k], at_rest[k] = q * (rest / total);
                masses[k] = mass, drift[k] = 2 * a->z_loss * z;
                const auto far = beyond(ratio) | beyond(absolute<D>(q));
                D::store(f.far + at, far ? Wide{} + 1.0 : Wide{}), f.any_far |= any<D>(far);
            }
        }
        if constexpr (Gradient) {
            f.normalizer = Normalizer<X, false>::each(f.p, [&](int k) {
                const auto total = two_sum(Wide{} + 1.0, others[k].hi);
                return Pair<Wide>{total.hi * static_cast<double>(certain),
                                  (total.lo + others[k].lo) * static_cast<double>(certain)};
            });
            f.q_factor = from_wide<X>(factor), f.certain_p = from_wide<X>(at_p),
            f.certain_rest = from_wide<X>(at_rest);
            f.mass = from_wide<X>(masses), f.drift = from_wide<X>(drift);
        }
    }
    // Where logsumexp is the small sum of a maximum and a logarithm that cancel, it takes
    // exponentials of more than its precision.
    void find_small_log_sums(const Group &r, Wide *log_sum) const {
        typename D::I small[wide_parts<X>], any_small{};
        for (int k = 0; k < wide_parts<X>; ++k)
            any_small |= small[k] = may_cancel(wide_part<X>(r.max, k), log_sum[k]);
        if (!any<D>(any_small)) return;
        gather_rows<X>(a->x, r.outer, r.first, r.count, r.again, a->where);
        for (int k = 0; k < wide_parts<X>; ++k) {
            Scale<D> scale = Scale<D>::one();
            for (isize l = 0; Scaled && l < D::lanes; ++l)
                scale.set_lane(l, {r.s[k * D::lanes + l], r.s_lo[k * D::lanes + l]});
            const auto log = precise_log<X>({r.again, X::lanes}, n(), r.max, k, scale);
            const Wide max = wide_part<X>(r.max, k), scaled = max * scale.hi,
                       scaled_lo =
                           multiply_subtract_exact<D>(max, scale.hi, scaled) + max * scale.lo;
            const auto sum = two_sum(scaled, log.hi);
            log_sum[k] = small[k] ? sum.hi + (sum.lo + (scaled_lo + log.lo)) : log_sum[k];
        }
    }

    void write(const Group &r, const Factors &f, const typename TileResults<X>::Place &g) const {
        if (f.any_far) gather_rows<X>(a->x, r.outer, r.first, r.count, r.again, a->where);
        for (isize j = 0; j < n(); ++j) {
            const V e = X::load(r.e + j * X::lanes), q = mass(r, j);
            const V usual = f.normalizer.apply(e) - q * f.q_factor,
                    top = ((f.mass - q) + f.drift) * f.certain_p - q * f.certain_rest;
            V y = e == X::set(certain) ? top : usual;
            if (f.any_far) y = far(r, f, X::load(r.again + j * X::lanes), q, y);
            g.store(j, r.counted == V{} ? V{} : y);
        }
    }
    // Of factors beyond the limits, by the number.
    __attribute__((noinline)) V far(const Group &r, const Factors &f, V logit, V q, V y) const {
        for (isize l = 0; l < r.count; ++l) {
            const Derivative derivative{static_cast<double>(r.max[l]),
                                        {f.log[l], f.log_lo[l]},
                                        {r.s[l], r.s_lo[l]},
                                        f.p[l],
                                        f.q[l]};
            if (f.far[l] != 0)
                y[l] = static_cast<C>(
                    derivative.at(static_cast<double>(logit[l]), static_cast<double>(q[l]), 0));
        }
        return y;
    }
};

template <class C, bool Scaled, bool Gradient>
isize further_memory(const TargetTile<C, Scaled, Gradient> &tile) {
    return tile_memory(tile.n(), 4, 3);
}

// The sum of the losses of rows in lanes.
template <class Tile>
double cross_entropy_tiles(const CrossEntropyArguments &a, isize threads) {
    RowLosses losses(a, a.x.outer * ((a.x.inner + Tile::width - 1) / Tile::width));
    TilesWork<Tile> work(Tile(a, losses), a.x.outer, a.x.inner, Tile::width);
    execute(work, threads);
    return losses.total();
}
// The same if rows are for that; NaN is a sum, so there is a flag.
template <bool Scaled, bool Gradient, class C>
bool cross_entropy_across(const CrossEntropyArguments &a, isize threads, double &sum) {
    const bool by_label = a.labels() && a.smoothing == 0 && a.z_loss == 0;
    const int lanes_run =
        a.x.n > chunk ? 0 : lanes_along(a.x, by_label ? short_label_row : short_target_row);
    if (!lanes_run) return false;
    const CrossEntropyArguments s = lanes_run == along_inner ? a : a.swapped();
    sum = by_label ? cross_entropy_tiles<LabelTile<C, Scaled, Gradient>>(s, threads)
                   : cross_entropy_tiles<TargetTile<C, Scaled, Gradient>>(s, threads);
    return true;
}

template <bool Scaled, class C>
double cross_entropy_scaled(const CrossEntropyArguments &given, isize threads) {
    double sum = 0;
    if (given.gradient ? cross_entropy_across<Scaled, true, C>(given, threads, sum)
                       : cross_entropy_across<Scaled, false, C>(given, threads, sum)) {
        return sum;
    }
    // runs of rows go along the inner axis
    const CrossEntropyArguments a = given.x.inner == 1 ? given.swapped() : given;
    const isize rows = a.x.outer * a.x.inner;
    RowLosses losses(a, (rows + rows_per_piece(a.x.n) - 1) / rows_per_piece(a.x.n));
    if (a.labels() && a.smoothing == 0 && a.x.n <= chunk) {
        if (a.gradient) {
            WholeRowsWork<LabelGradientRow<C, Scaled>> work({a, losses}, a.x.outer, a.x.inner,
                                                            a.x.n);
            execute(work, threads);
        } else {
            WholeRowsWork<LabelLossRow<C, Scaled>> work({a, losses}, a.x.outer, a.x.inner, a.x.n);
            execute(work, threads);
        }
    } else {
        RowsWork<TargetRow<C, Scaled>> work({a, losses}, a.x.outer, a.x.inner, a.x.n, threads);
        execute(work, threads);
    }
    return losses.total();
}

// The sum of all rows' losses.
inline double cross_entropy(const CrossEntropyArguments &a, isize threads) {
    return with_compute({a.wide() ? Number::float64 : a.x.number}, [&](auto zero) {
        using C = decltype(zero);
        return a.logits().plain() ? cross_entropy_scaled<false, C>(a, threads)
                                  : cross_entropy_scaled<true, C>(a, threads);
    });
}

// Contiguous rows and default options; targets are contiguous, too, and labels if they are
// integers.
template <class C>
double plain_cross_entropy(const void *x, const void *target, Number number, void *gradient,
                           isize rows, isize n, double scale, isize threads) {
    CrossEntropyArguments a;
    a.x = AnyView::matrix(x, number_of<C>, rows, n);
    a.target = AnyView::matrix(target, number, rows, is_integer(number) ? 1 : n);
    if (gradient) a.gradient = AnyView::matrix(gradient, number_of<C>, rows, n);
    a.scale = scale;
    return with_compute({number == Number::float64 ? number : number_of<C>}, [&](auto zero) {
        return cross_entropy_scaled<false, decltype(zero)>(a, threads);
    });
}

// --- boosting ------------------------------------------------------------------------------------
// p - t and the diagonal of the second derivative, factor * p (1 - p) but at least a floor, for
// short rows: in double, where 1 - p is (total - e) / total and loses nothing.
struct GradHessArguments {
    AnyView x, target, sample_weight, gradient, hessian;
    double factor = 1, floor = 0;

    bool labels() const { return is_integer(target.number); }
    GradHessArguments swapped() const {
        GradHessArguments a = *this;
        a.x = x.swapped(), a.target = target.swapped(), a.sample_weight = sample_weight.swapped();
        a.gradient = gradient.swapped(), a.hessian = hessian.swapped();
        return a;
    }
};

// The same from exponentials e, of which `sum` is the total; of one row, or of rows in lanes.
struct GradHess {
    using X = Vec<double>;
    using V = X::V;
    Pair<V> sum;
    V weight, inverse, w, least, factor;  // w, p: times the weight

    GradHess(const GradHessArguments &a, Pair<V> total, V weight_) : sum(total), weight(weight_) {
        const V s = sum.hi - sum.hi == V{} ? sum.hi + sum.lo
                                           : X::set(std::numeric_limits<double>::quiet_NaN());
        inverse = 1 / s, w = weight / s, least = weight * a.floor, factor = X::set(a.factor);
    }
    FS_INLINE V gradient(V e, V y) const {
        return counted((1.0 - y) * (e * w) - y * (others(e) * w));
    }
    FS_INLINE V hessian(V e) const {
        const V curvature = factor * ((e * w) * (others(e) * inverse));
        return counted(weight < 0 ? smaller(least, curvature) : larger(least, curvature));
    }
    // Relative to the maximum and so many octaves larger, and by as much again as the weight is
    // above 1, terms of a sum underflow only where its digits end.
    static double lift(double weight) {
        const double m = std::abs(weight);
        return m > 1 ? 60 + smaller(840.0, double(std::ilogb(m))) : m > 0x1p-900 ? 60 : 0;
    }
    static Shift<X> shift(V max, V lifts) {
        const Scale<X> one = Scale<X>::one();
        Shift<X> s = Shift<X>::from(max, one);
        s.magic = s.magic + lifts, s.lowest = s.lowest - lifts * one.unit;
        return s;
    }
    static FS_INLINE V exp(V x, const Shift<X> &shift) {
        return exp_shifted<X, false>(x, shift, Scale<X>::one());
    }

  private:
    FS_INLINE V others(V e) const { return (sum.hi - e) + sum.lo; }
    // or left out, whatever the row holds
    FS_INLINE V counted(V v) const { return weight == V{} ? V{} : v; }
};

struct GradHessRow {
    using X = Vec<double>;
    using V = X::V;
    enum Stage { maximum, total, write };
    struct Partial {
        double max;
        Sum sum;
    };

    const GradHessArguments *a;
    isize outer = 0, inner = 0, label = -1;
    double weight = 1, max = 0;
    Stage stage = maximum;
    Shift<X> shift{};
    Sum sum;
    ChunkResults<Partial> partial;

    explicit GradHessRow(const GradHessArguments &arguments) : a(&arguments) {}

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i;
        partial.resize(static_cast<std::size_t>(chunks()));
        label = a->labels() ? a->target.integer(o, i) : -1;
        weight = a->sample_weight ? a->sample_weight.value(o, i) : 1;
        stage = maximum;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        const Reader<double> from(a->x, outer, inner);
        LaneSums<X> sums;
        Partial &p = partial[static_cast<std::size_t>(k)];
        p.max = absent_logit<double>;
        Scratch<double> buffer(gather_block);
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const double *x = from.get(at, size, buffer);
            if (stage == maximum)
                p.max = larger(p.max, span_max<X>(x, size));
            else if (stage == total)
                each_vector<X>(size, [&](isize j, auto lanes) {
                    sums.add(exp(lanes.load(x + j, absent_logit<double>)));
                });
            else
                write_block(x, at, size);
        }
        p.sum = sums.total();
    }

    bool next() {
        if (stage == write) return false;
        max = absent_logit<double>;
        Sum all;
        for (const Partial &p : partial) max = larger(p.max, max), all.add(p.sum);
        if (stage == maximum) {
            shift = GradHess::shift(X::set(max), X::set(GradHess::lift(weight)));
            return stage = total, true;
        }
        sum = all;
        return stage = write, true;
    }

  private:
    FS_INLINE V exp(V x) const { return GradHess::exp(x, shift); }

    void write_block(const double *x, isize at, isize size) const {
        Scratch<double> t_buffer(gather_block), g(gather_block), h(gather_block);
        const double *t = targets(at, size, t_buffer);
        const GradHess result(*a, {X::set(sum.hi), X::set(sum.lo)}, X::set(weight));
        each_vector<X>(size, [&](isize j, auto lanes) {
            const V e = exp(lanes.load(x + j, absent_logit<double>));
            lanes.store(g + j, result.gradient(e, lanes.load(t + j, 0)));
            lanes.store(h + j, result.hessian(e));
        });
        Writer<double>(a->gradient, outer, inner).copy(at, size, g);
        Writer<double>(a->hessian, outer, inner).copy(at, size, h);
    }
    const double *targets(isize at, isize size, double *buffer) const {
        if (!a->labels())
            return Reader<double>::broadcast(a->target, outer, inner).get(at, size, buffer);
        for (isize j = 0; j < size; ++j) buffer[j] = at + j == label;
        return buffer;
    }
};

// Rows in lanes.
struct GradHessTile {
    using X = Vec<double>;
    using V = X::V;
    static constexpr isize width = tile_vectors * X::lanes;

    const GradHessArguments *a;

    isize n() const { return a->x.n; }

    void run(isize outer, isize first, isize count) const {
        const Scratch<double> e(n() * X::lanes);
        TileColumns<X> x(a->x, outer, first, count),
            t(a->labels() ? AnyView() : a->target, outer, first, count);
        const TileResults<X> g(a->gradient, outer, first, count),
            h(a->hessian, outer, first, count);
        x.gather();
        if (!a->labels()) t.gather();
        for (isize at = 0; at < count; at += X::lanes) {
            const isize size = count - at < X::lanes ? count - at : X::lanes;
            vector(x.from(at), a->labels() ? Columns<X>{} : t.from(at), e, g.place(at), h.place(at),
                   outer, first + at, size);
            g.put(at), h.put(at);
        }
        g.put(), h.put();
    }

  private:
    using Place = TileResults<X>::Place;

    void vector(const Columns<X> &x, const Columns<X> &t, double *e, const Place &g, const Place &h,
                isize outer, isize first, isize count) const {
        V max = X::set(absent_logit<double>);
        for (isize j = 0; j < n(); ++j) max = larger(x[j], max);
        double weights[X::lanes], lifts[X::lanes], labels[X::lanes] = {};
        for (double &w : weights) w = 1;
        if (a->sample_weight) read_rows(a->sample_weight, outer, first, count, weights);
        for (isize l = 0; l < X::lanes; ++l) lifts[l] = GradHess::lift(weights[l]);
        const Shift<X> shift = GradHess::shift(max, X::load(lifts));
        LaneSums<X> sums;
        for (isize j = 0; j < n(); ++j) {
            const V y = GradHess::exp(x[j], shift);
            X::store(e + j * X::lanes, y);
            sums.add(y);
        }
        if (a->labels()) read_rows(a->target, outer, first, count, labels);
        const V label = X::load(labels);
        const GradHess result(*a, sums.part(0), X::load(weights));
        for (isize j = 0; j < n(); ++j) {
            const V y = X::load(e + j * X::lanes), one = X::set(1),
                    target = a->labels() ? (label == static_cast<double>(j) ? one : V{}) : t[j];
            g.store(j, result.gradient(y, target));
            h.store(j, result.hessian(y));
        }
    }
};
inline isize further_memory(const GradHessTile &tile) {
    return tile_memory(tile.n(), 4, 1);
}

inline void cross_entropy_grad_hess(const GradHessArguments &a, isize threads) {
    if (const int lanes_run = a.x.n > chunk ? 0 : lanes_along(a.x, short_target_row)) {
        const GradHessArguments s = lanes_run == along_inner ? a : a.swapped();
        TilesWork<GradHessTile> work(GradHessTile{&s}, s.x.outer, s.x.inner, GradHessTile::width);
        return execute(work, threads);
    }
    RowsWork<GradHessRow> work(GradHessRow(a), a.x.outer, a.x.inner, a.x.n, threads);
    execute(work, threads);
}

}  // namespace fs
}  // namespace
