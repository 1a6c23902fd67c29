"""Losses of rows that are computed side by side, one in each lane of a vector:
short rows, and columns.
"""

import functools

import numpy as np
import pytest
from losses import BY_NAME, Problem

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

LOSS = BY_NAME["cross_entropy"]
# On both sides of where rows of labels, and of targets, are no longer short.
LENGTHS = (1, 2, 3, 32, 33, 128, 129)
# Too few, a few more than a vector, and than a tile.
ROWS = (3, 17, 131)
OPTIONS = (
    (),
    ("label_smoothing",),
    ("z_loss",),
    ("weight", "sample_weight"),
    ("where", "label_smoothing"),
    ("temperature of each row", "z_loss", "label_smoothing"),
    ("weight", "sample_weight", "label_smoothing", "temperature", "where", "z_loss"),
)


@functools.lru_cache(maxsize=200)
def problem(shape, dtype, kind, options):
    """Cached with its answer: every backend meets the same ones."""
    return LOSS.problem(shape, dtype, np.random.default_rng([*shape, len(options)]), kind, options)


@pytest.mark.parametrize("options", OPTIONS, ids=", ".join)
@pytest.mark.parametrize("kind", LOSS.kinds)
def test_lengths_and_numbers_of_rows(kind, options, dtype):
    for n in LENGTHS:
        for rows in ROWS:
            given = problem((rows, n), dtype, kind, options)
            given.check(about="rows")
            given.check(axis=0, about="columns", reduction="mean")


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean"])
@pytest.mark.parametrize("kind", LOSS.kinds)
def test_classes_between_other_axes(kind, reduction, dtype):
    for options in OPTIONS:
        problem((3, 5, 67, 6), dtype, kind, options).check(axis=1, reduction=reduction)


def turned(a, order):
    return np.asfortranarray(a) if order == "F" else np.ascontiguousarray(a)


@pytest.mark.parametrize("options", OPTIONS, ids=", ".join)
@pytest.mark.parametrize("kind", LOSS.kinds)
def test_layouts_of_logits_and_targets(kind, options, dtype):
    """Logits and targets lie in memory in the same order, or in another one, or have gaps."""
    for n in (5, 50):
        given = problem((70, n), dtype, kind, options)
        for x in (
            turned(given.x, "F"),
            np.repeat(given.x, 2, 0)[::2],
            np.repeat(given.x, 2, 1)[:, ::2],
        ):
            for order in "CF":
                Problem(LOSS, x, turned(given.targets, order), given.options).check()


@pytest.mark.parametrize("axis", [0, -1])
def test_logits_of_half_precision(axis, half):
    """As those of float32, to which gradients may go;
    what is stored in half precision is rounded once.
    """
    for n in (3, 40, 200):
        given = problem(
            (70, n), np.dtype(np.float32), "soft", ("weight", "label_smoothing", "where")
        )
        narrow = Problem(LOSS, given.x.astype(half), given.targets, given.options)
        wide = Problem(LOSS, narrow.x.astype(np.float32), given.targets, given.options)
        value, grad = narrow.value_and_grad(axis)
        expected, exact = wide.value_and_grad(axis)
        np.testing.assert_array_equal(value, expected)
        with np.errstate(over="ignore", under="ignore"):
            np.testing.assert_array_equal(grad, exact.astype(half))
        target = np.empty_like(exact)
        narrow.value_and_grad(axis, out=target)
        np.testing.assert_array_equal(target, exact)


@pytest.mark.parametrize("options", OPTIONS, ids=", ".join)
@pytest.mark.parametrize("kind", LOSS.kinds)
def test_gradients_in_place_of_logits(kind, options, dtype):
    for n in (3, 40, 150):
        given = problem((67, n), dtype, kind, options)
        for axis in (0, -1):
            expected = given.value_and_grad(axis)
            (x, targets), chosen = given.arguments(axis)
            x = x.copy()
            value, grad = fs.cross_entropy_value_and_grad(x, targets, out=x, **chosen)
            np.testing.assert_array_equal(value, expected[0])
            assert grad is x
            np.testing.assert_array_equal(x, expected[1])


# --- rows beside others ---------------------------------------------------------------------------


def unusual(x):
    """Rows of special values, huge and far ones, among the others."""
    x = x.copy()
    largest = np.finfo(x.dtype).max
    for row, values in enumerate(
        ([np.nan], [np.inf], [-np.inf], [largest, -largest], [1e4], [-1e4, 1e4], [np.inf, -np.inf])
    ):
        x[5 * row + 1, : len(values)] = values
    x[36] = -np.inf
    return x


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("kind", LOSS.kinds)
def test_rows_do_not_depend_on_those_beside_them(kind, extreme, dtype):
    """Nor on where they are in a vector;
    weights of some are beyond what numbers of their dtype multiply.
    """
    for n in (3, 20, 150):
        for options in OPTIONS[:2] + OPTIONS[-2:]:
            given = problem((40, n), dtype, kind, options)
            rng = np.random.default_rng(n)
            weight = 10.0 ** rng.choice([0, 0, -30, 30] if extreme else [0], 40)
            more = {"sample_weight": weight * given.options.get("sample_weight", 1)}
            all_rows = Problem(LOSS, unusual(given.x), given.targets, given.options | more)
            order = rng.permutation(40)
            shuffled = {
                name: value[order] if np.shape(value)[:1] == (40,) and name != "weight" else value
                for name, value in all_rows.options.items()
            }
            others = Problem(LOSS, all_rows.x[order], given.targets[order], shuffled)
            for axis in (0, -1):
                value, grad = all_rows.value_and_grad(axis, reduction="none")
                moved, moved_grad = others.value_and_grad(axis, reduction="none")
                np.testing.assert_array_equal(moved, value[order])
                np.testing.assert_array_equal(moved_grad, np.take(grad, order, axis + 1))


@pytest.mark.parametrize("kind", LOSS.kinds)
def test_factors_of_every_size(kind, dtype):
    """Gradients times weights that no exponential may meet before it is multiplied."""
    exponents = np.linspace(-36, 36, 70) if dtype == np.float32 else np.linspace(-290, 290, 70)
    for n in (2, 30, 140):
        given = problem((70, n), dtype, kind, ("label_smoothing",))
        small = np.clip(given.x, -20, 20)
        rows = Problem(
            LOSS, small, given.targets, given.options | {"sample_weight": 10.0**exponents}
        )
        with np.errstate(all="ignore"):
            rows.check()
            rows.check(axis=0)


# --- curvatures -----------------------------------------------------------------------------------


def grad_hess(x, targets, weight):
    x = x.astype(np.longdouble)
    e = np.exp(x - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    t = np.eye(x.shape[-1])[targets] if targets.ndim < x.ndim else targets
    return weight[:, None] * (p - t), weight[:, None] * np.maximum(2 * p * (1 - p), 1e-3)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("kind", LOSS.kinds)
def test_curvatures(kind, order, dtype):
    rng = np.random.default_rng(3)
    tolerance = {
        "rtol": 2e-6 if dtype == np.float32 else 1e-13,
        "atol": 1e-7 if dtype == np.float32 else 1e-15,
    }
    for n in LENGTHS:
        for rows in ROWS:
            given = problem((rows, n), dtype, kind, ())
            x, targets = (
                turned(rng.normal(0, 2, (rows, n)).astype(dtype), order),
                turned(given.targets, order),
            )
            weight = rng.uniform(0, 2, rows) * (np.arange(rows) % 5 > 0)
            x[np.arange(rows) % 5 == 0, 0] = np.nan  # of weight 0
            clean = np.where(np.isnan(x), 0, x)
            expected = grad_hess(clean, targets, weight)
            options = {"sample_weight": weight, "hess_factor": 2.0, "hess_floor": 1e-3}
            got = fs.cross_entropy_grad_hess(x, targets, **options)
            for a, e in zip(got, expected, strict=True):
                np.testing.assert_allclose(a, e.astype(np.float64), **tolerance)
            hess = np.empty_like(x)
            fs.cross_entropy_grad_hess(x, targets, **options, grad_out=x, hess_out=hess)
            np.testing.assert_array_equal(x, got[0])
            np.testing.assert_array_equal(hess, got[1])


# --- sums with weights ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("base", [None, 2])
def test_weighted_sums_do_not_depend_on_rows_beside(base, dtype):
    """Among ordinary rows some want better exponentials, and some must be done by themselves."""
    rng = np.random.default_rng(4)
    for n in (2, 5, 40, 150):
        x, b = rng.normal(0, 2, (70, n)).astype(dtype), rng.uniform(0.1, 1, (70, n))
        b[::7] /= n  # next to 1
        x[::7] *= 0.1
        b[1::7, 0] = np.exp(-x[1::7, 0]) * (1 - 1e-9)
        b[1::7, 1:] *= 1e-12
        x[2::14, 0], b[3::14, 0] = np.nan, np.inf
        x[4::14], b[5::14] = -np.inf, 0
        b[6::14, 0] = -1
        with np.errstate(under="ignore"):
            b[8::14] *= 1e-300
        got = fs.logsumexp(x, b=b, base=base)
        alone = [fs.logsumexp(row, b=w, base=base) for row, w in zip(x, b, strict=True)]
        by_columns = fs.logsumexp(
            np.ascontiguousarray(x.T), 0, b=np.ascontiguousarray(b.T), base=base
        )
        # Where the maximum and the logarithm cancel, errors count against a part of the maximum.
        part = 1e-6 if dtype == np.float32 else 4e-16
        floor = part * np.abs(x[np.isfinite(x)]).max() / 16
        np.testing.assert_allclose(got, alone, rtol=part, atol=floor)
        if n <= 128:  # in lanes either way
            np.testing.assert_array_equal(by_columns, got)
        np.testing.assert_allclose(by_columns, alone, rtol=part, atol=floor)
        where = rng.random((70, n)) < 0.7
        masked = fs.logsumexp(x, b=b, base=base, where=where)
        np.testing.assert_array_equal(masked, fs.logsumexp(x, b=np.where(where, b, 0), base=base))


@pytest.mark.parametrize("shape", [(), (1, 6), (70, 1), (70, 6)], ids=str)
def test_weights_that_broadcast(shape, dtype):
    rng = np.random.default_rng(5)
    x, b = rng.normal(0, 2, (70, 6)).astype(dtype), rng.uniform(0.5, 2, shape)
    expected = fs.logsumexp(x, b=np.broadcast_to(b, x.shape).copy())
    np.testing.assert_array_equal(fs.logsumexp(x, b=b), expected)
    np.testing.assert_array_equal(
        fs.logsumexp(np.ascontiguousarray(x.T), 0, b=np.asarray(b).T), expected
    )
