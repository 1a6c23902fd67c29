// Short rows of softmax and its relatives, one in each lane.
#pragma once

#include "kernels/drivers/tiles.h"
#include "kernels/math/log_epilogue.h"
#include "kernels/math/scale_epilogue.h"
#include "ops/cancelled_rows.h"

namespace {
namespace fs {

// Short rows, one in each lane. Softmax of scores on a grid is one of their exact differences:
// it does not change when all scores move. For logarithms every exponential is one of the exact
// difference from the maximum, and the logarithm that of 1 and the sum of the others.
template <class C, Result R, bool Scaled>
struct NormalizeLanes {
    using X = Vec<C>;
    using V = typename X::V;
    using D = Vec<double>;
    static constexpr Index width = tile_vectors * X::lanes;
    static constexpr bool logarithmic = takes_logarithm(R), keeps = R != Result::logsumexp;
    static_assert(short_row <= ShortRows<X>::longest && short_log_row <= ShortRows<X>::longest, "");

    const NormalizeArguments *a;
    bool direct;  // the columns are contiguous in memory

    Index n() const { return a->x.n; }

    void run(Index outer, Index first, Index count) const {
        const Scratch<Group> group(vectors);
        const Scratch<char> apart(R == Result::logsumexp ? CancelledRows<C>::memory(n()) : 0);
        CancelledRows<C> cancelled(*a, outer, first, apart);
        for (Index at = 0; at < count;) {
            Index used = 0;
            for (; used < vectors && at < count; ++used, at += X::lanes) {
                group[used].place(outer, first + at, count - at < X::lanes ? count - at : X::lanes);
            }
            // Step by step for all of them: one alone would wait for its maximum, its sum and its
            // reciprocal (20 % at 32 elements).
            for (Index v = 0; v < used; ++v) find_maximum(group[v]);
            for (Index v = 0; v < used; ++v) sum(group[v]);
            for (Index v = 0; v < used; ++v) write(group[v], cancelled);
        }
        if constexpr (R == Result::logsumexp) cancelled.finish();
    }

  private:
    static constexpr Index vectors = logarithmic ? 2 : 4;
    struct Group {  // a vector of rows
        ShortRows<X> rows;
        Index outer, first, count;
        bool in_memory;  // the columns are whole vectors
        V max;
        Scale<X> scale;
        Shift<X> shift;
        ScaleEpilogue<X, R == Result::softmax> normalizer;
        DoubleDouble<V> rest, numerators;

        void place(Index o, Index f, Index c) { outer = o, first = f, count = c; }
    };

    void find_maximum(Group &g) const {
        g.in_memory = direct && g.count == X::lanes;
        C *tile = g.rows.columns;
        Columns<X> x{tile, X::lanes};
        if (g.in_memory)
            x = {reinterpret_cast<const C *>(a->x.at(g.outer, g.first)),
                 a->x.n_stride / Index(sizeof(C))};
        else
            g.rows.gather(a->x, g.outer, g.first, g.count, a->where, a->negative());
        g.scale = lane_scales<X, Scaled>(*a, g.outer, g.first, g.count);
        // two chains of half the latency
        V max = X::set(-std::numeric_limits<C>::infinity()), other = max;
        typename X::I off{};
        const auto look = [&](V v, V &most) FS_ALWAYS_INLINE {
            most = larger(v, most);
            if constexpr (!logarithmic) off |= off_grid<X>(v);
        };
        // Columns in memory are copied: their rows may lie a multiple of 4096 bytes apart, where
        // few of them fit the cache.
        const auto look_at = [&](Index j, V &most) FS_ALWAYS_INLINE {
            const V v = x[j];
            look(v, most);
            if (g.in_memory) X::store(tile + j * X::lanes, v);
        };
        Index i = 0;
        for (; i + 2 <= n(); i += 2) look_at(i, max), look_at(i + 1, other);
        if (i < n()) look_at(i, max);
        g.max = larger(max, other);
        if constexpr (!logarithmic) g.shift = Shift<X>::from(g.max, g.scale, off == 0);
        if constexpr (R == Result::logsumexp_vjp) {
            g.numerators = numerators_in_lanes<R, X>(a->gradient, g.outer, g.first, g.count);
            g.shift = g.shift.lifted(lifts_of<X>(g.numerators.hi), g.scale);
        }
    }

    void sum(Group &g) const {
        if constexpr (logarithmic)
            g.rest = others({g.rows.columns, X::lanes}, g.max, g.scale);
        else
            g.normalizer = exponentials({g.rows.columns, X::lanes}, g);
    }

    void write(Group &g, [[maybe_unused]] CancelledRows<C> &cancelled) const {
        if constexpr (R == Result::logsumexp) {
            write_sum(g, cancelled);
        } else {
            C *y = g.rows.columns;
            Index step = X::lanes;
            if (g.in_memory)
                y = reinterpret_cast<C *>(a->out.at(g.outer, g.first)),
                step = a->out.n_stride / Index(sizeof(C));
            if constexpr (logarithmic) {
                const auto writer = log_writer(g.max, g.rest, g.outer, g.first, g.count);
                for (Index j = 0; j < n(); ++j)
                    X::store(y + j * step, writer.apply(X::load(g.rows.columns + j * X::lanes)));
            } else {
                const auto normalizer = g.normalizer;
                for (Index j = 0; j < n(); ++j)
                    X::store(y + j * step,
                             normalizer.apply(X::load(g.rows.columns + j * X::lanes)));
            }
            if (!g.in_memory)
                g.rows.scatter(a->out, g.outer, g.first, g.count, a->where,
                               NormalizeArguments::absent<R, C>());
        }
    }

    FS_ALWAYS_INLINE ScaleEpilogue<X, R == Result::softmax> exponentials(Columns<X> x,
                                                                         Group &g) const {
        const auto term = [&](Index j) FS_ALWAYS_INLINE {
            return exp_max_shift<X, Scaled>(x[j], g.shift, g.scale);
        };
        C *e = g.rows.columns;
        const auto keep = [&](Index j, V y) FS_ALWAYS_INLINE {
            X::store(e + j * X::lanes, y);
        };
        PairSums<X> sums{sum_of_four(0, n(), term, keep), V{}};
        sum_rows(4, n(), sums, term, keep);
        const DoubleDouble<V> one = {X::set(1), V{}}, total = {sums.hi, sums.lo};
        using Normal = ScaleEpilogue<X, R == Result::softmax>;
        return Normal::of_pairs(R == Result::logsumexp_vjp ? g.numerators : one, total);
    }
    // The sum of all exponentials but one of the maximum, relative to it. NaN if there is a NaN;
    // finite, but of no use, where the maximum is infinite.
    FS_ALWAYS_INLINE DoubleDouble<V> others(Columns<X> x, V max, const Scale<X> &scale) const {
        const Shift<X> below = Shift<X>::fixed(rest_exponent<C>, scale);
        PairSums<X> sums;
        V copies = {};
        for (Index j = 0; j < n(); ++j) {
            const V v = x[j];
            sums.add(v == max ? V{} : exp_of_difference<X, Scaled>(v, max, below, scale));
            copies = copies + (v == max ? X::set(1) : V{});
        }
        const DoubleDouble<V> rest = true_rest<C>(DoubleDouble<V>{sums.hi, sums.lo}),
                              all = two_sum(copies - C(1), rest.hi);
        return {all.hi, all.lo + rest.lo};
    }

    FS_ALWAYS_INLINE LogEpilogue<X, Scaled> log_writer(V max, DoubleDouble<V> rest, Index outer,
                                                       Index first, Index count) const {
        const DoubleDouble<V> l =
            log_to_base<X>(log1p_nonnegative<X>(rest.hi, rest.lo), a->ln_base);
        LogEpilogue<X, Scaled> w;
        w.max = max, w.hi = l.hi + (max - max), w.lo = l.lo;
        for (Index k = 0; Scaled && k < X::lanes; ++k)
            w.set_inverse(k, a->inverse_temperature(outer, first + (k < count ? k : count - 1)));
        return w;
    }

    FS_ALWAYS_INLINE void write_sum(const Group &g, CancelledRows<C> &cancelled) const {
        const DoubleDouble<V> l = log_to_base<X>(log1p_nonnegative<X>(g.rest.hi, g.rest.lo),
                                                 a->ln_base),
                              s = two_sum(g.max, l.hi);
        const V usual = s.hi + (s.lo + l.lo);
        const typename X::I wrong = cancels(g.max, usual, usual * static_cast<C>(a->ln_base.hi));
        store(g.max - g.max == V{} ? usual : g.max + g.rest.hi, g.outer, g.first, g.count);
        const typename X::I wanted =
            wrong & (X::indices() < static_cast<typename Format<C>::Int>(g.count));
        // Of few elements it is done rather than asked, if that is quick: nobody can predict the
        // answer.
        if ((FS_VECTOR_BYTES == 64 && n() <= 4) || any<X>(wanted))
            cancelled.add({g.rows.columns, X::lanes}, g.max, wanted, g.first);
    }
    void store(V y, Index outer, Index first, Index count) const {
        if (a->out.number == number_of<C> && a->out.inner_stride == Index(sizeof(C)))
            return X::store_part(reinterpret_cast<C *>(a->out.at(outer, first)), y, count);
        C lanes[X::lanes];
        X::store(lanes, y);
        OutputLine<C> to(a->out, outer, first);
        to.stride = a->out.inner_stride;
        to.copy(0, count, lanes);
    }
};

}  // namespace fs
}  // namespace
