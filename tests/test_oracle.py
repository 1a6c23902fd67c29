"""The references themselves: double-double against mpmath's definitions,
and the rules of `ulp_error`.
"""

import mpmath
import numpy as np
import oracle
import pytest
from cases import CASES, ELEMENTWISE, FLOATS, ROWWISE
from oracle import DIGITS, Exact, ulp_error
from sizes import exhaustive, sizes

FINE = 2.0**-59  # of the value: 1/64 of a unit in the last place of float64


def relative_error(exact, index, truth, floor=0.0):
    """|exact - truth| / max(|truth|, floor) in mpmath."""
    hi, lo = exact.hi[index], exact.lo[index]
    if np.isnan(hi) and mpmath.isnan(truth):
        return 0.0
    if not np.isfinite(hi):
        return 0.0 if mpmath.mpf(float(hi)) == truth else np.inf
    exponent = np.broadcast_to(exact.exponent, exact.shape)[index]
    value = mpmath.ldexp(mpmath.mpf(float(hi)) + mpmath.mpf(float(lo)), int(exponent))
    scale = max(abs(truth), mpmath.mpf(floor))
    return float(abs(value - truth) / scale) if scale else float(abs(value))


OPTIONS = [{}, {"temperature": 0.7}, {"base": 100.0}]
OPTIONS += [pytest.param(o, marks=exhaustive) for o in ({"temperature": 1e-3}, {"base": 1.5})]


def some_elements(n):
    return sorted({0, n // 3, n - 1})


def beyond_range(number):
    """So small that references stop following it: 0 in every format."""
    return abs(number) < mpmath.ldexp(1, -(10**5))


@sizes(3, 7)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_rowwise_reference_is_the_definition(case, options, dtype, size):
    options = {name: value for name, value in options.items() if name in case.options}
    rows, names = case.inputs(size, dtype, np.random.default_rng(1))
    exact = case.exact(rows, **options)
    with mpmath.workdps(DIGITS):
        for i, name in enumerate(names):
            row = [float(v) for v in rows[i]]
            truth = case.definition(row, **options)
            if case.reduced:
                assert relative_error(exact, i, truth, exact.floor[i]) < FINE, name
            else:
                for j in some_elements(len(row)):
                    assert relative_error(exact, (i, j), truth[j]) < FINE or beyond_range(
                        truth[j]
                    ), name


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_elementwise_reference_is_the_definition(case, dtype):
    x = np.sort(np.unique(case.inputs(60, dtype, np.random.default_rng(2))[0]).ravel())[::5]
    exact = case.exact(x)
    with mpmath.workdps(DIGITS):
        for i, value in enumerate(x):
            truth = case.definition(float(value))
            assert relative_error(exact, i, truth) < FINE or beyond_range(truth), value


def test_weighted_logsumexp_is_the_definition():
    rng = np.random.default_rng(3)
    x, b = rng.normal(0, 5, (20, 9)), rng.uniform(-0.2, 2, (20, 9))
    exact = oracle.logsumexp(x, b=b)
    with mpmath.workdps(60):
        for i in range(len(x)):
            truth = oracle.define_logsumexp(x[i], b=b[i])
            if mpmath.im(truth):  # a negative total
                assert np.isnan(exact.hi[i])
            else:
                assert relative_error(exact, i, truth, exact.floor[i]) < FINE


def test_long_sums_stay_exact():
    x = np.full((1, 300_007), 0.1)
    with mpmath.workdps(50):
        truth = mpmath.mpf(0.1) + mpmath.log(300_007)
        assert relative_error(oracle.logsumexp(x), 0, truth) < FINE


@pytest.mark.parametrize("axis", [0, 1, 2, -2, (0, 2), (2, 0), (-1, 1), None, (0, 1, 2)], ids=str)
def test_axes_of_the_references(axis):
    x = np.random.default_rng(4).normal(0, 2, (3, 4, 5))
    naive = np.exp(x) / np.exp(x).sum(axis, keepdims=True)
    np.testing.assert_allclose(oracle.softmax(x, axis).rounded(), naive, rtol=1e-13)
    np.testing.assert_allclose(oracle.log_softmax(x, axis).rounded(), np.log(naive), rtol=1e-13)
    for keepdims in (False, True):
        expected = np.log(np.exp(x).sum(axis, keepdims=keepdims))
        got = oracle.logsumexp(x, axis, keepdims=keepdims).rounded()
        np.testing.assert_allclose(got, expected, rtol=1e-13)


def value(number):
    return Exact(np.float64(number), np.float64(0.0))


@pytest.mark.parametrize(
    ("got", "exact", "expected"),
    [
        (1.0, 1.0, 0.0),
        (1.0 + 2.0**-23, 1.0, 1.0),
        (1.0 - 2.0**-24, 1.0, 0.5),
        (-1.0, 1.0, 2.0**24),
        (0.0, 0.0, 0.0),
        (-0.0, 0.0, 0.0),
        (np.nan, np.nan, 0.0),
        (np.nan, 1.0, np.inf),
        (1.0, np.nan, np.inf),
        (np.inf, np.inf, 0.0),
        (-np.inf, np.inf, np.inf),
        (np.inf, 1.0, np.inf),
        (3.4028235e38, np.inf, np.inf),
        (np.inf, 1e39, 0.0),
        (-np.inf, 1e39, np.inf),
        (0.0, 1e-39, 0.0),
        (0.0, 1.1754944e-38, 0.0),
        (0.0, 1.2e-38, 1.2e-38 / 2.0**-149),
        (2.0**-149, 3 * 2.0**-149, 2.0),
        (0.0, 1.0, 2.0**23),
    ],
)
def test_ulp_error_rules(got, exact, expected):
    assert ulp_error(np.float32(got), value(exact)) == pytest.approx(expected, rel=1e-6)


def test_ulp_error_sees_the_low_part_and_the_floor():
    assert ulp_error(np.float64(1.0), Exact(np.float64(1.0), np.float64(2.0**-54))) == 0.25
    assert (
        ulp_error(np.float32(0.0), Exact(np.float64(2.0**-30), np.float64(0.0), 0, 1.0)) == 2.0**-7
    )
    assert (
        ulp_error(np.float64(0.0), Exact(np.float64(1.5), np.float64(0.0), -1022)) == 1.5 * 2.0**52
    )
    assert ulp_error(np.float64(0.0), Exact(np.float64(1.5), np.float64(0.0), -1100)) == 0.0
    assert ulp_error(np.float16(1.0), value(1.0 + 2.0**-11)) == 0.5


def test_every_case_names_an_operation_once():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
