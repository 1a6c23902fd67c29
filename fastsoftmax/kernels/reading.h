// Reading logits: log-probabilities of some classes, the most probable classes, the first maximum,
// and what fits a temperature.
#pragma once

#include <algorithm>
#include <cmath>

#include "lane_rows.h"

namespace {
namespace fs {

// --- log-probabilities ---------------------------------------------------------------------------
// Log-probabilities of classes that are named by their index, or of the `k` most probable ones: log
// p = (x - max) / T - log(total) as log_softmax has it, of few elements of a row. The row itself is
// only read.
struct LogprobsArguments : Rows {
    AnyView ids;          // (outer, k, inner); without data: the most probable classes are found
    AnyView out;          // (outer, k, inner)
    View<isize> indices;  // likewise; where the most probable classes go

    void set_indices(isize *p, const isize *shape, const isize *strides) {
        indices = {p, shape, strides};
    }
    const Rows &logits() const { return *this; }
    LogprobsArguments swapped() const {
        LogprobsArguments a = *this;
        static_cast<Rows &>(a) = Rows::swapped();
        a.ids = ids.swapped();
        a.out = out.swapped();
        a.indices = indices.swapped();
        return a;
    }
};

// The k best of numbers that are given in ascending order of their indices, which decide between
// equals.
//
// A few are kept in order. Of many, numbers above a threshold are collected; when there is no room
// for more, all but the k best are dropped, and the worst of these is the next threshold. The k-th
// largest is found by bisection of the bits, each step of which is a count in vectors. So a number
// costs a comparison or, where every one is better than all before it, a few ns (k = 500 of 5000
// ascending ones: 12 times less than with a heap).
template <class C>
class BestNumbers {
    using X = Vec<C>;
    using Int = typename Format<C>::Int;
    static constexpr isize step = 64, few = 16;
    struct Entry {
        C value;
        isize index;
    };

    isize k, count = 0;
    C *values;  // of more than a few
    isize *indices;
    Entry *sorted;
    bool full = false;
    C threshold = 0;

  public:
    static isize capacity(isize k) { return k > few ? 2 * k + 2 * step : 0; }
    static isize memory(isize k) {
        return capacity(k) * isize(sizeof(C) + sizeof(isize)) + k * isize(sizeof(Entry)) + 3 * 64;
    }

    explicit BestNumbers(isize k_)
        : k(k_),
          values(scratch<C>(capacity(k))),
          indices(scratch<isize>(capacity(k))),
          sorted(scratch<Entry>(k)) {}

    void clear() { count = 0, full = k == 0, threshold = std::numeric_limits<C>::infinity(); }
    void add(const C *x, isize n, isize first) {
        for (isize at = 0; at < n; at += step) {
            const isize size = n - at < step ? n - at : step;
            if (full && !(span_max<X>(x + at, size) > threshold)) continue;
            if (k <= few)
                insert(x + at, size, first + at);
            else
                collect(x + at, size, first + at);
        }
    }
    // From here on they are in descending order.
    void finish() {
        if (k <= few) return;
        if (count > k) drop();
        for (isize j = 0; j < count; ++j) sorted[j] = {values[j], indices[j]};
        std::sort(sorted, sorted + count, [](const Entry &p, const Entry &q) {
            return p.value > q.value || (p.value == q.value && p.index < q.index);
        });
    }
    isize index(isize j) const { return sorted[j].index; }
    C value(isize j) const { return sorted[j].value; }

  private:
    void insert(const C *x, isize size, isize first) {
        for (isize j = 0; j < size; ++j) {
            if (full && !(x[j] > threshold)) continue;
            isize t = full ? k - 1 : count++;
            for (; t > 0 && sorted[t - 1].value < x[j]; --t) sorted[t] = sorted[t - 1];
            sorted[t] = {x[j], first + j};
            full = count == k;
            if (full) threshold = sorted[k - 1].value;
        }
    }
    void collect(const C *x, isize size, isize first) {
        if (count + size > capacity(k)) drop();
        for (isize j = 0; j < size; ++j) {
            values[count] = x[j], indices[count] = first + j;
            count += !full || x[j] > threshold;
        }
    }
    // All but the k best, of more than k.
    void drop() {
        const C least = kth();
        isize equals = k - count_if([&](auto v) FS_INLINE_LAMBDA { return v > X::set(least); }),
              kept = 0;
        C worst = std::numeric_limits<C>::infinity();
        for (isize j = 0; j < count; ++j) {
            const C v = values[j];
            const bool keeps = v > least || (v == least && equals-- > 0);
            values[kept] = v, indices[kept] = indices[j];
            worst = keeps && v < worst ? v : worst;
            kept += keeps;
        }
        count = k, threshold = worst, full = true;
    }
    template <class Holds>
    FS_INLINE isize count_if(Holds holds) const {
        typename X::I found{};
        each_vector<X>(count, [&](isize j, auto lanes) FS_INLINE_LAMBDA {
            found -= holds(lanes.load(values + j, std::numeric_limits<C>::quiet_NaN()));
        });
        isize sum = 0;
        for (isize l = 0; l < X::lanes; ++l) sum += static_cast<isize>(found[l]);
        return sum;
    }
    // A number that at least k are not below, and fewer than k above.
    C kth() const {
        C least = values[0], most = values[0];
        for (isize j = 1; j < count; ++j)
            least = std::min(least, values[j]), most = std::max(most, values[j]);
        // at least k are not below the first; fewer are above the second
        Int low = order(least), high = order(most);
        while (low < high) {
            const Int middle =
                low + static_cast<Int>((static_cast<typename Format<C>::Uint>(high) -
                                        static_cast<typename Format<C>::Uint>(low) + 1) /
                                       2);
            const C v = number(middle);
            const isize not_below =
                count_if([&](auto w) FS_INLINE_LAMBDA { return w >= X::set(v); });
            if (not_below == k) return v;
            if (not_below > k)
                low = middle;
            else
                high = middle - 1;
        }
        return number(low);
    }
    // Numbers as integers of the same order.
    static Int order(C v) {
        Int i;
        std::memcpy(&i, &v, sizeof i);
        return i < 0 ? std::numeric_limits<Int>::min() - i : i;
    }
    static C number(Int i) {
        if (i < 0) i = std::numeric_limits<Int>::min() - i;
        C v;
        std::memcpy(&v, &i, sizeof v);
        return v;
    }
};

template <class C, bool Scaled>
struct LogprobsRow {
    const LogprobsArguments *a;
    RowLog<C, Scaled> row;
    ChunkResults<typename RowLog<C, Scaled>::Partial> partial;
    BestNumbers<C> *best = nullptr;

    explicit LogprobsRow(const LogprobsArguments &arguments)
        : a(&arguments), row(arguments.logits()) {}

    isize n() const { return a->x.n; }
    isize k() const { return a->out.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        partial.resize(static_cast<std::size_t>(chunks()));
        if (!best && !a->ids) best = new (scratch<BestNumbers<C>>(1)) BestNumbers<C>(k());
        row.start(o, i);
    }
    void sweep(isize c) {
        const isize start = c * chunk, end = n() - start < chunk ? n() : start + chunk;
        partial[static_cast<std::size_t>(c)] = row.sweep(start, end);
    }
    bool next() {
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
        for (isize j = 0; j < k(); ++j) {
            const isize c = a->ids.label(row.outer, j, row.inner, n());
            a->out.store(row.outer, j, row.inner,
                         c < 0 ? std::numeric_limits<double>::quiet_NaN() : row.log_p(c));
        }
    }
    isize &index(isize j) const {
        return *advance(a->indices.at(row.outer, row.inner), j * a->indices.n_stride);
    }

    void undefined() const {
        for (isize j = 0; j < k(); ++j) {
            index(j) = j;
            a->out.store(row.outer, j, row.inner, std::numeric_limits<double>::quiet_NaN());
        }
    }
    void most_probable() {
        Scratch<C> buffer(gather_block);
        best->clear();
        for (isize at = 0; at < n(); at += gather_block) {
            const isize size = n() - at < gather_block ? n() - at : gather_block;
            best->add(row.x.get(at, size, buffer), size, at);
        }
        best->finish();
        const Writer<C> to(a->out, row.outer, row.inner);
        for (isize at = 0; at < k(); at += gather_block) {
            const isize size = k() - at < gather_block ? k() - at : gather_block;
            for (isize j = 0; j < size; ++j)
                buffer[j] = best->value(at + j), index(at + j) = best->index(at + j);
            write_with<Vec<C>>(row.writer, static_cast<const C *>(buffer), static_cast<C *>(buffer),
                               size, false);
            to.copy(at, size, buffer);
        }
    }
};

template <class C, bool Scaled>
isize further_memory(const LogprobsRow<C, Scaled> &row) {
    return row.a->ids ? 0 : BestNumbers<C>::memory(row.k()) + rounded_up(sizeof(BestNumbers<C>));
}

// The same with rows in lanes.
template <class C, bool Scaled>
struct LogprobsLanes {
    using X = Vec<C>;
    using V = typename X::V;
    using Block = LaneBlock<X, 1>;
    static constexpr int inputs = 1;
    struct State {
        LaneLog<C, Scaled> log;
        bool summing;
    };
    LogprobsArguments a;
    Rows logits;

    explicit LogprobsLanes(const LogprobsArguments &arguments)
        : a(arguments), logits(arguments.logits()) {}
    LogprobsLanes swapped() const { return LogprobsLanes(a.swapped()); }
    const AnyView &input(int) const { return a.x; }
    AnyView output() const { return {}; }
    bool writes(const State &) const { return false; }

    void begin(isize) {}
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
        for (isize j = 0; j < a.out.n; ++j) {
            for (isize l = 0; l < rows.count; ++l)
                logit[l] = named(a.ids.label(rows.outer, j, rows.first + l, a.x.n), rows, l, b);
            store_lanes<X>(a.out, rows, j, writer.apply(X::load(logit)));
        }
        return false;
    }

  private:
    C named(isize c, const LaneRows &rows, isize l, const Block &b) const {
        if (c < 0) return std::numeric_limits<C>::quiet_NaN();
        if (b.count == a.x.n) return b.lane(0, c, l);
        C v;
        return *logits.reader<C>(rows.outer, rows.first + l).get(c, 1, &v);
    }
};

// The k best of each row, in the order of their values and, of equals, of their indices: a class
// that is better than the worst of them moves those below it one down.
constexpr isize best_in_lanes = 8;

template <class C, bool Scaled>
struct TopLanes {
    using X = Vec<C>;
    using V = typename X::V;
    using I = typename X::I;
    using Int = typename Format<C>::Int;
    using Block = LaneBlock<X, 1>;
    static constexpr int inputs = 1;
    struct State {
        LaneLog<C, Scaled> log;
        V best[best_in_lanes];
        I index[best_in_lanes];
        bool summing;
    };
    LogprobsArguments a;
    Rows logits;

    explicit TopLanes(const LogprobsArguments &arguments)
        : a(arguments), logits(arguments.logits()) {}
    TopLanes swapped() const { return TopLanes(a.swapped()); }
    const AnyView &input(int) const { return a.x; }
    AnyView output() const { return {}; }
    bool writes(const State &) const { return false; }

    isize k() const { return a.out.n; }
    void begin(isize) {}
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
        for (isize j = 0; j < k(); ++j) {
            const V y = writer.apply(s.best[j]);
            store_lanes<X>(a.out, rows, j, y);
            for (isize l = 0; l < rows.count; ++l) {
                *advance(a.indices.at(rows.outer, rows.first + l), j * a.indices.n_stride) =
                    writer.hi[l] == writer.hi[l] ? isize(s.index[j][l]) : j;
            }
        }
        return false;
    }

  private:
    void find_first(State &s, const Block &b) const {
        isize j = 0;
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
        for (isize j = 0; j < b.count; ++j) {
            const isize held = b.first + j < k() ? b.first + j : k();
            V v = b.x[0][j];
            if (held == k() && !any_lane<X>(v > s.best[held - 1])) continue;
            I index = I{} + static_cast<Int>(b.first + j), better{};
            for (isize t = 0; t < held; ++t) {
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

template <class C, bool Scaled>
void logprobs_scaled(const LogprobsArguments &a, isize threads) {
    if (a.ids && run_in_lanes(LogprobsLanes<C, Scaled>(a), threads)) return;
    if (!a.ids && a.out.n <= best_in_lanes && run_in_lanes(TopLanes<C, Scaled>(a), threads)) return;
    RowsWork<LogprobsRow<C, Scaled>> work(LogprobsRow<C, Scaled>(a), a.x.outer, a.x.inner, a.x.n,
                                          threads);
    execute(work, threads);
}
inline void logprobs(const LogprobsArguments &a, isize threads) {
    with_compute({a.x.number}, [&](auto zero) {
        using C = decltype(zero);
        if (a.logits().plain())
            logprobs_scaled<C, false>(a, threads);
        else
            logprobs_scaled<C, true>(a, threads);
    });
}

// --- hardmax -------------------------------------------------------------------------------------
template <class C>
struct HardmaxRow {
    AnyView x, out;
    C *buffer = nullptr, *results = nullptr;

    void begin(isize) { buffer = scratch<C>(gather_block), results = scratch<C>(gather_block); }
    void end() {}
    void rows(isize o, isize first, isize count) {
        for (isize i = first; i < first + count; ++i) row(o, i);
    }

  private:
    void row(isize o, isize i) {
        const Reader<C> from(x, o, i);
        const Writer<C> to(out, o, i);
        C top = absent_logit<C>;
        isize first = 0;
        bool nan = false;
        for (isize at = 0; at < x.n; at += gather_block) {
            const isize size = x.n - at < gather_block ? x.n - at : gather_block;
            const C *v = from.get(at, size, buffer);
            nan |= span_has_nan(v, size);
            const C m = span_max<Vec<C>>(v, size);
            if (!(m > top)) continue;
            top = m, first = at;
            while (v[first - at] != m && first < at + size - 1) ++first;
        }
        const C other = nan ? std::numeric_limits<C>::quiet_NaN() : C(0);
        for (isize at = 0; at < x.n; at += gather_block) {
            const isize size = x.n - at < gather_block ? x.n - at : gather_block;
            C *y = to.place(at, results);
            for (isize j = 0; j < size; ++j) y[j] = other;
            if (!nan && first >= at && first < at + size) y[first - at] = 1;
            to.put(at, size, results);
        }
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

    void begin(isize) {}
    void end() {}
    void start(State &s, const LaneRows &) const { s = {X::set(absent_logit<C>), V{}, I{}, false}; }
    void sweep(State &s, const Block &b) const {
        if (s.writing) return write(s, b);
        V top = s.top, other = s.other;
        I first = s.first;
        for (isize j = 0; j < b.count; ++j) {
            const V v = b.x[0][j];
            const auto better = v > top;
            top = better ? v : top;
            first = better ? I{} + static_cast<Int>(b.first + j) : first;
            other = v == v ? other : v;
        }
        s.top = top, s.other = other, s.first = first;
    }
    bool next(State &s, const LaneRows &, const Block &) const {
        return !s.writing && (s.writing = true);
    }

  private:
    void write(const State &s, const Block &b) const {
        const V chosen = s.other == V{} ? X::set(1) : s.other, other = s.other;
        const I first = s.first;
        for (isize j = 0; j < b.count; ++j)
            b.store(j, first == I{} + static_cast<Int>(b.first + j) ? chosen : other);
    }
};

inline void hardmax(const AnyView &x, const AnyView &out, isize threads) {
    with_compute({x.number, out.number}, [&](auto zero) {
        if (run_in_lanes(HardmaxLanes<decltype(zero)>{x, out}, threads)) return;
        WholeRowsWork<HardmaxRow<decltype(zero)>> work({x, out}, x.outer, x.inner, x.n);
        execute(work, threads);
    });
}

// --- temperature ---------------------------------------------------------------------------------
// The sum over rows of w (log(sum exp(b x)) - b x_y) and its first two derivatives with respect to
// b: w (E[x] - x_y) and w Var[x] under softmax(b x).
struct Derivatives {
    Sum loss, first, second;
    void add(const Derivatives &other) {
        loss.add(other.loss), first.add(other.first), second.add(other.second);
    }
};

// The sums of exp(b d), exp(b d) d and exp(b d) d^2 with d = x - max.
struct TemperatureSums {
    using X = Vec<double>;
    using V = X::V;
    LaneSums<X> total, mean, square;

    FS_INLINE void add(V x, V max, V b) {
        const V d = x - max, e = exp_plain<X>(d * b), first = e == V{} ? V{} : e * d;
        total.add(e), mean.add(first), square.add(e == V{} ? V{} : first * d);
    }
};

struct TemperatureRow {
    using X = Vec<double>;
    using V = X::V;
    struct Partial {
        double max;
        Sum total, mean, square;
    };

    AnyView x, labels, weight;
    double inverse;                   // b
    PieceResults<Derivatives> *sums;  // one for each piece
    isize outer = 0, inner = 0;
    bool summing = false;
    double max = 0;
    ChunkResults<Partial> partial;

    isize n() const { return x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        outer = o, inner = i, summing = false;
        partial.resize(static_cast<std::size_t>(chunks()));
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        const Reader<double> from(x, outer, inner);
        const V top = X::set(max), b = X::set(inverse);
        TemperatureSums sums_of_chunk;
        Partial &p = partial[static_cast<std::size_t>(k)];
        p.max = absent_logit<double>;
        Scratch<double> buffer(gather_block);
        for (isize at = start; at < end; at += gather_block) {
            const isize size = end - at < gather_block ? end - at : gather_block;
            const double *v = from.get(at, size, buffer);
            if (!summing) {
                p.max = larger(p.max, span_max<X>(v, size));
                continue;
            }
            each_vector<X>(size, [&](isize j, auto lanes) FS_INLINE_LAMBDA {
                sums_of_chunk.add(lanes.load(v + j, absent_logit<double>), top, b);
            });
        }
        p.total = sums_of_chunk.total.total(), p.mean = sums_of_chunk.mean.total(),
        p.square = sums_of_chunk.square.total();
    }

    bool next() {
        Partial all{absent_logit<double>, {}, {}, {}};
        for (const Partial &p : partial) {
            all.max = larger(p.max, all.max);
            all.total.add(p.total), all.mean.add(p.mean), all.square.add(p.square);
        }
        if (!summing) {
            max = all.max;
            return summing = true;
        }
        const double w = weight ? weight.value(outer, inner) : 1, total = all.total.value(),
                     mean = all.mean.value() / total;
        if (w == 0) return false;  // the row is left out, whatever it holds
        const isize y = labels.label(outer, 0, inner, n());
        const double label =
            y < 0 ? std::numeric_limits<double>::quiet_NaN() : x.value(outer, y, inner) - max;
        const double loss = w * (std::log(total) - inverse * label), first = w * (mean - label);
        const double second = w * (all.square.value() / total - mean * mean);
        (*sums)[static_cast<std::size_t>((outer * x.inner + inner) / rows_per_piece(n()))].add(
            {{loss, 0}, {first, 0}, {second, 0}});
        return false;
    }
};

// With rows in lanes.
struct TemperatureLanes {
    using X = Vec<double>;
    using V = X::V;
    using Block = LaneBlock<X, 1>;
    static constexpr int inputs = 1;
    struct State {
        V max;
        TemperatureSums sums;
        bool summing;
    };
    AnyView x, labels, weight;
    double inverse;
    PieceResults<Derivatives> *sums;
    isize piece = 0;
    LaneSums<X> losses{}, firsts{}, seconds{};

    TemperatureLanes swapped() const {
        return {x.swapped(), labels.swapped(), weight.swapped(), inverse, sums};
    }
    const AnyView &input(int) const { return x; }
    AnyView output() const { return {}; }
    bool writes(const State &) const { return false; }

    void begin(isize p) { piece = p, losses = firsts = seconds = {}; }
    void end() {
        (*sums)[static_cast<std::size_t>(piece)].add(
            {losses.total(), firsts.total(), seconds.total()});
    }
    void start(State &s, const LaneRows &) const { s = {X::set(absent_logit<double>), {}, false}; }
    void sweep(State &s, const Block &b) const {
        if (s.summing) {
            TemperatureSums all = s.sums;
            for (isize j = 0; j < b.count; ++j) all.add(b.x[0][j], s.max, X::set(inverse));
            s.sums = all;
        } else {
            for (isize j = 0; j < b.count; ++j) s.max = larger(b.x[0][j], s.max);
        }
    }
    bool next(State &s, const LaneRows &rows, const Block &) {
        if (!s.summing) return s.summing = true;
        const auto sum = [](const LaneSums<X> &all) {
            return all.hi - all.hi == V{} ? all.hi + all.lo : all.hi;
        };
        const V total = sum(s.sums.total), mean = sum(s.sums.mean) / total,
                square = sum(s.sums.square) / total;
        V w{}, label{};
        for (isize l = 0; l < rows.count; ++l) {
            w[l] = weight ? weight.value(rows.outer, rows.first + l) : 1;
            const isize y = labels.label(rows.outer, 0, rows.first + l, x.n);
            label[l] = y < 0 ? std::numeric_limits<double>::quiet_NaN()
                             : x.value(rows.outer, y, rows.first + l) - s.max[l];
        }
        const Pair<V> log = log_ratio<X>(two_sum(total, V{}), {X::set(1), V{}}, total, V{});
        const auto counts = w != V{};  // others are left out, whatever they hold
        losses.add(counts ? w * (log.hi + log.lo - inverse * label + (total - total)) : V{});
        firsts.add(counts ? w * (mean - label) : V{});
        seconds.add(counts ? w * (square - mean * mean) : V{});
        return false;
    }
};

inline void temperature_derivatives(const AnyView &x, const AnyView &labels, const AnyView &weight,
                                    double inverse, double *results, isize threads) {
    const std::size_t row_pieces = static_cast<std::size_t>(
        (x.outer * x.inner + rows_per_piece(x.n) - 1) / rows_per_piece(x.n));
    PieceResults<Derivatives> sums(std::max(row_pieces, lane_pieces<Vec<double>>(x)));
    if (!run_in_lanes(TemperatureLanes{x, labels, weight, inverse, &sums}, threads)) {
        RowsWork<TemperatureRow> work({x, labels, weight, inverse, &sums}, x.outer, x.inner, x.n,
                                      threads);
        execute(work, threads);
    }
    Derivatives all;
    for (const Derivatives &d : sums) all.add(d);
    results[0] = all.loss.value(), results[1] = all.first.value(), results[2] = all.second.value();
}

}  // namespace fs
}  // namespace
