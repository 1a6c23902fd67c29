// Strided views, and the blocks through which strided, masked, negated or converted data reach the
// vector routines.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "half.h"
#include "thresholds.h"

namespace {
namespace fs {

template <class S>
FS_INLINE S *advance(S *p, isize bytes) {
    using Char = typename std::conditional<std::is_const<S>::value, const char, char>::type;
    return reinterpret_cast<S *>(reinterpret_cast<Char *>(p) + bytes);
}

// (outer, n, inner) with strides in bytes. An axis of length 1 has stride 0, so that it broadcasts.
template <class S>
struct View {
    S *data = nullptr;
    isize outer = 1, n = 1, inner = 1;
    isize outer_stride = 0, n_stride = 0, inner_stride = 0;

    View() = default;
    View(S *p, const isize *shape, const isize *strides)
        : data(p),
          outer(shape[0]),
          n(shape[1]),
          inner(shape[2]),
          outer_stride(strides[0]),
          n_stride(strides[1]),
          inner_stride(strides[2]) {
        broadcast();
    }
    // A two-dimensional view has one value per row.
    static View per_row(S *p, const isize *shape, const isize *strides) {
        View v;
        v.data = p, v.outer = shape[0], v.inner = shape[1], v.outer_stride = strides[0],
        v.inner_stride = strides[1];
        v.broadcast();
        return v;
    }
    static View one() {
        static const double value = 1;
        View v;
        v.data = &value;
        return v;
    }
    void broadcast() {
        if (outer == 1) outer_stride = 0;
        if (n == 1) n_stride = 0;
        if (inner == 1) inner_stride = 0;
    }
    isize offset(isize o, isize i) const { return o * outer_stride + i * inner_stride; }
    S *at(isize o, isize i) const { return advance(data, offset(o, i)); }
    View swapped() const {
        View v = *this;
        v.outer = inner, v.inner = outer, v.outer_stride = inner_stride,
        v.inner_stride = outer_stride;
        return v;
    }
};

using Mask = View<const std::uint8_t>;

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
    FS_INLINE operator int() const { return byte != 0; }
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
constexpr isize size_of(Number number) {
    constexpr isize sizes[] = {2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1};
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
FS_INLINE void settle_as(const char *from, Bytes bytes, char *to) {
    Bits b;
    std::memcpy(&b, from, sizeof b);
    if (bytes == Bytes::swapped) b = reversed(b);
    std::memcpy(to, &b, sizeof b);
}
FS_INLINE void settle(const char *from, Number number, Bytes bytes, char *to) {
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

// An array of any real dtype: (outer, n, inner) with strides in bytes. An axis of length 1 has
// stride 0, so that it broadcasts.
struct AnyView {
    char *data = nullptr;  // none
    Number number = Number::float64;
    Bytes bytes = Bytes::native;
    isize outer = 1, n = 1, inner = 1;
    isize outer_stride = 0, n_stride = 0, inner_stride = 0;

    AnyView() = default;
    AnyView(const void *p, Number number_, const isize *shape, const isize *strides)
        : AnyView(p, number_, shape[0], shape[1], shape[2], strides[0], strides[1], strides[2]) {}
    // A two-dimensional array with one value per row.
    static AnyView per_row(const void *p, Number number, const isize *shape, const isize *strides) {
        return AnyView(p, number, shape[0], 1, shape[1], strides[0], 0, strides[1]);
    }
    // A contiguous matrix.
    static AnyView matrix(const void *p, Number number, isize rows, isize n) {
        const isize size = size_of(number);
        return AnyView(p, number, rows, n, 1, n * size, size, 0);
    }
    AnyView swapped() const {
        AnyView v = *this;
        v.outer = inner, v.inner = outer, v.outer_stride = inner_stride,
        v.inner_stride = outer_stride;
        return v;
    }

    explicit operator bool() const { return data != nullptr; }
    isize offset(isize o, isize i) const { return o * outer_stride + i * inner_stride; }
    char *at(isize o, isize i) const { return data + offset(o, i); }
    // Whether lines are contiguous numbers of type C.
    bool contiguous(Number as) const {
        return number == as && bytes == Bytes::native && (n == 1 || n_stride == size_of(as));
    }
    template <class C>
    bool plain() const {
        return contiguous(number_of<C>);
    }

    // The number at an address, as a double or (labels) as an integer; integers that do not fit are
    // -1.
    template <class As>
    static As value(const char *p, Number number) {
        return with_type(number, [&](auto *type) {
            return static_cast<As>(*reinterpret_cast<decltype(type)>(const_cast<char *>(p)));
        });
    }
    double value(isize o, isize i) const { return value(o, 0, i); }
    double value(isize o, isize c, isize i) const {
        const char *p = at(o, i) + c * n_stride;
        if (bytes == Bytes::native) return value<double>(p, number);
        alignas(8) char settled[8];
        settle(p, number, bytes, settled);
        return value<double>(settled, number);
    }
    isize integer(isize o, isize i) const { return value<isize>(at(o, i), number); }
    isize integer(isize o, isize c, isize i) const {
        return value<isize>(at(o, i) + c * n_stride, number);
    }
    // A label that was checked to be one of `classes`, unless another thread has changed it since:
    // -1.
    isize label(isize o, isize c, isize i, isize classes) const {
        const isize y = integer(o, c, i);
        return y >= 0 && y < classes ? y : -1;
    }
    void store(isize o, isize c, isize i, double x) const {
        with_float(number, [&](auto *type) {
            using S = typename std::remove_pointer<decltype(type)>::type;
            *reinterpret_cast<S *>(at(o, i) + c * n_stride) = static_cast<S>(x);
        });
    }

  private:
    AnyView(const void *p, Number number_, isize outer_, isize n_, isize inner_, isize outer_step,
            isize n_step, isize inner_step)
        : data(static_cast<char *>(const_cast<void *>(p))),
          number(number_),
          outer(outer_),
          n(n_),
          inner(inner_),
          outer_stride(outer_ == 1 ? 0 : outer_step),
          n_stride(n_ == 1 ? 0 : n_step),
          inner_stride(inner_ == 1 ? 0 : inner_step) {}
};

// Whether every one of `count` contiguous labels is a class. (Who is wrong, and where, the caller
// finds out.)
inline bool are_classes(const void *labels, Number number, isize count, isize classes) {
    return with_type(number, [&](auto *type) {
        const auto *y = static_cast<decltype(type)>(const_cast<void *>(labels));
        bool wrong = false;
        for (isize r = 0; r < count; ++r)
            wrong |= static_cast<std::uint64_t>(y[r]) >= static_cast<std::uint64_t>(classes);
        return !wrong;
    });
}

// `count` values of a strided line as a contiguous block of compute type: the memory itself where
// it is that already, else `buffer`.
template <class C>
struct Reader {
    const char *p = nullptr;
    Number number = number_of<C>;
    Bytes bytes = Bytes::native;
    isize stride = 0;
    // false: the value does not take part, `absent` stands for it
    const std::uint8_t *mask = nullptr;
    isize mask_stride = 0;
    bool negate = false;
    C absent = -std::numeric_limits<C>::infinity();

    Reader() = default;
    Reader(const AnyView &v, isize o, isize i)
        : p(v.at(o, i)),
          number(v.number),
          bytes(v.bytes),
          stride(v.n == 1 ? size_of(v.number) : v.n_stride) {}
    // Of what may broadcast along the line.
    static Reader broadcast(const AnyView &v, isize o, isize i) {
        Reader r(v, o, i);
        r.stride = v.n_stride;
        return r;
    }

    bool direct() const {
        return number == number_of<C> && bytes == Bytes::native && stride == isize(sizeof(C)) &&
               !mask && !negate;
    }

    FS_INLINE const C *get(isize start, isize count, C *buffer) const {
        return direct() ? reinterpret_cast<const C *>(p) + start : gather(start, count, buffer);
    }

  private:
    __attribute__((noinline)) const C *gather(isize start, isize count, C *buffer) const {
        if (bytes == Bytes::native)
            convert_from(start, count, buffer);
        else
            settle_bytes(start, count, buffer);
        if (negate) {
            for (isize j = 0; j < count; ++j) buffer[j] = -buffer[j];
        }
        if (mask) {
            const std::uint8_t *present = mask + start * mask_stride;
            for (isize j = 0; j < count; ++j)
                buffer[j] = present[j * mask_stride] ? buffer[j] : absent;
        }
        return buffer;
    }
    FS_INLINE void convert_from(isize start, isize count, C *buffer) const {
        with_type(number, [&](auto *type) {
            const auto *from =
                reinterpret_cast<decltype(type)>(const_cast<char *>(p) + start * stride);
            if (stride == isize(sizeof *type)) {
                convert(from, buffer, count);
            } else {
                for (isize j = 0; j < count; ++j)
                    buffer[j] = static_cast<C>(*advance(from, j * stride));
            }
        });
    }
    // Through a few numbers at a time that are aligned and of the machine's byte order.
    __attribute__((noinline)) void settle_bytes(isize start, isize count, C *buffer) const {
        constexpr isize few = 128;
        alignas(8) char settled[few * 8];
        const isize size = size_of(number);
        Reader native;
        native.p = settled, native.number = number, native.stride = size;
        for (isize at = 0; at < count; at += few) {
            const isize end = count - at < few ? count : at + few;
            for (isize j = at; j < end; ++j)
                settle(p + (start + j) * stride, number, bytes, settled + (j - at) * size);
            native.convert_from(0, end - at, buffer + at);
        }
    }
};

// The way back: results are computed in place() and put() where they belong.
template <class C>
struct Writer {
    char *p = nullptr;
    Number number = number_of<C>;
    isize stride = 0;
    const std::uint8_t *mask = nullptr;  // false: the result is `absent`
    isize mask_stride = 0;
    C absent = 0;

    Writer() = default;
    Writer(const AnyView &v, isize o, isize i)
        : p(v.at(o, i)), number(v.number), stride(v.n == 1 ? size_of(v.number) : v.n_stride) {}

    bool direct() const { return number == number_of<C> && stride == isize(sizeof(C)) && !mask; }

    C *place(isize start, C *buffer) const {
        return direct() ? reinterpret_cast<C *>(p) + start : buffer;
    }

    FS_INLINE void put(isize start, isize count, C *buffer) const {
        if (!direct()) scatter(start, count, buffer);
    }
    // `count` values that were computed elsewhere.
    void copy(isize start, isize count, C *values) const {
        if (direct())
            std::memcpy(reinterpret_cast<C *>(p) + start, values,
                        static_cast<std::size_t>(count) * sizeof(C));
        else
            scatter(start, count, values);
    }
    void fill(isize count, C value) const {
        with_float(number, [&](auto *type) {
            using S = typename std::remove_pointer<decltype(type)>::type;
            for (isize j = 0; j < count; ++j)
                *reinterpret_cast<S *>(p + j * stride) = static_cast<S>(value);
        });
    }

  private:
    __attribute__((noinline)) void scatter(isize start, isize count, C *buffer) const {
        if (mask) {
            const std::uint8_t *present = mask + start * mask_stride;
            for (isize j = 0; j < count; ++j)
                buffer[j] = present[j * mask_stride] ? buffer[j] : absent;
        }
        with_float(number, [&](auto *type) {
            using S = typename std::remove_pointer<decltype(type)>::type;
            S *to = reinterpret_cast<S *>(p + start * stride);
            if (stride == isize(sizeof(S))) {
                convert(buffer, to, count);
            } else {
                for (isize j = 0; j < count; ++j)
                    *advance(to, j * stride) = static_cast<S>(buffer[j]);
            }
        });
    }
};

// Whether results of x are written past the caches: they fill them, and go from vectors straight to
// memory that is not being read.
template <class C>
bool streams(const AnyView &x, const AnyView &out, const Mask &where) {
    const isize bytes = out.outer * out.n * out.inner * isize(sizeof(C));
    return bytes >= stream_from && out.template plain<C>() && !where.data && out.data != x.data;
}

}  // namespace fs
}  // namespace
