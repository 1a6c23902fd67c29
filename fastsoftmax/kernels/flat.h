// Elementwise operations: sigmoid and its relatives, and their vector-Jacobian products.
#pragma once

#include "vlog.h"
#include "work.h"

namespace {
namespace fs {

// With e = exp(-|x|) <= 1 neither tail loses relative accuracy: 1 / (1 + e) for x >= 0, e / (1 + e) below.
template <class X> FS_INLINE typename X::V sigmoid(typename X::V x) {
    const typename X::V e = exp_plain<X>(-absolute<X>(x)), one = X::set(1);
    return (x < typename X::V{} ? e : one) / (one + e);
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))
template <class X> FS_INLINE typename X::V softplus(typename X::V x) {
    using V = typename X::V;
    const Pair<V> l = log1p_nonnegative<X>(exp_plain<X>(-absolute<X>(x)), V{});
    const V top = larger(x, V{});
    const Pair<V> s = two_sum(top, l.hi);
    const V y = s.hi + (s.lo + l.lo);
    return x <= std::numeric_limits<typename X::Scalar>::max() ? y : x;  // +inf and NaN
}

template <class X> FS_INLINE typename X::V log_sigmoid(typename X::V x) { return -softplus<X>(-x); }

// log(p / (1 - p)) as the logarithm of a quotient, 1 - p kept in two terms: exact to the last digits next to p = 1/2, 0 and 1.
template <class X> FS_INLINE typename X::V logit(typename X::V p) {
    using T = typename X::Scalar;
    using V = typename X::V;
    constexpr int lift = Format<T>::mantissa + 1;
    const V zero = {}, one = X::set(1);
    const auto subnormal = p < std::numeric_limits<T>::min();
    const V a = subnormal ? p * T(isize(1) << lift) : p;
    const Pair<V> b = two_sum(one, -p);
    const V l = sum_of(log_ratio<X>({a, zero}, b, a / b.hi, subnormal ? X::set(-lift) : zero));
    const V inf = X::set(std::numeric_limits<T>::infinity()), nan = X::set(std::numeric_limits<T>::quiet_NaN());
    const V y = p == zero ? -inf : p == one ? inf : l;
    return p >= zero ? (p <= one ? y : nan) : nan;
}

#define FS_UNARY(Name, expression)                                                                             \
    struct Name {                                                                                              \
        template <class X> static FS_INLINE typename X::V apply(typename X::V x) { return expression; }        \
    };
#define FS_BINARY(Name, expression)                                                                                              \
    struct Name {                                                                                                                \
        template <class X> static FS_INLINE typename X::V apply(typename X::V g, typename X::V y) { return expression; }         \
    };
FS_UNARY(Sigmoid, sigmoid<X>(x))
FS_UNARY(LogSigmoid, log_sigmoid<X>(x))
FS_UNARY(Softplus, softplus<X>(x))
FS_UNARY(Logit, logit<X>(x))
FS_BINARY(SigmoidVjp, g * (y * (X::set(1) - y)))
FS_BINARY(LogSigmoidVjp, g * sigmoid<X>(-y))
FS_BINARY(SoftplusVjp, g * sigmoid<X>(y))
#undef FS_UNARY
#undef FS_BINARY

// (rows, n) with strides in bytes; a line is cut into blocks, the pieces of work.
template <class S> struct Lines {
    S *data;
    isize rows, n, row_stride, n_stride;
    Lines(S *p, const isize *shape, const isize *strides)
        : data(p), rows(shape[0]), n(shape[1]), row_stride(strides[0]), n_stride(shape[1] == 1 ? isize(sizeof(S)) : strides[1]) {}
    S *at(isize row) const { return advance(data, row * row_stride); }
};

constexpr isize flat_piece = 16384;

struct FlatWork : Work {
    isize rows, n;
    FlatWork(isize rows_, isize n_) : rows(rows_), n(n_) {}
    isize per_row() const { return (n + flat_piece - 1) / flat_piece; }
    isize group() const { return n < piece_elements ? piece_elements / n : 1; }  // rows a piece
    isize pieces() const override { return per_row() > 1 ? rows * per_row() : (rows + group() - 1) / group(); }
    void run(isize piece) override {
        if (per_row() > 1) {
            const isize start = piece % per_row() * flat_piece;
            return line(piece, piece / per_row(), start, n - start < flat_piece ? n : start + flat_piece);
        }
        for (isize r = piece * group(); r < rows && r < (piece + 1) * group(); ++r) line(piece, r, 0, n);
    }
    virtual void line(isize piece, isize row, isize start, isize end) = 0;
};

template <class Op, class In, class Out> struct UnaryWork final : FlatWork {
    using C = Compute<In, Out>;
    Lines<const In> x;
    Lines<Out> out;
    UnaryWork(Lines<const In> x_, Lines<Out> out_) : FlatWork(x_.rows, x_.n), x(x_), out(out_) {}
    void line(isize, isize row, isize start, isize end) override {
        const Reader<In, C> from{x.at(row), x.n_stride};
        const Writer<Out, C> to{out.at(row), out.n_stride};
        const isize step = from.direct() && to.direct() ? end - start : gather_block;
        C x_buffer[gather_block], results[gather_block];
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const C *xs = from.get(at, size, x_buffer);
            C *ys = to.place(at, results);
            each_vector<Vec<C>>(size, [&](isize i, auto lanes) { lanes.store(ys + i, Op::template apply<Vec<C>>(lanes.load(xs + i, 0))); });
            to.put(at, size, results);
        }
    }
};

template <class Op, class T> struct BinaryWork final : FlatWork {
    Lines<const T> g, y;
    Lines<T> out;
    BinaryWork(Lines<const T> g_, Lines<const T> y_, Lines<T> out_) : FlatWork(g_.rows, g_.n), g(g_), y(y_), out(out_) {}
    void line(isize, isize row, isize start, isize end) override {
        using X = Vec<T>;
        const Reader<T, T> gs{g.at(row), g.n_stride}, ys{y.at(row), y.n_stride};
        const Writer<T, T> to{out.at(row), out.n_stride};
        const isize step = gs.direct() && ys.direct() && to.direct() ? end - start : gather_block;
        T g_buffer[gather_block], y_buffer[gather_block], results[gather_block];
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const T *a = gs.get(at, size, g_buffer), *b = ys.get(at, size, y_buffer);
            T *place = to.place(at, results);
            each_vector<X>(size, [&](isize i, auto lanes) {
                lanes.store(place + i, Op::template apply<X>(lanes.load(a + i, 0), lanes.load(b + i, 0)));
            });
            to.put(at, size, results);
        }
    }
};

template <class Op, class In, class Out>
void unary(Op, const In *x, const isize *shape, const isize *x_strides, Out *out, const isize *out_strides, isize threads, Execute execute) {
    UnaryWork<Op, In, Out> work({x, shape, x_strides}, {out, shape, out_strides});
    execute(&work, threads);
}

template <class Op, class T>
void binary(Op, const T *g, const isize *g_strides, const T *y, const isize *y_strides, T *out, const isize *out_strides, const isize *shape,
            isize threads, Execute execute) {
    BinaryWork<Op, T> work({g, shape, g_strides}, {y, shape, y_strides}, {out, shape, out_strides});
    execute(&work, threads);
}

// A contiguous array.
template <class Op, class T> void unary_plain(const void *x, void *out, isize rows, isize row, isize threads, Execute execute) {
    const isize n = rows * row, shape[2] = {1, n}, strides[2] = {0, sizeof(T)};
    unary(Op(), static_cast<const T *>(x), shape, strides, static_cast<T *>(out), strides, threads, execute);
}

}  // namespace fs
}  // namespace
