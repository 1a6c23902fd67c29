// logsumexp of short rows whose maximum and logarithm nearly cancel in their sum: they are set
// apart, and done again as many at a time as a vector of double has lanes.
//
// Exponentials of double do for float: their error of 2^-51 is a thirtieth of an ulp of 2^-22. For
// double, and where even those cancel, it takes pairs. One row at a time, or all of a vector in
// which one cancels, took 7 ns for each row of two N(0, 3) logits; this takes 1.
#pragma once

#include "kernels/memory/scratch.h"
#include "ops/normalize_arguments.h"

namespace {
namespace fs {

template <class C>
class CancelledRows {
    using D = Vec<double>;
    using Wide = D::V;

    const NormalizeArguments *a;
    isize outer, count = 0;
    double *x;  // element j of row l at j lanes + l
    double max[D::lanes];
    isize inner[D::lanes];

    isize n() const { return a->x.n; }

  public:
    CancelledRows(const NormalizeArguments &arguments, isize o, double *room)
        : a(&arguments), outer(o), x(room) {}
    static isize room(isize n) { return n * D::lanes; }

    // A lane of a vector of rows, the result of which has been stored: it will be stored again.
    template <class X>
    void add(const Columns<X> &rows, typename X::V top, int lane, isize i) {
        const C *p = rows.x + lane;
        for (isize j = 0; j < n(); ++j)
            x[j * D::lanes + count] = static_cast<double>(p[j * rows.step]);
        max[count] = static_cast<double>(top[lane]), inner[count] = i;
        if (++count == D::lanes) finish();
    }
    __attribute__((noinline)) void finish() {
        if (!count) return;
        for (isize l = count; l < D::lanes; ++l) {
            for (isize j = 0; j < n(); ++j) x[j * D::lanes + l] = 0;
            max[l] = 0;
        }
        const Columns<D> rows{x, D::lanes};
        const Wide top = D::load(max), base = Wide{} + a->ln_base.hi;
        Wide y;
        typename D::I doubtful = ~typename D::I{};
        if (sizeof(C) == 4) {
            y = quick(rows, top);
            doubtful = absolute<D>(y * base) < 0x1p-22;
        }
        if (any<D>(doubtful)) {
            const Wide precise = sum_with(top, precise_log<D>(rows, n(), top, 0, scale()));
            y = doubtful ? precise : y;
        }
        for (isize l = 0; l < count; ++l) {
            C result = static_cast<C>(y[l]);
            Writer<C>(a->out, outer, inner[l]).copy(0, 1, &result);
        }
        count = 0;
    }

  private:
    Scale<D> scale() const { return Scale<D>::all(a->ln_base); }
    Wide quick(const Columns<D> &rows, Wide top) const {
        const Scale<D> s = scale();
        const Shift<D> none = Shift<D>::fixed(0, s);
        Wide rest{}, copies{};
        for (isize j = 0; j < n(); ++j) {
            const Wide v = rows[j], e = exp_below<D, true>(v, top, none, s);
            rest = rest + (v == top ? Wide{} : e);
            copies = copies + (v == top ? D::set(1) : Wide{});
        }
        return sum_with(top, LogTotal<D>::from_rest({rest, Wide{}}, copies));
    }
    Wide sum_with(Wide top, Pair<Wide> log) const {
        if (!a->ln_base.is_one()) log = LogTotal<D>::divide(log, a->ln_base);
        const Pair<Wide> s = two_sum(top, log.hi);
        return s.hi + (s.lo + log.lo);
    }
};

}  // namespace fs
}  // namespace
