"""Losses and their gradients: every option, length, axis, layout and dtype."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import oracle
import pytest
from arrays import Exporter, layouts, outs, pairs_of_views, refuses
from cases import FLOATS
from losses import (
    BY_NAME,
    GRAD_HESS,
    LOSSES,
    OF_ELEMENTS,
    OF_LABELS,
    OF_ROWS,
    Problem,
    exact,
    long,
    masses,
)
from remembered import remembered
from sizes import exhaustive, sizes, sweep
from test_gradients import finite_differences

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

NAN, INF = np.nan, np.inf
REDUCTIONS = ("none", "sum", "mean", "batchmean")
LENGTHS = (*range(1, 36), 48, 63, 64, 65, 100, 127, 128, 129, 255, 1000, 4097)
LONG_LENGTHS = (16_384, 16_385, 32_769, 70_001)
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES, ids=str)
EVERY_KIND = pytest.mark.parametrize(
    ("loss", "kind"), [(loss, kind) for loss in LOSSES for kind in loss.kinds], ids=str
)
OPTIONS = [
    (loss, kind, option) for loss in LOSSES for kind in loss.kinds for option in loss.allowed(kind)
]
EVERY_OPTION = pytest.mark.parametrize(("loss", "kind", "option"), OPTIONS, ids=str)


def every_option_of(*names):
    """Those that take one of these."""
    some = [(loss, kind, option) for loss, kind, option in OPTIONS if option.split()[0] in names]
    return pytest.mark.parametrize(("loss", "kind", "option"), some, ids=str)


def reductions(loss):
    return REDUCTIONS[:3] if loss.elementwise else REDUCTIONS


def close(got, expected, absolute=0.0):
    """The same but for the order of sums."""
    tolerance = 1e-6 if np.asarray(got).dtype == np.float32 else 1e-14
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=absolute)


def close_beside(terms, got, expected):
    """The same, for differences of terms of this size: their errors are those of the terms."""
    tolerance = 1e-6 if got.dtype == np.float32 else 1e-14
    with np.errstate(under="ignore"):
        allowed = tolerance * (np.abs(expected) + np.asarray(terms, float)) + 1e-30
        np.testing.assert_array_less(np.abs(got - expected), allowed)


def axes(loss):
    return (-1,) if loss.elementwise else (-1, 0, 1)


def one_hot(labels, n, dtype=np.float64):
    return (labels[:, None] == np.arange(n)).astype(dtype)


@functools.lru_cache(maxsize=200)
def problem(loss, shape, dtype, kind=None, options=()):
    """Cached with its answer: every backend meets the same ones."""
    rng = np.random.default_rng([*shape, *map(ord, loss.name)])
    return loss.problem(shape, dtype, rng, kind, options)


# --- values ---------------------------------------------------------------------------------------


@EVERY_LOSS
def test_values_by_hand(loss, dtype):
    for x, targets, options, expected in loss.hand:
        targets = np.asarray(targets)
        got = loss.call(np.array(x, dtype), targets, **options)
        bound = {"rtol": 4e-7, "atol": 0} if dtype == np.float32 else {"rtol": 1e-9, "atol": 0}
        np.testing.assert_allclose(got, expected, **bound)
        value, grad = loss.call_with_grad(np.array(x, dtype), targets, **options)
        np.testing.assert_array_equal(value, got)
        assert np.shape(grad) == np.shape(x)
        assert np.shape(got) == np.shape(expected)


@sweep(LENGTHS)
@EVERY_KIND
def test_every_length(loss, kind, lengths, dtype):
    for n in lengths:
        problem(loss, (7, n), dtype, kind).check()


@sweep(LONG_LENGTHS)
@EVERY_KIND
def test_long_rows(loss, kind, lengths, dtype):
    for n in lengths:
        problem(loss, (3, n), dtype, kind).check(reduction="sum")


@EVERY_KIND
def test_reductions(loss, kind, dtype):
    for reduction in reductions(loss):
        problem(loss, (4, 5, 21), dtype, kind).check(reduction=reduction)


@EVERY_OPTION
def test_each_option(loss, kind, option, dtype):
    for n, reduction in itertools.product((3, 40), reductions(loss)):
        problem(loss, (30, n), dtype, kind, (option,)).check(reduction=reduction)


@sizes(1, 3)
@EVERY_OPTION
def test_each_option_of_long_rows(loss, kind, option, size, dtype):
    problem(loss, (size, 33_000), dtype, kind, (option,)).check(reduction="mean")


@EVERY_KIND
def test_all_options_together(loss, kind, dtype):
    given = problem(loss, (6, 5, 19), dtype, kind, tuple(loss.allowed(kind)))
    for reduction, axis in itertools.product(reductions(loss), axes(loss)):
        given.check(axis, reduction)


@pytest.mark.parametrize(
    ("loss", "kind"), [(loss, kind) for loss in OF_ROWS for kind in loss.kinds], ids=str
)
def test_every_axis(loss, kind, dtype):
    for axis in (0, 1, 2, -2, -3):
        for shape in ((3, 4, 17), (1, 40, 2), (33, 1, 64)):
            problem(loss, shape, dtype, kind).check(axis)


@pytest.mark.parametrize("n", [2, 10, 300, 5000])
@pytest.mark.parametrize("rows", [1, 20])
def test_losses_next_to_nothing_and_far_from_it(rows, n, dtype):
    """The label so far above or below the others that one
    exponential underflows beside the other.
    """
    gap, tolerance = (85.0, 1e-6) if dtype == np.float32 else (700.0, 1e-12)
    x, labels = np.zeros((rows, n), dtype), np.arange(rows) % n

    def check(expected, at_label):
        losses, gradient = fs.cross_entropy_value_and_grad(x, labels, reduction="none")
        for got, value in ((losses, expected), (gradient[np.arange(rows), labels], at_label)):
            with np.errstate(under="ignore"):
                np.testing.assert_allclose(got, float(value), rtol=tolerance)
        assert float(fs.cross_entropy(x, labels)) == pytest.approx(float(expected), rel=tolerance)

    x[np.arange(rows), labels] = gap
    others = (n - 1) * np.exp(np.longdouble(-gap))
    check(others, -others)
    x[np.arange(rows), labels] = -2 * gap
    check(np.log(n - 1) + 2 * gap, -1.0)


@pytest.mark.parametrize("loss", [BY_NAME["cross_entropy"]], ids=str)
def test_confident_rows_keep_their_digits(loss, dtype):
    """The loss of a nearly certain class and its p - 1 are small numbers,
    not differences of large ones.
    """
    for gap in (1.0, 5.0, 12.0, 16.5, 20.0, 40.0, 80.0):
        for n in (2, 10, 100, 5000):
            x = np.zeros((2, n), dtype)
            x[:, n // 2] = gap
            rows = replace(problem(loss, (2, n), dtype), x=x, targets=np.array([n // 2, 0]))
            rows.check()
            rows.check(reduction="mean")
            others = (n - 1) * np.exp(np.longdouble(-gap))
            loss_value, grad = rows.value_and_grad(reduction="none")
            assert float(loss_value[0]) == pytest.approx(float(np.log1p(others)), rel=1e-6)
            assert float(grad[0, n // 2]) == pytest.approx(-float(others / (1 + others)), rel=1e-6)


@sizes(300_000, 3_000_000)
def test_sums_of_many_losses_are_double(size, dtype):
    """Ten million equal losses of float32 would stop growing at 2^24 times the first one."""
    x = np.zeros((size, 2), dtype)
    got = fs.cross_entropy(x, np.zeros(len(x), np.int8), reduction="sum")
    assert float(got) == pytest.approx(len(x) * np.log(2), rel=1e-7)
    got = fs.binary_cross_entropy_with_logits(x, np.zeros(x.shape, np.float32), reduction="sum")
    assert float(got) == pytest.approx(x.size * np.log(2), rel=1e-7)


def nearly_equal_distributions(shape, dtype, rng):
    """Probabilities, and their logarithms: rounded, and next to that."""
    p = rng.exponential(size=shape) ** 2
    p = (p / p.sum(-1, keepdims=True)).astype(dtype)
    log_p = np.log(p.astype(np.float64))
    return p, (log_p * (1 + rng.choice([0, 1e-7, 1e-3], shape) * rng.normal(size=shape))).astype(
        dtype
    )


@pytest.mark.parametrize("log_target", [False, True])
def test_divergence_of_nearly_equal_distributions(log_target, dtype):
    """Its terms are as small as the rounding errors of the logarithms, and of both signs."""
    loss = BY_NAME["kl_divergence"]
    rng = np.random.default_rng(17)
    for shape in ((50, 3), (50, 40), (20, 700), (1, 40_000), (3, 4, 17)):
        p, log_q = nearly_equal_distributions(shape, dtype, rng)
        targets = np.log(p) if log_target else p
        given = replace(
            problem(loss, shape, dtype),
            x=log_q,
            targets=targets,
            options={"log_target": log_target},
        )
        for axis in axes(loss)[: len(shape)]:
            given.check(axis)
        given.check(reduction="sum")
        for reduction in ("none", "sum"):
            equal = fs.kl_divergence(log_q, log_q, log_target=True, reduction=reduction)
            np.testing.assert_array_equal(equal, np.zeros_like(equal))


def test_divergence_of_a_rounded_logarithm():
    """The three terms are 1e-9 to 1e-8, a tenth of an ulp of the logarithms,
    and do not sum to 0.
    """
    p = np.array([0.1, 0.2, 0.7], np.float32)
    assert float(fs.kl_divergence(np.log(p), p)) == pytest.approx(-1.4201947e-09, rel=1e-6)
    exactly = fs.kl_divergence(np.log(p).astype(np.float64), p.astype(np.float64))
    assert float(exactly) == pytest.approx(-1.420194739e-09, rel=1e-6)


@pytest.mark.parametrize("name", ["targets", "weight", "pos_weight"])
def test_float64_beside_narrower_logits(name, half):
    """Is used as it is: 1 - t may be less than an ulp of float32, and a weight out of its range."""
    for scores in (np.dtype(np.float32), half):
        x = np.array([-3, -1, 2, 4], scores)
        arrays = {
            "targets": 1 - np.array([1e-9, 1e-12, 1 - 1e-11, 0.7]),
            "weight": np.array([3.0, 2, 1e-3, 1]),
            "pos_weight": np.array([1, 2, 3, 4.0]),
        }
        if name == "targets":
            arrays["pos_weight"] = np.array([0.0, 0, 1, 2])
        if name == "weight":
            x, arrays["weight"] = (
                np.array([-60, 60, -80, 4], scores),
                np.array([1e60, 1e45, 1e-60, 1]),
            )
            arrays["targets"] = np.array([0.0, 1, 0, 1])
        if name == "pos_weight":
            x, arrays["pos_weight"] = (
                np.array([60, 70, 50, 4], scores),
                np.array([1e50, 1e60, 1e-10, 1 / 3]),
            )
        given = replace(
            problem(BY_NAME["binary_cross_entropy_with_logits"], (4,), FLOATS[0]),
            x=x,
            targets=arrays.pop("targets"),
            options=arrays,
        )
        for layout in (np.s_[:], np.s_[::-1]):
            options = {key: value[layout] for key, value in given.options.items()}
            turned = replace(given, x=x[layout], targets=given.targets[layout], options=options)
            loss, grad = turned.value_and_grad(reduction="none", out=np.empty(4, np.float32))
            expected, slopes = turned.answer.reduced("none")
            assert np.all(oracle.ulp_error(loss, expected) <= 1)
            assert np.all(oracle.ulp_error(grad, slopes) <= 1)


def test_float64_targets_beside_narrower_probabilities(half):
    targets = 1 - np.array([1e-9, 1e-12, 0, 0.25])
    for scores in (np.dtype(np.float32), half):
        p = np.array([1 - 2.0**-7, 1, 1, 0.5], scores)
        given = replace(
            problem(BY_NAME["binary_cross_entropy"], (4,), FLOATS[0]),
            x=p,
            targets=targets,
            options={},
        )
        loss, grad = given.value_and_grad(reduction="none", out=np.empty(4, np.float32))
        expected, slopes = given.answer.reduced("none")
        assert np.all(oracle.ulp_error(loss, expected) <= 1)
        assert np.all(oracle.ulp_error(grad, slopes) <= 1)


def test_float64_on_either_side_of_a_divergence(half):
    p = np.array([0.1, 0.2, 0.7])
    for narrow in (np.dtype(np.float32), half):
        for scores, shares in ((narrow, p), (np.dtype(np.float64), p.astype(narrow))):
            log_q = np.log(p).astype(scores)
            for log_target in (False, True):
                targets = np.log(shares.astype(np.float64)) if log_target else shares
                targets = targets.astype(shares.dtype)
                given = replace(
                    problem(BY_NAME["kl_divergence"], (1, 3), FLOATS[1]),
                    x=np.stack([log_q] * 3),
                    targets=np.stack([targets] * 3),
                    options={"log_target": log_target},
                )
                for axis in (-1, 0):
                    loss = given.value(axis, reduction="none")
                    assert np.all(
                        oracle.ulp_error(loss, given.answer.reduced("none")[0]) <= given.loss.ulp
                    )


# --- gradients by finite differences --------------------------------------------------------------


def check_finite_differences(given, axis=-1, **more):
    def total(moved):
        return float(np.sum(replace(given, x=moved).value(axis, **more)))

    _, grad = given.value_and_grad(axis, **more)
    numeric = finite_differences(total, given.x)
    np.testing.assert_allclose(np.moveaxis(grad, axis, -1), numeric, rtol=1e-8, atol=1e-9)


def smooth_problem(loss, kind, options=()):
    """Away from clamps, bounds and places where a difference of losses loses its digits."""
    rng = np.random.default_rng(11)
    x = rng.normal(0, 1.5, (3, 4))
    if loss.scores in ("log_probs", "log_q"):
        x = -np.abs(x)
    if loss.scores == "probs":
        x = rng.uniform(0.1, 0.9, (3, 4))
    targets = loss.targets[kind](x, rng)
    made = {name.split()[0]: loss.options[name](x, targets, rng) for name in options}
    return replace(problem(loss, (3, 4), FLOATS[1], kind), x=x, targets=targets, options=made)


@EVERY_KIND
def test_finite_differences(loss, kind):
    for reduction in reductions(loss):
        check_finite_differences(smooth_problem(loss, kind), reduction=reduction)


@EVERY_OPTION
def test_finite_differences_of_options(loss, kind, option):
    for reduction in reductions(loss):
        check_finite_differences(smooth_problem(loss, kind, (option,)), reduction=reduction)


@EVERY_KIND
def test_finite_differences_of_all_options(loss, kind):
    options = [name for name in loss.allowed(kind) if name != "temperature"]
    given = smooth_problem(loss, kind, options)
    for axis in axes(loss)[:2]:
        check_finite_differences(given, axis, reduction="sum")


# --- arrays of every kind -------------------------------------------------------------------------


@sizes(1, 3)
@EVERY_KIND
def test_every_layout(loss, kind, size, dtype, rng):
    """Of the scores, and that of the targets: one after the other, or all three for each."""
    x = loss.typical((5, 6, 19), dtype, rng)
    for turn, (name, array) in enumerate(layouts(x)):
        targets = loss.targets[kind](array.astype(dtype), rng)
        others = targets, np.asfortranarray(targets), targets.repeat(2, 0)[::2]
        for other in (others[turn % 3 :] + others[: turn % 3])[:size]:
            replace(problem(loss, (1, 1), dtype, kind), x=array, targets=other).check(about=name)


@EVERY_KIND
def test_gradients_keep_the_order_of_the_scores(loss, kind, dtype):
    given = problem(loss, (6, 5, 7), dtype, kind)
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        x = np.ascontiguousarray(given.x.transpose(order)).transpose(np.argsort(order))
        _, grad = replace(given, x=x).value_and_grad()
        assert grad.strides == x.strides


@EVERY_KIND
def test_out(loss, kind, dtype):
    given = problem(loss, (4, 3, 18), dtype, kind)
    expected_loss, expected = given.value_and_grad()
    for name, out, memory in outs(given.x.shape, dtype):
        before = memory.copy()
        value, got = given.value_and_grad(out=out)
        assert got is out, name
        close(value, expected_loss)
        close(got, expected)
        out[...] = 0  # nothing else of the memory has changed
        after = memory.copy()
        memory[...] = before
        out[...] = 0
        np.testing.assert_array_equal(memory, after, err_msg=name)


@sweep((1, 5, 16, 100, 1000, 5000, 40_000))
@EVERY_KIND
def test_in_place(loss, kind, lengths, dtype):
    """The logits themselves, and soft targets, may be where the gradient goes."""
    for n in lengths:
        given = problem(loss, (3, n), dtype, kind)
        expected_loss, expected = given.value_and_grad()
        x = given.x.copy()
        value, got = replace(given, x=x).value_and_grad(out=x)
        assert got is x
        close(value, expected_loss)
        close(got, expected)
        if given.targets.shape == x.shape and given.targets.dtype == dtype:
            targets = given.targets.copy()
            value, got = replace(given, targets=targets).value_and_grad(out=targets)
            close(value, expected_loss)
            close(got, expected)


def in_memory_of(out, a):
    """An argument of a loss of `out.shape` within the memory of `out`:
    one for each element, row or class.
    """
    view = out if a.shape == out.shape else out[:, 0] if a.shape == out.shape[:1] else out[0]
    view[...] = a
    return view


@pytest.mark.parametrize("shape", [(6, 5), (6, 1), (40_000, 2)], ids=str)
@every_option_of("weight", "sample_weight", "pos_weight", "temperature")
def test_options_in_the_memory_of_a_gradient(loss, kind, option, shape):
    """Weights and temperatures are read before a gradient is written over them."""
    given = problem(loss, shape, FLOATS[1], kind, (option,))
    name = option.split()[0]
    if not np.ndim(given.options[name]):
        return
    expected = given.value_and_grad(reduction="none")
    out = np.ones(shape)
    moved = replace(given, options={name: in_memory_of(out, given.options[name])})
    for a, b in zip(moved.value_and_grad(reduction="none", out=out), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@EVERY_KIND
def test_out_that_overlaps(loss, kind, dtype):
    rows = problem(loss, (6, 11), dtype, kind)
    _, expected = rows.value_and_grad()
    for shift in (1, 5, 11, 30):
        for first, second in ((0, shift), (shift, 0)):
            memory = np.zeros(66 + shift, dtype)
            x = memory[first : first + 66].reshape(6, 11)
            out = memory[second : second + 66].reshape(6, 11)
            x[...] = rows.x
            _, got = replace(rows, x=x).value_and_grad(out=out)
            close(got, expected)


@EVERY_KIND
def test_half_precision(loss, kind, half):
    """As if it were float32; the gradient is rounded once,
    or not at all with an `out` of float32.
    """
    rng = np.random.default_rng(5)
    with np.errstate(all="ignore"):
        x = loss.typical((6, 30), np.float64, rng).astype(half)
    targets = loss.targets[kind](x.astype(np.float32), rng)
    single = replace(
        problem(loss, (6, 30), FLOATS[0], kind), x=x.astype(np.float32), targets=targets
    )
    given = replace(single, x=x)
    expected_loss, expected = single.value_and_grad(reduction="sum")
    with np.errstate(all="ignore"):
        rounded = expected.astype(half)
    out = np.empty(x.shape, np.float32)
    for more in ({}, {"out": np.empty_like(x)}, {"out": out}):
        value, grad = given.value_and_grad(reduction="sum", **more)
        assert value.dtype == np.float32
        close(value, expected_loss)
        if grad is out:
            close(grad, expected, 1e-6 * np.abs(expected[np.isfinite(expected)]).max())
        else:
            assert grad.dtype == half
            spacing = float(np.finfo(np.float16).eps if half == np.float16 else 2**-7)
            np.testing.assert_allclose(
                grad.astype(np.float64), rounded.astype(np.float64), rtol=spacing, atol=1e-6
            )


@sizes(60, 900)
@every_option_of("weight", "sample_weight", "pos_weight", "temperature")
def test_options_of_half_precision(loss, kind, option, size, half):
    """As if they were of the dtype that is computed in:
    no product of theirs is rounded to 16 bits.
    """
    for scores in (*FLOATS, np.dtype(np.longdouble)):
        name = option.split()[0]
        given = problem(loss, (size, 3), FLOATS[0], kind, (option,))
        coarse = np.asarray(given.options[name] / 256).astype(half)
        given = replace(given, x=given.x.astype(scores))
        for reduction in reductions(loss):
            wide = np.float32 if scores == np.float32 else np.float64
            expected = replace(given, options={name: coarse.astype(wide)})
            got = replace(given, options={name: coarse})
            close(got.value(reduction=reduction), expected.value(reduction=reduction))
            for a, b in zip(
                got.value_and_grad(reduction=reduction),
                expected.value_and_grad(reduction=reduction),
                strict=True,
            ):
                close(a, b)


@np.errstate(all="ignore")
def test_gradients_are_rounded_to_the_nearest_half(half):
    """Of any float32: ties, overflow, subnormal numbers, NaN.
    (The gradient of nll is minus the target.)
    """
    rng = np.random.default_rng(7)
    t = rng.integers(0, 2**32, 1 << 17, dtype=np.uint32).view(np.float32)  # of all sizes
    every = np.arange(2**16, dtype=np.uint16).view(half).astype(np.float32)
    finite = np.sort(every[np.isfinite(every)])
    ties = finite[:-1] / 2 + finite[1:] / 2
    near = rng.normal(0, 1, 1000) * np.exp2(rng.integers(-26, 17, 1000))
    t = np.concatenate([t, ties, np.nextafter(ties, 0), finite, near]).astype(np.float32)
    t[t == 0] = 0  # whose sign is lost in -0 + 0
    x = np.zeros(t.shape, half)
    for n in (t.size, 7):
        _, got = fs.nll_loss_value_and_grad(x[:n], t[:n], reduction="sum")
        expected = (0 - t[:n]).astype(half)
        assert got.dtype == half
        np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))


@EVERY_KIND
def test_longdouble(loss, kind):
    given = problem(loss, (4, 9), FLOATS[1], kind)
    loss_value, grad = replace(given, x=given.x.astype(np.longdouble)).value_and_grad(
        reduction="none"
    )
    assert loss_value.dtype == grad.dtype == np.longdouble
    expected = given.answer.reduced("none")
    for got, answer in zip((loss_value, grad), expected, strict=True):
        size = np.maximum(np.abs(answer.hi), answer.floor)
        finite = np.isfinite(size)
        assert np.all(np.abs(got - answer.hi - answer.lo)[finite] <= 1e-15 * size[finite])


@EVERY_LOSS
def test_scores_of_integers_are_float64(loss):
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"):
        x = np.array([[1, 0, 1], [0, 1, 1]], kind)
        targets = (
            np.array([0, 1])
            if "labels" in loss.targets
            else np.array([[0.5, 0.25, 0.25], [1, 0, 0]])
        )
        clamp = {"clamp": 100.0} if "clamp" in loss.options else {}
        value, grad = loss.call_with_grad(x, targets if not loss.elementwise else x, **clamp)
        double, double_grad = loss.call_with_grad(
            x.astype(np.float64), targets if not loss.elementwise else x.astype(np.float64), **clamp
        )
        assert value.dtype == grad.dtype == np.float64
        np.testing.assert_allclose(value, double, rtol=1e-14)
        np.testing.assert_allclose(grad, double_grad, rtol=1e-14)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if "soft" in loss.targets], ids=str)
def test_targets_of_every_dtype(loss, dtype):
    given = problem(loss, (5, 12), dtype, "soft")
    coarse = given.targets.astype(np.float16)
    expected = replace(given, targets=coarse.astype(np.float64))
    for kind in (np.float16, np.float32, np.float64, np.longdouble, ">f4", ">f8"):
        got = replace(expected, targets=coarse.astype(kind)).value_and_grad()
        for a, b in zip(got, expected.value_and_grad(), strict=True):
            close(a, b, 1e-7 if dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("loss", OF_ELEMENTS, ids=str)
def test_answers_of_integers_and_bool(loss, dtype):
    given = problem(loss, (5, 12), dtype)
    answers = (given.targets > 0.5).astype(np.float64)
    expected = replace(given, targets=answers).value_and_grad()
    for kind in ("?", "i1", "u1", "i4", "u8", ">i4"):
        got = replace(given, targets=answers.astype(kind)).value_and_grad()
        for a, b in zip(got, expected, strict=True):
            close(a, b)


@pytest.mark.parametrize("number", [np.finfo(np.longdouble).max, np.finfo(np.longdouble).tiny])
@every_option_of("weight", "sample_weight", "pos_weight")
def test_weights_out_of_range(loss, kind, option, number):
    """What is too large or too small for float64 is infinity or 0 for losses of rows,
    without a warning.
    """
    given = problem(loss, (5, 3), FLOATS[0], kind, (option,))
    weights = given.options[option].astype(np.longdouble)
    weights.flat[1:3] = number
    with np.errstate(all="ignore"):
        cut = weights.astype(np.float64)
    for reduction in reductions(loss):
        got = replace(given, options={option: weights}).value_and_grad(reduction=reduction)
        expected = replace(given, options={option: cut}).value_and_grad(reduction=reduction)
        for a, b in zip(got, expected, strict=True):
            if not loss.elementwise:  # whose twins take weights of longdouble as they are
                close(a, b)


@EVERY_KIND
def test_arrays_of_other_libraries(loss, kind, dtype):
    given = problem(loss, (5, 12), dtype, kind)
    expected = given.value_and_grad()
    got = loss.call_with_grad(Exporter(given.x), Exporter(given.targets))
    got_plain = loss.call_with_grad(given.x, given.targets)
    for a, b, c in zip(got, got_plain, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@EVERY_KIND
def test_plain_calls_are_the_checked_ones(loss, kind, dtype):
    """Contiguous arrays and default options take a short way: with the same bits."""
    for shape in ((9,), (4, 9), (3, 4, 50), (2, 20_000)):
        given = problem(loss, shape, dtype, kind)
        wide = np.zeros((*shape, 2), dtype)
        wide[..., 0] = given.x
        for reduction in ("mean", "sum"):
            plain = given.value(reduction=reduction)
            value, grad = given.value_and_grad(reduction=reduction)
            checked = replace(given, x=wide[..., 0])
            # lines are summed one by one
            by_element = loss.elementwise or (loss.sums_elements and kind != "labels")
            same = close if by_element else np.testing.assert_array_equal
            same(plain, checked.value(reduction=reduction))
            other, other_grad = checked.value_and_grad(reduction=reduction)
            same(value, other)
            np.testing.assert_array_equal(grad, other_grad)
            assert type(plain) is type(value) is type(other)


# --- nothing, one number, and many threads --------------------------------------------------------


@EVERY_KIND
def test_nothing(loss, kind, dtype):
    """A mean over nothing is NaN; a sum is 0."""
    for shape in ((0, 5), (3, 0, 5)):
        x = np.zeros(shape, dtype)
        targets = np.zeros(shape[:-1], int) if kind == "labels" else np.zeros(shape, dtype)
        for reduction in reductions(loss):
            value, grad = loss.call_with_grad(x, targets, reduction=reduction)
            assert value.dtype == grad.dtype == dtype
            assert grad.shape == shape
            expected = {"none": np.zeros(shape if loss.elementwise else shape[:-1]), "sum": 0.0}
            np.testing.assert_array_equal(value, expected.get(reduction, NAN))


@EVERY_KIND
def test_a_number_is_a_row_of_one_class(loss, kind, dtype):
    x, targets = (
        np.array(-0.5 if loss.scores != "probs" else 0.5, dtype),
        0 if kind == "labels" else 1.0,
    )
    value, grad = loss.call_with_grad(x, targets)
    row, row_grad = loss.call_with_grad(x[None], targets if kind == "labels" else [targets])
    assert isinstance(grad, np.floating)
    np.testing.assert_array_equal(value, row)
    np.testing.assert_array_equal(grad, row_grad[0])


FOR_TWO_THREADS = [(shape, (2,)) for shape in ((1800, 37), (1, 66_000))]
FOR_MORE = [(shape, (2,)) for shape in ((1801, 37), (1, 66_001))]
FOR_MORE += [(shape, (2, 5)) for shape in ((4000, 37), (3, 50_000), (1, 150_000), (70_000, 1))]
FOR_THREADS = [*FOR_TWO_THREADS, *(pytest.param(*each, marks=exhaustive) for each in FOR_MORE)]


@pytest.mark.parametrize(("shape", "numbers"), FOR_THREADS, ids=str)
@EVERY_KIND
def test_threads_do_not_change_a_bit(loss, kind, shape, numbers, dtype):
    calls = list(itertools.product(((), tuple(loss.allowed(kind))), ("none", "mean")))
    for options, reduction in calls if (shape, numbers) in FOR_MORE else calls[::3]:
        given = problem(loss, shape, dtype, kind, options)
        first = given.value_and_grad(reduction=reduction, num_threads=1)
        alone = given.value(reduction=reduction, num_threads=1)
        for threads in numbers:
            got = given.value_and_grad(reduction=reduction, num_threads=threads)
            for a, b in zip(got, first, strict=True):
                np.testing.assert_array_equal(a, b)
            got = given.value(reduction=reduction, num_threads=threads)
            np.testing.assert_array_equal(got, alone)


# --- special values -------------------------------------------------------------------------------


def hard(x, label, **options):
    value, grad = fs.cross_entropy_value_and_grad(np.array(x), label, **options)
    assert np.array_equal(value, fs.cross_entropy(np.array(x), label, **options), equal_nan=True)
    return float(value), grad.tolist()


def test_infinite_logits_of_labels(dtype):
    assert hard(np.array([0, -INF], dtype), 0) == (0, [0, 0])
    assert hard(np.array([0, -INF], dtype), 1) == (INF, [1, -1])
    for row in ([INF, 0], [INF, INF], [NAN, 0], [-INF, -INF]):
        value, grad = hard(np.array(row, dtype), 0)
        assert np.isnan(value), row
        assert np.isnan(grad).all(), row


@pytest.mark.parametrize("n", [2, 7, 16, 33, 100, 5000, 40_000])
def test_a_special_row_keeps_to_itself(n, dtype):
    x = np.random.default_rng(n).normal(0, 3, (9, n)).astype(dtype)
    y = np.arange(9) % n
    expected_loss, expected = fs.cross_entropy_value_and_grad(x, y, reduction="none")
    special = x.copy()
    special[1, n // 2], special[4, 0], special[7, -1] = NAN, INF, -INF
    value, grad = fs.cross_entropy_value_and_grad(special, y, reduction="none")
    assert np.isnan(value[[1, 4]]).all()
    assert np.isnan(grad[[1, 4]]).all()
    assert np.isfinite(grad[7]).all()
    assert grad[7, -1] == (-1 if y[7] == n - 1 else 0)
    others = [0, 2, 3, 5, 6, 8]
    np.testing.assert_array_equal(value[others], expected_loss[others])
    np.testing.assert_array_equal(grad[others], expected[others])


def test_zero_coefficients_drop_their_terms(dtype):
    """0 times infinity is 0: probabilities, weights, and the shares of smoothing."""
    x = np.array([0, -INF], dtype)
    assert fs.cross_entropy(x, [1.0, 0.0]) == 0
    assert fs.cross_entropy(x, [0.5, 0.5]) == INF
    assert fs.cross_entropy(x, 0, label_smoothing=0.5) == INF
    assert fs.cross_entropy(x, 0, label_smoothing=0.5, weight=[1.0, 0.0]) == 0
    assert fs.cross_entropy(x, 0, label_smoothing=0.5, where=[True, False]) == 0
    assert fs.cross_entropy([0.0, 0.0], 1, where=[True, False]) == INF
    assert fs.cross_entropy([0.0, 0.0], [0.5, 0.5], where=[True, False]) == INF
    assert fs.nll_loss(np.array([0, -INF], dtype), [1.0, 0.0]) == 0
    assert fs.nll_loss(np.array([0, -INF], dtype), 1) == INF
    assert fs.kl_divergence(np.array([0, -INF], dtype), [1.0, 0.0]) == 0
    assert fs.kl_divergence(np.array([NAN, 0], dtype), [0.0, 1.0]) == 0
    assert fs.kl_divergence(np.array([0, -INF], dtype), [0.5, 0.5]) == INF
    assert fs.kl_divergence_from_logits(x, x) == 0
    assert fs.kl_divergence_from_logits(x, [0.0, -800.0]) == 0
    for target in ([0.0, 0.0], [-800.0, 0.0]):
        value, grad = fs.kl_divergence_from_logits_value_and_grad(x, target)
        assert value == INF
        np.testing.assert_allclose(grad, fs.softmax(x) - fs.softmax(target))


@pytest.mark.parametrize("n", [2, 8, 34, 200, 20_000])
@pytest.mark.parametrize("rows", [1, 2])
def test_elements_of_weight_zero(rows, n, dtype):
    """They are dropped: no loss and no gradient, be a logit infinite or NaN,
    or a probability 0 or 1.
    """
    dropped = np.arange(n) % 2 == 0
    weights = np.where(dropped, 0, np.full((rows, n), 3.0))  # of one row: broadcast
    scores = np.resize([INF, 1, -INF, 2, NAN, -1], (2, n)).astype(dtype)
    probabilities = np.resize([0, 0.5, 1, 0.25], (2, n)).astype(dtype)
    for name, x in (
        ("binary_cross_entropy_with_logits", scores),
        ("binary_cross_entropy", probabilities),
    ):
        loss = BY_NAME[name]
        for t in (np.zeros((2, n)), np.ones((2, n)), np.full((2, n), 0.5)):
            value, grad = loss.call_with_grad(x, t, weight=weights, reduction="none")
            alone = loss.call(x, t, weight=weights, reduction="none")
            expected, expected_grad = loss.call_with_grad(
                np.where(dropped, dtype.type(0.5), x), t, weight=weights, reduction="none"
            )
            np.testing.assert_array_equal(value[:, dropped], 0)
            np.testing.assert_array_equal(grad[:, dropped], 0)
            for got, wanted in ((value, expected), (alone, expected), (grad, expected_grad)):
                np.testing.assert_array_equal(got, wanted)
            total, grad = loss.call_with_grad(x, t, weight=weights, reduction="sum")
            close(total, expected.sum(dtype=np.float64))
            np.testing.assert_array_equal(grad, expected_grad)


def test_one_weight_of_zero(dtype):
    """By hand; and a probability that is none stays NaN."""
    of_logits = fs.binary_cross_entropy_with_logits_value_and_grad
    for x in (INF, -INF, NAN, 3):
        for t in (0, 1, 0.5):
            value, grad = of_logits(np.array([x], dtype), [t], weight=0)
            assert (value, grad) == (0, 0), (x, t)
    for p in (0, 1, 0.5):
        for t in (0, 1, 0.5):
            value, grad = fs.binary_cross_entropy_value_and_grad(
                np.array([p], dtype), [t], weight=0
            )
            assert (value, grad) == (0, 0), (p, t)
    for p in (-0.5, 1.5, NAN):
        value, grad = fs.binary_cross_entropy_value_and_grad(np.array([p], dtype), [1], weight=0)
        assert np.isnan(value)
        assert np.isnan(grad)


@pytest.mark.parametrize("n", [2, 7, 16, 100, 5000, 40_000])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_classes_of_weight_zero(name, n, dtype):
    """They are dropped, where their log-probability is -inf, too:
    as labels, and as probabilities.
    """
    loss = BY_NAME[name]
    x = -np.abs(np.random.default_rng(n).normal(0, 3, (4, n))).astype(dtype)
    x[:, -1] = -INF
    x[1, -1] = -1
    weight = np.ones(n)
    weight[-1] = 0
    labels = np.array([n - 1, n - 1, 0, n - 1])
    for targets in (labels, one_hot(labels, n)):
        for axis in (-1, 0):
            given = np.ascontiguousarray(np.moveaxis(x, -1, axis))
            t = (
                targets
                if targets.ndim == 1
                else np.ascontiguousarray(np.moveaxis(targets, -1, axis))
            )
            alone = loss.call(given, t, axis, weight=weight, reduction="none")
            value, grad = loss.call_with_grad(given, t, axis, weight=weight, reduction="none")
            grad = np.moveaxis(grad, axis, -1)
            for got in (value, alone):
                np.testing.assert_array_equal(got[[0, 1, 3]], 0)
                assert np.isfinite(got[2])
            np.testing.assert_array_equal(grad[[0, 1, 3]], 0)
            total = loss.call(given, t, axis, weight=weight, reduction="sum")
            close(total, value[2])


def test_rows_that_do_not_count(dtype):
    """Ignored and fully masked rows hold anything, add nothing, and have no gradient."""
    x = np.array([[1, 2, 3], [NAN, INF, NAN], [0, 0, 0], [NAN, NAN, NAN]], dtype)
    y = np.array([0, -100, 1, 2])
    where = np.array([True, True, True, False])[:, None]
    value, grad = fs.cross_entropy_value_and_grad(
        x, y, ignore_index=-100, where=where, reduction="none"
    )
    np.testing.assert_array_equal(value[[1, 3]], 0)
    np.testing.assert_array_equal(grad[[1, 3]], 0)
    mean, mean_grad = fs.cross_entropy_value_and_grad(x, y, ignore_index=-100, where=where)
    assert mean == pytest.approx(value.sum(dtype=np.float64) / 2, rel=1e-6)
    np.testing.assert_allclose(mean_grad, grad / 2, rtol=1e-6)
    mean, mean_grad = fs.cross_entropy_value_and_grad(x, np.full(4, -100), ignore_index=-100)
    assert np.isnan(mean)
    np.testing.assert_array_equal(mean_grad, 0)
    assert fs.cross_entropy(x, np.full(4, -100), ignore_index=-100, reduction="sum") == 0


UNDEFINED = (NAN, INF, -INF)


def rows_of_weight_zero(loss, kind, n, dtype):
    """Eight rows of which every second has weight 0,
    and the same with undefined numbers in these.
    """
    given = problem(loss, (8, n), dtype, kind)
    weights = np.array([0.0, 1, -0.0, 0.5, 0, 2, 0, 3])
    x, left_out = given.x.copy(), weights == 0
    x[left_out] = np.resize(UNDEFINED, n)
    x[0], x[2] = NAN, -INF
    targets = given.targets.copy()
    if kind == "soft":
        targets[left_out] = NAN
    else:
        targets[:] = np.arange(8) % n  # the infinite ones, too
    given = replace(given, targets=np.where(np.isnan(targets), 0, targets).astype(targets.dtype))
    return weights, given, replace(given, x=x, targets=targets)


SOME_REDUCTIONS = [(2, REDUCTIONS), (7, REDUCTIONS), (33, REDUCTIONS), (40_000, REDUCTIONS[:1])]
SOME_REDUCTIONS += [
    pytest.param(n, others, marks=exhaustive)
    for n, others in ((5000, REDUCTIONS), (40_000, REDUCTIONS[1:]))
]


@pytest.mark.parametrize(("n", "wanted"), SOME_REDUCTIONS, ids=str)
@pytest.mark.parametrize("loss", OF_LABELS, ids=str)
def test_rows_of_weight_zero_are_left_out(loss, n, wanted, dtype):
    """Whatever they hold: no loss, no gradient, not counted, as if they were not there."""
    for kind, axis, smoothing in itertools.product(loss.kinds, (-1, 0), (0.0, 0.1)):
        weights, given, special = rows_of_weight_zero(loss, kind, n, dtype)
        kept = weights != 0
        for reduction in wanted:
            options = {"reduction": reduction}
            if smoothing and "label_smoothing" in loss.options:
                options["label_smoothing"] = smoothing
            rest = replace(given, x=given.x[kept], targets=given.targets[kept])
            expected, expected_grad = rest.value_and_grad(sample_weight=weights[kept], **options)
            value, grad = special.value_and_grad(axis, sample_weight=weights, **options)
            alone = special.value(axis, sample_weight=weights, **options)
            grad = np.moveaxis(grad, axis, -1)
            for got in (value, alone):
                close(got[kept] if reduction == "none" else got, expected)
                np.testing.assert_array_equal(got[~kept] if reduction == "none" else 0, 0)
            # Rows and columns of many classes are summed in other orders.
            share = options.get("label_smoothing", 0.0)
            terms = (1 - share) * masses(rest.x, rest.targets) + share / n
            close_beside(weights[kept][:, None] * terms, grad[kept], expected_grad)
            np.testing.assert_array_equal(grad[~kept], 0)


@pytest.mark.parametrize("loss", OF_LABELS, ids=str)
def test_labels_of_rows_that_are_left_out_are_checked(loss, dtype):
    x = np.zeros((2, 3), dtype)
    for call in (loss.call, loss.call_with_grad):
        refuses(
            lambda call=call: call(x, [3, 0], sample_weight=[0, 1]), IndexError, "targets[0]", "3"
        )
        call(x, [9, 0], sample_weight=[0, 1], ignore_index=9)


@pytest.mark.parametrize("n", [1, 2, 7, 33, 5000])
@pytest.mark.parametrize("name", GRAD_HESS)
def test_grad_hess_of_weight_zero(name, n, dtype):
    """The floor of the curvature has no part in rows that are left out either."""
    loss = BY_NAME[name.removesuffix("_grad_hess")]
    weights, given, special = rows_of_weight_zero(loss, loss.kinds[0], n, dtype)
    kept = weights != 0
    row_weights = weights[:, None] if loss.elementwise else weights
    for axis in axes(loss)[:2]:
        (x, targets), options = special.arguments(axis)
        got = getattr(fs, name)(x, targets, sample_weight=row_weights, hess_floor=1e-3, **options)
        expected = getattr(fs, name)(
            given.x[kept], given.targets[kept], sample_weight=row_weights[kept], hess_floor=1e-3
        )
        for a, b in zip(got, expected, strict=True):
            a = np.moveaxis(a, axis, -1)
            np.testing.assert_array_equal(a[~kept], 0)
            close(a[kept], b, 1e-30)


# --- the ends of the range ------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.25])
def test_logits_next_to_the_largest_number(temperature, rows, dtype):
    """Losses as large as logits: products are exact without the help of larger numbers."""
    for n in (3, 20, 100, 5000):
        largest = float(np.finfo(dtype).max)
        for size in (1e301 if dtype == np.float64 else 1e37, largest / 32, largest / 2.5, largest):
            x = np.zeros((rows, n), dtype)
            x[:, 0], x[:, -1] = -size, -size / 2
            options = {"reduction": "none", "temperature": temperature}
            with np.errstate(over="ignore"):
                expected = dtype.type(float(dtype.type(size)) / temperature)
            soft = np.zeros_like(x)
            soft[:, 0] = 1
            for targets in (np.zeros(rows, int), soft):
                for axis in (-1, 0):
                    turned = [np.ascontiguousarray(np.moveaxis(a, -1, axis)) for a in (x, targets)]
                    turned[1] = targets if targets.ndim == 1 else turned[1]
                    value, grad = fs.cross_entropy_value_and_grad(*turned, axis=axis, **options)
                    close(value, np.full(rows, expected))
                    close(np.moveaxis(grad, axis, -1)[:, 0], np.full(rows, -1 / temperature))
            value = fs.cross_entropy(x, np.ones(rows, int), **options)
            close(value, np.full(rows, np.log(n - 2.0)))


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("n", [2, 20, 100, 5000])
def test_the_largest_and_the_smallest_logit_are_far_apart(n, rows, dtype):
    """Their difference overflows; over the temperature it does not."""
    x = np.zeros((rows, n), dtype)
    x[:, 0], x[:, -1] = np.finfo(dtype).max, -np.finfo(dtype).max
    last = np.full(rows, n - 1)
    for targets in (last, one_hot(last, n, dtype)):
        value, grad = fs.cross_entropy_value_and_grad(x, targets, temperature=4.0, reduction="none")
        close(value, np.full(rows, np.finfo(dtype).max / 2))
        close(grad[:, -1], np.full(rows, -0.25))


@pytest.mark.parametrize("n", [2, 20, 100, pytest.param(5000, marks=exhaustive)])
def test_gradients_of_large_weights_do_not_underflow(n, dtype):
    """A probability below the smallest number is one above it times a weight."""
    smallest = float(np.finfo(dtype).smallest_normal)
    x = np.zeros((40, n), dtype)
    x[:, -1] = np.linspace(np.log(smallest) - 12, np.log(smallest) + 12, 40)
    p = np.exp(x[:, -1].astype(np.longdouble)) / (n - 1)
    for weight in (256.0, 1e6, 1e15):
        expected = weight * p
        normal = expected > 1.01 * smallest
        for targets in (np.zeros(40, int), one_hot(np.zeros(40, int), n, dtype)):
            options = {"weight": np.full(n, weight), "reduction": "sum"}
            _, grad = fs.cross_entropy_value_and_grad(x, targets, **options)
            close(grad[normal, -1], expected[normal].astype(np.float64))
            _, grad = fs.cross_entropy_value_and_grad(
                np.ascontiguousarray(x.T), targets.T, axis=0, **options
            )
            close(grad[-1, normal], expected[normal].astype(np.float64))
        grad, hess = fs.cross_entropy_grad_hess(
            x, np.zeros(40, int), sample_weight=np.full(40, weight)
        )
        for got in (grad, hess):
            close(got[normal, -1], expected[normal].astype(np.float64))


def test_targets_are_used_as_they_are_given():
    """float64 targets beside float32 scores: neither rounded, nor out of range."""
    x = np.log(np.array([[0.5, 0.25, 0.25]] * 3, np.float32))
    t = np.array([[1e-50, 2e-50, 0], [1 / 3, -1 / 3 + 1e-12, 0], [1e-3, 2e60, 0]])
    weights = np.array([1e50, 1e12, 1e-60])
    log_p = x.astype(np.float64) - np.log(np.exp(x.astype(np.float64)).sum(1, keepdims=True))
    for call, terms in ((fs.cross_entropy, log_p), (fs.nll_loss, x.astype(np.float64))):
        expected = -(t * terms).sum(1) * weights
        got = call(x, t, sample_weight=weights, reduction="none")
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    p = np.exp(log_p)
    expected = weights[:, None] * (p * t.sum(1, keepdims=True) - t)
    _, grad = fs.cross_entropy_value_and_grad(x, t, sample_weight=weights, reduction="sum")
    np.testing.assert_allclose(grad[[0, 2]], expected[[0, 2]], rtol=1e-6)
    _, grad = fs.nll_loss_value_and_grad(x, t, sample_weight=weights, reduction="sum")
    with np.errstate(under="ignore", over="ignore"):
        np.testing.assert_allclose(grad, (-t * weights[:, None]).astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("size", [1e-60, 1e60])
@pytest.mark.parametrize("n", [3, 50, 5000])
def test_only_the_ratios_of_weights_matter(n, size, dtype):
    """Weights of classes of any size, of labels, smoothed ones and probabilities."""
    rng = np.random.default_rng(n)
    x, weight = rng.normal(0, 3, (5, n)).astype(dtype), rng.uniform(0.5, 2, n)
    y = rng.integers(0, n, 5)
    soft = rng.dirichlet(np.ones(n), 5).astype(dtype)
    for options in ({}, {"label_smoothing": 0.1}):
        got = fs.cross_entropy_value_and_grad(x, y, weight=size * weight, **options)
        expected = fs.cross_entropy_value_and_grad(x, y, weight=weight, **options)
        for a, b in zip(got, expected, strict=True):
            close(a, b, 4 * float(np.finfo(dtype).eps) * np.abs(b).max())
    for call in (fs.cross_entropy_value_and_grad, fs.nll_loss_value_and_grad):
        rows = {"sample_weight": np.full(5, 1 / size), "reduction": "sum"}
        got, expected = (
            call(x, soft, weight=size * weight, **rows),
            call(x, soft, weight=weight, reduction="sum"),
        )
        for a, b in zip(got, expected, strict=True):
            close(a, b, 4 * float(np.finfo(dtype).eps) * np.abs(b).max())


@pytest.mark.parametrize("loss", OF_LABELS, ids=str)
def test_weights_that_sum_to_nothing(loss, dtype):
    x = np.full((2, 3), -0.5, dtype)
    for kind in (np.array([0, 2]), np.full((2, 3), 1 / 3)):
        for weights in ({"sample_weight": [0.0, 0.0]}, {"sample_weight": [1.0, -1.0]}):
            value, grad = loss.call_with_grad(x, kind, **weights)
            assert np.isnan(value)
            np.testing.assert_array_equal(grad, 0)
    value, grad = loss.call_with_grad(x, np.array([0, 2]), weight=[0.0, 1.0, 0.0])
    assert np.isnan(value)
    np.testing.assert_array_equal(grad, 0)


def test_infinite_logits_of_yes_or_no(dtype):
    x, t = np.array([INF, INF, -INF, -INF, INF, NAN], dtype), [1.0, 0.0, 1.0, 0.0, 0.5, 1.0]
    value, grad = fs.binary_cross_entropy_with_logits_value_and_grad(x, t, reduction="none")
    np.testing.assert_array_equal(value, [0, INF, INF, 0, INF, NAN])
    np.testing.assert_array_equal(grad, [0, 1, -1, 0, 0.5, NAN])


def test_certain_and_impossible_probabilities(dtype):
    p, t = np.array([0, 1, 0, 1, -0.1, 1.1, NAN], dtype), np.array([0, 1, 1, 0, 0.5, 0.5, 1])
    value = fs.binary_cross_entropy(p, t, reduction="none")
    np.testing.assert_array_equal(value, [0, 0, INF, INF, NAN, NAN, NAN])
    clamped = fs.binary_cross_entropy(p, t, reduction="none", clamp=100)
    np.testing.assert_array_equal(clamped, [0, 0, 100, 100, NAN, NAN, NAN])


@sweep(LENGTHS)
def test_divergence_of_equal_scores_is_exactly_zero(lengths, dtype):
    for n in lengths:
        x = np.random.default_rng(n).normal(1e3, 30, (3, n)).astype(dtype)
        value, grad = fs.kl_divergence_from_logits_value_and_grad(x, x.copy(), temperature=0.7)
        assert value == 0
        np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize("shift", [0, 1e3, -1e5])
def test_divergence_of_shifted_scores_with_unlikely_classes(shift, dtype):
    """Neither a shift of the scores nor a class far from the
    others costs digits of a divergence.
    """
    rng = np.random.default_rng(5)
    for far in (5, 40, 300, 690):
        x, target = rng.normal(0, 1, (2, 8, 6)).astype(dtype)
        x[::2] = target[::2] + rng.normal(0, 1e-3, (4, 6))
        x += shift
        target[:, 0] -= far
        Problem(BY_NAME["kl_divergence_from_logits"], x, target).check(
            about=f"shift {shift}, far {far}"
        )


# --- curvature for boosting -----------------------------------------------------------------------


@remembered
@np.errstate(all="ignore")
def curvature(x, targets, elementwise, sample_weight=1.0, hess_factor=1.0, hess_floor=0.0):
    """p - t and the second derivative, in longer floats;
    errors are counted against their own size.
    """
    x = long(x)
    if elementwise:
        p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
        share = long(targets)
    else:
        e = np.exp(x - x.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        best = e.argmax(-1, keepdims=True)
        others = e.copy()
        np.put_along_axis(others, best, 0, -1)
        q = 1 - p
        np.put_along_axis(q, best, others.sum(-1, keepdims=True) / e.sum(-1, keepdims=True), -1)
        hard = np.asarray(targets).dtype.kind in "iu"
        share = np.expand_dims(targets, -1) == np.arange(x.shape[-1]) if hard else long(targets)
    s = long(sample_weight)
    s = np.expand_dims(s, -1) if s.ndim and not elementwise else s
    grad = s * np.where(share == 1, -q, p - share)
    size = np.abs(s) * np.where(share == 1, 0, p + share)
    return exact(grad, size), exact(s * np.maximum(hess_factor * p * q, hess_floor))


ROWS_AND_CLASSES = [*((40, n) for n in (1, 2, 3, 10, 17, 64, 100)), (4, 5000)]


@pytest.mark.parametrize(
    ("rows", "n"), [*ROWS_AND_CLASSES, pytest.param(40, 5000, marks=exhaustive)]
)
@pytest.mark.parametrize("name", GRAD_HESS)
def test_grad_hess(name, rows, n, dtype, rng):
    loss = BY_NAME[name.removesuffix("_grad_hess")]
    x = loss.typical((rows, n), dtype, rng)
    weights = rng.uniform(0.5, 2, x.shape if loss.elementwise else rows)
    for kind, order in itertools.product(loss.kinds, "CF"):
        targets = loss.targets[kind](x, rng)
        for options in ({}, {"sample_weight": weights, "hess_factor": 2.0, "hess_floor": 1e-6}):
            given = x.copy(order)
            expected = curvature(given, targets, loss.elementwise, **options)
            grad, hess = getattr(fs, name)(given, targets, **options)
            for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS"):
                assert grad.flags[flag] == hess.flags[flag] == given.flags[flag]
            assert grad.dtype == hess.dtype == dtype
            assert np.max(oracle.ulp_error(grad, expected[0])) <= 6
            assert np.max(oracle.ulp_error(hess, expected[1])) <= 8


@pytest.mark.parametrize("name", GRAD_HESS)
def test_grad_hess_outs(name, dtype, rng):
    loss = BY_NAME[name.removesuffix("_grad_hess")]
    call = getattr(fs, name)
    x = loss.typical((5, 4, 9), dtype, rng)
    targets = loss.targets[loss.kinds[0]](x, rng)
    expected = call(x, targets)
    for (label, first, _), (_, second, _) in zip(
        outs(x.shape, dtype), outs(x.shape, dtype), strict=True
    ):
        grad, hess = call(x, targets, grad_out=first, hess_out=second)
        assert (grad is first, hess is second) == (True, True), label
        np.testing.assert_array_equal(grad, expected[0], err_msg=label)
        np.testing.assert_array_equal(hess, expected[1], err_msg=label)
    same = x.copy()
    grad, hess = call(same, targets, hess_out=same)
    assert hess is same
    np.testing.assert_array_equal(grad, expected[0])
    np.testing.assert_array_equal(hess, expected[1])
    with pytest.raises(ValueError, match="must not share memory"):
        call(x, targets, grad_out=same, hess_out=same)


@pytest.mark.parametrize("name", GRAD_HESS)
def test_grad_hess_outs_of_one_memory(name, dtype, rng):
    """They may interleave as long as they have no element in common,
    but none may be written twice.
    """
    loss = BY_NAME[name.removesuffix("_grad_hess")]
    x = loss.typical((12, 7), dtype, rng)
    targets = loss.targets[loss.kinds[0]](x, rng)
    expected = getattr(fs, name)(x, targets)
    memory = np.zeros((24, 14), dtype)
    pairs = [
        (about, *(a.reshape(x.shape) for a in views))
        for about, _, *views in pairs_of_views(84, dtype)
    ]
    pairs += [
        ("rows in turn", memory[::2, :7], memory[1::2, :7]),
        ("columns in turn", memory[:12, ::2], memory[:12, 1::2]),
        ("columns in turn, reversed", memory[:12, ::-2], memory[:12, ::2]),
        ("shifted by a column", memory[:12, 3:10], memory[:12, 4:11]),
        ("quarters", memory[:12, 7:], memory[12:, :7]),
        ("crossed", memory[:12, :7], memory[8:20, 5:12]),
    ]
    call = getattr(fs, name)
    apart = {about for about, *views in pairs if not np.shares_memory(*views)}
    assert {"interleaved", "rows in turn", "columns in turn", "quarters"} <= apart
    for about, *views in pairs:
        for first, second in (views, views[::-1]):
            if about in apart:
                got = call(x, targets, grad_out=first, hess_out=second)
                for a, b in zip(got, expected, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=about)
            else:
                outs = {"grad_out": first, "hess_out": second}
                refuses(lambda outs=outs: call(x, targets, **outs), ValueError, *outs)


@pytest.mark.once
@pytest.mark.parametrize("name", GRAD_HESS)
def test_grad_hess_outs_of_which_it_is_hard_to_tell(name):
    """Whether memory is shared may take too long to find out: then it counts as shared."""
    shape, memory = (4, 2, 3, 3, 2, 2), np.zeros(540_000)
    strides = (
        (75664, 336904, 347280, 727432, 768104, 773280),
        (11256, 26040, 72992, 292872, 472936, 609112),
    )
    first, second = (
        np.lib.stride_tricks.as_strided(memory[i:], shape, strides[i]) for i in range(2)
    )
    with pytest.raises(np.exceptions.TooHardError):
        np.shares_memory(first, second, max_work=10_000)
    targets = np.zeros(shape if "binary" in name else shape[:-1], int)
    refuses(
        lambda: getattr(fs, name)(np.zeros(shape), targets, grad_out=first, hess_out=second),
        ValueError,
        "grad_out",
        "hess_out",
    )
    assert not memory.any()


@pytest.mark.parametrize("shape", [(6, 5), (6, 1), (40_000, 2)], ids=str)
@pytest.mark.parametrize("name", GRAD_HESS)
def test_grad_hess_in_place(name, shape, rng):
    """Each of both results may be written over each of the inputs."""
    loss = BY_NAME[name.removesuffix("_grad_hess")]
    x = loss.typical(shape, FLOATS[1], rng)
    weights = rng.uniform(0.5, 2, shape if loss.elementwise else shape[:1])
    inputs = {"x": x, "targets": loss.targets["soft"](x, rng), "sample_weight": weights}

    def call(x, targets, **options):
        return getattr(fs, name)(x, targets, hess_floor=0.1, **options)

    expected = call(**inputs)
    for result, argument in itertools.product(("grad_out", "hess_out"), inputs):
        out = np.ones(shape)
        moved = inputs | {argument: in_memory_of(out, inputs[argument])}
        for a, b in zip(call(**moved, **{result: out}), expected, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{argument}, {result}")


@pytest.mark.parametrize("name", GRAD_HESS)
def test_grad_hess_threads(name, dtype, rng):
    loss = BY_NAME[name.removesuffix("_grad_hess")]
    x = loss.typical((30_000, 7), dtype, rng)
    targets = loss.targets[loss.kinds[0]](x, rng)
    expected = getattr(fs, name)(x, targets, num_threads=1)
    for threads in (2, 5):
        for a, b in zip(getattr(fs, name)(x, targets, num_threads=threads), expected, strict=True):
            np.testing.assert_array_equal(a, b)
