// Log-probabilities of some classes of a row.
#pragma once

#include "kernels/drivers/lane_log.h"
#include "kernels/drivers/long_rows.h"
#include "kernels/math/scale_epilogue.h"
#include "ops/best_numbers.h"
#include "ops/row_log.h"

namespace {
namespace fs {

// Log-probabilities of classes that are named by their index, or of the `k` most probable ones: log
// p = (x - max) / T - log(total) as log_softmax has it, of few elements of a row. The row itself is
// only read.
struct LogprobsArguments : Rows {
    AnyView ids;          // (outer, k, inner); without data: the most probable classes are found
    AnyView out;          // (outer, k, inner)
    View<Index> indices;  // likewise; where the most probable classes go

    void set_indices(Index *p, const Index *shape, const Index *strides) {
        indices = {p, shape, strides};
    }
    LogprobsArguments swapped() const {
        LogprobsArguments a = *this;
        static_cast<Rows &>(a) = Rows::swapped();
        a.ids = ids.swapped();
        a.out = out.swapped();
        a.indices = indices.swapped();
        return a;
    }
};

template <class C, bool Scaled>
struct LogprobsRow {
    const LogprobsArguments *a;
    using Partial = typename RowLog<C, Scaled>::Partial;
    RowLog<C, Scaled> row;
    BestNumbers<C> *best = nullptr;

    explicit LogprobsRow(const LogprobsArguments &arguments) : a(&arguments), row(arguments) {}

    Index n() const { return a->x.n; }
    Index k() const { return a->out.n; }

    void start(Index o, Index i) {
        if (!best && !a->ids) best = new (scratch<BestNumbers<C>>(1)) BestNumbers<C>(k());
        row.start(o, i);
    }
    void sweep(Index start, Index end, Partial &p) { row.sweep(start, end, p); }
    bool next(const ChunkResults<Partial> &partial) {
        if (row.next(partial)) return true;
        if (a->ids)
            named();
        else if (row.defined())
            most_probable();
        else
            undefined();
        return false;
    }

  private:
    void named() const {
        for (Index j = 0; j < k(); ++j) {
            const Index c = a->ids.label(row.outer, j, row.inner, n());
            a->out.store(row.outer, j, row.inner,
                         c < 0 ? std::numeric_limits<double>::quiet_NaN() : row.log_p(c));
        }
    }
    Index &index(Index j) const {
        return *advance(a->indices.at(row.outer, row.inner), j * a->indices.n_stride);
    }

    void undefined() const {
        for (Index j = 0; j < k(); ++j) {
            index(j) = j;
            a->out.store(row.outer, j, row.inner, std::numeric_limits<double>::quiet_NaN());
        }
    }
    void most_probable() {
        Scratch<C> buffer(gather_block);
        best->clear();
        for_each_block(0, n(), gather_block, [&](Index at, Index size) {
            best->add(row.x.load_block(at, size, buffer), size, at);
        });
        best->finish();
        const OutputLine<C> to(a->out, row.outer, row.inner);
        for_each_block(0, k(), gather_block, [&](Index at, Index size) {
            for (Index j = 0; j < size; ++j)
                buffer[j] = best->value(at + j), index(at + j) = best->index(at + j);
            write_with<Vec<C>>(row.writer, static_cast<const C *>(buffer), static_cast<C *>(buffer),
                               size, false);
            to.copy(at, size, buffer);
        });
    }
};

template <class C, bool Scaled>
Index further_memory(const LogprobsRow<C, Scaled> &row) {
    return row.a->ids ? 0 : BestNumbers<C>::memory(row.k()) + rounded_up(sizeof(BestNumbers<C>));
}

// The same with rows in lanes.
template <class C, bool Scaled>
struct LogprobsLanes {
    using X = Vec<C>;
    using V = typename X::V;
    using Block = LaneBlock<X, 1>;
    static constexpr Traits traits = in_lanes("logprobs", short_log_row);
    static constexpr int inputs = 1;
    struct State {
        LaneLog<C, Scaled> log;
        bool summing;
    };
    LogprobsArguments a;
    Rows logits;

    explicit LogprobsLanes(const LogprobsArguments &arguments) : a(arguments), logits(arguments) {}
    LogprobsLanes swapped() const { return LogprobsLanes(a.swapped()); }
    const AnyView &input(int) const { return a.x; }
    AnyView output() const { return {}; }
    bool writes(const State &) const { return false; }

    void begin(Index) {}
    void end() {}
    void start(State &s, const LaneRows &rows) const {
        s.log.start(logits, rows), s.summing = false;
    }
    void sweep(State &s, const Block &b) const {
        if (s.summing)
            s.log.add(b.x[0], b.count);
        else
            s.log.find_max(b.x[0], b.count);
    }
    bool next(State &s, const LaneRows &rows, const Block &b) const {
        if (!s.summing) return s.summing = true;
        const auto writer = s.log.writer(logits, rows);
        C logit[X::lanes] = {};
        for (Index j = 0; j < a.out.n; ++j) {
            for (Index l = 0; l < rows.count; ++l)
                logit[l] = named(a.ids.label(rows.outer, j, rows.first + l, a.x.n), rows, l, b);
            store_lanes<X>(a.out, rows, j, writer.apply(X::load(logit)));
        }
        return false;
    }

  private:
    C named(Index c, const LaneRows &rows, Index l, const Block &b) const {
        if (c < 0) return std::numeric_limits<C>::quiet_NaN();
        if (b.count == a.x.n) return b.lane(0, c, l);
        C v;
        return *logits.reader<C>(rows.outer, rows.first + l).load_block(c, 1, &v);
    }
};

// With rows in lanes if they are for that, else row by row.
template <template <class, bool> class Lanes>
void read_rows(const LogprobsArguments &a, bool in_lanes, Index threads) {
    with_compute({a.x.number}, [&](auto zero) {
        const auto read = [&](auto scaled) {
            using C = decltype(zero);
            using Scaled = decltype(scaled);
            if (in_lanes && run_in_lanes(Lanes<C, Scaled::value>(a), threads)) return;
            run_long_rows(LogprobsRow<C, Scaled::value>(a), a.x.outer, a.x.inner, threads);
        };
        if (a.plain())
            read(std::false_type());
        else
            read(std::true_type());
    });
}

inline void logprobs(const LogprobsArguments &a, Index threads) {
    read_rows<LogprobsLanes>(a, true, threads);
}

}  // namespace fs
}  // namespace
