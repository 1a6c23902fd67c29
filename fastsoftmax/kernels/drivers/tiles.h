// Tiles of columns: where they are gathered, and which rows run across lanes.
#pragma once

#include "kernels/drivers/row_tasks.h"
#include "kernels/memory/transpose.h"

namespace {
namespace fs {

// A tile of columns (first .. first + count) of one outer index as rows of `width`; the memory
// itself where it is not staged.
template <class C>
const C *gather_columns(const AnyView &v, bool staged, Index outer, Index first, Index count,
                        Index width, C *tile, const Mask &where = Mask(), bool negate = false,
                        C absent = -std::numeric_limits<C>::infinity()) {
    if (!staged) return reinterpret_cast<const C *>(v.at(outer, first));
    InputLine<C> line(v, outer, first);
    line.stride = v.inner_stride, line.negate = negate, line.absent = absent;
    if (where.data) line.mask = where.at(outer, first), line.mask_stride = where.inner_stride;
    for (Index i = 0; i < v.n; ++i) {
        C *row = tile + i * width;
        const C *got = line.load_block(0, count, row);
        if (got != row) std::memcpy(row, got, static_cast<std::size_t>(count) * sizeof(C));
        line.p += v.n_stride;
        if (line.mask) line.mask += where.n_stride;
    }
    return tile;
}

template <class C>
void scatter_columns(const AnyView &v, Index outer, Index first, Index count, Index width, C *tile,
                     const Mask &where, C absent) {
    OutputLine<C> line(v, outer, first);
    line.stride = v.inner_stride, line.absent = absent;
    if (where.data) line.mask = where.at(outer, first), line.mask_stride = where.inner_stride;
    for (Index i = 0; i < v.n; ++i) {
        line.copy(0, count, tile + i * width);
        line.p += v.n_stride;
        if (line.mask) line.mask += where.n_stride;
    }
}

// The columns of an (outer, n, inner) array are lanes of vectors, directly in memory ...
template <class C>
bool columns_direct(const AnyView &v) {
    return v.number == number_of<C> && v.bytes == Bytes::native &&
           v.inner_stride == Index(sizeof(C)) && v.n_stride % Index(sizeof(C)) == 0 &&
           v.inner * Index(sizeof(C)) >= FS_VECTOR_BYTES;
}

// ... or after a tile of them was gathered, which pays where neighbouring columns share cache
// lines.
inline bool columns_staged(const AnyView &v) {
    const Index size = size_of(v.number);
    return v.inner >= FS_VECTOR_BYTES / 4 && v.n <= tile_elements / 64 && v.inner_stride == size &&
           v.n_stride != size;
}

// The columns of a tile, vector by vector: in memory where they are whole vectors there
// (columns_direct, and nothing is masked); else gathered, all of them at once where lines of the
// inner axis are contiguous and not too many, or by the vector; once for all where they are the
// same.
template <class X>
struct TileColumns {
    using C = typename X::Scalar;
    static constexpr Index width = tile_vectors * X::lanes;

    AnyView v;
    Mask where;
    Index outer, first, count;
    C absent;
    bool direct, same, together, apart;
    Scratch<C> room;

    // `all`: all vectors are wanted at once; else those before from() the last are lost.
    TileColumns(const AnyView &view, Index outer_, Index first_, Index count_,
                const Mask &where_ = Mask(), C absent_ = -std::numeric_limits<C>::infinity(),
                bool all = false)
        : v(view),
          where(where_),
          outer(outer_),
          first(first_),
          count(count_),
          absent(absent_),
          direct(view.data && columns_direct<C>(view) && !where_.data),
          same(view.inner_stride == 0 && !where_.data),
          together(!direct && !same && view.inner_stride == size_of(view.number) &&
                   view.n * width <= tile_elements),
          apart(all && !direct && !same && !together),
          room(!view.data || (direct && count % X::lanes == 0)
                   ? 0
                   : view.n * (together || apart ? width : X::lanes)) {}

    void gather() {
        for (Index j = 0; same && j < v.n; ++j)
            X::store(room + j * X::lanes, X::set(static_cast<C>(v.value(outer, j, first))));
        if (!together) return;
        gather_columns<C>(v, true, outer, first, count, width, room, where, false, absent);
        for (Index j = 0, end = (count + X::lanes - 1) / X::lanes * X::lanes; j < v.n; ++j)
            std::fill(room + j * width + count, room + j * width + end, C(0));
    }
    // Those from the `at`-th of the tile on.
    Columns<X> from(Index at) const {
        if (direct && at + X::lanes <= count)
            return {reinterpret_cast<const C *>(v.at(outer, first + at)),
                    v.n_stride / Index(sizeof(C))};
        if (together) return {room + at, width};
        if (same) return {room, X::lanes};
        C *to = room + (apart ? at * v.n : 0);
        gather_rows<X, C>(v, outer, first + at, at + X::lanes <= count ? X::lanes : count - at, to,
                          where, false, absent);
        return {to, X::lanes};
    }
};

// The same for results: they are written to place(), and put() where they belong, those of a vector
// and in the end those of the tile.
template <class X>
struct TileResults : TileColumns<X> {
    using Base = TileColumns<X>;
    using C = typename X::Scalar;
    using Base::Base, Base::v, Base::where, Base::outer, Base::first, Base::count, Base::direct,
        Base::together, Base::room;
    struct Place {
        C *p;
        Index step;
        FS_ALWAYS_INLINE void store(Index j, typename X::V value) const {
            X::store(p + j * step, value);
        }
    };

    Place place(Index at) const {
        if (direct && at + X::lanes <= count)
            return {reinterpret_cast<C *>(v.at(outer, first + at)), v.n_stride / Index(sizeof(C))};
        return together ? Place{room + at, Base::width} : Place{room, X::lanes};
    }
    void put(Index at) const {
        if (together || (direct && at + X::lanes <= count)) return;
        scatter_rows<X, C>(v, outer, first + at, at + X::lanes <= count ? X::lanes : count - at,
                           room, where);
    }
    void put() const {
        if (together) scatter_columns<C>(v, outer, first, count, Base::width, room, where, 0);
    }
};

// Bytes that `arrays` of them want, and `vectors` for each class beside.
inline Index tile_memory(Index n, Index arrays, Index vectors) {
    const Index tile = n * tile_vectors * FS_VECTOR_BYTES,
                most = tile_elements * Index(sizeof(double));
    return arrays * (tile < most ? tile : most) + (arrays + vectors + 1) * n * FS_VECTOR_BYTES;
}

// Short rows run across lanes: those of the inner axis if it fills a vector, else of the longer
// one, if there are a few. That depends on shapes alone, and so do results.
enum { along_inner = 1, along_outer = 2 };
inline int short_rows_run(const AnyView &v, Index limit) {
    return v.n > limit || v.outer * v.inner < enough_rows         ? 0
           : v.inner >= FS_VECTOR_BYTES / 4 || v.inner >= v.outer ? along_inner
                                                                  : along_outer;
}

// Whether columns fill vectors, and are next to each other in memory.
inline bool columns_near(const AnyView &v) {
    return v.inner >= FS_VECTOR_BYTES / 4 && v.inner_stride == size_of(v.number) &&
           v.n_stride != v.inner_stride;
}

}  // namespace fs
}  // namespace
