// The most probable classes of a row, and their log-probabilities.
#pragma once

#include "ops/logprobs.h"

namespace {
namespace fs {

using TopKArguments = LogprobsArguments;

// The k best of each row, in the order of their values and, of equals, of their indices: a class
// that is better than the worst of them moves those below it one down.
constexpr Index best_in_lanes = 8;

template <class C, bool Scaled>
struct TopLanes {
    using X = Vec<C>;
    using V = typename X::V;
    using I = typename X::I;
    using Int = typename Format<C>::Int;
    using Block = LaneBlock<X, 1>;
    static constexpr Traits traits = in_lanes("top_k_logprobs", short_log_row);
    static constexpr int inputs = 1;
    struct State {
        LaneLog<C, Scaled> log;
        V best[best_in_lanes];
        I index[best_in_lanes];
        bool summing;
    };
    LogprobsArguments a;
    Rows logits;

    explicit TopLanes(const LogprobsArguments &arguments) : a(arguments), logits(arguments) {}
    TopLanes swapped() const { return TopLanes(a.swapped()); }
    const AnyView &input(int) const { return a.x; }
    AnyView output() const { return {}; }
    bool writes(const State &) const { return false; }

    Index k() const { return a.out.n; }
    void begin(Index) {}
    void end() {}
    void start(State &s, const LaneRows &rows) const {
        s.log.start(logits, rows), s.summing = false;
    }
    void sweep(State &s, const Block &b) const {
        if (s.summing)
            s.log.add(b.x[0], b.count);
        else if (k() == 1)
            find_first(s, b);
        else
            find(s, b);
    }
    bool next(State &s, const LaneRows &rows, const Block &) const {
        if (!s.summing) {
            s.log.max = s.best[0];
            return s.summing = true;
        }
        const auto writer = s.log.writer(logits, rows);
        for (Index j = 0; j < k(); ++j) {
            const V y = writer.apply(s.best[j]);
            store_lanes<X>(a.out, rows, j, y);
            for (Index l = 0; l < rows.count; ++l) {
                *advance(a.indices.at(rows.outer, rows.first + l), j * a.indices.n_stride) =
                    writer.hi[l] == writer.hi[l] ? Index(s.index[j][l]) : j;
            }
        }
        return false;
    }

  private:
    void find_first(State &s, const Block &b) const {
        Index j = 0;
        if (b.first == 0) s.best[0] = b.x[0][0], s.index[0] = I{}, j = 1;
        V best = s.best[0];
        I index = s.index[0];
        for (; j < b.count; ++j) {
            const V v = b.x[0][j];
            const auto better = v > best;
            best = better ? v : best;
            index = better ? I{} + static_cast<Int>(b.first + j) : index;
        }
        s.best[0] = best, s.index[0] = index;
    }
    void find(State &s, const Block &b) const {
        for (Index j = 0; j < b.count; ++j) {
            const Index held = b.first + j < k() ? b.first + j : k();
            V v = b.x[0][j];
            if (held == k() && !any_lane<X>(v > s.best[held - 1])) continue;
            I index = I{} + static_cast<Int>(b.first + j), better{};
            for (Index t = 0; t < held; ++t) {
                better |= v > s.best[t];
                const V worse = better ? s.best[t] : v;
                const I its_index = better ? s.index[t] : index;
                s.best[t] = better ? v : s.best[t], s.index[t] = better ? index : s.index[t];
                v = worse, index = its_index;
            }
            if (held < k()) s.best[held] = v, s.index[held] = index;
        }
    }
};

inline void top_k_logprobs(const TopKArguments &a, Index threads) {
    read_rows<TopLanes>(a, a.out.n <= best_in_lanes, threads);
}

}  // namespace fs
}  // namespace
