// What softmax, log_softmax, logsumexp and its gradient are given.
#pragma once

#include "kernels/drivers/rows.h"
#include "kernels/math/exp_precise.h"

namespace {
namespace fs {

enum class Result { softmax, log_softmax, logsumexp, logsumexp_vjp };

constexpr bool takes_logarithm(Result r) {
    return r == Result::log_softmax || r == Result::logsumexp;
}

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
    OutputLine<C> writer(Index o, Index i) const {
        OutputLine<C> w(out, o, i);
        w.absent = absent<R, C>();
        if (where.data) w.mask = where.at(o, i), w.mask_stride = where.n_stride;
        return w;
    }
};

// What stands above the total: 1, or the gradient of the row.
template <Result R>
double numerator(const AnyView &gradient, Index outer, Index inner) {
    return R == Result::logsumexp_vjp ? gradient.value(outer, inner) : 1.0;
}

// Those of `count` rows (of a vector of double or two), or false if they are all 1.
template <Result R, Index size>
bool numerators_of(const AnyView &gradient, Index outer, Index first, Index count,
                   double (&numerators)[size]) {
    if (R != Result::logsumexp_vjp) return false;
    for (Index l = 0; l < size; ++l)
        numerators[l] = numerator<R>(gradient, outer, first + (l < count ? l : count - 1));
    return true;
}

// The same as a vector of the compute type, in two terms.
template <Result R, class X>
DoubleDouble<typename X::V> numerators_in_lanes(const AnyView &gradient, Index outer, Index first,
                                                Index count) {
    using D = Vec<double>;
    double numerators[X::lanes];
    numerators_of<R>(gradient, outer, first, count < X::lanes ? count : X::lanes, numerators);
    DoubleDouble<typename D::V> wide[wide_parts<X>];
    for (int k = 0; k < wide_parts<X>; ++k)
        wide[k] = {D::load(numerators + k * D::lanes), typename D::V{}};
    return pair_from_wide<X>(wide);
}

// Whether a numerator can wait for exponentials with the fixed shift.
template <class C>
bool numerator_fits(double numerator, double total) {
    return numerator == 0 || fits<C>(numerator, total);
}

}  // namespace fs
}  // namespace
