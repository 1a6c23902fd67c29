// The driver of operations that sum some terms over a row and then map its elements: results are a
// function of one or two inputs and of the row's sums. An operation says what is computed for a
// vector of numbers; every layout and length is here.
//
//     struct SumNormalize : RowMap<1, 1> {  // inputs, sums
//         template <class X> static FS_INLINE Vectors<X, 1> terms(typename X::V x) { return {x}; }
//         template <class X> static FS_INLINE typename X::V result(const Vectors<X, 1> &sums,
//         typename X::V x) { return x / sums[0]; }
//     };
#pragma once

#include "rows.h"
#include "transpose.h"

namespace {
namespace fs {

// Some vectors that go together: the inputs at some elements, their terms, the sums of their rows.
template <class X, int count>
struct Vectors {
    typename X::V v[count];

    FS_INLINE typename X::V operator[](int k) const { return v[k]; }
    friend FS_INLINE Vectors operator+(const Vectors &a, const Vectors &b) {
        return each([&](int k) FS_INLINE_LAMBDA { return a.v[k] + b.v[k]; });
    }
    // value(k) for each of them.
    template <class Value>
    static FS_INLINE Vectors each(Value value) {
        if constexpr (count == 1)
            return {{value(0)}};
        else
            return {{value(0), value(1)}};
    }
    static_assert(count == 1 || count == 2, "");
};

// What an operation has unless it says otherwise. Beside terms() and result() it may say
// * settled(sums): what is made of the sums once for a row; result() gets it in their place;
// * rescales: whether terms may overflow or underflow. Where lost(sums) says that they did, sums
// are made anew of inputs times
//   powers of two, one for each input, which bring the largest of a row to [1, 2). result() gets
//   these inputs, and restored(result, exponents of the powers) is what the row has.
template <int inputs_, int sums_>
struct RowMap {
    static constexpr int inputs = inputs_, sums = sums_;
    // terms of a column before they are added to the sum; vectors of a row, up to four
    static constexpr isize added_together = block;
    static constexpr bool has_temperature = false, rescales = false;

    template <class Sums>
    static FS_INLINE Sums settled(const Sums &sums) {
        return sums;
    }
    template <class X>
    static FS_INLINE typename X::V restored(typename X::V result, const typename X::I *) {
        return result;
    }
};

template <class Op>
constexpr isize in_rows = std::min(Op::added_together, added_by_fours);

// The operation's functions take inputs one by one.
template <class X, class Op>
FS_INLINE auto terms_of(const Vectors<X, Op::inputs> &in) {
    if constexpr (Op::inputs == 1)
        return Op::template terms<X>(in[0]);
    else
        return Op::template terms<X>(in[0], in[1]);
}
template <class X, class Op, class Settled>
FS_INLINE typename X::V result_of(const Settled &row, const Vectors<X, Op::inputs> &in) {
    if constexpr (Op::inputs == 1)
        return Op::template result<X>(row, in[0]);
    else
        return Op::template result<X>(row, in[0], in[1]);
}

struct RowMapArguments {
    AnyView input[2], out;           // operations of one input use the first
    View<const double> temperature;  // results are divided by it
    Mask where;                      // false: the inputs are 0, and so is the result

    void set_temperature(const double *p, const isize *shape, const isize *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }
    void set_where(const std::uint8_t *p, const isize *shape, const isize *strides) {
        where = Mask(p, shape, strides);
    }

    isize n() const { return out.n; }
    RowMapArguments swapped() const {
        return {{input[0].swapped(), input[1].swapped()},
                out.swapped(),
                temperature.swapped(),
                where.swapped()};
    }
    // Whether something is true of all arrays.
    template <class Op, class Test>
    bool all(Test test) const {
        return test(input[0]) && (Op::inputs == 1 || test(input[1])) && test(out);
    }
};

// --- powers of two -------------------------------------------------------------------------------
// As exponents with their bias: what power_of_two() takes.
template <class X>
FS_INLINE typename X::I biased_exponent(typename X::V v) {
    return (typename X::I)((typename X::U)bits<X>(absolute<X>(v)) >>
                           Format<typename X::Scalar>::mantissa);
}
// The power that brings v to [1, 2), or as near as powers reach whose quotients are, in two steps,
// normal numbers.
template <class X>
FS_INLINE typename X::I power_towards_one(typename X::V v) {
    constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias;
    const typename X::I wanted = 2 * bias - biased_exponent<X>(v), least = typename X::I{} + 2,
                        most = least + (2 * bias - 3);
    return wanted < least ? least : wanted > most ? most : wanted;
}
// The power whose square brings v to [1, 4).
template <class X>
FS_INLINE typename X::I half_power_towards_one(typename X::V v) {
    constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias;
    return bias + (bias + 1) / 2 - (typename X::I)((typename X::U)(biased_exponent<X>(v) + 1) >> 1);
}
// v 2^(a - b), without an overflow or underflow on the way.
template <class X>
FS_INLINE typename X::V times_quotient(typename X::V v, typename X::I a, typename X::I b) {
    const typename X::I both = a - b + 2 * Format<typename X::Scalar>::bias,
                        first = (typename X::I)((typename X::U)both >> 1);
    return v * power_of_two<X>(first) * power_of_two<X>(both - first);
}
// Whether v is a number from 2^-exponent to 2^exponent in size.
template <class X>
FS_INLINE typename X::I is_moderate(typename X::V v, int exponent) {
    using T = typename X::Scalar;
    constexpr int bias = Format<T>::bias;
    const auto power = [](int e) FS_INLINE_LAMBDA {
        return power_of_two<X>(typename X::I{} + (e + bias));
    };
    return (absolute<X>(v) >= power(-exponent)) & (absolute<X>(v) <= power(exponent));
}

// What inputs are multiplied by: nothing, or a power of two for each, of every row.
template <class X, int inputs>
struct Unscaled {
    static constexpr bool unscaled = true;
    FS_INLINE const Vectors<X, inputs> &apply(const Vectors<X, inputs> &in) const { return in; }
};
template <class X, int inputs>
struct PowersOfTwo {
    static constexpr bool unscaled = false;
    typename X::I exponent[inputs];  // biased

    // From the largest sizes of the inputs; 1 in lanes that need none.
    FS_INLINE PowersOfTwo(const Vectors<X, inputs> &largest, typename X::I wanted) {
        constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias;
        for (int k = 0; k < inputs; ++k)
            exponent[k] = wanted ? power_towards_one<X>(largest[k]) : typename X::I{} + bias;
    }
    FS_INLINE Vectors<X, inputs> apply(const Vectors<X, inputs> &in) const {
        return Vectors<X, inputs>::each(
            [&](int k) FS_INLINE_LAMBDA { return in[k] * power_of_two<X>(exponent[k]); });
    }
};

// The map of a row, or of one in each lane, when all about it is known.
template <class X, class Op, class Scales>
struct RowResult {
    using V = typename X::V;
    decltype(Op::settled(Vectors<X, Op::sums>())) row;
    Scales scales;
    V factor;  // 1 / temperature

    FS_INLINE RowResult(const Vectors<X, Op::sums> &sums, const Scales &scales_, V factor_)
        : row(Op::settled(sums)), scales(scales_), factor(factor_) {}
    FS_INLINE V operator()(const Vectors<X, Op::inputs> &in) const {
        V r = result_of<X, Op>(row, scales.apply(in));
        if constexpr (!Scales::unscaled) r = Op::template restored<X>(r, scales.exponent);
        return Op::has_temperature ? r * factor : r;
    }
};

// --- sums ----------------------------------------------------------------------------------------
template <class X, int count>
struct RowSums {
    LaneSums<X> sums[count];

    FS_INLINE void add(const Vectors<X, count> &terms) {
        for (int s = 0; s < count; ++s) sums[s].add(terms[s]);
    }
};

// Sizes of which the largest decides on the power of two. NaN is passed over.
template <class X, int inputs>
FS_INLINE void keep_larger(Vectors<X, inputs> &largest, const Vectors<X, inputs> &in) {
    for (int k = 0; k < inputs; ++k) largest.v[k] = larger(absolute<X>(in[k]), largest[k]);
}

// What is known of one row, in every lane.
template <class X, class Op>
struct OneRow {
    using T = typename X::Scalar;
    T sums[Op::sums], largest[Op::inputs];

    FS_INLINE Vectors<X, Op::sums> all_sums() const {
        return Vectors<X, Op::sums>::each([&](int s) FS_INLINE_LAMBDA { return X::set(sums[s]); });
    }
    FS_INLINE bool is_lost() const {
        if constexpr (Op::rescales)
            return any_lane<X>(Op::lost(all_sums()));
        else
            return false;
    }
    FS_INLINE PowersOfTwo<X, Op::inputs> powers() const {
        return {Vectors<X, Op::inputs>::each([&](int k)
                                                 FS_INLINE_LAMBDA { return X::set(largest[k]); }),
                ~typename X::I{}};
    }
};

// --- rows in batches -----------------------------------------------------------------------------
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
        each_vector<X>(
            whole, [&](isize at, auto) FS_INLINE_LAMBDA { X::store(out + at, result(in(at))); });
        if (whole < in.n) X::store(out + in.n - X::lanes, end);
    }
};

// --- long rows -----------------------------------------------------------------------------------
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
            each_vector<X>(size, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
                lanes.store(to + i, result(load(i, lanes)));
            });
            out.put(at, size, results);
        });
    }
};

// --- columns, short rows -------------------------------------------------------------------------
// A vector of columns at a time: those of tiles of the inner axis, where they are or gathered, and
// short rows across lanes.
template <class T, class Op>
struct MapTile {
    using X = Vec<T>;
    using V = typename X::V;
    using Inputs = Vectors<X, Op::inputs>;
    static constexpr isize width = tile_vectors * X::lanes;

    const RowMapArguments *a;
    bool direct;  // the columns are contiguous in memory

    void run(isize outer, isize first, isize count) const {
        const isize n = a->n(), size = sizeof(T);
        if (!direct && n <= short_row) return run_short(outer, first, count);
        const bool staged = !direct;
        const Scratch<T> room(staged ? Op::inputs * n * width : 0);
        Columns c;
        for (int k = 0; k < Op::inputs; ++k) {
            c.in[k] = gather_columns<T>(a->input[k], staged, outer, first, count, width,
                                        room + k * n * width, a->where, false, 0);
            c.step[k] = staged ? width : a->input[k].n_stride / size;
        }
        c.out = staged ? room : reinterpret_cast<T *>(a->out.at(outer, first));
        c.out_step = staged ? width : a->out.n_stride / size;
        for (isize at = 0; at < count; at += X::lanes) {
            if (count - at >= X::lanes)
                columns(c.from(at), outer, first + at, X::lanes, AllLanes<X>());
            else
                columns(c.from(at), outer, first + at, count - at, FirstLanes<X>{count - at});
        }
        if (staged) scatter_columns(a->out, outer, first, count, width, c.out, a->where, T(0));
    }

  private:
    struct Columns {
        const T *in[Op::inputs];
        T *out;
        isize step[Op::inputs], out_step;

        FS_INLINE Columns from(isize at) const {
            Columns c = *this;
            for (const T *&p : c.in) p += at;
            c.out += at;
            return c;
        }
        template <class Lanes>
        FS_INLINE Inputs load(isize i, Lanes lanes) const {
            return Inputs::each(
                [&](int k) FS_INLINE_LAMBDA { return lanes.load(in[k] + i * step[k], 0); });
        }
    };

    void run_short(isize outer, isize first, isize count) const {
        for (isize at = 0; at < count; at += X::lanes) {
            const isize size = count - at < X::lanes ? count - at : X::lanes;
            ShortRows<X> rows[Op::inputs];
            Columns c;
            for (int k = 0; k < Op::inputs; ++k) {
                rows[k].gather(a->input[k], outer, first + at, size, a->where, false, 0);
                c.in[k] = rows[k].columns, c.step[k] = X::lanes;
            }
            ShortRows<X> &results = rows[Op::inputs - 1];
            c.out = results.columns, c.out_step = X::lanes;
            columns(c, outer, first + at, size, AllLanes<X>());
            results.scatter(a->out, outer, first + at, size, a->where, T(0));
        }
    }

    // One vector of columns, `count` of which are there.
    template <class Lanes>
    void columns(const Columns &c, isize outer, isize first, isize count, Lanes lanes) const {
        const auto sums = sum(c, lanes, Unscaled<X, Op::inputs>());
        const V factor = factors(outer, first, count);
        if constexpr (Op::rescales) {
            const typename X::I lost =
                Op::lost(sums) & (X::indices() < static_cast<typename Format<T>::Int>(count));
            if (any_lane<X>(lost)) return rescaled(c, lanes, lost, factor);
        }
        write(c, lanes, RowResult<X, Op, Unscaled<X, Op::inputs>>(sums, {}, factor));
    }
    template <class Lanes>
    __attribute__((noinline)) void rescaled(const Columns &c, Lanes lanes, typename X::I lost,
                                            V factor) const {
        Inputs largest = {};
        for (isize i = 0; i < a->n(); ++i) keep_larger(largest, c.load(i, lanes));
        const PowersOfTwo<X, Op::inputs> scales(largest, lost);
        write(c, lanes,
              RowResult<X, Op, PowersOfTwo<X, Op::inputs>>(sum(c, lanes, scales), scales, factor));
    }
    template <class Lanes, class Scales>
    FS_INLINE Vectors<X, Op::sums> sum(const Columns &c, Lanes lanes, const Scales &scales) const {
        constexpr isize together = Op::added_together;
        const isize n = a->n();
        RowSums<X, Op::sums> sums;
        for (isize i = 0; i < n; i += together) {
            Vectors<X, Op::sums> some = {};
            for (isize j = i; j < n && j < i + together; ++j)
                some = some + terms_of<X, Op>(scales.apply(c.load(j, lanes)));
            sums.add(some);
        }
        return Vectors<X, Op::sums>::each([&](int s) FS_INLINE_LAMBDA {
            typename Vec<double>::V wide[wide_parts<X>];
            for (int k = 0; k < wide_parts<X>; ++k) {
                const auto sum = sums.sums[s].part(k);
                // the error of an infinite sum is NaN
                wide[k] = sum.hi + (sum.lo == sum.lo ? sum.lo : typename Vec<double>::V{});
            }
            return from_wide<X>(wide);
        });
    }
    template <class Lanes, class Result>
    FS_INLINE void write(const Columns &c, Lanes lanes, const Result &result) const {
        for (isize i = 0; i < a->n(); ++i)
            lanes.store(c.out + i * c.out_step, result(c.load(i, lanes)));
    }

    // 1 / temperature of each column.
    V factors(isize outer, isize first, isize count) const {
        if (!Op::has_temperature) return X::set(1);
        if (!a->temperature.outer_stride && !a->temperature.inner_stride)
            return X::set(static_cast<T>(1 / *a->temperature.data));
        V f = {};
        for (isize l = 0; l < count; ++l)
            f[l] = static_cast<T>(1 / *a->temperature.at(outer, first + l));
        return f;
    }
};

// --- which one -----------------------------------------------------------------------------------
template <class Op, class T>
void row_map_of(const RowMapArguments &a, isize threads) {
    using Tile = MapTile<T, Op>;
    const bool direct =
        !a.where.data && a.all<Op>([](const AnyView &v) { return columns_direct<T>(v); });
    const RowMapArguments s = a.swapped();
    const AnyView &x = a.input[0];
    const int lanes_run = short_rows_run(x, short_row);
    if (direct || lanes_run || columns_staged(x) || columns_staged(s.input[0])) {
        const RowMapArguments &t =
            direct || lanes_run == along_inner || (!lanes_run && columns_staged(x)) ? a : s;
        TilesWork<Tile> work(Tile{&t, direct}, t.out.outer, t.out.inner, Tile::width);
        return execute(work, threads);
    }
    const bool plain =
        !a.where.data && a.all<Op>([](const AnyView &v) { return v.template plain<T>(); });
    if (plain && a.n() >= Vec<T>::lanes && a.n() <= chunk) {
        const RowMapArguments &t = x.inner == 1 ? s : a;
        WholeRowsWork<MapRows<T, Op>> work(MapRows<T, Op>(t), t.out.outer, t.out.inner, t.n());
        return execute(work, threads);
    }
    RowsWork<MapRow<T, Op>> work(MapRow<T, Op>(a), x.outer, x.inner, x.n, threads);
    execute(work, threads);
}

template <class Op>
void row_map(Op, const RowMapArguments &a, isize threads) {
    const Number first = a.input[0].number;
    with_compute({first, Op::inputs == 1 ? first : a.input[1].number, a.out.number},
                 [&](auto zero) { row_map_of<Op, decltype(zero)>(a, threads); });
}

}  // namespace fs
}  // namespace
