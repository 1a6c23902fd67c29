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
struct InputLine {
    const char *p = nullptr;
    Number number = number_of<C>;
    Bytes bytes = Bytes::native;
    Index stride = 0;
    // false: the value does not take part, `absent` stands for it
    const std::uint8_t *mask = nullptr;
    Index mask_stride = 0;
    bool negate = false;
    C absent = -std::numeric_limits<C>::infinity();

    InputLine() = default;
    InputLine(const AnyView &v, Index o, Index i)
        : p(v.at(o, i)),
          number(v.number),
          bytes(v.bytes),
          stride(v.n == 1 ? size_of(v.number) : v.n_stride) {}
    // Of what may broadcast along the line.
    static InputLine broadcast(const AnyView &v, Index o, Index i) {
        InputLine r(v, o, i);
        r.stride = v.n_stride;
        return r;
    }

    bool direct() const {
        return number == number_of<C> && bytes == Bytes::native && stride == Index(sizeof(C)) &&
               !mask && !negate;
    }

    FS_ALWAYS_INLINE const C *load_block(Index start, Index count, C *buffer) const {
        return direct() ? reinterpret_cast<const C *>(p) + start : gather(start, count, buffer);
    }

  private:
    __attribute__((noinline)) const C *gather(Index start, Index count, C *buffer) const {
        if (bytes == Bytes::native)
            convert_from(start, count, buffer);
        else
            settle_bytes(start, count, buffer);
        if (negate) {
            for (Index j = 0; j < count; ++j) buffer[j] = -buffer[j];
        }
        if (mask) {
            const std::uint8_t *present = mask + start * mask_stride;
            for (Index j = 0; j < count; ++j)
                buffer[j] = present[j * mask_stride] ? buffer[j] : absent;
        }
        return buffer;
    }
    FS_ALWAYS_INLINE void convert_from(Index start, Index count, C *buffer) const {
        with_type(number, [&](auto *type) {
            const auto *from =
                reinterpret_cast<decltype(type)>(const_cast<char *>(p) + start * stride);
            if (stride == Index(sizeof *type)) {
                convert(from, buffer, count);
            } else {
                for (Index j = 0; j < count; ++j)
                    buffer[j] = static_cast<C>(*advance(from, j * stride));
            }
        });
    }
    // Through a few numbers at a time that are aligned and of the machine's byte order.
    __attribute__((noinline)) void settle_bytes(Index start, Index count, C *buffer) const {
        constexpr Index few = 128;
        alignas(8) char settled[few * 8];
        const Index size = size_of(number);
        InputLine native;
        native.p = settled, native.number = number, native.stride = size;
        for (Index at = 0; at < count; at += few) {
            const Index end = count - at < few ? count : at + few;
            for (Index j = at; j < end; ++j)
                settle(p + (start + j) * stride, number, bytes, settled + (j - at) * size);
            native.convert_from(0, end - at, buffer + at);
        }
    }
};

// The way back: results are computed in block_for(), and store_block() puts them where they belong.
template <class C>
struct OutputLine {
    char *p = nullptr;
    Number number = number_of<C>;
    Index stride = 0;
    const std::uint8_t *mask = nullptr;  // false: the result is `absent`
    Index mask_stride = 0;
    C absent = 0;

    OutputLine() = default;
    OutputLine(const AnyView &v, Index o, Index i)
        : p(v.at(o, i)), number(v.number), stride(v.n == 1 ? size_of(v.number) : v.n_stride) {}

    bool direct() const { return number == number_of<C> && stride == Index(sizeof(C)) && !mask; }

    C *block_for(Index start, C *buffer) const {
        return direct() ? reinterpret_cast<C *>(p) + start : buffer;
    }

    FS_ALWAYS_INLINE void store_block(Index start, Index count, C *buffer) const {
        if (!direct()) scatter(start, count, buffer);
    }
    // `count` values that were computed elsewhere.
    void copy(Index start, Index count, C *values) const {
        if (direct())
            std::memcpy(reinterpret_cast<C *>(p) + start, values,
                        static_cast<std::size_t>(count) * sizeof(C));
        else
            scatter(start, count, values);
    }
    void fill(Index count, C value) const {
        with_float(number, [&](auto *type) {
            using S = typename std::remove_pointer<decltype(type)>::type;
            for (Index j = 0; j < count; ++j)
                *reinterpret_cast<S *>(p + j * stride) = static_cast<S>(value);
        });
    }

  private:
    __attribute__((noinline)) void scatter(Index start, Index count, C *buffer) const {
        if (mask) {
            const std::uint8_t *present = mask + start * mask_stride;
            for (Index j = 0; j < count; ++j)
                buffer[j] = present[j * mask_stride] ? buffer[j] : absent;
        }
        with_float(number, [&](auto *type) {
            using S = typename std::remove_pointer<decltype(type)>::type;
            S *to = reinterpret_cast<S *>(p + start * stride);
            if (stride == Index(sizeof(S))) {
                convert(buffer, to, count);
            } else {
                for (Index j = 0; j < count; ++j)
                    *advance(to, j * stride) = static_cast<S>(buffer[j]);
            }
        });
    }
};

// Whether results of x are written past the caches: they fill them, and go from vectors straight to
// memory that is not being read.
template <class C>
bool streams(const AnyView &x, const AnyView &out, const Mask &where) {
    const Index bytes = out.outer * out.n * out.inner * Index(sizeof(C));
    return bytes >= stream_from && out.template plain<C>() && !where.data && out.data != x.data;
}

}  // namespace fs
}  // namespace
