// Which driver runs: the one place that answers it, from shape, layout and type alone. `python -m
// fastsoftmax explain` prints this table for a call.
#pragma once

#include <atomic>

#include "kernels/drivers/tiles.h"

namespace {
namespace fs {

// How rows (lines along the axis n of (outer, n, inner)) are walked.
enum class Driver {
    small,
    strips,
    lanes,
    column_lanes,
    tiles,
    gathered_tiles,
    row_batch,
    long_rows
};

struct Problem {
    Index outer = 1, n = 1, inner = 1;
    Index element = 4;    // bytes of a number as it is computed with
    bool fresh = false;   // rows one after another and no options, without views so far
    bool scaled = false;  // by a temperature or a base
    // vectors of neighbouring rows are loaded and stored where they are
    bool columns_direct = false;
    bool columns_share_lines = false;  // neighbouring rows share cache lines, and are short
    bool columns_aside = false;        // neighbouring rows fill vectors

    Index rows() const { return outer * inner; }
    Index bytes() const { return rows() * n * element; }
    // Neighbouring rows of which all elements together fit half of L2.
    Index columns_in_l2() const { return tile_bytes / (n * element); }

    // What an array says. Whether columns are direct depends on other arrays, too.
    static Problem of(const AnyView &x, Index element, bool scaled) {
        Problem p;
        p.outer = x.outer, p.n = x.n, p.inner = x.inner, p.element = element, p.scaled = scaled;
        p.columns_share_lines = columns_staged(x) || columns_staged(x.swapped());
        p.columns_aside = columns_near(x) || columns_near(x.swapped());
        return p;
    }
    static Problem fresh_rows(Index rows, Index n, Index element) {
        Problem p;
        p.outer = rows, p.n = n, p.element = element, p.fresh = true;
        return p;
    }
};

// What the answer depends on beside the problem.
struct Traits {
    const char *operation;
    Index longest_lane_row;         // up to which rows run across lanes
    bool small;                     // has a way without views
    bool strips;                    // has a driver for strips of columns
    bool logarithms;                // of sums: then the maximum is summed apart
    bool tiles;                     // has drivers for tiles of columns
    bool batches;                   // and for rows whose sums are settled together
    Index longest_lane_column = 0;  // up to which columns run in lanes as short rows do
};
// Of operations whose rows run in lanes, or else one by one.
constexpr Traits in_lanes(const char *operation, Index longest_row,
                          Index longest_column = std::numeric_limits<std::int32_t>::max(),
                          bool batches = false) {
    return {operation, longest_row, false, false, false, false, batches, longest_column};
}

// So few elements that views and batches would take longer than computing.
constexpr bool is_small(Index rows, Index n) {
    return rows * n <= small_call && rows < enough_rows;
}

// Strips pay for many columns that fit no cache as tiles do. Where they fit L2, softmax keeps
// exponentials in the output; logarithms gain whatever the size.
constexpr bool strips_pay(const Problem &p, const Traits &t) {
    const bool whatever_size =
        t.logarithms ? p.n > t.longest_lane_row : p.columns_in_l2() >= strip_columns;
    if (t.logarithms && p.n < strip_log_row) return false;
    return t.strips && !p.scaled && p.columns_direct && p.inner >= strip_columns &&
           (whatever_size || p.bytes() >= strips_from);
}

// The first line that holds decides. Times are ns per element of float32, AVX-512 (Zen 4), before
// and after the line was there.
struct RegimeLine {
    Driver driver;
    const char *name, *condition, *measured;
    bool (*holds)(const Problem &, const Traits &);
};

constexpr RegimeLine regime_table[] = {
    {Driver::small, "small",
     "contiguous rows, no options, at most 256 elements in fewer than 4 rows",
     "ten elements: a call of 250 ns",
     [](const Problem &p, const Traits &t) {
         return t.small && p.fresh && is_small(p.rows(), p.n);
     }},
    {Driver::strips, "strips",
     "512 or more contiguous columns, unscaled; 2 MiB or more, or long sums with logarithms, or "
     "columns that fit L2; of logarithms from 16 elements on",
     "4000 x 4000, axis 0: 0.83 -> 0.55; 20 x 1000000: 1.15 -> 0.48", strips_pay},
    {Driver::lanes, "lanes",
     "short rows (softmax 24, logarithms 40, labels 32), at least 4 of them",
     "4096 x 10: 1.41 -> 0.37",
     [](const Problem &p, const Traits &t) {
         return p.n <= t.longest_lane_row && p.rows() >= enough_rows;
     }},
    {Driver::column_lanes, "lanes of columns",
     "neighbouring columns, at least a vector of them, of operations without tiles",
     "cross_entropy of (8, 4, 256, 256) with targets, axis 1: 171 -> 2.5",
     [](const Problem &p, const Traits &t) {
         return p.columns_aside && p.n <= t.longest_lane_column;
     }},
    {Driver::tiles, "tiles", "contiguous columns, at least a vector of them",
     "1000 x 1000, axis 0: fetched ahead, 10 to 40 % less",
     [](const Problem &p, const Traits &t) { return t.tiles && p.columns_direct; }},
    {Driver::gathered_tiles, "gathered tiles",
     "columns that share cache lines, at most 512 elements each",
     "one reading of a line for 16 columns",
     [](const Problem &p, const Traits &t) { return t.tiles && p.columns_share_lines; }},
    {Driver::row_batch, "row batch", "rows of at most 32768 elements, settled together",
     "33 columns: 0.65 -> 0.47; 64: 0.38 -> 0.26; 1000: 0.22 -> 0.21",
     [](const Problem &p, const Traits &t) { return t.batches && p.n <= chunk; }},
    {Driver::long_rows, "long rows", "all others, one by one, in chunks of 32768 elements",
     "one row of 1000000: two threads share it",
     [](const Problem &, const Traits &) { return true; }},
};

constexpr Driver driver_for(const Problem &p, const Traits &t) {
    for (const RegimeLine &line : regime_table) {
        if (line.holds(p, t)) return line.driver;
    }
    return Driver::long_rows;
}

// What this thread has decided last, for those who ask why. It is remembered between watch(true)
// and watch(false) alone: a variable of a thread is 70 instructions of a call on ten elements,
// which has 780.
struct Decision {
    Problem problem;
    const Traits *traits = nullptr;

    const char *operation() const { return traits ? traits->operation : nullptr; }
    bool holds(const RegimeLine &line) const { return line.holds(problem, *traits); }
};

static thread_local Decision last_decision;
static std::atomic<bool> watched{false};

inline void watch(bool on) {
    watched.store(on, std::memory_order_relaxed);
}

__attribute__((noinline)) inline void remember(const Problem &p, const Traits &t) {
    last_decision = {p, &t};
}

inline Decision forget_decision() {
    const Decision last = last_decision;
    last_decision.traits = nullptr;
    return last;
}

inline Driver decide(const Problem &p, const Traits &t) {
    if (watched.load(std::memory_order_relaxed)) remember(p, t);
    return driver_for(p, t);
}

// Which axis rows are next to each other along, if a driver has them in lanes; else 0.
inline int lanes_along(const AnyView &x, Driver driver) {
    if (driver == Driver::lanes) return short_rows_run(x, x.n);
    return driver != Driver::column_lanes ? 0 : columns_near(x) ? along_inner : along_outer;
}

}  // namespace fs
}  // namespace
