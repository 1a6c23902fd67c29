// Arrays of one shape, of any number of axes, strides and dtypes, cut into boxes of indices.
// A long run along the last axis is a box by itself, whose numbers are used where they are if they
// are contiguous there. Shorter runs (of a cropped image) are taken together, as many as a block
// has room for: they are gathered into scratch, computed as whole vectors, and scattered.
#pragma once

#include <utility>

#include "kernels/memory/line.h"
#include "kernels/memory/scratch.h"

namespace {
namespace fs {

constexpr int most_axes = 64;  // that NumPy knows

// The indices of a block, along each axis of the arrays.
struct Box {
    int axes;
    bool whole;   // of full size, not what was left at an end
    Index count;  // of elements
    Index start[most_axes], length[most_axes];
};

// An array as it is, or none. An axis with stride 0 is broadcast. Axes of length 1 were left out,
// unless there is no other.
struct AnyArray {
    char *data = nullptr;
    Number number = Number::float64;
    Bytes bytes = Bytes::native;
    int axes = 0;
    const Index *shape = nullptr, *strides = nullptr;  // `strides` in bytes

    AnyArray() = default;
    AnyArray(const void *p, Number number_, Bytes bytes_, int axes_, const Index *shape_,
             const Index *strides_)
        : data(static_cast<char *>(const_cast<void *>(p))),
          number(number_),
          bytes(bytes_),
          axes(axes_),
          shape(shape_),
          strides(strides_) {}
    explicit operator bool() const { return data != nullptr; }

    char *at(const Box &box) const {
        char *p = data;
        for (int k = 0; k < axes; ++k) p += box.start[k] * strides[k];
        return p;
    }
    // Whether the numbers of a box are contiguous, in the order of a block, and as the machine has
    // them.
    bool is_block(const Box &box) const {
        Index step = size_of(number);
        for (int k = axes - 1; k >= 0; --k) {
            if (box.length[k] == 1) continue;
            if (strides[k] != step) return false;
            step *= box.length[k];
        }
        return bytes == Bytes::native;
    }
    // Whether runs along the last axis are contiguous numbers of type C.
    template <class C>
    bool has_plain_runs() const {
        return number == number_of<C> && bytes == Bytes::native &&
               (shape[axes - 1] == 1 || strides[axes - 1] == Index(sizeof(C)));
    }
    // The axis along which neighbours in memory lie: the last one, unless another has a shorter
    // step.
    int nearest() const {
        int nearest = axes - 1;
        for (int k = axes - 2; k >= 0; --k) {
            if (strides[k] != 0 && std::abs(strides[k]) < std::abs(strides[nearest])) nearest = k;
        }
        return nearest;
    }
};

// The shape and strides of a contiguous array.
struct Contiguous {
    const Index count, step;
    const Number number;
    Contiguous(Index n, Number number_) : count(n), step(size_of(number_)), number(number_) {}
    AnyArray array(const void *p) const {
        return AnyArray(p, number, Bytes::native, 1, &count, &step);
    }
};

// How the indices of arrays are cut into boxes. That depends on shapes and strides alone.
struct Boxes {
    int axes;
    const Index *shape;
    Index length[most_axes];     // of a whole box
    Index elements = 1;          // of a whole box
    Index total = 1, group = 1;  // boxes; those of a piece

    explicit Boxes(std::initializer_list<const AnyArray *> arrays)
        : axes((*arrays.begin())->axes), shape((*arrays.begin())->shape) {
        for (int k = 0; k < axes; ++k) length[k] = 1;
        for (const AnyArray *a : arrays) {
            if (*a && a->nearest() != axes - 1) share(a->nearest());
        }
        const Index run = shape[axes - 1];
        if (elements == 1 && (axes == 1 || run >= runs_apart)) {
            length[axes - 1] = elements = smaller_of(run, longest_run);
        } else {
            if (elements > 1) share(axes - 1);
            fill();
        }
        for (int k = 0; k < axes; ++k) total *= boxes(k);
        if (total > 1 && elements < piece_elements) group = piece_elements / elements;
    }
    Index pieces() const { return group == 1 ? total : (total + group - 1) / group; }
    void place(Index index, Box &box) const {
        box.axes = axes, box.whole = true, box.count = 1;
        for (int k = axes - 1; k >= 0; --k) {
            const Index along = boxes(k), next = along == 1 ? index : index / along;
            box.start[k] = (index - next * along) * length[k], index = next;
            box.length[k] = smaller_of(length[k], shape[k] - box.start[k]);
            box.whole &= box.length[k] == length[k];
            box.count *= box.length[k];
        }
    }

  private:
    static Index smaller_of(Index a, Index b) { return a < b ? a : b; }
    // Along an axis. Divisions take as long as a tiny call's numbers.
    Index boxes(int k) const {
        return length[k] == shape[k] ? 1 : (shape[k] + length[k] - 1) / length[k];
    }

    // Arrays disagree about the axis along which neighbours lie: boxes have some extent along each
    // such axis, so that more than one number of a line of the cache is used while it is there.
    void share(int k) {
        if (length[k] > 1) return;
        length[k] = smaller_of(smaller_of(shape[k], shared_extent), gather_block / elements);
        elements *= length[k];
    }
    // What there is still room for, from the last axis on.
    void fill() {
        for (int k = axes - 1; k >= 0; --k) {
            const Index others = elements / length[k];
            length[k] = smaller_of(shape[k], gather_block / others);
            elements = others * length[k];
        }
    }
};

constexpr int most_box_axes = 11;  // of a length above 1
static_assert(gather_block <= 1 << most_box_axes, "");

// How to step through the elements of a box in an array and in a contiguous block. Axis 0 is the
// inner loop.
struct BoxSteps {
    struct Axis {
        Index length, step, block_step;
    } axis[most_box_axes];
    int axes = 0;

    BoxSteps(const AnyArray &a, const Box &box) {
        Index block_step = size_of(a.number);
        for (int k = box.axes - 1; k >= 0; --k) {
            const Index length = box.length[k], step = a.strides[k];
            if (length == 1) continue;
            if (axes && step == axis[axes - 1].step * axis[axes - 1].length)
                axis[axes - 1].length *= length;
            else
                axis[axes++] = {length, step, block_step};
            block_step *= length;
        }
        if (!axes) axis[axes++] = {1, 0, 0};
        std::swap(axis[0], axis[inner()]);
    }

  private:
    // The one of the shortest steps in the array among those that are worth a loop, else the
    // longest.
    int inner() const {
        constexpr Index worth = 8;
        int best = 0;
        for (int k = 1; k < axes; ++k) {
            const bool nearer = std::abs(axis[k].step) < std::abs(axis[best].step);
            if (axis[best].length < worth ? axis[k].length > axis[best].length
                                          : axis[k].length >= worth && nearer)
                best = k;
        }
        return best;
    }
};

// Numbers of the size of U, whatever they are and wherever they lie.
template <class U>
FS_ALWAYS_INLINE inline void copy_run(const char *from, Index from_step, char *to, Index to_step,
                                      Index n) {
    if (from_step == Index(sizeof(U)) && to_step == Index(sizeof(U))) {
        std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(U));
        return;
    }
    for (Index j = 0; j < n; ++j) std::memcpy(to + j * to_step, from + j * from_step, sizeof(U));
}

template <class U, bool gathers>
inline void copy_box(const BoxSteps &steps, char *p, char *block) {
    const BoxSteps::Axis run = steps.axis[0];
    Index index[most_box_axes] = {};
    for (int k = 0; k < steps.axes;) {
        if (gathers)
            copy_run<U>(p, run.step, block, run.block_step, run.length);
        else
            copy_run<U>(block, run.block_step, p, run.step, run.length);
        for (k = 1; k < steps.axes; ++k) {
            const BoxSteps::Axis &axis = steps.axis[k];
            p += axis.step, block += axis.block_step;
            if (++index[k] < axis.length) break;
            p -= axis.length * axis.step, block -= axis.length * axis.block_step, index[k] = 0;
        }
    }
}

// The elements of a box of an array to a contiguous block (`gathers`), or back.
template <bool gathers>
__attribute__((noinline)) void copy_box(const AnyArray &a, const Box &box, void *block) {
    const BoxSteps steps(a, box);
    char *p = a.at(box), *b = static_cast<char *>(block);
    switch (size_of(a.number)) {
        case 1:
            return copy_box<std::uint8_t, gathers>(steps, p, b);
        case 2:
            return copy_box<std::uint16_t, gathers>(steps, p, b);
        case 4:
            return copy_box<std::uint32_t, gathers>(steps, p, b);
        default:
            return copy_box<std::uint64_t, gathers>(steps, p, b);
    }
}

inline void swap_bytes(void *block, Index count, Index size) {
    const auto swap = [&](auto *p, auto swapped) {
        for (Index j = 0; j < count; ++j) p[j] = swapped(p[j]);
    };
    if (size == 2)
        swap(static_cast<std::uint16_t *>(block),
             [](std::uint16_t u) { return __builtin_bswap16(u); });
    else if (size == 4)
        swap(static_cast<std::uint32_t *>(block),
             [](std::uint32_t u) { return __builtin_bswap32(u); });
    else if (size == 8)
        swap(static_cast<std::uint64_t *>(block),
             [](std::uint64_t u) { return __builtin_bswap64(u); });
}

// An array that is read block by block as numbers of type C, where they are if they are such a
// block, else from a copy. None: no numbers.
template <class C>
class Source {
    const AnyArray &a;
    C *const values;
    char *const raw;  // the same before they are converted
    // where what was copied last lies, which need not be done again: weights of all rows
    const char *held = nullptr;

  public:
    explicit FS_ALWAYS_INLINE Source(const AnyArray &array)
        : a(array),
          values(scratch<C>(gather_block)),
          raw(scratch<char>(gather_block * Index(sizeof(double)))) {}
    FS_ALWAYS_INLINE bool is_direct(const Box &box) const {
        return !a || (a.number == number_of<C> && a.is_block(box));
    }
    FS_ALWAYS_INLINE const C *load_block(const Box &block) {
        if (!a) return nullptr;
        return is_direct(block) ? reinterpret_cast<const C *>(a.at(block)) : copied(block);
    }

  private:
    __attribute__((noinline)) const C *copied(const Box &block) {
        char *p = a.at(block);
        if (block.whole && p == held) return values;
        held = block.whole ? p : nullptr;
        const bool converts = a.number != number_of<C>;
        if (!a.is_block(block)) {
            p = converts ? raw : reinterpret_cast<char *>(values);
            copy_box<true>(a, block, p);
            if (a.bytes == Bytes::swapped) swap_bytes(p, block.count, size_of(a.number));
        }
        if (converts)
            with_type(a.number, [&](auto *type) {
                convert(reinterpret_cast<decltype(type)>(p), values, block.count);
            });
        return values;
    }
};

// An array that is written likewise: results are computed in place() and put() where they belong.
// None: they are computed all the same.
template <class C>
class Sink {
    const AnyArray &a;
    C *const values;
    char *const raw;

  public:
    explicit FS_ALWAYS_INLINE Sink(const AnyArray &array)
        : a(array),
          values(scratch<C>(gather_block)),
          raw(scratch<char>(gather_block * Index(sizeof(double)))) {}
    FS_ALWAYS_INLINE bool is_direct(const Box &box) const {
        return a && a.number == number_of<C> && a.is_block(box);
    }
    FS_ALWAYS_INLINE C *block_for(const Box &block) const {
        return is_direct(block) ? reinterpret_cast<C *>(a.at(block)) : values;
    }
    FS_ALWAYS_INLINE void store_block(const Box &block, const C *results) const {
        if (a && results == values) copy(block);
    }

  private:
    __attribute__((noinline)) void copy(const Box &block) const {
        const bool converts = a.number != number_of<C>, scatters = !a.is_block(block);
        char *p = !converts ? reinterpret_cast<char *>(values) : scatters ? raw : a.at(block);
        if (converts)
            with_float(a.number, [&](auto *type) {
                convert(values, reinterpret_cast<decltype(type)>(p), block.count);
            });
        if (scatters) copy_box<false>(a, block, p);
    }
};

}  // namespace fs
}  // namespace
