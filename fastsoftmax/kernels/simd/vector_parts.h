// Parts of vectors: halves, wider and narrower numbers, questions about all lanes, interleaving.
#pragma once

#include "kernels/simd/vector.h"

namespace {
namespace fs {

// The halves of a vector, and the folding of its lanes to one number, half upon half.
template <class X>
FS_ALWAYS_INLINE inline typename Vec<typename X::Scalar, sizeof(typename X::V) / 2>::V half(
    typename X::V v, int which) {
    typename Vec<typename X::Scalar, sizeof(v) / 2>::V h;
    std::memcpy(&h, reinterpret_cast<const char *>(&v) + which * sizeof h, sizeof h);
    return h;
}
#if defined(__AVX512F__) && defined(__AVX512DQ__)
template <>
FS_ALWAYS_INLINE inline Vec<float, 32>::V half<Vec<float, 64>>(Vec<float, 64>::V v, int which) {
    return (Vec<float, 32>::V)(which ? _mm512_extractf32x8_ps((__m512)v, 1)
                                     : _mm512_castps512_ps256((__m512)v));
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 32>::V half<Vec<double, 64>>(Vec<double, 64>::V v, int which) {
    return (Vec<double, 32>::V)(which ? _mm512_extractf64x4_pd((__m512d)v, 1)
                                      : _mm512_castpd512_pd256((__m512d)v));
}
#endif
#if defined(__AVX__)
template <>
FS_ALWAYS_INLINE inline Vec<float, 16>::V half<Vec<float, 32>>(Vec<float, 32>::V v, int which) {
    return (Vec<float, 16>::V)(which ? _mm256_extractf128_ps((__m256)v, 1)
                                     : _mm256_castps256_ps128((__m256)v));
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 16>::V half<Vec<double, 32>>(Vec<double, 32>::V v, int which) {
    return (Vec<double, 16>::V)(which ? _mm256_extractf128_pd((__m256d)v, 1)
                                      : _mm256_castpd256_pd128((__m256d)v));
}
#endif

// Half of a vector of float as double. GCC cuts the general form into quarters.
template <class X>
FS_ALWAYS_INLINE inline typename Vec<double, sizeof(typename X::V)>::V widened(typename X::V v,
                                                                               int which) {
    return __builtin_convertvector(half<X>(v, which), typename Vec<double, sizeof(v)>::V);
}
#if defined(__AVX512F__) && defined(__AVX512DQ__)
template <>
FS_ALWAYS_INLINE inline Vec<double, 64>::V widened<Vec<float, 64>>(Vec<float, 64>::V v, int which) {
    return (Vec<double, 64>::V)_mm512_cvtps_pd((__m256)half<Vec<float, 64>>(v, which));
}
#endif
#if defined(__AVX__)
template <>
FS_ALWAYS_INLINE inline Vec<double, 32>::V widened<Vec<float, 32>>(Vec<float, 32>::V v, int which) {
    return (Vec<double, 32>::V)_mm256_cvtps_pd((__m128)half<Vec<float, 32>>(v, which));
}
#endif

// Two halves as one vector, and two vectors of double as one of the narrower (or the same) type.
template <class X>
FS_ALWAYS_INLINE inline typename X::V joined(
    typename Vec<typename X::Scalar, sizeof(typename X::V) / 2>::V lower,
    typename Vec<typename X::Scalar, sizeof(typename X::V) / 2>::V upper) {
    typename X::V v;
    std::memcpy(&v, &lower, sizeof lower);
    std::memcpy(reinterpret_cast<char *>(&v) + sizeof lower, &upper, sizeof upper);
    return v;
}
#if defined(__AVX512F__) && defined(__AVX512DQ__)
template <>
FS_ALWAYS_INLINE inline Vec<float, 64>::V joined<Vec<float, 64>>(Vec<float, 32>::V lower,
                                                                 Vec<float, 32>::V upper) {
    return (Vec<float, 64>::V)_mm512_insertf32x8(_mm512_castps256_ps512((__m256)lower),
                                                 (__m256)upper, 1);
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 64>::V joined<Vec<double, 64>>(Vec<double, 32>::V lower,
                                                                   Vec<double, 32>::V upper) {
    return (Vec<double, 64>::V)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)lower),
                                                  (__m256d)upper, 1);
}
#endif
#if defined(__AVX__)
template <>
FS_ALWAYS_INLINE inline Vec<float, 32>::V joined<Vec<float, 32>>(Vec<float, 16>::V lower,
                                                                 Vec<float, 16>::V upper) {
    return (Vec<float, 32>::V)_mm256_insertf128_ps(_mm256_castps128_ps256((__m128)lower),
                                                   (__m128)upper, 1);
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 32>::V joined<Vec<double, 32>>(Vec<double, 16>::V lower,
                                                                   Vec<double, 16>::V upper) {
    return (Vec<double, 32>::V)_mm256_insertf128_pd(_mm256_castpd128_pd256((__m128d)lower),
                                                    (__m128d)upper, 1);
}
#endif
template <class X>
FS_ALWAYS_INLINE inline
    typename X::V narrowed(typename Vec<double, sizeof(typename X::V)>::V lower,
                           typename Vec<double, sizeof(typename X::V)>::V upper) {
    using Half = typename VectorOf<float, sizeof(typename X::V) / 2>::type;
    return joined<X>(__builtin_convertvector(lower, Half), __builtin_convertvector(upper, Half));
}

// A vector as one or two of double, and back.
template <class X>
constexpr int wide_parts = sizeof(double) / sizeof(typename X::Scalar);
template <class X>
FS_ALWAYS_INLINE inline typename Vec<double, sizeof(typename X::V)>::V wide_part(typename X::V v,
                                                                                 int which) {
    if constexpr (wide_parts<X> == 1)
        return v;
    else
        return widened<X>(v, which);
}

template <class X>
FS_ALWAYS_INLINE inline typename X::V from_wide(
    const typename Vec<double, sizeof(typename X::V)>::V *parts) {
    if constexpr (wide_parts<X> == 1)
        return parts[0];
    else
        return narrowed<X>(parts[0], parts[1]);
}

// Whether a comparison holds in any lane.
template <class X>
FS_ALWAYS_INLINE inline bool any(typename X::I mask) {
    if constexpr (sizeof mask > 16) {
        using Half = Vec<typename X::Scalar, sizeof mask / 2>;
        const auto v = (typename X::V)mask;
        return any<Half>(bits<Half>(half<X>(v, 0)) | bits<Half>(half<X>(v, 1)));
    } else {
        const auto m = (Vec<double, 16>::I)mask;
        return (m[0] | m[1]) != 0;
    }
}

// The same of a comparison alone, all or no bits of each lane: by the signs.
template <class X>
FS_ALWAYS_INLINE inline bool any_lane(typename X::I mask) {
    return any<X>(mask);
}
#if defined(__AVX512DQ__)
template <>
FS_ALWAYS_INLINE inline bool any_lane<Vec<float, 64>>(Vec<float, 64>::I mask) {
    return _mm512_movepi32_mask((__m512i)mask) != 0;
}
template <>
FS_ALWAYS_INLINE inline bool any_lane<Vec<double, 64>>(Vec<double, 64>::I mask) {
    return _mm512_movepi64_mask((__m512i)mask) != 0;
}
#endif
#if defined(__AVX__)
template <>
FS_ALWAYS_INLINE inline bool any_lane<Vec<float, 32>>(Vec<float, 32>::I mask) {
    return _mm256_movemask_ps((__m256)mask) != 0;
}
template <>
FS_ALWAYS_INLINE inline bool any_lane<Vec<double, 32>>(Vec<double, 32>::I mask) {
    return _mm256_movemask_pd((__m256d)mask) != 0;
}
#endif
#if defined(__SSE2__)
template <>
FS_ALWAYS_INLINE inline bool any_lane<Vec<float, 16>>(Vec<float, 16>::I mask) {
    return _mm_movemask_ps((__m128)mask) != 0;
}
template <>
FS_ALWAYS_INLINE inline bool any_lane<Vec<double, 16>>(Vec<double, 16>::I mask) {
    return _mm_movemask_pd((__m128d)mask) != 0;
}
#endif

// Within every 16 bytes: the lower (upper) elements of a and b in turns.
template <class V>
FS_ALWAYS_INLINE inline V zip_low(V a, V b);
template <class V>
FS_ALWAYS_INLINE inline V zip_high(V a, V b);
#define FS_ZIP(T, Bytes, Native, low, high)                                                     \
    template <>                                                                                 \
    FS_ALWAYS_INLINE inline Vec<T, Bytes>::V zip_low(Vec<T, Bytes>::V a, Vec<T, Bytes>::V b) {  \
        return (Vec<T, Bytes>::V)low((Native)a, (Native)b);                                     \
    }                                                                                           \
    template <>                                                                                 \
    FS_ALWAYS_INLINE inline Vec<T, Bytes>::V zip_high(Vec<T, Bytes>::V a, Vec<T, Bytes>::V b) { \
        return (Vec<T, Bytes>::V)high((Native)a, (Native)b);                                    \
    }
#if defined(__AVX512F__)
FS_ZIP(float, 64, __m512, _mm512_unpacklo_ps, _mm512_unpackhi_ps)
FS_ZIP(double, 64, __m512d, _mm512_unpacklo_pd, _mm512_unpackhi_pd)
#elif defined(__AVX__)
FS_ZIP(float, 32, __m256, _mm256_unpacklo_ps, _mm256_unpackhi_ps)
FS_ZIP(double, 32, __m256d, _mm256_unpacklo_pd, _mm256_unpackhi_pd)
#elif defined(__SSE2__)
FS_ZIP(float, 16, __m128, _mm_unpacklo_ps, _mm_unpackhi_ps)
FS_ZIP(double, 16, __m128d, _mm_unpacklo_pd, _mm_unpackhi_pd)
#elif defined(__aarch64__)
FS_ZIP(float, 16, float32x4_t, vzip1q_f32, vzip2q_f32)
FS_ZIP(double, 16, float64x2_t, vzip1q_f64, vzip2q_f64)
#else
template <>
FS_ALWAYS_INLINE inline Vec<float, 16>::V zip_low(Vec<float, 16>::V a, Vec<float, 16>::V b) {
    return Vec<float, 16>::V{a[0], b[0], a[1], b[1]};
}
template <>
FS_ALWAYS_INLINE inline Vec<float, 16>::V zip_high(Vec<float, 16>::V a, Vec<float, 16>::V b) {
    return Vec<float, 16>::V{a[2], b[2], a[3], b[3]};
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 16>::V zip_low(Vec<double, 16>::V a, Vec<double, 16>::V b) {
    return Vec<double, 16>::V{a[0], b[0]};
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 16>::V zip_high(Vec<double, 16>::V a, Vec<double, 16>::V b) {
    return Vec<double, 16>::V{a[1], b[1]};
}
#endif
#undef FS_ZIP

template <class X, class Op>
FS_ALWAYS_INLINE inline typename X::Scalar fold(typename X::V v, Op op) {
    if constexpr (sizeof(v) > 16) {
        return fold<Vec<typename X::Scalar, sizeof(v) / 2>>(op(half<X>(v, 0), half<X>(v, 1)), op);
    } else if constexpr (X::lanes == 4) {
        return op(op(v[0], v[2]), op(v[1], v[3]));
    } else {
        return op(v[0], v[1]);
    }
}

// A mask as bits, that of the first lane lowest.
template <class X>
FS_ALWAYS_INLINE inline unsigned lane_bits(typename X::I mask) {
    unsigned bits = 0;
    for (int l = 0; l < X::lanes; ++l) bits |= (mask[l] ? 1u : 0u) << l;
    return bits;
}
#if defined(__AVX512F__)
template <>
FS_ALWAYS_INLINE inline unsigned lane_bits<Vec<float, 64>>(Vec<float, 64>::I mask) {
    return _mm512_movepi32_mask((__m512i)mask);
}
template <>
FS_ALWAYS_INLINE inline unsigned lane_bits<Vec<double, 64>>(Vec<double, 64>::I mask) {
    return _mm512_movepi64_mask((__m512i)mask);
}
#elif defined(__AVX2__)
template <>
FS_ALWAYS_INLINE inline unsigned lane_bits<Vec<float, 32>>(Vec<float, 32>::I mask) {
    return static_cast<unsigned>(_mm256_movemask_ps((__m256)mask));
}
template <>
FS_ALWAYS_INLINE inline unsigned lane_bits<Vec<double, 32>>(Vec<double, 32>::I mask) {
    return static_cast<unsigned>(_mm256_movemask_pd((__m256d)mask));
}
#elif defined(__SSE2__)
template <>
FS_ALWAYS_INLINE inline unsigned lane_bits<Vec<float, 16>>(Vec<float, 16>::I mask) {
    return static_cast<unsigned>(_mm_movemask_ps((__m128)mask));
}
template <>
FS_ALWAYS_INLINE inline unsigned lane_bits<Vec<double, 16>>(Vec<double, 16>::I mask) {
    return static_cast<unsigned>(_mm_movemask_pd((__m128d)mask));
}
#endif

// Whether there is packed().
constexpr bool packs_at_once = FS_VECTOR_BYTES > 16;

// The lanes of v that are wanted, one after another from the first on; others follow.
template <class X>
typename X::V packed(typename X::V v, typename X::I wanted);
#if defined(__AVX512F__)
template <>
FS_ALWAYS_INLINE inline Vec<float, 64>::V packed<Vec<float, 64>>(Vec<float, 64>::V v,
                                                                 Vec<float, 64>::I wanted) {
    return (Vec<float, 64>::V)_mm512_maskz_compress_ps(_mm512_movepi32_mask((__m512i)wanted),
                                                       (__m512)v);
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 64>::V packed<Vec<double, 64>>(Vec<double, 64>::V v,
                                                                   Vec<double, 64>::I wanted) {
    return (Vec<double, 64>::V)_mm512_maskz_compress_pd(_mm512_movepi64_mask((__m512i)wanted),
                                                        (__m512d)v);
}
#elif defined(__AVX2__)
// For each set of lanes, the numbers of those in it.
struct PackedLanes {
    std::uint8_t of[256][8];
    constexpr PackedLanes() : of{} {
        for (int set = 0; set < 256; ++set) {
            int count = 0;
            for (std::uint8_t lane = 0; lane < 8; ++lane)
                if (set >> lane & 1) of[set][count++] = lane;
        }
    }
};
static constexpr PackedLanes packed_lanes;
FS_ALWAYS_INLINE inline __m256 packed_in_eight(__m256 v, unsigned wanted) {
    const __m128i lanes =
        _mm_loadl_epi64(reinterpret_cast<const __m128i *>(packed_lanes.of[wanted]));
    return _mm256_permutevar8x32_ps(v, _mm256_cvtepu8_epi32(lanes));
}
template <>
FS_ALWAYS_INLINE inline Vec<float, 32>::V packed<Vec<float, 32>>(Vec<float, 32>::V v,
                                                                 Vec<float, 32>::I wanted) {
    return (Vec<float, 32>::V)packed_in_eight((__m256)v, lane_bits<Vec<float, 32>>(wanted));
}
template <>
FS_ALWAYS_INLINE inline Vec<double, 32>::V packed<Vec<double, 32>>(Vec<double, 32>::V v,
                                                                   Vec<double, 32>::I wanted) {
    // both halves of a lane are
    const auto halves = static_cast<unsigned>(_mm256_movemask_ps((__m256)wanted));
    return (Vec<double, 32>::V)packed_in_eight((__m256)v, halves);
}
#endif

}  // namespace fs
}  // namespace
