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

// Lines are cut into blocks, the pieces of work.
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

template <class Op, class C> struct UnaryWork final : FlatWork {
    AnyView x, out;  // lines
    UnaryWork(const AnyView &x_, const AnyView &out_) : FlatWork(x_.outer, x_.n), x(x_), out(out_) {}
    void line(isize, isize row, isize start, isize end) override {
        const Reader<C> from(x, row, 0);
        const Writer<C> to(out, row, 0);
        const isize step = from.direct() && to.direct() ? end - start : gather_block;
        Scratch<C> x_buffer(gather_block), results(gather_block);
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const C *xs = from.get(at, size, x_buffer);
            C *ys = to.place(at, results);
            each_vector<Vec<C>>(size, [&](isize i, auto lanes) { lanes.store(ys + i, Op::template apply<Vec<C>>(lanes.load(xs + i, 0))); });
            to.put(at, size, results);
        }
    }
};

template <class Op, class C> struct BinaryWork final : FlatWork {
    AnyView g, y, out;  // lines
    BinaryWork(const AnyView &g_, const AnyView &y_, const AnyView &out_) : FlatWork(g_.outer, g_.n), g(g_), y(y_), out(out_) {}
    void line(isize, isize row, isize start, isize end) override {
        using X = Vec<C>;
        const Reader<C> gs(g, row, 0), ys(y, row, 0);
        const Writer<C> to(out, row, 0);
        const isize step = gs.direct() && ys.direct() && to.direct() ? end - start : gather_block;
        Scratch<C> g_buffer(gather_block), y_buffer(gather_block), results(gather_block);
        for (isize at = start; at < end; at += step) {
            const isize size = end - at < step ? end - at : step;
            const C *a = gs.get(at, size, g_buffer), *b = ys.get(at, size, y_buffer);
            C *place = to.place(at, results);
            each_vector<X>(size, [&](isize i, auto lanes) {
                lanes.store(place + i, Op::template apply<X>(lanes.load(a + i, 0), lanes.load(b + i, 0)));
            });
            to.put(at, size, results);
        }
    }
};

template <class Op> void unary(Op, const AnyView &x, const AnyView &out, isize threads, Execute execute) {
    with_compute({x.number, out.number}, [&](auto zero) {
        UnaryWork<Op, decltype(zero)> work(x, out);
        execute(&work, threads);
    });
}

template <class Op> void binary(Op, const AnyView &g, const AnyView &y, const AnyView &out, isize threads, Execute execute) {
    with_compute({g.number, y.number, out.number}, [&](auto zero) {
        BinaryWork<Op, decltype(zero)> work(g, y, out);
        execute(&work, threads);
    });
}

// A contiguous array.
template <class Op, class C> void unary_plain(const void *x, void *out, isize rows, isize row, isize threads, Execute execute) {
    UnaryWork<Op, C> work(AnyView::matrix(x, number_of<C>, 1, rows * row), AnyView::matrix(out, number_of<C>, 1, rows * row));
    execute(&work, threads);
}

}  // namespace fs
}  // namespace
