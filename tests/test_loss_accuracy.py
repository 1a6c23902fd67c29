"""The bounds of losses and their gradients on rows and options that are hard for them.

Each loss states its bounds in its `Loss` (and in its docstring): in units in the last place of the
result or, where terms cancel, of their sizes. Rows here are confident, far, cancelling, shifted;
weights are of every order of magnitude.
"""

import functools

import mpmath
import numpy as np
import oracle
import pytest
from losses import BY_NAME, OF_ROWS, Problem, exact, log_probabilities, long, masses
from sizes import sweep

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

LENGTHS = (2, 10, 33, 100, 1000, 5000)
LIMIT = {4: 87.0, 8: 708.0}  # below which an exponential underflows


def of_scale(shape, rng, limit):
    return rng.normal(0, 1, shape) * rng.choice([0.01, 1, 10, 100], (shape[0], 1))


def one_apart(shape, rng, limit):
    """One class above or below the others, by up to where it is all or nothing."""
    x = rng.normal(0, 1, shape) * rng.choice([0, 1], (shape[0], 1))
    gaps = limit * np.array([0.01, 0.1, 0.2, 0.5, 0.9, 0.97, 1.01, 1.3])
    x[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] += rng.choice(
        [*gaps, *-gaps], shape[0]
    )
    return x


def shifted(shape, rng, limit):
    return rng.normal(0, 3, shape) + rng.choice([-300, 300, 40, -14, 1e5, -1e5], (shape[0], 1))


def cancelling(shape, rng, limit):
    """The logarithm of the sum is next to 0."""
    x = rng.normal(0, 3, shape)
    return x - np.log(np.exp(x).sum(1, keepdims=True)) + rng.normal(0, 1e-3, (shape[0], 1))


def levels(shape, rng, limit):
    """Ties, at whole numbers as far apart as exponentials reach."""
    return np.rint(rng.integers(-3, 1, shape) * limit * rng.choice([0.1, 0.3, 0.33], (shape[0], 1)))


KINDS = (of_scale, one_apart, shifted, cancelling, levels)


@np.errstate(all="ignore")
def hard_scores(loss, n, dtype, rng):
    rows = 10 if n <= 100 else 3
    x = np.concatenate([kind((rows, n), rng, LIMIT[dtype.itemsize]) for kind in KINDS]).astype(
        dtype
    )
    return -np.abs(x) if loss.scores in ("log_probs", "log_q") else x


def hard_targets(loss, kind, x, rng):
    if kind == "labels":
        places = [x.argmax(1), x.argmin(1), rng.integers(0, x.shape[1], len(x))]
        return np.choose(rng.integers(0, 3, len(x)), places)
    if loss.second == "target_logits":
        near = rng.normal(0, 1, (len(x), 1)) * rng.choice([0, 1e-6, 0.1, 2], (len(x), 1))
        return (x * (1 + near)).astype(x.dtype)
    t = loss.targets[kind](x, rng)
    one = np.arange(x.shape[1]) == rng.integers(0, x.shape[1], (len(x), 1))
    return np.where(rng.uniform(size=(len(x), 1)) < 0.5, one, t).astype(t.dtype)


def spread(low, high, size, rng):
    """Of every order of magnitude, and some zeros."""
    return 10 ** rng.uniform(low, high, size) * (rng.uniform(size=size) < 0.9)


HARD_OPTIONS = {
    "nothing": lambda x, t, rng: {},
    "cold": lambda x, t, rng: {"temperature": 0.31},
    "temperatures": lambda x, t, rng: {"temperature": 10 ** rng.uniform(-2, 2, len(x))},
    "weights": lambda x, t, rng: {"weight": spread(-3, 3, x.shape[1], rng)},
    "large weights": lambda x, t, rng: {"weight": spread(0, 20, x.shape[1], rng)},
    "small weights": lambda x, t, rng: {
        "weight": spread(-20, 0, x.shape[1], rng),
        "sample_weight": spread(-3, 3, len(x), rng),
    },
    "smoothed": lambda x, t, rng: {"label_smoothing": 0.1},
    "evenly": lambda x, t, rng: {"label_smoothing": 1.0, "temperature": 0.31},
    "smoothed, weighted": lambda x, t, rng: {
        "label_smoothing": 1e-3,
        "weight": spread(-3, 3, x.shape[1], rng),
        "temperature": 0.31,
    },
    "smoothed, large weights": lambda x, t, rng: {
        "label_smoothing": 0.3,
        "weight": spread(0, 20, x.shape[1], rng),
        "sample_weight": spread(-3, 3, len(x), rng),
    },
    "z": lambda x, t, rng: {"z_loss": 1e-4},
    "z, cold": lambda x, t, rng: {"z_loss": 1.0, "temperature": 0.31},
    "z, warm": lambda x, t, rng: {"z_loss": 0.1, "temperature": 7.0, "label_smoothing": 0.2},
    "masked": lambda x, t, rng: {"where": masked(x, t, rng), "temperature": 0.31},
}


def masked(x, targets, rng):
    present = rng.uniform(size=x.shape) < 0.8
    if targets.ndim == 1:
        present[np.arange(len(x)), targets] = True
    return present | (targets > 0 if targets.ndim == 2 else False)


def options_of(loss):
    return [name for name, made in HARD_OPTIONS.items() if made_of(made) <= set(plain(loss))]


def plain(loss):
    return {name.split()[0] for name in loss.options}


def made_of(made):
    x = np.zeros((2, 2))
    return set(made(x, np.zeros(2, int), np.random.default_rng(0)))


@functools.lru_cache(maxsize=300)
def hard_problem(loss, kind, options, n, dtype):
    """Cached with its answer: every backend meets the same ones."""
    rng = np.random.default_rng([n, dtype.itemsize, *map(ord, loss.name + options)])
    x = hard_scores(loss, n, dtype, rng)
    targets = hard_targets(loss, kind, x, rng)
    return Problem(loss, x, targets, HARD_OPTIONS[options](x, targets, rng))


EVERY = [
    pytest.param(loss, kind, options, id=f"{loss}-{kind}-{options}")
    for loss in OF_ROWS
    if not loss.name.startswith("kl")
    for kind in loss.kinds
    for options in options_of(loss)
]


@sweep(LENGTHS)
@pytest.mark.parametrize(("loss", "kind", "options"), EVERY)
def test_hard_rows(loss, kind, options, lengths, dtype):
    for n in lengths:
        given = hard_problem(loss, kind, options, n, dtype)
        given.check(about=options)
        given.check(axis=0, about=options)


GRAD_HESS_ULP = 8


@sweep(LENGTHS)
@pytest.mark.parametrize("options", ["nothing", "large weights"])
@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_grad_hess_of_hard_rows(kind, options, lengths, dtype):
    for n in lengths:
        given = hard_problem(BY_NAME["cross_entropy"], kind, options, n, dtype)
        x, t = given.x, long(masses(given.x, given.targets))
        rng = np.random.default_rng(n)
        weight = spread(0, 15, len(x), rng) if options != "nothing" else np.ones(len(x))
        with np.errstate(all="ignore"):
            log_p, _, p = log_probabilities(long(x))
            others = np.where(p < 0.5, 1 - p, -np.expm1(log_p))
            terms = weight[:, None] * (1 - t) * p, weight[:, None] * t * others
            grad = exact(terms[0] - terms[1], np.abs(terms[0]) + np.abs(terms[1]))
            hess = exact(weight[:, None] * np.maximum(2 * p * others, 1e-12))
        for axis in (-1, 0):
            turned = given.arguments(axis)[0]
            got = fs.cross_entropy_grad_hess(
                *turned, axis=axis, sample_weight=weight, hess_factor=2.0, hess_floor=1e-12
            )
            for a, e in zip(got, (grad, hess), strict=True):
                worst = oracle.ulp_error(np.moveaxis(a, axis, -1), e).max()
                assert worst <= GRAD_HESS_ULP, f"n={n}, axis {axis}: {worst:.3g} ulp"


@mpmath.workdps(700)  # for divergences of 1e-300
def exact_divergence(x, target, temperature):
    """The divergence of two rows from its definition, and its gradient."""
    heat = mpmath.mpf(float(temperature))
    a, b = ([mpmath.mpf(float(v)) / heat for v in row] for row in (x, target))
    powers = [mpmath.exp(v) for v in a], [mpmath.exp(v) for v in b]
    sum_a, sum_b = map(mpmath.fsum, powers)
    mean = mpmath.fsum(e * (v - u) for e, u, v in zip(powers[1], a, b, strict=True)) / sum_b
    grad = [(p / sum_a - q / sum_b) / heat for p, q in zip(*powers, strict=True)]
    size = [(p / sum_a + q / sum_b) / heat for p, q in zip(*powers, strict=True)]
    return (
        float(mean + mpmath.log(sum_a / sum_b)),
        [float(g) for g in grad],
        [float(s) for s in size],
    )


@functools.lru_cache(maxsize=20)
def hard_divergences(options, n, dtype):
    given = hard_problem(BY_NAME["kl_divergence_from_logits"], "soft", options, n, dtype)
    temperature = np.broadcast_to(given.options.get("temperature", 1.0), len(given.x))
    rows = [exact_divergence(*row) for row in zip(given.x, given.targets, temperature, strict=True)]
    value, grad, size = (np.array(part) for part in zip(*rows, strict=True))
    return given, exact(value), exact(grad, size)


@sweep((2, 10), at_most=2)
@pytest.mark.parametrize("options", ["nothing", "cold", "temperatures"])
def test_divergences_of_hard_rows(options, lengths, dtype):
    """Nearly equal rows too, whose divergence is far below their rounding errors."""
    for n in lengths:
        given, value, grad = hard_divergences(options, n, dtype)
        bounds = (1, 1) if dtype == np.float32 else given.loss.bounds(given.options, hard=True)
        for axis in (-1, 0):
            got, got_grad = given.value_and_grad(axis, reduction="none")
            alone = given.value(axis, reduction="none")
            worst = max(oracle.ulp_error(v, value).max() for v in (got, alone))
            worst_grad = oracle.ulp_error(np.moveaxis(got_grad, axis, -1), grad).max()
            assert worst <= bounds[0], f"{given.loss}, n={n}, {options}: {worst:.3g} ulp"
            assert worst_grad <= bounds[1], (
                f"{given.loss}, n={n}, {options}: gradient {worst_grad:.3g} ulp"
            )
