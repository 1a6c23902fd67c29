// Vector-Jacobian products of softmax and log_softmax from their outputs: one sum per row, one sweep to write.
#pragma once

#include "rows.h"
#include "transpose.h"

namespace {
namespace fs {

struct VjpArguments {
    AnyView g, y, out;
    View<const double> temperature;

    void set_temperature(const double *p, const isize *shape, const isize *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }

    VjpArguments swapped() const { return {g.swapped(), y.swapped(), out.swapped(), temperature.swapped()}; }
};

// y = softmax(x):      y (g - sum(g y)) / temperature
struct SoftmaxVjp {
    template <class X> static FS_INLINE typename X::V term(typename X::V g, typename X::V y) { return g * y; }
    template <class X> static FS_INLINE typename X::V result(typename X::V g, typename X::V y, typename X::V sum) { return y * (g - sum); }
};

// y = log_softmax(x):  (g - exp(y) sum(g)) / temperature
struct LogSoftmaxVjp {
    template <class X> static FS_INLINE typename X::V term(typename X::V g, typename X::V) { return g; }
    template <class X> static FS_INLINE typename X::V result(typename X::V g, typename X::V y, typename X::V sum) {
        return g - exp_plain<X>(y) * sum;
    }
};

// Contiguous rows of at least a vector and at most a chunk, a batch at a time, so that none waits for its sum.
template <class T, class Op> struct VjpRows {
    using X = Vec<T>;
    using V = typename X::V;
    static constexpr isize most = 16;  // rows of a batch
    const VjpArguments *a;

    explicit VjpRows(const VjpArguments &arguments) : a(&arguments) {}

    isize n() const { return a->g.n; }
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
    static FS_INLINE const T *at(const AnyView &v, isize o, isize i) { return reinterpret_cast<const T *>(v.at(o, i)); }

    void batch(isize o, isize i, isize count) const {
        typename LaneSums<X>::Unfolded sums[most];
        Totals<most> total;
        for (isize k = 0; k < count; ++k) sums[k] = sum(at(a->g, o, i + k), at(a->y, o, i + k));
        total.template set<X>(sums, count);
        for (isize k = 0; k < count; ++k) {
            const double inverse = 1 / *a->temperature.at(o, i + k);
            write(at(a->g, o, i + k), at(a->y, o, i + k), const_cast<T *>(at(a->out, o, i + k)), total[k].value(), inverse);
        }
    }
    // The last vector overlaps the one before.
    FS_INLINE typename LaneSums<X>::Unfolded sum(const T *g, const T *y) const {
        const isize n = a->g.n;
        LaneSums<X> sums;
        sum_vectors<X>(n, sums, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
            if constexpr (decltype(lanes)::whole) return Op::template term<X>(X::load(g + i), X::load(y + i));
            else return X::last(Op::template term<X>(X::load(g + n - X::lanes), X::load(y + n - X::lanes)), n - i);
        });
        return sums.unfolded();
    }
    FS_INLINE void write(const T *g, const T *y, T *out, double sum, double inverse) const {
        const isize n = a->g.n, whole = n / X::lanes * X::lanes;
        const V total = X::set(static_cast<T>(sum)), factor = X::set(static_cast<T>(inverse));
        const auto result = [&](isize i) FS_INLINE_LAMBDA { return Op::template result<X>(X::load(g + i), X::load(y + i), total) * factor; };
        const V end = result(n - X::lanes);  // before results, which may take the place of g or y
        each_vector<X>(whole, [&](isize i, auto) FS_INLINE_LAMBDA { X::store(out + i, result(i)); });
        if (whole < n) X::store(out + n - X::lanes, end);
    }
};

template <class T, class Op> struct VjpRow {
    using X = Vec<T>;
    const VjpArguments *a;
    Reader<T> g{}, y{};
    Writer<T> out{};
    T sum = 0, inverse = 0;
    bool writing = false;
    ChunkResults<Sum> partial;

    explicit VjpRow(const VjpArguments &arguments) : a(&arguments) {}

    isize n() const { return a->g.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }

    void start(isize o, isize i) {
        partial.resize(static_cast<std::size_t>(chunks()));
        g = Reader<T>(a->g, o, i), y = Reader<T>(a->y, o, i), out = Writer<T>(a->out, o, i);
        inverse = static_cast<T>(1 / *a->temperature.at(o, i));
        writing = false;
    }

    void sweep(isize k) {
        const isize start = k * chunk, count = n() - start < chunk ? n() - start : chunk;
        const isize step = g.direct() && y.direct() && out.direct() ? count : gather_block;
        Scratch<T> g_buffer(gather_block), y_buffer(gather_block), results(gather_block);
        LaneSums<X> sums;
        const auto total = X::set(sum), factor = X::set(inverse);
        for (isize at = start; at < start + count; at += step) {
            const isize size = start + count - at < step ? start + count - at : step;
            const T *gs = g.get(at, size, g_buffer), *ys = y.get(at, size, y_buffer);
            if (!writing) {
                sum_vectors<X>(size, sums, [&](isize i, auto lanes) {
                    return Op::template term<X>(lanes.load(gs + i, 0), lanes.load(ys + i, 0));
                });
                continue;
            }
            T *to = out.place(at, results);
            each_vector<X>(size, [&](isize i, auto lanes) {
                lanes.store(to + i, Op::template result<X>(lanes.load(gs + i, 0), lanes.load(ys + i, 0), total) * factor);
            });
            out.put(at, size, results);
        }
        if (!writing) partial[static_cast<std::size_t>(k)] = sums.total();
    }

    bool next() {
        if (writing) return false;
        Sum s;
        for (isize k = 0; k < chunks(); ++k) s.add(partial[static_cast<std::size_t>(k)]);
        sum = static_cast<T>(s.value());
        return writing = true;
    }
};

template <class T, class Op> struct VjpTile {
    using X = Vec<T>;
    using V = typename X::V;
    static constexpr isize width = tile_vectors * X::lanes;

    const VjpArguments *a;
    bool direct;  // the columns are contiguous in memory

    void run(isize outer, isize first, isize count) const {
        const isize n = a->g.n;
        if (!direct && n <= short_row) return run_short(outer, first, count);
        const bool staged = !direct;
        const Scratch<T> room(staged ? 2 * n * width : 0);
        T *buffer = room;
        T *out = staged ? buffer : reinterpret_cast<T *>(a->out.at(outer, first));
        const T *g = gather_columns(a->g, staged, outer, first, count, width, buffer);
        const T *y = gather_columns(a->y, staged, outer, first, count, width, buffer + n * width);
        const isize size = sizeof(T);
        const isize g_step = staged ? width : a->g.n_stride / size, y_step = staged ? width : a->y.n_stride / size,
                    out_step = staged ? width : a->out.n_stride / size;
        for (isize at = 0; at < count; at += X::lanes) {
            if (count - at >= X::lanes) columns(g + at, g_step, y + at, y_step, out + at, out_step, outer, first + at, X::lanes, AllLanes<X>());
            else columns(g + at, g_step, y + at, y_step, out + at, out_step, outer, first + at, count - at, FirstLanes<X>{count - at});
        }
        if (staged) scatter_columns(a->out, outer, first, count, width, buffer, Mask(), T(0));
    }

    void run_short(isize outer, isize first, isize count) const {
        for (isize at = 0; at < count; at += X::lanes) {
            const isize size = count - at < X::lanes ? count - at : X::lanes;
            ShortRows<X> g, y;
            g.gather(a->g, outer, first + at, size);
            y.gather(a->y, outer, first + at, size);
            columns(g.columns, X::lanes, y.columns, X::lanes, y.columns, X::lanes, outer, first + at, size, AllLanes<X>());
            y.scatter(a->out, outer, first + at, size);
        }
    }

    // One vector of columns.
    template <class Lanes>
    void columns(const T *g, isize g_step, const T *y, isize y_step, T *out, isize out_step, isize outer, isize first, isize count,
                 Lanes lanes) const {
        const isize n = a->g.n;
        LaneSums<X> sums;
        for (isize i = 0; i < n; i += block) {
            V s = {};
            for (isize j = i; j < n && j < i + block; ++j) {
                s = s + Op::template term<X>(lanes.load(g + j * g_step, 0), lanes.load(y + j * y_step, 0));
            }
            sums.add(s);
        }
        typename Vec<double>::V wide[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) wide[k] = sums.part(k).hi + sums.part(k).lo;
        const V total = from_wide<X>(wide), factor = factors(outer, first, count);
        for (isize i = 0; i < n; ++i) {
            const V r = Op::template result<X>(lanes.load(g + i * g_step, 0), lanes.load(y + i * y_step, 0), total);
            lanes.store(out + i * out_step, r * factor);
        }
    }

    // 1 / temperature of each column.
    V factors(isize outer, isize first, isize count) const {
        if (!a->temperature.outer_stride && !a->temperature.inner_stride) return X::set(static_cast<T>(1 / *a->temperature.data));
        V f = {};
        for (isize l = 0; l < count; ++l) f[l] = static_cast<T>(1 / *a->temperature.at(outer, first + l));
        return f;
    }
};

template <class Op, class T> void vjp_of(const VjpArguments &a, isize threads, Execute execute) {
    using Tile = VjpTile<T, Op>;
    const bool direct = columns_direct<T>(a.g) && columns_direct<T>(a.y) && columns_direct<T>(a.out);
    const VjpArguments s = a.swapped();
    const int lanes_run = short_rows_run(a.g, short_row);
    if (direct || lanes_run || columns_staged(a.g) || columns_staged(s.g)) {
        const VjpArguments &t = direct || lanes_run == along_inner || (!lanes_run && columns_staged(a.g)) ? a : s;
        TilesWork<Tile> work(Tile{&t, direct}, t.g.outer, t.g.inner, Tile::width);
        return execute(&work, threads);
    }
    if (a.g.n >= Vec<T>::lanes && a.g.n <= chunk && a.g.plain<T>() && a.y.plain<T>() && a.out.plain<T>()) {
        const VjpArguments &t = a.g.inner == 1 ? s : a;
        WholeRowsWork<VjpRows<T, Op>> work(VjpRows<T, Op>(t), t.g.outer, t.g.inner, t.g.n);
        return execute(&work, threads);
    }
    RowsWork<VjpRow<T, Op>> work(VjpRow<T, Op>(a), a.g.outer, a.g.inner, a.g.n, threads);
    execute(&work, threads);
}

template <class Op> void vjp(Op, const VjpArguments &a, isize threads, Execute execute) {
    with_compute({a.g.number, a.y.number, a.out.number}, [&](auto zero) { vjp_of<Op, decltype(zero)>(a, threads, execute); });
}

}  // namespace fs
}  // namespace
