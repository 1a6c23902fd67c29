// Lines of arrays as blocks of numbers: strided, masked, negated or converted data on their way to
// the vector routines, and back.
#pragma once

#include "kernels/memory/view.h"
#include "kernels/tuning.h"

namespace {
namespace fs {

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
