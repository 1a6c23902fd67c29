// Rows in lanes that are set apart, to be done again in another way as many at a time as a vector
// has lanes.
#pragma once

#include "kernels/memory/scratch.h"
#include "kernels/memory/transpose.h"

namespace {
namespace fs {

// Few rows of a vector are wanted, and nobody can predict which: all in which one is, or one row
// after another, would take several times as long. A row is `numbers` of them: its elements, and
// what else is known of it.
template <class X>
class RowsApart {
    using C = typename X::Scalar;
    using Int = typename Format<C>::Int;
    static constexpr Index many = 5, few = 2, long_row = 512;

    Index numbers, first, pitch, size = 0;
    C *rows;     // number j of the l-th at j pitch + l
    Int *inner;  // from `first` on

  public:
    // Room for some vectors of rows, fewer of long ones.
    static Index room_for(Index numbers) { return (numbers > long_row ? few : many) * X::lanes; }
    static Index memory(Index numbers) {
        return rounded_up((numbers * Index(sizeof(C)) + Index(sizeof(Int))) * room_for(numbers));
    }
    // In memory() bytes of scratch.
    RowsApart(Index numbers_, Index first_, char *room)
        : numbers(numbers_),
          first(first_),
          pitch(room_for(numbers)),
          rows(reinterpret_cast<C *>(room)),
          inner(reinterpret_cast<Int *>(rows + numbers * pitch)) {}

    // Numbers from the j-th on of the rows of a vector that are wanted; set_apart() takes them.
    FS_ALWAYS_INLINE void put(Index j, const Columns<X> &columns, Index count,
                              typename X::I wanted) {
        C *to = rows + j * pitch + size;
        if constexpr (packs_at_once) {
            for (Index k = 0; k < count; ++k, to += pitch)
                X::store(to, packed<X>(columns[k], wanted));
        } else {
            for (unsigned left = lane_bits<X>(wanted); left; left &= left - 1, ++to) {
                const C *from = columns.x + __builtin_ctz(left);
                for (Index k = 0; k < count; ++k) to[k * pitch] = from[k * columns.step];
            }
        }
    }
    // `i` is the inner index of the first lane. True: no room for another vector of them.
    FS_ALWAYS_INLINE bool set_apart(typename X::I wanted, Index i) {
        const auto from = static_cast<Int>(i - first);
        if constexpr (packs_at_once) {
            const auto places =
                (typename X::I)packed<X>((typename X::V)(X::indices() + from), wanted);
            std::memcpy(inner + size, &places, sizeof places);
            size += __builtin_popcount(lane_bits<X>(wanted));
        } else {
            for (unsigned left = lane_bits<X>(wanted); left; left &= left - 1)
                inner[size++] = from + __builtin_ctz(left);
        }
        return size > pitch - X::lanes;
    }
    // All of them, `lanes` at a time: block by block, the last filled up with its first row.
    template <int lanes>
    Index blocks() {
        for (Index l = size; l % lanes; ++l)
            for (Index j = 0; j < numbers; ++j)
                rows[j * pitch + l] = rows[j * pitch + l / lanes * lanes];
        return (size + lanes - 1) / lanes;
    }
    static constexpr Index most_blocks(Index lanes) {
        return (many * X::lanes + lanes - 1) / lanes;
    }
    // From the l-th row on.
    Columns<X> from(Index l) const { return {rows + l, pitch}; }
    Index count() const { return size; }
    Index index(Index l) const { return first + inner[l]; }
    void clear() { size = 0; }
};

}  // namespace fs
}  // namespace
