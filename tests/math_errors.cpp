// The errors of the exponentials and logarithms by themselves: test_math.py compiles and runs this
// for each instruction set.
//
//     math_errors STRIDE     prints, for each routine, the largest error and the argument that has
//     it
//
// Every STRIDE-th float32 of a routine's domain is tried, and as many float64 at random.
// Exponentials are compared in units of 2^-23 and 2^-52 relative to the result, logarithms (two
// terms) in units of 2^-30 and 2^-58 relative to it. References: double for float32, long double
// for float64.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "kernels/math/exp_shift.h"
#include "kernels/math/log.h"

using namespace fs;

template <class T>
struct Name;
template <>
struct Name<float> {
    static constexpr const char *text = "float32";
};
template <>
struct Name<double> {
    static constexpr const char *text = "float64";
};
template <class T>
using Reference = std::conditional_t<sizeof(T) == 4, double, long double>;

template <class T>
struct Worst {
    double error = 0;
    T argument = 0;

    void look(T x, double e) {
        if (!(e <= error)) error = e, argument = x;
    }
    void print(const char *routine) const {
        std::printf("%s %s %.4f %a\n", routine, Name<T>::text, error,
                    static_cast<double>(argument));
    }
};

// body(a vector of arguments) of magnitudes between two limits: floats in order, or doubles at
// random.
template <class Body>
void each(float least, float most, long stride, bool negative, Body body) {
    using X = Vec<float>;
    std::uint32_t first, last;
    std::memcpy(&first, &least, 4), std::memcpy(&last, &most, 4);
    for (int sign = 0; sign <= negative; ++sign) {
        for (std::uint64_t b = first; b < last;
             b += static_cast<std::uint64_t>(X::lanes * stride)) {
            float x[X::lanes];
            for (int l = 0; l < X::lanes; ++l) {
                const std::uint32_t bits =
                    static_cast<std::uint32_t>(b + static_cast<std::uint64_t>(l * stride)) |
                    (sign ? 0x80000000u : 0u);
                std::memcpy(x + l, &bits, 4);
            }
            body(X::load(x));
        }
    }
}
template <class Body>
void each(double least, double most, long stride, bool negative, Body body) {
    using X = Vec<double>;
    std::mt19937_64 random(1);
    std::uniform_real_distribution<double> magnitude(std::log(least), std::log(most)), sign(-1, 1),
        even(least, most);
    for (long k = 0; k < 8000000 / stride; k += X::lanes) {
        double x[X::lanes];
        for (int l = 0; l < X::lanes; ++l)
            x[l] = std::copysign((k / X::lanes) % 2 ? std::exp(magnitude(random)) : even(random),
                                 negative ? sign(random) : 1);
        body(X::load(x));
    }
}

template <class T, class Exp>
void exponential(const char *routine, T least, T most, long stride, bool negative, double scale,
                 const Exp &exp) {
    using X = Vec<T>;
    using R = Reference<T>;
    const double unit = sizeof(T) == 4 ? 0x1p23 : 0x1p52;
    Worst<T> worst;
    each(least, most, stride, negative, [&](typename X::V x) {
        const auto y = exp(x);
        for (int l = 0; l < X::lanes; ++l) {
            const R exact = std::exp(R(x[l])) * R(scale);
            worst.look(x[l], std::fabs(static_cast<double>((R(y[l]) - exact) / exact)) * unit);
        }
    });
    worst.print(routine);
}

template <class T>
void exponentials(long stride) {
    using X = Vec<T>;
    using V = typename X::V;
    // In one unit for all results, which is taken out: ExpCore::unit is a double, too short for
    // float64.
    const double unit = ExpCore<X>::unit, lift = std::ldexp(1.0, -Shift<X>::fixed_exponent);
    const T largest = sizeof(T) == 4 ? T(16) : T(250);  // results stay normal
    if (sizeof(T) == 4 || unit == 1)
        exponential<T>("fixed_shift", T(0x1p-10), largest, stride, true, unit * lift,
                       FixedShiftExp<X, false>(Scale<X>::one()));
    exponential<T>("plain", T(0x1p-10), sizeof(T) == 4 ? T(87) : T(708), stride, true, 1,
                   [](V x) { return exp_plain<X>(x); });
    exponential<T>("nonpositive", T(0x1p-10), sizeof(T) == 4 ? T(87) : T(708), stride, true, 1,
                   [](V x) {
                       const V below = -absolute<X>(x), e = exp_nonpositive<X>(below);
                       return x > V{} ? X::set(1) / e : e;
                   });
}

// exp(s (x - max)), from several maxima and to the bases e and 2.
template <class T, bool Scaled>
void difference(const char *routine, double factor, long stride) {
    using X = Vec<T>;
    using R = Reference<T>;
    const Scale<X> scale = Scaled ? Scale<X>::all({factor, 0}) : Scale<X>::one();
    const Shift<X> none = Shift<X>::fixed(0, scale);
    Worst<T> worst;
    for (const T max : {T(0), T(1.37), T(-0.2), T(-30.1), T(1234.5)}) {
        each(T(0x1p-10), sizeof(T) == 4 ? T(80) : T(700), 4 * stride, false, [&](typename X::V x) {
            const typename X::V from = X::set(max), below = from - x;
            const auto y = exp_of_difference<X, Scaled>(below, from, none, scale);
            for (int l = 0; l < X::lanes; ++l) {
                const R exact = std::exp((R(below[l]) - R(max)) * R(factor));
                worst.look(x[l], std::fabs(static_cast<double>((R(y[l]) - exact) / exact)) *
                                     (sizeof(T) == 4 ? 0x1p23 : 0x1p52));
            }
        });
    }
    worst.print(routine);
}
template <class T>
void differences(long stride) {
    difference<T, false>("difference", 1, stride);
    // what is 0.69 as a double: so exact is the reference
    difference<T, true>("difference_scaled", 0x1.62e42fefa39efp-1, stride);
}

// exp as hi + lo, of double alone.
inline void exponential_pair(long stride) {
    using X = Vec<double>;
    Worst<double> worst;
    each(0x1p-10, 300.0, stride, false, [&](X::V x) {
        const auto y = exp_of_difference_pair<X, false>(-x, X::V{}, X::V{}, Scale<X>::one());
        for (int l = 0; l < X::lanes; ++l) {
            const long double exact = std::exp(-static_cast<long double>(x[l])),
                              found = static_cast<long double>(y.hi[l]) + y.lo[l];
            worst.look(x[l], std::fabs(static_cast<double>((found - exact) / exact)) * 0x1p57);
        }
    });
    worst.print("pair");
}

template <class T>
void logarithm(long stride) {
    using X = Vec<T>;
    using R = Reference<T>;
    Worst<T> worst;
    each(sizeof(T) == 4 ? T(0x1p-30) : T(0x1p-100), sizeof(T) == 4 ? T(0x1p10) : T(0x1p100), stride,
         false, [&](typename X::V x) {
             const auto y = log1p_nonnegative<X>(x, typename X::V{});
             for (int l = 0; l < X::lanes; ++l) {
                 const R exact = std::log1p(R(x[l])), found = R(y.hi[l]) + R(y.lo[l]);
                 worst.look(x[l], std::fabs(static_cast<double>((found - exact) / exact)) *
                                      (sizeof(T) == 4 ? 0x1p30 : 0x1p58));
             }
         });
    worst.print("log1p");
}

int main(int count, char **arguments) {
    const long stride = count > 1 ? std::atol(arguments[1]) : 1;
    exponentials<float>(stride), exponentials<double>(stride);
    differences<float>(stride), differences<double>(stride);
    exponential_pair(stride);
    logarithm<float>(stride), logarithm<double>(stride);
}
