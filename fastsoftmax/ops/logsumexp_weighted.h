// logsumexp with weights: log(sum(b exp(x))), in double whatever the input.
#pragma once

#include <cmath>

#include "kernels/drivers/long_rows.h"
#include "kernels/math/exp_pair.h"
#include "ops/normalize_arguments.h"

namespace {
namespace fs {

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
        DoubleDouble<> sum{};
        DoubleDouble<> weights{}, near{}, far{};
    };
    using Partials = ChunkResults<Partial>;
    // far terms are made so many times larger: beside a total of 1, the smallest of them have all
    // their digits
    static constexpr int far_exponent = 300;
    static constexpr double moderate = 64;      // exponents up to which a total can be next to 1
    static constexpr double negligible = 2500;  // -log of what can be left out beside any weights

    const NormalizeArguments *a;
    AnyView weights;
    InputLine<double> x, b;
    Stage stage = maximum;
    Index outer = 0, inner = 0;
    double max = 0, exponent = 0;  // of the largest term; 0 if moderate

    WeightedRow(const NormalizeArguments &arguments, const AnyView &b_)
        : a(&arguments), weights(b_) {}

    Index n() const { return a->x.n; }

    void start(Index o, Index i) {
        outer = o, inner = i;
        x = a->reader<double>(o, i);
        b = InputLine<double>::broadcast(weights, o, i);
        b.mask = x.mask, b.mask_stride = x.mask_stride, b.absent = 0;
        stage = maximum;
    }

    void sweep(Index start, Index end, Partial &p) {
        if (stage == maximum)
            find_maximum(start, end, p);
        else if (stage == usual)
            add_terms(start, end, p);
        else if (stage == exponents)
            find_exponent(start, end, p);
        else
            add_pairs(start, end, p);
    }

    bool next(const Partials &partial) {
        if (stage == maximum) {
            max = most(partial);
            return stage = usual, true;
        }
        if (stage == usual) {
            double y;
            if (!settled(partial, y)) return stage = exponents, true;
            return store(y), false;
        }
        if (stage == exponents) {
            const double e = most(partial);
            if (e == infinity) return store(logarithm_of_infinite(partial)), false;  // of a weight
            exponent = e > moderate || e < -moderate ? e : 0;
            return stage = pairs, true;
        }
        return store(precise(partial)), false;
    }

    // The sum of b exp(x - max), of one row or of rows in lanes.
    template <bool Scaled>
    struct Terms {
        Scale<X> scale;
        Shift<X> zero;
        // the sum without signs, and the largest weight without its
        V top, magnitude = {}, heaviest = {};
        Accumulator<X> sum;

        Terms(DoubleDouble<> ln_base, V max)
            : scale(Scale<X>::all(ln_base)), zero(Shift<X>::fixed(0, scale)), top(max) {}
        FS_ALWAYS_INLINE void add(V x, V b) {
            const V e = exp_of_difference<X, Scaled>(x, top, zero, scale),
                    term = b * (x == top ? X::set(1) : e);
            sum.add(term);
            magnitude = magnitude + absolute<X>(term);
            heaviest = larger(absolute<X>(b), heaviest);
        }
    };
    // The logarithm of the total to the base, plus what was subtracted from the logits.
    template <class D, class W>
    static W logarithm(const Rows &a, DoubleDouble<W> l, W subtracted) {
        if (!a.ln_base.is_one()) l = LogTotal<D>::divide(l, a.ln_base);
        const DoubleDouble<W> s = two_sum(subtracted, l.hi);
        return s.hi - s.hi == W{} ? s.hi + (s.lo + l.lo) : s.hi;
    }
    template <class D, class W>
    static DoubleDouble<W> log_of(DoubleDouble<W> total, W exponent) {
        const DoubleDouble<W> t = two_sum(total.hi, total.lo), one{D::set(1), D::set(0)};
        return log_ratio<D>(t, one, t.hi, exponent);
    }
    // Whether sums of plain numbers will do for a row with a finite maximum, and the result where
    // they do: NaN for a negative sum.
    template <class D, class W = typename D::V>
    static auto will_do(const NormalizeArguments &a, DoubleDouble<W> sum, W size, W heaviest, W max,
                        W &y, double least = 1) {
        const W t = sum.hi + sum.lo;
        // each term may lack an exponential of 2^-1022: of 2^-57 of the sum at most
        const double least_share = static_cast<double>(a.x.n) * 0x1p-965;
        const auto in_range =
            (size <= 0x1p900) & (size >= 0x1p-900) & (size >= heaviest * least_share);
        y = logarithm<D>(a, log_of<D>(sum, W{}), max);
        // A term has an error of 2^-51.4, 1.5 ulp; the result is rounded to less than that.
        const W natural = absolute<D>(y) * a.ln_base.hi,
                largest = absolute<D>(max) * a.ln_base.hi / 16.0;
        const double enough = a.out.number == Number::float64 ? least : 0x1p-25;
        const auto negative = t < size * -0x1p-40;
        y = negative ? D::set(nan) : y;
        return (max - max == W{}) & in_range &
               (negative | ((t > size * 0x1p-40) &
                            ((natural > largest ? natural : largest) * t >= enough * size)));
    }

    // Logits next to 0 are taken as they are, since log(1 + sum(b (exp(x) - 1)) + (sum(b) - 1))
    // then has digits to spare however small it is; others relative to the maximum.
    template <class W>
    static W center_of(const Rows &a, W max) {
        using M = Vec<double, sizeof(W)>;
        return absolute<M>(max) * a.ln_base.hi <= 1.0 ? W{} : max;
    }
    template <class M, class W>
    static W log_of_total(const Rows &a, DoubleDouble<W> t, W power, W center) {
        const W value = t.value(), y = logarithm<M>(a, log_of<M>(t, power), center);
        return value < 0.0 ? M::set(nan) : value == 0.0 ? M::set(-infinity) : y;
    }
    // A weight as a number from 1 to 2 (or below -1), and its exponent.
    struct Weight {
        V fraction;
        X::I exponent;
        explicit FS_ALWAYS_INLINE Weight(V w) {
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
        Accumulator<X> weights, near, far;

        PairTerms(DoubleDouble<> ln_base, V center_, double exponent)
            : scale(Scale<X>::all(ln_base)),
              center(center_),
              lowest(-negligible * scale.unit),
              next_to_one(exponent == 0),
              lift(far_exponent - static_cast<std::int64_t>(exponent)) {}

        // That of a term, about.
        FS_ALWAYS_INLINE V exponent(V x, V b) const {
            const V e = larger(lowest, x - center) * scale.log2e +
                        __builtin_convertvector(Weight(b).exponent, V);
            const V known = absolute<X>(b) == infinity ? X::set(infinity) : e;
            return b == 0.0 ? X::set(-infinity) : known;
        }
        FS_ALWAYS_INLINE void add(V x, V b) {
            const V zero = {};
            const ExpPair<X> e(product<X>(difference<X>(x, center, lowest), {scale.hi, scale.lo}));
            const auto is_near = next_to_one ? e.n == 0.0 : X::I{};
            weights.add(is_near ? b : zero);
            const DoubleDouble<V> less_one = product<X>({b, zero}, e.fraction);
            add(near, {is_near ? less_one.hi : zero, is_near ? less_one.lo : zero});
            const Weight weight(b);
            const DoubleDouble<V> head = fast_two_sum(X::set(1), e.fraction.hi),
                                  term = product<X>({weight.fraction, zero},
                                                    {head.hi, head.lo + e.fraction.lo});
            const X::I power =
                __builtin_convertvector(e.n, typename X::I) + weight.exponent + (lift + 1023);
            const V factor = is_near | (power <= 0) ? zero : (V)(power << 52);
            add(far, {term.hi * factor, term.lo * factor});
        }
        // The logarithm of sums that may be next to 1.
        template <class M, class W>
        static W result(const Rows &a, DoubleDouble<W> whole, DoubleDouble<W> near,
                        DoubleDouble<W> far, W center) {
            const DoubleDouble<W> small{far.hi * 0x1p-300, far.lo * 0x1p-300};
            DoubleDouble<W> t = plus(plus(whole, near), small),
                            less_one = plus(plus(plus(whole, {M::set(-1), W{}}), near), small);
            const W value = t.value(), y = log_of_total<M>(a, t, W{}, center);
            // log1p
            const DoubleDouble<W> u = two_sum(less_one.hi, less_one.lo);
            DoubleDouble<W> total = two_sum(M::set(1), u.hi);
            total.lo = total.lo + u.lo;
            const W next =
                logarithm<M>(a, log_ratio<M>(total, {M::set(1), W{}}, total.hi, W{}), center);
            return (value < 0.5) | (value > 2.0) ? y : next;
        }

      private:
        static FS_ALWAYS_INLINE void add(Accumulator<X> &sums, DoubleDouble<V> term) {
            sums.add(term.hi);
            sums.lo = sums.lo + term.lo;
        }
        // With what cancellation has left in the higher term.
        template <class W>
        static DoubleDouble<W> plus(DoubleDouble<W> a, DoubleDouble<W> b) {
            const DoubleDouble<W> s = two_sum(a.hi, b.hi);
            return two_sum(s.hi, a.lo + (s.lo + b.lo));
        }
    };

  private:
    void store(double y) const { a->out.store(outer, 0, inner, y); }
    static double most(const Partials &partial) {
        double m = -infinity;
        for (const Partial &p : partial) m = m > p.most ? m : p.most;
        return m;
    }
    template <class Part>
    static DoubleDouble<> total(const Partials &partial, Part part) {
        DoubleDouble<> s{};
        for (const Partial &p : partial) s.add(part(p));
        return s;
    }

    // body(logits, weights, size) for the blocks of a chunk.
    template <class Body>
    FS_ALWAYS_INLINE void each_block(Index start, Index end, Body body) const {
        Scratch<double> x_room(gather_block), b_buffer(gather_block);
        double *x_buffer = x_room;
        for_each_block(start, end, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const double *xs = x.load_block(at, size, x_buffer),
                         *bs = b.load_block(at, size, b_buffer);
            for (Index j = 0; j < size; ++j) x_buffer[j] = bs[j] == 0 ? -infinity : xs[j];
            body(x_buffer, bs, size);
        });
    }
    void find_maximum(Index start, Index end, Partial &p) const {
        p.most = -infinity;
        each_block(start, end, [&](const double *xs, const double *, Index size) {
            const double m = span_max<X>(xs, size);
            p.most = p.most > m ? p.most : m;
        });
    }
    void add_terms(Index start, Index end, Partial &p) const {
        Terms<true> terms(a->ln_base, X::set(max));
        each_block(start, end, [&](const double *xs, const double *bs, Index size) {
            for_each_vector<X>(size, [&](Index i, auto lanes) {
                terms.add(lanes.load(xs + i, -infinity), lanes.load(bs + i, 0));
            });
        });
        p.sum = terms.sum.total();
        p.size = fold<X>(terms.magnitude, [](auto l, auto r) { return l + r; });
        p.heaviest = largest_lane<X>(terms.heaviest);
    }

    // Whether sums of plain numbers will do, and the result if they do.
    bool settled(const Partials &partial, double &y) const {
        const DoubleDouble<> s = total(partial, [](const Partial &p) { return p.sum; });
        const double size =
                         total(partial, [](const Partial &p) { return DoubleDouble<>{p.size, 0}; })
                             .value(),
                     t = s.value();
        if (size != size || max - max != 0) {
            y = size != size || t != t ? nan : max == -infinity ? max : t > 0 ? infinity : nan;
            return true;
        }
        double heaviest = 0;
        for (const Partial &p : partial) heaviest = heaviest > p.heaviest ? heaviest : p.heaviest;
        D::V result;
        const auto right =
            will_do<D>(*a, in_vector(s), D::set(size), D::set(heaviest), D::set(max), result);
        return y = result[0], right[0];
    }
    static double logarithm_of_infinite(const Partials &partial) {
        const double t = total(partial, [](const Partial &p) { return p.sum; }).value();
        return t == infinity ? t : nan;
    }

    double center() const { return center_of(*a, D::set(max))[0]; }

    __attribute__((noinline)) void find_exponent(Index start, Index end, Partial &p) const {
        const PairTerms terms(a->ln_base, X::set(center()), 0);
        V largest = X::set(-infinity);
        each_block(start, end, [&](const double *xs, const double *bs, Index size) {
            for_each_vector<X>(size, [&](Index i, auto lanes) {
                largest = larger(
                    terms.exponent(lanes.load(xs + i, -infinity), lanes.load(bs + i, 0)), largest);
            });
        });
        p.most = std::floor(largest_lane<X>(largest));
    }
    __attribute__((noinline)) void add_pairs(Index start, Index end, Partial &p) const {
        PairTerms terms(a->ln_base, X::set(center()), exponent);
        each_block(start, end, [&](const double *xs, const double *bs, Index size) {
            for_each_vector<X>(size, [&](Index i, auto lanes) {
                terms.add(lanes.load(xs + i, -infinity), lanes.load(bs + i, 0));
            });
        });
        p.weights = terms.weights.total(), p.near = terms.near.total(), p.far = terms.far.total();
    }
    double precise(const Partials &partial) const {
        const DoubleDouble<> far = total(partial, [](const Partial &p) { return p.far; });
        if (exponent != 0)
            return log_of_total<D>(*a, in_vector(far), D::set(exponent - far_exponent),
                                   D::set(center()))[0];
        const DoubleDouble<> whole = total(partial, [](const Partial &p) { return p.weights; }),
                             near = total(partial, [](const Partial &p) { return p.near; });
        return PairTerms::result<D>(*a, in_vector(whole), in_vector(near), in_vector(far),
                                    D::set(center()))[0];
    }
    static DoubleDouble<D::V> in_vector(DoubleDouble<> s) { return {D::set(s.hi), D::set(s.lo)}; }
};

}  // namespace fs
}  // namespace
