// Vector types of one instruction set: the only header that knows which CPU the module is compiled
// for.
// GCC and Clang vector extensions give arithmetic, comparison, shifts and `mask ? a : b` on every
// target; what they lack (fused multiply-add, masked tails) is written here once per instruction
// set. Everything stands in an anonymous namespace: the same template compiled for three
// instruction sets must not be merged by a linker into one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__) || defined(__i386__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#    define FS_VECTOR_BYTES 64
#elif defined(__AVX2__)
#    define FS_VECTOR_BYTES 32
#else
#    define FS_VECTOR_BYTES 16
#endif

#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
#    define FS_HAS_FMA 1
#else
#    define FS_HAS_FMA 0
#endif

#define FS_ALWAYS_INLINE __attribute__((always_inline))

namespace {
namespace fs {

using Index = std::ptrdiff_t;

template <class T>
struct Format;

template <>
struct Format<float> {
    using Int = std::int32_t;
    using Uint = std::uint32_t;
    static constexpr int mantissa = 23, bias = 127;
    // adding it rounds |x| < 2^22 to an integer in the low bits
    static constexpr float round_magic = 0x1.8p23f;
};

template <>
struct Format<double> {
    using Int = std::int64_t;
    using Uint = std::uint64_t;
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr double round_magic = 0x1.8p52;
};

template <class T, int Bytes>
struct VectorOf {
    typedef T type __attribute__((vector_size(Bytes)));
};

// Copies `count` numbers, fewer than `most`, a power of two: half of that, a quarter, ..., as the
// binary digits of the count tell.
template <Index most, class T>
FS_ALWAYS_INLINE inline void copy_part(T *to, const T *from, Index count) {
#pragma GCC unroll 8
    for (Index some = most / 2; some > 0; some /= 2) {
        if (!(count & some)) continue;
        std::memcpy(to, from, static_cast<std::size_t>(some) * sizeof(T));
        to += some, from += some;
    }
}

// The vector of this instruction set (Bytes = FS_VECTOR_BYTES), and the 16-byte one that serves
// single numbers.
template <class T, int Bytes = FS_VECTOR_BYTES>
struct Vec {
    using Scalar = T;
    using V = typename VectorOf<T, Bytes>::type;
    using I = typename VectorOf<typename Format<T>::Int, Bytes>::type;
    using U = typename VectorOf<typename Format<T>::Uint, Bytes>::type;
    static constexpr Index lanes = Bytes / static_cast<int>(sizeof(T));

    static FS_ALWAYS_INLINE V set(T x) { return V{} + x; }
    // Vectors in memory are aligned as their elements are. By their type the compiler knows that a
    // store of one changes nothing else than numbers; memcpy would have it load pointers and counts
    // again.
    typedef T InMemory __attribute__((vector_size(Bytes), aligned(sizeof(T))));
    static FS_ALWAYS_INLINE V load(const T *p) { return *reinterpret_cast<const InMemory *>(p); }
    static FS_ALWAYS_INLINE void store(T *p, V v) { *reinterpret_cast<InMemory *>(p) = v; }
    // Past the caches, where p is aligned as the vector is; stream_fence() follows.
    static FS_ALWAYS_INLINE void stream(T *p, V v) { store(p, v); }

    // The first `count` lanes from memory, `fill` in the others; nothing beyond p + count is
    // touched.
    static FS_ALWAYS_INLINE V load_part(const T *p, Index count, T fill) {
        V v = set(fill);
#pragma GCC unroll 4
        for (Index i = 0; i < lanes; ++i) {
            if (i < count) v[i] = p[i];
        }
        return v;
    }
    static FS_ALWAYS_INLINE I indices() {
        I index;
        for (Index i = 0; i < lanes; ++i) index[i] = static_cast<typename Format<T>::Int>(i);
        return index;
    }
    // The last `count` lanes of v, 0 in the others.
    static FS_ALWAYS_INLINE V last(V v, Index count) {
        return indices() >= static_cast<typename Format<T>::Int>(lanes - count) ? v : V{};
    }
    // v with 0 in one lane, or unchanged if there is no such lane.
    static FS_ALWAYS_INLINE V without(V v, Index lane) {
        return indices() == static_cast<typename Format<T>::Int>(lane) ? V{} : v;
    }
    // The first `count` lanes.
    static FS_ALWAYS_INLINE void store_part(T *p, V v, Index count) {
        if (count == lanes) return store(p, v);
        T lane[lanes];
        store(lane, v);
        copy_part<lanes>(p, lane, count);
    }
};

// Instructions that leave memory beyond the part alone. (By way of memory a load would wait for
// several stores to reach the cache; masked stores take AMD's processors longer than three
// branches.)
#if defined(__AVX2__)
template <>
FS_ALWAYS_INLINE inline Vec<float, 32>::V Vec<float, 32>::load_part(const float *p, Index count,
                                                                    float fill) {
    const I there = indices() < static_cast<std::int32_t>(count);
    return there ? (V)_mm256_maskload_ps(p, (__m256i)there) : set(fill);
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 32>::V Vec<double, 32>::load_part(const double *p, Index count,
                                                                      double fill) {
    const I there = indices() < static_cast<std::int64_t>(count);
    return there ? (V)_mm256_maskload_pd(p, (__m256i)there) : set(fill);
}
#endif
#if defined(__AVX512F__)
template <>
FS_ALWAYS_INLINE inline Vec<float, 64>::V Vec<float, 64>::load_part(const float *p, Index count,
                                                                    float fill) {
    return (V)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << count) - 1u), p);
}
template <>
FS_ALWAYS_INLINE inline void Vec<float, 64>::store_part(float *p, V v, Index count) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1u), (__m512)v);
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 64>::V Vec<double, 64>::load_part(const double *p, Index count,
                                                                      double fill) {
    return (V)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), (__mmask8)((1u << count) - 1u), p);
}
template <>
FS_ALWAYS_INLINE inline void Vec<double, 64>::store_part(double *p, V v, Index count) {
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << count) - 1u), (__m512d)v);
}
#endif

#if defined(__AVX512F__)
template <>
FS_ALWAYS_INLINE inline void Vec<float, 64>::stream(float *p, V v) {
    _mm512_stream_ps(p, (__m512)v);
}
template <>
FS_ALWAYS_INLINE inline void Vec<double, 64>::stream(double *p, V v) {
    _mm512_stream_pd(p, (__m512d)v);
}
#elif defined(__AVX__)
template <>
FS_ALWAYS_INLINE inline void Vec<float, 32>::stream(float *p, V v) {
    _mm256_stream_ps(p, (__m256)v);
}
template <>
FS_ALWAYS_INLINE inline void Vec<double, 32>::stream(double *p, V v) {
    _mm256_stream_pd(p, (__m256d)v);
}
#elif defined(__SSE2__)
template <>
FS_ALWAYS_INLINE inline void Vec<float, 16>::stream(float *p, V v) {
    _mm_stream_ps(p, (__m128)v);
}
template <>
FS_ALWAYS_INLINE inline void Vec<double, 16>::stream(double *p, V v) {
    _mm_stream_pd(p, (__m128d)v);
}
#endif
FS_ALWAYS_INLINE inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// a * b + c: fused where the instruction set can, two roundings on the SSE2 baseline.
template <class V>
FS_ALWAYS_INLINE inline V multiply_add(V a, V b, V c) {
    return a * b + c;
}

#if defined(__AVX512F__)
FS_ALWAYS_INLINE inline Vec<float, 64>::V multiply_add(Vec<float, 64>::V a, Vec<float, 64>::V b,
                                                       Vec<float, 64>::V c) {
    return (Vec<float, 64>::V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
FS_ALWAYS_INLINE inline Vec<double, 64>::V multiply_add(Vec<double, 64>::V a, Vec<double, 64>::V b,
                                                        Vec<double, 64>::V c) {
    return (Vec<double, 64>::V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#endif
#if defined(__FMA__)
FS_ALWAYS_INLINE inline Vec<float, 32>::V multiply_add(Vec<float, 32>::V a, Vec<float, 32>::V b,
                                                       Vec<float, 32>::V c) {
    return (Vec<float, 32>::V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
FS_ALWAYS_INLINE inline Vec<double, 32>::V multiply_add(Vec<double, 32>::V a, Vec<double, 32>::V b,
                                                        Vec<double, 32>::V c) {
    return (Vec<double, 32>::V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
FS_ALWAYS_INLINE inline Vec<float, 16>::V multiply_add(Vec<float, 16>::V a, Vec<float, 16>::V b,
                                                       Vec<float, 16>::V c) {
    return (Vec<float, 16>::V)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
}
FS_ALWAYS_INLINE inline Vec<double, 16>::V multiply_add(Vec<double, 16>::V a, Vec<double, 16>::V b,
                                                        Vec<double, 16>::V c) {
    return (Vec<double, 16>::V)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)c);
}
#elif defined(__aarch64__)
FS_ALWAYS_INLINE inline Vec<float, 16>::V multiply_add(Vec<float, 16>::V a, Vec<float, 16>::V b,
                                                       Vec<float, 16>::V c) {
    return (Vec<float, 16>::V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
FS_ALWAYS_INLINE inline Vec<double, 16>::V multiply_add(Vec<double, 16>::V a, Vec<double, 16>::V b,
                                                        Vec<double, 16>::V c) {
    return (Vec<double, 16>::V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#endif

// The larger one; the second where either is NaN (as x86's instruction has it), so larger(constant,
// x) keeps a NaN in x. Written out for x86, where GCC sometimes makes a comparison and a blend of
// the general form.
template <class V>
FS_ALWAYS_INLINE inline V larger(V a, V b) {
    return a > b ? a : b;
}

template <class V>
FS_ALWAYS_INLINE inline V smaller(V a, V b) {
    return a < b ? a : b;
}

#define FS_MIN_MAX(T, Bytes, Native, max, min)                                                 \
    FS_ALWAYS_INLINE inline Vec<T, Bytes>::V larger(Vec<T, Bytes>::V a, Vec<T, Bytes>::V b) {  \
        return (Vec<T, Bytes>::V)max((Native)a, (Native)b);                                    \
    }                                                                                          \
    FS_ALWAYS_INLINE inline Vec<T, Bytes>::V smaller(Vec<T, Bytes>::V a, Vec<T, Bytes>::V b) { \
        return (Vec<T, Bytes>::V)min((Native)a, (Native)b);                                    \
    }
#if defined(__SSE2__)
FS_MIN_MAX(float, 16, __m128, _mm_max_ps, _mm_min_ps)
FS_MIN_MAX(double, 16, __m128d, _mm_max_pd, _mm_min_pd)
#endif
#if defined(__AVX__)
FS_MIN_MAX(float, 32, __m256, _mm256_max_ps, _mm256_min_ps)
FS_MIN_MAX(double, 32, __m256d, _mm256_max_pd, _mm256_min_pd)
#endif
#if defined(__AVX512F__)
FS_MIN_MAX(float, 64, __m512, _mm512_max_ps, _mm512_min_ps)
FS_MIN_MAX(double, 64, __m512d, _mm512_max_pd, _mm512_min_pd)
#endif
#undef FS_MIN_MAX

template <class X>
FS_ALWAYS_INLINE inline typename X::I bits(typename X::V v) {
    return (typename X::I)v;
}

template <class X>
FS_ALWAYS_INLINE inline typename X::V absolute(typename X::V v) {
    return (typename X::V)(bits<X>(v) &
                           std::numeric_limits<typename Format<typename X::Scalar>::Int>::max());
}

template <class X>
FS_ALWAYS_INLINE inline typename X::V minus_absolute(typename X::V v) {
    return (typename X::V)(bits<X>(v) |
                           std::numeric_limits<typename Format<typename X::Scalar>::Int>::min());
}

// 1.0 * 2^k where `biased` holds k + bias in its low bits.
template <class X>
FS_ALWAYS_INLINE inline typename X::V power_of_two(typename X::I biased) {
    return (typename X::V)(biased << Format<typename X::Scalar>::mantissa);
}

}  // namespace fs
}  // namespace
