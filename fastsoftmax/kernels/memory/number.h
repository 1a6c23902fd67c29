// The numbers that arrays hold, and how their bytes lie.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "kernels/simd/half.h"

namespace {
namespace fs {

template <class S>
FS_ALWAYS_INLINE inline S *advance(S *p, Index bytes) {
    using Char = typename std::conditional<std::is_const<S>::value, const char, char>::type;
    return reinterpret_cast<S *>(reinterpret_cast<Char *>(p) + bytes);
}

// The dtype of an array whose elements a kernel is not compiled for, but which are converted in
// blocks on their way in and out.
enum class Number {
    float16,
    bfloat16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
    boolean
};

// NumPy's bool: whatever byte is not 0 is true, since a view of other bytes makes one of any value.
struct Boolean {
    std::uint8_t byte;
    FS_ALWAYS_INLINE operator int() const { return byte != 0; }
};

template <class C>
constexpr Number number_of = sizeof(C) == 4 ? Number::float32 : Number::float64;
template <class H>
constexpr Number half_number = Number::bfloat16;
template <>
constexpr Number half_number<Float16> = Number::float16;
constexpr bool is_integer(Number n) {
    return n > Number::float64;
}

// body(a null pointer of the type of the numbers)
template <class Body>
auto with_float(Number number, Body body) {
    switch (number) {
        case Number::float16:
            return body(static_cast<Float16 *>(nullptr));
        case Number::bfloat16:
            return body(static_cast<BFloat16 *>(nullptr));
        case Number::float32:
            return body(static_cast<float *>(nullptr));
        default:
            return body(static_cast<double *>(nullptr));
    }
}

template <class Body>
auto with_type(Number number, Body body) {
    switch (number) {
        case Number::int8:
            return body(static_cast<std::int8_t *>(nullptr));
        case Number::int16:
            return body(static_cast<std::int16_t *>(nullptr));
        case Number::int32:
            return body(static_cast<std::int32_t *>(nullptr));
        case Number::int64:
            return body(static_cast<std::int64_t *>(nullptr));
        case Number::uint8:
            return body(static_cast<std::uint8_t *>(nullptr));
        case Number::uint16:
            return body(static_cast<std::uint16_t *>(nullptr));
        case Number::uint32:
            return body(static_cast<std::uint32_t *>(nullptr));
        case Number::uint64:
            return body(static_cast<std::uint64_t *>(nullptr));
        case Number::boolean:
            return body(static_cast<Boolean *>(nullptr));
        default:
            return with_float(number, body);
    }
}

constexpr Index size_of(Number number) {
    constexpr Index sizes[] = {2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1};
    return sizes[static_cast<int>(number)];
}

// body(a zero of the type in which to compute): double where any of the arrays is or holds
// integers, else float. Results of less precision are rounded once, when stored.
template <class Body>
auto with_compute(std::initializer_list<Number> numbers, Body body) {
    for (Number n : numbers) {
        if (n >= Number::float64) return body(0.0);
    }
    return body(0.0f);
}

// How the bytes of numbers stand in memory.
// others than the first are for readers and value() alone
enum class Bytes { native, misaligned, swapped };

inline std::uint16_t reversed(std::uint16_t b) {
    return __builtin_bswap16(b);
}

inline std::uint32_t reversed(std::uint32_t b) {
    return __builtin_bswap32(b);
}

inline std::uint64_t reversed(std::uint64_t b) {
    return __builtin_bswap64(b);
}

// A number, from its bytes, as the machine has it. Each size by itself: a copy of any number of
// bytes makes GCC 12 warn of those beyond the number.
template <class Bits>
FS_ALWAYS_INLINE inline void settle_as(const char *from, Bytes bytes, char *to) {
    Bits b;
    std::memcpy(&b, from, sizeof b);
    if (bytes == Bytes::swapped) b = reversed(b);
    std::memcpy(to, &b, sizeof b);
}

FS_ALWAYS_INLINE inline void settle(const char *from, Number number, Bytes bytes, char *to) {
    switch (size_of(number)) {
        case 1:
            *to = *from;
            return;
        case 2:
            return settle_as<std::uint16_t>(from, bytes, to);
        case 4:
            return settle_as<std::uint32_t>(from, bytes, to);
        default:
            return settle_as<std::uint64_t>(from, bytes, to);
    }
}

}  // namespace fs
}  // namespace
