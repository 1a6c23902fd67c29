// Rows in pieces, several of them a piece; tiles of columns.
#pragma once

#include "kernels/drivers/task.h"
#include "kernels/memory/view.h"
#include "kernels/tuning.h"

namespace {
namespace fs {

// Rows are grouped into pieces of about as many elements.
FS_ALWAYS_INLINE inline Index rows_per_piece(Index n) {
    return n < piece_elements ? piece_elements / n : 1;
}

// body(outer, inner, count) for the rows of a piece, those of one outer index together.
template <class Body>
FS_ALWAYS_INLINE inline void for_each_row_run(Index piece, Index outer, Index inner, Index n,
                                              Body body) {
    const Index group = rows_per_piece(n), first = piece * group,
                end = first + group < outer * inner ? first + group : outer * inner;
    Index o = first / inner, i = first % inner;
    for (Index r = first, count; r < end; r += count, i = 0, ++o) {
        count = inner - i < end - r ? inner - i : end - r;
        body(o, i, count);
    }
}

// Rows that are done in one go: rows(outer, inner, count) for each run of them, between
// begin(piece) and end().
template <class Row>
struct WholeRowsTask final : Task {
    Row row;
    Index outer, inner, n;

    WholeRowsTask(const Row &prototype, Index outer_, Index inner_, Index n_)
        : row(prototype), outer(outer_), inner(inner_), n(n_) {}
    Index pieces() const override {
        return (outer * inner + rows_per_piece(n) - 1) / rows_per_piece(n);
    }
    void run(Index piece) override {
        Row mine(row);
        mine.begin(piece);
        for_each_row_run(piece, outer, inner, n,
                         [&](Index o, Index i, Index count) { mine.rows(o, i, count); });
        mine.end();
    }
};

// Bytes that an operation wants beside room_bytes.
template <class Op>
Index further_memory(const Op &) {
    return 0;
}

// Columns (the inner axis) in tiles. Tile has run(outer, first, width).
template <class Tile>
struct TilesTask final : Task {
    Tile tile;
    Index outer, inner, width;

    TilesTask(const Tile &tile_, Index outer_, Index inner_, Index width_)
        : tile(tile_), outer(outer_), inner(inner_), width(width_) {}
    Index memory() const override { return further_memory(tile); }
    Index per_outer() const { return (inner + width - 1) / width; }
    Index pieces() const override { return outer * per_outer(); }
    void run(Index piece) override {
        const Index first = piece % per_outer() * width;
        tile.run(piece / per_outer(), first, inner - first < width ? inner - first : width);
    }
};

}  // namespace fs
}  // namespace
