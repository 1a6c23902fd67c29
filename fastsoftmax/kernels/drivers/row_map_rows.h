// Contiguous rows of operations that map a row by sums of it: batches, and long rows.
#pragma once

#include "kernels/drivers/long_rows.h"
#include "kernels/drivers/row_batch.h"
#include "kernels/drivers/row_map_operation.h"
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
    using Unfolded = typename Accumulator<X>::Unfolded;
    static constexpr Index most = 16;  // rows of a batch
    const RowMapArguments *a;

    explicit MapRows(const RowMapArguments &arguments) : a(&arguments) {}

    Index n() const { return a->n(); }
    void begin(Index) {}
    void end() {}
    void rows(Index o, Index i, Index count) const {
        const Index limit = rows_of_batch(batch_elements, n(), most);
        for (Index some; count > 0; i += some, count -= some) {
            some = count < limit ? count : limit;
            batch(o, i, some);
        }
    }

  private:
    // The inputs of a row.
    struct Line {
        const T *p[Op::inputs];
        Index n;

        FS_ALWAYS_INLINE Inputs operator()(Index at) const {
            return Inputs::each([&](int k) FS_ALWAYS_INLINE { return X::load(p[k] + at); });
        }
        // it overlaps the one before
        FS_ALWAYS_INLINE Inputs last() const { return (*this)(n - X::lanes); }
    };
    Line line(Index o, Index i) const {
        Line l;
        for (int k = 0; k < Op::inputs; ++k)
            l.p[k] = reinterpret_cast<const T *>(a->input[k].at(o, i));
        l.n = n();
        return l;
    }

    void batch(Index o, Index i, Index count) const {
        Unfolded sums[Op::sums][most];
        RowTotals<most> total[Op::sums];
        for (Index r = 0; r < count; ++r) {
            const auto row = sum(line(o, i + r), Unscaled<X, Op::inputs>());
            for (int s = 0; s < Op::sums; ++s) sums[s][r] = row.sums[s].unfolded();
        }
        for (int s = 0; s < Op::sums; ++s) total[s].template set<X>(sums[s], count);
        for (Index r = 0; r < count; ++r) {
            OneRow<X, Op> row;
            for (int s = 0; s < Op::sums; ++s) row.sums[s] = static_cast<T>(total[s][r].value());
            if (row.is_lost())
                rescaled(o, i + r);
            else
                write(o, i + r, row, Unscaled<X, Op::inputs>());
        }
    }
    __attribute__((noinline)) void rescaled(Index o, Index i) const {
        if constexpr (Op::rescales) {
            const Line in = line(o, i);
            Inputs largest = {};
            for (Index at = 0; at + X::lanes <= n(); at += X::lanes) keep_larger(largest, in(at));
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
    FS_ALWAYS_INLINE RowSums<X, Op::sums> sum(const Line &in, const Scales &scales) const {
        RowSums<X, Op::sums> sums;
        sum_vectors<X, in_rows<Op>>(in.n, sums, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
            if constexpr (decltype(lanes)::whole) {
                return terms_of<X, Op>(scales.apply(in(i)));
            } else {
                const auto terms = terms_of<X, Op>(scales.apply(in.last()));
                return decltype(terms_of<X, Op>(in(i)))::each(
                    [&](int s) FS_ALWAYS_INLINE { return X::last(terms[s], in.n - i); });
            }
        });
        return sums;
    }
    template <class Scales>
    FS_ALWAYS_INLINE void write(Index o, Index i, const OneRow<X, Op> &row,
                                const Scales &scales) const {
        const Line in = line(o, i);
        const Index whole = in.n / X::lanes * X::lanes;
        const double inverse = Op::has_temperature ? 1 / *a->temperature.at(o, i) : 1;
        const RowResult<X, Op, Scales> result(row.all_sums(), scales,
                                              X::set(static_cast<T>(inverse)));
        T *out = reinterpret_cast<T *>(a->out.at(o, i));
        const V end = result(in.last());  // before results, which may take the place of inputs
        map_vectors<X, Op::computes>(
            whole, [&](Index at, auto) FS_ALWAYS_INLINE { return result(in(at)); },
            [&](Index at, auto, V y) FS_ALWAYS_INLINE { X::store(out + at, y); });
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
        DoubleDouble<> sums[Op::sums] = {};
        T largest[Op::inputs] = {};
        void add(const Partial &p) {
            for (int s = 0; s < Op::sums; ++s) sums[s].add(p.sums[s]);
            for (int k = 0; k < Op::inputs; ++k) largest[k] = std::max(largest[k], p.largest[k]);
        }
    };

    const RowMapArguments *a;
    InputLine<T> in[Op::inputs];
    OutputLine<T> out{};
    OneRow<X, Op> row{};
    T inverse = 1;
    Stage stage = summing;
    bool rescaled = false;

    explicit MapRow(const RowMapArguments &arguments) : a(&arguments) {}

    Index n() const { return a->n(); }

    void start(Index o, Index i) {
        out = OutputLine<T>(a->out, o, i);
        if (a->where.data) out.mask = a->where.at(o, i), out.mask_stride = a->where.n_stride;
        for (int k = 0; k < Op::inputs; ++k) {
            in[k] = InputLine<T>(a->input[k], o, i);
            in[k].mask = out.mask, in[k].mask_stride = out.mask_stride, in[k].absent = 0;
        }
        if (Op::has_temperature) inverse = static_cast<T>(1 / *a->temperature.at(o, i));
        stage = summing, rescaled = false;
    }

    void sweep(Index start, Index end, Partial &p) {
        if constexpr (Op::rescales) {
            if (stage == measuring) return measure(start, end, p);
            if (rescaled)
                return stage == summing ? sum(start, end, row.powers(), p)
                                        : write(start, end, row.powers());
        }
        if (stage == summing)
            sum(start, end, Unscaled<X, Op::inputs>(), p);
        else
            write(start, end, Unscaled<X, Op::inputs>());
    }

    bool next(const ChunkResults<Partial> &partial) {
        if (stage == writing) return false;
        const Partial all = merged(partial);
        if constexpr (Op::rescales) {
            if (stage == measuring) {
                for (int k = 0; k < Op::inputs; ++k) row.largest[k] = all.largest[k];
                return stage = summing, rescaled = true;
            }
        }
        for (int s = 0; s < Op::sums; ++s) row.sums[s] = static_cast<T>(all.sums[s].value());
        stage = !rescaled && row.is_lost() ? measuring : writing;
        return true;
    }

  private:
    // body(first element, how many, load) for the blocks of a chunk; load(i, lanes) has the inputs
    // from the i-th on.
    template <class Body>
    FS_ALWAYS_INLINE void each_block(Index start, Index end, Body body) const {
        bool direct = out.direct();
        for (const InputLine<T> &r : in) direct &= r.direct();
        const Index step = direct ? end - start : gather_block;
        Scratch<T> buffer(Op::inputs * gather_block);
        for_each_block(start, end, step, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const T *from[Op::inputs];
            for (int j = 0; j < Op::inputs; ++j)
                from[j] = in[j].load_block(at, size, buffer + j * gather_block);
            body(at, size, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
                return Inputs::each([&](int j)
                                        FS_ALWAYS_INLINE { return lanes.load(from[j] + i, 0); });
            });
        });
    }
    template <class Scales>
    void sum(Index start, Index end, const Scales &scales, Partial &p) const {
        RowSums<X, Op::sums> sums;
        each_block(start, end, [&](Index, Index size, auto load) FS_ALWAYS_INLINE {
            sum_vectors<X, in_rows<Op>>(size, sums, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
                return terms_of<X, Op>(scales.apply(load(i, lanes)));
            });
        });
        for (int s = 0; s < Op::sums; ++s) p.sums[s] = sums.sums[s].total();
    }
    void measure(Index start, Index end, Partial &p) const {
        Inputs largest = {};
        each_block(start, end, [&](Index, Index size, auto load) FS_ALWAYS_INLINE {
            for_each_vector<X>(size, [&](Index i, auto lanes) FS_ALWAYS_INLINE {
                keep_larger(largest, load(i, lanes));
            });
        });
        for (int j = 0; j < Op::inputs; ++j) p.largest[j] = largest_lane<X>(largest[j]);
    }
    template <class Scales>
    void write(Index start, Index end, const Scales &scales) const {
        Scratch<T> results(gather_block);
        const RowResult<X, Op, Scales> result(row.all_sums(), scales, X::set(inverse));
        each_block(start, end, [&](Index at, Index size, auto load) FS_ALWAYS_INLINE {
            T *to = out.block_for(at, results);
            map_vectors<X, Op::computes>(
                size, [&](Index i, auto lanes) FS_ALWAYS_INLINE { return result(load(i, lanes)); },
                [&](Index i, auto lanes, typename X::V y)
                    FS_ALWAYS_INLINE { lanes.store(to + i, y); });
            out.store_block(at, size, results);
        });
    }
};

}  // namespace fs
}  // namespace
