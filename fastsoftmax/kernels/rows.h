// Exponentials of contiguous rows: summed, kept, scaled and written.
#pragma once

#include "vexp.h"
#include "work.h"

namespace {
namespace fs {

// Sweeps over a contiguous block of one row. Exp is a function of vectors.
template <class C> constexpr C absent_logit = -std::numeric_limits<C>::infinity();

template <class X, class C, class Exp> inline void add_exp(const C *x, isize n, const Exp &exp, LaneSums<X> &sums) {
    sum_vectors<X>(n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA { return exp(lanes.load(x + i, absent_logit<C>)); });
}

// exp(x) of a row, kept in e to be scaled. Where the row does not end with a vector, its last vector overlaps the one before: that costs less than
// masked loads and stores. (A row of less than a vector is padded.) It is kept apart, in `last`, since e may be the output, where the overlap would be
// scaled twice. beside(i) comes along with every whole vector.
template <class X, class C, class Exp, class Beside>
FS_INLINE Sum keep_exp(const C *x, C *e, C *last, isize n, const Exp &exp, Beside beside) {
    LaneSums<X> sums;
    sum_vectors<X>(n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        if constexpr (decltype(lanes)::whole) {
            const auto y = exp(X::load(x + i));
            X::store(e + i, y);
            beside(i);
            return y;
        } else {
            const auto y = exp(n < X::lanes ? lanes.load(x, absent_logit<C>) : X::load(x + n - X::lanes));
            X::store(last, y);
            return n < X::lanes ? y : X::last(y, n - i);
        }
    });
    return sums.total();
}
template <class X, class C, class Exp> FS_INLINE Sum keep_exp(const C *x, C *e, C *last, isize n, const Exp &exp) {
    return keep_exp<X>(x, e, last, n, exp, [](isize) {});
}

// Stores of whole vectors that cross cache lines cost two: a long row begins with what makes all others meet them (15 % at 32000 elements, AVX-512).
template <class X, class C, class N> FS_INLINE void write_kept(const N &normalizer, const C *e, const C *last, C *y, isize n) {
    const isize whole = n / X::lanes * X::lanes;
    isize head = 0;
    if (n > kept_in_l1) {
        head = static_cast<isize>(-reinterpret_cast<std::uintptr_t>(y) % sizeof(typename X::V) / sizeof(C));
        X::store_part(y, normalizer.apply(X::load_part(e, head, 0)), head);
    }
    each_vector<X>(whole - head, [&](isize i, auto lanes) { lanes.store(y + head + i, normalizer.apply(lanes.load(e + head + i, 0))); });
    if (n < X::lanes) X::store_part(y, normalizer.apply(X::load(last)), n);
    else if (whole < n) X::store(y + n - X::lanes, normalizer.apply(X::load(last)));
}

// e -> e * numerator / total. The quotient is kept in two terms, which saves a rounding error (but with the table exponential of AVX-512, which needs no
// help to stay within bounds); where arithmetic is not fused, softmax divides instead (the exponential's error is larger there).
template <class X, bool Softmax> struct Normalizer {
    using T = typename X::Scalar;
    static constexpr bool divides = Softmax && !FS_HAS_FMA, two_terms = !divides && !ExpCore<X>::overflows;
    typename X::V hi, lo;

    static FS_INLINE Normalizer all(double numerator, Sum total) {
        Normalizer n;
        if constexpr (two_terms || divides) {
            using D = Vec<double, 16>;
            const auto q = quotient<D>(D::set(numerator), {D::set(total.hi), D::set(total.lo)});
            n.hi = X::set(static_cast<T>(q.hi[0]));
            if constexpr (two_terms) n.lo = X::set(low(q.hi[0], q.lo[0]));
        } else {  // 4 % faster at 1024x100
            const double s = total.hi - total.hi == 0 ? total.value() : std::numeric_limits<double>::quiet_NaN();
            n.hi = X::set(static_cast<T>(numerator * (1 / s)));
        }
        return n;
    }
    // One for each lane, from the sums of lanes.
    void set_lanes(const double *numerators, const LaneSums<X> &sums) {
        using D = Vec<double>;
        T h[X::lanes], l[X::lanes];
        double total_hi[X::lanes], total_lo[X::lanes];
        for (isize k = 0; k < X::lanes; ++k) total_hi[k] = sums.lane(k).hi, total_lo[k] = sums.lane(k).lo;
        for (isize k = 0; k < X::lanes; k += D::lanes) {
            const auto q = quotient<D>(D::load(numerators + k), {D::load(total_hi + k), D::load(total_lo + k)});
            for (isize i = 0; i < D::lanes; ++i) h[k + i] = static_cast<T>(q.hi[i]), l[k + i] = low(q.hi[i], q.lo[i]);
        }
        hi = X::load(h);
        if constexpr (two_terms) lo = X::load(l);
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
template <class X, class C, class W> FS_INLINE void write_with(const W &writer, const C *x, C *y, isize n) {
    each_vector<X>(n, [&](isize i, auto lanes) { lanes.store(y + i, writer.apply(lanes.load(x + i, 0))); });
}

// Whether the constant shift may do: judged by the first logit, and by the sum when that is known. The constant makes rows independent of what they
// hold until their sums are known, so that the processor works on several at once.
template <class X> FS_INLINE bool worth_a_guess(typename X::Scalar first, const Scale<X> &scale) {
    return first * scale.hi[0] > -16 && first * scale.hi[0] < 40;
}
// Whether the sum came from a shift near enough: between 1/2 and 2^100 (2^900), nothing that matters was lost.
template <class C> FS_INLINE bool near_enough(double sum) { return sum >= 0.5 && sum <= (sizeof(C) == 4 ? 0x1p100 : 0x1p900); }

// Rows of one chunk whose exponentials are kept until their sum is known, and written then, each times a number of its own.
//
// Rows that fit L1 keep them in scratch and are written along with the exponentials of the next row: that hides the latency of the sum and its
// reciprocal, and loads and stores among arithmetic. Longer ones keep them in the output itself, if it is not the input, which must stay intact until
// the sum is known to be right. (Measured, AVX-512, float: writing along gains 20 % at 1000 elements and loses 40 % at 32000, where scratch, streaming
// stores or not, doubles the time.)
template <class C, bool Softmax, bool Scaled> class KeptRows {
    using X = Vec<C>;
    using V = typename X::V;
    struct Row {
        isize outer, inner;
        C *e, last[X::lanes];
        Sum sum;
        double numerator;
        isize place;  // of the one result that is `value` whatever its exponential; -1: none
        C value;
    };

    isize n = 0;
    AnyView out{};
    Mask where{};
    Writer<C> to{};
    bool direct = false;
    C *buffer = nullptr;
    Row rows[2];
    int slot = 0, pending = 0;  // rows[slot] is the current one; 1 or 2: rows[pending - 1] is to be written

  public:
    static constexpr isize memory = chunk + kept_in_l1 + 4 * X::lanes;  // elements of scratch
    C center = 0;         // the shift of the last row's exponentials: exp(s (x - center)) 2^-exponent
    double exponent = 0;

    // `writer` is that of the first row.
    void begin(isize n_, const AnyView &out_, const Mask &where_, const Writer<C> &writer, C *scratch_) {
        n = n_, out = out_, where = where_, to = writer, buffer = scratch_;
        direct = out.data && to.direct();
        pending = 0;
    }

    // Keeps the exponentials of a row, and returns their sum.
    FS_INLINE Sum keep(const C *x, isize o, isize i, const Scale<X> &scale) {
        slot = pending == 1;
        Row &row = rows[slot];
        row.outer = o, row.inner = i;
        row.e = buffer + slot * (kept_in_l1 + X::lanes);
        if (n > kept_in_l1) {
            C *y = place(row);
            if (y != x) row.e = y;
        }
        return row.sum = exponentials(x, row, scale);
    }

    // The kept exponential of an element, and the sum of all others.
    C kept(isize at) const {
        const Row &row = rows[slot];
        return n % X::lanes && at >= n - n % X::lanes ? row.last[n < X::lanes ? at : at - (n - X::lanes)] : row.e[at];
    }
    Sum others(isize at) const {
        const Row &row = rows[slot];
        LaneSums<X> sums;
        const isize whole = n / X::lanes * X::lanes;
        const auto add = [&](V v, isize start) {
            if (at >= start && at < start + X::lanes) v[at - start] = 0;
            sums.add(v);
        };
        for (isize j = 0; j < whole; j += X::lanes) add(X::load(row.e + j), j);
        if (whole < n) add(n < X::lanes ? X::load(row.last) : X::last(X::load(row.last), n - whole), n < X::lanes ? 0 : n - X::lanes);
        return sums.total();
    }

    // The results of the row are numerator / sum times its exponentials.
    FS_INLINE void write(double numerator, isize at = -1, C value = 0) {
        Row &row = rows[slot];
        row.numerator = numerator, row.place = at, row.value = value;
        if (n > kept_in_l1) return write_row(row);
        end();
        pending = slot + 1;
    }
    // After the last row.
    void end() {
        if (pending) write_row(rows[pending - 1]);
        pending = 0;
    }

  private:
    // Where results are computed: in the output itself, or in scratch, from where finish() takes them there.
    C *place(const Row &row) const { return direct ? reinterpret_cast<C *>(out.at(row.outer, row.inner)) : row.e; }
    Normalizer<X, Softmax> normalizer(const Row &row) const { return Normalizer<X, Softmax>::all(row.numerator, row.sum); }

    FS_INLINE void write_row(const Row &row) const {
        C *y = place(row);
        write_kept<X>(normalizer(row), row.e, row.last, y, n);
        finish(row, y);
    }
    FS_INLINE void finish(const Row &row, C *y) const {
        if (row.place >= 0) y[row.place] = row.value;
        if (!direct) scatter(row, y);
    }
    __attribute__((noinline)) void scatter(const Row &row, C *y) const {
        Writer<C> t = to;
        t.p += out.offset(row.outer, row.inner);
        if (t.mask) t.mask += where.offset(row.outer, row.inner);
        t.put(0, n, y);
    }

    // Those of a short row are functions of the exact differences from its maximum: they do not change when all its logits move.
    FS_INLINE Sum exponentials(const C *x, Row &row, const Scale<X> &scale) {
        if (n <= short_row) {
            center = span_max<X>(x, n), exponent = 0;
            const V top = X::set(center);
            const Shift<X> zero = Shift<X>::fixed(0, scale);
            return keep_exp<X>(x, row.e, row.last, n, [&](V v) { return exp_below<X, Scaled>(v, top, zero, scale); });
        }
        if (worth_a_guess<X>(x[0], scale)) {
            center = 0, exponent = Shift<X>::typical_exponent;
            const TypicalExp<X, Scaled> exp(scale);
            const Sum sum = pending ? keep_and_write(x, row, exp) : keep_exp<X>(x, row.e, row.last, n, exp);
            if (near_enough<C>(sum.value())) return sum;
        }
        const Shift<X> shift = Shift<X>::from(X::set(span_max<X>(x, n)), scale);
        center = shift.center[0], exponent = shift.exponent(0);
        return keep_exp<X>(x, row.e, row.last, n, [&](V v) { return exp_shifted<X, Scaled>(v, shift, scale); });
    }

    // Exponentials of this row, and the results of the one that waits.
    FS_INLINE Sum keep_and_write(const C *x, Row &row, const TypicalExp<X, Scaled> &exp) {
        const Row &before = rows[pending - 1];
        const auto scaled = normalizer(before);
        const C *e = before.e;
        C *y = place(before);
        const Sum sum = keep_exp<X>(x, row.e, row.last, n, exp, [&](isize i) { X::store(y + i, scaled.apply(X::load(e + i))); });
        if (n % X::lanes) X::store(y + n - X::lanes, scaled.apply(X::load(before.last)));
        finish(before, y);
        pending = 0;
        return sum;
    }
};

}  // namespace fs
}  // namespace
