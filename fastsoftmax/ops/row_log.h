// The logarithm of a row's total, chunk by chunk, and what is written with it.
#pragma once

#include "kernels/drivers/row_tasks.h"
#include "kernels/drivers/rows.h"
#include "kernels/math/log_epilogue.h"

namespace {
namespace fs {

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
    if (!cancels(max, y, natural)) return y;
    log = precise_log_of_total(a, o, i, max);
    return sum().value();
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

}  // namespace fs
}  // namespace
