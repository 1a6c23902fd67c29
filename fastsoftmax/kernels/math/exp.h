// exp of a vector by itself: polynomials, tables, their constants.
#pragma once

#include <cmath>

#include "kernels/simd/double_double.h"

namespace {
namespace fs {

// quadratic(r) is the q of exp(r) = 1 + r + q r^2 on |r| <= ln(2) / 2.
template <class T>
struct ExpConstants;

// Degree 6, coefficients of Arm optimized-routines (math/aarch64/advsimd/expf_1u.c), Horner.
// Largest error 0.87 ulp with fused multiply-add on [-87, 88].
template <>
struct ExpConstants<float> {
    static constexpr float log2e = 0x1.715476p+0f, ln2_hi = 0x1.62e4p-1f, ln2_lo = 0x1.7f7d1cp-20f;
    static constexpr float subtract_from = 256;
    template <class V>
    static FS_ALWAYS_INLINE V quadratic(V r) {
        V p = multiply_add(r, V{} + 0x1.6a6000p-10f, V{} + 0x1.12718ep-7f);
        p = multiply_add(p, r, V{} + 0x1.555af0p-5f);
        p = multiply_add(p, r, V{} + 0x1.555430p-3f);
        return multiply_add(p, r, V{} + 0x1.fffff4p-2f);
    }
};

// Degree 12, coefficients of SLEEF (src/libm/sleefsimddp.c, exp with 1.0 ulp), Horner. Largest
// error 0.85 ulp with fused multiply-add.
template <>
struct ExpConstants<double> {
    static constexpr double log2e = 0x1.71547652b82fep+0, ln2_hi = 0x1.62e42fee00000p-1,
                            ln2_lo = 0x1.a39ef35793c76p-33;
    static constexpr double subtract_from = 2048;
    template <class V>
    static FS_ALWAYS_INLINE V quadratic(V r) {
        V p = multiply_add(r, V{} + 2.08860621107283687536341e-09,
                           V{} + 2.51112930892876518610661e-08);
        p = multiply_add(p, r, V{} + 2.75573911234900471893338e-07);
        p = multiply_add(p, r, V{} + 2.75572362911928827629423e-06);
        p = multiply_add(p, r, V{} + 2.4801587159235472998791e-05);
        p = multiply_add(p, r, V{} + 0.000198412698960509205564975);
        p = multiply_add(p, r, V{} + 0.00138888888889774492207962);
        p = multiply_add(p, r, V{} + 0.00833333333331652721664984);
        p = multiply_add(p, r, V{} + 0.0416666666666665047591422);
        p = multiply_add(p, r, V{} + 0.166666666666666851703837);
        return multiply_add(p, r, V{} + 0.5);
    }
};

// 1 + r + q r^2: by Horner where multiplication and addition are fused, otherwise with the small
// terms first (the same number of operations, and 0.4 ulp better without fusing).
template <class V>
FS_ALWAYS_INLINE inline V from_quadratic(V q, V r) {
    using S = decltype(r[0] + r[0]);
    const V one = V{} + S(1);
    if (FS_HAS_FMA) return multiply_add(multiply_add(q, r, one), r, one);
    return one + (r + q * (r * r));
}

// How 2^n gets into the result. Adding `magic` to s (x-c) log2 e rounds it to n; Shift folds N into
// it.
//
// In general n is an integer and the low bits of the sum, moved to the exponent field, are 2^(n-N).
template <class X>
struct ExpCore {
    using T = typename X::Scalar;
    using V = typename X::V;
    static constexpr T magic = Format<T>::round_magic, bias = Format<T>::bias;
    static constexpr bool overflows = false;  // to +inf, of itself
    static constexpr double unit = 1;         // of exponentials whose shift is free
    // n - N = -bias is the bit pattern of 0; a quarter keeps rounding from leaving the range
    static constexpr T least = Format<T>::bias - T(0.25), gradual = least;

    // Arguments below the range are moved to its end, where the result is 0.
    struct InRange {};
    static FS_ALWAYS_INLINE InRange in_range(V, V) { return {}; }
    static FS_ALWAYS_INLINE V moved(V d, V lowest) { return larger(lowest, d); }
    static FS_ALWAYS_INLINE V error_of(DoubleDouble<V> d,
                                       V lowest) {  // NaN for infinite d, and not wanted there
        return absolute<X>(d.hi) <= -lowest ? d.lo : V{};
    }

    template <bool free>
    static FS_ALWAYS_INLINE V finish(V r, V t, InRange) {
        return from_quadratic(ExpConstants<T>::quadratic(r), r) * power_of_two<X>(bits<X>(t));
    }
};

#if defined(__AVX512F__)
// With a table of 2^(i/16) in one register, n counts sixteenths, r is small enough for degree 3,
// and the scaling instruction takes the integer part of n - N. Coefficients of XNNPACK
// (src/f32-vsigmoid, lut16-p3), which tools/fit_exp.py finds, too: relative error 2^-29.2. Table
// rounded to nearest. Largest error 0.99 ulp, 0.90 relative to 2^-23.
//
// Where the shift is free, so is a common factor, and the table is that of unit 2^(i/16), with a
// unit for which all sixteen numbers lie next to floats (within 0.14 units of 2^-23; Gal's accurate
// tables). Largest error 0.64 relative to 2^-23, at no cost; tools/exponential_tables.py finds the
// units. There the table value is scaled first, beside the polynomial instead of after it (8 % less
// time for a sum); results below the smallest normal number would be less exact.
//
// Arguments below the range, -inf among them, are masked out of the last instructions. Results that
// are subnormal or round to 0 cost Intel's processors more than a hundred cycles each: softmax of
// rows half of which is masked took eight times as long when their arguments were moved to where
// the result rounds to 0.
template <>
struct ExpCore<Vec<float, 64>> {
    using X = Vec<float, 64>;
    using V = X::V;
    static constexpr float magic = 0x1.8p19f, bias = 0;
    static constexpr bool overflows = true;
    static constexpr double unit = 0x1.02946e167a6f8p+0;
    // 2^-least are flushed, or 2^-gradual, which rounds to 0
    static constexpr float least = 126.75f, gradual = 151.75f;

    using InRange = __mmask16;
    static FS_ALWAYS_INLINE InRange in_range(V d, V lowest) {  // NaN is
        return _mm512_cmp_ps_mask((__m512)d, (__m512)lowest, _CMP_NLT_UQ);
    }
    static FS_ALWAYS_INLINE V moved(V d, V) { return d; }
    static FS_ALWAYS_INLINE V error_of(DoubleDouble<V> d, V) { return d.lo; }

    // power 2^(i/16)
    static FS_ALWAYS_INLINE V powers(float power) {
        return V{0x1.000000p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f,
                 0x1.306fe0p+0f, 0x1.3dea64p+0f, 0x1.4bfdaep+0f, 0x1.5ab07ep+0f,
                 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
                 0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f} *
               power;
    }
    // power unit 2^(i/16)
    static FS_ALWAYS_INLINE V units(float power) {
        return V{0x1.02946ep+0f, 0x1.0e0732p+0f, 0x1.19fbb8p+0f, 0x1.2677bep+0f,
                 0x1.338144p+0f, 0x1.411e8ep+0f, 0x1.4f5626p+0f, 0x1.5e2ee2p+0f,
                 0x1.6dafe4p+0f, 0x1.7de09ep+0f, 0x1.8ec8dap+0f, 0x1.a070b6p+0f,
                 0x1.b2e0aep+0f, 0x1.c621a0p+0f, 0x1.da3ccap+0f, 0x1.ef3bd6p+0f} *
               power;
    }
    static constexpr float c3 = 0x1.55559ap-3f, c2 = 0x1.00021ep-1f;

    template <bool free>
    static FS_ALWAYS_INLINE V finish(V r, V t, InRange in) {
        if constexpr (free)
            return scaled_first(r, t, t - magic, units(1), X::set(c3), X::set(c2), in);
        return scaled(fraction(r, t, powers(1)), t - magic, in);
    }
    static FS_ALWAYS_INLINE V scaled_first(V r, V t, V n, V table, V c3, V c2, InRange in) {
        const __m512 power = (__m512)scaled(entry(t, table), n, in);
        return (V)_mm512_maskz_fmadd_ps(in, power, (__m512)polynomial(r, c3, c2), power);
    }
    static FS_ALWAYS_INLINE V half_fraction(V r, V t) { return fraction(r, t, powers(0.5f)); }
    static FS_ALWAYS_INLINE V scaled(V v, V n, InRange in = -1) {
        return (V)_mm512_maskz_scalef_ps(in, (__m512)v, (__m512)n);
    }

  private:
    static FS_ALWAYS_INLINE V fraction(V r, V t, V table) {
        const V power = entry(t, table);
        return multiply_add(power, polynomial(r, X::set(c3), X::set(c2)), power);
    }
    static FS_ALWAYS_INLINE V entry(V t, V table) {
        return (V)_mm512_permutexvar_ps(_mm512_castps_si512((__m512)t), (__m512)table);
    }
    // exp(r) - 1
    static FS_ALWAYS_INLINE V polynomial(V r, V c3, V c2) {
        return multiply_add(multiply_add(r, c3, c2) * r, r, r);
    }
};

// The same for double with two registers of 2^(i/16) and degree 6: exp(r) = 1 + r + r^2 q(r), q
// fitted to |r| <= ln(2) / 32 by Remez' algorithm (tools/fit_exp.py), relative error 2^-56.2.
// Largest error 1.12 ulp, 0.93 relative to 2^-52; with free shift 0.63 relative to it, entries
// within 0.12. (Measured: softmax of 256 x 1000 takes 0.57 ns per element, with degree 12 and no
// table 0.76.)
template <>
struct ExpCore<Vec<double, 64>> {
    using X = Vec<double, 64>;
    using V = X::V;
    static constexpr double magic = 0x1.8p48, bias = 0;
    static constexpr bool overflows = true;
    static constexpr double unit = 0x1.024bb3c9b7a6bp+0;
    static constexpr double least = 1022.75, gradual = 1075.75;

    using InRange = __mmask8;
    static FS_ALWAYS_INLINE InRange in_range(V d, V lowest) {
        return _mm512_cmp_pd_mask((__m512d)d, (__m512d)lowest, _CMP_NLT_UQ);
    }
    static FS_ALWAYS_INLINE V moved(V d, V) { return d; }
    static FS_ALWAYS_INLINE V error_of(DoubleDouble<V> d, V) { return d.lo; }

    template <bool free>
    static FS_ALWAYS_INLINE V finish(V r, V t, InRange in) {
        const V n = t - magic;
        return free ? product(scaled(entry_of_units(t), n, in), r, in)
                    : scaled(product(entry_of_powers(t, 1), r), n, in);
    }
    static FS_ALWAYS_INLINE V half_fraction(V r, V t) {
        return product(entry_of_powers(t, 0.5), r);
    }
    static FS_ALWAYS_INLINE V scaled(V v, V n, InRange in = -1) {
        return (V)_mm512_maskz_scalef_pd(in, (__m512d)v, (__m512d)n);
    }

  private:
    static FS_ALWAYS_INLINE V product(V power, V r, InRange in = -1) {  // power exp(r)
        V q = multiply_add(r, X::set(0x1.6c14c66fdd4c0p-10), X::set(0x1.11123afa8914fp-7));
        q = multiply_add(q, r, X::set(0x1.55555558fe7b6p-5));
        q = multiply_add(q, r, X::set(0x1.555555548f23dp-3));
        q = multiply_add(q, r, X::set(0x1.fffffffffffb9p-2));
        return (V)_mm512_maskz_fmadd_pd(in, (__m512d)power, (__m512d)multiply_add(q * r, r, r),
                                        (__m512d)power);
    }
    static FS_ALWAYS_INLINE V entry_of_powers(V t, double power) {
        const V low = V{0x1.0000000000000p+0, 0x1.0b5586cf9890fp+0, 0x1.172b83c7d517bp+0,
                        0x1.2387a6e756238p+0, 0x1.306fe0a31b715p+0, 0x1.3dea64c123422p+0,
                        0x1.4bfdad5362a27p+0, 0x1.5ab07dd485429p+0} *
                      power;
        const V high = V{0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0,
                         0x1.9c49182a3f090p+0, 0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0,
                         0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0} *
                       power;
        return entry(t, low, high);
    }
    static FS_ALWAYS_INLINE V entry_of_units(V t) {
        const V low = {0x1.024bb3c9b7a6bp+0, 0x1.0dbb3fab29c60p+0, 0x1.19ac689e66e26p+0,
                       0x1.2624ebb09aefap+0, 0x1.332ac6f94dc0ep+0, 0x1.40c43c7b8fabbp+0,
                       0x1.4ef7d527c95e8p+0, 0x1.5dcc63ffa0d47p+0};
        const V high = {0x1.6d49095d75b21p+0, 0x1.7d75366108708p+0, 0x1.8e58b082f1988p+0,
                        0x1.9ffb9550a0f5cp+0, 0x1.b2665e52b024ap+0, 0x1.c5a1e51f68330p+0,
                        0x1.d9b7679b6f4a8p+0, 0x1.eeb08c6aa987fp+0};
        return entry(t, low, high);
    }
    static FS_ALWAYS_INLINE V entry(V t, V low, V high) {
        return (V)_mm512_permutex2var_pd((__m512d)low, _mm512_castpd_si512((__m512d)t),
                                         (__m512d)high);
    }
};
#endif

}  // namespace fs
}  // namespace
