// Short rows as columns: as many rows as a vector has lanes become vectors of one class each, and
// back.
#pragma once

#include "kernels/memory/line.h"
#include "kernels/memory/scratch.h"
#include "kernels/simd/loops.h"

namespace {
namespace fs {

// Rows are read and written in pieces of 16 bytes (4 float, 2 double). A vector takes pieces of
// rows `size` apart, so that transposing within every 16 bytes puts the rows in order: for 16 lanes
// of float that is 16 loads and 8 shuffles for 64 elements. (Measured, AVX-512, softmax of 4096 x
// 10 float: 1.41 ns per element with one load for each element, 0.37 with pieces.)
template <class X>
struct Pieces {
    using C = typename X::Scalar;
    using V = typename X::V;
    static constexpr Index size = 16 / sizeof(C), count = sizeof(V) / 16;

    // `step` is from piece to piece.
    static FS_ALWAYS_INLINE V load(const C *p, Index step) {
        if constexpr (sizeof(V) == 16) {
            return X::load(p);
        } else {
            using Half = Pieces<Vec<C, sizeof(V) / 2>>;
            return joined<X>(Half::load(p, step), Half::load(p + count / 2 * step, step));
        }
    }
    // In the order of rows.
    static FS_ALWAYS_INLINE void store(C *p, Index step, V v) {
        if constexpr (sizeof(V) == 16) {
            X::store(p, v);
        } else {
            using Half = Pieces<Vec<C, sizeof(V) / 2>>;
            Half::store(p, step, half<X>(v, 0));
            Half::store(p + count / 2 * step, step, half<X>(v, 1));
        }
    }
    // Its own inverse.
    static FS_ALWAYS_INLINE void transpose(V *v) {
        if constexpr (size == 2) {
            const V low = zip_low(v[0], v[1]);
            v[1] = zip_high(v[0], v[1]), v[0] = low;
        } else {
            using W = typename Vec<double, sizeof(V)>::V;
            const W a = (W)zip_low(v[0], v[1]), b = (W)zip_high(v[0], v[1]),
                    c = (W)zip_low(v[2], v[3]), d = (W)zip_high(v[2], v[3]);
            v[0] = (V)zip_low(a, c), v[1] = (V)zip_high(a, c), v[2] = (V)zip_low(b, d),
            v[3] = (V)zip_high(b, d);
        }
    }
};

// body(the first column of a piece) for a row of n, at least a piece: the last piece overlaps the
// one before.
template <class X, class Body>
FS_ALWAYS_INLINE inline void each_piece(Index n, Body body) {
    constexpr Index size = Pieces<X>::size;
    Index c = 0;
    for (; c + size <= n; c += size) body(c);
    if (c < n) body(n - size);
}

// Rows of two float: a piece holds two of them.
template <class X, class C>
FS_ALWAYS_INLINE inline void pairs_to_columns(const C *rows, C *columns) {
    using P = Pieces<X>;
    const auto a = P::load(rows, 2 * P::size), b = P::load(rows + P::size, 2 * P::size);
    const auto even = zip_low(a, b), odd = zip_high(a, b);
    X::store(columns, zip_low(even, odd));
    X::store(columns + X::lanes, zip_high(even, odd));
}

template <class X, class C>
FS_ALWAYS_INLINE inline void columns_to_pairs(const C *columns, C *rows) {
    using P = Pieces<X>;
    const auto a = X::load(columns), b = X::load(columns + X::lanes);
    P::store(rows, 2 * P::size, zip_low(a, b));
    P::store(rows + P::size, 2 * P::size, zip_high(a, b));
}

// A vector of rows of n elements, `step` apart, as n vectors.
template <class X, class C>
FS_ALWAYS_INLINE inline void rows_to_columns(const C *rows, Index step, Index n, C *columns) {
    using P = Pieces<X>;
    if (n < P::size) {
        if (n == 2 && step == 2) return pairs_to_columns<X>(rows, columns);
        for (Index c = 0; c < n; ++c) {
            for (Index l = 0; l < X::lanes; ++l) columns[c * X::lanes + l] = rows[l * step + c];
        }
        return;
    }
    const C *row[P::size];
    for (Index k = 0; k < P::size; ++k) row[k] = rows + k * step;
    each_piece<X>(n, [&](Index at) FS_ALWAYS_INLINE {
        typename X::V v[P::size];
#pragma GCC unroll 4
        for (Index k = 0; k < P::size; ++k) v[k] = P::load(row[k] + at, P::size * step);
        P::transpose(v);
#pragma GCC unroll 4
        for (Index k = 0; k < P::size; ++k) X::store(columns + (at + k) * X::lanes, v[k]);
    });
}

template <class X, class C>
FS_ALWAYS_INLINE inline void columns_to_rows(const C *columns, Index n, C *rows, Index step) {
    using P = Pieces<X>;
    if (n < P::size) {
        if (n == 2 && step == 2) return columns_to_pairs<X>(columns, rows);
        for (Index c = 0; c < n; ++c) {
            for (Index l = 0; l < X::lanes; ++l) rows[l * step + c] = columns[c * X::lanes + l];
        }
        return;
    }
    C *row[P::size];
    for (Index k = 0; k < P::size; ++k) row[k] = rows + k * step;
    each_piece<X>(n, [&](Index at) FS_ALWAYS_INLINE {
        typename X::V v[P::size];
#pragma GCC unroll 4
        for (Index k = 0; k < P::size; ++k) v[k] = X::load(columns + (at + k) * X::lanes);
        P::transpose(v);
#pragma GCC unroll 4
        for (Index k = 0; k < P::size; ++k) P::store(row[k] + at, P::size * step, v[k]);
    });
}

template <class C>
void copy_row(const InputLine<C> &from, Index count, C *to) {
    const C *got = from.load_block(0, count, to);
    if (got != to) std::memcpy(to, got, static_cast<std::size_t>(count) * sizeof(C));
}

// What has one value for each row: those of `count` rows from an inner index on.
inline void read_rows(const AnyView &v, Index outer, Index first, Index count, double *values) {
    InputLine<double> from(v, outer, first);
    from.stride = v.inner_stride;
    copy_row(from, count, values);
}

inline void write_rows(const AnyView &v, Index outer, Index first, Index count, double *values) {
    OutputLine<double> to(v, outer, first);
    to.stride = v.inner_stride;
    to.copy(0, count, values);
}

// Rows of an array (first .. first + count of the inner axis, at most a vector of them) as columns,
// and back. Lanes without a row hold zeros, masked elements `absent`. (Columns do not outlive their
// scattering.)
template <class X, class C = typename X::Scalar>
void gather_rows(const AnyView &v, Index outer, Index first, Index count, C *columns,
                 const Mask &where = Mask(), bool negate = false,
                 C absent = -std::numeric_limits<C>::infinity()) {
    const Index n = v.n, size = sizeof(C);
    if (count == X::lanes && v.template plain<C>() && v.inner_stride % size == 0 && !where.data &&
        !negate) {
        return rows_to_columns<X>(reinterpret_cast<const C *>(v.at(outer, first)),
                                  v.inner_stride / size, n, columns);
    }
    InputLine<C> from(v, outer, first);
    from.negate = negate, from.absent = absent;
    if (where.data) from.mask = where.at(outer, first), from.mask_stride = where.n_stride;
    if (v.inner_stride == size_of(v.number)) {  // lines along the inner axis are contiguous
        from.stride = v.inner_stride, from.mask_stride = where.inner_stride;
        for (Index c = 0; c < n;
             ++c, from.p += v.n_stride, from.mask += from.mask ? where.n_stride : 0) {
            copy_row(from, count, columns + c * X::lanes);
            for (Index l = count; l < X::lanes; ++l) columns[c * X::lanes + l] = 0;
        }
        return;
    }
    const Scratch<C> rows(n * X::lanes);
    // one block of memory
    if (from.stride == size_of(v.number) && v.inner_stride == n * from.stride && !where.data) {
        copy_row<C>(from, count * n, rows);
    } else {
        for (Index r = 0; r < count;
             ++r, from.p += v.inner_stride, from.mask += from.mask ? where.inner_stride : 0)
            copy_row<C>(from, n, rows + r * n);
    }
    for (Index j = count * n; j < X::lanes * n; ++j) rows[j] = 0;
    rows_to_columns<X, C>(rows, n, n, columns);
}

template <class X, class C = typename X::Scalar>
void scatter_rows(const AnyView &v, Index outer, Index first, Index count, C *columns,
                  const Mask &where = Mask(), C absent = 0) {
    const Index n = v.n, size = sizeof(C);
    if (count == X::lanes && v.template plain<C>() && v.inner_stride % size == 0 && !where.data) {
        return columns_to_rows<X>(columns, n, reinterpret_cast<C *>(v.at(outer, first)),
                                  v.inner_stride / size);
    }
    OutputLine<C> to(v, outer, first);
    to.absent = absent;
    if (where.data) to.mask = where.at(outer, first), to.mask_stride = where.n_stride;
    if (v.inner_stride == size_of(v.number)) {
        to.stride = v.inner_stride, to.mask_stride = where.inner_stride;
        for (Index c = 0; c < n; ++c, to.p += v.n_stride, to.mask += to.mask ? where.n_stride : 0)
            to.copy(0, count, columns + c * X::lanes);
        return;
    }
    const Scratch<C> rows(n * X::lanes);
    columns_to_rows<X, C>(columns, n, rows, n);
    if (to.stride == size_of(v.number) && v.inner_stride == n * to.stride && !where.data) {
        return to.copy(0, count * n, rows);
    }
    for (Index r = 0; r < count;
         ++r, to.p += v.inner_stride, to.mask += to.mask ? where.inner_stride : 0)
        to.copy(0, n, rows + r * n);
}

// A vector of rows, one in each lane: the j-th vector holds their j-th elements.
template <class X>
struct Columns {
    const typename X::Scalar *x;
    Index step;
    FS_ALWAYS_INLINE typename X::V operator[](Index j) const { return X::load(x + j * step); }
};

template <class X>
struct ShortRows {
    using C = typename X::Scalar;
    static constexpr Index longest = 40;  // elements of a row

    alignas(64) C columns[longest * X::lanes];

    void gather(const AnyView &v, Index outer, Index first, Index count, const Mask &where = Mask(),
                bool negate = false, C absent = -std::numeric_limits<C>::infinity()) {
        gather_rows<X>(v, outer, first, count, columns, where, negate, absent);
    }
    void scatter(const AnyView &v, Index outer, Index first, Index count,
                 const Mask &where = Mask(), C absent = 0) {
        scatter_rows<X>(v, outer, first, count, columns, where, absent);
    }
};

}  // namespace fs
}  // namespace
