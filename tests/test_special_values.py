"""Infinities, NaN, signed zeros and the largest numbers: at every position, on every axis."""

import functools

import numpy as np
import pytest
from cases import BY_NAME, ELEMENTWISE, OF_LOGITS, ROWWISE, check, supporting
from sizes import sizes, sweep

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

EVERY_ROWWISE = pytest.mark.parametrize("case", ROWWISE, ids=str)
EVERY_OF_LOGITS = pytest.mark.parametrize("case", OF_LOGITS, ids=str)
NAN, INF = np.nan, np.inf
LENGTHS = (*range(1, 20), 24, 31, 32, 33, 48, 63, 64, 65, 100, 128, 129)

# what stands on the diagonal of a square array: every row meets it at another position
KINDS = {
    "NaN": (NAN,),
    "+inf": (INF,),
    "-inf": (-INF,),
    "two +inf": (INF, INF),
    "+inf and -inf": (INF, -INF),
    "NaN and +inf": (NAN, INF),
    "NaN and -inf": (-INF, NAN),
    "largest": ("max",),
    "most negative": ("-max",),
}


def square(n, kind, dtype):
    """n rows of length n with the special values at the diagonal and right of it,
    between n ordinary rows.
    """
    x = np.random.default_rng(n).normal(0, 3, (2 * n, n)).astype(dtype)
    largest = float(np.finfo(dtype).max)
    for offset, value in enumerate(KINDS[kind]):
        value = {"max": largest, "-max": -largest}.get(value, value)
        x[np.arange(0, 2 * n, 2), (np.arange(n) + offset) % n] = value
    return x


@functools.lru_cache(maxsize=100)
def square_and_result(case, n, kind, dtype, **options):
    """Cached: every backend meets the same ones."""
    x = square(n, kind, dtype)
    return x, case.exact(x, **options)


@sweep(LENGTHS, at_most=33)
@pytest.mark.parametrize("kind", KINDS)
@EVERY_ROWWISE
def test_every_position(case, lengths, kind, dtype):
    """In between stand ordinary rows: a special value stays in its own row."""
    for n in lengths:
        x, exact = square_and_result(case, n, kind, dtype)
        check(case, case.call(x), x, exact=exact)
        check(case, case.call(np.ascontiguousarray(x.T), axis=0), x, exact=exact.T)


@EVERY_ROWWISE
def test_every_position_of_a_middle_axis(case, dtype):
    for kind in KINDS:
        for n in (1, 5, 16, 33):
            x = square(n, kind, dtype).reshape(2, n, n).swapaxes(1, 2)
            for array in (x, np.ascontiguousarray(x)):
                check(case, case.call(array, axis=1), x, axis=1)


@sizes(66_003, 200_003)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@EVERY_OF_LOGITS
def test_ends_of_blocks_of_long_rows(case, value, size, dtype):
    """Long rows are worked on in blocks, and cut where threads meet."""
    x = np.random.default_rng(1).normal(0, 3, size).astype(dtype)
    powers = [2**k for k in (0, 4, 8, 10, 12, 14, 16, 17) if 2**k < size]
    for power in powers:
        for position in {power - 1, power, size - power}:
            given = x.copy()
            given[position] = case.oriented(value)
            got = case.call(given)
            if value == -INF:  # takes no part
                assert np.all(np.isfinite(np.delete(got, position) if not case.reduced else got))
                assert case.reduced or got[position] == case.masked
            else:
                np.testing.assert_array_equal(
                    got, np.full(got.shape, value if case.reduced else NAN)
                )


@sweep(LENGTHS)
@EVERY_OF_LOGITS
def test_rows_of_nothing_but_minus_infinity(case, lengths, dtype):
    for n in lengths:
        x = np.full((3, n), case.oriented(-INF), dtype)
        x[1] = 1.0
        for got, row in [(case.call(x), np.s_[0]), (case.call(x.T, axis=0), np.s_[..., 0])]:
            expected = -INF if case.reduced else NAN
            np.testing.assert_array_equal(got[row], np.full(got[row].shape, expected))
            ordinary = got[1] if row == np.s_[0] else got[..., 1]
            assert np.all(np.isfinite(ordinary))


@sweep(LENGTHS, at_most=65)
@EVERY_OF_LOGITS
def test_one_finite_logit_among_minus_infinity(case, lengths, dtype):
    """It takes all the weight, wherever it stands; its neighbours take exactly none."""
    for n in lengths:
        x = np.full((n, n), case.oriented(-INF), dtype)
        np.fill_diagonal(x, np.linspace(-90, 90, n))
        got, turned = case.call(x), case.call(np.ascontiguousarray(x.T), axis=0)
        check(case, got, x)
        check(case, turned, x.T, axis=0)
        if not case.reduced:
            others = ~np.eye(n, dtype=bool)
            assert np.all(got[others] == case.masked)
            assert np.all(turned[others] == case.masked)


@functools.lru_cache(maxsize=100)
def masked_result(case, n, dtype):
    """What is masked out does not matter: here nothing special."""
    x = np.random.default_rng(n).normal(0, 3, (n, n)).astype(dtype)
    return case.exact(x, where=~np.eye(n, dtype=bool))


@sweep(LENGTHS, at_most=65)
@pytest.mark.parametrize("case", supporting("where"), ids=str)
@pytest.mark.parametrize("value", [NAN, INF, -INF, "max"])
def test_masked_out_at_every_position(case, lengths, value, dtype):
    value = np.finfo(dtype).max if value == "max" else value
    for n in lengths:
        x = np.random.default_rng(n).normal(0, 3, (n, n)).astype(dtype)
        np.fill_diagonal(x, value)
        where = ~np.eye(n, dtype=bool)
        exact = masked_result(case, n, dtype)
        check(case, case.call(x, where=where), x, exact=exact)
        check(case, case.call(np.ascontiguousarray(x.T), axis=0, where=where), x, exact=exact.T)


@sweep((1, 2, 7, 16, 33, 64, 129), at_most=64)
@pytest.mark.parametrize(
    "option", [{"temperature": 0.5}, {"temperature": 700.0}, {"base": 2}], ids=str
)
@EVERY_OF_LOGITS
def test_with_options(case, option, lengths, dtype):
    if not set(option) <= set(case.options):
        option = {"base": 10}
    for kind in ("NaN", "+inf", "-inf", "two +inf"):
        for n in lengths:
            x, exact = square_and_result(case, n, kind, dtype, **option)
            check(case, case.call(x, **option), x, exact=exact)
            check(case, case.call(np.ascontiguousarray(x.T), axis=0, **option), x, exact=exact.T)


def test_largest_numbers(dtype):
    largest = np.finfo(dtype).max
    np.testing.assert_array_equal(fs.softmax(np.array([largest, largest])), [0.5, 0.5])
    np.testing.assert_array_equal(fs.softmax(np.array([-largest, largest])), [0, 1])
    np.testing.assert_array_equal(
        fs.softmax(np.array([-largest, -largest, -INF], dtype)), [0.5, 0.5, 0]
    )
    np.testing.assert_array_equal(fs.log_softmax(np.array([-largest, largest])), [-INF, 0])
    assert fs.logsumexp(np.array([largest, largest])) == largest
    assert fs.logsumexp(np.array([-largest])) == -largest
    np.testing.assert_array_equal(
        fs.softmax(np.array([largest, largest]), temperature=1e-3), [0.5, 0.5]
    )
    np.testing.assert_array_equal(fs.softmax(np.array([largest, 0]), base=100), [1, 0])
    np.testing.assert_array_equal(fs.sigmoid(np.array([largest, -largest])), [1, 0])
    np.testing.assert_array_equal(fs.log_sigmoid(np.array([largest, -largest])), [0, -largest])
    np.testing.assert_array_equal(fs.softplus(np.array([largest, -largest])), [largest, 0])


def test_squares_that_leave_the_range_of_numbers(dtype):
    """Of some rows, in every regime: the others give what they give among their like."""
    info = np.finfo(dtype)
    case = BY_NAME["square_normalize"]
    for n in (1, 2, 5, 20, 33, 150, 3000, 40_000):
        x = np.random.default_rng(n).uniform(0.5, 1, (12, n)).astype(dtype)
        powers = np.array(
            [info.max, 4 * info.tiny, 1, 1 / np.sqrt(info.max), np.sqrt(info.max), 1], dtype
        )
        scaled = x * np.tile(powers, 2)[:, None]
        for axis in (-1, 0):
            given, ordinary = (np.ascontiguousarray(a.T) if axis == 0 else a for a in (scaled, x))
            got = case.call(given, axis)
            check(case, got, given, axis=axis)
            rows = np.s_[:, 2::3] if axis == 0 else np.s_[2::3]
            np.testing.assert_array_equal(got[rows], case.call(ordinary, axis)[rows])


def test_rows_of_zeros(dtype):
    for n in LENGTHS:
        x = np.ones((5, n), dtype)
        x[1] = 0
        x[3, 1:] = 0
        x[4] = 0
        where = np.ones((5, n), bool)
        where[4] = False
        for got in (
            fs.square_normalize(x, where=where),
            fs.square_normalize(x.T.copy(), 0, where=where.T).T,
        ):
            assert np.all(np.isnan(got[1]))
            assert got[3, 0] == 1
            assert np.all(got[3, 1:] == 0)
            assert np.all(got[4] == 0)
        assert np.all(np.isnan(fs.square_normalize_vjp(np.ones_like(x), x)[1]))


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("n", [2, 20, 33, 100, 5000, 40_000])
def test_differences_that_overflow(n, rows, dtype):
    """Those of the largest and the smallest logit; over the temperature they are numbers."""
    largest = float(np.finfo(dtype).max)
    x = np.zeros((rows, n), dtype)
    x[:, 0], x[:, -1] = largest, -largest
    expected = np.full(n, -largest / 4)
    expected[0], expected[-1] = 0, -largest / 2
    for axis in (-1, 0):
        turned = np.ascontiguousarray(np.moveaxis(x, -1, axis))
        got = np.moveaxis(fs.log_softmax(turned, axis, temperature=4.0), axis, -1)
        np.testing.assert_allclose(
            got, np.broadcast_to(expected, x.shape), rtol=4 * np.finfo(dtype).eps
        )
        ids = np.full(rows, n - 1)
        got = fs.logprobs(turned, ids, axis, temperature=4.0)
        np.testing.assert_allclose(got, expected[ids], rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("n", [3, 20, 100, 5000])
def test_differences_next_to_the_largest_number(n, temperature, dtype):
    size = 1e301 if dtype == np.float64 else 1e37
    x = np.zeros((5, n), dtype)
    x[:, 0], x[:, -1] = -size, -size / 3
    expected = x[0].astype(np.float64) / temperature
    expected[1:-1] = -np.log(n - 2.0)
    for axis in (-1, 0):
        turned = np.ascontiguousarray(np.moveaxis(x, -1, axis))
        got = np.moveaxis(fs.log_softmax(turned, axis, temperature=temperature), axis, -1)
        np.testing.assert_allclose(
            got, np.broadcast_to(expected, x.shape), rtol=4 * np.finfo(dtype).eps
        )
        got = fs.logprobs(turned, np.zeros(5, int), axis, temperature=temperature)
        np.testing.assert_allclose(got, np.full(5, expected[0]), rtol=4 * np.finfo(dtype).eps)
        got = fs.logsumexp(turned, axis, base=10)
        np.testing.assert_allclose(
            got, np.full(5, np.log10(n - 2.0)), rtol=4 * np.finfo(dtype).eps, atol=0
        )


@sweep(LENGTHS, at_most=65)
@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_elementwise_at_every_position(case, lengths, dtype):
    for n in lengths:
        ordinary = case.typical((n, n), dtype, np.random.default_rng(n))
        exact, others = case.exact(ordinary), ~np.eye(n, dtype=bool)
        for argument, expected in [*case.special, (NAN, NAN)]:
            x = ordinary.copy()
            with np.errstate(under="ignore"):
                np.fill_diagonal(x, argument)
            for array, wanted in ((x, exact), (x.T, exact.T)):
                got = case.call(array)
                np.testing.assert_array_equal(np.diag(got), np.full(n, expected))
                check(case, got[others], array[others], exact=wanted[others])


def test_every_elementwise_operation_has_special_values():
    assert all(dict(case.special).keys() >= {INF, -INF} for case in ELEMENTWISE)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_every_nan_of_half_precision(case, half):
    x = np.arange(2**16, dtype=np.uint16).view(half)
    special = ~np.isfinite(x.astype(np.float32))
    got = case.call(x)[special].astype(np.float32)
    assert np.all(np.isnan(got[np.isnan(x[special].astype(np.float32))]))
    for sign in (INF, -INF):
        expected = dict(case.special)[sign]
        np.testing.assert_array_equal(
            got[x[special].astype(np.float32) == sign], np.float32([expected])
        )


@EVERY_ROWWISE
def test_half_precision_specials(case, half):
    for kind in ("NaN", "+inf", "-inf", "two +inf", "NaN and +inf"):
        x = square(33, kind, np.float32).astype(half)
        exact = case.exact(x)
        check(case, case.call(x), x, exact=exact)
        check(case, case.call(np.ascontiguousarray(x.T), axis=0), x, exact=exact.T)


def test_weights_at_every_position_of_infinities(dtype):
    """A weight of 0 removes its logit, infinite or NaN, as masking does."""
    case = BY_NAME["logsumexp"]
    for value in (NAN, INF, -INF):
        for n in (2, 3, 16, 33, 65):
            x = np.random.default_rng(n).normal(1, 2, (n, n)).astype(dtype)
            np.fill_diagonal(x, value)
            b = np.random.default_rng(n).uniform(0.5, 3, (n, n))
            np.fill_diagonal(b, 0.0)
            if n > 2:  # with a single other term its logarithm may cancel the maximum
                check(case, case.call(x, b=b), x, b=b)
                check(case, case.call(x.T.copy(), axis=0, b=b.T), x.T, axis=0, b=b.T)
            assert np.all(np.isfinite(case.call(x, b=b)))
