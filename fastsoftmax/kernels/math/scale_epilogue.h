// What becomes of the exponentials of rows: they are divided by their total.
#pragma once

#include "kernels/math/exp_sums.h"

namespace {
namespace fs {

// e -> e * numerator / total.
//
// The quotient is kept in two terms, which saves a rounding error and makes the result of a row's
// only exponential 1. Where arithmetic is not fused, two products would round once more, and
// softmax divides instead, by the total in two terms: e / hi + (e / hi) * lo, with lo the relative
// correction.
//
// On AVX-512, where multiplications are what takes the time, the second term is 0 except where it
// is needed for that 1: every seventh number times its rounded reciprocal is less than 1.
template <class X, bool UnitNumerators>
struct ScaleEpilogue {
    using T = typename X::Scalar;
    using V = typename X::V;
    static constexpr bool divides = UnitNumerators && !FS_HAS_FMA,
                          seldom_two = ExpCore<X>::overflows,
                          never_two = seldom_two && !UnitNumerators,
                          watches = seldom_two && !never_two;
    V hi, lo;

    static FS_ALWAYS_INLINE ScaleEpilogue all(double numerator, DoubleDouble<> total) {
        using D = Vec<double, 16>;
        const auto q = quotient<D>(D::set(numerator), {D::set(total.hi), D::set(total.lo)});
        const T hi = static_cast<T>(q.hi[0]),
                lo = static_cast<T>((q.hi[0] - static_cast<double>(hi)) + q.lo[0]);
        const double rounded = static_cast<double>(static_cast<T>(total.hi));
        return of({X::set(hi), X::set(lo)}, X::set(static_cast<T>(rounded)),
                  X::set(static_cast<T>((total.hi - rounded) + total.lo)));
    }
    // One for each lane, from the sums of lanes, the k-th vector of which is part(k); numerators
    // are 1 if there are none. The largest exponential, or sum of a few, tells of those in need of
    // a second term which are so by chance.
    template <class Part>
    static FS_ALWAYS_INLINE ScaleEpilogue each(const double *numerators, Part part,
                                               V largest = X::set(any_size)) {
        using D = Vec<double>;
        DoubleDouble<typename D::V> q[wide_parts<X>], total[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            total[k] = part(k);
            q[k] =
                quotient<D>(numerators ? D::load(numerators + k * D::lanes) : D::set(1), total[k]);
        }
        if constexpr (!watches) return of(pair_from_wide<X>(q));
        const DoubleDouble<V> rounded = pair_from_wide<X>(total);
        return of(pair_from_wide<X>(q), rounded.hi, rounded.lo, largest);
    }
    static FS_ALWAYS_INLINE ScaleEpilogue each(const double *numerators, const Accumulator<X> &sums,
                                               V largest = X::set(any_size)) {
        return each(numerators, [&](int k) FS_ALWAYS_INLINE { return sums.part(k); }, largest);
    }
    // The same, always in two terms, of totals in pairs of the terms' own type.
    static FS_ALWAYS_INLINE ScaleEpilogue of_pairs(DoubleDouble<V> numerator,
                                                   DoubleDouble<V> total) {
        DoubleDouble<V> q = quotient<X>(numerator.hi, total);
        if constexpr (!UnitNumerators) q.lo = q.lo + numerator.lo / total.hi;
        return of(q);
    }
    // For whole rows, as numbers; both arrays end with a vector.
    template <Index most>
    static FS_ALWAYS_INLINE void rows(const double *numerators, const RowTotals<most> &total,
                                      Index count, T *hi, T *lo) {
        using D = Vec<double>;
        for (Index row = 0; row < count; row += X::lanes) {
            const auto sums = [&](int k) FS_ALWAYS_INLINE {
                return total.template part<D>(row + k * D::lanes);
            };
            const ScaleEpilogue n = each(numerators ? numerators + row : nullptr, sums);
            X::store(hi + row, n.hi);
            X::store(lo + row, n.lo);
        }
    }
    static FS_ALWAYS_INLINE ScaleEpilogue row(T hi, T lo) { return {X::set(hi), X::set(lo)}; }
    // Whether a row with this second term is one of the few that need it.
    static FS_ALWAYS_INLINE bool is_seldom(T lo) { return watches && lo != 0; }

    FS_ALWAYS_INLINE bool has_one_term() const {
        if constexpr (!watches) return never_two;
        return !any<X>(lo != V{});
    }
    template <bool one_term = false>
    FS_ALWAYS_INLINE V apply(V e) const {
        if constexpr (one_term || never_two) return e * hi;
        const V q = divides ? e / hi : e * hi;
        return divides ? q + q * lo : multiply_add(e, hi, e * lo);
    }
    // body(writer) with the shorter way to apply it, if that will do.
    struct OneTerm {
        V hi;
        FS_ALWAYS_INLINE V apply(V e) const { return e * hi; }
    };
    template <class Body>
    FS_ALWAYS_INLINE void hand_to(Body body) const {
        if (has_one_term())
            body(OneTerm{hi});
        else
            body(*this);
    }

  private:
    // an eighth of an ulp: less is what the result cannot tell from 1
    static constexpr T little = 1 / (T(Index(1) << Format<T>::mantissa) * 8),
                       any_size = std::numeric_limits<T>::infinity();

    static FS_ALWAYS_INLINE ScaleEpilogue of(DoubleDouble<V> q) {
        const V lo = divides ? -q.lo / q.hi : q.lo;
        return {q.hi, lo - lo == V{} ? lo : V{}};
    }
    // The total is given as a number and what was rounded off: that is next to nothing where the
    // row has one exponential and little else, and of one total in twenty by chance.
    static FS_ALWAYS_INLINE ScaleEpilogue of(DoubleDouble<V> q, V total, V rest,
                                             V largest = X::set(any_size)) {
        ScaleEpilogue n = of(q);
        if constexpr (watches)
            n.lo = (total * q.hi < 1) & (absolute<X>(rest) <= total * little) &
                           (largest >= total * (1 - 8 * little))
                       ? n.lo
                       : V{};
        return n;
    }
    // numerator / total as hi + lo; the total itself where softmax divides.
    template <class D>
    static FS_ALWAYS_INLINE DoubleDouble<typename D::V> quotient(
        typename D::V numerator, DoubleDouble<typename D::V> total) {
        using W = typename D::V;
        // An infinite sum comes from +inf in the row, which makes it NaN.
        const W s = total.hi - total.hi == W{} ? total.hi + total.lo
                                               : D::set(std::numeric_limits<double>::quiet_NaN());
        if constexpr (divides) return {s, (total.hi - s) + total.lo};
        // its own error is far below those of T
        if constexpr (sizeof(T) < sizeof(W{}[0])) return {numerator / s, W{}};
        const W inverse = 1.0 / s, q = numerator * inverse;
        const W rest =
            (-multiply_subtract_exact<D>(q, total.hi, numerator) - q * total.lo) * inverse;
        if constexpr (!seldom_two) return {q, rest};
        // the number next to the quotient: both divisor and inverse were rounded
        const W hi = rest - rest == W{} ? q + rest : q;
        return {hi, rest - (hi - q)};
    }
};

// y = writer(x), by a ScaleEpilogue of kept exponentials or a LogEpilogue of logits.
template <class X, class C, class S, class W>
FS_ALWAYS_INLINE inline void write_with(const W &writer, const C *x, S *y, Index n,
                                        bool streaming) {
    write_span<X>(y, n, streaming, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
        return writer.apply(lanes.load(x + i, 0));
    });
}

}  // namespace fs
}  // namespace
