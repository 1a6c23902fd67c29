// logsumexp of short rows whose maximum and logarithm nearly cancel in their sum: they are set
// apart, and done again as many at a time as a vector of double has lanes.
//
// Exponentials of double do for float: their error of 2^-51 is a thirtieth of an ulp of 2^-22. For
// double, and where even those cancel, it takes pairs. One row at a time, or all of a vector in
// which one cancels, took 7 ns for each row of two N(0, 3) logits, of which one in twenty cancels;
// this takes 1.
#pragma once

#include "kernels/drivers/rows_apart.h"
#include "ops/normalize_arguments.h"

namespace {
namespace fs {

template <class C>
class CancelledRows {
    using X = Vec<C>;
    using D = Vec<double>;
    using Wide = D::V;

    const NormalizeArguments *a;
    Index outer;
    RowsApart<X> apart;  // elements, and the maximum
    double *wide;        // those of a block

    Index n() const { return a->x.n; }

  public:
    CancelledRows(const NormalizeArguments &arguments, Index o, Index first, char *room)
        : a(&arguments),
          outer(o),
          apart(n() + 1, first, room),
          wide(reinterpret_cast<double *>(room + apart.memory(n() + 1))) {}
    // in bytes
    static Index memory(Index n) {
        return RowsApart<X>::memory(n + 1) + (n + 1) * D::lanes * Index(sizeof(double));
    }

    // The lanes of a vector of rows from index i on that are wanted. Their results have been
    // stored, and will be stored again.
    void add(const Columns<X> &rows, typename X::V max, typename X::I wanted, Index i) {
        C maxima[X::lanes];
        X::store(maxima, max);
        apart.put(0, rows, n(), wanted);
        apart.put(n(), {maxima, X::lanes}, 1, wanted);
        if (apart.set_apart(wanted, i)) finish();
    }
    void finish() {
        for (Index k = 0, blocks = apart.template blocks<D::lanes>(); k < blocks; ++k)
            solve(k * D::lanes);
        apart.clear();
    }

  private:
    __attribute__((noinline)) void solve(Index at) {
        const Columns<X> of = apart.from(at);
        const Index left = apart.count() - at, size = left < D::lanes ? left : D::lanes;
        for (Index j = 0; j <= n(); ++j)
            for (Index l = 0; l < D::lanes; ++l)
                wide[j * D::lanes + l] = static_cast<double>(of.x[j * of.step + l]);
        const Columns<D> rows{wide, D::lanes};
        const Wide max = rows[n()], base = Wide{} + a->ln_base.hi;
        Wide y;
        typename D::I doubtful = ~typename D::I{};
        if (sizeof(C) == 4) {
            y = quick(rows, max);
            doubtful = absolute<D>(y * base) < 0x1p-22;
        }
        if (any<D>(doubtful)) {
            const Wide precise = sum_with(max, precise_log<D>(rows, n(), max, 0, scale()));
            y = doubtful ? precise : y;
        }
        double results[D::lanes];
        D::store(results, y);
        const AnyView &out = a->out;
        for (Index l = 0; l < size; ++l) {
            const Index i = apart.index(at + l);
            if (out.number == number_of<C>)
                *reinterpret_cast<C *>(out.at(outer, i)) = static_cast<C>(results[l]);
            else
                out.store(outer, 0, i, results[l]);
        }
    }
    Scale<D> scale() const { return Scale<D>::all(a->ln_base); }
    Wide quick(const Columns<D> &rows, Wide top) const {
        const Scale<D> s = scale();
        const Shift<D> none = Shift<D>::fixed(0, s);
        Wide rest{}, copies{};
        for (Index j = 0; j < n(); ++j) {
            const Wide v = rows[j], e = exp_of_difference<D, true>(v, top, none, s);
            rest = rest + (v == top ? Wide{} : e);
            copies = copies + (v == top ? D::set(1) : Wide{});
        }
        return sum_with(top, LogTotal<D>::from_rest({rest, Wide{}}, copies));
    }
    Wide sum_with(Wide top, DoubleDouble<Wide> log) const {
        if (!a->ln_base.is_one()) log = LogTotal<D>::divide(log, a->ln_base);
        const DoubleDouble<Wide> s = two_sum(top, log.hi);
        return s.hi + (s.lo + log.lo);
    }
};

}  // namespace fs
}  // namespace
