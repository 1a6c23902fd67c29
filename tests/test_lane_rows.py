"""Operations with a row in each lane: on both sides of every border between ways to walk through
arrays.

Short rows, columns that are gathered, columns that are read where they are, and columns of other
dtypes that are gathered block by block; with lanes left over, and rows that need care among others
that do not.
"""

from dataclasses import replace

import numpy as np
import oracle
import pytest
from losses import BY_NAME as LOSSES
from losses import exact
from sizes import exhaustive
from test_loss_accuracy import exact_divergence
from test_reading import check_log_p

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

# Classes and rows. Short: to 40. With one input float32 columns are gathered up to 4096 classes,
# and read where they are from there on; with two, up to 2048 (float64 likewise; less with narrower
# vectors: more).
SHORT = [(2, 3), (3, 67), (16, 16), (17, 33), (40, 65)]
LONG = [(41, 16), (64, 40), (2049, 17), (4097, 18)]
OTHERS = [(1, 70), (2, 4), (5, 130), (39, 20)]
OTHERS += [(41, 15), (41, 129), (300, 17), (1030, 20), (2049, 33), (16_400, 16)]
BETWEEN = [pytest.param(*shape, marks=exhaustive) for shape in OTHERS]
SHAPES = pytest.mark.parametrize(("n", "rows"), [*SHORT, *LONG, *BETWEEN], ids=str)


def scores(n, rows, dtype):
    """One row in five is shifted, one has a class that dominates, one far logits, one -inf."""
    x = np.random.default_rng([n, rows]).normal(0, 3, (rows, n))
    x[1::5] += 300
    x[2::5, 0] += 25
    x[3::5] *= 20
    x[4::5, 1::2] = -np.inf
    with np.errstate(under="ignore"):
        return x.astype(dtype)


def columns(x):
    """The rows of a matrix along axis 0, in every order of memory."""
    yield "C", np.ascontiguousarray(x.T)
    yield "F", np.asfortranarray(x.T)
    yield "strided", np.repeat(x.T, 2, 1)[:, ::2]
    yield "swapped", x.T.astype(x.dtype.newbyteorder("S")) if x.dtype.isbuiltin else x.T


@SHAPES
@pytest.mark.parametrize("heat", [1.0, 0.3, "each"], ids=str)
def test_reading_in_lanes(n, rows, heat, dtype):
    x, rng = scores(n, rows, dtype), np.random.default_rng(n)
    several = rng.integers(0, n, (rows, 2))
    order = np.argsort(-x, axis=1, kind="stable")
    t = rng.uniform(0.5, 4, (rows, 1)) if heat == "each" else heat
    for name, turned in columns(x):
        given = t.T if heat == "each" else t
        got = fs.logprobs(turned, several.T, 0, temperature=given)
        check_log_p(got.T, x, several, temperature=t)
        assert np.array_equal(
            fs.logprobs(turned, several[:, 0], 0, temperature=given), got[0], True
        ), name
        for k in {1, min(3, n), min(8, n), min(9, n)} if n < 1000 else {1, 8}:
            values, indices = fs.top_k_logprobs(turned, k, 0, temperature=given)
            np.testing.assert_array_equal(indices.T, order[:, :k], err_msg=name)
            check_log_p(values.T, x, order[:, :k], temperature=t)


@SHAPES
def test_hardmax_in_lanes(n, rows, dtype):
    x = np.rint(scores(n, rows, dtype))
    x[0, -1] = np.nan
    expected = (np.arange(n) == x.argmax(1)[:, None]).astype(dtype)
    expected[0] = np.nan
    for name, turned in columns(x):
        np.testing.assert_array_equal(fs.hardmax(turned, 0).T, expected, err_msg=name)
    memory = np.ascontiguousarray(x.T)
    assert fs.hardmax(memory, 0, out=memory) is memory
    np.testing.assert_array_equal(memory.T, expected)


@SHAPES
def test_half_precision_in_lanes(n, rows, half):
    x = scores(n, rows, half)
    wide = x.astype(np.float64)
    top = wide.argmax(1)
    for turned in (np.ascontiguousarray(x.T), np.asfortranarray(x.T)):
        values, indices = fs.top_k_logprobs(turned, 1, 0)
        np.testing.assert_array_equal(indices[0], top)
        check_log_p(values[0], wide, top)
        check_log_p(fs.logprobs(turned, top, 0), wide, top)
        np.testing.assert_array_equal(fs.hardmax(turned, 0).astype(float).argmax(0), top)
        loss, grad = fs.kl_divergence_from_logits_value_and_grad(
            turned, turned[:, ::-1], 0, reduction="sum"
        )
        assert loss.dtype == np.float32
        assert grad.dtype == half


@SHAPES
def test_rows_without_a_distribution_in_lanes(n, rows, dtype):
    """They do nothing to those beside them."""
    x = np.random.default_rng(n).normal(0, 3, (rows, n)).astype(dtype)
    labels = np.arange(rows) % n
    x[0, -1], x[1] = np.nan, -np.inf
    x[2, n // 2] = np.inf
    for turned in (np.ascontiguousarray(x.T), np.asfortranarray(x.T)):
        got = fs.logprobs(turned, labels, 0)
        values, indices = fs.top_k_logprobs(turned, 1, 0)
        loss = fs.kl_divergence_from_logits(turned, turned / 2, 0, reduction="none")
        assert np.isnan(got[:3]).all()
        assert np.isnan(values[0, :3]).all()
        assert not indices[0, :3].any()
        assert np.isnan(loss[:3]).all()
        check_log_p(got[3:], x[3:], labels[3:])
        check_log_p(values[0, 3:], x[3:], x[3:].argmax(1))
        assert np.isfinite(loss[3:]).all()


@SHAPES
def test_divergences_in_lanes(n, rows, dtype):
    rng = np.random.default_rng([rows, n])
    for name in ("kl_divergence", "kl_divergence_from_logits", "nll_loss"):
        loss = LOSSES[name]
        for options in [(), *([option] for option in loss.options if option != "ignore_index")]:
            given = loss.problem((rows, n), dtype, rng, "soft", options)
            given.check(axis=0)
            given.check(axis=0, reduction="sum")
            if n <= 40:
                given.check()


@SHAPES
def test_divergences_of_near_rows_in_lanes(n, rows, dtype):
    """From equal rows to different ones, which are summed in one way, in the other,
    and side by side.
    """
    rng = np.random.default_rng([n, rows])
    x = rng.normal(0, 3, (rows, n))
    near = rng.choice([0, 1e-6, 1e-3, 0.1, 1], (rows, 1)) * rng.normal(0, 1, (rows, n))
    x, target = x.astype(dtype), (x * (1 + near)).astype(dtype)
    equal = (x == target).all(1) | (n == 1)
    value, grad = fs.kl_divergence_from_logits_value_and_grad(x.T, target.T, 0, reduction="none")
    assert not value[equal].any()
    assert not grad.T[equal].any()
    assert np.all(value[~equal] > 0)
    least = 1 if dtype == np.float32 else 16
    if n * rows < 600:
        exactly, exact_grad, size = map(
            np.array, zip(*map(exact_divergence, x, target, np.ones(rows)), strict=True)
        )
        assert np.all(oracle.ulp_error(value, exact(exactly)) <= least)
        assert np.all(oracle.ulp_error(grad.T, exact(exact_grad, size)) <= least)
    alone = [fs.kl_divergence_from_logits(*pair) for pair in zip(x, target, strict=True)]
    np.testing.assert_allclose(value, alone, rtol=(1 if least == 1 else 32) * np.finfo(dtype).eps)
    log_q, p = fs.log_softmax(x), fs.softmax(target)
    loss = LOSSES["kl_divergence"]
    replace(loss.problem((rows, n), dtype, rng), x=log_q, targets=p, options={}).check(axis=0)


@pytest.mark.parametrize("shape", [(70, 3), (5, 100), (2, 40_000)], ids=str)
def test_gradient_in_the_place_of_its_arguments(shape, dtype):
    """Divergences that are small are summed twice, whatever has been written in between."""
    x = np.random.default_rng(3).normal(0, 1, shape).astype(dtype)
    p = fs.softmax(x)
    log_q = np.log(p)
    expected = fs.kl_divergence_value_and_grad(log_q, p, reduction="none")
    for place in range(2):
        given = [log_q.copy(), p.copy()]
        got = fs.kl_divergence_value_and_grad(*given, reduction="none", out=given[place])
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("order", ["ascending", "descending", "random", "equal", "few values"])
def test_many_best_numbers(order, dtype):
    """The k best where nearly every number is better than all before it, and of many equals."""
    rng = np.random.default_rng(5)
    x = rng.normal(0, 3, (3, 5000))
    x = {
        "ascending": np.sort(x),
        "descending": -np.sort(-x),
        "random": x,
        "equal": np.zeros_like(x),
        "few values": rng.integers(-1, 2, x.shape),
    }[order].astype(dtype)
    x[0, ::7] = -np.inf
    x[1, ::3] *= -0.0  # zeros of both signs are equals
    expected = np.argsort(-x, axis=1, kind="stable")
    for k in (15, 16, 17, 18, 63, 64, 65, 500, 2499, 4999, 5000):
        values, indices = fs.top_k_logprobs(x, k)
        np.testing.assert_array_equal(indices, expected[:, :k])
    check_log_p(values, x, expected)


@pytest.mark.parametrize("n", [3, 40, 60, 600])
def test_temperature_of_columns(n, dtype):
    rng = np.random.default_rng(n)
    x = rng.normal(0, 3, (300, n)).astype(dtype)
    labels = np.where(rng.random(300) < 0.7, x.argmax(1), rng.integers(0, n, 300))
    weight = rng.integers(0, 3, 300)
    with fs.use_backend("numpy"):
        expected = fs.fit_temperature(x, labels, sample_weight=weight)
    for turned in (np.ascontiguousarray(x.T), np.asfortranarray(x.T)):
        got = fs.fit_temperature(turned, labels, 0, sample_weight=weight)
        assert got == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(3, 9000), (60, 1000), (5000, 40)], ids=str)
def test_lanes_do_not_depend_on_threads(shape, dtype):
    x, y = scores(shape[1], shape[0], dtype), scores(shape[1], shape[0], dtype)[:, ::-1]
    y = np.where(np.isfinite(x), y, 0).astype(dtype)
    labels = np.zeros(shape[1], int)
    for call in (
        lambda n: fs.logprobs(x, labels, 0, num_threads=n),
        lambda n: fs.top_k_logprobs(x, 2, 0, num_threads=n)[0],
        lambda n: fs.hardmax(x, 0, num_threads=n),
        lambda n: fs.kl_divergence(x, abs(y), 0, num_threads=n),
        lambda n: fs.kl_divergence_from_logits(x, y, 0, num_threads=n),
        lambda n: fs.kl_divergence_from_logits_value_and_grad(y, x, 0, num_threads=n)[1],
    ):
        with np.errstate(all="ignore"):
            assert len({call(n).tobytes() for n in (1, 2, 7)}) == 1
