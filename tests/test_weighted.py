"""logsumexp with weights where it is hard:
totals next to 1, terms that cancel, weights of every exponent.
"""

import functools
import math

import mpmath
import numpy as np
import pytest
import scipy.special
from arrays import refuses
from oracle import define_logsumexp
from sizes import sweep

from fastsoftmax import logsumexp

ROWS = 4
BOUND = 3
LENGTHS = (1, 2, 5, 9, 40)


def normal(rng, n, scale=1.0, shift=0.0):
    return rng.normal(shift, scale, (ROWS, n))


def summing_to_one(x, b):
    """Weights with which the total is next to 1: the first one makes up for the others."""
    others = (b[:, 1:] * np.exp(x[:, 1:])).sum(axis=1)
    b[:, 0] = (1 - others) * np.exp(-x[:, 0])
    return x, b


def beside_zero(rng, n, scale, shift=0.0):
    """The first logit 0, its term next to 1, the others far below."""
    x = normal(rng, n, scale, shift)
    x[:, 0] = 0
    return x


def far_but_heavy(rng, n, first, others):
    x, b = beside_zero(rng, n, 1, -1400), np.full((ROWS, n), others)
    b[:, 0] = first
    return x, b


def random_denormals(rng, n):
    return rng.integers(1, 9, (ROWS, n)) * 5e-324


def any_exponent(rng, n):
    return rng.random((ROWS, n)) * 10.0 ** rng.integers(-300, 300, (ROWS, n))


# (logits, weights) from a generator and a length
HARD = {
    "mean of N(0,1)": lambda rng, n: (normal(rng, n), np.full((ROWS, n), 1 / n)),
    "mean of N(0,1e-3)": lambda rng, n: (normal(rng, n, 1e-3), np.full((ROWS, n), 1 / n)),
    "mean of N(0,1e-17)": lambda rng, n: (normal(rng, n, 1e-17), np.full((ROWS, n), 1 / n)),
    "mean of N(0,1e-300)": lambda rng, n: (normal(rng, n, 1e-300), np.full((ROWS, n), 1 / n)),
    "total 1": lambda rng, n: summing_to_one(normal(rng, n, 2), rng.random((ROWS, n)) / n),
    "total 1, small logits": lambda rng, n: summing_to_one(
        normal(rng, n, 0.01), rng.random((ROWS, n)) / n
    ),
    "total 1, both signs": lambda rng, n: summing_to_one(normal(rng, n, 2), normal(rng, n)),
    "total 1, shift 700": lambda rng, n: summing_to_one(
        normal(rng, n, 2, 700), normal(rng, n) * 1e-305
    ),
    "total 1, shift -700": lambda rng, n: summing_to_one(
        normal(rng, n, 2, -700), normal(rng, n) * 1e300
    ),
    "0 and far below": lambda rng, n: (beside_zero(rng, n, 5, -50), np.ones((ROWS, n))),
    "0 and very far below": lambda rng, n: (beside_zero(rng, n, 30, -600), np.ones((ROWS, n))),
    "0 and far below, but heavy": lambda rng, n: far_but_heavy(rng, n, 1.0, 1e300),
    "denormal, and far below, but heavy": lambda rng, n: far_but_heavy(rng, n, 5e-324, 1e300),
    "both signs": lambda rng, n: (normal(rng, n), normal(rng, n)),
    "denormal weights": lambda rng, n: (normal(rng, n, 5), random_denormals(rng, n)),
    "denormal weights, shift 740": lambda rng, n: (
        normal(rng, n, 5, 740),
        random_denormals(rng, n),
    ),
    "huge weights": lambda rng, n: (normal(rng, n, 5), rng.random((ROWS, n)) * 1.7e308),
    "huge weights, shift -710": lambda rng, n: (
        normal(rng, n, 5, -710),
        rng.random((ROWS, n)) * 1.7e308,
    ),
    "weights of every exponent": lambda rng, n: (normal(rng, n, 500), any_exponent(rng, n)),
    "huge logits": lambda rng, n: (normal(rng, n, 1e300), rng.random((ROWS, n))),
}


def exactly(row, b, base=None, times=1):
    """The exact result; None if it is NaN."""
    row, b = ([mpmath.mpf(float(v)) for v in values] for values in (row, b))
    with mpmath.workdps(1100):  # 1 + e^-1400 1e-300
        if times > 1:
            b = [w * times for w in b]
        exact = define_logsumexp(row, base=base, b=b)
        return None if isinstance(exact, mpmath.mpc) else exact


def ulp(got, exact, row, b):
    """The error of a result, relative to itself,
    or to a sixteenth of the maximum if that is larger.
    """
    if exact is None:
        return 0.0 if np.isnan(got) else math.inf
    if not np.isfinite(got):
        return 0.0 if got == float(exact) else math.inf
    size = max(abs(float(exact)), np.abs(row[b != 0].max()) / 16, float(np.finfo(got.dtype).tiny))
    return float(abs(mpmath.mpf(float(got)) - exact) / np.spacing(got.dtype.type(size)))


@functools.cache
def hard_rows(kind, n, dtype, base=None):
    """Logits, weights and exact results; the same for every backend."""
    x, b = HARD[kind](np.random.default_rng(n), n)
    limit = np.finfo(dtype).max / 16
    with np.errstate(under="ignore"):
        x = np.clip(x, -limit, limit).astype(dtype)
    x = x if base is None else x / dtype.type(np.log(base))
    return x, b, [exactly(row, w, base) for row, w in zip(x, b, strict=True)]


def assert_close(got, x, b, exact, bound=BOUND):
    for values in zip(got, exact, x, b, strict=True):
        assert ulp(*values) <= bound, values[:2]


@sweep(LENGTHS, at_most=5)
@pytest.mark.parametrize("kind", HARD)
def test_hard_rows(kind, lengths, dtype, backend):
    """Rows and columns, and with entries that are masked."""
    for n in lengths:
        x, b, exact = hard_rows(kind, n, dtype)
        assert_close(logsumexp(x, b=b), x, b, exact)
        assert_close(
            logsumexp(np.ascontiguousarray(x.T), axis=0, b=np.ascontiguousarray(b.T)), x, b, exact
        )
        wide, factors = np.full((2, ROWS, 2 * n), np.nan)
        wide[:, ::2], factors[:, ::2] = x, b
        where = np.arange(2 * n) % 2 == 0
        assert_close(logsumexp(wide.astype(dtype), b=factors, where=where), x, b, exact)


@functools.cache
def rows_of_float32(kind, n, base=None):
    """The same with weights of float32, those beyond its range at the end of it; 9 rows of each."""
    x, b, _ = hard_rows(kind, n, np.dtype(np.float32), base)
    limit = np.finfo(np.float32).max
    with np.errstate(under="ignore"):
        b = np.clip(b, -limit, limit).astype(np.float32)
    exact = [exactly(row, w, base) for row, w in zip(x, b, strict=True)]
    return np.tile(x, (9, 1)), np.tile(b, (9, 1)), exact * 9


@sweep(LENGTHS, at_most=5)
@pytest.mark.parametrize("kind", HARD)
def test_hard_rows_of_float32(kind, lengths, backend):
    """Which are added in float32, where that will do."""
    for n in lengths:
        x, b, exact = rows_of_float32(kind, n)
        assert_close(logsumexp(x, b=b), x, b, exact)
        columns, factors = (np.ascontiguousarray(a.T) for a in (x, b))
        assert_close(logsumexp(columns, axis=0, b=factors), x, b, exact)
        wide, weights = np.full((2, len(x), 2 * n), np.nan, np.float32)
        wide[:, ::2], weights[:, ::2] = x, b
        where = np.arange(2 * n) % 2 == 0
        assert_close(logsumexp(wide, b=weights, where=where), x, b, exact)
        to_base, factors, exact = rows_of_float32(kind, n, 2)
        assert_close(logsumexp(to_base, b=factors, base=2), to_base, factors, exact)


@pytest.mark.parametrize("n", [2, 3, 7, 16, 17, 30, 256, 257, 1025])
def test_rows_next_to_where_it_will_do(n, dtype, backend):
    """Logarithms of every size about 1, with terms of one sign and of both: which of the rows in
    lanes are set apart, nobody can foresee.
    """
    rng = np.random.default_rng(n)
    count = 2000 if n <= 30 else 150
    x, b = rng.normal(0, 2, (n, count)), rng.normal(0.3, 1, (n, count))
    x += np.linspace(-2, 2, count) - np.log(np.abs((b * np.exp(x)).sum(axis=0)))
    x, b = x.astype(dtype), b.astype(dtype)
    terms = b.astype(np.longdouble) * np.exp(x.astype(np.longdouble))
    total = terms.sum(axis=0)
    # where the sum of long doubles is exact enough
    share = 1e-9 if dtype == np.float32 else 2.0**-7
    well = np.abs(total) > share * np.abs(terms).sum(axis=0)
    with np.errstate(invalid="ignore"):
        exact = np.log(total)
    size = np.maximum(np.abs(exact), np.abs(x.max(axis=0)) / 16).astype(dtype)
    rows, weights = (np.ascontiguousarray(a.T) for a in (x, b))
    out = x.copy()  # results that take the place of logits
    for got in (
        logsumexp(x, axis=0, b=b),
        logsumexp(rows, b=weights),
        logsumexp(out, axis=0, b=b, out=out[0]),
    ):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
        assert np.nanmax((np.abs(got - exact) / np.spacing(size))[well]) <= BOUND


@pytest.mark.parametrize("n", [40, 128, 1024])
def test_many_heavy_terms_far_below(n, dtype, backend):
    """Exponentials that are flushed to 0 may make a difference by their number and weights."""
    lowest, largest = (-87.9, 2.0**80) if dtype == np.float32 else (-709.0, 2.0**960)
    x, b = np.full(n, lowest, dtype), np.full(n, largest, dtype)
    x[0], b[0] = 0, 1 + 1.5 * 2**-18
    exact = exactly(x, b)
    for axis, shape in ((0, (n, 20)), (1, (20, n)), (1, (1, n))):
        scores, weights = (
            np.ascontiguousarray(np.broadcast_to(np.expand_dims(a, 1 - axis), shape))
            for a in (x, b)
        )
        for got in logsumexp(scores, axis, b=weights):
            assert ulp(got, exact, x, b) <= BOUND


@pytest.mark.parametrize("b", [1.0, 0.5, 1 + 2**-20, -1.0])
@pytest.mark.parametrize("x", [0.0, 2.0**-20, -np.inf, np.inf, 3.0])
def test_results_in_the_place_of_an_argument(x, b, dtype, backend):
    """Rows that are done again find their numbers."""
    for rows in (3, 64):
        for place in ("x", "b"):
            scores, weights = np.full((rows, 1), x, dtype), np.full((rows, 1), b, dtype)
            expected = logsumexp(scores, 1, b=weights, keepdims=True)
            out = scores if place == "x" else weights
            got = logsumexp(scores, 1, b=weights, keepdims=True, out=out)
            assert got is out
            np.testing.assert_array_equal(got, expected)
        two, weights = np.full((rows, 2), x, dtype), np.full((rows, 1), b / 2, dtype)
        expected = logsumexp(two, 1, b=weights)
        np.testing.assert_array_equal(logsumexp(two, 1, b=weights, out=weights[:, 0]), expected)


@pytest.mark.parametrize(
    "kind", ["mean of N(0,1)", "mean of N(0,1e-3)", "total 1", "0 and far below"]
)
@sweep((2, 5, 40), at_most=5)
@pytest.mark.parametrize("base", [2, 10, 1.5])
def test_hard_rows_to_a_base(base, kind, lengths, dtype, backend):
    for n in lengths:
        x, b, exact = hard_rows(kind, n, dtype, base)
        assert_close(logsumexp(x, b=b, base=base), x, b, exact)


@pytest.mark.parametrize("kind", ["mean of N(0,1)", "total 1", "0 and far below"])
def test_hard_rows_of_half_precision(kind, half, backend):
    """Rounded once, from float32 if that is the result's dtype."""
    x, b, _ = hard_rows(kind, 5, np.dtype(np.float32))
    x = x.astype(half)
    wide = x.astype(np.float64)
    exact = [exactly(*row) for row in zip(wide, b, strict=True)]
    got = logsumexp(x, b=b)
    assert got.dtype == np.float32
    assert_close(got, wide, b, exact)


@pytest.mark.parametrize(
    "kind", ["mean of N(0,1)", "mean of N(0,1e-3)", "0 and far below", "huge weights"]
)
def test_hard_long_rows(kind, dtype, backend):
    """Five terms, 14,000 times each, with weights that are smaller by so much."""
    x, b, _ = hard_rows(kind, 5, dtype)
    times = 14_000
    exact = [exactly(row, w / times, times=times) for row, w in zip(x, b, strict=True)]
    got = logsumexp(np.tile(x, times), b=np.tile(b / times, times), num_threads=2)
    assert_close(got, x, b, exact)


def test_one_weight_for_all(dtype, backend):
    """log(mean(exp(x))), the weight being a number, one for each row, or one for each column."""
    x, b, exact = hard_rows("mean of N(0,1e-3)", 5, dtype)
    for weights in (0.2, np.full((ROWS, 1), 0.2), np.full(5, 0.2)):
        assert_close(logsumexp(x, b=weights), x, b, exact)


def test_published_rows(backend):
    """These had errors of thousands of units in the last place."""
    got = logsumexp([0.0007308247258297685, -0.0006901825980826348], b=0.5)
    np.testing.assert_allclose(got, 2.05734715791569e-05, rtol=1e-14, atol=0)
    np.testing.assert_allclose(logsumexp([0.0, -50.0], b=[1, 1]), np.exp(-50.0), rtol=1e-15, atol=0)
    np.testing.assert_allclose(logsumexp([0.0, -50.0]), np.exp(-50.0), rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("x", "b", "expected"),
    [
        ([0.0, 0.0], [1e308, 1e308], math.log(2) + math.log(1e308)),
        ([0.0, 0.0], [1.5e308, -1.5e308], -math.inf),
        ([0.0, 0.0], [1.7e308, math.inf], math.inf),
        ([0.0, 0.0], [1.0, -math.inf], math.nan),
        ([0.0, 0.0], [math.inf, -math.inf], math.nan),
        ([0.0, 0.0], [-1e308, -1e308], math.nan),
        ([0.0, 0.0], [1.0, -1.0 - 2**-52], math.nan),
        ([0.0, 0.0], [1.0, -1.0 + 2**-53], -53 * math.log(2)),
        ([0.0, -740.0], [5e-324, 0.0], math.log(5e-324)),
    ],
)
def test_ends_of_the_range(x, b, expected, backend):
    got = logsumexp(np.tile(x, (3, 1)), b=np.tile(b, (3, 1)))
    np.testing.assert_allclose(got, np.full(3, expected), rtol=4e-16)


# --- logits and weights broadcast against each other ----------------------------------------------

SHAPES = [
    ((), (3,)),
    ((3,), ()),
    ((), ()),
    ((), (2, 3)),
    ((1,), (5,)),
    ((1, 3), (4, 3)),
    ((4, 1), (1, 3)),
    ((3,), (2, 4, 3)),
    ((2, 4, 3), (4, 1)),
    ((2, 1, 3), (4, 1)),
    ((2, 1, 70), (30, 1)),
    ((1, 0), (4, 1)),
    ((4, 1), (0,)),
    ((1,), (0, 3)),
]


def axes_of(ndim):
    yield None
    yield from range(-ndim, ndim)
    if ndim > 1:
        yield (0, 1)
        yield (-1, 0)
    if ndim > 2:
        yield (0, 1, 2)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_shapes_as_in_scipy(shapes, keepdims, backend):
    rng = np.random.default_rng(1)
    x, b = rng.normal(1, 2, shapes[0]), rng.uniform(0.5, 2, shapes[1])
    x = x.astype(np.float32).astype(np.float64)
    shape = np.broadcast_shapes(*shapes)
    full = np.broadcast_to(x, shape), np.broadcast_to(b, shape)
    where = rng.random(shape) < 0.7
    for axis in axes_of(len(shape)):
        kept = {"axis": axis, "keepdims": keepdims and len(shape) > 0}
        if 0 in shape:  # SciPy 1.17 takes no tuples there
            with np.errstate(divide="ignore"):
                expected = np.log(np.sum(full[1], **kept))
        else:
            expected = scipy.special.logsumexp(full[0], b=full[1], **kept)
        got = logsumexp(x, axis, b=b, keepdims=keepdims)
        np.testing.assert_allclose(got, expected, rtol=1e-12, strict=True)
        narrow = logsumexp(x.astype(np.float32), axis, b=b, keepdims=keepdims)
        np.testing.assert_allclose(narrow, expected.astype(np.float32), rtol=1e-6, strict=True)
        out = np.full(np.shape(expected), np.nan)
        assert logsumexp(x, axis, b=b, keepdims=keepdims, out=out) is out
        np.testing.assert_array_equal(out, got)
        masked = logsumexp(x, axis, b=b, keepdims=keepdims, where=where)
        zeros = logsumexp(x, axis, b=np.where(where, full[1], 0), keepdims=keepdims)
        np.testing.assert_allclose(masked, zeros, rtol=1e-14)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (3,)), ((3, 4), (4, 3)), ((2,), (3,)), ((0,), (2,))], ids=str
)
def test_shapes_that_do_not_fit(shapes):
    refuses(
        lambda: logsumexp(np.zeros(shapes[0]), b=np.ones(shapes[1])),
        ValueError,
        "x",
        "b",
        *map(str, shapes),
    )


def test_weights_of_any_dtype(backend):
    """They are used as they are in memory, and only for their values."""
    x = np.random.default_rng(2).normal(0, 1, (3, 40))
    b = np.arange(1, 41)
    expected = logsumexp(x, b=b.astype(np.float64))
    for kind in "bBhHiIlLqQefdg":
        for given in (
            b.astype(kind),
            b.astype(np.dtype(kind).newbyteorder()),
            np.repeat(b, 3).astype(kind)[::3],
        ):
            np.testing.assert_array_equal(logsumexp(x, b=given), expected)
    bits = np.resize(np.array([0, 1, 2, 255], np.uint8), 40)
    np.testing.assert_array_equal(logsumexp(x, b=bits.view(bool)), logsumexp(x, b=(bits > 0) * 1.0))
