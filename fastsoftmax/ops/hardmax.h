// The first maximum of each row.
#pragma once

#include "kernels/drivers/lanes.h"
#include "kernels/math/exp_sums.h"

namespace {
namespace fs {

template <class C>
struct HardmaxRow {
    AnyView x, out;
    C *buffer = nullptr, *results = nullptr;

    void begin(Index) { buffer = scratch<C>(gather_block), results = scratch<C>(gather_block); }
    void end() {}
    void rows(Index o, Index first, Index count) {
        for (Index i = first; i < first + count; ++i) row(o, i);
    }

  private:
    void row(Index o, Index i) {
        const InputLine<C> from(x, o, i);
        const OutputLine<C> to(out, o, i);
        C top = masked_logit<C>;
        Index first = 0;
        bool nan = false;
        for_each_block(0, x.n, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const C *v = from.load_block(at, size, buffer);
            nan |= span_has_nan(v, size);
            const C m = span_max<Vec<C>>(v, size);
            if (m > top) top = m, first = at + span_find<Vec<C>>(v, size, m);
        });
        const C other = nan ? std::numeric_limits<C>::quiet_NaN() : C(0);
        for_each_block(0, x.n, gather_block, [&](Index at, Index size) FS_ALWAYS_INLINE {
            C *y = to.block_for(at, results);
            std::fill(y, y + size, other);
            if (!nan && first >= at && first < at + size) y[first - at] = 1;
            to.store_block(at, size, results);
        });
    }
};

// With rows in lanes.
template <class C>
struct HardmaxLanes {
    using X = Vec<C>;
    using V = typename X::V;
    using I = typename X::I;
    using Int = typename Format<C>::Int;
    using Block = LaneBlock<X, 1>;
    static constexpr Traits traits = in_lanes("hardmax", short_log_row);
    static constexpr int inputs = 1;
    struct State {
        V top, other;  // 0, or NaN
        I first;
        bool writing;
    };
    AnyView x, out;

    HardmaxLanes swapped() const { return {x.swapped(), out.swapped()}; }
    const AnyView &input(int) const { return x; }
    const AnyView &output() const { return out; }
    bool writes(const State &s) const { return s.writing; }

    void begin(Index) {}
    void end() {}
    void start(State &s, const LaneRows &) const { s = {X::set(masked_logit<C>), V{}, I{}, false}; }
    void sweep(State &s, const Block &b) const {
        if (s.writing) return write(s, b);
        V top = s.top, other = s.other;
        I first = s.first;
        for (Index j = 0; j < b.count; ++j) {
            const V v = b.x[0][j];
            const auto better = v > top;
            top = better ? v : top;
            first = better ? I{} + static_cast<Int>(b.first + j) : first;
            other = v == v ? other : v;
        }
        s.top = top, s.other = other, s.first = first;
    }
    bool next(State &s, const LaneRows &, const Block &) const {
        const bool had_written = s.writing;
        s.writing = true;
        return !had_written;
    }

  private:
    void write(const State &s, const Block &b) const {
        const V chosen = s.other == V{} ? X::set(1) : s.other, other = s.other;
        const I first = s.first;
        for (Index j = 0; j < b.count; ++j)
            b.store(j, first == I{} + static_cast<Int>(b.first + j) ? chosen : other);
    }
};

inline void hardmax(const AnyView &x, const AnyView &out, Index threads) {
    with_compute({x.number, out.number}, [&](auto zero) {
        if (run_in_lanes(HardmaxLanes<decltype(zero)>{x, out}, threads)) return;
        WholeRowsTask<HardmaxRow<decltype(zero)>> work({x, out}, x.outer, x.inner, x.n);
        execute(work, threads);
    });
}

}  // namespace fs
}  // namespace
