// logsumexp with weights: log(sum(b exp(x))), in double whatever the input.
#pragma once

#include <cmath>

#include "normalize.h"

namespace {
namespace fs {

// --- exponentials in full pairs ------------------------------------------------------------------
// The sum of weighted exponentials may be next to 1 while its terms are not small, and then every
// digit that a term lacks is missed in the logarithm. So these exponentials are good to about
// 2^-100.

template <class V>
FS_INLINE Pair<V> fast_two_sum(V a, V b) {  // for |a| >= |b| (Dekker 1971)
    const V s = a + b;
    return {s, b - (s - a)};
}
template <class X>
FS_INLINE Pair<typename X::V> product(Pair<typename X::V> a, Pair<typename X::V> b) {
    const typename X::V p = a.hi * b.hi;
    return {p, multiply_subtract_exact<X>(a.hi, b.hi, p) + (a.hi * b.lo + a.lo * b.hi)};
}

// exp(r) - 1 for |r| <= ln(2) / 2, good to about 2^-100 of itself: r + r^2 (1/2 + r/6 + ...),
// Taylor's series to r^22 / 22!. Terms from r^13 / 13! on are below 2^-50 of the first and need no
// pairs.
template <class X>
FS_INLINE Pair<typename X::V> expm1_pair(Pair<typename X::V> r) {
    using V = typename X::V;
    constexpr double single[] = {
        0x1.0ce396db7f853p-70, 0x1.71b8ef6dcf572p-66, 0x1.e542ba4020225p-62, 0x1.2f49b46814157p-57,
        0x1.6827863b97d97p-53, 0x1.952c77030ad4ap-49, 0x1.ae7f3e733b81fp-45, 0x1.ae7f3e733b81fp-41,
        0x1.93974a8c07c9dp-37, 0x1.6124613a86d09p-33};
    constexpr double high[] = {0x1.1eed8eff8d898p-29,
                               0x1.ae64567f544e4p-26,
                               0x1.27e4fb7789f5cp-22,
                               0x1.71de3a556c734p-19,
                               0x1.a01a01a01a01ap-16,
                               0x1.a01a01a01a01ap-13,
                               0x1.6c16c16c16c17p-10,
                               0x1.1111111111111p-7,
                               0x1.5555555555555p-5,
                               0x1.5555555555555p-3,
                               0x1p-1};
    constexpr double low[] = {-0x1.2aec959e14c06p-83,
                              -0x1.c062e06d1f209p-80,
                              0x1.cbbc05b4fa99ap-76,
                              -0x1.c154f8ddc6c00p-73,
                              0x1.a01a01a01a01ap-76,
                              0x1.a01a01a01a01ap-73,
                              -0x1.f49f49f49f49fp-65,
                              0x1.1111111111111p-63,
                              0x1.5555555555555p-59,
                              0x1.5555555555555p-57,
                              0};
    V tail = X::set(single[0]);
#pragma GCC unroll 16
    for (int k = 1; k < 10; ++k) tail = multiply_add(tail, r.hi, X::set(single[k]));
    Pair<V> q{tail, V{}};
#pragma GCC unroll 16
    for (int k = 0; k < 11; ++k) {
        const Pair<V> p = product<X>(q, r), s = fast_two_sum(X::set(high[k]), p.hi);
        q = {s.hi, s.lo + (p.lo + low[k])};
    }
    const Pair<V> p = product<X>(product<X>(r, r), q), s = fast_two_sum(r.hi, p.hi);
    return fast_two_sum(s.hi, s.lo + (r.lo + p.lo));
}

// exp(a) = 2^n (1 + fraction) for |a| < 2800, with n = 0 wherever a is next to 0.
template <class X>
struct ExpPair {
    using V = typename X::V;
    V n;
    Pair<V> fraction;

    explicit FS_INLINE ExpPair(Pair<V> a) {
        // the first two times n are exact
        constexpr double ln2[] = {0x1.62e42fee00000p-1, 0x1.a39ef35793000p-33,
                                  0x1.8ece600fcbdacp-74};
        const V magic = X::set(Format<double>::round_magic);
        n = multiply_add(a.hi, X::set(ExpConstants<double>::log2e), magic) - magic;
        const Pair<V> d = two_sum(a.hi - n * ln2[0], -(n * ln2[1]));
        fraction = expm1_pair<X>(fast_two_sum(d.hi, d.lo + (a.lo - n * ln2[2])));
    }
};

// --- rows ----------------------------------------------------------------------------------------
// Terms of weight 0 do not take part, whatever x is there.
//
// Two sweeps do for most rows: the maximum, and the sum of b exp(x - max) in double. Where the
// logarithm is so small, or cancels the maximum or the terms each other so far, that errors of
// these exponentials would show, or weights leave the range of numbers, two more follow: the
// exponent of the largest term, and sums of all terms, relative to it, in pairs.
struct WeightedRow {
    static constexpr double infinity = std::numeric_limits<double>::infinity(),
                            nan = std::numeric_limits<double>::quiet_NaN();
    using X = Vec<double>;
    using V = X::V;
    using D = Vec<double, 16>;
    enum Stage { maximum, usual, exponents, pairs };
    struct Partial {
        double most;  // the maximum, or the largest exponent
        // the sum of the terms without their signs, and the largest weight without its
        double size, heaviest;
        Sum sum;
        Sum weights, near, far;
    };
    // far terms are made so many times larger: beside a total of 1, the smallest of them have all
    // their digits
    static constexpr int far_exponent = 300;
    static constexpr double moderate = 64;      // exponents up to which a total can be next to 1
    static constexpr double negligible = 2500;  // -log of what can be left out beside any weights

    const NormalizeArguments *a;
    AnyView weights;
    Reader<double> x, b;
    Stage stage = maximum;
    isize outer = 0, inner = 0;
    double max = 0, exponent = 0;  // of the largest term; 0 if moderate
    ChunkResults<Partial> partial;

    WeightedRow(const NormalizeArguments &arguments, const AnyView &b_)
        : a(&arguments), weights(b_) {}

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void prepare() { partial.resize(static_cast<std::size_t>(chunks())); }
    void start(isize o, isize i) {
        outer = o, inner = i;
        prepare();
        x = a->reader<double>(o, i);
        b = Reader<double>::broadcast(weights, o, i);
        b.mask = x.mask, b.mask_stride = x.mask_stride, b.absent = 0;
        stage = maximum;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        Partial &p = partial[static_cast<std::size_t>(k)];
        if (stage == maximum)
            find_maximum(start, end, p);
        else if (stage == usual)
            add_terms(start, end, p);
        else if (stage == exponents)
            find_exponent(start, end, p);
        else
            add_pairs(start, end, p);
    }

    bool next() {
        if (stage == maximum) {
            max = most();
            return stage = usual, true;
        }
        if (stage == usual) {
            double y;
            if (!settled(y)) return stage = exponents, true;
            return store(y), false;
        }
        if (stage == exponents) {
            const double e = most();
            if (e == infinity) return store(logarithm_of_infinite()), false;  // of a weight
            exponent = e > moderate || e < -moderate ? e : 0;
            return stage = pairs, true;
        }
        return store(precise()), false;
    }

    // The sum of b exp(x - max), of one row or of rows in lanes.
    template <bool Scaled>
    struct Terms {
        Scale<X> scale;
        Shift<X> zero;
        // the sum without signs, and the largest weight without its
        V top, magnitude = {}, heaviest = {};
        LaneSums<X> sum;

        Terms(Factor ln_base, V max)
            : scale(Scale<X>::all(ln_base)), zero(Shift<X>::fixed(0, scale)), top(max) {}
        FS_INLINE void add(V x, V b) {
            const V e = exp_below<X, Scaled>(x, top, zero, scale),
                    term = b * (x == top ? X::set(1) : e);
            sum.add(term);
            magnitude = magnitude + absolute<X>(term);
            heaviest = larger(absolute<X>(b), heaviest);
        }
    };
    // The logarithm of the total to the base, plus what was subtracted from the logits.
    template <class D, class W>
    static W logarithm(const Rows &a, Pair<W> l, W subtracted) {
        if (!a.ln_base.is_one()) l = LogTotal<D>::divide(l, a.ln_base);
        const Pair<W> s = two_sum(subtracted, l.hi);
        return s.hi - s.hi == W{} ? s.hi + (s.lo + l.lo) : s.hi;
    }
    template <class D, class W>
    static Pair<W> log_of(Pair<W> total, W exponent) {
        const Pair<W> t = two_sum(total.hi, total.lo), one{D::set(1), D::set(0)};
        return log_ratio<D>(t, one, t.hi, exponent);
    }
    // Whether sums of plain numbers will do for a row with a finite maximum and a positive sum, and
    // the result where they do.
    template <class D, class W = typename D::V>
    static auto will_do(const NormalizeArguments &a, Pair<W> sum, W size, W heaviest, W max, W &y,
                        double least = 1) {
        const W t = sum.hi + sum.lo;
        // terms below 2^-1022 are missing
        const auto in_range =
            (size <= 0x1p900) & (size >= 0x1p-900) & (size >= heaviest * 0x1p-960);
        y = logarithm<D>(a, log_of<D>(sum, W{}), max);
        // A term has an error of 2^-51.4, 1.5 ulp; the result is rounded to less than that.
        const W natural = absolute<D>(y) * a.ln_base.hi,
                largest = absolute<D>(max) * a.ln_base.hi / 16.0;
        const double enough = a.out.number == Number::float64 ? least : 0x1p-25;
        return (max - max == W{}) & in_range & (t > size * 0x1p-40) &
               ((natural > largest ? natural : largest) * t >= enough * size);
    }

    // Logits next to 0 are taken as they are, since log(1 + sum(b (exp(x) - 1)) + (sum(b) - 1))
    // then has digits to spare however small it is; others relative to the maximum.
    template <class W>
    static W center_of(const Rows &a, W max) {
        using M = Vec<double, sizeof(W)>;
        return absolute<M>(max) * a.ln_base.hi <= 1.0 ? W{} : max;
    }
    template <class M, class W>
    static W log_of_total(const Rows &a, Pair<W> t, W power, W center) {
        const W value = t.hi - t.hi == W{} ? t.hi + t.lo : t.hi,
                y = logarithm<M>(a, log_of<M>(t, power), center);
        return value < 0.0 ? M::set(nan) : value == 0.0 ? M::set(-infinity) : y;
    }
    // A weight as a number from 1 to 2 (or below -1), and its exponent.
    struct Weight {
        V fraction;
        X::I exponent;
        explicit FS_INLINE Weight(V w) {
            const auto tiny = absolute<X>(w) < std::numeric_limits<double>::min();
            const auto raised = bits<X>(tiny ? w * 0x1p54 : w);
            const auto mantissa = (std::int64_t(1) << 52) - 1,
                       sign = std::numeric_limits<std::int64_t>::min();
            exponent = ((raised & ~sign) >> 52) - (tiny ? X::I{} + (1023 + 54) : X::I{} + 1023);
            fraction = (V)((raised & (mantissa | sign)) | (std::int64_t(1023) << 52));
        }
    };

    // Sums of terms in pairs, of one row or of rows in lanes, with an exponent for all; 0: they may
    // be next to 1.
    struct PairTerms {
        Scale<X> scale;
        V center, lowest;
        bool next_to_one;
        std::int64_t lift;
        // of terms b exp(a) with a next to 0: b, and b (exp(a) - 1); the others
        LaneSums<X> weights, near, far;

        PairTerms(Factor ln_base, V center_, double exponent)
            : scale(Scale<X>::all(ln_base)),
              center(center_),
              lowest(-negligible * scale.unit),
              next_to_one(exponent == 0),
              lift(far_exponent - static_cast<std::int64_t>(exponent)) {}

        // That of a term, about.
        FS_INLINE V exponent(V x, V b) const {
            const V e = larger(lowest, x - center) * scale.log2e +
                        __builtin_convertvector(Weight(b).exponent, V);
            const V known = absolute<X>(b) == infinity ? X::set(infinity) : e;
            return b == 0.0 ? X::set(-infinity) : known;
        }
        FS_INLINE void add(V x, V b) {
            const V zero = {};
            const ExpPair<X> e(product<X>(difference<X>(x, center, lowest), {scale.hi, scale.lo}));
            const auto is_near = next_to_one ? e.n == 0.0 : X::I{};
            weights.add(is_near ? b : zero);
            const Pair<V> less_one = product<X>({b, zero}, e.fraction);
            add(near, {is_near ? less_one.hi : zero, is_near ? less_one.lo : zero});
            const Weight weight(b);
            const Pair<V> head = fast_two_sum(X::set(1), e.fraction.hi),
                          term = product<X>({weight.fraction, zero},
                                            {head.hi, head.lo + e.fraction.lo});
            const X::I power =
                __builtin_convertvector(e.n, typename X::I) + weight.exponent + (lift + 1023);
            const V factor = is_near | (power <= 0) ? zero : (V)(power << 52);
            add(far, {term.hi * factor, term.lo * factor});
        }
        // The logarithm of sums that may be next to 1.
        template <class M, class W>
        static W result(const Rows &a, Pair<W> whole, Pair<W> near, Pair<W> far, W center) {
            const Pair<W> small{far.hi * 0x1p-300, far.lo * 0x1p-300};
            Pair<W> t = plus(plus(whole, near), small),
                    less_one = plus(plus(plus(whole, {M::set(-1), W{}}), near), small);
            const W value = t.hi - t.hi == W{} ? t.hi + t.lo : t.hi,
                    y = log_of_total<M>(a, t, W{}, center);
            // log1p
            const Pair<W> u = two_sum(less_one.hi, less_one.lo);
            Pair<W> total = two_sum(M::set(1), u.hi);
            total.lo = total.lo + u.lo;
            const W next =
                logarithm<M>(a, log_ratio<M>(total, {M::set(1), W{}}, total.hi, W{}), center);
            return (value < 0.5) | (value > 2.0) ? y : next;
        }

      private:
        static FS_INLINE void add(LaneSums<X> &sums, Pair<V> term) {
            sums.add(term.hi);
            sums.lo = sums.lo + term.lo;
        }
        // With what cancellation has left in the higher term.
        template <class W>
        static Pair<W> plus(Pair<W> a, Pair<W> b) {
            const Pair<W> s = two_sum(a.hi, b.hi);
            return two_sum(s.hi, a.lo + (s.lo + b.lo));
        }
    };

  private:
    void store(double y) const { a->out.store(outer, 0, inner, y); }
    double most() const {
        double m = partial[0].most;
        for (const Partial &p : partial) m = m > p.most ? m : p.most;
        return m;
    }
    template <class Part>
    Sum total(Part part) const {
        Sum s;
        for (const Partial &p : partial) s.add(part(p));
        return s;
    }

    // body(logits, weights, size) for the blocks of a chunk.
    template <class Body>
    FS_INLINE void each_block(isize start, isize end, Body body) const {
        Scratch<double> x_room(gather_block), b_buffer(gather_block);
        double *x_buffer = x_room;
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const double *xs = x.get(at, size, x_buffer), *bs = b.get(at, size, b_buffer);
            for (isize j = 0; j < size; ++j) x_buffer[j] = bs[j] == 0 ? -infinity : xs[j];
            body(x_buffer, bs, size);
        }
    }
    void find_maximum(isize start, isize end, Partial &p) const {
        p.most = -infinity;
        each_block(start, end, [&](const double *xs, const double *, isize size) {
            const double m = span_max<X>(xs, size);
            p.most = p.most > m ? p.most : m;
        });
    }
    void add_terms(isize start, isize end, Partial &p) const {
        Terms<true> terms(a->ln_base, X::set(max));
        each_block(start, end, [&](const double *xs, const double *bs, isize size) {
            each_vector<X>(size, [&](isize i, auto lanes) {
                terms.add(lanes.load(xs + i, -infinity), lanes.load(bs + i, 0));
            });
        });
        p.sum = terms.sum.total();
        p.size = fold<X>(terms.magnitude, [](auto l, auto r) { return l + r; });
        p.heaviest = largest_lane<X>(terms.heaviest);
    }

    // Whether sums of plain numbers will do, and the result if they do.
    bool settled(double &y) const {
        const Sum s = total([](const Partial &p) { return p.sum; });
        const double size = total([](const Partial &p) { return Sum{p.size, 0}; }).value(),
                     t = s.value();
        if (size != size || max - max != 0) {
            y = size != size || t != t ? nan : max == -infinity ? max : t > 0 ? infinity : nan;
            return true;
        }
        double heaviest = 0;
        for (const Partial &p : partial) heaviest = heaviest > p.heaviest ? heaviest : p.heaviest;
        D::V result;
        if (will_do<D>(*a, in_vector(s), D::set(size), D::set(heaviest), D::set(max), result)[0])
            return y = result[0], true;
        const bool in_range = size <= 0x1p900 && size >= 0x1p-900 && size >= heaviest * 0x1p-960;
        return y = nan, in_range && t < -size * 0x1p-40;
    }
    double logarithm_of_infinite() const {
        const double t = total([](const Partial &p) { return p.sum; }).value();
        return t == infinity ? t : nan;
    }

    double center() const { return center_of(*a, D::set(max))[0]; }

    __attribute__((noinline)) void find_exponent(isize start, isize end, Partial &p) const {
        const PairTerms terms(a->ln_base, X::set(center()), 0);
        V largest = X::set(-infinity);
        each_block(start, end, [&](const double *xs, const double *bs, isize size) {
            each_vector<X>(size, [&](isize i, auto lanes) {
                largest = larger(
                    terms.exponent(lanes.load(xs + i, -infinity), lanes.load(bs + i, 0)), largest);
            });
        });
        p.most = std::floor(largest_lane<X>(largest));
    }
    __attribute__((noinline)) void add_pairs(isize start, isize end, Partial &p) const {
        PairTerms terms(a->ln_base, X::set(center()), exponent);
        each_block(start, end, [&](const double *xs, const double *bs, isize size) {
            each_vector<X>(size, [&](isize i, auto lanes) {
                terms.add(lanes.load(xs + i, -infinity), lanes.load(bs + i, 0));
            });
        });
        p.weights = terms.weights.total(), p.near = terms.near.total(), p.far = terms.far.total();
    }
    double precise() const {
        const Sum far = total([](const Partial &p) { return p.far; });
        if (exponent != 0)
            return log_of_total<D>(*a, in_vector(far), D::set(exponent - far_exponent),
                                   D::set(center()))[0];
        const Sum whole = total([](const Partial &p) { return p.weights; }),
                  near = total([](const Partial &p) { return p.near; });
        return PairTerms::result<D>(*a, in_vector(whole), in_vector(near), in_vector(far),
                                    D::set(center()))[0];
    }
    static Pair<D::V> in_vector(Sum s) { return {D::set(s.hi), D::set(s.lo)}; }
};

// Rows in lanes; those that sums of plain numbers will not do for, one by one.
struct WeightedTile {
    using X = WeightedRow::X;
    using V = X::V;
    static constexpr isize width = tile_vectors * X::lanes;

    const NormalizeArguments *a;
    AnyView weights;

    // b may broadcast
    WeightedTile(const NormalizeArguments &arguments, const AnyView &b)
        : a(&arguments), weights(b) {
        weights.n = n();
    }

    isize n() const { return a->x.n; }

    void run(isize outer, isize first, isize count) const {
        WeightedRow row(*a, weights);
        row.prepare();
        TileColumns<X> x(a->x, outer, first, count, a->where),
            b(weights, outer, first, count, a->where, 0);
        x.gather(), b.gather();
        for (isize at = 0; at < count; at += X::lanes)
            vector(row, x.from(at), b.from(at), outer, first + at,
                   count - at < X::lanes ? count - at : X::lanes);
    }

  private:
    void vector(WeightedRow &row, const Columns<X> &x, const Columns<X> &b, isize outer,
                isize first, isize count) const {
        const V none = X::set(-WeightedRow::infinity);
        const auto logit = [&](isize j) FS_INLINE_LAMBDA {
            return b[j] == 0.0 ? none : x[j];
        };
        V max = none, y;
        for (isize j = 0; j < n(); ++j) max = larger(logit(j), max);
        const auto sum = [&](auto terms) FS_INLINE_LAMBDA {
            for (isize j = 0; j < n(); ++j) terms.add(logit(j), b[j]);
            return WeightedRow::will_do<X>(*a, terms.sum.part(0), terms.magnitude, terms.heaviest,
                                           max, y);
        };
        auto settled = a->ln_base.is_one() ? sum(WeightedRow::Terms<false>(a->ln_base, max))
                                           : sum(WeightedRow::Terms<true>(a->ln_base, max));
        if (any<X>(~settled)) settle(x, b, max, settled, y);
        double results[X::lanes];
        X::store(results, y);
        if (!any<X>(~settled)) return write_rows(a->out, outer, first, count, results);
        for (isize l = 0; l < count; ++l) {
            if (settled[l])
                a->out.store(outer, 0, first + l, results[l]);
            else
                do_row(row, outer, first + l);
        }
    }
    // With better exponentials.
    __attribute__((noinline)) void settle(const Columns<X> &x, const Columns<X> &b, V max,
                                          X::I &settled, V &y) const {
        const auto scale = Scale<X>::all(a->ln_base);
        const V none = X::set(-WeightedRow::infinity);
        LaneSums<X> sum;
        V size = {}, heaviest = {};
        for (isize j = 0; j < n(); ++j) {
            const V w = b[j], v = w == 0.0 ? none : x[j];
            const Pair<V> e = exp_below_pair<X, true>(v, max, V{}, scale);
            const V term = w * e.hi;
            sum.add(term), sum.add(multiply_subtract_exact<X>(w, e.hi, term) + w * e.lo);
            size = size + absolute<X>(term), heaviest = larger(absolute<X>(w), heaviest);
        }
        V better;
        // 2^-57, and 2^4 times that in the result
        const auto enough =
            WeightedRow::will_do<X>(*a, sum.part(0), size, heaviest, max, better, 0x1p-4);
        y = settled ? y : better;
        settled |= enough;
        if (any<X>(~settled)) settle_in_pairs(x, b, max, settled, y);
    }
    // With the best ones, where the terms are finite and the largest is moderate.
    __attribute__((noinline)) void settle_in_pairs(const Columns<X> &x, const Columns<X> &b, V max,
                                                   X::I &settled, V &y) const {
        const V none = X::set(-WeightedRow::infinity), center = WeightedRow::center_of(*a, max);
        WeightedRow::PairTerms terms(a->ln_base, center, 0);
        V largest = none, whole = {};  // exponent; and a sum that tells of NaN
        for (isize j = 0; j < n(); ++j) {
            const V w = b[j], v = w == 0.0 ? none : x[j];
            largest = larger(terms.exponent(v, w), largest);
            whole = whole + (w == 0.0 ? V{} : absolute<X>(w) + absolute<X>(v));
            terms.add(v, w);
        }
        const auto fine = ~settled & (max - max == V{}) & (whole == whole) &
                          (largest >= -WeightedRow::moderate) &
                          (largest < WeightedRow::moderate + 1);
        y = fine ? terms.result<X>(*a, terms.weights.part(0), terms.near.part(0), terms.far.part(0),
                                   center)
                 : y;
        settled |= fine;
    }
};
inline isize further_memory(const WeightedTile &tile) {
    return tile_memory(tile.n(), 2, 0) + chunk_bytes;
}

inline void weighted_logsumexp(const NormalizeArguments &a, const AnyView &weights, isize threads) {
    if (const int lanes_run = a.x.n > chunk ? 0 : lanes_along(a.x, short_target_row)) {
        const NormalizeArguments s = lanes_run == along_inner ? a : a.swapped();
        TilesWork<WeightedTile> work(
            WeightedTile(s, lanes_run == along_inner ? weights : weights.swapped()), s.x.outer,
            s.x.inner, WeightedTile::width);
        return execute(work, threads);
    }
    RowsWork<WeightedRow> work(WeightedRow(a, weights), a.x.outer, a.x.inner, a.x.n, threads);
    execute(work, threads);
}

}  // namespace fs
}  // namespace
