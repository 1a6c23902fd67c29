// Rows of any length in sweeps over their chunks, one row after another; of a long one the chunks
// are the pieces of work.
#pragma once

#include "kernels/drivers/row_tasks.h"
#include "kernels/memory/scratch.h"

namespace {
namespace fs {

// What the chunks of a row have found, one Partial each. It takes memory when a row is first begun;
// a copy of one that was not begun has none.
template <class Partial>
class ChunkResults {
    Partial *p = nullptr;
    Index count = 0;
    static_assert(std::is_trivially_destructible<Partial>::value, "");

  public:
    static Index chunks(Index n) { return (n + chunk - 1) / chunk; }
    static Index memory(Index n) { return rounded_up(chunks(n) * Index(sizeof(Partial))); }

    void begin(Index n) {
        if (p) return;
        count = chunks(n), p = scratch<Partial>(count);
        for (Index k = 0; k < count; ++k) new (p + k) Partial();
    }
    Partial &operator[](Index k) { return p[k]; }
    const Partial *begin() const { return p; }
    const Partial *end() const { return p + count; }
};

// An operation on such rows. Each piece of work has a copy of it, but where the chunks of one row
// are the pieces: those share it.
//
//     Index n() const;                        elements of a row
//     struct Partial;                         what sweeps find in a chunk; for merged():
//                                             void add(const Partial &)
//     void start(Index outer, Index inner);   of a row
//     void sweep(Index start, Index end, Partial &);  over a chunk: changes nothing but its results
//                                             and its Partial, which is as the last sweep of it
//                                             left it, be that of another row
//     bool next(const ChunkResults<Partial> &);       after all chunks: whether to sweep again
template <class Op>
class LongRow {
    Op op;
    ChunkResults<typename Op::Partial> partial;

  public:
    explicit LongRow(const Op &prototype) : op(prototype) {}

    Index chunks() const { return partial.chunks(op.n()); }
    Index memory() const { return partial.memory(op.n()); }
    // Takes the memory, if it must be taken before the first row.
    void begin() { partial.begin(op.n()); }
    void start(Index o, Index i) {
        begin();
        op.start(o, i);
    }
    void sweep(Index k) {
        const Index start = k * chunk, end = op.n() - start < chunk ? op.n() : start + chunk;
        op.sweep(start, end, partial[k]);
    }
    bool next() { return op.next(partial); }
    // All of a row.
    void run(Index o, Index i) {
        start(o, i);
        do {
            for (Index k = 0; k < chunks(); ++k) sweep(k);
        } while (next());
    }
};

template <class Op>
struct LongRowsTask final : Task {
    LongRow<Op> row;
    Index outer, inner, n, current = 0, of_operation;
    bool split;

    // Long rows are split only where there are fewer of them than threads; the result is the same
    // either way.
    LongRowsTask(const Op &op, Index outer_, Index inner_, Index threads)
        : row(op),
          outer(outer_),
          inner(inner_),
          n(op.n()),
          of_operation(further_memory(op)),
          split(n > chunk && outer_ * inner_ < threads) {}
    Index memory() const override { return row.memory() + of_operation + 64; }
    void begin() override {
        if (split) row.start(0, 0);
    }
    Index rows() const { return outer * inner; }
    Index pieces() const override {
        return split ? row.chunks() : (rows() + rows_per_piece(n) - 1) / rows_per_piece(n);
    }
    void run(Index piece) override {
        if (split) return row.sweep(piece);
        LongRow<Op> mine(row);
        for_each_row_run(piece, outer, inner, n, [&](Index o, Index i, Index count) {
            for (const Index end = i + count; i < end; ++i) mine.run(o, i);
        });
    }
    bool next_stage() override {
        if (!split) return false;
        if (row.next()) return true;
        if (++current == rows()) return false;
        row.start(current / inner, current % inner);
        return true;
    }
};

template <class Op>
void run_long_rows(const Op &op, Index outer, Index inner, Index threads) {
    LongRowsTask<Op> work(op, outer, inner, threads);
    execute(work, threads);
}

}  // namespace fs
}  // namespace
