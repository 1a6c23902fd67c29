"""Properties that follow from the definitions, over random inputs."""

import numpy as np
import pytest
from cases import BY_NAME, CASES, ELEMENTWISE, FLOATS, ROWWISE, check
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import Exact, ulp_error

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

EVERY_ROWWISE = pytest.mark.parametrize("case", ROWWISE, ids=str)
FULL_ROWWISE = pytest.mark.parametrize(
    "case", [case for case in ROWWISE if not case.reduced], ids=str
)

dtypes = st.sampled_from(FLOATS)
sizes = st.integers(1, 80)


def logits(dtype, shape, size=50.0):
    width = 8 * dtype.itemsize
    limit = float(dtype.type(size))
    return hnp.arrays(
        dtype, shape, elements=st.floats(-limit, limit, width=width, allow_subnormal=False)
    )


rows = dtypes.flatmap(lambda dtype: sizes.flatmap(lambda n: logits(dtype, n)))
arrays = dtypes.flatmap(
    lambda dtype: hnp.array_shapes(min_dims=1, max_dims=4, max_side=9).flatmap(
        lambda shape: logits(dtype, shape)
    )
)


def distance(a, b):
    """Distance in ulp of two results of one dtype;
    what lies below the smallest normal number may be 0.
    """
    normal = np.maximum(np.abs(a), np.abs(b)) >= np.finfo(a.dtype).smallest_normal
    return np.where(
        normal, ulp_error(a, Exact(np.asarray(b, np.float64), np.zeros(np.shape(b)))), 0.0
    )


@pytest.fixture(autouse=True)
def _calm():
    """These tests compute with results and themselves underflow;
    test_contract looks after the package.
    """
    with np.errstate(under="ignore"):
        yield


@given(x=rows, shift=st.integers(-1000, 1000))
def test_shift_invariance(x, shift):
    x = np.rint(x * 64) / 64  # so that adding is exact
    moved = (x + shift).astype(x.dtype)
    assume(np.all(moved.astype(np.float64) - shift == x))
    exact = BY_NAME["softmax"].exact(x)
    check(BY_NAME["softmax"], fs.softmax(moved), x, exact=exact)
    check(BY_NAME["log_softmax"], fs.log_softmax(moved), x, exact=BY_NAME["log_softmax"].exact(x))


@given(x=arrays, data=st.data())
def test_sums_to_one(x, data):
    axis = data.draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    for function in (fs.softmax, fs.softmin):
        y = function(x, axis)
        assert np.all(y >= 0)
        assert np.all(y <= 1)
        bound = BY_NAME["softmax"].ulp * float(np.finfo(x.dtype).eps)
        np.testing.assert_allclose(y.sum(axis, dtype=np.float64), 1.0, rtol=bound)


@given(x=rows)
def test_order_is_kept(x):
    """A larger logit never gets a smaller score, within the accuracy; and scores are positive."""
    order = np.argsort(x)
    for case in (BY_NAME["softmax"], BY_NAME["log_softmax"]):
        y = case.call(x)[order].astype(np.float64)
        slack = 2 * case.ulp * np.spacing(np.abs(y).astype(x.dtype)).astype(np.float64)
        assert np.all(np.diff(y) >= -np.maximum(slack[1:], slack[:-1]))
    if np.ptp(x) < 80:
        assert np.all(fs.softmax(x) > 0)


@given(x=rows)
def test_equal_logits_get_equal_scores(x):
    doubled = np.concatenate([x, x])
    for function in (fs.softmax, fs.log_softmax):
        y = function(doubled)
        np.testing.assert_array_max_ulp(y[: len(x)], y[len(x) :], 6)


@given(x=st.lists(st.floats(-20, 20), min_size=2, max_size=10), other=st.floats(-20, 20))
def test_odds_do_not_depend_on_other_alternatives(x, other):
    first, second = fs.softmax(x)[:2], fs.softmax([*x, other])[:2]
    assert first[0] / first[1] == pytest.approx(second[0] / second[1], rel=30 * 2.0**-52)


@given(z=rows)
def test_two_classes_are_a_sigmoid(z):
    """softmax([z, 0]) = [sigmoid(z), sigmoid(-z)], so for logarithms;
    logsumexp([z, 0]) = softplus(z).
    """
    pairs = np.stack([z, np.zeros_like(z)], -1)
    for column, given_z in enumerate((z, -z)):
        check(
            BY_NAME["sigmoid"],
            fs.sigmoid(given_z),
            z,
            exact=BY_NAME["softmax"].exact(pairs)[:, column],
        )
        check(
            BY_NAME["softmax"],
            fs.softmax(pairs)[:, column],
            z,
            exact=BY_NAME["sigmoid"].exact(given_z),
        )
        exact = BY_NAME["log_softmax"].exact(pairs)[:, column]
        check(BY_NAME["log_sigmoid"], fs.log_sigmoid(given_z), z, exact=exact)
        exact = BY_NAME["log_sigmoid"].exact(given_z)
        check(BY_NAME["log_softmax"], fs.log_softmax(pairs)[:, column], z, exact=exact)
    check(BY_NAME["logsumexp"], fs.logsumexp(pairs), z, exact=BY_NAME["softplus"].exact(z))


@given(x=arrays, data=st.data())
def test_logarithm_and_exponential(x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    p, log_p = fs.softmax(x, axis), np.exp(fs.log_softmax(x, axis).astype(np.float64))
    total = np.exp(x.astype(np.float64) - fs.logsumexp(x, axis, keepdims=True))
    eps = float(np.finfo(x.dtype).eps)
    np.testing.assert_allclose(p, log_p, rtol=500 * eps, atol=float(np.finfo(x.dtype).tiny))
    np.testing.assert_allclose(p, total, rtol=500 * eps, atol=float(np.finfo(x.dtype).tiny))


@given(z=rows)
def test_sigmoid_family(z):
    eps = float(np.finfo(z.dtype).eps)
    wide = z.astype(np.float64)
    np.testing.assert_allclose(fs.sigmoid(z).astype(float) + fs.sigmoid(-z), 1.0, rtol=4 * eps)
    np.testing.assert_allclose(
        fs.softplus(z).astype(float) - fs.softplus(-z), wide, rtol=8 * eps, atol=8 * eps
    )
    np.testing.assert_array_equal(fs.softplus(z), -fs.log_sigmoid(-z))
    inner = z[np.abs(z) < 5]
    tolerance = 1000 * eps
    np.testing.assert_allclose(fs.logit(fs.sigmoid(inner)), inner, rtol=tolerance, atol=tolerance)


@given(x=arrays, data=st.data())
def test_softmin_is_softmax_of_minus_x(x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    assert np.all(distance(fs.softmin(x, axis), fs.softmax(-x, axis)) <= 12)


@given(x=rows, temperature=st.floats(0.05, 50), base=st.floats(1.1, 100))
def test_temperature_and_base_are_a_rescaling(x, temperature, base):
    wide = x.astype(np.float64)
    eps = float(np.finfo(x.dtype).eps)
    for options, scaled in [
        ({"temperature": temperature}, wide / temperature),
        ({"base": base}, wide * np.log(base)),
        ({"temperature": temperature, "base": base}, wide * np.log(base) / temperature),
    ]:
        relative = 7 * eps + 2.0**-50 * (1 + np.abs(scaled).max())
        expected = fs.softmax(scaled)
        np.testing.assert_allclose(
            fs.softmax(x, **options), expected, rtol=relative, atol=float(np.finfo(x.dtype).tiny)
        )
    expected = fs.logsumexp(wide * np.log(base)) / np.log(base)
    assert fs.logsumexp(x, base=base) == pytest.approx(
        expected, rel=4 * eps, abs=4 * eps * float(np.abs(x).max())
    )


@given(x=rows, seed=st.integers(0, 2**32 - 1))
@FULL_ROWWISE
def test_permutations_commute(case, x, seed):
    order = np.random.default_rng(seed).permutation(len(x))
    assert np.all(distance(case.call(x[order]), case.call(x)[order]) <= 2 * case.ulp)


@given(x=rows, seed=st.integers(0, 2**32 - 1))
def test_logsumexp_of_parts(x, seed):
    """The whole from its parts, however it is split; and in any order."""
    cut = np.random.default_rng(seed).integers(0, len(x) + 1)
    parts = [fs.logsumexp(x[:cut]), fs.logsumexp(x[cut:]), fs.logsumexp(np.flip(x[cut:]))]
    whole = fs.logsumexp(x)
    scale = 8 * float(np.finfo(x.dtype).eps)
    assert fs.logsumexp(np.array(parts[:2])) == pytest.approx(
        whole, rel=scale, abs=scale * max(1, float(abs(x.max())))
    )
    assert parts[2] == pytest.approx(parts[1], rel=scale, abs=scale * max(1, float(abs(x.max()))))


@given(x=arrays, data=st.data())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_arbitrary_strides(case, x, data):
    """A view gives what its contiguous copy gives:
    any order of axes, steps, directions, repeated axes.
    """
    x = case.oriented(x)
    order = data.draw(st.permutations(range(x.ndim)))
    steps = tuple(
        slice(None, None, data.draw(st.sampled_from([1, 2, 3, -1, -2]))) for _ in range(x.ndim)
    )
    view = x.transpose(order)[steps]
    if data.draw(st.booleans()):
        view = np.broadcast_to(view, (2, *view.shape))
    options = {"axis": data.draw(st.integers(-view.ndim, view.ndim - 1))} if case.rowwise else {}
    check(case, case.call(view, **options), view.copy(), **options)


@given(x=arrays, data=st.data())
@EVERY_ROWWISE
def test_axes_commute_with_transposition(case, x, data):
    order = data.draw(st.permutations(range(x.ndim)))
    count = data.draw(st.integers(1, x.ndim))
    axes = tuple(order[:count])
    expected = case.exact(x, axis=axes)
    got = case.call(x.transpose(order), axis=tuple(range(count)))
    if case.reduced:
        got = got.transpose(np.argsort(order[count:])) if got.ndim else got
        check(case, got, x, exact=expected)
    else:
        check(case, got.transpose(np.argsort(order)), x, exact=expected)


@given(x=arrays, data=st.data())
@EVERY_ROWWISE
def test_where_is_the_same_as_leaving_out(case, x, data):
    where = data.draw(hnp.arrays(bool, x.shape))
    check(case, case.call(x, where=where), x, where=where)
    row, mask = x.reshape(-1), where.reshape(-1)
    assume(mask.any())
    got = case.call(row, where=mask)
    left = case.call(row[mask])
    tolerance = 6 * float(np.finfo(x.dtype).eps)
    if case.reduced:
        assert got == pytest.approx(left, rel=tolerance, abs=tolerance * float(abs(x).max()))
    else:
        assert np.all(distance(got[mask], left) <= 2 * case.ulp)


@given(x=rows)
@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_elementwise_ignores_position(case, x):
    """An element's result is that of the element alone."""
    x = case.oriented(x)
    alone = np.array([case.call(value) for value in x])
    assert np.all(distance(case.call(x), alone) <= 2 * case.ulp)


@given(
    x=st.lists(st.floats(-5, 5), min_size=3, max_size=8),
    seed=st.integers(0, 2**32 - 1),
    beta=st.floats(0.1, 3),
)
def test_largest_entropy_at_a_given_mean(x, seed, beta):
    """Among distributions with the same mean score, exp(beta * score)
    / sum has the largest entropy.
    """
    x = np.array(x)
    p = fs.softmax(x, temperature=1 / beta)
    direction = np.random.default_rng(seed).normal(size=len(x))
    basis = np.linalg.qr(np.stack([np.ones(len(x)), x - x.mean() + 1e-12 * np.arange(len(x))], 1))[
        0
    ]
    direction -= basis @ (basis.T @ direction)  # keeps the sum and the mean
    assume(np.abs(direction).max() > 1e-6)
    step = 0.5 * np.min(p) / np.abs(direction).max()
    q = p + step * direction
    assert q.sum() == pytest.approx(1, abs=1e-12)
    assert q @ x == pytest.approx(p @ x, abs=1e-9)
    assert -(q @ np.log(q)) <= -(p @ np.log(p)) + 1e-12
