// softmax, log_softmax, logsumexp and the gradient of logsumexp: one maximum, one sum of exponentials, one way out.
#pragma once

#include "vlog.h"
#include "work.h"

namespace {
namespace fs {

enum class Result { softmax, log_softmax, logsumexp, logsumexp_vjp };

// The same as types, by which Cython names them.
struct Softmax { static constexpr Result result = Result::softmax; };
struct LogSoftmax { static constexpr Result result = Result::log_softmax; };
struct LogSumExp { static constexpr Result result = Result::logsumexp; };
struct LogSumExpVjp { static constexpr Result result = Result::logsumexp_vjp; };

constexpr bool takes_logarithm(Result r) { return r == Result::log_softmax || r == Result::logsumexp; }

template <class In, class Out> struct NormalizeArguments {
    View<const In> x;
    View<Out> out;                  // one value per row for logsumexp
    View<const double> temperature = View<const double>::one();  // a value per row; a negative one stands for the softmax of -x
    View<const Out> gradient;       // logsumexp_vjp: one value per row
    Mask where;
    Factor ln_base{1, 0};

    void set_x(const In *p, const isize *shape, const isize *strides) { x = {p, shape, strides}; }
    void set_out(Out *p, const isize *shape, const isize *strides) { out = {p, shape, strides}; }
    void set_reduced_out(Out *p, const isize *shape, const isize *strides) { out = View<Out>::per_row(p, shape, strides); }
    void set_gradient(const Out *p, const isize *shape, const isize *strides) { gradient = View<const Out>::per_row(p, shape, strides); }
    void set_temperature(const double *p, const isize *shape, const isize *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }
    void set_where(const std::uint8_t *p, const isize *shape, const isize *strides) { where = {p, shape, strides}; }
    void set_ln_base(double hi, double lo) { ln_base = {hi, lo}; }

    NormalizeArguments swapped() const {
        NormalizeArguments a = *this;
        a.x = x.swapped(), a.out = out.swapped(), a.temperature = temperature.swapped(), a.gradient = gradient.swapped();
        a.where = where.swapped();
        return a;
    }
    // No row is scaled: temperature 1 throughout and base e.
    bool plain() const {
        if (!ln_base.is_one()) return false;
        for (isize o = 0; o < (temperature.outer_stride ? temperature.outer : 1); ++o) {
            for (isize i = 0; i < (temperature.inner_stride ? temperature.inner : 1); ++i) {
                if (*temperature.at(o, i) != 1) return false;
            }
        }
        return true;
    }
    bool negative() const { return *temperature.data < 0; }
    Factor inverse_temperature(isize o, isize i) const { return quotient({1, 0}, *temperature.at(o, i)); }
    Factor scale(isize o, isize i) const { return quotient(ln_base, *temperature.at(o, i)); }

    using C = Compute<In, Out>;
    template <Result R> static C absent() { return R == Result::log_softmax ? -std::numeric_limits<C>::infinity() : C(0); }

    Reader<In, C> reader(isize o, isize i) const {
        const isize stride = x.n == 1 ? isize(sizeof(In)) : x.n_stride;
        return {x.at(o, i), stride, where.data ? where.at(o, i) : nullptr, where.n_stride, negative()};
    }
    template <Result R> Writer<Out, C> writer(isize o, isize i) const {
        const isize stride = out.n == 1 ? isize(sizeof(Out)) : out.n_stride;
        return {out.at(o, i), stride, where.data ? where.at(o, i) : nullptr, where.n_stride, absent<R>()};
    }
    // f m in two terms.
    static Factor product(Factor f, double m) {
        using D = Vec<double, 16>;
        const double hi = m * f.hi;
        return {hi, multiply_subtract_exact<D>(D::set(m), D::set(f.hi), D::set(hi))[0] + m * f.lo};
    }

  private:
    // a / |t| in two terms.
    static Factor quotient(Factor a, double t) {
        using D = Vec<double, 16>;
        t = t < 0 ? -t : t;
        const double hi = a.hi / t;
        const double residue = -multiply_subtract_exact<D>(D::set(hi), D::set(t), D::set(a.hi))[0];
        return {hi, (residue + a.lo) / t};
    }
};

// e -> e * numerator / total. The quotient is kept in two terms, which saves a rounding error of its own; where arithmetic is not fused, softmax
// divides instead (the exponential's error is larger there).
template <class X, Result R> struct Normalizer {
    using T = typename X::Scalar;
    static constexpr bool divides = R == Result::softmax && !FS_HAS_FMA;
    typename X::V hi, lo;

    void set_lane(isize l, double numerator, Sum total) {
        using D = Vec<double, 16>;
        const double s = total.value(), q = numerator / s;
        const double residue = -multiply_subtract_exact<D>(D::set(q), D::set(total.hi), D::set(numerator))[0] - q * total.lo;
        hi[l] = static_cast<T>(divides ? s : q);
        const T low = static_cast<T>((q - static_cast<double>(hi[l])) + residue / s);
        lo[l] = low - low == 0 ? low : T(0);
    }
    void broadcast() { hi = X::set(hi[0]), lo = X::set(lo[0]); }
    FS_INLINE typename X::V apply(typename X::V e) const { return divides ? e / hi : multiply_add(e, hi, e * lo); }
};

// What stands above the total: 1, or the gradient of the row.
template <Result R, class T> double numerator(const View<const T> &gradient, isize outer, isize inner) {
    return R == Result::logsumexp_vjp ? static_cast<double>(*gradient.at(outer, inner)) : 1.0;
}

// log(sum of exponentials relative to the maximum), natural, from the sum of exp(s x) 2^-N (or of exp(s (x - max)) where the shift is the maximum).
// D is a vector of double with one row per lane.
template <class D> struct LogTotal {
    using V = typename D::V;

    static Pair<V> from(Pair<V> total, V exponent, V scaled_max, V scaled_max_lo) {
        const V zero = {};
        Pair<V> l = log_ratio<D>(total, {D::set(1), zero}, total.hi, exponent);
        Pair<V> d = two_sum(l.hi, -scaled_max);
        d.lo = d.lo + (l.lo - scaled_max_lo);
        const V none = D::set(-std::numeric_limits<double>::infinity());
        return {total.hi == zero ? none : total.hi != total.hi ? total.hi : d.hi, total.hi == zero ? zero : d.lo};
    }

    // The maximum carries a good part of the total (more than a seventh): log1p of the others, summed without it, keeps the digits that the
    // total would lose. `copies` counts the maxima.
    static Pair<V> from_rest(Pair<V> rest, V copies) {
        const Pair<V> others = two_sum(copies - 1.0, rest.hi);
        return log1p_nonnegative<D>(others.hi, others.lo + rest.lo);
    }
    static constexpr double dominated = 2;  // log(total) below which from_rest is used

    static Pair<V> divide(Pair<V> a, Factor base) {
        const V q = a.hi / D::set(base.hi);
        const V residue = -multiply_subtract_exact<D>(q, D::set(base.hi), a.hi);
        const V lo = (residue + a.lo - q * base.lo) / D::set(base.hi);
        return {q, absolute<D>(q) <= std::numeric_limits<double>::max() ? lo : V{}};
    }
};

// max + log(total). A maximum of +inf among numbers gives +inf, nothing but -inf gives -inf.
template <class C, class HasNan> double log_sum(C max, Sum log, HasNan has_nan) {
    Sum s{static_cast<double>(max), 0};
    s.add(log);
    const double y = s.value();
    if (y - y == 0) return y;
    if (max == std::numeric_limits<C>::infinity()) return has_nan() ? std::numeric_limits<double>::quiet_NaN() : max;
    return static_cast<double>(max) + log.hi;
}

// (x - max) / temperature - log(total) with the logarithm in two terms.
template <class X, bool Scaled> struct LogWriter {
    using V = typename X::V;
    V max, hi, lo, inverse_hi, inverse_lo;

    void set_lane(isize l, double max_, double log_hi, double log_lo, Factor inverse) {
        using T = typename X::Scalar;
        max[l] = static_cast<T>(max_);
        hi[l] = static_cast<T>(log_hi);
        lo[l] = static_cast<T>((log_hi - static_cast<double>(hi[l])) + log_lo);
        if (!(absolute<X>(hi) <= std::numeric_limits<T>::max())[l]) lo[l] = 0;
        inverse_hi[l] = static_cast<T>(inverse.hi);
        inverse_lo[l] = static_cast<T>((inverse.hi - static_cast<double>(inverse_hi[l])) + inverse.lo);
    }
    void broadcast() {
        max = X::set(max[0]), hi = X::set(hi[0]), lo = X::set(lo[0]);
        inverse_hi = X::set(inverse_hi[0]), inverse_lo = X::set(inverse_lo[0]);
    }
    FS_INLINE V apply(V x) const {
        const V d = x - max;
        if (!Scaled) return (d - hi) - lo;
        const V y = multiply_add(d, inverse_hi, -hi), correction = multiply_add(d, inverse_lo, -lo);
        return y >= -std::numeric_limits<typename X::Scalar>::max() ? y + correction : y;
    }
};

// ------------------------------------------------------------------------------------------------------------------- rows
// One row, in sweeps over chunks.
//
// softmax guesses the shift from the first vector of the row and sums at once (the shift need not be the maximum); where the sum shows that the
// guess was wrong (a later logit far above, NaN, infinities) the maximum is found and the sum made again. Results with a logarithm
// need the maximum anyway.
template <class In, class Out, Result R, bool Scaled> struct NormalizeRow {
    using C = Compute<In, Out>;
    using X = Vec<C>;
    using D = Vec<double, 16>;
    using Arguments = NormalizeArguments<In, Out>;
    enum Stage { fused, guess, maximum, total, rest, write };
    struct Partial {
        C max;
        Sum sum, copies;
    };

    const Arguments *a;
    Reader<In, C> from;
    Writer<Out, C> to;
    Scale<X> scale;
    Shift<X> shift;
    Stage stage;
    isize outer, inner;
    C max;
    Normalizer<X, R> normalizer;
    LogWriter<X, Scaled> logarithm;
    Partial single;
    std::vector<Partial> many;

    explicit NormalizeRow(const Arguments &arguments) : a(&arguments), from(), to() {}

    isize n() const { return a->x.n; }
    isize chunks() const { return n() <= chunk ? 1 : (n() + chunk - 1) / chunk; }
    Partial *partial() { return many.empty() ? &single : many.data(); }

    void start(isize o, isize i) {
        outer = o, inner = i;
        if (chunks() > 1) many.resize(static_cast<std::size_t>(chunks()));
        from = a->reader(o, i);
        if (R != Result::logsumexp) to = a->template writer<R>(o, i);
        if (Scaled) scale = Scale<X>::all(a->scale(o, i));
        else scale = Scale<X>::all({1, 0});
        if (R == Result::softmax) {
            guess_shift();
            stage = chunks() == 1 ? fused : guess;
        } else {
            stage = maximum;
        }
    }

    void guess_shift() {
        C buffer[X::lanes];
        const isize count = n() < X::lanes ? n() : X::lanes;
        shift = Shift<X>::from(X::set(span_max<X>(from.get(0, count, buffer), count)), scale);
    }

    void sweep(isize k) {
        const isize start = k * chunk, count = n() - start < chunk ? n() - start : chunk;
        Partial &p = partial()[k];
        switch (stage) {
            case fused:
                if constexpr (R == Result::softmax) sweep_fused();
                return;
            case guess: p.sum = sum_exp<true>(start, count); return;
            case maximum: p.max = sweep_max(start, count); return;
            case total: p.sum = sum_exp<false>(start, count); return;
            case rest:
                if constexpr (takes_logarithm(R)) sum_rest(start, count, p);
                return;
            case write:
                if constexpr (R != Result::logsumexp) sweep_write(start, count);
                return;
        }
    }

    bool next() {
        switch (stage) {
            case fused: return false;
            case guess:
                if (settle_normalizer()) return stage = write, true;
                return stage = maximum, true;
            case maximum:
                max = partial()[0].max;
                for (isize k = 1; k < chunks(); ++k) max = max > partial()[k].max ? max : partial()[k].max;
                shift = Shift<X>::from(X::set(max), scale);
                return stage = total, true;
            case total:
                if constexpr (takes_logarithm(R)) return settle_logarithm();
                settle_normalizer();
                return stage = write, true;
            case rest:
                if constexpr (takes_logarithm(R)) return settle_rest();
                return false;
            case write: return false;
        }
        return false;
    }

    // ---- sweeps. Each goes block by block where the data must be gathered, in one where they are contiguous.
    template <class Body> FS_INLINE void blocks(isize start, isize count, bool whole, Body body) {
        const isize step = whole ? count : gather_block;
        for (isize done = 0; done < count; done += step) body(start + done, count - done < step ? count - done : step);
    }

    C sweep_max(isize start, isize count) {
        C m = -std::numeric_limits<C>::infinity(), buffer[gather_block];
        blocks(start, count, from.direct(), [&](isize at, isize size) {
            const C b = span_max<X>(from.get(at, size, buffer), size);
            m = m > b ? m : b;
        });
        return m;
    }

    // Guarded: x may lie above the shift.
    template <bool Guarded> Sum sum_exp(isize start, isize count) {
        C buffer[gather_block];
        LaneSums<X> sums;
        const Shift<X> sh = shift;
        const Scale<X> sc = scale;
        blocks(start, count, from.direct(), [&](isize at, isize size) {
            const C *x = from.get(at, size, buffer);
            sum_vectors<X>(size, sums, [&](isize i, auto lanes) {
                const auto v = lanes.load(x + i, -std::numeric_limits<C>::infinity());
                return Guarded ? exp_guarded<X, Scaled>(v, sh, sc) : exp_shifted<X, Scaled>(v, sh, sc);
            });
        });
        return sums.total();
    }

    // The others' exponentials relative to the maximum, and how often the maximum occurs. Each term is added with its rounding error: where the
    // rest is small, half an ulp of it is one of the result.
    void sum_rest(isize start, isize count, Partial &p) {
        C buffer[gather_block];
        LaneSums<X> sums, copies;
        const Scale<X> sc = scale;
        const auto top = X::set(max);
        const Shift<X> zero = Shift<X>::from(typename X::V{}, sc);
        blocks(start, count, from.direct(), [&](isize at, isize size) {
            const C *x = from.get(at, size, buffer);
            each_vector<X>(size, [&](isize i, auto lanes) {
                const auto v = lanes.load(x + i, -std::numeric_limits<C>::infinity());
                sums.add(v == top ? typename X::V{} : exp_below<X, Scaled>(v, top, zero, sc));
                copies.add(v == top ? X::set(1) : typename X::V{});
            });
        });
        p.sum = sums.total();
        p.copies = copies.total();
    }

    void sweep_write(isize start, isize count) {
        C buffer[gather_block], results[gather_block];
        const Shift<X> sh = shift;
        const Scale<X> sc = scale;
        const Normalizer<X, R> normalize = normalizer;
        const LogWriter<X, Scaled> log = logarithm;
        blocks(start, count, from.direct() && to.direct(), [&](isize at, isize size) {
            const C *x = from.get(at, size, buffer);
            C *y = to.place(at, results);
            each_vector<X>(size, [&](isize i, auto lanes) {
                const auto v = lanes.load(x + i, -std::numeric_limits<C>::infinity());
                if (R == Result::log_softmax) lanes.store(y + i, log.apply(v));
                else if (R == Result::softmax) lanes.store(y + i, normalize.apply(exp_guarded<X, Scaled>(v, sh, sc)));
                else lanes.store(y + i, normalize.apply(exp_shifted<X, Scaled>(v, sh, sc)));
            });
            to.put(at, size, results);
        });
    }

    // A row of one chunk: the exponentials are kept and scaled, not computed twice.
    void sweep_fused() {
        const bool in_memory = from.direct();
        const bool keep_in_out = to.direct() && static_cast<const void *>(from.p) != static_cast<const void *>(to.p);
        C *gathered = in_memory && keep_in_out ? nullptr : scratch<C>(2 * chunk);
        C *e = keep_in_out ? to.place(0, nullptr) : gathered + chunk;
        const C *x = in_memory ? from.get(0, n(), nullptr) : from.get(0, n(), gathered);
        partial()->sum = exp_and_sum<true>(x, e);
        if (!settle_normalizer()) {
            shift = Shift<X>::from(X::set(span_max<X>(x, n())), scale);
            partial()->sum = exp_and_sum<false>(x, e);
            settle_normalizer();
        }
        C *y = to.place(0, e);
        const Normalizer<X, R> normalize = normalizer;
        each_vector<X>(n(), [&](isize i, auto lanes) { lanes.store(y + i, normalize.apply(lanes.load(e + i, 0))); });
        to.put(0, n(), y);
    }

    template <bool Guarded> Sum exp_and_sum(const C *x, C *e) {
        LaneSums<X> sums;
        const Shift<X> sh = shift;
        const Scale<X> sc = scale;
        sum_vectors<X>(n(), sums, [&](isize i, auto lanes) {
            const auto v = lanes.load(x + i, -std::numeric_limits<C>::infinity());
            const auto y = Guarded ? exp_guarded<X, Scaled>(v, sh, sc) : exp_shifted<X, Scaled>(v, sh, sc);
            lanes.store(e + i, y);
            return y;
        });
        return sums.total();
    }

    // ---- what the sums mean
    Sum combined(bool copies) {
        Sum s;
        for (isize k = 0; k < chunks(); ++k) s.add(copies ? partial()[k].copies : partial()[k].sum);
        return s;
    }

    // Sets the normalizer. Says whether the total came from a shift near enough: between 1/2 and 2^100 (2^900), nothing that matters was lost.
    bool settle_normalizer() {
        const Sum sum = combined(false);
        const double s = sum.value();
        normalizer.set_lane(0, numerator<R>(a->gradient, outer, inner), sum);
        normalizer.broadcast();
        return s >= 0.5 && s <= (sizeof(C) == 4 ? 0x1p100 : 0x1p900);
    }

    static Pair<typename D::V> all(Sum s) { return {D::set(s.hi), D::set(s.lo)}; }

    bool settle_logarithm() {
        using F = Format<C>;
        const double exponent = static_cast<double>(F::round_magic) + (F::bias - static_cast<double>(shift.magic[0]));
        const bool unshifted = shift.center[0] == 0 && max - max == 0;
        const Factor top = unshifted ? Arguments::product(a->scale(outer, inner), max) : Factor{0, 0};
        const auto l = LogTotal<D>::from(all(combined(false)), D::set(exponent), D::set(top.hi), D::set(top.lo));
        if (l.hi[0] < LogTotal<D>::dominated && l.hi[0] > -1) return stage = rest, true;
        return finish(l);
    }
    bool settle_rest() { return finish(LogTotal<D>::from_rest(all(combined(false)), D::set(combined(true).value()))); }

    bool finish(Pair<typename D::V> l) {
        if (!a->ln_base.is_one()) l = LogTotal<D>::divide(l, a->ln_base);
        if (R == Result::logsumexp) {
            *a->out.at(outer, inner) = static_cast<Out>(log_sum<C>(max, {l.hi[0], l.lo[0]}, [&] { return has_nan(); }));
            return false;
        }
        logarithm.set_lane(0, max, l.hi[0], l.lo[0], a->inverse_temperature(outer, inner));
        logarithm.broadcast();
        return stage = write, true;
    }

    bool has_nan() {
        C buffer[gather_block];
        bool found = false;
        blocks(0, n(), false, [&](isize at, isize size) { found |= span_has_nan(from.get(at, size, buffer), size); });
        return found;
    }
};

// ---------------------------------------------------------------------------------------------------------------- columns
// A tile of columns, one column per lane, with the shift of each lane from its exact maximum.
template <class In, class Out, Result R, bool Scaled> struct NormalizeTile {
    using C = Compute<In, Out>;
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    using Arguments = NormalizeArguments<In, Out>;
    static constexpr isize width = tile_vectors * X::lanes;

    struct Column {  // the state of one vector of columns
        V max;
        Scale<X> scale;
        Shift<X> shift, zero;
        Normalizer<X, R> normalizer;
        LogWriter<X, Scaled> logarithm;
    };

    const Arguments *a;
    bool staged;  // the tile is gathered into scratch and its results are scattered from there

    isize n() const { return a->x.n; }

    void run(isize outer, isize first, isize count) const {
        constexpr bool keeps = R != Result::logsumexp;
        C *tile = staged ? scratch<C>(n() * width) : nullptr;
        const C *x = gather_columns(a->x, staged, outer, first, count, width, tile, a->where, a->negative());
        if (staged) {
            solve(x, width, tile, width, outer, first, count);
            if (keeps) scatter_columns(a->out, outer, first, count, width, tile, a->where, Arguments::template absent<R>());
        } else {
            const isize size = sizeof(C);
            C *y = keeps ? reinterpret_cast<C *>(a->out.at(outer, first)) : nullptr;
            solve(x, a->x.n_stride / size, y, keeps ? a->out.n_stride / size : 0, outer, first, count);
        }
    }

  private:
    // body(vector, offset, lanes) for the vectors of a tile `count` columns wide.
    template <class Body> static FS_INLINE void vectors(isize count, Body body) {
        isize v = 0;
        for (; (v + 1) * X::lanes <= count; ++v) body(v, v * X::lanes, AllLanes<X>());
        if (v * X::lanes < count) body(v, v * X::lanes, FirstLanes<X>{count - v * X::lanes});
    }

    // Sums term(row, vector, offset, lanes) down every column, with the partial sums of sum_vectors.
    template <class Term> FS_INLINE void sum_columns(isize count, LaneSums<X> *sums, Term term) const {
        for (isize i = 0; i < n(); i += 4 * block) {
            const isize end = n() - i < 4 * block ? n() : i + 4 * block;
            vectors(count, [&](isize v, isize at, auto lanes) {
                V s[4] = {};
                isize j = i;
                for (; j + 4 <= end; j += 4) {
#pragma GCC unroll 4
                    for (isize k = 0; k < 4; ++k) s[k] = s[k] + term(j + k, v, at, lanes);
                }
                for (isize k = 0; j < end; ++j, ++k) s[k] = s[k] + term(j, v, at, lanes);
                sums[v].add((s[0] + s[1]) + (s[2] + s[3]));
            });
        }
    }

    void solve(const C *x, isize step, C *y, isize out_step, isize outer, isize first, isize count) const {
        const C least = -std::numeric_limits<C>::infinity();
        Column column[tile_vectors];
        find_shifts(column, x, step, outer, first, count);
        LaneSums<X> sums[tile_vectors];
        if constexpr (takes_logarithm(R)) {
            sum_columns(count, sums, [&](isize i, isize v, isize at, auto lanes) {
                return exp_shifted<X, Scaled>(lanes.load(x + i * step + at, least), column[v].shift, column[v].scale);
            });
            return settle_logarithms(column, sums, x, step, y, out_step, outer, first, count);
        }
        sum_columns(count, sums, [&](isize i, isize v, isize at, auto lanes) {
            const V e = exp_shifted<X, Scaled>(lanes.load(x + i * step + at, least), column[v].shift, column[v].scale);
            lanes.store(y + i * out_step + at, e);
            return e;
        });
        vectors(count, [&](isize v, isize at, auto) {
            for (isize l = 0; l < X::lanes; ++l) {
                const isize lane = at + l < count ? at + l : count - 1;
                column[v].normalizer.set_lane(l, numerator<R>(a->gradient, outer, first + lane), sums[v].lane(l));
            }
        });
        for (isize i = 0; i < n(); ++i) {
            vectors(count, [&](isize v, isize at, auto lanes) {
                C *p = y + i * out_step + at;
                lanes.store(p, column[v].normalizer.apply(lanes.load(p, 0)));
            });
        }
    }

    void find_shifts(Column *column, const C *x, isize step, isize outer, isize first, isize count) const {
        const C least = -std::numeric_limits<C>::infinity();
        vectors(count, [&](isize v, isize, auto) {
            column[v].max = X::set(least);
            column[v].scale = Scale<X>::all({1, 0});
            for (isize l = 0; Scaled && l < X::lanes; ++l) {
                const isize lane = v * X::lanes + l < count ? v * X::lanes + l : count - 1;
                column[v].scale.set_lane(l, a->scale(outer, first + lane));
            }
        });
        for (isize i = 0; i < n(); ++i) {
            vectors(count, [&](isize v, isize at, auto lanes) {
                column[v].max = larger(lanes.load(x + i * step + at, least), column[v].max);
            });
        }
        vectors(count, [&](isize v, isize, auto) { column[v].shift = Shift<X>::from(column[v].max, column[v].scale); });
    }

    // The logarithms of the totals, in vectors of double.
    void settle_logarithms(Column *column, const LaneSums<X> *sums, const C *x, isize step, C *y, isize out_step, isize outer, isize first,
                           isize count) const {
        using F = Format<C>;
        Sum logs[width];
        double hi[width] = {}, lo[width] = {}, exponent[width] = {}, top_hi[width] = {}, top_lo[width] = {};
        bool dominated = false;
        for (isize l = 0; l < count; ++l) {
            const Column &c = column[l / X::lanes];
            const isize k = l % X::lanes;
            const Sum s = sums[l / X::lanes].lane(k);
            hi[l] = s.hi, lo[l] = s.lo;
            exponent[l] = static_cast<double>(F::round_magic) + (F::bias - static_cast<double>(c.shift.magic[k]));
            const double m = c.max[k];
            if (c.shift.center[k] == 0 && m - m == 0) {
                const Factor top = Scaled ? Arguments::product(a->scale(outer, first + l), m) : Factor{m, 0};
                top_hi[l] = top.hi, top_lo[l] = top.lo;
            }
        }
        for (isize l = 0; l < count; l += D::lanes) {
            const auto t = LogTotal<D>::from({D::load(hi + l), D::load(lo + l)}, D::load(exponent + l), D::load(top_hi + l), D::load(top_lo + l));
            for (isize k = 0; k < D::lanes; ++k) {
                logs[l + k] = {t.hi[k], t.lo[k]};
                dominated |= l + k < count && t.hi[k] < LogTotal<D>::dominated && t.hi[k] > -1;
            }
        }
        if (dominated) sum_rests(column, logs, x, step, count);
        for (isize l = 0; l < count; ++l) finish(column[l / X::lanes], l % X::lanes, logs[l], outer, first + l, x + l, step);
        if (R != Result::log_softmax) return;
        const C least = -std::numeric_limits<C>::infinity();
        for (isize i = 0; i < n(); ++i) {
            vectors(count, [&](isize v, isize at, auto lanes) {
                lanes.store(y + i * out_step + at, column[v].logarithm.apply(lanes.load(x + i * step + at, least)));
            });
        }
    }

    void sum_rests(Column *column, Sum *logs, const C *x, isize step, isize count) const {
        const C least = -std::numeric_limits<C>::infinity();
        LaneSums<X> rest[tile_vectors], copies[tile_vectors];
        vectors(count, [&](isize v, isize, auto) { column[v].zero = Shift<X>::from(V{}, column[v].scale); });
        for (isize i = 0; i < n(); ++i) {
            vectors(count, [&](isize v, isize at, auto lanes) {
                const Column &c = column[v];
                const V t = lanes.load(x + i * step + at, least);
                rest[v].add(t == c.max ? V{} : exp_below<X, Scaled>(t, c.max, c.zero, c.scale));
                copies[v].add(t == c.max ? X::set(1) : V{});
            });
        }
        for (isize l = 0; l < count; ++l) {
            if (!(logs[l].hi < LogTotal<D>::dominated && logs[l].hi > -1)) continue;
            const Sum r = rest[l / X::lanes].lane(l % X::lanes);
            const auto t = LogTotal<D>::from_rest({D::set(r.hi), D::set(r.lo)}, D::set(copies[l / X::lanes].lane(l % X::lanes).value()));
            logs[l] = {t.hi[0], t.lo[0]};
        }
    }

    void finish(Column &c, isize k, Sum log, isize outer, isize inner, const C *x, isize step) const {
        if (!a->ln_base.is_one()) {
            const auto q = LogTotal<D>::divide({D::set(log.hi), D::set(log.lo)}, a->ln_base);
            log = {q.hi[0], q.lo[0]};
        }
        if (R == Result::logsumexp) {
            *a->out.at(outer, inner) = static_cast<Out>(log_sum<C>(c.max[k], log, [&] {
                bool nan = false;
                for (isize i = 0; i < n(); ++i) nan |= x[i * step] != x[i * step];
                return nan;
            }));
        } else {
            c.logarithm.set_lane(k, c.max[k], log.hi, log.lo, a->inverse_temperature(outer, inner));
        }
    }
};

// -------------------------------------------------------------------------------------------------------------- entry points
template <Result R, bool Scaled, class In, class Out>
void normalize_scaled(const NormalizeArguments<In, Out> &a, isize threads, Execute execute) {
    using C = Compute<In, Out>;
    using Tile = NormalizeTile<In, Out, R, Scaled>;
    constexpr bool keeps = R != Result::logsumexp;
    const bool plain = !a.where.data && !a.negative();
    const bool direct = plain && columns_direct<C>(a.x) && (!keeps || columns_direct<C>(a.out));
    if (direct || columns_staged(a.x)) {
        TilesWork<Tile> work(Tile{&a, !direct}, a.x.outer, a.x.inner, Tile::width);
        return execute(&work, threads);
    }
    const NormalizeArguments<In, Out> s = a.swapped();
    if (columns_staged(s.x)) {
        TilesWork<Tile> work(Tile{&s, true}, s.x.outer, s.x.inner, Tile::width);
        return execute(&work, threads);
    }
    using Row = NormalizeRow<In, Out, R, Scaled>;
    RowsWork<Row> work(Row(a), a.x.outer, a.x.inner, a.x.n, threads);
    execute(&work, threads);
}

template <class Kind, class In, class Out> void normalize(Kind, const NormalizeArguments<In, Out> &a, isize threads, Execute execute) {
    if (a.plain()) normalize_scaled<Kind::result, false>(a, threads, execute);
    else normalize_scaled<Kind::result, true>(a, threads, execute);
}

// Contiguous rows, default options, one thread.
template <class Kind, class T> void normalize_small(const void *x, void *out, isize rows, isize n, Execute execute) {
    const isize size = sizeof(T), shape[3] = {rows, n, 1}, strides[3] = {n * size, size, size}, reduced[2] = {rows, 1};
    const isize result_strides[2] = {size, size};
    NormalizeArguments<T, T> a;
    a.set_x(static_cast<const T *>(x), shape, strides);
    if (Kind::result == Result::logsumexp) a.set_reduced_out(static_cast<T *>(out), reduced, result_strides);
    else a.set_out(static_cast<T *>(out), shape, strides);
    normalize_scaled<Kind::result, false>(a, 1, execute);
}

}  // namespace fs
}  // namespace
