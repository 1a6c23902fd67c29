"""logprobs, top_k_logprobs, hardmax and fit_temperature:
values, ties, layouts, dtypes, and errors.
"""

import numpy as np
import oracle
import pytest
from arrays import REFUSED, Exporter, layouts, outs, refuses
from cases import BY_NAME
from sizes import sizes, sweep

import fastsoftmax as fs
from fastsoftmax import fit_temperature as fit

pytestmark = pytest.mark.usefixtures("backend")

INTEGERS = [np.dtype(kind + size) for kind in "iu" for size in "1248"]
LENGTHS = (*range(1, 40), 63, 64, 65, 127, 128, 129, 1000, 4097, 4099, 40_000)


def scores(shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(0, 4, shape).astype(dtype)


def at(array, ids, axis):
    """What an array holds at one index, or several, along an axis."""
    if np.ndim(ids) == array.ndim:
        return np.take_along_axis(array, ids, axis)
    return np.take_along_axis(array, np.expand_dims(ids, axis), axis).squeeze(axis)


def check_log_p(got, x, ids, axis=-1, **options):
    """Assert that ``got`` is log_softmax at some indices, within the bound of log_softmax."""
    whole = BY_NAME["log_softmax"].exact(x, axis=axis, **options)
    parts = whole.hi, whole.lo, whole.exponent, whole.floor
    exact = oracle.Exact(*(at(np.broadcast_to(part, whole.shape), ids, axis) for part in parts))
    assert got.shape == exact.shape
    assert np.all(oracle.ulp_error(got, exact) <= BY_NAME["log_softmax"].bound(got.dtype))


# --- logprobs -------------------------------------------------------------------------------------


@sweep(LENGTHS)
def test_logprobs(lengths, dtype, rng):
    for n in lengths:
        x = scores((5, n), dtype, n)
        ids = rng.integers(0, n, 5)
        got = fs.logprobs(x, ids)
        assert got.dtype == dtype
        check_log_p(got, x, ids)
        several = rng.integers(0, n, (5, 3))
        check_log_p(fs.logprobs(x, several), x, several)
        check_log_p(fs.logprobs(x.T, several.T, 0), x.T, several.T, axis=0)


def test_logprobs_of_confident_rows(dtype):
    """A probability next to 1 keeps the digits of its distance from 1."""
    assert fs.logprobs(np.array([20, 0], dtype), 0) == pytest.approx(-2.0611536203e-09, rel=1e-7)
    x, names = BY_NAME["log_softmax"].inputs(1000, dtype, np.random.default_rng(1))
    best = x.argmax(-1)
    for name, row, label in zip(names, x, best, strict=True):
        got = fs.logprobs(row, [label, 0])
        exact = BY_NAME["log_softmax"].exact(row)[[label, 0]]
        assert np.all(oracle.ulp_error(got, exact) <= 3), name


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_logprobs_in_every_layout(axis, dtype, rng):
    x = scores((5, 6, 19), dtype)
    for name, array in layouts(x):
        plain = array.astype(dtype)
        shape = list(array.shape)
        classes = shape.pop(axis)
        one = rng.integers(0, classes, shape)
        got = fs.logprobs(array, one, axis)
        assert got.dtype == dtype, name
        check_log_p(got, plain, one, axis)
        shape.insert(axis % 3, 4)
        several = rng.integers(0, classes, shape)
        for order in "CF":
            check_log_p(fs.logprobs(array, several.copy(order), axis), plain, several, axis)


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_ids_of_every_kind(kind):
    x, ids = scores((4, 100)), np.array([3, 99, 0, 50], kind)
    expected = fs.logprobs(x, ids.tolist())
    np.testing.assert_array_equal(fs.logprobs(x, ids), expected)
    np.testing.assert_array_equal(fs.logprobs(x, ids.astype(kind.newbyteorder("S"))), expected)
    np.testing.assert_array_equal(fs.logprobs(x, ids.repeat(2)[::2]), expected)
    np.testing.assert_array_equal(fs.logprobs(x, Exporter(ids)), expected)
    np.testing.assert_array_equal(fs.logprobs(Exporter(x), ids), expected)


@pytest.mark.once
@pytest.mark.parametrize("wrong", [-1, 10, -(2**63), 2**63 - 1, 2**64 - 1])
def test_ids_out_of_range(wrong):
    x = np.zeros((3, 4, 10))
    ids = np.zeros((3, 4), np.uint64 if wrong > 2**63 else np.int64)
    ids[1, 2] = wrong
    refuses(lambda: fs.logprobs(x, ids), IndexError, "ids[1, 2]", str(wrong), "0 to 9")
    refuses(lambda: fs.logprobs(x, ids[..., None]), IndexError, "ids[1, 2, 0]", str(wrong))
    refuses(lambda: fs.logprobs(x[1], ids[1]), IndexError, "ids[2]", str(wrong))


@pytest.mark.once
def test_logprobs_refuses():
    x = np.zeros((3, 10))
    for ids in (
        np.zeros(3),
        [0.0, 1.0, 2.0],
        np.zeros(3, bool),
        ["a", "b", "c"],
        np.zeros(3, object),
    ):
        refuses(lambda ids=ids: fs.logprobs(x, ids), TypeError, "ids")
    for shape in [(4,), (1,), (3, 1, 1), (2, 3), ()]:
        refuses(lambda shape=shape: fs.logprobs(x, np.zeros(shape, int)), ValueError, "ids")
    for make in REFUSED.values():
        refuses(lambda make=make: fs.logprobs(make(), [0, 0]), (TypeError, ValueError), "logits")
    refuses(lambda: fs.logprobs(x, [0, 0, 0], axis=2), np.exceptions.AxisError)
    refuses(lambda: fs.logprobs(x, [0, 0, 0], axis=(0, 1)), TypeError, "axis")
    refuses(lambda: fs.logprobs(x, [0, 0, 0], axis=None), TypeError, "axis")
    refuses(lambda: fs.logprobs(x, [0, 0, 0], temperature=0), ValueError, "temperature")
    refuses(lambda: fs.logprobs(x, [0, 0, 0], temperature=np.ones(4)), ValueError, "temperature")
    refuses(lambda: fs.logprobs(x, [0, 0, 0], num_threads=0), ValueError, "num_threads")


def test_logprobs_at_temperatures(dtype, rng):
    x, ids = scores((6, 30), dtype), rng.integers(0, 30, 6)
    heat = np.geomspace(0.01, 100, 6)
    check_log_p(fs.logprobs(x, ids, temperature=0.3), x, ids, temperature=0.3)
    for given in (heat, heat[:, None]):
        check_log_p(fs.logprobs(x, ids, temperature=given), x, ids, temperature=heat[:, None])
        got = fs.top_k_logprobs(x, 3, temperature=given)
        check_log_p(got[0], x, got[1], temperature=heat[:, None])
    extreme = fs.logprobs(x, ids, temperature=1e300 if dtype == np.float64 else 1e30)
    np.testing.assert_allclose(extreme, -np.log(30), rtol=1e-6)


def test_reading_of_half_precision(half):
    with np.errstate(under="ignore"):
        x = scores((4, 9)).astype(half)
    ids = np.array([0, 8, 3, 3])
    values, indices = fs.top_k_logprobs(x, 2)
    assert fs.logprobs(x, ids).dtype == values.dtype == np.float32
    check_log_p(fs.logprobs(x, ids), x.astype(np.float64), ids)
    check_log_p(values, x.astype(np.float64), indices)
    assert fs.hardmax(x).dtype == half
    np.testing.assert_array_equal(fs.hardmax(x).argmax(1), x.astype(float).argmax(1))


def test_reading_of_integers_and_longdouble():
    x = np.array([[1, 5, 3], [4, 4, 0]])
    for array, dtype in (
        (x, np.float64),
        (x.astype(np.longdouble), np.longdouble),
        (x > 3, np.float64),
    ):
        values, indices = fs.top_k_logprobs(array, 3)
        for got in (values, fs.logprobs(array, [0, 2]), fs.hardmax(array)):
            assert got.dtype == dtype
        expected = fs.log_softmax(array.astype(float))
        np.testing.assert_allclose(values.astype(float), at(expected, indices, 1), rtol=1e-14)


def test_reading_of_numbers_and_nothing():
    assert fs.logprobs(3.0, 0) == 0.0
    assert isinstance(fs.logprobs(3.0, 0), np.float64)
    assert isinstance(fs.logprobs([1.0, 2.0], 0), np.float64)
    assert fs.hardmax(3.0) == 1.0
    assert fs.logprobs(np.zeros((0, 5)), np.zeros(0, int)).shape == (0,)
    assert fs.logprobs(np.zeros((2, 5)), np.zeros((2, 0), int)).shape == (2, 0)
    assert fs.logprobs(np.zeros((2, 0)), np.zeros((2, 0), int)).shape == (2, 0)
    refuses(lambda: fs.logprobs(np.zeros((2, 0)), [0, 0]), IndexError, "ids")
    for shape, k in [((0, 5), 2), ((2, 0), 0), ((2, 5), 0)]:
        assert [a.shape for a in fs.top_k_logprobs(np.zeros(shape), k)] == [(shape[0], k)] * 2
        assert fs.hardmax(np.zeros(shape)).shape == shape


def test_rows_without_a_distribution(dtype):
    x = np.array([[1, 2, np.nan], [-np.inf] * 3, [np.inf, 0, 1], [0, -np.inf, 3]], dtype)
    np.testing.assert_array_equal(fs.logprobs(x, [0, 1, 1, 1]), [np.nan, np.nan, np.nan, -np.inf])
    values, indices = fs.top_k_logprobs(x, 2)
    np.testing.assert_array_equal(indices, [[0, 1], [0, 1], [0, 1], [2, 0]])
    np.testing.assert_array_equal(np.isnan(values), [[True] * 2] * 3 + [[False] * 2])
    expected = [[np.nan] * 3, [1, 0, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(fs.hardmax(x), expected)


# --- top_k_logprobs -------------------------------------------------------------------------------


@sweep(LENGTHS, at_most=4097)
def test_top_k(lengths, dtype):
    """Every k, ties included, which half of the rows have."""
    for n in lengths:
        x = scores((6, n), dtype, n)
        x[::2] = np.rint(x[::2])
        order = np.argsort(-x, axis=1, kind="stable")
        for k in sorted({0, 1, min(2, n), min(17, n), n // 2, n}):
            values, indices = fs.top_k_logprobs(x, k)
            assert values.dtype == dtype
            assert indices.dtype == np.intp
            np.testing.assert_array_equal(indices, order[:, :k])
            check_log_p(values, x, order[:, :k])


def test_top_k_of_sorted_rows(dtype):
    """Ascending rows replace the worst of the best at every step; descending ones never do."""
    x = np.linspace(-5, 5, 3000).astype(dtype)
    np.testing.assert_array_equal(fs.top_k_logprobs(x, 5)[1], range(2999, 2994, -1))
    np.testing.assert_array_equal(fs.top_k_logprobs(x[::-1], 5)[1], range(5))
    np.testing.assert_array_equal(fs.top_k_logprobs(np.zeros(3000, dtype), 5)[1], range(5))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_top_k_in_every_layout(axis, dtype):
    x = np.rint(scores((5, 6, 19), dtype))
    for name, array in layouts(x):
        values, indices = fs.top_k_logprobs(array, 2 if array.shape[axis] > 1 else 1, axis)
        order = np.argsort(-array.astype(dtype), axis=axis, kind="stable")
        expected = order.take(range(indices.shape[axis]), axis)
        np.testing.assert_array_equal(indices, expected, err_msg=name)
        check_log_p(values, array.astype(dtype), expected, axis)


@pytest.mark.once
def test_top_k_refuses():
    x = np.zeros((3, 10))
    for k in (-1, 11, 2**70):
        refuses(lambda k=k: fs.top_k_logprobs(x, k), ValueError, "k", "10")
    for k in (1.0, "1", None, [1], np.float64(1)):
        refuses(lambda k=k: fs.top_k_logprobs(x, k), TypeError, "k")
    assert fs.top_k_logprobs(x, np.uint8(2))[0].shape == (3, 2)
    refuses(lambda: fs.top_k_logprobs(x, 1, axis=(0, 1)), TypeError, "axis")
    refuses(lambda: fs.top_k_logprobs(x, 1, temperature=-1), ValueError, "temperature")
    for make in REFUSED.values():
        refuses(lambda make=make: fs.top_k_logprobs(make(), 1), (TypeError, ValueError), "logits")


# --- hardmax --------------------------------------------------------------------------------------


def one_hot(x, axes):
    """hardmax by definition: over several axes, the first maximum in C order."""
    last = range(-len(axes), 0)
    y = np.moveaxis(x, axes, last)
    rows = y.reshape(*y.shape[: y.ndim - len(axes)], -1)
    first = np.arange(rows.shape[-1]) == rows.argmax(-1)[..., None]
    return np.moveaxis(first.reshape(y.shape), last, axes).astype(x.dtype)


@sweep(LENGTHS)
def test_hardmax(lengths, dtype):
    for n in lengths:
        x = np.rint(scores((5, n), dtype, n))
        np.testing.assert_array_equal(fs.hardmax(x), one_hot(x, [1]), strict=True)
        np.testing.assert_array_equal(fs.hardmax(x, 0), one_hot(x, [0]), strict=True)


@pytest.mark.parametrize(
    "axis", [0, 1, 2, None, (0, 1), (1, 0), (0, 2), (1, 2), (2, 0, 1), ()], ids=repr
)
def test_hardmax_in_every_layout(axis, dtype):
    axes = sorted(range(3) if axis is None else axis if isinstance(axis, tuple) else [axis])
    x = np.rint(scores((5, 6, 7), dtype) / 4)  # many equals
    for name, array in layouts(x):
        expected = one_hot(array.astype(dtype), axes)
        np.testing.assert_array_equal(fs.hardmax(array, axis), expected, err_msg=name, strict=True)
    for name, out, _ in outs(x.shape, dtype):
        assert fs.hardmax(x, axis, out=out) is out
        np.testing.assert_array_equal(out, one_hot(x, axes), err_msg=name)
    memory = np.asfortranarray(x)
    assert fs.hardmax(memory, axis, out=memory) is memory
    np.testing.assert_array_equal(memory, one_hot(x, axes))


def test_hardmax_into_another_dtype(dtype):
    x = scores((4, 50))
    for given in (np.float16, np.float32, np.float64, np.longdouble):
        got = fs.hardmax(x.astype(dtype), dtype=given)
        np.testing.assert_array_equal(got, one_hot(x, [1]).astype(given), strict=True)
    narrow = np.array([1 + 2.0**-40, 1 + 2.0**-39])
    # chosen before it is rounded
    np.testing.assert_array_equal(fs.hardmax(narrow, dtype=np.float32), [0, 1])


@pytest.mark.once
def test_hardmax_refuses():
    x = np.zeros((3, 4))
    for make in REFUSED.values():
        refuses(lambda make=make: fs.hardmax(make()), (TypeError, ValueError), "x")
    refuses(lambda: fs.hardmax(x, out=np.zeros((4, 3))), ValueError, "out")
    refuses(lambda: fs.hardmax(x, out=np.zeros((3, 4), np.float32)), TypeError, "out")
    refuses(lambda: fs.hardmax(x, dtype=int), TypeError, "dtype")
    refuses(lambda: fs.hardmax(x, axis=2), np.exceptions.AxisError)


# --- fit_temperature ------------------------------------------------------------------------------


def labelled(rows=2000, classes=10, right=0.6, seed=1):
    """Scores that are right less often than they say."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 5, (rows, classes))
    return x, np.where(rng.random(rows) < right, x.argmax(1), rng.integers(0, classes, rows))


def slope(x, labels, temperature, weight=1.0):
    """The derivative of the loss by the inverse temperature, relative to the size of its terms."""
    p = fs.softmax(x, temperature=temperature)
    mean, own = np.sum(p * x, 1), at(x, labels, 1)
    return np.sum(weight * (mean - own)) / np.sum(weight * (np.abs(mean) + np.abs(own)))


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_fitted_temperature_is_the_minimum(classes):
    x, labels = labelled(classes=classes)
    best = fit(x, labels)
    assert type(best) is float
    assert abs(slope(x, labels, best)) < 1e-14
    lowest = fs.cross_entropy(x, labels, temperature=best)
    for other in (0.9 * best, 1.1 * best):
        assert fs.cross_entropy(x, labels, temperature=other) > lowest


def test_fitted_temperature_of_two_classes_in_closed_form():
    x = np.array([[4.0, 0.0]] * 3 + [[0.0, 4.0]])
    assert fit(x, [0, 0, 1, 1]) == pytest.approx(4 / np.log(3), rel=1e-14)


def test_fitted_temperature_of_scaled_logits():
    x, labels = labelled()
    best = fit(x, labels)
    for factor in (2.0**-7, 3.0, 100.0):
        assert fit(factor * x, labels) == pytest.approx(factor * best, rel=1e-12)
    assert fit(x + 1e5, labels) == pytest.approx(best, rel=1e-9)
    assert fit(x[::-1].T, labels[::-1], 0) == pytest.approx(best, rel=1e-13)
    assert fit(x.reshape(20, 100, 10), labels.reshape(20, 100)) == pytest.approx(best, rel=1e-13)
    assert fit(x.astype(np.float32), labels) == pytest.approx(best, rel=1e-6)
    assert fit(x.astype(np.longdouble), labels) == pytest.approx(best, rel=1e-13)


def test_fitted_temperature_of_half_precision(half):
    x, labels = labelled()
    with np.errstate(under="ignore"):
        x = x.astype(half)
    expected = fit(x.astype(np.float64), labels)
    assert fit(x, labels) == pytest.approx(expected, rel=1e-12)


def test_fitted_temperature_with_weights():
    x, labels = labelled()
    counts = np.random.default_rng(2).integers(0, 4, len(x))
    repeated = fit(x.repeat(counts, 0), labels.repeat(counts))
    assert fit(x, labels, sample_weight=counts) == pytest.approx(repeated, rel=1e-12)
    assert fit(x, labels, sample_weight=7) == pytest.approx(fit(x, labels), rel=1e-12)


def test_fitted_temperature_leaves_out_rows_of_weight_zero(dtype):
    """Whatever they hold: NaN, infinities, a label that has -inf."""
    x, labels = labelled()
    x, weights = x.astype(dtype), np.random.default_rng(3).uniform(1, 2, len(x))
    out = np.arange(len(x)) % 3 == 0
    special = x.copy()
    special[out] = np.resize([np.nan, np.inf, -np.inf, 0], x[out].shape)
    expected = fit(x[~out], labels[~out], sample_weight=weights[~out])
    weights = np.where(out, 0, weights)
    assert fit(special, labels, sample_weight=weights) == pytest.approx(expected, rel=1e-12)
    got = fit(np.ascontiguousarray(special.T), labels, axis=0, sample_weight=weights)
    assert got == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="finite loss"):
        fit(special, labels)


def test_fitted_temperature_with_many_weights_of_half_precision(half):
    """Their sum is beyond the largest float16, and beyond where bfloat16 would stop counting."""
    x = np.tile(np.array([[4, 0], [4, 0], [4, 0], [0, 4]], np.float32), (17_500, 1))
    labels = np.tile([0, 0, 1, 1], 17_500)
    assert fit(x, labels, sample_weight=np.ones(70_000, half)) == pytest.approx(
        4 / np.log(3), rel=1e-12
    )


def test_fitted_temperature_beyond_the_bounds():
    x, labels = labelled()
    assert fit(x, x.argmax(1)) == 1e-3
    assert fit(x, x.argmin(1)) == 1e3
    assert fit(x, labels, bounds=(0.5, 2)) == 2
    assert fit(x, labels, bounds=(50, 60)) == 50


@pytest.mark.parametrize("bounds", [(1e-3, 1e3), (0.25, 0.5), (3, 7), (1e-9, 1e9)])
def test_fitted_temperature_of_labels_that_are_all_best(bounds, dtype):
    """It is the lowest, also where probabilities underflow; and with labels that are not alone."""
    for gap in (1e-6, 0.3, 1, 50, 700, 745, 1000, 1e5, 1e30):
        for row in ([gap, 0], [0, -gap], [gap, gap, 0], [gap, 0, -np.inf], [gap, *np.zeros(70)]):
            x = np.array([row] * 3, dtype)
            assert fit(x, [0, 0, 0], bounds=bounds) == bounds[0], row
            x[1] = 5  # where no temperature makes a difference
            assert fit(x, [0, 1, 0], bounds=bounds) == bounds[0], row
            x[1, :2] = 0, 1
            assert fit(x, [0, 0, 0], sample_weight=[1, 0, 2], bounds=bounds) == bounds[0], row
            if np.isfinite(row).all():
                assert fit(x[2], int(x[2].argmin()), bounds=bounds) == bounds[1], row


def test_fitted_temperature_where_none_makes_a_difference(dtype):
    """It is 1, or the bound next to that."""
    for x in (
        np.zeros((3, 4)),
        np.full((3, 4), 1e30),
        np.array([[7, -np.inf]] * 3),
        np.zeros((3, 1)),
    ):
        for bounds, best in (((1e-3, 1e3), 1.0), ((0.25, 0.5), 0.5), ((3, 7), 3)):
            assert fit(x.astype(dtype), [0, 0, 0], bounds=bounds) == best


def test_fitted_temperature_keeps_within_the_bounds(rng):
    """To the last bit, though the inverse of an inverse may be beyond them."""
    assert (
        fit([[1.0, 0.0]], [1], bounds=(47.27872009107901, 94.55744018215802)) == 94.55744018215802
    )
    x = np.array([[4.0, 0.0]] * 3 + [[0.0, 4.0]])
    best = fit(x, [0, 0, 1, 1])
    for low in rng.uniform(0.1, 50, 200).tolist():
        high = 2 * low
        assert fit([[1.0, 0.0]], [0], bounds=(low, high)) == low
        assert fit([[1.0, 0.0]], [1], bounds=(low, high)) == high
    for low, high in [
        (best, 9),
        (0.1, best),
        (np.nextafter(best, 9), 9),
        (0.1, np.nextafter(best, 0)),
    ]:
        assert low <= fit(x, [0, 0, 1, 1], bounds=(low, high)) <= high


@sizes(3000, 30_000)
def test_fitted_temperature_does_not_depend_on_threads(size):
    x, labels = labelled(rows=size)
    found = {fit(x, labels, num_threads=n) for n in (1, 2, 3, 7)}
    assert len(found) == 1
    long_rows, few = labelled(rows=3, classes=33_000 + 6 * size, right=0.0)
    assert len({fit(long_rows, few, num_threads=n) for n in (1, 2, 7)}) == 1


def test_fit_temperature_refuses():
    x, labels = labelled(rows=6)
    refuses(lambda: fit(x, labels + 10), IndexError, "labels[0]")
    refuses(lambda: fit(x, labels * 1.0), TypeError, "labels")
    refuses(lambda: fit(x, labels[:3]), ValueError, "labels")
    refuses(lambda: fit(x, np.eye(10)[labels]), (TypeError, ValueError), "labels")
    refuses(lambda: fit(x[:0], labels[:0]), ValueError, "labels")
    for weight in (-1, np.zeros(6), np.arange(-1, 5), np.nan, np.full(6, np.inf)):
        refuses(
            lambda weight=weight: fit(x, labels, sample_weight=weight),
            ValueError,
            "sample_weight",
            f"{np.min(weight):g}",
            f"{np.sum(weight):g}",
        )
    too_large = np.full(6, np.finfo(float).max)
    refuses(lambda: fit(x, labels, sample_weight=too_large), ValueError, "sample_weight", "inf")
    refuses(lambda: fit(x, labels, sample_weight=np.ones(5)), ValueError, "sample_weight")
    for bounds in ((2, 1), (1, 1), (0, 1), (-1, 1), (1, np.inf), (np.nan, 1)):
        refuses(lambda bounds=bounds: fit(x, labels, bounds=bounds), ValueError, "bounds")
    for bounds in (None, 3, "ab"):
        refuses(lambda bounds=bounds: fit(x, labels, bounds=bounds), TypeError, "bounds")
    for wrong in (np.nan, np.inf):
        y = x.copy()
        y[2, 3] = wrong
        refuses(lambda y=y: fit(y, labels), ValueError, "logits")
    y = x.copy()
    y[2, labels[2]] = -np.inf
    refuses(lambda: fit(y, labels), ValueError, "logits")


def test_classes_that_cannot_be(dtype):
    """Logits of -inf, as from a mask, do no harm where they are no label."""
    x, labels = labelled()
    wide = np.concatenate([np.full((len(x), 3), -np.inf), x], 1).astype(dtype)
    expected = fit(x.astype(dtype), labels)
    assert fit(wide, labels + 3) == pytest.approx(expected, rel=1e-12)


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3000, 40), (7, 5000), (2, 300_007)])
def test_reading_does_not_depend_on_threads(shape, dtype, rng):
    x = scores(shape, dtype)
    ids = rng.integers(0, shape[1], (shape[0], 2))
    for call in (
        lambda n: fs.logprobs(x, ids, num_threads=n),
        lambda n: fs.top_k_logprobs(x, 3, num_threads=n)[0],
        lambda n: fs.top_k_logprobs(x, 3, num_threads=n)[1],
        lambda n: fs.hardmax(x, num_threads=n),
        lambda n: fs.hardmax(x, None, num_threads=n),
    ):
        assert len({call(n).tobytes() for n in (1, 2, 7)}) == 1
