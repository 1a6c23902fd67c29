// Rows of logits: what scales and masks them, and how they are read.
#pragma once

#include <type_traits>

#include "kernels/math/log_total.h"
#include "kernels/memory/transpose.h"

namespace {
namespace fs {

// Rows of logits: the numbers, what scales them, and which of them count.
struct Rows {
    AnyView x;
    // a value per row; a negative one stands for the softmax of -x
    View<const double> temperature = View<const double>::one();
    Mask where;
    DoubleDouble<> ln_base{1, 0};

    void set_temperature(const double *p, const Index *shape, const Index *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }
    void set_where(const std::uint8_t *p, const Index *shape, const Index *strides) {
        where = {p, shape, strides};
    }
    void set_ln_base(double hi, double lo) { ln_base = {hi, lo}; }

    Rows swapped() const { return {x.swapped(), temperature.swapped(), where.swapped(), ln_base}; }
    // No row is scaled: temperature 1 or -1 throughout and base e.
    bool plain() const {
        if (!ln_base.is_one()) return false;
        for (Index o = 0; o < (temperature.outer_stride ? temperature.outer : 1); ++o) {
            for (Index i = 0; i < (temperature.inner_stride ? temperature.inner : 1); ++i) {
                if (*temperature.at(o, i) != 1 && *temperature.at(o, i) != -1) return false;
            }
        }
        return true;
    }
    bool negative() const { return *temperature.data < 0; }
    DoubleDouble<> inverse_temperature(Index o, Index i) const {
        return DoubleDouble<>{1, 0}.over(*temperature.at(o, i));
    }
    DoubleDouble<> scale(Index o, Index i) const { return ln_base.over(*temperature.at(o, i)); }

    template <class C>
    InputLine<C> reader(Index o, Index i) const {
        InputLine<C> r(x, o, i);
        r.negate = negative();
        if (where.data) r.mask = where.at(o, i), r.mask_stride = where.n_stride;
        return r;
    }
    // The logits of a row, from the reader of the first.
    template <class C>
    __attribute__((noinline)) const C *gathered(InputLine<C> first, Index o, Index i,
                                                C *buffer) const {
        first.p += x.offset(o, i);
        if (first.mask) first.mask += where.offset(o, i);
        return first.load_block(0, x.n, buffer);
    }
};

// The logits of rows that wait for others: where they are, as numbers of type S, or (S is C)
// gathered, each row to a place of its own.
template <class C, class S = C>
struct RowSource {
    const Rows *a = nullptr;
    InputLine<C> from{};
    bool direct = false;
    C *buffer = nullptr;  // of a chunk
    Index places = 1, pitch = 0;

    RowSource() = default;
    RowSource(const Rows &arguments, C *buffer_)
        : a(&arguments), from(arguments.reader<C>(0, 0)), buffer(buffer_) {
        direct = !std::is_same<S, C>::value || from.direct();
        const Index n = a->x.n;
        pitch = (n + Vec<C>::lanes - 1) / Vec<C>::lanes * Vec<C>::lanes;
        places = n <= gathered_together ? batch_elements / n : 1;
    }
    // Of at most `most` rows.
    Index limit(Index most) const { return direct || places > most ? most : places; }
    FS_ALWAYS_INLINE const S *get(Index o, Index i, Index place) const {
        if constexpr (!std::is_same<S, C>::value)
            return reinterpret_cast<const S *>(a->x.at(o, i));
        else
            return direct ? reinterpret_cast<const C *>(a->x.at(o, i))
                          : a->gathered(from, o, i, buffer + place * pitch);
    }
};

// log(total) of a row for logsumexp where it nearly cancels the maximum, which takes exponentials
// of more than the result's precision: in pairs of double, whatever the input.
inline DoubleDouble<Vec<double, 16>::V> precise_log_of_total(const Rows &a, Index o, Index i,
                                                             double max) {
    using X = Vec<double>;
    using D = Vec<double, 16>;
    const auto source = a.reader<double>(o, i);
    const Scale<X> scale = Scale<X>::all(a.scale(o, i));
    const auto below = X::set(rest_exponent<double>), top = X::set(max);
    constexpr Index step = 256;
    double buffer[step];  // there is no scratch in the smallest calls
    Accumulator<X> rest, copies;
    for_each_block(0, a.x.n, step, [&](Index at, Index size) {
        const double *x = source.load_block(at, size, buffer);
        for_each_vector<X>(size, [&](Index j, auto lanes) {
            const auto v = lanes.load(x + j, masked_logit<double>);
            const auto e = exp_of_difference_pair<X, true>(v, top, below, scale);
            rest.add(v == top ? X::V{} : e.hi);
            rest.add(v == top ? X::V{} : e.lo);
            copies.add(v == top ? X::set(1) : X::V{});
        });
    });
    const DoubleDouble<> r = true_rest<double>(rest.total());
    return LogTotal<D>::from_rest({D::set(r.hi), D::set(r.lo)}, D::set(copies.total().value()));
}

// The scales of the rows in a vector, in its lanes.
template <class X, bool Scaled>
Scale<X> lane_scales(const Rows &a, Index outer, Index first, Index count) {
    if (!Scaled) return Scale<X>::one();
    if (!a.temperature.outer_stride && !a.temperature.inner_stride)
        return Scale<X>::all(a.scale(0, 0));
    Scale<X> scale;
    for (Index l = 0; l < X::lanes; ++l)
        scale.set_lane(l, a.scale(outer, first + (l < count ? l : count - 1)));
    return scale;
}

// The logarithms of the totals of rows, relative to their maxima, as precise_log_of_total has them:
// of those in the k-th vector of double.
template <class X>
DoubleDouble<typename Vec<double>::V> precise_log(Columns<X> x, Index n, typename X::V max, int k,
                                                  const Scale<Vec<double>> &scale) {
    using D = Vec<double>;
    const auto below = D::set(rest_exponent<double>), top = wide_part<X>(max, k);
    Accumulator<D> rest;
    typename D::V copies = {};
    for (Index j = 0; j < n; ++j) {
        const auto v = wide_part<X>(x[j], k);
        const auto e = exp_of_difference_pair<D, true>(v, top, below, scale);
        rest.add(v == top ? typename D::V{} : e.hi);
        rest.add(v == top ? typename D::V{} : e.lo);
        copies = copies + (v == top ? D::set(1) : typename D::V{});
    }
    return LogTotal<D>::from_rest(true_rest<double>(rest.part(0)), copies);
}

}  // namespace fs
}  // namespace
