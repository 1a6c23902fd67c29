// Exponentials of contiguous rows: summed, kept, scaled and written.
#pragma once

#include "vexp.h"
#include "work.h"

namespace {
namespace fs {

// Sweeps over a contiguous block of one row. Exp is a function of vectors.
template <class C> constexpr C absent_logit = -std::numeric_limits<C>::infinity();

template <class X, class C, class Exp> FS_INLINE void add_exp(const C *x, isize n, const Exp &exp, LaneSums<X> &sums) {
    sum_vectors<X>(n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA { return exp(lanes.load(x + i, absent_logit<C>)); });
}

// `sum` less the exponential at one place of it, with all digits of the others even if it is nearly all there is: what its block of `count` elements (at a
// multiple of summed_elements from the start of the row) added to the sum is taken away, and added again without it.
template <class X, class C, class Exp> Sum sum_without(const C *x, isize count, isize place, const Exp &exp, Sum sum) {
    C e[summed_elements<X>];
    LaneSums<X> with, without;
    sum_vectors<X>(count, with, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        const auto v = exp(lanes.load(x + i, absent_logit<C>));
        lanes.store(e + i, v);
        return v;
    });
    sum_vectors<X>(count, without, [&](isize i, auto lanes) FS_INLINE_LAMBDA { return X::without(lanes.load(e + i, 0), place - i); });
    const Sum all = with.total();
    sum.add({-all.hi, -all.lo});
    sum.add(without.total());
    return sum;
}

// exp(x) of a row, kept in e to be scaled. Where the row does not end with a vector, its last vector overlaps the one before: that costs less than masked
// loads and stores. (A row of less than a vector is padded.) beside(i) comes along with every whole vector.
template <class X, class S, class C, class Exp, class Beside>
FS_INLINE typename LaneSums<X>::Unfolded keep_exp(const S *x, C *e, isize n, const Exp &exp, Beside beside) {
    LaneSums<X> sums;
    sum_vectors<X>(n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        if constexpr (decltype(lanes)::whole) {
            const auto y = exp(load_as<X>(x + i));
            X::store(e + i, y);
            beside(i);
            return y;
        } else {
            const isize at = n < X::lanes ? 0 : n - X::lanes;
            const auto y = exp(n < X::lanes ? lanes.load(x, absent_logit<C>) : load_as<X>(x + at));
            X::store(e + at, y);
            return n < X::lanes ? y : X::last(y, n - i);
        }
    });
    return sums.unfolded();
}
template <class X, class S, class C, class Exp> FS_INLINE typename LaneSums<X>::Unfolded keep_exp(const S *x, C *e, isize n, const Exp &exp) {
    return keep_exp<X>(x, e, n, exp, [](isize) {});
}

// e -> e * numerator / total. The quotient is kept in two terms, which saves a rounding error (but with the table exponential of AVX-512, which needs no
// help to stay within bounds); where arithmetic is not fused, softmax divides instead (the exponential's error is larger there).
template <class X, bool Softmax> struct Normalizer {
    using T = typename X::Scalar;
    static constexpr bool divides = Softmax && !FS_HAS_FMA, two_terms = !divides && !(sizeof(T) == 4 && ExpCore<X>::overflows);
    typename X::V hi, lo;

    // For a whole row.
    struct Scalar {
        T hi, lo;
    };
    Normalizer() = default;
    explicit FS_INLINE Normalizer(Scalar s) : hi(X::set(s.hi)), lo(X::set(s.lo)) {}

    static FS_INLINE Scalar scalar(double numerator, Sum total) {
        if constexpr (two_terms || divides) {
            using D = Vec<double, 16>;
            const auto q = quotient<D>(D::set(numerator), {D::set(total.hi), D::set(total.lo)});
            return {static_cast<T>(q.hi[0]), two_terms ? low(q.hi[0], q.lo[0]) : T(0)};
        } else {
            const double s = total.hi - total.hi == 0 ? total.value() : std::numeric_limits<double>::quiet_NaN();
            return {static_cast<T>(numerator * (1 / s)), 0};
        }
    }
    static FS_INLINE Normalizer all(double numerator, Sum total) { return Normalizer(scalar(numerator, total)); }
    // One for each lane, from the sums of lanes; numerators are 1 if there are none.
    static FS_INLINE Normalizer each(const LaneSums<X> &sums, const double *numerators) {
        using D = Vec<double>;
        Pair<typename D::V> q[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            q[k] = quotient<D>(numerators ? D::load(numerators + k * D::lanes) : D::set(1), sums.part(k));
        }
        const auto both = pair_from_wide<X>(q);
        Normalizer n;
        n.hi = both.hi;
        if constexpr (two_terms) n.lo = both.lo - both.lo == typename X::V{} ? both.lo : typename X::V{};
        return n;
    }
    FS_INLINE typename X::V apply(typename X::V e) const {
        return divides ? e / hi : two_terms ? multiply_add(e, hi, e * lo) : e * hi;
    }

  private:
    // numerator / total as hi + lo; the total itself where softmax divides.
    template <class D> static FS_INLINE Pair<typename D::V> quotient(typename D::V numerator, Pair<typename D::V> total) {
        using W = typename D::V;
        // An infinite sum comes from +inf in the row, which makes it NaN.
        const W s = total.hi - total.hi == W{} ? total.hi + total.lo : D::set(std::numeric_limits<double>::quiet_NaN());
        if constexpr (divides) return {s, W{}};
        const W inverse = 1.0 / s, q = numerator * inverse;
        return {q, (-multiply_subtract_exact<D>(q, total.hi, numerator) - q * total.lo) * inverse};
    }
    static FS_INLINE T low(double q_hi, double q_lo) {
        const T l = static_cast<T>((q_hi - static_cast<double>(static_cast<T>(q_hi))) + q_lo);
        return l - l == 0 ? l : T(0);
    }
};

// y = writer(x), by a Normalizer of kept exponentials or a LogWriter of logits.
template <class X, class C, class S, class W> FS_INLINE void write_with(const W &writer, const C *x, S *y, isize n, bool streaming) {
    write_span<X>(y, n, streaming, [&](isize i, auto lanes) FS_INLINE_LAMBDA { return writer.apply(lanes.load(x + i, 0)); });
}

// Whether the constant shift may do: judged by the first logit, and by the sum when that is known. The constant makes rows independent of what they
// hold until their sums are known, so that the processor works on several at once.
template <class X> FS_INLINE bool worth_a_guess(typename X::Scalar first, const Scale<X> &scale) {
    return first * scale.hi[0] > -16 && first * scale.hi[0] < 40;
}
// Whether the sum came from a shift near enough: between 1/2 and 2^100 (2^900), nothing that matters was lost.
template <class C> FS_INLINE bool near_enough(double sum) { return sum >= 0.5 && sum <= (sizeof(C) == 4 ? 0x1p100 : 0x1p900); }

// The sums of the exponentials of rows with the constant shift, together, and the exponential of one logit of each: sum_row(k, exp, sums) adds those of a
// row (or not, where that is not worth it) and returns the logit.
template <class X, bool Scaled, isize most, class C, class ScaleOf, class SumRow>
FS_INLINE void guess_sums(isize count, ScaleOf scale_of, Sum *total, C *logit, C *at_logit, SumRow sum_row) {
    typename LaneSums<X>::Unfolded unfolded[most];
    const auto one = [&](isize k, const TypicalExp<X, Scaled> &exp) FS_INLINE_LAMBDA {
        LaneSums<X> sums;
        logit[k] = sum_row(k, exp, sums);
        unfolded[k] = sums.unfolded();
        if constexpr (Scaled) at_logit[k] = exp(X::set(logit[k]))[0];
    };
    if constexpr (Scaled) {
        for (isize k = 0; k < count; ++k) one(k, TypicalExp<X, true>(scale_of(k)));
    } else {
        const TypicalExp<X, false> exp(Scale<X>::one());
        for (isize k = 0; k < count; ++k) one(k, exp);
        each_vector<X>(count, [&](isize k, auto lanes) { lanes.store(at_logit + k, exp(lanes.load(logit + k, 0))); });
    }
    LaneSums<X>::totals(unfolded, count, total);
}

// exp(x) of a row with the shift from the maximum, kept; short rows as ShortTile has them.
template <class X, bool Scaled, class S, class C>
FS_INLINE typename LaneSums<X>::Unfolded careful_exp(const S *x, C *e, isize n, const Scale<X> &scale, Shift<X> &shift) {
    using V = typename X::V;
    typename X::I off = bits<X>(X::set(n > short_row));
    if (n <= short_row) each_vector<X>(n, [&](isize i, auto lanes) { off |= off_lattice<X>(lanes.load(x + i, 0)); });
    const V max = X::set(span_max<X>(x, n));
    shift = any<X>(off) ? Shift<X>::from(max, scale) : Shift<X>::from(max, scale, max == max);
    return keep_exp<X>(x, e, n, [&](V v) FS_INLINE_LAMBDA { return exp_shifted<X, Scaled>(v, shift, scale); });
}

// Rows that wait to be done together. A copy starts with none.
template <class Row, isize most> struct Waiting {
    isize count = 0, limit = most;
    Row rows[most];

    Waiting() {}
    Waiting(const Waiting &) {}
    // True: there is no room for another one.
    FS_INLINE bool add(const Row &row) {
        rows[count] = row;
        return ++count == limit;
    }
};

// Rows of one chunk whose exponentials are kept until their sum is known, and written then, each times a number of its own.
//
// Rows that fit L1 keep them in scratch, a batch of rows at a time. Their sums are settled together, and a batch is written along with the exponentials of
// the next one: that hides the latency of sums and reciprocals, and loads and stores among arithmetic. Longer rows keep them in the output itself, if it is
// not the input, which must stay intact until the sum is known to be right. (Measured, AVX-512, float: batches instead of single rows gain 20 % at 64
// elements and 12 % at 100; writing along gains 20 % at 1000 and loses 40 % at 32000, where scratch doubles the time.)
template <class C, bool Softmax, bool Scaled, class S = C> class KeptRows {
    using X = Vec<C>;
    using V = typename X::V;
    using Sums = LaneSums<X>;
    using Unfolded = typename Sums::Unfolded;
    using Normal = Normalizer<X, Softmax>;
    static constexpr bool converts = !std::is_same<S, C>::value;  // logits and results are contiguous numbers of another type

  public:
    struct Row {
        isize outer, inner;
        const S *x;
        C *e;  // the exponentials
        S *y;  // the results
        bool guessed;
        C center;  // the shift of its exponentials: exp(s (x - center)) 2^-exponent
        double exponent;
        Sum sum;
        double numerator;
        typename Normal::Scalar normalizer;
        isize place;  // of the one result that is `value` whatever its exponential; -1: none
        C value;
    };
    static constexpr isize most = 16;  // rows of a batch
    // The two batches are not a multiple of 4096 bytes apart: the processor would take the loads of one for those of what it has just stored to the other.
    static constexpr isize apart(isize elements) { return elements / 1024 * 1024 + 1024 + 512; }
    static constexpr isize other_bank = apart(kept_in_l1 + most * X::lanes), memory = other_bank + chunk;  // in elements of scratch

  private:
    isize n = 0, batch = 1, pitch = 0;
    bool in_scratch = true;
    AnyView out{};
    Mask where{};
    Writer<C> to{};
    bool direct = false, streaming = false;
    C *buffer = nullptr;
    Row rows[2][most];
    Unfolded sums[most];
    int bank = 0;                  // the current batch is rows[bank], the one before rows[!bank]
    isize count = 0;               // rows of the current batch
    isize waiting = 0, written = 0;  // rows of the one before, and how many of them have their results

  public:
    KeptRows() {}
    KeptRows(const KeptRows &) {}  // begin() sets all there is: a copy of the rows would cost a tiny call a quarter of its time

    // `writer` is that of the first row.
    void begin(isize n_, const AnyView &out_, const Mask &where_, const Writer<C> &writer, C *scratch_, isize limit) {
        n = n_, out = out_, where = where_, to = writer, buffer = scratch_;
        direct = out.data && (converts || to.direct());
        streaming = converts && out.outer * out.n * out.inner * isize(sizeof(S)) >= stream_from;
        batch = n > batch_elements ? 1 : batch_elements / n < limit ? batch_elements / n : limit;
        pitch = (n + X::lanes - 1) / X::lanes * X::lanes;
        in_scratch = n <= kept_in_l1;
        count = waiting = written = 0;
    }

    // Takes a row, whose logits stay where they are until the batch is settled; place() is that of the next row in it. True: the batch must be settled.
    isize place() const { return count; }
    FS_INLINE bool keep(const S *x, isize o, isize i, isize place = -1) {
        Row &row = rows[bank][count];
        row.outer = o, row.inner = i, row.x = x, row.place = place;
        return ++count == batch;
    }

    // Settles the batch: then(row) is told the sum of each row, and decides on its numerator (and value). scale_of(row) is its scale.
    template <class ScaleOf, class Then> FS_INLINE void settle(ScaleOf scale_of, Then then) {
        Row *row = rows[bank];
        bool all = !Scaled && in_scratch;
        for (isize k = 0; k < count; ++k) {
            row[k].guessed = n > short_row && worth_a_guess<X>(static_cast<C>(row[k].x[0]), scale_of(row[k]));
            row[k].e = buffer + bank * other_bank + k * pitch;
            row[k].y = direct ? reinterpret_cast<S *>(out.at(row[k].outer, row[k].inner)) : reinterpret_cast<S *>(row[k].e);
            if constexpr (!converts) {
                if (!in_scratch && row[k].y != row[k].x) row[k].e = row[k].y;
            }
            all &= row[k].guessed;
        }
        if (all) guess_all(row, rows[!bank]);
        else guess_each(row, scale_of);
        write_waiting();
        for (isize k = 0; k < count; ++k) then(row[k]);
        for (isize k = 0; k < count; ++k) row[k].normalizer = Normal::scalar(row[k].numerator, row[k].sum);
        waiting = out.data ? count : 0, written = 0, count = 0, bank = !bank;
        if (!in_scratch) write_waiting();
    }
    bool unsettled() const { return count > 0; }
    // After the last batch.
    void end() {
        write_waiting();
        if (streaming) stream_fence();
    }

    // The sum of all kept exponentials but one.
    Sum others(const Row &row, isize at) const {
        Sums rest;
        each_vector<X>(n, [&](isize j, auto lanes) {
            V v = lanes.load(row.e + j, 0);
            if (at >= j && at < j + X::lanes) v[at - j] = 0;
            rest.add(v);
        });
        return rest.total();
    }

  private:
    // The exponentials of a batch with the typical shift, and the results of the rows that wait.
    void guess_all(Row *row, const Row *before) {
        const Scale<X> one = Scale<X>::one();
        const TypicalExp<X, false> exp(one);
        for (isize k = 0; k < count; ++k) {
            const bool along = k < waiting && !(streaming && reinterpret_cast<std::uintptr_t>(before[k].y) % (X::lanes * sizeof(S)));
            sums[k] = along ? keep_and_write(row[k], before[k], exp) : keep_exp<X>(row[k].x, row[k].e, n, exp);
            if (k < waiting && !along) write_row(before[k]);
        }
        for (; written < count && written < waiting; ++written) finish(before[written]);
        Sum total[most];
        Sums::totals(sums, count, total);
        for (isize k = 0; k < count; ++k) {
            row[k].sum = total[k], row[k].center = 0, row[k].exponent = Shift<X>::typical_exponent;
            if (!near_enough<C>(total[k].value())) be_careful(row[k], one);
        }
    }
    FS_INLINE Unfolded keep_and_write(Row &row, const Row &before, const TypicalExp<X, false> &exp) const {
        const Normal scaled(before.normalizer);
        const C *e = before.e;
        S *y = before.y;
        const V end = scaled.apply(X::load(e + n - X::lanes));  // overlaps the last whole vector; read before results, which may take the place of e
        // Loads of logits whose addresses are a little above those of results, but for multiples of 4096 bytes, would wait for these, as if they read what
        // was just stored (a third more time). Then the second half of the results comes first.
        const auto above = (reinterpret_cast<std::uintptr_t>(y) - reinterpret_cast<std::uintptr_t>(row.x)) % 4096;
        const isize whole = n / X::lanes * X::lanes, turn = whole / (2 * X::lanes) * X::lanes;
        const auto write = [&](isize j) FS_INLINE_LAMBDA {
            const V v = scaled.apply(X::load(e + j));
            if (converts && streaming) stream_as<X>(y + j, v);
            else store_as<X>(y + j, v);
        };
        const Unfolded sum = above < 512 ? keep_exp<X>(row.x, row.e, n, exp, [&](isize i) FS_INLINE_LAMBDA { write(i + turn < whole ? i + turn : i + turn - whole); })
                                         : keep_exp<X>(row.x, row.e, n, exp, write);
        if (whole < n) store_as<X>(y + n - X::lanes, end);  // an ordinary store to a line that is streamed costs more than the rest
        return sum;
    }

    // The same row by row, where not all can be guessed.
    template <class ScaleOf> void guess_each(Row *row, ScaleOf scale_of) {
        for (isize k = 0; k < count; ++k) {
            const Scale<X> scale = scale_of(row[k]);
            if (row[k].guessed) {
                const TypicalExp<X, Scaled> exp(scale);
                row[k].center = 0, row[k].exponent = Shift<X>::typical_exponent;
                row[k].sum = folded(keep_exp<X>(row[k].x, row[k].e, n, exp));
                if (near_enough<C>(row[k].sum.value())) continue;
            }
            be_careful(row[k], scale);
        }
    }
    void be_careful(Row &row, const Scale<X> &scale) const {
        Shift<X> shift;
        row.sum = folded(careful_exp<X, Scaled>(row.x, row.e, n, scale, shift));
        row.center = shift.center[0], row.exponent = shift.exponent(0);
    }
    static Sum folded(const Unfolded &sum) {
        Sum total;
        Sums::totals(&sum, 1, &total);
        return total;
    }

    void write_waiting() {
        for (; written < waiting; ++written) {
            write_row(rows[!bank][written]);
            finish(rows[!bank][written]);
        }
    }
    void write_row(const Row &row) const { write_with<X>(Normal(row.normalizer), row.e, row.y, n, streaming); }
    FS_INLINE void finish(const Row &row) const {
        if (row.place >= 0) row.y[row.place] = static_cast<S>(row.value);
        if constexpr (!converts) {
            if (!direct) scatter(row);
        }
    }
    __attribute__((noinline)) void scatter(const Row &row) const {
        Writer<C> t = to;
        t.p += out.offset(row.outer, row.inner);
        if (t.mask) t.mask += where.offset(row.outer, row.inner);
        t.put(0, n, row.y);
    }
};

}  // namespace fs
}  // namespace
