// Strided views, and the blocks through which strided, masked, negated or converted data reach the vector routines.
#pragma once

#include <type_traits>

#include "simd.h"

namespace {
namespace fs {

// The type in which an operation on In that returns Out computes: the wider one, rounded once at the store.
template <class In, class Out>
using Compute = typename std::conditional<sizeof(In) == 8 || sizeof(Out) == 8, double, float>::type;

template <class S> FS_INLINE S *advance(S *p, isize bytes) {
    using Char = typename std::conditional<std::is_const<S>::value, const char, char>::type;
    return reinterpret_cast<S *>(reinterpret_cast<Char *>(p) + bytes);
}

// (outer, n, inner) with strides in bytes. An axis of length 1 has stride 0, so that it broadcasts.
template <class S> struct View {
    S *data = nullptr;
    isize outer = 1, n = 1, inner = 1;
    isize outer_stride = 0, n_stride = 0, inner_stride = 0;

    View() = default;
    View(S *p, const isize *shape, const isize *strides)
        : data(p), outer(shape[0]), n(shape[1]), inner(shape[2]), outer_stride(strides[0]), n_stride(strides[1]),
          inner_stride(strides[2]) {
        broadcast();
    }
    // A two-dimensional view has one value per row.
    static View per_row(S *p, const isize *shape, const isize *strides) {
        View v;
        v.data = p, v.outer = shape[0], v.inner = shape[1], v.outer_stride = strides[0], v.inner_stride = strides[1];
        v.broadcast();
        return v;
    }
    // (rows, n): a line a row.
    static View lines(S *p, const isize *shape, const isize *strides) {
        View v;
        v.data = p, v.outer = shape[0], v.n = shape[1], v.outer_stride = strides[0], v.n_stride = strides[1];
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
        v.outer = inner, v.inner = outer, v.outer_stride = inner_stride, v.inner_stride = outer_stride;
        return v;
    }
};

using Mask = View<const std::uint8_t>;

// `count` values of a strided line as a contiguous block of compute type: the memory itself where it is that already, else `buffer`.
template <class S, class C> struct Reader {
    const S *p;
    isize stride;
    const std::uint8_t *mask = nullptr;  // false: the value does not take part, `absent` stands for it
    isize mask_stride = 0;
    bool negate = false;
    C absent = -std::numeric_limits<C>::infinity();

    bool direct() const { return std::is_same<S, C>::value && stride == isize(sizeof(S)) && !mask && !negate; }

    FS_INLINE const C *get(isize start, isize count, C *buffer) const {
        return direct() ? reinterpret_cast<const C *>(p) + start : gather(start, count, buffer);
    }

  private:
    __attribute__((noinline)) const C *gather(isize start, isize count, C *buffer) const {
        const S *from = advance(p, start * stride);
        if (stride == isize(sizeof(S))) {
            for (isize j = 0; j < count; ++j) buffer[j] = static_cast<C>(from[j]);
        } else {
            for (isize j = 0; j < count; ++j) buffer[j] = static_cast<C>(*advance(from, j * stride));
        }
        if (negate) {
            for (isize j = 0; j < count; ++j) buffer[j] = -buffer[j];
        }
        if (mask) {
            const std::uint8_t *present = mask + start * mask_stride;
            for (isize j = 0; j < count; ++j) buffer[j] = present[j * mask_stride] ? buffer[j] : absent;
        }
        return buffer;
    }
};

// Numbers of any real dtype: what accompanies the main array (labels, targets, weights), whose dtype a kernel is not compiled for. Each line is
// converted in blocks.
enum class Number { float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64 };

constexpr bool is_integer(Number n) { return n != Number::float32 && n != Number::float64; }

struct AnyView {
    const char *data = nullptr;  // none
    Number number = Number::float64;
    isize outer_stride = 0, n_stride = 0, inner_stride = 0;

    AnyView() = default;
    // (outer, n, inner), or (outer, inner), with strides in bytes. An axis of length 1 broadcasts.
    AnyView(const void *p, Number number_, isize axes, const isize *shape, const isize *strides)
        : data(static_cast<const char *>(p)), number(number_) {
        outer_stride = shape[0] == 1 ? 0 : strides[0];
        if (axes == 3) n_stride = shape[1] == 1 ? 0 : strides[1];
        inner_stride = shape[axes - 1] == 1 ? 0 : strides[axes - 1];
    }
    explicit operator bool() const { return data != nullptr; }
    const char *at(isize o, isize i) const { return data + o * outer_stride + i * inner_stride; }

    // body(a null pointer of the type of the numbers)
    template <class Body> static auto with_type(Number number, Body body) {
        switch (number) {
        case Number::float32: return body(static_cast<const float *>(nullptr));
        case Number::float64: return body(static_cast<const double *>(nullptr));
        case Number::int8: return body(static_cast<const std::int8_t *>(nullptr));
        case Number::int16: return body(static_cast<const std::int16_t *>(nullptr));
        case Number::int32: return body(static_cast<const std::int32_t *>(nullptr));
        case Number::int64: return body(static_cast<const std::int64_t *>(nullptr));
        case Number::uint8: return body(static_cast<const std::uint8_t *>(nullptr));
        case Number::uint16: return body(static_cast<const std::uint16_t *>(nullptr));
        case Number::uint32: return body(static_cast<const std::uint32_t *>(nullptr));
        default: return body(static_cast<const std::uint64_t *>(nullptr));
        }
    }
    // The number at an address, as a double or (labels) as an integer; integers that do not fit are -1.
    template <class As> static As value(const char *p, Number number) {
        return with_type(number, [&](auto *type) { return static_cast<As>(*reinterpret_cast<decltype(type)>(p)); });
    }
    // A contiguous matrix.
    static AnyView rows(const void *p, Number number, isize rows, isize n) {
        const isize size = with_type(number, [](auto *type) { return isize(sizeof *type); });
        const isize shape[3] = {rows, n, 1}, strides[3] = {n * size, size, size};
        return AnyView(p, number, 3, shape, strides);
    }
    double value(isize o, isize i) const { return value<double>(at(o, i), number); }
    isize integer(isize o, isize i) const { return value<isize>(at(o, i), number); }
};

// Whether every one of `count` contiguous labels is a class. (Who is wrong, and where, the caller finds out.)
inline bool are_classes(const void *labels, Number number, isize count, isize classes) {
    return AnyView::with_type(number, [&](auto *type) {
        const auto *y = static_cast<decltype(type)>(labels);
        bool wrong = false;
        for (isize r = 0; r < count; ++r) wrong |= static_cast<std::uint64_t>(y[r]) >= static_cast<std::uint64_t>(classes);
        return !wrong;
    });
}

// `count` values of a line of an AnyView as a contiguous block of compute type, as a Reader gives them.
template <class C> struct AnyReader {
    const char *p = nullptr;
    Number number = Number::float64;
    isize stride = 0;

    AnyReader() = default;
    AnyReader(const AnyView &v, isize o, isize i) : p(v.at(o, i)), number(v.number), stride(v.n_stride) {}

    bool direct() const {
        return stride == isize(sizeof(C)) && number == (sizeof(C) == 4 ? Number::float32 : Number::float64);
    }
    FS_INLINE const C *get(isize start, isize count, C *buffer) const {
        return direct() ? reinterpret_cast<const C *>(p) + start : gather(start, count, buffer);
    }

  private:
    __attribute__((noinline)) const C *gather(isize start, isize count, C *buffer) const {
        AnyView::with_type(number, [&](auto *type) {
            const auto *from = reinterpret_cast<decltype(type)>(p + start * stride);
            if (stride == isize(sizeof *type)) {
                for (isize j = 0; j < count; ++j) buffer[j] = static_cast<C>(from[j]);
            } else {
                for (isize j = 0; j < count; ++j) buffer[j] = static_cast<C>(*advance(from, j * stride));
            }
        });
        return buffer;
    }
};

// The way back: results are computed in place() and put() where they belong.
template <class O, class C> struct Writer {
    O *p;
    isize stride;
    const std::uint8_t *mask = nullptr;  // false: the result is `absent`
    isize mask_stride = 0;
    C absent = 0;

    bool direct() const { return std::is_same<O, C>::value && stride == isize(sizeof(O)) && !mask; }

    C *place(isize start, C *buffer) const { return direct() ? reinterpret_cast<C *>(p) + start : buffer; }

    FS_INLINE void put(isize start, isize count, C *buffer) const {
        if (!direct()) scatter(start, count, buffer);
    }

  private:
    __attribute__((noinline)) void scatter(isize start, isize count, C *buffer) const {
        if (mask) {
            const std::uint8_t *present = mask + start * mask_stride;
            for (isize j = 0; j < count; ++j) buffer[j] = present[j * mask_stride] ? buffer[j] : absent;
        }
        O *to = advance(p, start * stride);
        if (stride == isize(sizeof(O))) {
            for (isize j = 0; j < count; ++j) to[j] = static_cast<O>(buffer[j]);
        } else {
            for (isize j = 0; j < count; ++j) *advance(to, j * stride) = static_cast<O>(buffer[j]);
        }
    }
};

}  // namespace fs
}  // namespace
