// The 16-bit formats, which are for storage only: float16 (IEEE 754 binary16) and bfloat16 (the
// upper half of a float).
#pragma once

#include <type_traits>

#include "kernels/simd/vector_parts.h"

namespace {
namespace fs {

template <class To, class From>
FS_ALWAYS_INLINE inline To bit_cast(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

// All conversions are exact or round to nearest, ties to even, NaN stays NaN. They have no
// branches, so that loops of them become vector code.
struct Float16 {
    std::uint16_t bits;

    Float16() = default;
    // Normal results: the exponent is rebiased, and the 13 bits that go are rounded by adding half
    // of them, and one more if the last bit that stays is odd. Subnormal ones: adding 0.5, whose
    // last bit weighs 2^-24 as theirs does, lets the hardware round.
    explicit FS_ALWAYS_INLINE Float16(float x) {
        constexpr std::uint32_t infinity = 255u << 23, overflow = 143u << 23,
                                smallest_normal = 113u << 23, half = 126u << 23;
        const std::uint32_t all = bit_cast<std::uint32_t>(x), sign = all & 0x80000000u,
                            u = all ^ sign;
        const std::uint32_t normal = (u - (112u << 23) + 0xfffu + ((u >> 13) & 1)) >> 13;
        const std::uint32_t subnormal =
            bit_cast<std::uint32_t>(bit_cast<float>(u) + bit_cast<float>(half)) - half;
        const std::uint32_t special = u > infinity ? 0x7e00u : 0x7c00u;
        const std::uint32_t y = u >= overflow ? special : u < smallest_normal ? subnormal : normal;
        bits = static_cast<std::uint16_t>(y | sign >> 16);
    }
    explicit FS_ALWAYS_INLINE Float16(double x) : Float16(static_cast<float>(x)) {}
    // The bits as those of a float are 2^112 too small, subnormal ones, too.
    FS_ALWAYS_INLINE operator float() const {
        const std::uint32_t all = bits, sign = (all & 0x8000u) << 16, u = (all & 0x7fffu) << 13;
        const float finite = bit_cast<float>(u) * 0x1p112f;
        const std::uint32_t special = u | 255u << 23;
        return bit_cast<float>((u >= (31u << 23) ? special : bit_cast<std::uint32_t>(finite)) |
                               sign);
    }
};

struct BFloat16 {
    std::uint16_t bits;

    BFloat16() = default;
    explicit FS_ALWAYS_INLINE BFloat16(float x) {
        const std::uint32_t u = bit_cast<std::uint32_t>(x),
                            rounded = (u + 0x7fffu + (u >> 16 & 1)) >> 16;
        bits = static_cast<std::uint16_t>(x == x ? rounded : u >> 16 | 0x40u);
    }
    explicit FS_ALWAYS_INLINE BFloat16(double x) : BFloat16(static_cast<float>(x)) {}
    FS_ALWAYS_INLINE operator float() const { return bit_cast<float>(std::uint32_t(bits) << 16); }
};

// Contiguous blocks.
template <class From, class To>
inline void convert(const From *from, To *to, Index count) {
    for (Index j = 0; j < count; ++j) to[j] = static_cast<To>(from[j]);
}

// Vectors from and to 16-bit numbers.
template <class X, class H>
struct Halves {
    using V = typename X::V;
    using T = typename X::Scalar;
    static FS_ALWAYS_INLINE V load(const H *p) {
        T lane[X::lanes];
        convert(p, lane, X::lanes);
        return X::load(lane);
    }
    static FS_ALWAYS_INLINE void store(H *p, V v) {
        T lane[X::lanes];
        X::store(lane, v);
        convert(lane, p, X::lanes);
    }
    static FS_ALWAYS_INLINE void stream(H *p, V v) {
        store(p, v);
    }  // past the caches, as Vec has it
};
#if defined(__AVX512F__)
template <>
FS_ALWAYS_INLINE inline Vec<float>::V Halves<Vec<float>, Float16>::load(const Float16 *p) {
    return (V)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
FS_ALWAYS_INLINE inline __m256i narrowed(Vec<float>::V v, Float16) {
    return _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
}
template <>
FS_ALWAYS_INLINE inline Vec<float>::V Halves<Vec<float>, BFloat16>::load(const BFloat16 *p) {
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}
// v is the result of arithmetic, so that a NaN is a quiet one, and stays NaN if it is not rounded.
// The upper halves of lanes are taken by one permutation.
FS_ALWAYS_INLINE inline __m256i narrowed(Vec<float>::V v, BFloat16) {
    const __m512i u = (__m512i)v,
                  odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __mmask16 number = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_ORD_Q);
    const __m512i rounded =
        _mm512_mask_add_epi32(u, number, u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i upper = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29,
                                           27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, rounded));
}
template <>
FS_ALWAYS_INLINE inline void Halves<Vec<float>, Float16>::store(Float16 *p, V v) {
    _mm256_storeu_si256((__m256i *)p, narrowed(v, Float16()));
}
template <>
FS_ALWAYS_INLINE inline void Halves<Vec<float>, BFloat16>::store(BFloat16 *p, V v) {
    _mm256_storeu_si256((__m256i *)p, narrowed(v, BFloat16()));
}
template <>
FS_ALWAYS_INLINE inline void Halves<Vec<float>, Float16>::stream(Float16 *p, V v) {
    _mm256_stream_si256((__m256i *)p, narrowed(v, Float16()));
}
template <>
FS_ALWAYS_INLINE inline void Halves<Vec<float>, BFloat16>::stream(BFloat16 *p, V v) {
    _mm256_stream_si256((__m256i *)p, narrowed(v, BFloat16()));
}
#elif defined(__F16C__)
template <>
FS_ALWAYS_INLINE inline Vec<float>::V Halves<Vec<float>, Float16>::load(const Float16 *p) {
    return (V)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
template <>
FS_ALWAYS_INLINE inline void Halves<Vec<float>, Float16>::store(Float16 *p, V v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#    if defined(__AVX2__)
template <>
FS_ALWAYS_INLINE inline Vec<float>::V Halves<Vec<float>, BFloat16>::load(const BFloat16 *p) {
    return (V)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
}
template <>
FS_ALWAYS_INLINE inline void Halves<Vec<float>, BFloat16>::store(BFloat16 *p, V v) {
    using U = Vec<float>::U;
    const U u = (U)v, rounded = (u + 0x7fffu + (u >> 16 & 1)) >> 16;
    const __m256i bits = (__m256i)(v == v ? rounded : u >> 16 | 0x40u);
    const __m256i pairs = _mm256_packus_epi32(bits, bits);  // of both halves, each twice
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(pairs, 0b1000)));
}
#    endif
#endif

#if defined(__F16C__)
// Contiguous blocks by the hardware's conversions.
template <>
inline void convert(const Float16 *from, float *to, Index count) {
    using X = Vec<float>;
    Index j = 0;
    for (; j + X::lanes <= count; j += X::lanes)
        X::store(to + j, Halves<X, Float16>::load(from + j));
    for (; j < count; ++j) to[j] = from[j];
}
template <>
inline void convert(const float *from, Float16 *to, Index count) {
    using X = Vec<float>;
    Index j = 0;
    for (; j + X::lanes <= count; j += X::lanes)
        Halves<X, Float16>::store(to + j, X::load(from + j));
    for (; j < count; ++j) to[j] = Float16(from[j]);
}
#endif

// The same of numbers of the vector's own type or such ones: whole vectors, or the first `count`
// lanes, fewer than all.
template <class X, class S>
FS_ALWAYS_INLINE inline typename X::V load_as(const S *p) {
    if constexpr (std::is_same<S, typename X::Scalar>::value)
        return X::load(p);
    else
        return Halves<X, S>::load(p);
}

template <class X, class S>
FS_ALWAYS_INLINE inline void store_as(S *p, typename X::V v) {
    if constexpr (std::is_same<S, typename X::Scalar>::value)
        X::store(p, v);
    else
        Halves<X, S>::store(p, v);
}

template <class X, class S>
FS_ALWAYS_INLINE inline void stream_as(S *p, typename X::V v) {
    if constexpr (std::is_same<S, typename X::Scalar>::value)
        X::stream(p, v);
    else
        Halves<X, S>::stream(p, v);
}

template <class X, class S>
FS_ALWAYS_INLINE inline typename X::V load_part_as(const S *p, Index count,
                                                   typename X::Scalar fill) {
    if constexpr (std::is_same<S, typename X::Scalar>::value) {
        return X::load_part(p, count, fill);
    } else {
        S part[X::lanes] = {};  // by way of memory: there are no masks for 16 bits
        copy_part<X::lanes>(part, p, count);
        const auto there =
            X::indices() < static_cast<typename Format<typename X::Scalar>::Int>(count);
        return there ? load_as<X>(part) : X::set(fill);
    }
}

template <class X, class S>
FS_ALWAYS_INLINE inline void store_part_as(S *p, typename X::V v, Index count) {
    if constexpr (std::is_same<S, typename X::Scalar>::value) {
        X::store_part(p, v, count);
    } else {
        S part[X::lanes];
        store_as<X>(part, v);
        copy_part<X::lanes>(p, part, count);
    }
}

}  // namespace fs
}  // namespace
