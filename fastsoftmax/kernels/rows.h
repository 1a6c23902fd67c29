// Exponentials of contiguous rows: summed, kept, scaled and written.
#pragma once

#include "vexp.h"
#include "work.h"

namespace {
namespace fs {

// Whether the constant shift may do: judged by the first logit, and by the sum when that is known.
// The constant makes rows independent of what they hold until their sums are known, so that the
// processor works on several at once.
template <class V>
FS_INLINE auto worth_a_guess(V scaled_logit) {
    return (scaled_logit > -16) & (scaled_logit < 40);
}
template <class X>
FS_INLINE bool all_worth_a_guess(const typename X::Scalar *logits, isize count) {
    typename X::I wrong = {};
    each_vector<X>(count, [&](isize k, auto lanes) FS_INLINE_LAMBDA {
        wrong |= ~worth_a_guess(lanes.load(logits + k, 0));
    });
    return !any<X>(wrong);
}
// Whether the sum came from a shift near enough: between 1/2 and 2^100 (2^900), nothing that
// matters was lost.
template <class C, class V>
FS_INLINE auto near_enough(V sum) {
    return (sum >= 0.5) & (sum <= (sizeof(C) == 4 ? 0x1p100 : 0x1p900));
}

// Rows of n elements that make `elements` together: at least one, and no more than `most`.
FS_INLINE isize rows_of_batch(isize elements, isize n, isize most) {
    return n > elements ? 1 : elements / n < most ? elements / n : most;
}

// The totals of rows that are settled together: what is done once a row costs less in vectors of
// them, and none waits for another.
template <isize most>
struct Totals {
    double hi[most], lo[most];

    FS_INLINE Sum operator[](isize k) const { return {hi[k], lo[k]}; }
    FS_INLINE void set(isize k, Sum sum) { hi[k] = sum.hi, lo[k] = sum.lo; }
    template <class D>
    FS_INLINE Pair<typename D::V> part(isize k) const {
        return {D::load(hi + k), D::load(lo + k)};
    }
    // Whether a guess was right for all rows.
    template <class C>
    FS_INLINE bool near_enough(isize count) const {
        using D = Vec<double>;
        typename D::I right = ~typename D::I{};
        for (isize k = 0; k < count; k += D::lanes) right &= fs::near_enough<C>(D::load(hi + k));
        return !any<D>(~right);
    }
    // In whole vectors, as they are loaded again: loads that span several stores wait for these to
    // reach the cache. Those from `count` on repeat the last.
    template <class X>
    FS_INLINE void set(const typename LaneSums<X>::Unfolded *sums, isize count) {
        using D = Vec<double>;
        for (isize k = 0; k < count; k += D::lanes) {
            const auto vector = folded<X, D>(sums, k, count - 1);
            D::store(hi + k, vector.hi), D::store(lo + k, vector.lo);
        }
        for (isize k = (count + D::lanes - 1) / D::lanes * D::lanes; k % X::lanes; k += D::lanes)
            D::store(hi + k, D::set(1)), D::store(lo + k, D::set(0));
    }

  private:
    template <class X, class D>
    static FS_INLINE Pair<typename D::V> folded(const typename LaneSums<X>::Unfolded *sums, isize k,
                                                isize last) {
        if constexpr (D::lanes == 2) {
            return LaneSums<X>::two_totals(sums[k < last ? k : last],
                                           sums[k + 1 < last ? k + 1 : last]);
        } else {
            using Half = Vec<double, sizeof(typename D::V) / 2>;
            const auto a = folded<X, Half>(sums, k, last),
                       b = folded<X, Half>(sums, k + Half::lanes, last);
            return {joined<D>(a.hi, b.hi), joined<D>(a.lo, b.lo)};
        }
    }
};

// Sweeps over a contiguous block of one row. Exp is a function of vectors.
template <class C>
constexpr C absent_logit = -std::numeric_limits<C>::infinity();

template <class X, isize together = added_by_fours, class C, class Exp>
FS_INLINE void add_exp(const C *x, isize n, const Exp &exp, LaneSums<X> &sums) {
    sum_vectors<X, together, true>(n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        fetch_ahead<X>(x + i);
        return exp(lanes.load(x + i, absent_logit<C>));
    });
}

// `sum` less the exponential at one place of it, with all digits of the others even if it is nearly
// all there is: what its block of `count` elements (at a multiple of summed_elements from the start
// of the row) added to the sum, so many vectors together, is taken away, and added again without
// it, each by itself.
template <class X, isize together, class C, class Exp>
Sum sum_without(const C *x, isize count, isize place, const Exp &exp, Sum sum) {
    C e[summed_elements<X>];
    LaneSums<X> with, without;
    sum_vectors<X, together>(count, with, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        const auto v = exp(lanes.load(x + i, absent_logit<C>));
        lanes.store(e + i, v);
        return v;
    });
    each_vector<X>(count, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        without.add(X::without(lanes.load(e + i, 0), place - i));
    });
    const Sum all = with.total();
    sum.add({-all.hi, -all.lo});
    sum.add(without.total());
    return sum;
}

// exp(x) of a row, kept in e to be scaled. Where the row does not end with a vector, its last
// vector overlaps the one before: that costs less than masked loads and stores. (A row of less than
// a vector is padded.) beside(i) comes along with every whole vector.
template <class X, class S, class C, class Exp, class Beside>
FS_INLINE typename LaneSums<X>::Unfolded keep_exp(const S *x, C *e, isize n, const Exp &exp,
                                                  Beside beside) {
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
template <class X, class S, class C, class Exp>
FS_INLINE typename LaneSums<X>::Unfolded keep_exp(const S *x, C *e, isize n, const Exp &exp) {
    return keep_exp<X>(x, e, n, exp, [](isize) {});
}

// e -> e * numerator / total.
//
// The quotient is kept in two terms, which saves a rounding error and makes the result of a row's
// only exponential 1. Where arithmetic is not fused, two products would round once more, and
// softmax divides instead, by the total in two terms: e / hi + (e / hi) * lo, with lo the relative
// correction.
//
// For float on AVX-512, where multiplications are what takes the time, the second term is 0 except
// where it is needed for that 1: every seventh number times its rounded reciprocal is less than 1.
template <class X, bool Softmax>
struct Normalizer {
    using T = typename X::Scalar;
    using V = typename X::V;
    static constexpr bool divides = Softmax && !FS_HAS_FMA,
                          seldom_two = sizeof(T) == 4 && ExpCore<X>::overflows,
                          never_two = seldom_two && !Softmax;
    V hi, lo;

    static FS_INLINE Normalizer all(double numerator, Sum total) {
        using D = Vec<double, 16>;
        const auto q = quotient<D>(D::set(numerator), {D::set(total.hi), D::set(total.lo)});
        const T hi = static_cast<T>(q.hi[0]),
                lo = static_cast<T>((q.hi[0] - static_cast<double>(hi)) + q.lo[0]);
        const double rounded = static_cast<double>(static_cast<T>(total.hi));
        return of({X::set(hi), X::set(lo)}, X::set(static_cast<T>(rounded)),
                  X::set(static_cast<T>(total.hi - rounded)));
    }
    // One for each lane, from the sums of lanes, the k-th vector of which is part(k); numerators
    // are 1 if there are none.
    template <class Part>
    static FS_INLINE Normalizer each(const double *numerators, Part part) {
        using D = Vec<double>;
        Pair<typename D::V> q[wide_parts<X>];
        typename D::V total[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            total[k] = part(k).hi;
            q[k] =
                quotient<D>(numerators ? D::load(numerators + k * D::lanes) : D::set(1), part(k));
        }
        if constexpr (!seldom_two || never_two) return of(pair_from_wide<X>(q));
        const V rounded = from_wide<X>(total);
        for (int k = 0; k < wide_parts<X>; ++k) total[k] = total[k] - wide_part<X>(rounded, k);
        return of(pair_from_wide<X>(q), rounded, from_wide<X>(total));
    }
    static FS_INLINE Normalizer each(const double *numerators, const LaneSums<X> &sums) {
        return each(numerators, [&](int k) FS_INLINE_LAMBDA { return sums.part(k); });
    }
    // The same, always in two terms, of totals in pairs of the terms' own type.
    static FS_INLINE Normalizer of_pairs(Pair<V> numerator, Pair<V> total) {
        Pair<V> q = quotient<X>(numerator.hi, total);
        if constexpr (!Softmax) q.lo = q.lo + numerator.lo / total.hi;
        return of(q);
    }
    // For whole rows, as numbers; both arrays end with a vector.
    template <isize most>
    static FS_INLINE void rows(const double *numerators, const Totals<most> &total, isize count,
                               T *hi, T *lo) {
        using D = Vec<double>;
        for (isize row = 0; row < count; row += X::lanes) {
            const auto sums = [&](int k) FS_INLINE_LAMBDA {
                return total.template part<D>(row + k * D::lanes);
            };
            const Normalizer n = each(numerators ? numerators + row : nullptr, sums);
            X::store(hi + row, n.hi);
            X::store(lo + row, n.lo);
        }
    }
    static FS_INLINE Normalizer row(T hi, T lo) { return {X::set(hi), X::set(lo)}; }
    // Whether a row with this second term is one of the few that need it.
    static FS_INLINE bool is_seldom(T lo) { return seldom_two && !never_two && lo != 0; }

    FS_INLINE bool has_one_term() const {
        if constexpr (!seldom_two || never_two) return never_two;
        return !any<X>(lo != V{});
    }
    template <bool one_term = false>
    FS_INLINE V apply(V e) const {
        if constexpr (one_term || never_two) return e * hi;
        const V q = divides ? e / hi : e * hi;
        return divides ? q + q * lo : multiply_add(e, hi, e * lo);
    }
    // body(writer) with the shorter way to apply it, if that will do.
    struct OneTerm {
        V hi;
        FS_INLINE V apply(V e) const { return e * hi; }
    };
    template <class Body>
    FS_INLINE void hand_to(Body body) const {
        if (has_one_term())
            body(OneTerm{hi});
        else
            body(*this);
    }

  private:
    static FS_INLINE Normalizer of(Pair<V> q) {
        const V lo = divides ? -q.lo / q.hi : q.lo;
        return {q.hi, lo - lo == V{} ? lo : V{}};
    }
    // The total is given as a number and what was rounded off: next to a float is the sum of one
    // exponential and little else.
    static FS_INLINE Normalizer of(Pair<V> q, V total, V rest) {
        Normalizer n = of(q);
        if constexpr (seldom_two)
            n.lo = (total * q.hi < 1) & (absolute<X>(rest) <= total * T(0x1p-26)) ? n.lo : V{};
        return n;
    }
    // numerator / total as hi + lo; the total itself where softmax divides.
    template <class D>
    static FS_INLINE Pair<typename D::V> quotient(typename D::V numerator,
                                                  Pair<typename D::V> total) {
        using W = typename D::V;
        // An infinite sum comes from +inf in the row, which makes it NaN.
        const W s = total.hi - total.hi == W{} ? total.hi + total.lo
                                               : D::set(std::numeric_limits<double>::quiet_NaN());
        if constexpr (divides) return {s, (total.hi - s) + total.lo};
        // its own error is far below those of T
        if constexpr (sizeof(T) < sizeof(W{}[0])) return {numerator / s, W{}};
        const W inverse = 1.0 / s, q = numerator * inverse;
        return {q, (-multiply_subtract_exact<D>(q, total.hi, numerator) - q * total.lo) * inverse};
    }
};

// y = writer(x), by a Normalizer of kept exponentials or a LogWriter of logits.
template <class X, class C, class S, class W>
FS_INLINE void write_with(const W &writer, const C *x, S *y, isize n, bool streaming) {
    write_span<X>(y, n, streaming, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        return writer.apply(lanes.load(x + i, 0));
    });
}

// The sums of the exponentials of rows with the constant shift, together, and the exponential of
// one logit of each: sum_row(k, exp, sums) adds those of a row (or not, where that is not worth it)
// and returns the logit.
template <class X, bool Scaled, isize most, class C, class ScaleOf, class SumRow>
FS_INLINE void guess_sums(isize count, ScaleOf scale_of, Totals<most> &total, C *logit, C *at_logit,
                          SumRow sum_row) {
    const Scratch<typename LaneSums<X>::Unfolded> unfolded(most);
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
        each_vector<X>(count, [&](isize k, auto lanes) {
            lanes.store(at_logit + k, exp(lanes.load(logit + k, 0)));
        });
    }
    total.template set<X>(unfolded, count);
}

// The shift from the maximum of a row; of short rows as ShortTile has it.
template <class X, class S>
FS_INLINE Shift<X> careful_shift(const S *x, isize n, const Scale<X> &scale) {
    using V = typename X::V;
    typename X::I off = bits<X>(X::set(n > short_row));
    if (n <= short_row)
        each_vector<X>(n,
                       [&](isize i, auto lanes) { off |= off_lattice<X>(lanes.load(x + i, 0)); });
    const V max = X::set(span_max<X>(x, n));
    return any<X>(off) ? Shift<X>::from(max, scale) : Shift<X>::from(max, scale, max == max);
}

// exp(x) of a row with this shift, kept.
template <class X, bool Scaled, class S, class C>
FS_INLINE typename LaneSums<X>::Unfolded careful_exp(const S *x, C *e, isize n,
                                                     const Scale<X> &scale, Shift<X> &shift) {
    using V = typename X::V;
    shift = careful_shift<X>(x, n, scale);
    return keep_exp<X>(
        x, e, n, [&](V v) FS_INLINE_LAMBDA { return exp_shifted<X, Scaled>(v, shift, scale); });
}

// Rows that wait to be done together, at most `most_rows`.
template <class Row, isize most>
struct Waiting {
    isize count = 0, limit = most;
    Row *rows = nullptr;

    void begin(isize most_rows) { count = 0, limit = most_rows, rows = scratch<Row>(most); }
    // True: there is no room for another one.
    FS_INLINE bool add(const Row &row) {
        rows[count] = row;
        return ++count == limit;
    }
};

// Rows of one chunk whose exponentials are kept until their sum is known, and written then, each
// times a number of its own.
//
// Rows that fit L1 keep them in scratch, a batch of rows at a time. What is done once a row is done
// for the rows of a batch in vectors, hence the arrays, and a batch is written along with the
// exponentials of the next one: that hides the latency of sums and reciprocals, and loads and
// stores among arithmetic. Longer rows keep them in the output itself, if it is not the input,
// which must stay intact until the sum is known to be right. So do large arrays: exponentials of
// many rows, then their results, which are in L2 by then, make one stream of loads and one of
// stores after the other. (Measured, AVX-512, float: batches instead of single rows gain 20 % at 64
// elements and 12 % at 100; arrays 40 % and 35 % again; writing along gains 20 % at 1000 and loses
// 40 % at 32000, where scratch doubles the time. Out of the cache, 0.70 -> 0.44 ns per element at
// 400 elements and 0.52 -> 0.43 at 1000, where a copy takes 0.38.)
template <class C, bool Softmax, bool Scaled, class S = C>
class KeptRows {
    using X = Vec<C>;
    using V = typename X::V;
    using Sums = LaneSums<X>;
    using Unfolded = typename Sums::Unfolded;
    using Normal = Normalizer<X, Softmax>;
    // logits and results are contiguous numbers of another type
    static constexpr bool converts = !std::is_same<S, C>::value;

  public:
    static constexpr isize most = 64;   // rows of a batch
    static constexpr isize in_l1 = 16;  // and of one that is kept in scratch
    struct Batch {
        isize count = 0, outer[most], inner[most];
        const S *x[most];
        C *e[most];     // the exponentials
        S *y[most];     // the results
        C first[most];  // logits
        // the shift of the exponentials: exp(s (x - center)) 2^-exponent
        C center[most];
        double exponent[most];
        Totals<most> total;
        double numerator[most];  // none for softmax: 1
        alignas(64) C normal_hi[most], normal_lo[most];
        bool placed = false;  // whether rows have
        isize place[most];    // a result that is
        C value[most];        // this, whatever its exponential
    };
    // The two batches are not a multiple of 4096 bytes apart: the processor would take the loads of
    // one for those of what it has just stored to the other.
    static constexpr isize apart(isize elements) { return elements / 1024 * 1024 + 1024 + 512; }
    // in elements of scratch
    static constexpr isize other_bank = apart(kept_in_l1 + in_l1 * X::lanes),
                           memory = other_bank + chunk;

  private:
    isize n = 0, limit = 1;
    // where exponentials are: in scratch along with those of the batch before, in the output, or in
    // scratch alone
    bool in_scratch = true, in_output = false;
    AnyView out{};
    Mask where{};
    Writer<C> to{};
    bool direct = false, streaming = false;
    Batch *current = nullptr, *before = nullptr;
    isize waiting = 0;  // rows of the batch before without results

  public:
    KeptRows() {}
    // begin() sets all there is: a copy of the rows would cost a tiny call a quarter of its time
    KeptRows(const KeptRows &) {}

    // `writer` is that of the first row.
    void begin(const AnyView &x, const AnyView &out_, const Mask &where_, const Writer<C> &writer,
               C *scratch, isize most_rows) {
        current = new (fs::scratch<Batch>(2)) Batch, before = new (current + 1) Batch;
        n = x.n, out = out_, where = where_, to = writer;
        direct = out.data && (converts || to.direct());
        streaming = converts && out.outer * out.n * out.inner * isize(sizeof(S)) >= stream_from;
        const bool large =
            direct && !converts && n >= kept_in_output_from && streams<C>(x, out, where);
        in_scratch = n <= kept_in_l1 && !large;
        in_output = !in_scratch && direct && !converts && out.data != x.data;
        // (1024 float16: one row 0.29, two 0.35 ns per element)
        const isize elements = large ? chunk : streaming ? batch_elements / 2 : batch_elements;
        limit = rows_of_batch(elements, n, large || most_rows < in_l1 ? most_rows : in_l1);
        waiting = 0;
        const isize pitch = (n + X::lanes - 1) / X::lanes * X::lanes;
        for (isize k = 0; !in_output && k < limit; ++k)
            current->e[k] = scratch + k * pitch, before->e[k] = scratch + other_bank + k * pitch;
    }

    // Takes rows with inner indices from i on, as many of `count` as there is room for, whose
    // logits (`step` bytes apart) stay where they are until the batch is settled; place() is that
    // of the next row in it. When it is full() it must be settled.
    isize place() const { return current->count; }
    bool full() const { return current->count == limit; }
    FS_INLINE isize keep(const S *x, isize step, isize o, isize i, isize count) {
        Batch &b = *current;
        const isize first = b.count, end = limit - first < count ? limit : first + count,
                    y_step = out.inner_stride;
        char *y = out.at(o, i);
        for (isize k = first; k < end; ++k, x = advance(x, step), y += y_step) {
            b.outer[k] = o, b.inner[k] = i + (k - first), b.x[k] = x,
            b.first[k] = static_cast<C>(x[0]);
            b.y[k] = direct ? reinterpret_cast<S *>(y) : reinterpret_cast<S *>(b.e[k]);
            if (in_output) b.e[k] = reinterpret_cast<C *>(y);
        }
        b.count = end;
        return end - first;
    }
    // One row, with a result that is its own.
    FS_INLINE void keep(const S *x, isize o, isize i, isize at) {
        current->place[current->count] = at, current->placed = true;
        keep(x, 0, o, i, 1);
    }

    // Settles the batch: then(batch) gets the totals, and decides on numerators (and values).
    // scale_of(o, i) is the scale of a row.
    template <class ScaleOf, class Then>
    FS_INLINE void settle(ScaleOf scale_of, Then then) {
        Batch &b = *current;
        if (!Scaled && n > short_row && all_worth_a_guess<X>(b.first, b.count))
            guess_all(b);
        else
            for (isize k = 0; k < b.count; ++k) guess(b, k, scale_of(b.outer[k], b.inner[k]));
        write_waiting(0);
        then(b);
        Normal::rows(Softmax ? nullptr : b.numerator, b.total, b.count, b.normal_hi, b.normal_lo);
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
    Sum others(const C *e, isize at) const {
        Sums rest;
        each_vector<X>(
            n, [&](isize j, auto lanes) { rest.add(X::without(lanes.load(e + j, 0), at - j)); });
        return rest.total();
    }

  private:
    // The exponentials of a batch with the typical shift, and the results of the rows that wait.
    //
    // Loads of logits whose addresses are a little above those of results, but for multiples of
    // 4096 bytes, would wait for these, as if they read what was just stored (a third more time).
    // Then results come in another order: first those of rows further on or, of long rows, the
    // second half.
    void guess_all(Batch &b) {
        const Scratch<Unfolded> sums(most);
        const isize both = b.count < waiting ? b.count : waiting;
        const bool clash = both && (reinterpret_cast<std::uintptr_t>(before->y[0]) -
                                    reinterpret_cast<std::uintptr_t>(b.x[0])) %
                                           4096 <
                                       512;
        const isize ahead = clash && both == waiting ? both / 4 : 0;
        if (clash && !ahead)
            keep_and_write<true>(b, both, ahead, sums);
        else
            keep_and_write<false>(b, both, ahead, sums);
        if (both < b.count) keep_rows(b, both, sums);
        for (isize k = 0; finishes() && k < both; ++k) finish(k);
        write_waiting(both);
        b.total.template set<X>(sums, b.count);
        for (isize k = 0; k < b.count; ++k)
            b.center[k] = 0, b.exponent[k] = Shift<X>::typical_exponent;
        if (b.total.template near_enough<C>(b.count)) return;
        for (isize k = 0; k < b.count; ++k) {
            if (!near_enough<C>(b.total.hi[k])) be_careful(b, k, Scale<X>::one());
        }
    }
    // (The exponential is made anew in each function: one that is shared would have its constants
    // in memory.)
    __attribute__((noinline)) void keep_rows(const Batch &b, isize first, Unfolded *sums) const {
        const TypicalExp<X, false> exp(Scale<X>::one());
        for (isize k = first; k < b.count; ++k) sums[k] = keep_exp<X>(b.x[k], b.e[k], n, exp);
    }
    template <bool second_half_first>
    __attribute__((noinline)) void keep_and_write(const Batch &b, isize rows, isize ahead,
                                                  Unfolded *sums) const {
        const TypicalExp<X, false> exp(Scale<X>::one());
        const isize n = this->n, whole = n / X::lanes * X::lanes,
                    turn = whole / (2 * X::lanes) * X::lanes;
        for (isize k = 0; k < rows; ++k) {
            const isize w = k + ahead < rows ? k + ahead : k + ahead - rows;
            const Normal scaled = Normal::row(before->normal_hi[w], before->normal_lo[w]);
            const C *e = before->e[w];
            S *y = before->y[w];
            const bool cuts_lines = converts && streaming &&
                                    reinterpret_cast<std::uintptr_t>(y) % (X::lanes * sizeof(S));
            if (cuts_lines || Normal::is_seldom(before->normal_lo[w])) {
                sums[k] = keep_exp<X>(b.x[k], b.e[k], n, exp);
                write_row(w);
                continue;
            }
            constexpr bool one_term = Normal::seldom_two;
            // overlaps the last whole vector; read before results, which may take the place of e
            const V end = scaled.template apply<one_term>(X::load(e + n - X::lanes));
            sums[k] = keep_exp<X>(b.x[k], b.e[k], n, exp, [&](isize i) FS_INLINE_LAMBDA {
                const isize j = !second_half_first ? i
                                : i + turn < whole ? i + turn
                                                   : i + turn - whole;
                const V v = scaled.template apply<one_term>(X::load(e + j));
                if (converts && streaming)
                    stream_as<X>(y + j, v);
                else
                    store_as<X>(y + j, v);
            });
            // an ordinary store to a line that is streamed costs more than the rest
            if (whole < n) store_as<X>(y + n - X::lanes, end);
        }
    }

    // The same row by row, where not all can be guessed.
    void guess(Batch &b, isize k, const Scale<X> &scale) {
        if (n > short_row && worth_a_guess(b.first[k] * scale.hi[0])) {
            const TypicalExp<X, Scaled> exp(scale);
            b.center[k] = 0, b.exponent[k] = Shift<X>::typical_exponent;
            set_total(b, k, keep_exp<X>(b.x[k], b.e[k], n, exp));
            if (near_enough<C>(b.total.hi[k])) return;
        }
        be_careful(b, k, scale);
    }
    void be_careful(Batch &b, isize k, const Scale<X> &scale) const {
        Shift<X> shift;
        set_total(b, k, careful_exp<X, Scaled>(b.x[k], b.e[k], n, scale, shift));
        b.center[k] = shift.center[0], b.exponent[k] = shift.exponent(0);
    }
    static void set_total(Batch &b, isize k, const Unfolded &sum) {
        b.total.set(k, folded<X>(sum));
    }

    void write_waiting(isize first) {
        for (isize k = first; k < waiting; ++k) {
            write_row(k);
            if (finishes()) finish(k);
        }
        waiting = 0;
    }
    void write_row(isize k) const {
        Normal::row(before->normal_hi[k], before->normal_lo[k])
            .hand_to([&](const auto &normalizer) FS_INLINE_LAMBDA {
                write_with<X>(normalizer, before->e[k], before->y[k], n, streaming);
            });
    }
    bool finishes() const { return before->placed || !direct; }
    void finish(isize k) const {
        if (before->placed) before->y[k][before->place[k]] = static_cast<S>(before->value[k]);
        if constexpr (!converts) {
            if (!direct) scatter(*before, k);
        }
    }
    __attribute__((noinline)) void scatter(const Batch &b, isize k) const {
        Writer<C> t = to;
        t.p += out.offset(b.outer[k], b.inner[k]);
        if (t.mask) t.mask += where.offset(b.outer[k], b.inner[k]);
        t.put(0, n, b.y[k]);
    }
};

}  // namespace fs
}  // namespace
