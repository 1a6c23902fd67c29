// Reading logits: log-probabilities of some classes, the most probable classes, the first maximum, and what fits a temperature.
#pragma once

#include <algorithm>
#include <cmath>

#include "normalize.h"

namespace {
namespace fs {

// -------------------------------------------------------------------------------------------------------- log-probabilities
// Log-probabilities of classes that are named by their index, or of the `k` most probable ones: log p = (x - max) / T - log(total) as log_softmax has
// it, of few elements of a row. The row itself is only read.
struct LogprobsArguments {
    AnyView x;
    AnyView ids;          // (outer, k, inner); without data: the most probable classes are found
    AnyView out;          // (outer, k, inner)
    View<isize> indices;  // likewise; where the most probable classes go
    View<const double> temperature = View<const double>::one();

    void set_indices(isize *p, const isize *shape, const isize *strides) { indices = {p, shape, strides}; }
    void set_temperature(const double *p, const isize *shape, const isize *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }
    NormalizeArguments logits() const {
        NormalizeArguments a;
        a.x = x, a.temperature = temperature;
        return a;
    }
};

template <class C, bool Scaled> struct LogprobsRow {
    const LogprobsArguments *a;
    RowLog<C, Scaled> row;
    ChunkResults<typename RowLog<C, Scaled>::Partial> partial;
    isize *best = nullptr, held = 0;  // a heap of the k best so far, the worst of them first

    explicit LogprobsRow(const LogprobsArguments &arguments) : a(&arguments), row(arguments.logits()) {}

    isize n() const { return a->x.n; }
    isize k() const { return a->out.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        partial.resize(static_cast<std::size_t>(chunks()));
        if (!best && !a->ids) best = scratch<isize>(k());
        row.start(o, i);
    }
    void sweep(isize c) {
        const isize start = c * chunk, end = n() - start < chunk ? n() : start + chunk;
        partial[static_cast<std::size_t>(c)] = row.sweep(start, end);
    }
    bool next() {
        if (row.next(partial)) return true;
        if (a->ids) named();
        else most_probable();
        return false;
    }

  private:
    void put(isize at, isize c) const { a->out.store(row.outer, at, row.inner, c < 0 || c >= n() ? std::numeric_limits<double>::quiet_NaN() : row.log_p(c)); }

    void named() const {
        for (isize j = 0; j < k(); ++j) put(j, a->ids.label(row.outer, j, row.inner, n()));
    }

    void most_probable() {
        const bool defined = row.defined();
        if (defined) select();
        for (isize j = 0; j < k(); ++j) {
            const isize c = defined && j < held ? best[j] : j;
            *advance(a->indices.at(row.outer, row.inner), j * a->indices.n_stride) = c;
            put(j, c);
        }
    }

    // The k best in a heap, against whose worst every logit is compared, 64 at a time: seldom is one better, and the time is that of reading.
    void select() {
        using X = Vec<C>;
        const auto better = [&](isize p, isize q) {
            const C x = row.logit(p), y = row.logit(q);
            return x > y || (x == y && p < q);
        };
        held = 0;
        constexpr isize step = 64;
        Scratch<C> buffer(gather_block);
        for (isize at = 0; at < n(); at += gather_block) {
            const isize size = n() - at < gather_block ? n() - at : gather_block;
            const C *x = row.x.get(at, size, buffer);
            for (isize j = 0; j < size; j += step) {
                const isize some = size - j < step ? size - j : step;
                const bool full = held == k();
                if (full && (k() == 0 || !(span_max<X>(x + j, some) > row.logit(best[0])))) continue;
                for (isize m = j; m < j + some; ++m) {
                    if (held < k()) {
                        best[held++] = at + m;
                    } else if (k() && x[m] > row.logit(best[0])) {
                        std::pop_heap(best, best + held, better);
                        best[held - 1] = at + m;
                    } else {
                        continue;
                    }
                    std::push_heap(best, best + held, better);
                }
            }
        }
        std::sort_heap(best, best + held, better);
    }
};

template <class C, bool Scaled> isize further_memory(const LogprobsRow<C, Scaled> &row) { return row.k() * isize(sizeof(isize)); }

template <class C, bool Scaled> void logprobs_scaled(const LogprobsArguments &a, isize threads, Execute execute) {
    RowsWork<LogprobsRow<C, Scaled>> work(LogprobsRow<C, Scaled>(a), a.x.outer, a.x.inner, a.x.n, threads);
    execute(&work, threads);
}
inline void logprobs(const LogprobsArguments &a, isize threads, Execute execute) {
    with_compute({a.x.number}, [&](auto zero) {
        using C = decltype(zero);
        if (a.logits().plain()) logprobs_scaled<C, false>(a, threads, execute);
        else logprobs_scaled<C, true>(a, threads, execute);
    });
}

// ------------------------------------------------------------------------------------------------------------------ hardmax
template <class C> struct HardmaxRow {
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

inline void hardmax(const AnyView &x, const AnyView &out, isize threads, Execute execute) {
    with_compute({x.number, out.number}, [&](auto zero) {
        WholeRowsWork<HardmaxRow<decltype(zero)>> work({x, out}, x.outer, x.inner, x.n);
        execute(&work, threads);
    });
}

// -------------------------------------------------------------------------------------------------------------- temperature
// The sum over rows of w (log(sum exp(b x)) - b x_y) and its first two derivatives with respect to b: w (E[x] - x_y) and w Var[x] under softmax(b x).
struct Derivatives {
    Sum loss, first, second;
    void add(const Derivatives &other) { loss.add(other.loss), first.add(other.first), second.add(other.second); }
};

struct TemperatureRow {
    using X = Vec<double>;
    using V = X::V;
    struct Partial {
        double max;
        Sum total, mean, square;
    };

    AnyView x, labels, weight;
    double inverse;  // b
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
        LaneSums<X> totals, means, squares;
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
            each_vector<X>(size, [&](isize j, auto lanes) {
                const V d = lanes.load(v + j, absent_logit<double>) - top, e = exp_plain<X>(d * b);
                const V first = e == V{} ? V{} : e * d;
                totals.add(e), means.add(first), squares.add(e == V{} ? V{} : first * d);
            });
        }
        p.total = totals.total(), p.mean = means.total(), p.square = squares.total();
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
        const double w = weight ? weight.value(outer, inner) : 1, total = all.total.value(), mean = all.mean.value() / total;
        if (w == 0) return false;  // the row is left out, whatever it holds
        const isize y = labels.label(outer, 0, inner, n());
        const double label = y < 0 ? std::numeric_limits<double>::quiet_NaN() : x.value(outer, y, inner) - max;
        const double loss = w * (std::log(total) - inverse * label), first = w * (mean - label);
        const double second = w * (all.square.value() / total - mean * mean);
        (*sums)[static_cast<std::size_t>((outer * x.inner + inner) / rows_per_piece(n()))].add({{loss, 0}, {first, 0}, {second, 0}});
        return false;
    }
};

inline void temperature_derivatives(const AnyView &x, const AnyView &labels, const AnyView &weight, double inverse, double *results, isize threads,
                                    Execute execute) {
    PieceResults<Derivatives> sums(static_cast<std::size_t>((x.outer * x.inner + rows_per_piece(x.n) - 1) / rows_per_piece(x.n)));
    RowsWork<TemperatureRow> work({x, labels, weight, inverse, &sums}, x.outer, x.inner, x.n, threads);
    execute(&work, threads);
    Derivatives all;
    for (const Derivatives &d : sums) all.add(d);
    results[0] = all.loss.value(), results[1] = all.first.value(), results[2] = all.second.value();
}

}  // namespace fs
}  // namespace
