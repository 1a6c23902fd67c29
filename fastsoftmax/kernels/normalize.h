// softmax, log_softmax, logsumexp and the gradient of logsumexp: one maximum, one sum of
// exponentials, one way out.
#pragma once

#include <type_traits>

#include "regime.h"
#include "rows.h"
#include "transpose.h"
#include "vlog.h"

namespace {
namespace fs {

enum class Result { softmax, log_softmax, logsumexp, logsumexp_vjp };

// The same as types, by which Cython names them.
struct Softmax {
    static constexpr Result result = Result::softmax;
};
struct LogSoftmax {
    static constexpr Result result = Result::log_softmax;
};
struct LogSumExp {
    static constexpr Result result = Result::logsumexp;
};
struct LogSumExpVjp {
    static constexpr Result result = Result::logsumexp_vjp;
};

constexpr bool takes_logarithm(Result r) {
    return r == Result::log_softmax || r == Result::logsumexp;
}

// Rows of logits: the numbers, what scales them, and which of them count.
struct Rows {
    AnyView x;
    // a value per row; a negative one stands for the softmax of -x
    View<const double> temperature = View<const double>::one();
    Mask where;
    Factor ln_base{1, 0};

    void set_temperature(const double *p, const isize *shape, const isize *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }
    void set_where(const std::uint8_t *p, const isize *shape, const isize *strides) {
        where = {p, shape, strides};
    }
    void set_ln_base(double hi, double lo) { ln_base = {hi, lo}; }

    Rows swapped() const { return {x.swapped(), temperature.swapped(), where.swapped(), ln_base}; }
    // No row is scaled: temperature 1 or -1 throughout and base e.
    bool plain() const {
        if (!ln_base.is_one()) return false;
        for (isize o = 0; o < (temperature.outer_stride ? temperature.outer : 1); ++o) {
            for (isize i = 0; i < (temperature.inner_stride ? temperature.inner : 1); ++i) {
                if (*temperature.at(o, i) != 1 && *temperature.at(o, i) != -1) return false;
            }
        }
        return true;
    }
    bool negative() const { return *temperature.data < 0; }
    Factor inverse_temperature(isize o, isize i) const {
        return Factor{1, 0}.over(*temperature.at(o, i));
    }
    Factor scale(isize o, isize i) const { return ln_base.over(*temperature.at(o, i)); }

    template <class C>
    Reader<C> reader(isize o, isize i) const {
        Reader<C> r(x, o, i);
        r.negate = negative();
        if (where.data) r.mask = where.at(o, i), r.mask_stride = where.n_stride;
        return r;
    }
    // The logits of a row, from the reader of the first.
    template <class C>
    __attribute__((noinline)) const C *gathered(Reader<C> first, isize o, isize i,
                                                C *buffer) const {
        first.p += x.offset(o, i);
        if (first.mask) first.mask += where.offset(o, i);
        return first.get(0, x.n, buffer);
    }
};

// Where the results of rows go.
struct NormalizeArguments : Rows {
    AnyView out;       // one value per row for logsumexp
    AnyView gradient;  // logsumexp_vjp: one value per row

    NormalizeArguments swapped() const {
        NormalizeArguments a;
        static_cast<Rows &>(a) = Rows::swapped();
        a.out = out.swapped();
        a.gradient = gradient.swapped();
        return a;
    }

    template <Result R, class C>
    static C absent() {
        return R == Result::log_softmax ? -std::numeric_limits<C>::infinity() : C(0);
    }
    template <Result R, class C>
    Writer<C> writer(isize o, isize i) const {
        Writer<C> w(out, o, i);
        w.absent = absent<R, C>();
        if (where.data) w.mask = where.at(o, i), w.mask_stride = where.n_stride;
        return w;
    }
};

// The logits of rows that wait for others: where they are, as numbers of type S, or (S is C)
// gathered, each row to a place of its own.
template <class C, class S = C>
struct RowSource {
    const Rows *a = nullptr;
    Reader<C> from{};
    bool direct = false;
    C *buffer = nullptr;  // of a chunk
    isize places = 1, pitch = 0;

    RowSource() = default;
    RowSource(const Rows &arguments, C *buffer_)
        : a(&arguments), from(arguments.reader<C>(0, 0)), buffer(buffer_) {
        direct = !std::is_same<S, C>::value || from.direct();
        const isize n = a->x.n;
        pitch = (n + Vec<C>::lanes - 1) / Vec<C>::lanes * Vec<C>::lanes;
        places = n <= gathered_together ? batch_elements / n : 1;
    }
    // Of at most `most` rows.
    isize limit(isize most) const { return direct || places > most ? most : places; }
    FS_INLINE const S *get(isize o, isize i, isize place) const {
        if constexpr (!std::is_same<S, C>::value)
            return reinterpret_cast<const S *>(a->x.at(o, i));
        else
            return direct ? reinterpret_cast<const C *>(a->x.at(o, i))
                          : a->gathered(from, o, i, buffer + place * pitch);
    }
};

// What stands above the total: 1, or the gradient of the row.
template <Result R>
double numerator(const AnyView &gradient, isize outer, isize inner) {
    return R == Result::logsumexp_vjp ? gradient.value(outer, inner) : 1.0;
}

// Those of `count` rows (of a vector of double or two), or false if they are all 1.
template <Result R, isize size>
bool numerators_of(const AnyView &gradient, isize outer, isize first, isize count,
                   double (&numerators)[size]) {
    if (R != Result::logsumexp_vjp) return false;
    for (isize l = 0; l < size; ++l)
        numerators[l] = numerator<R>(gradient, outer, first + (l < count ? l : count - 1));
    return true;
}

// log(sum of exponentials relative to the maximum), natural, from the sum of exp(s x) 2^-N (or of
// exp(s (x - max)) where the shift is the maximum) in the given unit. D is a vector of double with
// one row per lane.
template <class D>
struct LogTotal {
    using V = typename D::V;

    static Pair<V> from(Pair<V> sum, double unit, V exponent, V scaled_max, V scaled_max_lo) {
        const V zero = {};
        const Pair<V> total = two_sum(sum.hi, sum.lo);
        Pair<V> l =
            log_ratio<D>(total, {D::set(unit), zero}, total.hi * D::set(1 / unit), exponent);
        Pair<V> d = two_sum(l.hi, -scaled_max);
        d.lo = d.lo + (l.lo - scaled_max_lo);
        const V none = D::set(-std::numeric_limits<double>::infinity());
        // NaN from NaN, and from the infinite sum that +inf in a row makes
        const V y = total.hi - total.hi == zero ? d.hi : total.hi - total.hi;
        return {total.hi == zero ? none : y, total.hi == zero ? zero : d.lo};
    }

    // The maximum carries a good part of the total (more than a seventh): log1p of the others,
    // summed without it, keeps the digits that the total would lose. `copies` counts the maxima.
    static Pair<V> from_rest(Pair<V> rest, V copies) {
        const Pair<V> others = two_sum(copies - 1.0, rest.hi);
        const Pair<V> sum = two_sum(others.hi, others.lo + rest.lo);
        return log1p_nonnegative<D>(sum.hi, sum.lo);
    }
    // The others relative to the maximum, from the sum of all exponentials and that of the maximum,
    // exp(s (max - center)) 2^-exponent as the row's own type has it. The logarithm is log1p of
    // them.
    template <bool Scaled>
    static FS_INLINE Pair<V> others(Pair<V> total, double unit, V at_max, V max, V center,
                                    V exponent, const Scale<D> &scale) {
        Pair<V> e = exp_below_pair<D, Scaled>(max, center, exponent, scale);
        if (unit != 1) e = product(e, unit);
        const Pair<V> apart = two_sum(total.hi, -at_max),
                      rest = two_sum(apart.hi, apart.lo + total.lo);
        const V q = rest.hi / e.hi, residue = -multiply_subtract_exact<D>(q, e.hi, rest.hi);
        return {q, (residue + (rest.lo - q * e.lo)) / e.hi};
    }

    static Pair<V> divide(Pair<V> a, Factor base) {
        const V q = a.hi / D::set(base.hi);
        const V residue = -multiply_subtract_exact<D>(q, D::set(base.hi), a.hi);
        const V lo = (residue + a.lo - q * base.lo) / D::set(base.hi);
        return {q, absolute<D>(q) <= std::numeric_limits<double>::max() ? lo : V{}};
    }

  private:
    static FS_INLINE Pair<V> product(Pair<V> a, double b) {
        const V p = a.hi * b;
        return {p, multiply_subtract_exact<D>(a.hi, D::set(b), p) + a.lo * b};
    }
};

// (x - max) / temperature - log(total) with the logarithm in two terms.
template <class X, bool Scaled>
struct LogWriter {
    using V = typename X::V;
    // unit, if Scaled: 1, or 1/2 where x - max may overflow; then max is half of it, too
    V max, hi, lo, inverse_hi, inverse_lo, unit;

    void set_lane(isize l, double max_, double log_hi, double log_lo, Factor inverse) {
        using T = typename X::Scalar;
        const T h = static_cast<T>(log_hi);
        max[l] = static_cast<T>(max_);
        hi[l] = h;
        lo[l] = h - h == 0 ? static_cast<T>((log_hi - static_cast<double>(h)) + log_lo) : T(0);
        set_inverse(l, inverse);
    }
    void set_inverse(isize l, Factor inverse) {
        using T = typename X::Scalar;
        const bool far = Scaled && absolute<X>(max)[l] > std::numeric_limits<T>::max() / 4;
        unit[l] = far ? T(0.5) : T(1);
        if (far) max[l] *= T(0.5), inverse.hi *= 2, inverse.lo *= 2;
        const T i = static_cast<T>(inverse.hi);
        inverse_hi[l] = i;
        inverse_lo[l] = static_cast<T>((inverse.hi - static_cast<double>(i)) + inverse.lo);
    }
    void broadcast() {
        max = X::set(max[0]), hi = X::set(hi[0]), lo = X::set(lo[0]);
        inverse_hi = X::set(inverse_hi[0]), inverse_lo = X::set(inverse_lo[0]),
        unit = X::set(unit[0]);
    }
    FS_INLINE V apply(V x) const {
        const V d = Scaled ? multiply_add(x, unit, -max) : x - max;
        if (!Scaled) return (d - hi) - lo;
        const V y = multiply_add(d, inverse_hi, -hi), correction = multiply_add(d, inverse_lo, -lo);
        return y >= -std::numeric_limits<typename X::Scalar>::max() ? y + correction : y;
    }
};

// --- spans ---------------------------------------------------------------------------------------
// The sum of the exponentials of all but the maxima, relative to the maximum, is made 2^64 (2^256)
// times too large, so that terms below the smallest normal number are not lost where they are all
// there is.
template <class C>
constexpr C rest_exponent = sizeof(C) == 4 ? -64 : -256;
template <class C, class S>
S true_rest(S s) {
    constexpr double power = sizeof(C) == 4 ? 0x1p-64 : 0x1p-256;
    return {s.hi * power, s.lo * power};
}

// Those exponentials, and how often the maximum occurs. Each term is added with its rounding error:
// where the rest is small, half an ulp of it is one of the result.
template <class X, bool Scaled, class C>
inline void add_rest(const C *x, isize n, C max, const Scale<X> &scale, LaneSums<X> &rest,
                     LaneSums<X> &copies) {
    const auto top = X::set(max);
    const Shift<X> below = Shift<X>::fixed(rest_exponent<C>, scale);
    each_vector<X>(n, [&](isize i, auto lanes) {
        const auto v = lanes.load(x + i, absent_logit<C>);
        rest.add(v == top ? typename X::V{} : exp_below<X, Scaled>(v, top, below, scale));
        copies.add(v == top ? X::set(1) : typename X::V{});
    });
}

// The sum of all exponentials of a row, in units, and its maximum.
template <class C>
struct ExpTotal {
    static constexpr double unit = ExpCore<Vec<C>>::unit;
    Sum sum;
    C max, at_max;  // and its exponential
    C center;       // the shift: unit exp(s (x - center)) 2^-exponent
    double exponent;

    // The logarithm of the total, relative to the maximum, is below 1: then it is made of the sum
    // of the others, which must have its own digits.
    static constexpr double dominates = 2.75;
    bool dominated() const { return sum.hi < dominates * static_cast<double>(at_max); }
    // The others are so small that they must be summed relative to the maximum.
    static constexpr double tiny_rest = 0x1p-14;
    bool wants_rest() const {
        return sum.hi - static_cast<double>(at_max) <= tiny_rest * static_cast<double>(at_max) &&
               at_max > 0;
    }
    void set_others(Sum others) {
        sum = others;
        sum.add({static_cast<double>(at_max), 0});
    }
};

// The logarithms of several such totals, relative to their maxima, in vectors.
template <class C, bool Scaled, isize size>
struct LogTotals {
    using D = Vec<double>;
    using Log = LogTotal<D>;
    static constexpr double unit = ExpTotal<C>::unit;
    double hi[size], lo[size], max[size], at_max[size], center[size], exponent[size], top_hi[size],
        top_lo[size];
    Factor factor[Scaled ? size : 1];

    void set(isize l, const ExpTotal<C> &t, Factor scale) {
        const double m = static_cast<double>(t.max);
        const Factor top = t.center == 0 && m - m == 0 ? scale.times(m) : Factor{0, 0};
        hi[l] = t.sum.hi, lo[l] = t.sum.lo, max[l] = m, at_max[l] = static_cast<double>(t.at_max);
        center[l] = static_cast<double>(t.center), exponent[l] = t.exponent, top_hi[l] = top.hi,
        top_lo[l] = top.lo;
        if constexpr (Scaled) factor[l] = scale;
    }
    // Of the first `count`; that of a total that wants the rest is of no use.
    void solve(isize count, Sum *logs) {
        const isize padded = (count + D::lanes - 1) / D::lanes * D::lanes;
        for (isize l = count; l < padded; ++l) set(l, ExpTotal<C>{{1, 0}, 0, 0, 0, 0}, {1, 0});
        Scale<D> scale = Scale<D>::one();
        for (isize l = 0; l < count; l += D::lanes) {
            for (isize k = 0; Scaled && k < D::lanes; ++k) scale.set_lane(k, factor[l + k]);
            const auto x = [&](const double *p) FS_INLINE_LAMBDA {
                return D::load(p + l);
            };
            const auto far = Log::from({x(hi), x(lo)}, unit, x(exponent), x(top_hi), x(top_lo));
            const auto others = Log::template others<Scaled>({x(hi), x(lo)}, unit, x(at_max),
                                                             x(max), x(center), x(exponent), scale);
            const auto near = log1p_nonnegative<D>(others.hi, others.lo);
            // log1p of the others keeps the digits that the total would lose
            const auto dominated = x(hi) < ExpTotal<C>::dominates * x(at_max);
            const auto log_hi = dominated ? near.hi : far.hi, log_lo = dominated ? near.lo : far.lo;
            for (isize k = 0; k < D::lanes && l + k < count; ++k)
                logs[l + k] = {log_hi[k], log_lo[k]};
        }
    }
};

template <bool Scaled, class C>
Sum log_of_total(const ExpTotal<C> &t, Factor scale) {
    LogTotals<C, Scaled, Vec<double>::lanes> totals;
    Sum log;
    totals.set(0, t, scale);
    totals.solve(1, &log);
    return log;
}
// Whether the maximum and the logarithm of the total may cancel in their sum (natural): that needs
// more digits than they have.
template <class V>
FS_INLINE auto may_cancel(V max, V natural) {
    return (max < 0) & (natural < 1) & (natural > -1);
}

// The same for a vector of rows or columns, one in each lane, that all have the typical shift and
// are not scaled; part(k) are the totals in the k-th vector of double. Where wants_rest they are of
// no use.
template <class X>
struct UsualLogs {
    using V = typename X::V;
    using D = Vec<double>;
    using Total = ExpTotal<typename X::Scalar>;
    V max, hi, lo;
    typename D::I wants_rest[wide_parts<X>];

    template <class Part>
    FS_INLINE UsualLogs(V max_, V at_max, Part part) : max(max_) {
        Pair<typename D::V> others[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            const Pair<typename D::V> total = part(k);
            const auto m = wide_part<X>(max, k), e = wide_part<X>(at_max, k);
            others[k] = relative(total, e, m);
            wants_rest[k] = total.hi - e <= Total::tiny_rest * e;
        }
        const Pair<V> rest = pair_from_wide<X>(others),
                      log = log1p_nonnegative<X>(rest.hi, rest.lo);
        hi = log.hi, lo = log.lo;
    }
    FS_INLINE bool any_wants_rest() const {
        typename D::I wants = wants_rest[0];
        for (int k = 1; k < wide_parts<X>; ++k) wants |= wants_rest[k];
        return any<D>(wants);
    }
    // logsumexp, but where they may_cancel.
    FS_INLINE V sum() const {
        const Pair<V> s = two_sum(max, hi);
        return s.hi + (s.lo + lo);
    }

  private:
    static FS_INLINE Pair<typename D::V> relative(Pair<typename D::V> total, typename D::V at_max,
                                                  typename D::V max) {
        constexpr int exponent = Shift<X>::typical_exponent;
        if constexpr (wide_parts<X> > 1)
            return {(total.hi - at_max) /
                        (FixedExp<D, false, exponent>(Scale<D>::one())(max) * Total::unit),
                    typename D::V{}};
        else
            return LogTotal<D>::template others<false>(total, Total::unit, at_max, max,
                                                       typename D::V{}, D::set(exponent),
                                                       Scale<D>::one());
    }
};

// The same from what add_rest adds.
template <class C>
Sum log_of_rest(Sum rest, Sum copies) {
    using D = Vec<double, 16>;
    const Sum r = true_rest<C>(rest);
    const auto log = LogTotal<D>::from_rest({D::set(r.hi), D::set(r.lo)}, D::set(copies.value()));
    return {log.hi[0], log.lo[0]};
}

// Whether each exponential of a row is added to the wider sums by itself, so that none takes digits
// of the others. Of short rows this takes less time than to sum the maximum's block again, of every
// second row.
template <class X>
FS_INLINE bool summed_singly(isize n) {
    return n < 4 * block * X::lanes || n <= singly_summed;
}

template <bool singly, class X, class C, class Exp>
FS_INLINE C add_exp_and_max(const C *x, isize n, const Exp &exp, LaneSums<X> &sums) {
    auto most = X::set(absent_logit<C>);
    const auto term = [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        fetch_ahead<X>(x + i);
        const auto v = lanes.load(x + i, absent_logit<C>);
        most = larger(v, most);
        return exp(v);
    };
    if constexpr (singly)
        each_vector<X>(
            n, [&](isize i, auto lanes) FS_INLINE_LAMBDA { sums.add_stored(term(i, lanes)); });
    else
        sum_vectors<X, added_by_twos, true>(n, sums, term);
    return largest_lane<X>(most);
}

// The others of a dominated total: the maximum's block is summed again without it. get(start,
// count) are logits of the chunk that holds the maximum.
template <class X, class C, class Get, class Exp>
void refine(ExpTotal<C> &t, isize start, isize end, Get get, const Exp &exp) {
    constexpr isize size = summed_elements<X>;
    for (isize at = start; at < end; at += size) {
        const isize count = end - at < size ? end - at : size;
        const C *x = get(at, count);
        const isize j = span_find<X>(x, count, t.max);
        if (j < count) return t.set_others(sum_without<X, added_by_twos>(x, count, j, exp, t.sum));
    }
}
// Of a contiguous row, with the shift from its maximum.
template <class X, bool Scaled, class C>
ExpTotal<C> careful_total(const C *x, isize n, const Scale<X> &scale) {
    ExpTotal<C> t;
    t.max = span_max<X>(x, n);
    const Shift<X> shift = Shift<X>::from(X::set(t.max), scale);
    const auto exp = [&](auto v) FS_INLINE_LAMBDA {
        return exp_shifted<X, Scaled>(v, shift, scale);
    };
    const bool singly = summed_singly<X>(n);
    LaneSums<X> sums;
    if (singly)
        each_vector<X>(n, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
            sums.add(exp(lanes.load(x + i, absent_logit<C>)));
        });
    else
        add_exp<X, added_by_twos>(x, n, exp, sums);
    t.sum = sums.total(), t.at_max = exp(X::set(t.max))[0], t.center = shift.center[0],
    t.exponent = shift.exponent(0);
    if (!singly && t.dominated()) refine<X>(t, 0, n, [&](isize at, isize) { return x + at; }, exp);
    return t;
}

// log(total) of a row for logsumexp where it nearly cancels the maximum, which takes exponentials
// of more than the result's precision: in pairs of double, whatever the input.
inline Pair<Vec<double, 16>::V> precise_log_of_total(const Rows &a, isize o, isize i, double max) {
    using X = Vec<double>;
    using D = Vec<double, 16>;
    const auto source = a.reader<double>(o, i);
    const Scale<X> scale = Scale<X>::all(a.scale(o, i));
    const auto below = X::set(rest_exponent<double>), top = X::set(max);
    constexpr isize step = 256;
    double buffer[step];  // there is no scratch in the smallest calls
    LaneSums<X> rest, copies;
    for (isize at = 0; at < a.x.n; at += step) {
        const isize size = a.x.n - at < step ? a.x.n - at : step;
        const double *x = source.get(at, size, buffer);
        each_vector<X>(size, [&](isize j, auto lanes) {
            const auto v = lanes.load(x + j, absent_logit<double>);
            const auto e = exp_below_pair<X, true>(v, top, below, scale);
            rest.add(v == top ? X::V{} : e.hi);
            rest.add(v == top ? X::V{} : e.lo);
            copies.add(v == top ? X::set(1) : X::V{});
        });
    }
    const Sum r = true_rest<double>(rest.total());
    return LogTotal<D>::from_rest({D::set(r.hi), D::set(r.lo)}, D::set(copies.total().value()));
}

template <class X, class C, class Exp, class N>
inline void write_exp(const C *x, C *y, isize n, bool streaming, const Exp &exp,
                      const N &normalizer) {
    write_span<X>(y, n, streaming, [&](isize i, auto lanes) FS_INLINE_LAMBDA {
        return normalizer.apply(exp(lanes.load(x + i, absent_logit<C>)));
    });
}

// logsumexp: max + log(total). A maximum of +inf among numbers gives +inf, nothing but -inf gives
// -inf.
template <class HasNan>
double log_sum(const Rows &a, isize o, isize i, double max, Pair<Vec<double, 16>::V> log,
               HasNan has_nan) {
    const auto sum = [&] {
        const auto l = a.ln_base.is_one() ? log : LogTotal<Vec<double, 16>>::divide(log, a.ln_base);
        Sum s{max, 0};
        s.add({l.hi[0], l.lo[0]});
        return s;
    };
    if (max == std::numeric_limits<double>::infinity())
        return has_nan() ? std::numeric_limits<double>::quiet_NaN() : max;
    if (!(log.hi[0] - log.hi[0] == 0)) return max + log.hi[0];
    const double y = sum().value(), natural = y * a.ln_base.hi;
    if (!may_cancel(max, natural)) return y;
    log = precise_log_of_total(a, o, i, max);
    return sum().value();
}

// What becomes of the logarithm of a total (relative to the maximum): logsumexp itself ...
template <class C, class HasNan>
void store_log_sum(const NormalizeArguments &a, isize o, isize i, C max, Sum log, HasNan has_nan) {
    using D = Vec<double, 16>;
    a.out.store(
        o, 0, i,
        log_sum(a, o, i, static_cast<double>(max), {D::set(log.hi), D::set(log.lo)}, has_nan));
}
// ... or what log_softmax takes from logits.
template <bool Scaled, class C>
LogWriter<Vec<C>, Scaled> log_writer(const Rows &a, isize o, isize i, C max, Sum log) {
    using D = Vec<double, 16>;
    if (!a.ln_base.is_one()) {
        const auto l = LogTotal<D>::divide({D::set(log.hi), D::set(log.lo)}, a.ln_base);
        log = {l.hi[0], l.lo[0]};
    }
    LogWriter<Vec<C>, Scaled> w;
    w.set_lane(0, max, log.hi, log.lo, Scaled ? a.inverse_temperature(o, i) : Factor{1, 0});
    w.broadcast();
    return w;
}

// --- the logarithm of a row ----------------------------------------------------------------------
// Maximum and log of the total of a row in sweeps over its chunks, for operations that want the
// log-probability of single classes: start(), then rounds of sweep() for every chunk and next()
// until it says no.
template <class C, bool Scaled>
struct RowLog {
    using X = Vec<C>;
    using V = typename X::V;
    enum Stage { guess, maximum, total, rest };
    struct Partial {
        C max;
        Sum sum, copies;
    };

    Rows a;
    isize outer = 0, inner = 0;
    Reader<C> x{};
    Stage stage = maximum;
    Scale<X> scale{};
    Shift<X> shift{};
    C max = 0;
    Sum sum;  // of the exponentials that `shift` makes
    Sum log;  // of the total, relative to the maximum
    LogWriter<X, Scaled> writer{};

    explicit RowLog(const Rows &arguments) : a(arguments) {}

    void start(isize o, isize i) {
        outer = o, inner = i;
        x = a.reader<C>(o, i);
        scale = Scaled ? Scale<X>::all(a.scale(o, i)) : Scale<X>::one();
        C first;
        stage = worth_a_guess(*x.get(0, 1, &first) * scale.hi[0]) ? guess : maximum;
    }

    Partial sweep(isize start, isize end) const {
        LaneSums<X> sums, copies;
        C most = absent_logit<C>;
        Scratch<C> buffer(x.direct() ? 0 : gather_block);
        const isize step = x.direct() ? end - start : gather_block;
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const C *v = x.get(at, size, buffer);
            if (stage == guess)
                most = larger(
                    most, add_exp_and_max<false, X>(v, size, TypicalExp<X, Scaled>(scale), sums));
            else if (stage == maximum)
                most = larger(most, span_max<X>(v, size));
            else if (stage == total)
                most = larger(most, add_exp_and_max<false, X>(v, size, shifted(), sums));
            else
                add_rest<X, Scaled>(v, size, max, scale, sums, copies);
        }
        return {most, sums.total(), copies.total()};
    }

    bool next(const ChunkResults<Partial> &partial) {
        Partial all{absent_logit<C>, {}, {}};
        for (const Partial &p : partial) {
            all.max = larger(p.max, all.max);
            all.sum.add(p.sum), all.copies.add(p.copies);
        }
        if (stage == guess && !near_enough<C>(all.sum.value())) return stage = maximum, true;
        if (stage == maximum) {
            max = all.max;
            shift = Shift<X>::from(X::set(max), scale);
            return stage = total, true;
        }
        if (stage == rest) {
            log = log_of_rest<C>(all.sum, all.copies);
            return set_writer(), false;
        }
        const bool guessed = stage == guess;
        if (guessed) max = all.max, shift = Shift<X>::typical(scale), stage = total;
        ExpTotal<C> t{all.sum, max, shifted()(X::set(max))[0], shift.center[0], shift.exponent(0)};
        if (t.dominated()) {
            if (guessed)
                refine_with(t, partial, TypicalExp<X, Scaled>(scale));
            else
                refine_with(t, partial, shifted());
        }
        sum = t.sum;
        if (t.wants_rest()) return stage = rest, true;
        log = log_of_total<Scaled>(t, a.scale(outer, inner));
        return set_writer(), false;
    }

    // Whether the row has a distribution: no NaN, no +inf, not only -inf.
    bool defined() const { return log.hi - log.hi == 0; }
    double log_total() const { return log.hi + log.lo; }
    C logit(isize c) const {
        C v;
        return *x.get(c, 1, &v);
    }
    C log_p(isize c) const { return writer.apply(X::set(logit(c)))[0]; }

  private:
    auto shifted() const {
        return [sh = shift, sc = scale](V v) FS_INLINE_LAMBDA {
            return exp_shifted<X, Scaled>(v, sh, sc);
        };
    }
    template <class Exp>
    void refine_with(ExpTotal<C> &t, const ChunkResults<Partial> &partial, const Exp &exp) const {
        isize start = 0;
        for (std::size_t k = 0; k < partial.size() && partial[k].max != t.max; ++k) start += chunk;
        C buffer[summed_elements<X>];
        refine<X>(
            t, start, a.x.n - start < chunk ? a.x.n : start + chunk,
            [&](isize at, isize count) { return x.get(at, count, buffer); }, exp);
    }
    void set_writer() { writer = log_writer<Scaled>(a, outer, inner, max, log); }
};

// --- rows ----------------------------------------------------------------------------------------
// softmax guesses the shift and sums at once (the shift need not be the maximum); where the sum
// shows that the guess was wrong (a logit far above, NaN, infinities) the maximum is found and the
// sum made again. Logarithms need the maximum too, and find it in the same sweep.
//
// A row of one chunk is done in one go, softmax keeping its exponentials; a longer one in sweeps
// over chunks, computing them twice.
template <class C, bool Scaled>
struct RowOfArguments {
    using X = Vec<C>;
    const NormalizeArguments *a;
    explicit RowOfArguments(const NormalizeArguments &arguments) : a(&arguments) {}

    isize n() const { return a->x.n; }
    isize chunks() const { return (n() + chunk - 1) / chunk; }
    isize chunk_end(isize start) const { return n() - start < chunk ? n() : start + chunk; }
    FS_INLINE Scale<X> scale_of(isize o, isize i) const {
        return Scaled ? Scale<X>::all(a->scale(o, i)) : Scale<X>::one();
    }
};

// Rows of one chunk, the results of which are exponentials. S is the type of numbers that are
// converted on their way in and out.
template <class C, Result R, bool Scaled, class S = C>
struct ExpRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n;
    using Kept = KeptRows<C, R == Result::softmax, Scaled, S>;
    RowSource<C, S> logits{};
    Kept kept{};

    using Base::Base;

    // Once per piece of work: what all its rows have in common.
    void begin(isize) {
        C *buffer = scratch<C>(chunk + kept.memory);
        logits = RowSource<C, S>(*a, buffer);
        kept.begin(a->x, a->out, a->where, a->template writer<R, C>(0, 0), buffer + chunk,
                   logits.limit(Kept::most));
    }
    void end() {
        if (kept.unsettled()) settle();
        kept.end();
    }
    void rows(isize o, isize i, isize count) {
        for (const isize end = i + count; i < end;) {
            i += kept.keep(logits.get(o, i, kept.place()), a->x.inner_stride, o, i,
                           logits.direct ? end - i : 1);
            if (kept.full()) settle();
        }
    }

  private:
    FS_INLINE void settle() {
        kept.settle([this](isize o, isize i) FS_INLINE_LAMBDA { return this->scale_of(o, i); },
                    [this](typename Kept::Batch &b) FS_INLINE_LAMBDA {
                        for (isize k = 0; R != Result::softmax && k < b.count; ++k)
                            b.numerator[k] =
                                numerator<R>(this->a->gradient, b.outer[k], b.inner[k]);
                    });
    }
};

// Longer ones.
template <class C, Result R, bool Scaled>
struct LongExpRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n;
    using X = Vec<C>;
    enum Stage { guess, maximum, total, write };
    struct Partial {
        C max;
        Sum sum;
    };
    isize outer = 0, inner = 0;
    Reader<C> from{};
    Writer<C> to{};
    bool streaming = false, guessed = false;
    Stage stage = guess;
    Scale<X> scale{};
    Shift<X> shift{};
    Normalizer<X, R == Result::softmax> normalizer{};
    ChunkResults<Partial> partial;

    using Base::Base;

    void start(isize o, isize i) {
        outer = o, inner = i;
        partial.resize(static_cast<std::size_t>(this->chunks()));
        from = a->template reader<C>(o, i), to = a->template writer<R, C>(o, i),
        streaming = streams<C>(a->x, a->out, a->where);
        scale = this->scale_of(o, i);
        C first;
        guessed = worth_a_guess(*from.get(0, 1, &first) * scale.hi[0]);
        stage = guessed ? guess : maximum;
    }

    void sweep(isize k) {
        const isize start = k * chunk, end = this->chunk_end(start),
                    step = from.direct() && (stage != write || to.direct()) ? chunk : gather_block;
        Partial &p = partial[static_cast<std::size_t>(k)];
        Scratch<C> buffer(gather_block), results(gather_block);
        LaneSums<X> sums;
        p.max = absent_logit<C>;
        const auto shifted = [sh = shift, sc = scale](auto v) FS_INLINE_LAMBDA {
            return exp_shifted<X, Scaled>(v, sh, sc);
        };
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const C *x = from.get(at, size, buffer);
            if (stage == guess) {
                add_exp<X>(x, size, TypicalExp<X, Scaled>(scale), sums);
            } else if (stage == maximum) {
                p.max = larger(p.max, span_max<X>(x, size));
            } else if (stage == total) {
                add_exp<X>(x, size, shifted, sums);
            } else {
                C *y = to.place(at, results);
                normalizer.hand_to([&](const auto &shorter) FS_INLINE_LAMBDA {
                    if (guessed)
                        write_exp<X>(x, y, size, streaming, TypicalExp<X, Scaled>(scale), shorter);
                    else
                        write_exp<X>(x, y, size, streaming, shifted, shorter);
                });
                to.put(at, size, results);
            }
        }
        if (streaming && stage == write) stream_fence();
        p.sum = sums.total();
    }

    bool next() {
        if (stage == write) return false;
        Partial all{absent_logit<C>, {}};
        for (const Partial &p : partial) all.max = larger(p.max, all.max), all.sum.add(p.sum);
        if (stage == guess && !near_enough<C>(all.sum.value()))
            return guessed = false, stage = maximum, true;
        if (stage == maximum) {
            shift = Shift<X>::from(X::set(all.max), scale);
            return stage = total, true;
        }
        normalizer = Normalizer<X, R == Result::softmax>::all(
            numerator<R>(a->gradient, outer, inner), all.sum);
        return stage = write, true;
    }
};

// Rows of one chunk, the results of which are logarithms. These are taken of several rows together,
// if they are still in the cache when they are written.
template <class C, Result R, bool Scaled>
struct LogRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n, Base::scale_of;
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    static constexpr bool keeps = R == Result::log_softmax;
    RowSource<C> logits{};
    Writer<C> to{};
    bool direct_out = false, streaming = false;
    C *results = nullptr;

    static constexpr isize most = 16;
    struct Row {
        isize outer, inner;
        const C *x;
    };
    Waiting<Row, most> batch;

    using Base::Base;

    void begin(isize) {
        C *buffer = scratch<C>(2 * chunk);
        logits = RowSource<C>(*a, buffer), results = buffer + chunk;
        if constexpr (keeps)
            to = a->template writer<R, C>(0, 0), streaming = streams<C>(a->x, a->out, a->where);
        direct_out = keeps ? to.direct() : a->out.number == number_of<C>;
        batch.begin(n() > kept_in_l1 ? 1 : logits.limit(most));
    }
    void end() {
        flush();
        if (streaming) stream_fence();
    }
    void rows(isize o, isize i, isize count) {
        for (const isize end = i + count; i < end; ++i) {
            if (batch.add({o, i, logits.get(o, i, batch.count)})) flush();
        }
    }

  private:
    struct Guess {  // of the batch
        Totals<most> sum;
        C max[most] = {}, at_max[most] = {};
    };

    void flush() {
        Guess g;
        guess(g);
        if (!Scaled && g.sum.template near_enough<C>(batch.count))
            write_usual(g);
        else
            write_any(g);
        batch.count = 0;
    }
    bool singly() const { return summed_singly<X>(n()); }
    void guess(Guess &g) const {
        const auto scale_at = [this](isize k) {
            return this->scale_of(batch.rows[k].outer, batch.rows[k].inner);
        };
        guess_sums<X, Scaled, most>(
            batch.count, scale_at, g.sum, g.max, g.at_max,
            [this, alone = singly()](isize k, const auto &exp, LaneSums<X> &s) FS_INLINE_LAMBDA {
                const C *x = batch.rows[k].x;
                if (!worth_a_guess(x[0] * exp.scale.hi[0])) return C(0);
                return alone ? add_exp_and_max<true, X>(x, this->n(), exp, s)
                             : add_exp_and_max<false, X>(x, this->n(), exp, s);
            });
    }
    ExpTotal<C> guessed(const Guess &g, isize k) const {
        ExpTotal<C> t{g.sum[k], g.max[k], g.at_max[k], 0, Shift<X>::typical_exponent};
        const Row &row = batch.rows[k];
        if (!singly() && t.dominated()) {
            refine<X>(
                t, 0, n(), [&](isize at, isize) { return row.x + at; },
                TypicalExp<X, Scaled>(scale_of(row.outer, row.inner)));
        }
        return t;
    }

    // All shifts were right.
    void write_usual(Guess &g) const {
        for (isize k = 0; !singly() && k < batch.count; ++k) g.sum.set(k, guessed(g, k).sum);
        alignas(64) C hi[most], lo[most], sum[most];
        for (isize k = 0; k < batch.count; k += X::lanes) {
            const UsualLogs<X> log(
                X::load(g.max + k), X::load(g.at_max + k),
                [&](int p) FS_INLINE_LAMBDA { return g.sum.template part<D>(k + p * D::lanes); });
            X::store(hi + k, log.hi), X::store(lo + k, log.lo), X::store(sum + k, log.sum());
        }
        for (isize k = 0; k < batch.count; ++k) {
            const Row &row = batch.rows[k];
            const ExpTotal<C> t{g.sum[k], g.max[k], g.at_max[k], 0, 0};
            if (t.wants_rest() || (!keeps && may_cancel(g.max[k], sum[k])))
                write(row, t, {static_cast<double>(hi[k]), static_cast<double>(lo[k])});
            else if (keeps)
                write(row, LogWriter<X, Scaled>{X::set(g.max[k]), X::set(hi[k]), X::set(lo[k]), V{},
                                                V{}, V{}});
            else if (direct_out)
                *reinterpret_cast<C *>(a->out.at(row.outer, row.inner)) = sum[k];
            else
                a->out.store(row.outer, 0, row.inner, static_cast<double>(sum[k]));
        }
    }
    void write_any(const Guess &g) const {
        ExpTotal<C> total[most];
        Sum log[most];
        LogTotals<C, Scaled, most> totals;
        for (isize k = 0; k < batch.count; ++k) {
            const Row &row = batch.rows[k];
            total[k] = near_enough<C>(g.sum.hi[k])
                           ? guessed(g, k)
                           : careful_total<X, Scaled>(row.x, n(), scale_of(row.outer, row.inner));
            totals.set(k, total[k], Scaled ? a->scale(row.outer, row.inner) : Factor{1, 0});
        }
        totals.solve(batch.count, log);
        for (isize k = 0; k < batch.count; ++k) write(batch.rows[k], total[k], log[k]);
    }
    __attribute__((noinline)) void write(const Row &row, const ExpTotal<C> &t, Sum log) const {
        if (t.wants_rest()) {
            LaneSums<X> rest, copies;
            add_rest<X, Scaled>(row.x, n(), t.max, scale_of(row.outer, row.inner), rest, copies);
            log = log_of_rest<C>(rest.total(), copies.total());
        }
        if constexpr (keeps)
            write(row, log_writer<Scaled>(*a, row.outer, row.inner, t.max, log));
        else
            store_log_sum(*a, row.outer, row.inner, t.max, log,
                          [&] { return span_has_nan(row.x, n()); });
    }
    FS_INLINE void write(const Row &row, const LogWriter<X, Scaled> &writer) const {
        C *y = direct_out ? reinterpret_cast<C *>(a->out.at(row.outer, row.inner)) : results;
        write_with<X>(writer, row.x, y, n(), streaming);
        if (!direct_out) scatter(row);
    }
    __attribute__((noinline)) void scatter(const Row &row) const {
        Writer<C> t = to;
        t.p += a->out.offset(row.outer, row.inner);
        if (t.mask) t.mask += a->where.offset(row.outer, row.inner);
        t.put(0, n(), results);
    }
};

// Longer ones.
template <class C, Result R, bool Scaled>
struct LongLogRow : RowOfArguments<C, Scaled> {
    using Base = RowOfArguments<C, Scaled>;
    using Base::a, Base::n;
    using X = Vec<C>;
    static constexpr bool keeps = R == Result::log_softmax;
    RowLog<C, Scaled> row;
    ChunkResults<typename RowLog<C, Scaled>::Partial> partial;
    Writer<C> to{};
    bool streaming = false, writes = false;

    explicit LongLogRow(const NormalizeArguments &arguments) : Base(arguments), row(arguments) {}

    void start(isize o, isize i) {
        partial.resize(static_cast<std::size_t>(this->chunks()));
        row.start(o, i);
        if constexpr (keeps)
            to = a->template writer<R, C>(o, i), streaming = streams<C>(a->x, a->out, a->where);
        writes = false;
    }
    void sweep(isize k) {
        const isize start = k * chunk, end = this->chunk_end(start);
        if (!writes)
            partial[static_cast<std::size_t>(k)] = row.sweep(start, end);
        else
            write(start, end);
    }
    bool next() {
        if (writes) return false;
        if (row.next(partial)) return true;
        if constexpr (!keeps)
            store_log_sum(*a, row.outer, row.inner, row.max, row.log, [&] { return has_nan(); });
        return writes = keeps;
    }

  private:
    void write(isize start, isize end) const {
        Scratch<C> buffer(gather_block), results(gather_block);
        const isize step = row.x.direct() && to.direct() ? chunk : gather_block;
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            write_with<X>(row.writer, row.x.get(at, size, buffer), to.place(at, results), size,
                          streaming);
            to.put(at, size, results);
        }
        if (streaming) stream_fence();
    }
    bool has_nan() const {
        Scratch<C> buffer(gather_block);
        bool found = false;
        for (isize at = 0; at < n(); at += gather_block) {
            const isize size = n() - at < gather_block ? n() - at : gather_block;
            found |= span_has_nan(row.x.get(at, size, buffer), size);
        }
        return found;
    }
};

// --- short rows ----------------------------------------------------------------------------------
// The scales of the rows in a vector, in its lanes.
template <class X, bool Scaled>
Scale<X> lane_scales(const Rows &a, isize outer, isize first, isize count) {
    if (!Scaled) return Scale<X>::one();
    if (!a.temperature.outer_stride && !a.temperature.inner_stride)
        return Scale<X>::all(a.scale(0, 0));
    Scale<X> scale;
    for (isize l = 0; l < X::lanes; ++l)
        scale.set_lane(l, a.scale(outer, first + (l < count ? l : count - 1)));
    return scale;
}

// The logarithms of the totals of rows, relative to their maxima, as precise_log_of_total has them:
// of those in the k-th vector of double.
template <class X>
Pair<typename Vec<double>::V> precise_log(Columns<X> x, isize n, typename X::V max, int k,
                                          const Scale<Vec<double>> &scale) {
    using D = Vec<double>;
    const auto below = D::set(rest_exponent<double>), top = wide_part<X>(max, k);
    LaneSums<D> rest;
    typename D::V copies = {};
    for (isize j = 0; j < n; ++j) {
        const auto v = wide_part<X>(x[j], k);
        const auto e = exp_below_pair<D, true>(v, top, below, scale);
        rest.add(v == top ? typename D::V{} : e.hi);
        rest.add(v == top ? typename D::V{} : e.lo);
        copies = copies + (v == top ? D::set(1) : typename D::V{});
    }
    return LogTotal<D>::from_rest(true_rest<double>(rest.part(0)), copies);
}

// Short rows, one in each lane. Softmax of scores on a lattice is one of their exact differences:
// it does not change when all scores move. For logarithms every exponential is one of the exact
// difference from the maximum, and the logarithm that of 1 and the sum of the others.
template <class C, Result R, bool Scaled>
struct ShortTile {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    static constexpr isize width = tile_vectors * X::lanes;
    static constexpr bool logarithmic = takes_logarithm(R), keeps = R != Result::logsumexp;
    static_assert(short_row <= ShortRows<X>::longest && short_log_row <= ShortRows<X>::longest, "");

    const NormalizeArguments *a;
    bool direct;  // the columns are contiguous in memory

    isize n() const { return a->x.n; }

    void run(isize outer, isize first, isize count) const {
        const Scratch<Group> group(vectors);
        for (isize at = 0; at < count;) {
            isize used = 0;
            for (; used < vectors && at < count; ++used, at += X::lanes) {
                group[used].place(outer, first + at, count - at < X::lanes ? count - at : X::lanes);
            }
            // Step by step for all of them: one alone would wait for its maximum, its sum and its
            // reciprocal (20 % at 32 elements).
            for (isize v = 0; v < used; ++v) find_maximum(group[v]);
            for (isize v = 0; v < used; ++v) sum(group[v]);
            for (isize v = 0; v < used; ++v) write(group[v]);
        }
    }

  private:
    static constexpr isize vectors = logarithmic ? 2 : 4;
    struct Group {  // a vector of rows
        ShortRows<X> rows;
        isize outer, first, count;
        bool in_memory;  // the columns are whole vectors
        V max;
        Scale<X> scale;
        Shift<X> shift;
        Normalizer<X, R == Result::softmax> normalizer;
        Pair<V> rest;

        void place(isize o, isize f, isize c) { outer = o, first = f, count = c; }
    };

    void find_maximum(Group &g) const {
        g.in_memory = direct && g.count == X::lanes;
        C *tile = g.rows.columns;
        Columns<X> x{tile, X::lanes};
        if (g.in_memory)
            x = {reinterpret_cast<const C *>(a->x.at(g.outer, g.first)),
                 a->x.n_stride / isize(sizeof(C))};
        else
            g.rows.gather(a->x, g.outer, g.first, g.count, a->where, a->negative());
        g.scale = lane_scales<X, Scaled>(*a, g.outer, g.first, g.count);
        // two chains of half the latency
        V max = X::set(-std::numeric_limits<C>::infinity()), other = max;
        typename X::I off{};
        const auto look = [&](V v, V &most) FS_INLINE_LAMBDA {
            most = larger(v, most);
            if constexpr (!logarithmic) off |= off_lattice<X>(v);
        };
        // Columns in memory are copied: their rows may lie a multiple of 4096 bytes apart, where
        // few of them fit the cache.
        const auto look_at = [&](isize j, V &most) FS_INLINE_LAMBDA {
            const V v = x[j];
            look(v, most);
            if (g.in_memory) X::store(tile + j * X::lanes, v);
        };
        isize i = 0;
        for (; i + 2 <= n(); i += 2) look_at(i, max), look_at(i + 1, other);
        if (i < n()) look_at(i, max);
        g.max = larger(max, other);
        if constexpr (!logarithmic) g.shift = Shift<X>::from(g.max, g.scale, off == 0);
    }

    void sum(Group &g) const {
        if constexpr (logarithmic)
            g.rest = others({g.rows.columns, X::lanes}, g.max, g.scale);
        else
            g.normalizer = exponentials({g.rows.columns, X::lanes}, g.shift, g.scale, g.outer,
                                        g.first, g.count, g.rows.columns);
    }

    void write(Group &g) const {
        if constexpr (R == Result::logsumexp) {
            store(log_sum({g.rows.columns, X::lanes}, g.max, g.rest), g.outer, g.first, g.count);
        } else {
            C *y = g.rows.columns;
            isize step = X::lanes;
            if (g.in_memory)
                y = reinterpret_cast<C *>(a->out.at(g.outer, g.first)),
                step = a->out.n_stride / isize(sizeof(C));
            if constexpr (logarithmic) {
                const auto writer = log_writer(g.max, g.rest, g.outer, g.first, g.count);
                for (isize j = 0; j < n(); ++j)
                    X::store(y + j * step, writer.apply(X::load(g.rows.columns + j * X::lanes)));
            } else {
                const auto normalizer = g.normalizer;
                for (isize j = 0; j < n(); ++j)
                    X::store(y + j * step,
                             normalizer.apply(X::load(g.rows.columns + j * X::lanes)));
            }
            if (!g.in_memory)
                g.rows.scatter(a->out, g.outer, g.first, g.count, a->where,
                               NormalizeArguments::absent<R, C>());
        }
    }

    FS_INLINE Normalizer<X, R == Result::softmax> exponentials(Columns<X> x, const Shift<X> &shift,
                                                               const Scale<X> &scale, isize outer,
                                                               isize first, isize count,
                                                               C *e) const {
        const auto term = [&](isize j) FS_INLINE_LAMBDA {
            const V y = exp_shifted<X, Scaled>(x[j], shift, scale);
            X::store(e + j * X::lanes, y);
            return y;
        };
        const isize n = this->n();
        PairSums<X> sums{sum_of_four(0, n < 4 ? n : 4, term), V{}};
        for (isize j = 4; j < n; j += 4) sums.add(sum_of_four(j, j + 4 < n ? j + 4 : n, term));
        return Normalizer<X, R == Result::softmax>::of_pairs(numerators(outer, first, count),
                                                             {sums.hi, sums.lo});
    }
    Pair<V> numerators(isize outer, isize first, isize count) const {
        double numerators[X::lanes];
        if (!numerators_of<R>(a->gradient, outer, first, count, numerators))
            return {X::set(1), V{}};
        Pair<typename D::V> wide[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k)
            wide[k] = {D::load(numerators + k * D::lanes), typename D::V{}};
        return pair_from_wide<X>(wide);
    }

    // The sum of all exponentials but one of the maximum, relative to it. NaN if there is a NaN;
    // finite, but of no use, where the maximum is infinite.
    FS_INLINE Pair<V> others(Columns<X> x, V max, const Scale<X> &scale) const {
        const Shift<X> below = Shift<X>::fixed(rest_exponent<C>, scale);
        LaneSums<X> rest;
        V copies = {};
        for (isize j = 0; j < n(); ++j) {
            const V v = x[j];
            rest.add(v == max ? V{} : exp_below<X, Scaled>(v, max, below, scale));
            copies = copies + (v == max ? X::set(1) : V{});
        }
        Pair<typename D::V> sums[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k)
            sums[k] = with_copies(true_rest<C>(rest.part(k)), wide_part<X>(copies, k));
        return pair_from_wide<X>(sums);
    }
    static FS_INLINE Pair<typename D::V> with_copies(Pair<typename D::V> rest,
                                                     typename D::V copies) {
        const auto s = two_sum(copies - 1.0, rest.hi);
        return {s.hi, s.lo + rest.lo};
    }

    // A natural logarithm as one to the base.
    FS_INLINE Pair<V> to_base(Pair<V> l) const {
        if (a->ln_base.is_one()) return l;
        Pair<typename D::V> quotient[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            quotient[k] = LogTotal<D>::divide(two_sum(wide_part<X>(l.hi, k), wide_part<X>(l.lo, k)),
                                              a->ln_base);
        }
        return pair_from_wide<X>(quotient);
    }

    FS_INLINE LogWriter<X, Scaled> log_writer(V max, Pair<V> rest, isize outer, isize first,
                                              isize count) const {
        const Pair<V> l = to_base(log1p_nonnegative<X>(rest.hi, rest.lo));
        LogWriter<X, Scaled> w;
        w.max = max, w.hi = l.hi + (max - max), w.lo = l.lo;
        for (isize k = 0; Scaled && k < X::lanes; ++k)
            w.set_inverse(k, a->inverse_temperature(outer, first + (k < count ? k : count - 1)));
        return w;
    }

    FS_INLINE V log_sum(Columns<X> x, V max, Pair<V> rest) const {
        const Pair<V> l = to_base(log1p_nonnegative<X>(rest.hi, rest.lo)), s = two_sum(max, l.hi);
        const V usual = s.hi + (s.lo + l.lo);
        const auto cancels = may_cancel(max, usual * static_cast<C>(a->ln_base.hi));
        const V y = max - max == V{} ? usual : max + rest.hi;
        return any<X>(cancels) ? (cancels ? precise_log_sum(x, max) : y) : y;
    }
    // Where the maximum and the logarithm nearly cancel, exponentials of more than the result's
    // precision are needed.
    V precise_log_sum(Columns<X> x, V max) const {
        typename D::V results[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            auto l = precise_log<X>(x, n(), max, k, Scale<D>::all(a->ln_base));
            if (!a->ln_base.is_one()) l = LogTotal<D>::divide(l, a->ln_base);
            const auto s = two_sum(wide_part<X>(max, k), l.hi);
            results[k] = s.hi + (s.lo + l.lo);
        }
        return from_wide<X>(results);
    }
    void store(V y, isize outer, isize first, isize count) const {
        C lanes[X::lanes];
        X::store(lanes, y);
        Writer<C> to(a->out, outer, first);
        to.stride = a->out.inner_stride;
        to.copy(0, count, lanes);
    }
};

// --- columns -------------------------------------------------------------------------------------
// A tile of columns, one column per lane, with the shift of each lane from its exact maximum.
template <class C, Result R, bool Scaled>
struct NormalizeTile {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    static constexpr isize width = tile_vectors * X::lanes;
    static constexpr bool logarithmic = takes_logarithm(R);

    struct Place {  // rows of a tile in memory
        C *p;
        isize step;
    };
    struct Column {     // the state of one vector of columns
        V max, at_max;  // and its exponential
        Scale<X> scale;
        Shift<X> shift, zero;
        LogWriter<X, Scaled> logarithm;
        LaneSums<X> sum;
    };

    const NormalizeArguments *a;
    bool staged;  // the tile is gathered into scratch and its results are scattered from there

    isize n() const { return a->x.n; }

    void run(isize outer, isize first, isize count) const {
        constexpr bool keeps = R != Result::logsumexp;
        if (!staged) {
            const isize size = sizeof(C);
            const C *x = reinterpret_cast<const C *>(a->x.at(outer, first));
            C *y = keeps ? reinterpret_cast<C *>(a->out.at(outer, first)) : nullptr;
            const isize step = a->x.n_stride / size, out_step = keeps ? a->out.n_stride / size : 0;
            // Exponentials are kept in scratch, which is contiguous: rows that lie a multiple of
            // 4096 bytes apart share few lines of the cache.
            const isize across = (count + X::lanes - 1) / X::lanes * X::lanes;
            const bool apart = keeps && n() * across * size <= tile_bytes;
            const Scratch<C> exponentials(apart ? n() * across : 0);
            const Place out{y, out_step}, kept = apart ? Place{exponentials, across} : out;
            return solve(x, step, kept, out, x != y || apart, outer, first, count);
        }
        const Scratch<C> room(n() * width);
        C *tile = room;
        const C *x =
            gather_columns(a->x, true, outer, first, count, width, tile, a->where, a->negative());
        solve(x, width, {tile, width}, {tile, width}, false, outer, first, count);
        if (keeps)
            scatter_columns(a->out, outer, first, count, width, tile, a->where,
                            NormalizeArguments::absent<R, C>());
    }

  private:
    // body(vector, offset, lanes) for the vectors of a tile `count` columns wide.
    template <class Body>
    static FS_INLINE void vectors(isize count, Body body) {
        isize v = 0;
        for (; (v + 1) * X::lanes <= count; ++v) body(v, v * X::lanes, AllLanes<X>());
        if (v * X::lanes < count) body(v, v * X::lanes, FirstLanes<X>{count - v * X::lanes});
    }

    // Sums term(row, vector, offset, lanes) down every column: in blocks, or each term added to the
    // wider sums by itself.
    template <bool ByItself, class Term>
    FS_INLINE void sum_columns(isize count, Column *column, Term term) const {
        for (isize i = 0; i < n(); i += 4 * block) {
            const isize end = n() - i < 4 * block ? n() : i + 4 * block;
            vectors(count, [&](isize v, isize at, auto lanes) FS_INLINE_LAMBDA {
                LaneSums<X> sums = column[v].sum;  // in registers, whatever else is stored
                if constexpr (ByItself) {
                    for (isize j = i; j < end; ++j) sums.add(term(j, v, at, lanes));
                } else {
                    sum_rows<X>(i, end, sums,
                                [&](isize k) FS_INLINE_LAMBDA { return term(k, v, at, lanes); });
                }
                column[v].sum = sums;
            });
        }
    }

    // Exponentials are summed, and kept if they are results; then the results are written. A guess
    // of the shift, as for rows, needs no maximum first.
    void solve(const C *x, isize step, Place kept, Place out, bool may_guess, isize outer,
               isize first, isize count) const {
        const Scratch<Column> column(tile_vectors);
        if (!may_guess || !guess(column, x, step, kept, count)) {
            for (isize v = 0; v < tile_vectors; ++v) column[v].sum = {};
            find_shifts(column, x, step, outer, first, count);
            sum_exponentials(column, x, step, kept, count);
        }
        if constexpr (logarithmic)
            settle_logarithms(column, x, step, out, outer, first, count);
        else
            write(column, kept, out, outer, first, count);
    }

    // How many rows ahead columns are fetched from memory, which are too far apart for the
    // processor to do so by itself. (Measured, out of the cache: logsumexp 30 to 40 % less time,
    // softmax 10 %.)
    isize ahead(isize rows) const {
        return a->x.outer * n() * a->x.inner * isize(sizeof(C)) >= fetch_from ? rows : 0;
    }

    // False: the guess was wrong. It is judged by the first logit of each column, and by the sums.
    bool guess(Column *column, const C *x, isize step, Place kept, isize count) const {
        if (Scaled || !all_worth_a_guess<X>(x, count)) return false;
        const C least = -std::numeric_limits<C>::infinity();
        const Scale<X> one = Scale<X>::one();
        const TypicalExp<X, false> exp(one);
        const isize far = ahead(4 * block);
        for (isize v = 0; v < tile_vectors; ++v)
            column[v].max = X::set(least), column[v].scale = one,
            column[v].shift = Shift<X>::typical(one);
        sum_columns<logarithmic>(
            count, column, [&](isize i, isize v, isize at, auto lanes) FS_INLINE_LAMBDA {
                __builtin_prefetch(x + (i + far) * step + at);
                const V logit = lanes.load(x + i * step + at, least), e = exp(logit);
                if constexpr (logarithmic)
                    column[v].max = larger(logit, column[v].max);
                else
                    lanes.store(kept.p + i * kept.step + at, e);
                return e;
            });
        for (isize v = 0; logarithmic && v * X::lanes < count; ++v)
            column[v].at_max = exp(column[v].max);
        bool right = true;
        for (isize l = 0; l < count; ++l)
            right &= near_enough<C>(column[l / X::lanes].sum.lane(l % X::lanes).value());
        return right;
    }

    void sum_exponentials(Column *column, const C *x, isize step, Place kept, isize count) const {
        const C least = -std::numeric_limits<C>::infinity();
        const auto shifted = [&](isize i, isize v, isize at, auto lanes) FS_INLINE_LAMBDA {
            return exp_shifted<X, Scaled>(lanes.load(x + i * step + at, least), column[v].shift,
                                          column[v].scale);
        };
        const auto keep = [&](isize i, isize at, auto lanes, V e) FS_INLINE_LAMBDA {
            lanes.store(kept.p + i * kept.step + at, e);
            return e;
        };
        if constexpr (logarithmic) {
            sum_columns<true>(count, column, shifted);
            for (isize v = 0; v * X::lanes < count; ++v)
                column[v].at_max =
                    exp_shifted<X, Scaled>(column[v].max, column[v].shift, column[v].scale);
        } else {
            sum_columns<false>(count, column,
                               [&](isize i, isize v, isize at, auto lanes) FS_INLINE_LAMBDA {
                                   return keep(i, at, lanes, shifted(i, v, at, lanes));
                               });
        }
    }

    void write(Column *column, Place kept, Place out, isize outer, isize first, isize count) const {
        using Normal = Normalizer<X, R == Result::softmax>;
        Normal normalizer[tile_vectors];
        bool one_term = true;
        vectors(count, [&](isize v, isize at, auto) {
            double numerators[X::lanes];
            const bool given =
                numerators_of<R>(a->gradient, outer, first + at,
                                 count - at < X::lanes ? count - at : X::lanes, numerators);
            normalizer[v] = Normal::each(given ? numerators : nullptr, column[v].sum);
            one_term &= normalizer[v].has_one_term();
        });
        const isize far = ahead(block);
        const auto scale_all = [&](auto shorter) FS_INLINE_LAMBDA {
            for (isize i = 0; i < n(); ++i) {
                vectors(count, [&](isize v, isize at, auto lanes) {
                    __builtin_prefetch(out.p + (i + far) * out.step + at, 1);
                    lanes.store(out.p + i * out.step + at,
                                normalizer[v].template apply<decltype(shorter)::value>(
                                    lanes.load(kept.p + i * kept.step + at, 0)));
                });
            }
        };
        if (Normal::seldom_two && one_term)
            scale_all(std::true_type());
        else
            scale_all(std::false_type());
    }

    void find_shifts(Column *column, const C *x, isize step, isize outer, isize first,
                     isize count) const {
        const C least = -std::numeric_limits<C>::infinity();
        vectors(count, [&](isize v, isize, auto) {
            column[v].max = X::set(least);
            column[v].scale = Scale<X>::one();
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
        vectors(count, [&](isize v, isize, auto) {
            column[v].shift = Shift<X>::from(column[v].max, column[v].scale);
            column[v].zero = Shift<X>::fixed(0, column[v].scale);
        });
    }

    // The logarithms of the totals, in vectors of double.
    void settle_logarithms(Column *column, const C *x, isize step, Place out, isize outer,
                           isize first, isize count) const {
        const Scratch<Sum> logs(width);
        const Scratch<LogTotals<C, Scaled, width>> in(1);
        LogTotals<C, Scaled, width> &totals = *in;
        bool wanted[width], any = false;
        for (isize v = 0; v * X::lanes < count; ++v) {
            const Column &c = column[v];
            for (isize k = 0, l = v * X::lanes; k < X::lanes && l < count; ++k, ++l) {
                const ExpTotal<C> t{c.sum.lane(k), c.max[k], c.at_max[k], c.shift.center[k],
                                    c.shift.exponent(k)};
                totals.set(l, t, Scaled ? a->scale(outer, first + l) : Factor{1, 0});
                wanted[l] = t.wants_rest();
                any |= wanted[l];
            }
        }
        totals.solve(count, logs);
        if (any) sum_rests(column, wanted, logs, x, step, count);
        for (isize l = 0; l < count; ++l)
            finish(column[l / X::lanes], l % X::lanes, logs[l], outer, first + l, x + l, step);
        if (R != Result::log_softmax) return;
        const C least = -std::numeric_limits<C>::infinity();
        const isize far = ahead(block);
        for (isize i = 0; i < n(); ++i) {
            vectors(count, [&](isize v, isize at, auto lanes) {
                __builtin_prefetch(x + (i + far) * step + at);
                __builtin_prefetch(out.p + (i + far) * out.step + at, 1);
                lanes.store(out.p + i * out.step + at,
                            column[v].logarithm.apply(lanes.load(x + i * step + at, least)));
            });
        }
    }

    void sum_rests(Column *column, const bool *wanted, Sum *logs, const C *x, isize step,
                   isize count) const {
        const C least = -std::numeric_limits<C>::infinity();
        LaneSums<X> rest[tile_vectors], copies[tile_vectors];
        vectors(count, [&](isize v, isize, auto) {
            column[v].zero = Shift<X>::fixed(rest_exponent<C>, column[v].scale);
        });
        for (isize i = 0; i < n(); ++i) {
            vectors(count, [&](isize v, isize at, auto lanes) {
                const Column &c = column[v];
                const V t = lanes.load(x + i * step + at, least);
                rest[v].add(t == c.max ? V{} : exp_below<X, Scaled>(t, c.max, c.zero, c.scale));
                copies[v].add(t == c.max ? X::set(1) : V{});
            });
        }
        for (isize l = 0; l < count; ++l) {
            if (!wanted[l]) continue;
            logs[l] = log_of_rest<C>(rest[l / X::lanes].lane(l % X::lanes),
                                     copies[l / X::lanes].lane(l % X::lanes));
        }
    }

    void finish(Column &c, isize k, Sum log, isize outer, isize inner, const C *x,
                isize step) const {
        using E = Vec<double, 16>;
        const Pair<typename E::V> pair{E::set(log.hi), E::set(log.lo)};
        if constexpr (R == Result::logsumexp) {
            a->out.store(outer, 0, inner,
                         log_sum(*a, outer, inner, static_cast<double>(c.max[k]), pair, [&] {
                             bool nan = false;
                             for (isize i = 0; i < n(); ++i) nan |= x[i * step] != x[i * step];
                             return nan;
                         }));
        } else {
            const auto l = a->ln_base.is_one() ? pair : LogTotal<E>::divide(pair, a->ln_base);
            c.logarithm.set_lane(k, c.max[k], l.hi[0], l.lo[0],
                                 Scaled ? a->inverse_temperature(outer, inner) : Factor{1, 0});
        }
    }
};

// Wide strips of columns in memory, where no scale is wanted. Rows of a strip are long runs of
// memory, which the processor fetches ahead of itself: sums for eight rows at a time, with the
// typical shift, then the results. Where a strip that is still wide fits L2, its exponentials are
// kept, in the output; else they are computed again: to store and to load them would take more
// time, and tiles as narrow as they would have to be are a few cache lines from each of many pages.
// (Measured, AVX-512, ns per element of softmax, tiles and strips: 32 x 1000 0.32 and 0.23, 100 x
// 1000 0.30 and 0.25, 32 x 32000 0.42 and 0.28 (0.32 computed again), 4000 x 4000 0.83 and 0.55, 20
// x 1000000 1.15 and 0.48.)
//
// Columns whose sums show that the shift was wrong are done again, by Careful, with those next to
// them (`group`: the same ones wherever strips end).
template <class C, Result R, class Careful>
struct NormalizeStrip {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    using Normal = Normalizer<X, R == Result::softmax>;
    using Writer = LogWriter<X, false>;
    static constexpr bool logarithmic = takes_logarithm(R), keeps = R != Result::logsumexp;
    static constexpr isize group = tile_vectors * X::lanes, most = strip_bytes / isize(sizeof(C));

    const NormalizeArguments *a;
    Careful careful;
    bool exact;  // scores on a lattice are not for this: they have exact differences
    bool streaming;
    bool kept;  // exponentials, in the output, until they are scaled there

    isize n() const { return a->x.n; }

    // Columns of a strip that fits L2 with all its rows, and whether they are enough.
    static isize in_l2(const NormalizeArguments &a) {
        return tile_bytes / (a.x.n * isize(sizeof(C)));
    }
    static bool fits(const NormalizeArguments &a) { return in_l2(a) >= strip_columns; }
    static isize width(const NormalizeArguments &a, isize threads) {
        const isize narrow = !fits(a)              ? most
                             : in_l2(a) < most / 4 ? in_l2(a) / group * group
                                                   : most / 4;
        const isize share = (a.x.outer * a.x.inner + threads - 1) / threads;
        const isize wide = narrow < share ? narrow : share;
        return (wide + group - 1) / group * group;
    }

    void run(isize outer, isize first, isize count) const {
        Strip s{};
        s.outer = outer, s.first = first, s.count = count;
        s.x = reinterpret_cast<const C *>(a->x.at(outer, first)),
        s.step = a->x.n_stride / isize(sizeof(C));
        if constexpr (keeps)
            s.y = reinterpret_cast<C *>(a->out.at(outer, first)),
            s.y_step = a->out.n_stride / isize(sizeof(C));
        const Scratch<Column> columns((count + X::lanes - 1) / X::lanes);
        s.columns = columns;
        sum(s);
        judge(s);
        if constexpr (!logarithmic && Normal::seldom_two) {
            if (s.two_terms)
                write(s, [](const Column &c, V e) FS_INLINE_LAMBDA { return c.writer.apply(e); });
            else
                write(s, [](const Column &c, V e)
                             FS_INLINE_LAMBDA { return c.writer.template apply<true>(e); });
        } else if constexpr (keeps) {
            write(s, [](const Column &c, V v) FS_INLINE_LAMBDA { return c.writer.apply(v); });
        }
        for (isize g = 0; g * group < count; ++g) {
            if (s.wrong[g])
                careful.run(outer, first + g * group,
                            count - g * group < group ? count - g * group : group);
        }
    }

  private:
    struct Column {  // a vector of columns
        LaneSums<X> sum;
        V max;
        typename X::I off;  // where it is 0, all scores are on the lattice
        std::conditional_t<logarithmic, Writer, Normal> writer;
    };
    struct Strip {
        isize outer, first, count;
        const C *x;
        isize step;
        C *y;
        isize y_step;
        Column *columns;
        bool wrong[most / group + 1];
        bool two_terms;  // at least one normalizer has them
    };

    // body(vector, offset, lanes) for the columns from `at` to `end`.
    template <class Body>
    static FS_INLINE void vectors(isize at, isize end, Body body) {
        for (; at + X::lanes <= end; at += X::lanes) body(at / X::lanes, at, AllLanes<X>());
        if (at < end) body(at / X::lanes, at, FirstLanes<X>{end - at});
    }

    void sum(Strip &s) const {
        const TypicalExp<X, false> exp(Scale<X>::one());
        vectors(0, s.count, [&](isize v, isize, auto) {
            s.columns[v].sum = {}, s.columns[v].max = X::set(absent_logit<C>),
            s.columns[v].off = typename X::I{};
        });
        for (isize i = 0; i < n(); i += block) {
            const isize end = n() - i < block ? n() : i + block;
            vectors(0, s.count, [&](isize v, isize at, auto lanes) FS_INLINE_LAMBDA {
                Column &c = s.columns[v];
                LaneSums<X> sums = c.sum;
                const C *x = s.x + at;
                if (exact && any<X>(c.off == 0)) {  // hardly ever after the first rows
                    for (isize j = i; j < end; ++j)
                        c.off |= off_lattice<X>(lanes.load(x + j * s.step, 0));
                }
                if constexpr (logarithmic) {
                    V most = c.max;
                    for (isize j = i; j < end; ++j) {
                        const V logit = lanes.load(x + j * s.step, 0);
                        most = larger(logit, most);
                        sums.add(exp(logit));
                    }
                    c.max = most;
                } else if (kept) {
                    C *e = s.y + at;
                    sum_rows<X>(i, end, sums, [&](isize j) FS_INLINE_LAMBDA {
                        const V y = exp(lanes.load(x + j * s.step, 0));
                        lanes.store(e + j * s.y_step, y);
                        return y;
                    });
                } else {
                    sum_rows<X>(i, end, sums, [&](isize j) FS_INLINE_LAMBDA {
                        return exp(lanes.load(x + j * s.step, 0));
                    });
                }
                c.sum = sums;
            });
        }
    }

    // Which groups are wrong, and what the others' results are made with.
    void judge(Strip &s) const {
        vectors(0, s.count, [&](isize v, isize at, auto) {
            Column &c = s.columns[v];
            bool wrong = exact && any<X>(c.off == 0);
            for (int k = 0; k < wide_parts<X>; ++k) {
                wrong |= any<D>(~near_enough<C>(c.sum.part(k).hi));
            }
            s.wrong[at / group] |= wrong || !settle(s, v, at);
        });
    }
    // False: one of the columns wants more than its total.
    bool settle(Strip &s, isize v, isize at) const {
        Column &c = s.columns[v];
        const isize count = s.count - at < X::lanes ? s.count - at : X::lanes;
        if constexpr (!logarithmic) {
            double numerators[X::lanes];
            const bool given =
                numerators_of<R>(a->gradient, s.outer, s.first + at, count, numerators);
            c.writer = Normal::each(given ? numerators : nullptr, c.sum);
            s.two_terms |= !c.writer.has_one_term();
            return true;
        } else {
            const UsualLogs<X> log(c.max, TypicalExp<X, false>(Scale<X>::one())(c.max),
                                   [&](int k) FS_INLINE_LAMBDA { return c.sum.part(k); });
            if (log.any_wants_rest()) return false;
            if constexpr (keeps)
                c.writer = {log.max, log.hi, log.lo, V{}, V{}, V{}};
            else
                return store(s.outer, s.first + at, count, log);
            return true;
        }
    }
    bool store(isize outer, isize first, isize count, const UsualLogs<X> &log) const {
        const V y = log.sum();
        if (any<X>(may_cancel(log.max, y))) return false;
        if (a->out.number == number_of<C> && a->out.inner_stride == isize(sizeof(C))) {
            X::store_part(reinterpret_cast<C *>(a->out.at(outer, first)), y, count);
        } else {
            for (isize l = 0; l < count; ++l)
                a->out.store(outer, 0, first + l, static_cast<double>(y[l]));
        }
        return true;
    }

    template <class Apply>
    void write(const Strip &s, Apply apply) const {
        const TypicalExp<X, false> exp(Scale<X>::one());
        const C *x = s.x;
        C *y = s.y;
        for (isize i = 0; i < n(); ++i, x += s.step, y += s.y_step) {
            // the groups from one wrong one to the next
            for (isize start = 0, end; start < s.count; start = end) {
                end = start + group;
                if (s.wrong[start / group]) continue;
                while (end < s.count && !s.wrong[end / group]) end += group;
                if (end > s.count) end = s.count;
                const bool stream =
                    streaming && reinterpret_cast<std::uintptr_t>(y + start) % sizeof(V) == 0;
                vectors(start, end, [&](isize v, isize at, auto lanes) FS_INLINE_LAMBDA {
                    const V value = lanes.load((kept ? y : x) + at, 0),
                            result = apply(s.columns[v], logarithmic || kept ? value : exp(value));
                    if (decltype(lanes)::whole && stream)
                        X::stream(y + at, result);
                    else
                        lanes.store(y + at, result);
                });
            }
        }
        if (streaming) stream_fence();
    }
};

// --- entry points --------------------------------------------------------------------------------
template <Result R>
constexpr Traits traits_of = {R == Result::softmax       ? "softmax"
                              : R == Result::log_softmax ? "log_softmax"
                              : R == Result::logsumexp   ? "logsumexp"
                                                         : "logsumexp_vjp",
                              takes_logarithm(R) ? short_log_row : short_row,
                              R != Result::logsumexp_vjp, true, takes_logarithm(R)};

// Columns where they are, of rows as they are: without options that only gathering understands.
template <Result R, class C>
bool direct(const NormalizeArguments &a) {
    const bool written = R != Result::logsumexp;
    return !a.where.data && !a.negative() && columns_direct<C>(a.x) &&
           (!written || columns_direct<C>(a.out));
}

template <Result R, class C, class Careful>
void normalize_strips(const NormalizeArguments &a, const Careful &careful, isize threads) {
    using Strip = NormalizeStrip<C, R, Careful>;
    const bool apart = a.out.data != a.x.data;
    const bool streaming = R != Result::logsumexp &&
                           a.x.outer * a.x.n * a.x.inner * isize(sizeof(C)) >= stream_from && apart;
    const bool exact = a.x.n <= traits_of<R>.longest_lane_row;
    const bool kept = !takes_logarithm(R) && Strip::fits(a) && apart;
    TilesWork<Strip> work(Strip{&a, careful, exact, streaming && !kept, kept}, a.x.outer, a.x.inner,
                          Strip::width(a, threads));
    execute(work, threads);
}
template <class Tile>
void normalize_tiles(const Tile &tile, const NormalizeArguments &a, isize threads) {
    TilesWork<Tile> work(tile, a.x.outer, a.x.inner, Tile::width);
    execute(work, threads);
}
template <class Row>
void normalize_whole(const NormalizeArguments &a, isize threads) {
    WholeRowsWork<Row> work(Row(a), a.x.outer, a.x.inner, a.x.n);
    execute(work, threads);
}
// Logits and results are lines of contiguous 16-bit numbers.
template <class H>
bool halves(const NormalizeArguments &a) {
    return a.x.contiguous(half_number<H>) && a.out.contiguous(half_number<H>);
}

template <Result R, bool Scaled, class C>
void normalize_batches(const NormalizeArguments &a, isize threads) {
    const bool as_they_are = !a.where.data && !a.negative();
    if constexpr (takes_logarithm(R)) return normalize_whole<LogRow<C, R, Scaled>>(a, threads);
    if (sizeof(C) == 4 && as_they_are && halves<Float16>(a))
        return normalize_whole<ExpRow<C, R, Scaled, Float16>>(a, threads);
    if (sizeof(C) == 4 && as_they_are && halves<BFloat16>(a))
        return normalize_whole<ExpRow<C, R, Scaled, BFloat16>>(a, threads);
    normalize_whole<ExpRow<C, R, Scaled>>(a, threads);
}

template <Result R, bool Scaled, class C>
void normalize_scaled(const NormalizeArguments &a, isize threads) {
    using Tile = NormalizeTile<C, R, Scaled>;
    using Short = ShortTile<C, R, Scaled>;
    using Row =
        std::conditional_t<takes_logarithm(R), LongLogRow<C, R, Scaled>, LongExpRow<C, R, Scaled>>;
    Problem p = Problem::of(a.x, sizeof(C), Scaled);
    p.columns_direct = direct<R, C>(a);
    const NormalizeArguments s = a.swapped();
    switch (decide(p, traits_of<R>)) {
        case Driver::small:  // was done before there were arguments
        case Driver::strips:
            if constexpr (Scaled)
                return;
            else if (p.n <= traits_of<R>.longest_lane_row)
                return normalize_strips<R, C>(a, Short{&a, true}, threads);
            else
                return normalize_strips<R, C>(a, Tile{&a, false}, threads);
        case Driver::lanes: {
            const bool inner = short_rows_run(a.x, p.n) == along_inner;
            const NormalizeArguments &t = inner ? a : s;
            return normalize_tiles(Short{&t, p.columns_direct && inner}, t, threads);
        }
        case Driver::tiles:
            return normalize_tiles(Tile{&a, false}, a, threads);
        case Driver::gathered_tiles: {
            const NormalizeArguments &t = columns_staged(a.x) ? a : s;
            return normalize_tiles(Tile{&t, true}, t, threads);
        }
        case Driver::row_batch:
            return normalize_batches<R, Scaled, C>(a.x.inner == 1 ? s : a, threads);
        case Driver::long_rows: {
            RowsWork<Row> work(Row(a), a.x.outer, a.x.inner, a.x.n, threads);
            return execute(work, threads);
        }
    }
}

template <class Kind>
void normalize(Kind, const NormalizeArguments &a, isize threads) {
    with_compute({a.x.number, a.out.number}, [&](auto zero) {
        using C = decltype(zero);
        if (a.plain())
            normalize_scaled<Kind::result, false, C>(a, threads);
        else
            normalize_scaled<Kind::result, true, C>(a, threads);
    });
}

// Of so few elements that anything else than computing would take longer.
template <class C>
void softmax_small(const C *x, C *y, isize rows, isize n) {
    using X = Vec<C>;
    alignas(64) C e[small_call + X::lanes];
    const Scale<X> one = Scale<X>::one();
    Shift<X> shift;
    for (isize r = 0; r < rows; ++r, x += n, y += n) {
        const Sum total = folded<X>(careful_exp<X, false>(x, e, n, one, shift));
        write_with<X>(Normalizer<X, true>::all(1, total), e, y, n, false);
    }
}

// The logarithm of the total of a row, relative to its maximum, as the sum of the others tells it.
template <class C>
Sum log_of_row(const C *x, isize n, C max) {
    using X = Vec<C>;
    LaneSums<X> rest, copies;
    add_rest<X, false>(x, n, max, Scale<X>::one(), rest, copies);
    return log_of_rest<C>(rest.total(), copies.total());
}
template <class C>
void log_softmax_small(const C *x, C *y, isize rows, isize n) {
    using X = Vec<C>;
    for (isize r = 0; r < rows; ++r, x += n, y += n) {
        const C max = span_max<X>(x, n);
        const Sum log = log_of_row(x, n, max);
        LogWriter<X, false> writer;
        // NaN where the maximum is infinite
        writer.set_lane(0, max, log.hi + static_cast<double>(max - max), log.lo, {1, 0});
        writer.broadcast();
        write_with<X>(writer, x, y, n, false);
    }
}
template <class C>
void logsumexp_small(const NormalizeArguments &a) {
    const C *x = reinterpret_cast<const C *>(a.x.data);
    for (isize r = 0; r < a.x.outer; ++r, x += a.x.n) {
        const C max = span_max<Vec<C>>(x, a.x.n);
        store_log_sum(a, r, 0, max, log_of_row(x, a.x.n, max),
                      [&] { return span_has_nan(x, a.x.n); });
    }
}

// Contiguous rows and default options.
template <class Kind, class C>
void normalize_plain(const void *x, void *out, isize rows, isize n, isize threads) {
    constexpr Result result = Kind::result;
    const bool small = is_small(rows, n);  // the first line of the table, without the others
    if (small && watched.load(std::memory_order_relaxed))
        remember(Problem::fresh_rows(rows, n, sizeof(C)), traits_of<result>);
    if (small && result == Result::softmax)
        return softmax_small(static_cast<const C *>(x), static_cast<C *>(out), rows, n);
    if (small && result == Result::log_softmax)
        return log_softmax_small(static_cast<const C *>(x), static_cast<C *>(out), rows, n);
    NormalizeArguments a;
    a.x = AnyView::matrix(x, number_of<C>, rows, n);
    a.out = AnyView::matrix(out, number_of<C>, rows, result == Result::logsumexp ? 1 : n);
    if (small) return logsumexp_small<C>(a);
    normalize_scaled<result, false, C>(a, threads);
}

}  // namespace fs
}  // namespace
