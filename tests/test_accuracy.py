"""The promised accuracy: largest error in units in the last place, every operation, backend and
layout.

The table printed at the end of the run comes from here.
"""

import functools
import itertools

import numpy as np
import pytest
from cases import BY_NAME, CASES, ELEMENTWISE, FLOATS, HALVES, ROWWISE, hard_rows, supporting
from oracle import Exact
from sizes import sizes, sweep

AROUND_POWERS_OF_TWO = (
    127,
    128,
    129,
    255,
    256,
    257,
    511,
    512,
    513,
    1023,
    1024,
    1025,
    2047,
    2049,
    4097,
    4099,
)
EVERY_LENGTH = (*range(1, 71), 96, 500, 1000, *AROUND_POWERS_OF_TWO)
SOME_LENGTHS = (2, 3, 10, 33, 100, 1000)
OPTION_LENGTHS = (1, 10, 67, 1000)


@functools.lru_cache(maxsize=400)
def rows_of(case, n, dtype):
    """Hard rows of length ``n``, their names, exact results. Cached:
    every backend meets the same ones.
    """
    x, names = case.inputs(n, dtype, np.random.default_rng(n))
    x.flags.writeable = False
    return x, names, case.exact(x)


@sweep(EVERY_LENGTH)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_length(case, lengths, dtype, measure):
    for n in lengths:
        x, names, exact = rows_of(case, n, dtype)
        measure(case, case.call(x), x, f"n={n}", names, exact=exact)


@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_first_axis(case, dtype, measure):
    for n in SOME_LENGTHS:
        x, names, exact = rows_of(case, n, dtype)
        got = case.call(np.ascontiguousarray(x.T), axis=0)
        measure(case, got, x, f"axis 0, n={n}", names, names_axis=-1, exact=exact.T)


@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_middle_axis(case, dtype, measure):
    for n, inner in itertools.product(SOME_LENGTHS, (2, 17)):
        x, _, _ = rows_of(case, n, dtype)
        x = np.ascontiguousarray(x[: len(x) // inner * inner].reshape(-1, inner, n).swapaxes(1, 2))
        measure(case, case.call(x, axis=1), x, f"middle axis, n={n}, inner={inner}", axis=1)


@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_many_short_columns_and_rows(case, dtype, measure):
    """More rows than a tile or a vector, in both directions, with a ragged end."""
    rng = np.random.default_rng(5)
    for rows, n in [(1003, 2), (517, 5), (300, 16), (131, 31)]:
        x = rng.normal(0, rng.choice([1, 3, 20, 100], (rows, 1)), (rows, n)).astype(dtype)
        exact = case.exact(x)
        measure(case, case.call(x), x, f"{rows} rows of {n}", exact=exact)
        measure(
            case,
            case.call(np.ascontiguousarray(x.T), axis=0),
            x,
            f"{rows} columns of {n}",
            exact=exact.T,
        )


@functools.lru_cache(maxsize=2)
def one_above_many(case, n, size, dtype):
    """Normal logits and one up to 60 above them:
    next to its exponential the others lose half an ulp each.
    """
    rng = np.random.default_rng(n)
    x = rng.standard_normal((size // n, n)).astype(dtype)
    x[:, 0] += rng.uniform(-1, 60, len(x)).astype(dtype)
    x = case.oriented(x)
    return x, case.exact(x)


@sizes(15_000, 120_000)
@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_one_above_many(case, size, dtype, measure):
    for n in (20, 33, 120, 500, 5000):
        x, exact = one_above_many(case, n, size, dtype)
        measure(case, case.call(x), x, f"one above many, n={n}", exact=exact)
        got = case.call(np.ascontiguousarray(x.T), axis=0)
        measure(case, got, x, f"one above many, axis 0, n={n}", exact=exact.T)


LONG = ("N(0,3)", "N(0,20)", "zeros", "constant 3.3", "dominant 1e-6", "shift 1e5", "shift -1e6")
LONG += ("ascending 200", "late 70", "cancelling", "masked -1e9")


@functools.lru_cache(maxsize=4)
def rows_with_a_favourite(name, rows, n, dtype):
    """Many rows, most of which their maximum nearly fills, and exact results."""
    x = np.random.default_rng(n).normal(0, 10, (rows, n)).astype(dtype)
    x.flags.writeable = False
    return x, BY_NAME[name].exact(x)


@sizes(1000, 20_000)
@pytest.mark.parametrize("name", ["log_softmax", "logsumexp"])
@pytest.mark.parametrize("n", [41, 100, 112])
def test_rows_with_a_favourite(n, name, size, dtype, measure):
    """Digits of the others next to a much larger maximum:
    sums in trees lose some in a row of thousands.
    """
    x, exact = rows_with_a_favourite(name, size, n, dtype)
    measure(BY_NAME[name], BY_NAME[name].call(x), x, f"{size} rows of {n}", exact=exact)


@functools.lru_cache(maxsize=2)
def long_rows(case, n, dtype, kinds):
    x, _ = hard_rows(n, dtype, np.random.default_rng(n), kinds)
    x = case.oriented(x)
    x.flags.writeable = False
    return x, case.exact(x)


@sizes(33_003, 100_003)
@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_long_rows(case, size, dtype, measure):
    """Of several chunks."""
    x, exact = long_rows(case, size, dtype, LONG)
    measure(case, case.call(x), x, f"n={size}", LONG, exact=exact)


@sizes(100_000, 1_000_000)
@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_longer_rows(case, size, dtype, measure):
    kinds = ("N(0,3)", "shift 1e5", "dominant 1e-3")
    x, exact = long_rows(case, size, dtype, kinds)
    measure(case, case.call(x), x, f"n={size}", kinds, exact=exact)


@sizes(33_003, 100_003)
@pytest.mark.parametrize("case", [BY_NAME["softmax"], BY_NAME["logsumexp"]], ids=str)
def test_long_columns(case, size, dtype, measure):
    x, exact = long_rows(case, size, dtype, LONG)
    got = case.call(np.ascontiguousarray(x.T), axis=0)
    measure(case, got, x, f"axis 0, n={size}", LONG, names_axis=-1, exact=exact.T)


@functools.lru_cache(maxsize=1)
def longest_row(reduced, n):
    """Here float64 is reference enough: float32 logits of moderate size, summed by pairs."""
    x = np.random.default_rng(7).normal(0, 3, n).astype(np.float32)
    e = np.exp(x.astype(np.float64))
    exact = np.log(e.sum()) if reduced else e / e.sum()
    return x, Exact(exact, np.zeros_like(exact))


@sizes(2_000_000, 10_000_000)
@pytest.mark.parametrize("case", [BY_NAME["softmax"], BY_NAME["logsumexp"]], ids=str)
def test_longest_row(case, size, measure):
    x, exact = longest_row(case.reduced, size)
    measure(case, case.call(x), x, f"N(0,3), n={size}", exact=exact)


def measure_with(case, options, n, dtype, measure):
    x, names, _ = rows_of(case, n, dtype)
    described = ", ".join(f"{name}={np.shape(value) or value}" for name, value in options.items())
    measure(case, case.call(x, **options), x, f"n={n}, {described}", names, **options)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0, 1e-3, 1e3])
@pytest.mark.parametrize("case", supporting("temperature"), ids=str)
def test_temperature(case, temperature, dtype, measure):
    for n in OPTION_LENGTHS:
        measure_with(case, {"temperature": temperature}, n, dtype, measure)


@pytest.mark.parametrize("case", supporting("temperature"), ids=str)
def test_temperature_per_row(case, dtype, measure):
    for n in OPTION_LENGTHS:
        rows = len(rows_of(case, n, dtype)[0])
        temperature = np.geomspace(0.05, 30, rows)[:, None]
        measure_with(case, {"temperature": temperature}, n, dtype, measure)


@pytest.mark.parametrize("case", supporting("temperature"), ids=str)
def test_temperature_per_column(case, dtype, measure):
    x, names, _ = rows_of(case, 67, dtype)
    temperature = np.geomspace(0.05, 30, len(names))[None, :]
    exact = case.exact(x, temperature=temperature.T).T
    got = case.call(np.ascontiguousarray(x.T), axis=0, temperature=temperature)
    measure(case, got, x, "axis 0, temperature per column", names, names_axis=-1, exact=exact)


@pytest.mark.parametrize("base", [2, 10, 1.5, 100])
@pytest.mark.parametrize("case", supporting("base"), ids=str)
def test_base(case, base, dtype, measure):
    for n in OPTION_LENGTHS:
        measure_with(case, {"base": base}, n, dtype, measure)


@pytest.mark.parametrize("case", supporting("temperature"), ids=str)
def test_base_and_temperature(case, dtype, measure):
    measure_with(case, {"base": 10, "temperature": 0.3}, 67, dtype, measure)


@pytest.mark.parametrize("case", supporting("where"), ids=str)
def test_where(case, dtype, measure):
    for n in OPTION_LENGTHS:
        x, _, _ = rows_of(case, n, dtype)
        where = np.random.default_rng(n).random(x.shape) < 0.7
        measure_with(case, {"where": where}, n, dtype, measure)


@pytest.mark.parametrize("n", [4, 10, 67, 1000])
def test_weights_of_logsumexp(n, dtype, measure):
    """Weights of one sign, and of both where they do not cancel."""
    case = BY_NAME["logsumexp"]
    rng = np.random.default_rng(n)
    x = rng.normal(1, 2, (30, n)).astype(dtype)
    for low in (0.5, -0.05):
        b = rng.uniform(low, 3, (30, n)).astype(dtype)
        measure(case, case.call(x, b=b), x, f"N(1,2), n={n}, b", b=b)


@functools.lru_cache(maxsize=2)
def dense(case, n, dtype):
    x, names = case.inputs(n, dtype, np.random.default_rng(9))
    x.flags.writeable = False
    return x, names, case.exact(x)


@sizes(20_003, 100_003)
@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_elementwise_sweep(case, size, dtype, measure):
    """Numbers of every exponent, and a dense sweep of where the function bends."""
    x, names, exact = dense(case, size, dtype)
    measure(case, case.call(x), x, f"n={size}", names, exact=exact)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_half_precision_exhaustively(case, half, measure):
    x = np.arange(2**16, dtype=np.uint16).view(half)
    x = x[np.isfinite(x.astype(np.float32))]
    measure(case, case.call(x), x, "all numbers")


@sizes(5000, 70_000)
@pytest.mark.parametrize("case", ROWWISE, ids=str)
def test_half_precision_rows(case, size, half, measure):
    """Accumulated in float32 (70 000 equal terms overflow float16) and rounded once."""
    for n in (1, 2, 10, 67, 1000, size):
        kinds = [
            "N(0,1)",
            "N(0,3)",
            "N(0,20)",
            "zeros",
            "dominant 1e-3",
            "late 30",
            "masked -inf",
            "ascending 1",
        ]
        x, _ = hard_rows(n, half, np.random.default_rng(n), kinds)
        x = case.oriented(x)
        measure(case, case.call(x), x, f"{half}, n={n}", kinds)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dtype_argument(case, measure):
    """It neither rounds the input to the result's precision nor the result to the input's."""
    for given, wanted in itertools.product((*FLOATS, *HALVES), repeat=2):
        rng = np.random.default_rng(11)
        x = case.typical((20, 33), given, rng)
        if case.rowwise and given in FLOATS:  # differences that float32 would lose
            shift = np.array([0.0, 100_000.0, -1000.0, 7.0])[rng.integers(4, size=20)][:, None]
            x = (x + shift).astype(given)
        measure(case, case.call(x, dtype=wanted), x, f"from {given}", dtype=wanted)


def test_the_published_confident_row(dtype, backend):
    """log_softmax([20, 0])[0] is -2.06e-9, not 0."""
    got = BY_NAME["log_softmax"].call(np.array([20, 0], dtype))
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(
        got, [-2.061153620314381e-09, -20.000000002061153], rtol=3 * eps, atol=0
    )
