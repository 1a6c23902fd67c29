"""Exponentials, probabilities and weights at the ends of the range,
whose products and quotients are not.
"""

import functools

import mpmath
import numpy as np
import oracle
import pytest
from cases import BY_NAME

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

mpmath.mp.dps = 60


def number(x):
    return mpmath.mpf(float(x))


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def softplus(x):
    return mpmath.log1p(mpmath.exp(x))


def term(coefficient, value):
    return coefficient * value if coefficient else mpmath.mpf(0)


def exact(function, *arrays):
    """What a function of numbers gives for each element, as what `oracle.ulp_error` takes."""
    values = [function(*map(number, numbers)) for numbers in zip(*arrays, strict=True)]
    powers = [mpmath.frexp(v)[1] for v in values]
    parts = [mpmath.ldexp(v, -k) for v, k in zip(values, powers, strict=True)]
    hi = np.array([float(v) for v in parts])
    lo = np.array([float(v - float(v)) for v in parts])
    return oracle.Exact(hi, lo, np.array(powers, np.int64))


def check(got, answer, bound, about=""):
    """Within a bound in ulp, or in steps of the subnormal numbers; not flushed to 0."""
    error = oracle.ulp_error(got, answer)
    lost = (got == 0) & (np.abs(answer.rounded()) >= float(np.finfo(got.dtype).smallest_subnormal))
    assert not lost.any(), (
        f"{about}: {np.count_nonzero(lost)} results are 0, the first at {lost.argmax()}"
    )
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{about}: {error[worst]:.3g} ulp at {worst}"


def edge(dtype):
    """Exponentials of what is further from 0 are subnormal, or less."""
    return -float(np.log(np.finfo(dtype).smallest_normal))


def powers_of_two(rng, low, high, n):
    return np.exp2(rng.uniform(low, high, n))


# --- elementwise functions ------------------------------------------------------------------------


@functools.cache
@np.errstate(all="ignore")
def arguments_of_subnormal_results(name, dtype):
    """Cached with the results: every backend meets the same ones."""
    last = edge(dtype) + float(np.log(2)) * (np.finfo(dtype).nmant - 1)
    x = np.random.default_rng(1).uniform(edge(dtype) - 2, last, 203)
    x = np.concatenate([x if name == "log_sigmoid" else -x, np.linspace(-3, 3, 31)]).astype(dtype)
    function = {"sigmoid": sigmoid, "softplus": softplus, "log_sigmoid": lambda x: -softplus(-x)}[
        name
    ]
    return x, exact(function, x)


@pytest.mark.parametrize("name", ["sigmoid", "log_sigmoid", "softplus"])
def test_subnormal_results(name, dtype):
    x, answer = arguments_of_subnormal_results(name, dtype)
    call = getattr(fs, name)
    small = np.abs(answer.rounded()) < float(np.finfo(dtype).smallest_normal)
    assert np.count_nonzero(small) > 100
    short = np.concatenate([call(x[i : i + 3]) for i in range(0, x.size, 3)])
    for got in (call(x), call(x.repeat(2)[::2]), short):
        check(got[small], answer[small], 1, name)
        check(got, answer, BY_NAME[name].ulp, name)


@functools.cache
@np.errstate(all="ignore")
def arguments_of_gradients(dtype):
    """Slopes of every size, and exponentials down to where no product is left."""
    rng = np.random.default_rng(2)
    largest = np.finfo(dtype).maxexp
    x = -rng.uniform(
        edge(dtype) - 30, float(np.log(2)) * (2 * largest + np.finfo(dtype).nmant), 300
    )
    x = np.concatenate([x, -x[:50], rng.normal(0, 5, 100), np.linspace(-1, 1, 51)]).astype(dtype)
    g = powers_of_two(rng, -largest + 2, largest, x.size)
    g[::3], g[1::9] = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    g = (g * rng.choice([-1, 1], x.size)).astype(dtype)
    return g, x, exact(lambda g, x: g * sigmoid(x), g, x)


@pytest.mark.parametrize("name", ["softplus", "log_sigmoid"])
def test_gradients_multiply_before_they_round(name, dtype):
    """Of an exponential that is too small for the dtype, times a slope that is large."""
    case = BY_NAME[name]
    g, x, answer = arguments_of_gradients(dtype)
    x = -x if name == "log_sigmoid" else x
    got = case.call_vjp(g, x)
    check(got, answer, case.vjp_ulp, case.vjp)
    for block in (1, 3, 40):  # whatever stands beside them
        parts = [case.call_vjp(g[i : i + block], x[i : i + block]) for i in range(0, x.size, block)]
        np.testing.assert_array_equal(np.concatenate(parts), got)
    np.testing.assert_array_equal(case.call_vjp(g.repeat(2)[::2], x.repeat(2)[::2]), got)
    memory = x.copy()
    np.testing.assert_array_equal(case.call_vjp(g, memory, out=memory), got)


@functools.cache
@np.errstate(all="ignore")
def arguments_of_sigmoid_vjp(dtype):
    rng = np.random.default_rng(3)
    largest, bits = np.finfo(dtype).maxexp, np.finfo(dtype).nmant
    y = np.concatenate(
        [powers_of_two(rng, -largest - bits + 3, 0, 300), 1 - powers_of_two(rng, -bits, 0, 50)]
    )
    g = powers_of_two(rng, -largest + 2, largest, y.size)
    g, y = g.astype(dtype), y.astype(dtype)
    return g, y, exact(lambda g, y: g * y * (1 - y), g, y)


def test_gradient_of_subnormal_sigmoids(dtype):
    g, y, answer = arguments_of_sigmoid_vjp(dtype)
    check(fs.sigmoid_vjp(g, y), answer, BY_NAME["sigmoid"].vjp_ulp)


@pytest.mark.parametrize("name", ["softplus", "log_sigmoid"])
def test_gradients_of_infinities_and_nan_among_tails(name, dtype):
    case, sign = BY_NAME[name], -1 if name == "log_sigmoid" else 1
    x = np.array([np.nan, -1e4, np.inf, -np.inf, 0, -np.nan, 3], dtype).repeat(5)
    g = np.full(x.size, 2, dtype)
    expected = np.array([np.nan, 0, 2, 0, 1, np.nan, 2 / (1 + np.exp(-3))]).repeat(5)
    np.testing.assert_allclose(case.call_vjp(g, sign * x), expected, rtol=1e-6)


# --- gradients of rows ----------------------------------------------------------------------------


@functools.cache
@np.errstate(all="ignore")
def far_below(dtype, n):
    """Rows whose probabilities are subnormal or less but for the first, and large gradients."""
    rng = np.random.default_rng(7)
    largest = np.finfo(dtype).maxexp
    deepest = edge(dtype) + float(np.log(2)) * (largest // 2 - 24)
    x = -rng.uniform(edge(dtype) - 5, deepest, (n, 5))
    x[0], x[1, ::2] = 0, -np.inf
    g = powers_of_two(rng, largest // 2, largest - 9, 5)
    g[::2] *= -1
    return x.astype(dtype), g.astype(dtype)


@pytest.mark.parametrize("n", [3, 20, 300, 5000])
@pytest.mark.parametrize("layout", ["rows", "columns", "many columns", "strided"])
@pytest.mark.parametrize("shift", [0, 100, -60])
def test_gradients_of_rows_multiply_before_they_round(dtype, n, layout, shift):
    """The kind: a large gradient times a probability below the smallest normal number."""
    x, g = far_below(dtype, min(n, 300))
    x = np.concatenate([x, np.full((n - len(x), 5), -np.inf, dtype)])
    x = x + dtype.type(shift) if shift else x
    repeats = 200 if layout == "many columns" else 8 if layout == "columns" else 1
    x, g = np.tile(x, repeats), np.tile(g, repeats)
    axis = 0 if "columns" in layout else 1
    rows = x if axis == 0 else np.ascontiguousarray(x.T)
    if layout == "strided":
        rows = rows.repeat(2, 1)[:, ::2]
    some = slice(0, 5)
    far = np.flatnonzero(np.isfinite(x[:, 0]))[1:12]
    results = {"logsumexp_vjp": fs.logsumexp_vjp(g, rows, axis=axis)}
    if shift == 0:
        gradient = np.zeros_like(rows)
        gradient[(0,) if axis == 0 else (slice(None), 0)] = g
        results["log_softmax_vjp"] = -fs.log_softmax_vjp(gradient, rows, axis=axis)
    for name, result in results.items():
        got = (result if axis == 0 else result.T)[far][:, some]
        wanted = np.isfinite(x[far][:, some])
        factors = np.broadcast_to(g[some], got.shape)[wanted]
        logits = x[far][:, some][wanted].astype(np.float64) - float(x[0, 0])
        answer = exact(lambda g, y: g * mpmath.exp(y), factors, logits)
        check(got[wanted], answer, BY_NAME[name.removesuffix("_vjp")].vjp_ulp, name)


# --- binary losses --------------------------------------------------------------------------------


@functools.cache
@np.errstate(all="ignore")
def improbable(dtype):
    rng = np.random.default_rng(4)
    largest, bits = np.finfo(dtype).maxexp, np.finfo(dtype).nmant
    p = powers_of_two(rng, -largest - bits + 4, 30 - largest, 120)
    t = powers_of_two(rng, -60, 0, 120)
    w = powers_of_two(rng, -100, 100, 120)
    p[0], t[0], w[0] = float(np.finfo(dtype).smallest_normal) / 6, 1e-3, 1
    w[::5], t[::7] = float(np.finfo(dtype).smallest_normal), 0
    p, t, w = p.astype(dtype), t.astype(dtype), w.astype(dtype)
    loss = exact(lambda p, t, w: -w * (t * mpmath.log(p) + (1 - t) * mpmath.log1p(-p)), p, t, w)
    return p, t, w, loss


def slope(p, t, w=1):
    return w * ((1 - t) / (1 - p) - t / p)


def of_probabilities(p, t, **options):
    return fs.binary_cross_entropy_value_and_grad(p, t, **{"reduction": "none"} | options)


def test_gradient_at_a_subnormal_probability(dtype):
    """t / p, of a p whose inverse is infinite: -5e35 for p = 2e-39, t = 1e-3."""
    p, t, _, _ = improbable(dtype)
    _, grad = of_probabilities(p[:1], t[:1])
    check(grad, exact(slope, p[:1], t[:1]), 1)
    if dtype == np.float32:
        _, grad = of_probabilities(np.float32([2e-39]), np.float32([1e-3]))
        np.testing.assert_allclose(grad, [-5e35], rtol=1e-5)


def test_improbable_probabilities(dtype):
    p, t, w, answer = improbable(dtype)
    loss, grad = of_probabilities(p, t, weight=w)
    check(loss, answer, 6)
    check(grad, exact(slope, p, t, w), 4)
    check(of_probabilities(p, t)[1], exact(slope, p, t), 4)
    _, grad = of_probabilities(p, t, weight=w, reduction="mean")
    check(grad, exact(lambda p, t, w: slope(p, t, w) / 120, p, t, w), 4)
    # where a logarithm is clamped it is flat
    _, grad = of_probabilities(p, t, weight=w, clamp=10.0)
    check(grad, exact(lambda p, t, w: w * (1 - t) / (1 - p), p, t, w), 4)
    _, grad = of_probabilities(p, t, weight=w, clamp=0.0)
    np.testing.assert_array_equal(grad, np.zeros_like(grad))


def test_improbable_beside_usual_ones(dtype):
    """Neither changes the other."""
    p, t, w, _ = improbable(dtype)
    usual = np.random.default_rng(5).uniform(0, 1, 120).astype(dtype)
    usual[::9], usual[1::9] = 0, 1
    both = np.stack([p, usual], -1).ravel()
    _, grad = of_probabilities(both, t.repeat(2), weight=w.repeat(2))
    np.testing.assert_array_equal(grad[::2], of_probabilities(p, t, weight=w)[1])
    np.testing.assert_array_equal(grad[1::2], of_probabilities(usual, t, weight=w)[1])
    in_place = both.copy()
    of_probabilities(in_place, t.repeat(2), weight=w.repeat(2), out=in_place)
    np.testing.assert_array_equal(in_place, grad)


def test_improbable_probabilities_of_half_precision(half):
    p, t, _, _ = improbable(np.dtype(np.float32))
    with np.errstate(all="ignore"):
        p = p.astype(half)
    loss, grad = of_probabilities(p, t)
    expected, slopes = of_probabilities(p.astype(np.float32), t)
    np.testing.assert_array_equal(loss, expected)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(grad, slopes.astype(half))


@functools.cache
@np.errstate(all="ignore")
def weighted_tails(dtype):
    rng = np.random.default_rng(6)
    largest = np.finfo(dtype).maxexp
    x = rng.uniform(edge(dtype) / 2 - 9, float(np.log(2)) * (2 * largest + 20), 160)
    x = np.concatenate([-x, x, rng.normal(0, 5, 80)]).astype(dtype)
    t = np.where(
        np.abs(x) > 30, x > 0, rng.choice([0, 0.25, 1], x.size)
    )  # answers that are right, or nearly so
    w = powers_of_two(rng, -largest // 2, largest, x.size)
    w[::2] = float(np.finfo(dtype).max) / 4
    w, q = w.astype(dtype), powers_of_two(rng, -20, 2, x.size).astype(dtype)
    t = t.astype(dtype)

    def loss(x, t, w, q):
        return w * (term(q * t, softplus(-x)) + term(1 - t, softplus(x)))

    def grad(x, t, w, q):
        return w * (term(1 - t, sigmoid(x)) - term(q * t, sigmoid(-x)))

    def hess(x, w):
        return w * sigmoid(x) * sigmoid(-x)

    certain = (t == 0) | (t == 1)  # elsewhere the terms of the gradient cancel
    slopes = exact(grad, *(a[certain] for a in (x, t, w, q)))
    ones = np.ones_like(q)
    plain = exact(grad, *(a[certain] for a in (x, t, w, ones)))
    return (x, t, w, q), certain, exact(loss, x, t, w, q), slopes, plain, exact(hess, x, w)


def test_weights_multiply_before_exponentials_round(dtype):
    (x, t, w, q), certain, losses, slopes, plain, curvature = weighted_tails(dtype)
    options = {"weight": w, "pos_weight": q, "reduction": "none"}
    check(fs.binary_cross_entropy_with_logits(x, t, **options), losses, 6)
    loss, grad = fs.binary_cross_entropy_with_logits_value_and_grad(x, t, **options)
    check(loss, losses, 6)
    check(grad[certain], slopes, 6)
    grad, hess = fs.binary_cross_entropy_with_logits_grad_hess(x, t, sample_weight=w)
    check(grad[certain], plain, 6)
    check(hess, curvature, 8)


def test_weighted_tails_beside_usual_logits(dtype):
    (x, t, w, q), *_ = weighted_tails(dtype)
    options = {"weight": w, "pos_weight": q, "reduction": "none"}
    loss, grad = fs.binary_cross_entropy_with_logits_value_and_grad(x, t, **options)
    for i in range(0, x.size, 7):
        options = {"weight": w[i : i + 2], "pos_weight": q[i : i + 2], "reduction": "none"}
        a, b = fs.binary_cross_entropy_with_logits_value_and_grad(
            x[i : i + 2], t[i : i + 2], **options
        )
        np.testing.assert_array_equal(a, loss[i : i + 2])
        np.testing.assert_array_equal(b, grad[i : i + 2])


def test_weighted_infinities(dtype):
    x, t = np.array([np.inf, -np.inf, np.inf, -np.inf, np.nan], dtype), np.array([1, 0, 0, 1, 1.0])
    loss, grad = fs.binary_cross_entropy_with_logits_value_and_grad(
        x, t, weight=2.0, reduction="none"
    )
    np.testing.assert_array_equal(loss, [0, 0, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(grad, [0, 0, 2, -2, np.nan])


# --- divergence -----------------------------------------------------------------------------------


def test_divergence_of_improbable_classes_that_are_far_away(dtype):
    """exp(log_p) below the range of the dtype, times a difference that is large."""
    log_p, log_q = (-95.0, -1e5) if dtype == np.float32 else (-750.0, -1e300)
    for n in (2, 20):
        p, q = np.zeros((2, n), dtype)
        p[1], q[1] = log_p, log_q
        got = fs.kl_divergence(q, p, log_target=True)
        expected = mpmath.exp(number(p[1])) * (number(p[1]) - number(q[1]))
        assert float(got) == pytest.approx(
            float(expected), rel=1e-6 if dtype == np.float32 else 1e-14
        )
    masked = np.array([0, -np.inf, -1e9], dtype)
    assert fs.kl_divergence(masked, masked, log_target=True) == 0
    assert fs.kl_divergence(np.array([0, 0, -np.inf], dtype), masked, log_target=True) == 0
