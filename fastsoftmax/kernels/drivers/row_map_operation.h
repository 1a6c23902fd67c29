// The driver of operations that sum some terms over a row and then map its elements: results are a
// function of one or two inputs and of the row's sums. An operation says what is computed for a
// vector of numbers (ops/square_normalize.h is an example); every layout and length is here.
#pragma once

#include "kernels/math/exp_shift.h"
#include "kernels/memory/view.h"
#include "kernels/simd/accumulator.h"

namespace {
namespace fs {

// Some vectors that go together: the inputs at some elements, their terms, the sums of their rows.
template <class X, int count>
struct Vectors {
    typename X::V v[count];

    FS_ALWAYS_INLINE typename X::V operator[](int k) const { return v[k]; }
    friend FS_ALWAYS_INLINE Vectors operator+(const Vectors &a, const Vectors &b) {
        return each([&](int k) FS_ALWAYS_INLINE { return a.v[k] + b.v[k]; });
    }
    // value(k) for each of them.
    template <class Value>
    static FS_ALWAYS_INLINE Vectors each(Value value) {
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
//   are made anew of inputs times powers of two, one for each input, which bring the largest of a
//   row to [1, 2). result() gets these inputs, and restored(result, exponents of the powers) is
//   what the row has;
// * computes: whether results take much arithmetic, as exponentials do;
// * operation: its name, for `python -m fastsoftmax explain`.
template <int inputs_, int sums_>
struct RowMap {
    static constexpr int inputs = inputs_, sums = sums_;
    // terms of a column before they are added to the sum; vectors of a row, up to four
    static constexpr Index added_together = accumulator_vectors;
    static constexpr bool has_temperature = false, rescales = false, computes = false;
    static constexpr const char *operation = "a map of rows";

    template <class Sums>
    static FS_ALWAYS_INLINE Sums settled(const Sums &sums) {
        return sums;
    }
    template <class X>
    static FS_ALWAYS_INLINE typename X::V restored(typename X::V result, const typename X::I *) {
        return result;
    }
};

template <class Op>
constexpr Index in_rows = std::min(Op::added_together, added_by_fours);

// The operation's functions take inputs one by one.
template <class X, class Op>
FS_ALWAYS_INLINE inline auto terms_of(const Vectors<X, Op::inputs> &in) {
    if constexpr (Op::inputs == 1)
        return Op::template terms<X>(in[0]);
    else
        return Op::template terms<X>(in[0], in[1]);
}

template <class X, class Op, class Settled>
FS_ALWAYS_INLINE inline typename X::V result_of(const Settled &row,
                                                const Vectors<X, Op::inputs> &in) {
    if constexpr (Op::inputs == 1)
        return Op::template result<X>(row, in[0]);
    else
        return Op::template result<X>(row, in[0], in[1]);
}

struct RowMapArguments {
    AnyView input[2], out;           // operations of one input use the first
    View<const double> temperature;  // results are divided by it
    Mask where;                      // false: the inputs are 0, and so is the result

    void set_temperature(const double *p, const Index *shape, const Index *strides) {
        temperature = View<const double>::per_row(p, shape, strides);
    }
    void set_where(const std::uint8_t *p, const Index *shape, const Index *strides) {
        where = Mask(p, shape, strides);
    }

    Index n() const { return out.n; }
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

// The power that brings v to [1, 2), or as near as powers reach whose quotients are, in two steps,
// normal numbers.
template <class X>
FS_ALWAYS_INLINE inline typename X::I power_towards_one(typename X::V v) {
    constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias;
    const typename X::I wanted = 2 * bias - biased_exponent<X>(v), least = typename X::I{} + 2,
                        most = least + (2 * bias - 3);
    return wanted < least ? least : wanted > most ? most : wanted;
}

// The power whose square brings v to [1, 4).
template <class X>
FS_ALWAYS_INLINE inline typename X::I half_power_towards_one(typename X::V v) {
    constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias;
    return bias + (bias + 1) / 2 - (typename X::I)((typename X::U)(biased_exponent<X>(v) + 1) >> 1);
}

// v 2^(a - b), without an overflow or underflow on the way.
template <class X>
FS_ALWAYS_INLINE inline typename X::V times_quotient(typename X::V v, typename X::I a,
                                                     typename X::I b) {
    const typename X::I both = a - b + 2 * Format<typename X::Scalar>::bias,
                        first = (typename X::I)((typename X::U)both >> 1);
    return v * power_of_two<X>(first) * power_of_two<X>(both - first);
}

// Whether v is a number from 2^-exponent to 2^exponent in size.
template <class X>
FS_ALWAYS_INLINE inline typename X::I is_moderate(typename X::V v, int exponent) {
    using T = typename X::Scalar;
    constexpr int bias = Format<T>::bias;
    const auto power = [](int e) FS_ALWAYS_INLINE {
        return power_of_two<X>(typename X::I{} + (e + bias));
    };
    return (absolute<X>(v) >= power(-exponent)) & (absolute<X>(v) <= power(exponent));
}

// What inputs are multiplied by: nothing, or a power of two for each, of every row.
template <class X, int inputs>
struct Unscaled {
    static constexpr bool unscaled = true;
    FS_ALWAYS_INLINE const Vectors<X, inputs> &apply(const Vectors<X, inputs> &in) const {
        return in;
    }
};

template <class X, int inputs>
struct PowersOfTwo {
    static constexpr bool unscaled = false;
    typename X::I exponent[inputs];  // biased

    // From the largest sizes of the inputs; 1 in lanes that need none.
    FS_ALWAYS_INLINE PowersOfTwo(const Vectors<X, inputs> &largest, typename X::I wanted) {
        constexpr typename Format<typename X::Scalar>::Int bias = Format<typename X::Scalar>::bias;
        for (int k = 0; k < inputs; ++k)
            exponent[k] = wanted ? power_towards_one<X>(largest[k]) : typename X::I{} + bias;
    }
    FS_ALWAYS_INLINE Vectors<X, inputs> apply(const Vectors<X, inputs> &in) const {
        return Vectors<X, inputs>::each(
            [&](int k) FS_ALWAYS_INLINE { return in[k] * power_of_two<X>(exponent[k]); });
    }
};

// The map of a row, or of one in each lane, when all about it is known.
template <class X, class Op, class Scales>
struct RowResult {
    using V = typename X::V;
    decltype(Op::settled(Vectors<X, Op::sums>())) row;
    Scales scales;
    V factor;  // 1 / temperature

    FS_ALWAYS_INLINE RowResult(const Vectors<X, Op::sums> &sums, const Scales &scales_, V factor_)
        : row(Op::settled(sums)), scales(scales_), factor(factor_) {}
    FS_ALWAYS_INLINE V operator()(const Vectors<X, Op::inputs> &in) const {
        V r = result_of<X, Op>(row, scales.apply(in));
        if constexpr (!Scales::unscaled) r = Op::template restored<X>(r, scales.exponent);
        return Op::has_temperature ? r * factor : r;
    }
};

template <class X, int count>
struct RowSums {
    Accumulator<X> sums[count];

    FS_ALWAYS_INLINE void add(const Vectors<X, count> &terms) {
        for (int s = 0; s < count; ++s) sums[s].add(terms[s]);
    }
};

// Sizes of which the largest decides on the power of two. NaN is passed over.
template <class X, int inputs>
FS_ALWAYS_INLINE inline void keep_larger(Vectors<X, inputs> &largest,
                                         const Vectors<X, inputs> &in) {
    for (int k = 0; k < inputs; ++k) largest.v[k] = larger(absolute<X>(in[k]), largest[k]);
}

// What is known of one row, in every lane.
template <class X, class Op>
struct OneRow {
    using T = typename X::Scalar;
    T sums[Op::sums], largest[Op::inputs];

    FS_ALWAYS_INLINE Vectors<X, Op::sums> all_sums() const {
        return Vectors<X, Op::sums>::each([&](int s) FS_ALWAYS_INLINE { return X::set(sums[s]); });
    }
    FS_ALWAYS_INLINE bool is_lost() const {
        if constexpr (Op::rescales)
            return any_lane<X>(Op::lost(all_sums()));
        else
            return false;
    }
    FS_ALWAYS_INLINE PowersOfTwo<X, Op::inputs> powers() const {
        return {Vectors<X, Op::inputs>::each([&](int k)
                                                 FS_ALWAYS_INLINE { return X::set(largest[k]); }),
                ~typename X::I{}};
    }
};

}  // namespace fs
}  // namespace
