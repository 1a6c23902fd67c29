// The logarithm of a row's total, chunk by chunk, and what is written with it.
#pragma once

#include "kernels/drivers/long_rows.h"
#include "kernels/drivers/rows.h"
#include "kernels/math/log_epilogue.h"

namespace {
namespace fs {

// logsumexp: max + log(total). A maximum of +inf among numbers gives +inf, nothing but -inf gives
// -inf.
template <class HasNan>
double log_sum(const Rows &a, Index o, Index i, double max, DoubleDouble<Vec<double, 16>::V> log,
               HasNan has_nan) {
    const auto sum = [&] {
        const auto l = a.ln_base.is_one() ? log : LogTotal<Vec<double, 16>>::divide(log, a.ln_base);
        DoubleDouble<> s{max, 0};
        s.add({l.hi[0], l.lo[0]});
        return s;
    };
    if (max == std::numeric_limits<double>::infinity())
        return has_nan() ? std::numeric_limits<double>::quiet_NaN() : max;
    if (!(log.hi[0] - log.hi[0] == 0)) return max + log.hi[0];
    const double y = sum().value(), natural = y * a.ln_base.hi;
    if (!cancels(max, y, natural)) return y;
    log = precise_log_of_total(a, o, i, max);
    return sum().value();
}

// ... or what log_softmax takes from logits.
template <bool Scaled, class C>
LogEpilogue<Vec<C>, Scaled> log_writer(const Rows &a, Index o, Index i, C max, DoubleDouble<> log) {
    using D = Vec<double, 16>;
    if (!a.ln_base.is_one()) {
        const auto l = LogTotal<D>::divide({D::set(log.hi), D::set(log.lo)}, a.ln_base);
        log = {l.hi[0], l.lo[0]};
    }
    LogEpilogue<Vec<C>, Scaled> w;
    w.set_lane(0, max, log.hi, log.lo, Scaled ? a.inverse_temperature(o, i) : DoubleDouble<>{1, 0});
    w.broadcast();
    return w;
}

// Maximum and log of the total of a row in sweeps over its chunks, for operations that want the
// log-probability of single classes: start(), then rounds of sweep() for every chunk and next()
// until it says no.
template <class C, bool Scaled>
struct RowLog {
    using X = Vec<C>;
    using V = typename X::V;
    enum Stage { fixed_shift, maximum, total, rest };
    struct Partial {
        C max = masked_logit<C>;
        DoubleDouble<> sum{}, copies{};
        void add(const Partial &p) {
            max = larger(p.max, max);
            sum.add(p.sum), copies.add(p.copies);
        }
    };

    Rows a;
    Index outer = 0, inner = 0;
    InputLine<C> x{};
    Stage stage = maximum;
    Scale<X> scale{};
    Shift<X> shift{};
    C max = 0;
    DoubleDouble<> sum{};  // of the exponentials that `shift` makes
    DoubleDouble<> log{};  // of the total, relative to the maximum
    LogEpilogue<X, Scaled> writer{};

    explicit RowLog(const Rows &arguments) : a(arguments) {}

    void start(Index o, Index i) {
        outer = o, inner = i;
        x = a.reader<C>(o, i);
        scale = Scaled ? Scale<X>::all(a.scale(o, i)) : Scale<X>::one();
        C first;
        stage = fixed_shift_plausible(*x.load_block(0, 1, &first) * scale.hi[0]) ? fixed_shift
                                                                                 : maximum;
    }

    void sweep(Index start, Index end, Partial &p) const {
        Accumulator<X> sums, copies;
        C most = masked_logit<C>;
        Scratch<C> buffer(x.direct() ? 0 : gather_block);
        const Index step = x.direct() ? end - start : gather_block;
        for_each_block(start, end, step, [&](Index at, Index size) FS_ALWAYS_INLINE {
            const C *v = x.load_block(at, size, buffer);
            if (stage == fixed_shift)
                most = larger(most, add_fixed_exp_and_max<Scaled, X>(
                                        v, size, FixedShiftExp<X, Scaled>(scale), sums));
            else if (stage == maximum)
                most = larger(most, span_max<X>(v, size));
            else if (stage == total)
                most = larger(most, add_exp_and_max<false, X>(v, size, shifted(), sums));
            else
                add_rest<X, Scaled>(v, size, max, scale, sums, copies);
        });
        p.max = most, p.sum = sums.total(), p.copies = copies.total();
    }

    // Each chunk's result is a Partial, and may be more.
    template <class Results>
    bool next(const ChunkResults<Results> &partial) {
        Partial all;
        for (const Partial &p : partial) all.add(p);
        if (stage == fixed_shift && !(fixed_shift_was_right<C>(all.sum.value()) &&
                                      FixedShiftExp<X, Scaled>(scale).in_reach(all.max)))
            return stage = maximum, true;
        if (stage == maximum) {
            max = all.max;
            shift = Shift<X>::from(X::set(max), scale);
            return stage = total, true;
        }
        if (stage == rest) {
            log = log_of_rest<C>(all.sum, all.copies);
            return set_writer(), false;
        }
        const bool was_fixed = stage == fixed_shift;
        if (was_fixed) max = all.max, shift = Shift<X>::fixed(scale), stage = total;
        ExpTotal<C> t{all.sum, max, shifted()(X::set(max))[0], shift.center[0], shift.exponent(0)};
        if (t.max_dominates()) {
            if (was_fixed)
                refine_with(t, partial, FixedShiftExp<X, Scaled>(scale));
            else
                refine_with(t, partial, shifted());
        }
        sum = t.sum;
        if (t.tail_underflows()) return stage = rest, true;
        log = log_of_total<Scaled>(t, a.scale(outer, inner));
        return set_writer(), false;
    }

    // Whether the row has a distribution: no NaN, no +inf, not only -inf.
    bool defined() const { return log.hi - log.hi == 0; }
    double log_total() const { return log.hi + log.lo; }
    C logit(Index c) const {
        C v;
        return *x.load_block(c, 1, &v);
    }
    C log_p(Index c) const { return writer.apply(X::set(logit(c)))[0]; }

  private:
    auto shifted() const {
        return [sh = shift, sc = scale](V v) FS_ALWAYS_INLINE {
            return exp_max_shift<X, Scaled>(v, sh, sc);
        };
    }
    template <class Results, class Exp>
    void refine_with(ExpTotal<C> &t, const ChunkResults<Results> &partial, const Exp &exp) const {
        Index start = 0;
        for (const Partial &p : partial) {
            if (p.max == t.max) break;
            start += chunk;
        }
        C buffer[accumulator_block<X>];
        recompute_tail<X>(
            t, start, a.x.n - start < chunk ? a.x.n : start + chunk,
            [&](Index at, Index count) { return x.load_block(at, count, buffer); }, exp);
    }
    void set_writer() { writer = log_writer<Scaled>(a, outer, inner, max, log); }
};

}  // namespace fs
}  // namespace
