// logsumexp of short rows whose maximum and logarithm nearly cancel in their sum: they are set
// apart, and done again as many at a time as a vector of double has lanes.
//
// Exponentials of double do for float: their error of 2^-51 is a thirtieth of an ulp of 2^-22. For
// double, and where even those cancel, it takes pairs. One row at a time, or all of a vector in
// which one cancels, took 7 ns for each row of two N(0, 3) logits, of which one in twenty cancels;
// this takes 1.
#pragma once

#include "kernels/memory/scratch.h"
#include "ops/normalize_arguments.h"

namespace {
namespace fs {

template <class C>
class CancelledRows {
    using X = Vec<C>;
    using D = Vec<double>;
    using Wide = D::V;
    static constexpr Index most = 4 * X::lanes, pitch = most + X::lanes;

    const NormalizeArguments *a;
    Index outer, first, count = 0;
    // Element j of row l, the maxima as another element: at j pitch + l, and of a block at j lanes
    // + l.
    C *x;
    double *wide;
    typename Format<C>::Int inner[pitch];  // from `first` on

    Index n() const { return a->x.n; }

  public:
    CancelledRows(const NormalizeArguments &arguments, Index o, Index first_, double *room)
        : a(&arguments),
          outer(o),
          first(first_),
          x(reinterpret_cast<C *>(room + (n() + 1) * D::lanes)),
          wide(room) {}
    // in numbers of double
    static Index room(Index n) {
        return (n + 1) * D::lanes + (n + 1) * pitch * Index(sizeof(C)) / Index(sizeof(double));
    }

    // The lanes of a vector of rows from index i on that are wanted. Their results have been
    // stored, and will be stored again.
    void add(const Columns<X> &rows, typename X::V max, typename X::I wanted, Index i) {
        if constexpr (packs_at_once) {
            using Int = typename Format<C>::Int;
            for (Index j = 0; j < n(); ++j)
                X::store(x + j * pitch + count, packed<X>(rows[j], wanted));
            X::store(x + n() * pitch + count, packed<X>(max, wanted));
            const auto index = X::indices() + static_cast<Int>(i - first);
            const auto places = (typename X::I)packed<X>((typename X::V)index, wanted);
            std::memcpy(inner + count, &places, sizeof places);
            count += __builtin_popcount(lane_bits<X>(wanted));
        } else {
            C maxima[X::lanes];
            X::store(maxima, max);
            for (unsigned left = lane_bits<X>(wanted); left; left &= left - 1, ++count) {
                const Index l = __builtin_ctz(left);
                for (Index j = 0; j < n(); ++j) x[j * pitch + count] = rows.x[j * rows.step + l];
                x[n() * pitch + count] = maxima[l];
                inner[count] = static_cast<typename Format<C>::Int>(i - first + l);
            }
        }
        if (count > most) finish();
    }
    void finish() {
        for (Index l = count; l % D::lanes; ++l)  // the last block is filled up with its first row
            for (Index j = 0; j <= n(); ++j) x[j * pitch + l] = x[j * pitch];
        for (Index at = 0; at < count; at += D::lanes)
            solve(at, count - at < D::lanes ? count - at : D::lanes);
        count = 0;
    }

  private:
    __attribute__((noinline)) void solve(Index at, Index size) {
        for (Index j = 0; j <= n(); ++j)
            for (Index l = 0; l < D::lanes; ++l)
                wide[j * D::lanes + l] = static_cast<double>(x[j * pitch + at + l]);
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
            const Index i = first + inner[at + l];
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
