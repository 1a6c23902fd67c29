// Contiguous rows of operations that map a row by sums of it: batches, and long rows.
#pragma once

#include "kernels/drivers/row_batch.h"
#include "kernels/drivers/row_map_operation.h"
#include "kernels/drivers/row_tasks.h"
#include "kernels/memory/line.h"

namespace {
namespace fs {

// Contiguous rows of at least a vector and at most a chunk, a batch at a time, so that none waits
// for its sum.
template <class T, class Op>
struct MapRows {
    using X = Vec<T>;
    using V = typename X::V;
    using Inputs = Vectors<X, Op::inputs>;
    using Unfolded = typename LaneSums<X>::Unfolded;
    static constexpr isize most = 16;  // rows of a batch
    const RowMapArguments *a;

    explicit MapRows(const RowMapArguments &arguments) : a(&arguments) {}

    isize n() const { return a->n(); }
    void begin(isize) {}
    void end() {}
    void rows(isize o, isize i, isize count) const {
        const isize limit = rows_of_batch(batch_elements, n(), most);
        for (isize some; count > 0; i += some, count -= some) {
            some = count < limit ? count : limit;
            batch(o, i, some);
        }
    }

  private:
    // The inputs of a row.
    struct Line {
        const T *p[Op::inputs];
        isize n;

        FS_INLINE Inputs operator()(isize at) const {
            return Inputs::each([&](int k) FS_INLINE_LAMBDA { return X::load(p[k] + at); });
        }
        // it overlaps the one before
        FS_INLINE Inputs last() const { return (*this)(n - X::lanes); }
    };
    Line line(isize o, isize i) const {
        Line l;
        for (int k = 0; k < Op::inputs; ++k)
            l.p[k] = reinterpret_cast<const T *>(a->input[k].at(o, i));
        l.n = n();
        return l;
    }

    void batch(isize o, isize i, isize count) const {
        Unfolded sums[Op::sums][most];
        Totals<most> total[Op::sums];
        for (isize r = 0; r < count; ++r) {
            const auto row = sum(line(o, i + r), Unscaled<X, Op::inputs>());
            for (int s = 0; s < Op::sums; ++s) sums[s][r] = row.sums[s].unfolded();
        }
        for (int s = 0; s < Op::sums; ++s) total[s].template set<X>(sums[s], count);
        for (isize r = 0; r < count; ++r) {
            OneRow<X, Op> row;
            for (int s = 0; s < Op::sums; ++s) row.sums[s] = static_cast<T>(total[s][r].value());
            if (row.is_lost())
                rescaled(o, i + r);
            else
                write(o, i + r, row, Unscaled<X, Op::inputs>());
        }
    }
    __attribute__((noinline)) void rescaled(isize o, isize i) const {
        if constexpr (Op::rescales) {
            const Line in = line(o, i);
            Inputs largest = {};
            for (isize at = 0; at + X::lanes <= n(); at += X::lanes) keep_larger(largest, in(at));
            keep_larger(largest, in.last());
            OneRow<X, Op> row;
            for (int k = 0; k < Op::inputs; ++k) row.largest[k] = largest_lane<X>(largest[k]);
            const auto sums = sum(in, row.powers());
            for (int s = 0; s < Op::sums; ++s)
                row.sums[s] = static_cast<T>(sums.sums[s].total().value());
            write(o, i, row, row.powers());
        }
    }
    template <class Scales>
    FS_INLINE RowSums<X, Op::sums> sum(const Line &in, const Scales &scales) const {
        RowSums<X, Op::sums> sums;
        sum_vectors<X, in_rows<Op>>(in.n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
            if constexpr (decltype(lanes)::whole) {
                return terms_of<X, Op>(scales.apply(in(i)));
            } else {
                const auto terms = terms_of<X, Op>(scales.apply(in.last()));
                return decltype(terms_of<X, Op>(in(i)))::each(
                    [&](int s) FS_INLINE_LAMBDA { return X::last(terms[s], in.n - i); });
            }
        });
        return sums;
    }
    template <class Scales>
    FS_INLINE void write(isize o, isize i, const OneRow<X, Op> &row, const Scales &scales) const {
        const Line in = line(o, i);
        const isize whole = in.n / X::lanes * X::lanes;
        const double inverse = Op::has_temperature ? 1 / *a->temperature.at(o, i) : 1;
        const RowResult<X, Op, Scales> result(row.all_sums(), scales,
                                              X::set(static_cast<T>(inverse)));
        T *out = reinterpret_cast<T *>(a->out.at(o, i));
        const V end = result(in.last());  // before results, which may take the place of inputs
        map_vectors<X, Op::computes>(
            whole, [&](isize at, auto) FS_INLINE_LAMBDA { return result(in(at)); },
            [&](isize at, auto, V y) FS_INLINE_LAMBDA { X::store(out + at, y); });
        if (whole < in.n) X::store(out + in.n - X::lanes, end);
    }
};

// Rows of any length and layout, one after another or in chunks.
template <class T, class Op>
struct MapRow {
    using X = Vec<T>;
    using Inputs = Vectors<X, Op::inputs>;
    enum Stage { summing, measuring, writing };
    struct Partial {
        Sum sums[Op::sums];
        T largest[Op::inputs];
    };

    const RowMapArguments *a;
    Reader<T> in[Op::inputs];
    Writer<T> out{};
    OneRow<X, Op> row{};
    T inverse = 1;
    Stage stage = summing;
    bool rescaled = false;
    ChunkResults<Partial> partial;

    explicit MapRow(const RowMapArguments &arguments) : a(&arguments) {}

    isize n() const { return a->n(); }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        partial.resize(static_cast<std::size_t>(chunks()));
        out = Writer<T>(a->out, o, i);
        if (a->where.data) out.mask = a->where.at(o, i), out.mask_stride = a->where.n_stride;
        for (int k = 0; k < Op::inputs; ++k) {
            in[k] = Reader<T>(a->input[k], o, i);
            in[k].mask = out.mask, in[k].mask_stride = out.mask_stride, in[k].absent = 0;
        }
        if (Op::has_temperature) inverse = static_cast<T>(1 / *a->temperature.at(o, i));
        stage = summing, rescaled = false;
    }

    void sweep(isize k) {
        Partial &mine = partial[static_cast<std::size_t>(k)];
        if constexpr (Op::rescales) {
            if (stage == measuring) return measure(k, mine);
            if (rescaled)
                return stage == summing ? sum(k, row.powers(), mine) : write(k, row.powers());
        }
        if (stage == summing)
            sum(k, Unscaled<X, Op::inputs>(), mine);
        else
            write(k, Unscaled<X, Op::inputs>());
    }

    bool next() {
        if (stage == writing) return false;
        if constexpr (Op::rescales) {
            if (stage == measuring) return settle_largest(), stage = summing, rescaled = true;
        }
        for (int s = 0; s < Op::sums; ++s) {
            Sum all;
            for (const Partial &p : partial) all.add(p.sums[s]);
            row.sums[s] = static_cast<T>(all.value());
        }
        stage = !rescaled && row.is_lost() ? measuring : writing;
        return true;
    }

  private:
    void settle_largest() {
        for (int k = 0; k < Op::inputs; ++k) {
            row.largest[k] = 0;
            for (const Partial &p : partial)
                row.largest[k] = std::max(row.largest[k], p.largest[k]);
        }
    }
    // body(first element, how many, load) for the blocks of a chunk; load(i, lanes) has the inputs
    // from the i-th on.
    template <class Body>
    FS_INLINE void each_block(isize k, Body body) const {
        const isize start = k * chunk, end = n() - start < chunk ? n() : start + chunk;
        bool direct = out.direct();
        for (const Reader<T> &r : in) direct &= r.direct();
        const isize step = direct ? end - start : gather_block;
        Scratch<T> buffer(Op::inputs * gather_block);
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const T *from[Op::inputs];
            for (int j = 0; j < Op::inputs; ++j)
                from[j] = in[j].get(at, size, buffer + j * gather_block);
            body(at, size, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
                return Inputs::each([&](int j)
                                        FS_INLINE_LAMBDA { return lanes.load(from[j] + i, 0); });
            });
        }
    }
    template <class Scales>
    void sum(isize k, const Scales &scales, Partial &mine) const {
        RowSums<X, Op::sums> sums;
        each_block(k, [&](isize, isize size, auto load) FS_INLINE_LAMBDA {
            sum_vectors<X, in_rows<Op>>(size, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
                return terms_of<X, Op>(scales.apply(load(i, lanes)));
            });
        });
        for (int s = 0; s < Op::sums; ++s) mine.sums[s] = sums.sums[s].total();
    }
    void measure(isize k, Partial &mine) const {
        Inputs largest = {};
        each_block(k, [&](isize, isize size, auto load) FS_INLINE_LAMBDA {
            each_vector<X>(size, [&](isize i, auto lanes)
                                     FS_INLINE_LAMBDA { keep_larger(largest, load(i, lanes)); });
        });
        for (int j = 0; j < Op::inputs; ++j) mine.largest[j] = largest_lane<X>(largest[j]);
    }
    template <class Scales>
    void write(isize k, const Scales &scales) const {
        Scratch<T> results(gather_block);
        const RowResult<X, Op, Scales> result(row.all_sums(), scales, X::set(inverse));
        each_block(k, [&](isize at, isize size, auto load) FS_INLINE_LAMBDA {
            T *to = out.place(at, results);
            map_vectors<X, Op::computes>(
                size, [&](isize i, auto lanes) FS_INLINE_LAMBDA { return result(load(i, lanes)); },
                [&](isize i, auto lanes, typename X::V y)
                    FS_INLINE_LAMBDA { lanes.store(to + i, y); });
            out.put(at, size, results);
        });
    }
};

}  // namespace fs
}  // namespace
