"""A row with one contributing entry:
exactly 1 in softmax, exactly 0 in log_softmax, whatever it is.
"""

import numpy as np
import pytest
from cases import FLOATS, HALVES
from sizes import exhaustive, sweep

import fastsoftmax as fs

ABSENT = (-np.inf, -1e9, -3e4)
OTHERS = [("temperature", 7.0), ("base", 2.0), ("base", 10.0)]
OPTIONS = [{}, {"temperature": 0.31}]
OPTIONS += [pytest.param({name: value}, marks=exhaustive) for name, value in OTHERS]


@pytest.fixture(params=FLOATS + HALVES, ids=str)
def any_float(request):
    return request.param


@pytest.fixture
def logits(rng, any_float):
    """Numbers of all sizes, and those from which a guessed shift starts."""
    values = np.concatenate(
        [rng.normal(0, s, 400) for s in (0.3, 3, 15, 300)] + [np.linspace(-16, 40, 700)]
    )
    return values.astype(any_float)


def check(x, one, **options):
    """`one` tells where the contributing entries are."""
    one = np.broadcast_to(one, x.shape)
    y, z = fs.softmax(x, **options), fs.log_softmax(x, **options)
    assert np.array_equal(y.astype(np.float64), one.astype(np.float64)), options
    assert np.all(z[one] == 0), options
    assert np.all(z[~one] < 0), options
    assert np.array_equal(fs.softmin(-x, **options), y), options
    into = np.full(y.shape, 7, y.dtype)
    assert np.array_equal(fs.softmax(x, out=into, **options), y)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
class TestOneClass:
    def test_one_column(self, logits, options):
        check(logits[:, None], True, **options)
        check(np.ascontiguousarray(logits)[None], True, axis=0, **options)
        check(logits[::-3, None], True, **options)
        for x in logits[::97]:  # calls of one element
            check(np.array([x]), True, **options)
            assert fs.softmax(x, **options) == 1
            assert fs.log_softmax(x, **options) == 0

    @sweep((2, 3, 10, 24, 25, 33, 64, 100, 700))
    def test_others_absent(self, lengths, logits, options, rng):
        for n in lengths:
            largest = float(np.finfo(logits.dtype).max) if logits.dtype.kind == "f" else 3e38
            rows = max(5, 4000 // n)
            for absent in ABSENT:
                x = np.full(
                    (rows, n),
                    np.clip(absent, -largest if absent > -np.inf else -np.inf, 0),
                    logits.dtype,
                )
                one = np.zeros(x.shape, bool)
                one[np.arange(rows), rng.integers(n, size=rows)] = True
                x[one] = rng.choice(logits[:1600], rows)
                check(x, one, **options)
                check(np.ascontiguousarray(x.T), one.T, axis=0, **options)
                wide = np.tile(x.T, 600 // rows + 1)  # strips of columns
                check(wide, np.tile(one.T, 600 // rows + 1), axis=0, **options)
                check(x[:3], one[:3], **options)
                check(x[0], one[0], **options)
                check(np.repeat(x, 2, axis=1)[:, ::2], one, **options)

    @sweep((5, 30, 100, 300))
    def test_others_masked(self, lengths, logits, options, rng):
        for n in lengths:
            rows = 120
            x = rng.choice(logits, (rows, n))
            one = np.zeros(x.shape, bool)
            one[np.arange(rows), rng.integers(n, size=rows)] = True
            y = fs.softmax(x, where=one, **options)
            assert np.array_equal(y.astype(np.float64), one.astype(np.float64))
            z = fs.log_softmax(x, where=one, **options)
            assert np.all(z[one] == 0)
            assert np.all(z[~one] == -np.inf)
            y = fs.softmax(x.T, axis=0, where=one.T, **options)
            assert np.array_equal(y.astype(np.float64), one.T.astype(np.float64))


@pytest.mark.usefixtures("backend")
def test_long_rows(dtype, rng):
    for n in (40_000, 70_001):
        x = np.full((3, n), -1e9, dtype)
        one = np.zeros(x.shape, bool)
        one[np.arange(3), rng.integers(n, size=3)] = True
        x[one] = rng.normal(0, 10, 3)
        check(x, one)
        check(x, one, temperature=0.31)
        check(np.ascontiguousarray(x.T), one.T, axis=0)


@pytest.mark.usefixtures("backend")
def test_never_beyond(dtype, rng):
    """No probability exceeds 1, no log-probability 0, in rows that the maximum nearly fills."""
    for n in (2, 9, 24, 33, 100, 600):
        x = rng.normal(-17, 8, (20_000 // n, n)).astype(dtype)
        x[:, n // 2] = rng.normal(0, 2, len(x))
        for a, axis in ((x, -1), (np.ascontiguousarray(x.T), 0)):
            assert fs.softmax(a, axis).max() <= 1
            assert fs.log_softmax(a, axis).max() <= 0
            assert fs.softmax(a, axis, temperature=1.3).max() <= 1
            assert fs.log_softmax(a, axis, base=2).max() <= 0


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("n", [2, 3, 10, 24, 33, 100, 700])
def test_others_far_below(n, dtype, rng):
    """What is left of the others is less than the result can tell from 1."""
    x = rng.normal(0, 3, (4000 // n, 1)).astype(dtype) - np.full(
        n, 25 if dtype.itemsize == 4 else 50, dtype
    )
    one = np.zeros(x.shape, bool)
    one[np.arange(len(x)), rng.integers(n, size=len(x))] = True
    x[one] += 25 if dtype.itemsize == 4 else 50
    for a, where, axis in (
        (x, one, -1),
        (np.ascontiguousarray(x.T), one.T, 0),
        (x[:1], one[:1], -1),
    ):
        y = fs.softmax(a, axis)
        assert np.all(y[where] == 1)
        assert np.all(y[~where] > 0)
