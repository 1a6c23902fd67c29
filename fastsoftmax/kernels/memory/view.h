// Strided views of arrays: (outer, n, inner), or a value for each row.
#pragma once

#include "kernels/memory/number.h"

namespace {
namespace fs {

// (outer, n, inner) with strides in bytes. An axis of length 1 has stride 0, so that it broadcasts.
template <class S>
struct View {
    S *data = nullptr;
    Index outer = 1, n = 1, inner = 1;
    Index outer_stride = 0, n_stride = 0, inner_stride = 0;

    View() = default;
    View(S *p, const Index *shape, const Index *strides)
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
    static View per_row(S *p, const Index *shape, const Index *strides) {
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
    Index offset(Index o, Index i) const { return o * outer_stride + i * inner_stride; }
    S *at(Index o, Index i) const { return advance(data, offset(o, i)); }
    View swapped() const {
        View v = *this;
        v.outer = inner, v.inner = outer, v.outer_stride = inner_stride,
        v.inner_stride = outer_stride;
        return v;
    }
};

using Mask = View<const std::uint8_t>;

// An array of any real dtype: (outer, n, inner) with strides in bytes. An axis of length 1 has
// stride 0, so that it broadcasts.
struct AnyView {
    char *data = nullptr;  // none
    Number number = Number::float64;
    Bytes bytes = Bytes::native;
    Index outer = 1, n = 1, inner = 1;
    Index outer_stride = 0, n_stride = 0, inner_stride = 0;

    AnyView() = default;
    AnyView(const void *p, Number number_, const Index *shape, const Index *strides)
        : AnyView(p, number_, shape[0], shape[1], shape[2], strides[0], strides[1], strides[2]) {}
    // A two-dimensional array with one value per row.
    static AnyView per_row(const void *p, Number number, const Index *shape, const Index *strides) {
        return AnyView(p, number, shape[0], 1, shape[1], strides[0], 0, strides[1]);
    }
    // A contiguous matrix.
    static AnyView matrix(const void *p, Number number, Index rows, Index n) {
        const Index size = size_of(number);
        return AnyView(p, number, rows, n, 1, n * size, size, 0);
    }
    AnyView swapped() const {
        AnyView v = *this;
        v.outer = inner, v.inner = outer, v.outer_stride = inner_stride,
        v.inner_stride = outer_stride;
        return v;
    }

    explicit operator bool() const { return data != nullptr; }
    Index offset(Index o, Index i) const { return o * outer_stride + i * inner_stride; }
    char *at(Index o, Index i) const { return data + offset(o, i); }
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
    double value(Index o, Index i) const { return value(o, 0, i); }
    double value(Index o, Index c, Index i) const {
        const char *p = at(o, i) + c * n_stride;
        if (bytes == Bytes::native) return value<double>(p, number);
        alignas(8) char settled[8];
        settle(p, number, bytes, settled);
        return value<double>(settled, number);
    }
    Index integer(Index o, Index i) const { return value<Index>(at(o, i), number); }
    Index integer(Index o, Index c, Index i) const {
        return value<Index>(at(o, i) + c * n_stride, number);
    }
    // A label that was checked to be one of `classes`, unless another thread has changed it since:
    // -1.
    Index label(Index o, Index c, Index i, Index classes) const {
        const Index y = integer(o, c, i);
        return y >= 0 && y < classes ? y : -1;
    }
    void store(Index o, Index c, Index i, double x) const {
        with_float(number, [&](auto *type) {
            using S = typename std::remove_pointer<decltype(type)>::type;
            *reinterpret_cast<S *>(at(o, i) + c * n_stride) = static_cast<S>(x);
        });
    }

  private:
    AnyView(const void *p, Number number_, Index outer_, Index n_, Index inner_, Index outer_step,
            Index n_step, Index inner_step)
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
inline bool are_classes(const void *labels, Number number, Index count, Index classes) {
    return with_type(number, [&](auto *type) {
        const auto *y = static_cast<decltype(type)>(const_cast<void *>(labels));
        bool wrong = false;
        for (Index r = 0; r < count; ++r)
            wrong |= static_cast<std::uint64_t>(y[r]) >= static_cast<std::uint64_t>(classes);
        return !wrong;
    });
}

}  // namespace fs
}  // namespace
