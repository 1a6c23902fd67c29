"""Exponentials at the ends of the range, whose products are not."""

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
    assert not lost.any(), f"{about}: {np.count_nonzero(lost)} results are 0, the first at {lost.argmax()}"
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{about}: {error[worst]:.3g} ulp at {worst}"


def edge(dtype):
    """Exponentials of what is further from 0 are subnormal, or less."""
    return -float(np.log(np.finfo(dtype).smallest_normal))


def powers_of_two(rng, low, high, n):
    return np.exp2(rng.uniform(low, high, n))


# --- elementwise functions ----------------------------------------------------------------------------------


@functools.cache
@np.errstate(all="ignore")
def arguments_of_subnormal_results(name, dtype):
    """Cached with the results: every backend meets the same ones."""
    last = edge(dtype) + float(np.log(2)) * (np.finfo(dtype).nmant - 1)
    x = np.random.default_rng(1).uniform(edge(dtype) - 2, last, 203)
    x = np.concatenate([x if name == "log_sigmoid" else -x, np.linspace(-3, 3, 31)]).astype(dtype)
    function = {"sigmoid": sigmoid, "softplus": softplus, "log_sigmoid": lambda x: -softplus(-x)}[name]
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
    x = -rng.uniform(edge(dtype) - 30, float(np.log(2)) * (2 * largest + np.finfo(dtype).nmant), 300)
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
