// logsumexp with weights: log(sum(b exp(x))), in double whatever the input.
#pragma once

#include <cmath>

#include "normalize.h"

namespace {
namespace fs {

// ----------------------------------------------------------------------------------------- exponentials in full pairs
// The sum of weighted exponentials may be next to 1 while its terms are not small, and then every digit that a term lacks is missed in the logarithm. So
// these exponentials are good to about 2^-100.

template <class V> FS_INLINE Pair<V> fast_two_sum(V a, V b) {  // for |a| >= |b| (Dekker 1971)
    const V s = a + b;
    return {s, b - (s - a)};
}
template <class X> FS_INLINE Pair<typename X::V> product(Pair<typename X::V> a, Pair<typename X::V> b) {
    const typename X::V p = a.hi * b.hi;
    return {p, multiply_subtract_exact<X>(a.hi, b.hi, p) + (a.hi * b.lo + a.lo * b.hi)};
}

// exp(r) - 1 for |r| <= ln(2) / 2, good to about 2^-100 of itself: r + r^2 (1/2 + r/6 + ...), Taylor's series to r^22 / 22!. Terms from r^13 / 13! on are below
// 2^-50 of the first and need no pairs.
template <class X> FS_INLINE Pair<typename X::V> expm1_pair(Pair<typename X::V> r) {
    using V = typename X::V;
    constexpr double single[] = {0x1.0ce396db7f853p-70, 0x1.71b8ef6dcf572p-66, 0x1.e542ba4020225p-62, 0x1.2f49b46814157p-57, 0x1.6827863b97d97p-53,
                                 0x1.952c77030ad4ap-49, 0x1.ae7f3e733b81fp-45, 0x1.ae7f3e733b81fp-41, 0x1.93974a8c07c9dp-37, 0x1.6124613a86d09p-33};
    constexpr double high[] = {0x1.1eed8eff8d898p-29, 0x1.ae64567f544e4p-26, 0x1.27e4fb7789f5cp-22, 0x1.71de3a556c734p-19, 0x1.a01a01a01a01ap-16, 0x1.a01a01a01a01ap-13,
                               0x1.6c16c16c16c17p-10, 0x1.1111111111111p-7,  0x1.5555555555555p-5,  0x1.5555555555555p-3,  0x1p-1};
    constexpr double low[] = {-0x1.2aec959e14c06p-83, -0x1.c062e06d1f209p-80, 0x1.cbbc05b4fa99ap-76, -0x1.c154f8ddc6c00p-73, 0x1.a01a01a01a01ap-76, 0x1.a01a01a01a01ap-73,
                              -0x1.f49f49f49f49fp-65, 0x1.1111111111111p-63,  0x1.5555555555555p-59, 0x1.5555555555555p-57,  0};
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
template <class X> struct ExpPair {
    using V = typename X::V;
    V n;
    Pair<V> fraction;

    explicit FS_INLINE ExpPair(Pair<V> a) {
        constexpr double ln2[] = {0x1.62e42fee00000p-1, 0x1.a39ef35793000p-33, 0x1.8ece600fcbdacp-74};  // the first two times n are exact
        const V magic = X::set(Format<double>::round_magic);
        n = multiply_add(a.hi, X::set(ExpConstants<double>::log2e), magic) - magic;
        const Pair<V> d = two_sum(a.hi - n * ln2[0], -(n * ln2[1]));
        fraction = expm1_pair<X>(fast_two_sum(d.hi, d.lo + (a.lo - n * ln2[2])));
    }
};

// ---------------------------------------------------------------------------------------------------------------- rows
// Terms of weight 0 do not take part, whatever x is there.
//
// Two sweeps do for most rows: the maximum, and the sum of b exp(x - max) in double. Where the logarithm is so small, or cancels the maximum or the terms each
// other so far, that errors of these exponentials would show, or weights leave the range of numbers, two more follow: the exponent of the largest term,
// and sums of all terms, relative to it, in pairs.
struct WeightedRow {
    static constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    using X = Vec<double>;
    using V = X::V;
    using D = Vec<double, 16>;
    enum Stage { maximum, usual, exponents, pairs };
    struct Partial {
        double most;  // the maximum, or the largest exponent
        double size, heaviest;  // the sum of the terms without their signs, and the largest weight without its
        Sum sum;
        Sum weights, near, far;
    };
    static constexpr int far_exponent = 300;    // far terms are made so many times larger: beside a total of 1, the smallest of them have all their digits
    static constexpr double moderate = 64;      // exponents up to which a total can be next to 1
    static constexpr double negligible = 2500;  // -log of what can be left out beside any weights

    const NormalizeArguments *a;
    AnyView weights;
    Reader<double> x, b;
    Stage stage = maximum;
    isize outer = 0, inner = 0;
    double max = 0, exponent = 0;  // of the largest term; 0 if moderate
    ChunkResults<Partial> partial;

    WeightedRow(const NormalizeArguments &arguments, const AnyView &b_) : a(&arguments), weights(b_) {}

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i;
        partial.resize(static_cast<std::size_t>(chunks()));
        x = a->reader<double>(o, i);
        b = Reader<double>::broadcast(weights, o, i);
        b.mask = x.mask, b.mask_stride = x.mask_stride, b.absent = 0;
        stage = maximum;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        Partial &p = partial[static_cast<std::size_t>(k)];
        if (stage == maximum) find_maximum(start, end, p);
        else if (stage == usual) add_terms(start, end, p);
        else if (stage == exponents) find_exponent(start, end, p);
        else add_pairs(start, end, p);
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

  private:
    void store(double y) const { a->out.store(outer, 0, inner, y); }
    double most() const {
        double m = partial[0].most;
        for (const Partial &p : partial) m = m > p.most ? m : p.most;
        return m;
    }
    template <class Part> Sum total(Part part) const {
        Sum s;
        for (const Partial &p : partial) s.add(part(p));
        return s;
    }

    // body(logits, weights, size) for the blocks of a chunk.
    template <class Body> FS_INLINE void each_block(isize start, isize end, Body body) const {
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
        const auto scale = Scale<X>::all(a->ln_base);
        const Shift<X> zero = Shift<X>::fixed(0, scale);
        const V top = X::set(max);
        LaneSums<X> sum;
        V magnitude = {}, heaviest = {};
        each_block(start, end, [&](const double *xs, const double *bs, isize size) {
            each_vector<X>(size, [&](isize i, auto lanes) {
                const V v = lanes.load(xs + i, -infinity), w = lanes.load(bs + i, 0), e = exp_below<X, true>(v, top, zero, scale);
                const V term = w * (v == top ? X::set(1) : e);
                sum.add(term);
                magnitude = magnitude + absolute<X>(term);
                heaviest = larger(absolute<X>(w), heaviest);
            });
        });
        p.sum = sum.total();
        p.size = fold<X>(magnitude, [](auto l, auto r) { return l + r; });
        p.heaviest = largest_lane<X>(heaviest);
    }

    // The logarithm of the total to the base, plus what was subtracted from the logits.
    double logarithm(Pair<D::V> l, double subtracted) const {
        if (!a->ln_base.is_one()) l = LogTotal<D>::divide(l, a->ln_base);
        Sum s{subtracted, 0};
        s.add({l.hi[0], l.lo[0]});
        return s.value();
    }
    static Pair<D::V> log_of(Sum total, double exponent) {
        const Pair<D::V> t = two_sum(D::set(total.hi), D::set(total.lo)), one{D::set(1), D::set(0)};
        return log_ratio<D>(t, one, t.hi, D::set(exponent));
    }

    // Whether sums of plain numbers will do, and the result if they do.
    bool settled(double &y) const {
        const Sum s = total([](const Partial &p) { return p.sum; });
        const double size = total([](const Partial &p) { return Sum{p.size, 0}; }).value(), t = s.value();
        if (size != size || max - max != 0) {
            y = size != size || t != t ? nan : max == -infinity ? max : t > 0 ? infinity : nan;
            return true;
        }
        double heaviest = 0;
        for (const Partial &p : partial) heaviest = heaviest > p.heaviest ? heaviest : p.heaviest;
        if (size > 0x1p900 || size < 0x1p-900 || size < heaviest * 0x1p-960) return false;  // terms below 2^-1022 are missing
        if (t <= size * 0x1p-40) {  // below 0, or too little left
            y = nan;
            return t < -size * 0x1p-40;
        }
        y = logarithm(log_of(s, 0), max);
        // A term has an error of 2^-51.4, 1.5 ulp; the result is rounded to less than that.
        const double natural = std::fabs(y) * a->ln_base.hi, largest = std::fabs(max) * a->ln_base.hi / 16;
        const double enough = a->out.number == Number::float64 ? 1 : 0x1p-25;
        return (natural > largest ? natural : largest) * t >= enough * size;
    }
    double logarithm_of_infinite() const {
        const double t = total([](const Partial &p) { return p.sum; }).value();
        return t == infinity ? t : nan;
    }

    // Logits next to 0 are taken as they are, since log(1 + sum(b (exp(x) - 1)) + (sum(b) - 1)) then has digits to spare however small it is; others relative to the maximum.
    double center() const { return std::fabs(max) * a->ln_base.hi <= 1 ? 0 : max; }
    // ln(base) * (x - center)
    static FS_INLINE Pair<V> power_of(V x, V center, const Scale<X> &scale, V lowest) {
        return product<X>(difference<X>(x, center, lowest), {scale.hi, scale.lo});
    }
    // A weight as a number from 1 to 2 (or below -1), and its exponent.
    struct Weight {
        V fraction;
        X::I exponent;
        explicit FS_INLINE Weight(V w) {
            const auto tiny = absolute<X>(w) < std::numeric_limits<double>::min();
            const auto raised = bits<X>(tiny ? w * 0x1p54 : w);
            const auto mantissa = (std::int64_t(1) << 52) - 1, sign = std::numeric_limits<std::int64_t>::min();
            exponent = ((raised & ~sign) >> 52) - (tiny ? X::I{} + (1023 + 54) : X::I{} + 1023);
            fraction = (V)((raised & (mantissa | sign)) | (std::int64_t(1023) << 52));
        }
    };

    __attribute__((noinline)) void find_exponent(isize start, isize end, Partial &p) const {
        const auto scale = Scale<X>::all(a->ln_base);
        const V c = X::set(center()), lowest = -negligible * scale.unit;
        V largest = X::set(-infinity);
        each_block(start, end, [&](const double *xs, const double *bs, isize size) {
            each_vector<X>(size, [&](isize i, auto lanes) {
                const V v = lanes.load(xs + i, -infinity), w = lanes.load(bs + i, 0);
                const V e = larger(lowest, v - c) * scale.log2e + __builtin_convertvector(Weight(w).exponent, V);
                const V known = absolute<X>(w) == infinity ? X::set(infinity) : e;
                largest = larger(w == 0.0 ? X::set(-infinity) : known, largest);
            });
        });
        p.most = std::floor(largest_lane<X>(largest));
    }
    __attribute__((noinline)) void add_pairs(isize start, isize end, Partial &p) const {
        const auto scale = Scale<X>::all(a->ln_base);
        const V c = X::set(center()), lowest = -negligible * scale.unit, zero = {};
        const bool next_to_one = exponent == 0;
        const std::int64_t lift = far_exponent - static_cast<std::int64_t>(exponent);
        LaneSums<X> whole, near, far;
        const auto add = [](LaneSums<X> &sums, Pair<V> term) FS_INLINE_LAMBDA {
            sums.add(term.hi);
            sums.lo = sums.lo + term.lo;
        };
        each_block(start, end, [&](const double *xs, const double *bs, isize size) {
            each_vector<X>(size, [&](isize i, auto lanes) {
                const V v = lanes.load(xs + i, -infinity), w = lanes.load(bs + i, 0);
                const ExpPair<X> e(power_of(v, c, scale, lowest));
                const auto is_near = next_to_one ? e.n == 0.0 : X::I{};
                whole.add(is_near ? w : zero);
                const Pair<V> less_one = product<X>({w, zero}, e.fraction);
                add(near, {is_near ? less_one.hi : zero, is_near ? less_one.lo : zero});
                const Weight weight(w);
                const Pair<V> head = fast_two_sum(X::set(1), e.fraction.hi), term = product<X>({weight.fraction, zero}, {head.hi, head.lo + e.fraction.lo});
                const X::I power = __builtin_convertvector(e.n, typename X::I) + weight.exponent + (lift + 1023);
                const V factor = is_near | (power <= 0) ? zero : (V)(power << 52);
                add(far, {term.hi * factor, term.lo * factor});
            });
        });
        p.weights = whole.total(), p.near = near.total(), p.far = far.total();
    }
    double precise() const {
        const Sum far = total([](const Partial &p) { return p.far; });
        if (exponent != 0) return log_of_total(far, exponent - far_exponent);
        const Sum small{far.hi * 0x1p-300, far.lo * 0x1p-300};
        Sum t = total([](const Partial &p) { return p.weights; });
        Sum less_one = plus(t, {-1, 0});
        const Sum near = total([](const Partial &p) { return p.near; });
        t = plus(plus(t, near), small), less_one = plus(plus(less_one, near), small);
        if (t.value() < 0.5 || t.value() > 2) return log_of_total(t, 0);
        // log1p
        const Pair<D::V> u = two_sum(D::set(less_one.hi), D::set(less_one.lo));
        Pair<D::V> total = two_sum(D::set(1), u.hi);
        total.lo = total.lo + u.lo;
        return logarithm(log_ratio<D>(total, {D::set(1), D::set(0)}, total.hi, D::set(0)), center());
    }
    // With what cancellation has left in the higher term.
    static Sum plus(Sum a, Sum b) {
        a.add(b);
        const Pair<double> s = two_sum(a.hi, a.lo);
        return {s.hi, s.lo};
    }
    double log_of_total(Sum t, double power) const {
        const double value = t.value();
        return value < 0 ? nan : value == 0 ? -infinity : logarithm(log_of(t, power), center());
    }
};

inline void weighted_logsumexp(const NormalizeArguments &a, const AnyView &weights, isize threads, Execute execute) {
    RowsWork<WeightedRow> work(WeightedRow(a, weights), a.x.outer, a.x.inner, a.x.n, threads);
    execute(&work, threads);
}

}  // namespace fs
}  // namespace
