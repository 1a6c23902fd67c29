// Cross-entropy of targets for every class, with rows in lanes.
#pragma once

#include "kernels/drivers/tiles.h"
#include "kernels/math/scale_epilogue.h"
#include "ops/cross_entropy_targets.h"

namespace {
namespace fs {

// The same for rows in lanes. With d_c = s (x_c - max), at most 0, and the total relative to the
// maximum, 1 + R, the loss is
//
//     log1p(R) sum(q) - sum(q d),
//
// terms of one sign again; and the derivative at the maximum is made of 1 / (1 + R) and R / (1 +
// R), which do not cancel.
template <class C, bool Scaled, bool Gradient>
struct TargetTile {
    using X = Vec<C>;
    using D = Vec<double>;
    using V = typename X::V;
    using I = typename X::I;
    using Wide = typename D::V;
    static constexpr Index width = tile_vectors * X::lanes;
    // the exponential of the maximum: see rest_exponent
    static constexpr C certain = sizeof(C) == 4 ? C(0x1p64) : C(0x1p256);
    // Between these, factors of p and q are numbers of type C, and so are their products with
    // exponentials wherever results are normal numbers.
    static constexpr double least_factor = sizeof(C) == 4 ? 0x1p-60 : 0x1p-700,
                            largest_factor = sizeof(C) == 4 ? 0x1p60 : 0x1p250;

    const CrossEntropyArguments *a;
    RowLosses *losses;
    Rows logits;

    TargetTile(const CrossEntropyArguments &arguments, RowLosses &to)
        : a(&arguments), losses(&to), logits(arguments) {}

    Index n() const { return a->x.n; }

    void run(Index outer, Index first, Index count) const {
        const Scratch<C> weights(a->weight ? n() : 0), room(2 * n() * X::lanes);
        for (Index c = 0; a->weight && c < n(); ++c)
            weights[c] = static_cast<C>(a->class_weight(c));
        const AnyView mask = mask_as_numbers();
        TileColumns<X> x(a->x, outer, first, count, a->where),
            t(a->labels() ? AnyView() : a->target, outer, first, count),
            present(mask, outer, first, count);
        const TileResults<X> g(a->gradient, outer, first, count, a->where);
        x.gather();
        if (!a->labels()) t.gather();
        if (mask) present.gather();
        Accumulator<D> sums;
        for (Index at = 0; at < count; at += X::lanes) {
            Group r;
            r.e = room, r.again = room + n() * X::lanes;
            r.outer = outer, r.first = first + at,
            r.count = count - at < X::lanes ? count - at : X::lanes;
            r.class_weights = a->weight ? static_cast<const C *>(weights) : nullptr;
            if (!a->labels()) r.t = t.from(at);
            if (mask) r.present = present.from(at);
            do_rows(r, x.from(at), g.place(at), sums);
            if constexpr (Gradient) g.put(at);
        }
        if constexpr (Gradient) g.put();
        losses->add(outer * ((a->x.inner + width - 1) / width) + first / width, sums.total());
    }

  private:
    struct Group {     // a vector of rows
        C *e, *again;  // logits, then their exponentials; logits where they are wanted again
        Index outer, first, count;
        const C *class_weights;
        Columns<X> t, present;  // targets, if there are not labels; 1 or 0, if there is a mask
        I label;
        V keep, spread, counted, max;  // 1 - s, s / K; not 0 where a row counts
        Scale<X> scale;
        alignas(64) double weight[X::lanes];  // of rows
        alignas(64) double s[X::lanes], s_lo[X::lanes];
    };
    struct Sums {
        Accumulator<X> rest, terms, masses;  // of exponentials below the maximum, q d, q
        V copies = {};                       // of the maximum
    };
    struct Factors {  // of the derivative, in lanes
        // 1 beyond the limits
        alignas(64) double p[X::lanes], q[X::lanes], log[X::lanes], log_lo[X::lanes], far[X::lanes];
        bool any_far;
        ScaleEpilogue<X, false> normalizer;
        // q_factor / (1 + R), q_factor R / (1 + R), sum(q), 2 z log(total)
        V q_factor, certain_p, certain_rest, mass, drift;
    };

    void do_rows(Group &r, const Columns<X> &x, const typename TileResults<X>::Place &g,
                 Accumulator<D> &total) const {
        read(r, x);
        Sums sums;
        sum(r, sums);
        Factors f;
        alignas(64) double loss[X::lanes];
        settle(r, sums, f, loss);
        for (Index l = 0; l < X::lanes; l += D::lanes) total.add(D::load(loss + l));
        store_losses(*a, r.outer, r.first, r.count, loss);
        if constexpr (Gradient) write(r, f, g);
    }

    void read(Group &r, const Columns<X> &x) const {
        r.max = X::set(masked_logit<C>);
        for (Index j = 0; j < n(); ++j) {
            const V v = x[j];
            X::store(r.e + j * X::lanes, v);
            r.max = larger(v, r.max);
        }
        r.scale = lane_scales<X, Scaled>(logits, r.outer, r.first, r.count);
        for (Index l = 0; l < X::lanes; ++l) {
            const DoubleDouble<> s = Scaled ? logits.scale(r.outer, r.first + (l < r.count ? l : 0))
                                            : DoubleDouble<>{1, 0};
            r.s[l] = s.hi, r.s_lo[l] = s.lo;
        }
        a->row_weights_of(r.outer, r.first, r.count, X::lanes, r.weight);
        if (a->labels()) read_labels(r);
        r.keep = X::set(static_cast<C>(1 - a->smoothing)),
        r.spread = X::set(static_cast<C>(a->smoothing / static_cast<double>(n())));
        if (a->where.data) read_mask(r);
        C counted[X::lanes];
        for (Index l = 0; l < X::lanes; ++l) counted[l] = static_cast<C>(r.weight[l] != 0);
        r.counted = X::load(counted);
    }
    void read_labels(Group &r) const {
        Index labels[X::lanes];
        typename Format<C>::Int label[X::lanes];
        a->labels_of(r.outer, r.first, r.count, labels);
        for (Index l = 0; l < X::lanes; ++l) {
            label[l] = static_cast<typename Format<C>::Int>(l < r.count ? labels[l] : -1);
            if (label[l] < 0) r.weight[l] = 0;
        }
        std::memcpy(&r.label, label, sizeof label);
    }
    AnyView mask_as_numbers() const {
        AnyView mask;
        if (!a->where.data) return mask;
        mask = a->x;
        mask.data = reinterpret_cast<char *>(const_cast<std::uint8_t *>(a->where.data)),
        mask.number = Number::boolean, mask.bytes = Bytes::native;
        mask.outer_stride = a->where.outer_stride, mask.n_stride = a->where.n_stride,
        mask.inner_stride = a->where.inner_stride;
        return mask;
    }
    // How many classes take part.
    void read_mask(Group &r) const {
        V present = {};
        for (Index j = 0; j < n(); ++j) present = present + r.present[j];
        for (Index l = 0; l < X::lanes; ++l) {
            r.spread[l] = present[l] != 0
                              ? static_cast<C>(a->smoothing / static_cast<double>(present[l]))
                              : C(0);
            if (present[l] == 0) r.weight[l] = 0;
        }
    }

    // q of class j.
    FS_ALWAYS_INLINE V mass(const Group &r, Index j) const {
        V q = a->labels() ? (r.label == static_cast<typename Format<C>::Int>(j) ? r.keep : V{})
                          : r.keep * r.t[j];
        q = q + (a->where.data ? r.present[j] * r.spread : r.spread);
        return r.class_weights ? q * X::set(r.class_weights[j]) : q;
    }

    // Classes without mass are left out: 0 times infinity is 0 here.
    void sum(const Group &r, Sums &s) const {
        const Shift<X> below = Shift<X>::fixed(rest_exponent<C>, r.scale);
        // The difference of finite numbers may overflow where it is scaled down.
        const V unit = Scaled ? (absolute<X>(r.max) > std::numeric_limits<C>::max() / 4
                                     ? X::set(C(0.5))
                                     : X::set(1))
                              : X::set(1),
                top = r.max * unit;
        for (Index j = 0; j < n(); ++j) {
            const V v = X::load(r.e + j * X::lanes),
                    e = exp_of_difference<X, Scaled>(v, r.max, below, r.scale), q = mass(r, j);
            const V d = Scaled ? multiply_add(v, unit, -top) : v - r.max;
            s.rest.add(v == r.max ? V{} : e);
            s.copies = s.copies + (v == r.max ? X::set(1) : V{});
            s.terms.add(q == V{} ? V{} : q * d);
            s.masses.add(q);
            if constexpr (Gradient) X::store(r.e + j * X::lanes, e);
        }
    }

    static FS_ALWAYS_INLINE auto beyond(Wide v) {
        return ((v < least_factor) | (v > largest_factor)) & (v != 0.0);
    }

    // In double: the losses, and what the derivatives are made with.
    void settle(const Group &r, const Sums &sums, Factors &f, double *loss) const {
        DoubleDouble<Wide> log[wide_parts<X>], others[wide_parts<X>];
        // NaN for a row without a distribution; logsumexp
        Wide none[wide_parts<X>], log_sum[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            const auto rest = true_rest<C>(sums.rest.part(k));
            const Wide max = wide_part<X>(r.max, k), s = D::load(r.s + k * D::lanes);
            others[k] = two_sum(wide_part<X>(sums.copies, k) - 1.0, rest.hi),
            others[k].lo = others[k].lo + rest.lo;
            log[k] = log1p_nonnegative<D>(others[k].hi, others[k].lo);
            none[k] = (max - max) + (log[k].hi - log[k].hi);
            D::store(f.log + k * D::lanes, log[k].hi + none[k]),
                D::store(f.log_lo + k * D::lanes, log[k].lo);
            const Wide scaled = max * s, scaled_lo = multiply_subtract_exact<D>(max, s, scaled) +
                                                     max * D::load(r.s_lo + k * D::lanes);
            const auto sum = two_sum(scaled, log[k].hi);
            log_sum[k] = (sum.hi + (sum.lo + (scaled_lo + log[k].lo))) + none[k];
        }
        if (a->z_loss != 0) find_small_log_sums(r, log_sum);
        f.any_far = false;
        Wide factor[wide_parts<X>], at_p[wide_parts<X>], at_rest[wide_parts<X>],
            masses[wide_parts<X>], drift[wide_parts<X>];
        for (int k = 0; k < wide_parts<X>; ++k) {
            const Index at = k * D::lanes;
            const Wide weight = D::load(r.weight + at), s = D::load(r.s + at),
                       z = a->z_loss != 0 ? log_sum[k] : Wide{};
            const Wide unit = Scaled
                                  ? (absolute<D>(wide_part<X>(r.max, k)) >
                                             static_cast<double>(std::numeric_limits<C>::max() / 4)
                                         ? s + s
                                         : s)
                                  : s;
            const Wide mass = sums.masses.part(k).value(), terms = sums.terms.part(k).value();
            const Wide plain =
                (log[k].hi * mass + log[k].lo * mass) - (Scaled ? unit * terms : terms);
            D::store(loss + at, weight == Wide{}
                                    ? Wide{}
                                    : weight * ((plain + a->z_loss * (z * z)) + none[k]));
            if constexpr (Gradient) {
                const Wide rest = others[k].hi + others[k].lo, total = rest + 1.0,
                           q = weight * a->scale * s, p = q * (mass + 2 * a->z_loss * z),
                           ratio = absolute<D>(p / total);
                D::store(f.q + at, q), D::store(f.p + at, p + none[k]);
                factor[k] = q, at_p[k] = q / total + none[k], at_rest[k] = q * (rest / total);
                masses[k] = mass, drift[k] = 2 * a->z_loss * z;
                const auto far = beyond(ratio) | beyond(absolute<D>(q));
                D::store(f.far + at, far ? Wide{} + 1.0 : Wide{}), f.any_far |= any<D>(far);
            }
        }
        if constexpr (Gradient) {
            f.normalizer = ScaleEpilogue<X, false>::each(f.p, [&](int k) {
                const auto total = two_sum(Wide{} + 1.0, others[k].hi);
                return DoubleDouble<Wide>{total.hi * static_cast<double>(certain),
                                          (total.lo + others[k].lo) * static_cast<double>(certain)};
            });
            f.q_factor = from_wide<X>(factor), f.certain_p = from_wide<X>(at_p),
            f.certain_rest = from_wide<X>(at_rest);
            f.mass = from_wide<X>(masses), f.drift = from_wide<X>(drift);
        }
    }
    // Where logsumexp is the small sum of a maximum and a logarithm that cancel, it takes
    // exponentials of more than its precision.
    void find_small_log_sums(const Group &r, Wide *log_sum) const {
        typename D::I small[wide_parts<X>], any_small{};
        for (int k = 0; k < wide_parts<X>; ++k)
            any_small |= small[k] = may_cancel(wide_part<X>(r.max, k), log_sum[k]);
        if (!any<D>(any_small)) return;
        gather_rows<X>(a->x, r.outer, r.first, r.count, r.again, a->where);
        for (int k = 0; k < wide_parts<X>; ++k) {
            Scale<D> scale = Scale<D>::one();
            for (Index l = 0; Scaled && l < D::lanes; ++l)
                scale.set_lane(l, {r.s[k * D::lanes + l], r.s_lo[k * D::lanes + l]});
            const auto log = precise_log<X>({r.again, X::lanes}, n(), r.max, k, scale);
            const Wide max = wide_part<X>(r.max, k), scaled = max * scale.hi,
                       scaled_lo =
                           multiply_subtract_exact<D>(max, scale.hi, scaled) + max * scale.lo;
            const auto sum = two_sum(scaled, log.hi);
            log_sum[k] = small[k] ? sum.hi + (sum.lo + (scaled_lo + log.lo)) : log_sum[k];
        }
    }

    void write(const Group &r, const Factors &f, const typename TileResults<X>::Place &g) const {
        if (f.any_far) gather_rows<X>(a->x, r.outer, r.first, r.count, r.again, a->where);
        for (Index j = 0; j < n(); ++j) {
            const V e = X::load(r.e + j * X::lanes), q = mass(r, j);
            const V usual = f.normalizer.apply(e) - q * f.q_factor,
                    top = ((f.mass - q) + f.drift) * f.certain_p - q * f.certain_rest;
            V y = e == X::set(certain) ? top : usual;
            if (f.any_far) y = far(r, f, X::load(r.again + j * X::lanes), q, y);
            g.store(j, r.counted == V{} ? V{} : y);
        }
    }
    // Of factors beyond the limits, by the number.
    __attribute__((noinline)) V far(const Group &r, const Factors &f, V logit, V q, V y) const {
        for (Index l = 0; l < r.count; ++l) {
            const Derivative derivative{static_cast<double>(r.max[l]),
                                        {f.log[l], f.log_lo[l]},
                                        {r.s[l], r.s_lo[l]},
                                        f.p[l],
                                        f.q[l]};
            if (f.far[l] != 0)
                y[l] = static_cast<C>(
                    derivative.at(static_cast<double>(logit[l]), static_cast<double>(q[l]), 0));
        }
        return y;
    }
};

template <class C, bool Scaled, bool Gradient>
Index further_memory(const TargetTile<C, Scaled, Gradient> &tile) {
    return tile_memory(tile.n(), 4, 3);
}

}  // namespace fs
}  // namespace
