"""One row per loss: signatures, formula in NumPy's longest floats, values by hand, options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import oracle
from cases import LOG2, LOG3
from remembered import remembered

import fastsoftmax

LONG = np.longdouble
ONE = LONG(1)


# --- formulas: classes along the last axis, one number for each row with that axis at length 1 ----


@dataclass(frozen=True, eq=False)
class Answer:
    """Losses and their derivatives, and how large the terms are
    whose rounding errors they inherit.
    """

    loss: np.ndarray
    size: np.ndarray
    grad: np.ndarray
    grad_size: np.ndarray
    share: np.ndarray  # what each loss adds to the divisor of "mean"
    counted: np.ndarray

    @np.errstate(all="ignore")
    def reduced(self, reduction):
        """The loss and the gradient after a reduction, each as what `oracle.ulp_error` takes."""
        divisor = {
            "none": LONG(1),
            "sum": LONG(1),
            "mean": self.share.sum(),
            "batchmean": LONG(self.counted.sum()),
        }[reduction]
        grad, grad_size = self.grad / divisor, self.grad_size / np.abs(divisor)
        if not divisor:
            grad = np.zeros_like(grad)
        if reduction == "none":
            return exact(self.loss, self.size), exact(grad, grad_size)
        total = self.loss.sum() / divisor if divisor else LONG("nan")
        return exact(total, self.size.sum() / np.abs(divisor)), exact(grad, grad_size)


@np.errstate(all="ignore")
def exact(value, size=0.0):
    """A number in longdouble, with the size of its terms as the least
    that its errors are counted against.
    """
    value = np.asarray(value, LONG)
    hi = value.astype(np.float64)
    lo = np.where(np.isfinite(hi), value - hi, 0).astype(np.float64)
    floor = np.broadcast_to(np.asarray(size, np.float64), hi.shape)
    return oracle.Exact(
        hi, lo, np.zeros(hi.shape, np.int64), np.where(np.isfinite(floor), floor, 0.0)
    )


def unflushed(grad, answer):
    """A gradient with what probabilities flushed to 0 below the
    smallest normal number took from it.
    """
    with np.errstate(under="ignore"):
        tiny = (grad == 0) & (np.abs(answer.hi) < 64 * np.finfo(grad.dtype).smallest_normal)
        return np.where(tiny, answer.hi, grad).astype(grad.dtype)


def quotient(a, b):
    """a / b and what its rounding took, by Dekker's product (1971)."""

    def halves(v):
        high = v * (2.0**32 + 1)
        high = high - (high - v)
        return high, v - high

    q = a / b
    (q_high, q_low), (b_high, b_low) = halves(q), halves(b)
    rest = (((a - q_high * b_high) - q_high * b_low) - q_low * b_high) - q_low * b_low
    return q, np.where(np.isfinite(rest), rest / b, 0)


def log_probabilities(x, temperature=ONE, present=True):
    """Logarithms of the softmax, 0 less a sum where a class is nearly certain; of the sum;
    the softmax.
    """
    x = np.where(present, x, -np.inf)
    top = x.max(-1, keepdims=True)
    below, rounding = quotient(x - top, np.asarray(temperature))
    powers = np.exp(below) * (1 + rounding)
    others = powers.copy()
    np.put_along_axis(others, x.argmax(-1, keepdims=True), 0, -1)
    others = others.sum(-1, keepdims=True)
    log_total = np.where(top == np.inf, np.nan, np.log1p(others))
    undefined = 0 * log_total.clip(0, 0)
    return below - log_total, top / temperature + log_total, powers / (1 + others) + undefined


def product(coefficient, value):
    """A coefficient of 0 drops its term, be it infinite or NaN."""
    return np.where(coefficient == 0, 0, coefficient * value)


def is_hard(targets):
    return np.asarray(targets).dtype.kind in "iu"


def masses(x, targets):
    return (
        np.expand_dims(targets, -1) == np.arange(x.shape[-1]) if is_hard(targets) else long(targets)
    )


def labels_share(targets, weight, sample_weight, counted):
    """What rows add to the divisor of "mean":
    the weight of the label's class, for rows that count.
    """
    row = np.ones(counted.shape, LONG)
    if is_hard(targets) and np.ndim(weight):
        row = long(weight)[np.where(counted, np.expand_dims(targets, -1), 0).astype(np.intp)]
    return np.where(counted, row * sample_weight, 0)


def cross_entropy(
    x,
    targets,
    *,
    weight=ONE,
    sample_weight=ONE,
    ignore_index=None,
    label_smoothing=0.0,
    temperature=ONE,
    where=True,
    z_loss=0.0,
):
    smoothing, z_loss = LONG(label_smoothing), LONG(z_loss)
    present = np.broadcast_to(where, x.shape)
    counted = present.any(-1, keepdims=True) & (sample_weight != 0)
    if ignore_index is not None:
        counted = counted & (np.expand_dims(targets, -1) != ignore_index)
    classes = np.maximum(present.sum(-1, keepdims=True), 1)
    q = weight * ((1 - smoothing) * masses(x, targets) + present * smoothing / classes)
    log_p, log_sum, p = log_probabilities(x, temperature, present)
    terms = product(q, -log_p)
    square = z_loss * log_sum**2
    # Where the maximum and the logarithm of the sum cancel, errors count against a sixteenth of the
    # maximum.
    log_size = np.maximum(
        np.abs(log_sum),
        np.abs(np.where(present, x / temperature, -np.inf).max(-1, keepdims=True)) / 16,
    )
    pull, push = q * np.expm1(log_p), (q.sum(-1, keepdims=True) - q) * p
    drift = 2 * z_loss * log_sum * p
    drift_size = 2 * z_loss * log_size * p
    grad = sample_weight * (pull + push + drift) / temperature
    # The label's own p - 1 keeps its digits; other parts of masses are rounded like the whole of
    # them.
    alone = is_hard(targets) and not smoothing and not z_loss
    push_size = np.abs(push) if alone else np.abs(q).sum(-1, keepdims=True) * p
    grad_size = np.abs(sample_weight) * (np.abs(pull) + push_size + drift_size) / temperature
    loss = sample_weight * (terms.sum(-1, keepdims=True) + square + 0 * log_sum.clip(0, 0))
    size = np.abs(sample_weight) * (
        np.abs(terms).sum(-1, keepdims=True) + z_loss * np.abs(log_sum) * log_size
    )
    return Answer(
        np.where(counted, loss, 0)[..., 0],
        np.where(counted, size, 0)[..., 0],
        np.where(counted & present, grad, 0),
        np.where(counted & present, grad_size, 0),
        labels_share(targets, weight, sample_weight, counted)[..., 0],
        counted[..., 0],
    )


def nll_loss(x, targets, *, weight=ONE, sample_weight=ONE, ignore_index=None):
    counted = np.ones((*x.shape[:-1], 1), bool) & (sample_weight != 0)
    if ignore_index is not None:
        counted = counted & (np.expand_dims(targets, -1) != ignore_index)
    q = weight * masses(x, targets) * counted
    terms = product(q, -x)
    loss, size = terms.sum(-1, keepdims=True), np.abs(terms).sum(-1, keepdims=True)
    loss, size = (
        product(counted, sample_weight * loss),
        product(counted, np.abs(sample_weight) * size),
    )
    grad = -q * sample_weight
    share = labels_share(targets, weight, sample_weight, counted)
    return Answer(loss[..., 0], size[..., 0], grad, np.abs(grad), share[..., 0], counted[..., 0])


def of_elements(weight, terms, grad_terms):
    """The answer for losses of elements, from the terms of each and of its derivative."""
    loss, size = product(weight, sum(terms)), product(np.abs(weight), sum(map(np.abs, terms)))
    grad = product(weight, sum(grad_terms))
    grad_size = product(np.abs(weight), sum(map(np.abs, grad_terms)))
    return Answer(loss, size, grad, grad_size, np.ones(loss.shape, LONG), np.ones(loss.shape, bool))


def binary_cross_entropy(p, targets, *, weight=ONE, clamp=np.inf):
    t = long(targets)
    log_p, log_q = np.log(p), np.log1p(-p)
    terms = product(t, -np.maximum(log_p, -clamp)), product(1 - t, -np.maximum(log_q, -clamp))
    fall, rise = np.where(log_p < -clamp, 0, -1 / p), np.where(log_q < -clamp, 0, 1 / (1 - p))
    outside = np.where((p >= 0) & (p <= 1), 0, np.nan)
    return of_elements(weight + outside, terms, (product(t, fall), product(1 - t, rise)))


def binary_cross_entropy_with_logits(x, targets, *, weight=ONE, pos_weight=ONE):
    t = long(targets)
    softplus = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    softplus_of_minus = np.maximum(-x, 0) + np.log1p(np.exp(-np.abs(x)))
    sigmoid, sigmoid_of_minus = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
    terms = product(pos_weight * t, softplus_of_minus), product(1 - t, softplus)
    return of_elements(
        weight, terms, (product(pos_weight * t, -sigmoid_of_minus), product(1 - t, sigmoid))
    )


def of_divergences(terms, size, grad, grad_size):
    loss, size = terms.sum(-1), size.sum(-1)
    return Answer(loss, size, grad, grad_size, np.ones(loss.shape, LONG), np.ones(loss.shape, bool))


def kl_divergence(log_q, p, *, log_target=False):
    p = long(p)
    p, log_p = (np.exp(p), p) if log_target else (p, np.log(p))
    terms = product(p, log_p - log_q)
    # Where p is given, its logarithm is good to a 64th of an ulp: to a quarter of that of a term.
    size = np.abs(terms) + (0 if log_target else product(p, np.abs(log_p)) / 256)
    return of_divergences(terms, size, -p, np.abs(p))


def kl_divergence_from_logits(x, target_logits, *, temperature=ONE):
    log_p, _, p = log_probabilities(x, temperature)
    log_target, _, target = log_probabilities(long(target_logits), temperature)
    terms = product(target, log_target - log_p)
    return of_divergences(
        terms, np.abs(terms), (p - target) / temperature, (p + target) / temperature
    )


def long(a):
    """Longest floats; half precision has no direct way there."""
    a = np.asarray(a)
    return (a.astype(np.float64) if a.dtype.itemsize < 8 else a).astype(LONG)


# --- inputs ---------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def typical_logits(shape, dtype, rng):
    """Rows of several scales and shifts; in every fifth one class is nearly certain."""
    rows = (*shape[:-1], 1)
    x = rng.normal(size=shape) * rng.choice([1, 3, 20], rows) + rng.choice([0, 0, 30, -300], rows)
    x[..., :1] += 25 * (rng.uniform(size=rows) < 0.2)
    return x.astype(dtype)


def typical_scores(shape, dtype, rng):
    """Where nothing underflows."""
    return np.clip(rng.normal(size=shape) * rng.choice([1, 3, 20], shape), -80, 80).astype(dtype)


def typical_log_probs(shape, dtype, rng):
    return -np.abs(typical_logits(shape, dtype, rng))


@np.errstate(all="ignore")
def typical_probs(shape, dtype, rng):
    """The middle, both ends, and numbers next to them."""
    p = rng.uniform(size=shape) ** rng.choice([1, 1, 9], shape)
    return np.where(rng.uniform(size=shape) < 0.2, 1 - p * 1e-3, p).astype(dtype)


def labels(x, rng):
    """The first class for a third of the rows: it is the one that may be nearly certain."""
    return rng.integers(0, x.shape[-1], x.shape[:-1]) * (rng.uniform(size=x.shape[:-1]) < 0.7)


def distributions(x, rng):
    """Masses for the classes, some of them 0; they need not sum to 1."""
    p = rng.exponential(size=x.shape) * (rng.uniform(size=x.shape) < 0.8)
    p = p / np.maximum(p.sum(-1, keepdims=True), 0.1) * rng.uniform(0.8, 1.2, (*x.shape[:-1], 1))
    return p.astype(storable(x))


def answers(x, rng):
    """Yes, no, and in between."""
    return np.clip(rng.uniform(-0.5, 1.5, x.shape), 0, 1).astype(storable(x))


def storable(x):
    return x.dtype if x.dtype in (np.float32, np.float64) else np.float32


def mask(x, targets, rng):
    """Every target has its class, and some rows nothing at all."""
    present = rng.uniform(size=x.shape) < 0.8
    if is_hard(targets):
        np.put_along_axis(present, np.expand_dims(targets, -1), True, -1)
    else:
        present |= targets > 0
    return present & (rng.uniform(size=(*x.shape[:-1], 1)) < 0.9)


# Each makes one option, from the scores, the targets and a generator of random numbers.
ROW_OPTIONS: dict[str, Callable] = {
    "weight": lambda x, t, rng: rng.uniform(0.1, 3, x.shape[-1]),
    "sample_weight": lambda x, t, rng: rng.uniform(0.1, 3, x.shape[:-1]),
    "ignore_index": lambda x, t, rng: 0,
    "label_smoothing": lambda x, t, rng: 0.125,
    "temperature": lambda x, t, rng: 2.5,
    "temperature of each row": lambda x, t, rng: rng.uniform(0.5, 4, x.shape[:-1]),
    "where": mask,
    "z_loss": lambda x, t, rng: 1e-2,
}
ELEMENT_OPTIONS: dict[str, Callable] = {
    "weight": lambda x, t, rng: rng.uniform(0.1, 3, x.shape),
    "pos_weight": lambda x, t, rng: rng.uniform(0.1, 9, x.shape[-1]),
    "clamp": lambda x, t, rng: 3.0,
}


def only(options, *names):
    return {name: options[name] for name in names}


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Loss:
    name: str
    signature: str
    gradient_signature: str
    formula: Callable
    hand: tuple  # (scores, targets, options, loss)
    options: dict
    targets: dict  # kind -> how to make them from the scores
    typical: Callable = typical_logits
    scores: str = "logits"
    second: str = "targets"
    elementwise: bool = False
    # Reduced losses of distributions are sums of elements: they do not go by rows.
    sums_elements: bool = False
    # Calls in every regime: what their names add -> targets and options, of `regimes.Given`; with
    # the gradient, but for those in `without_gradient`. And of the function of second derivatives.
    calls: dict[str, Callable] = field(default_factory=dict)
    without_gradient: tuple[str, ...] = ()
    grad_hess: Callable | None = None
    # The largest errors, in units in the last place of the result or, if it is larger, of the sum
    # of the magnitudes of its terms (`Answer.size` and `grad_size`). Docstrings promise the same
    # numbers.
    ulp: float = 4  # of a loss without options
    ulp_options: float = 6  # with options
    grad_ulp: float = 8
    hard_ulp: float = 0  # of both in float64 where rows were bred for it, if that is more

    def __str__(self):
        return self.name

    @property
    def call(self):
        return getattr(fastsoftmax, self.name)

    @property
    def call_with_grad(self):
        return getattr(fastsoftmax, f"{self.name}_value_and_grad")

    @property
    def grad_hess_name(self):
        return f"{self.name}_grad_hess"

    @property
    def call_grad_hess(self):
        return getattr(fastsoftmax, self.grad_hess_name)

    @property
    def default_reduction(self):
        return "batchmean" if "'batchmean'" in self.signature else "mean"

    def axis(self, axis):
        """As an option: losses of elements have none."""
        return {} if self.elementwise else {"axis": axis}

    def problem(self, shape, dtype, rng, kind=None, options=()):
        """Typical arguments; the classes are along the last axis of ``shape``."""
        x = self.typical(shape, dtype, rng)
        targets = self.targets[kind or self.kinds[0]](x, rng)
        made = {name.split()[0]: self.options[name](x, targets, rng) for name in options}
        return Problem(self, x, targets, made)

    def bounds(self, options=(), hard=False):
        """Of the loss and of its gradient: what `Problem.errors` may return."""
        least = self.hard_ulp if hard else 0
        return max(self.ulp_options if options else self.ulp, least), max(self.grad_ulp, least)

    @property
    def kinds(self):
        return tuple(self.targets)

    def allowed(self, kind):
        """Options that go with a kind of targets."""
        return [name for name in self.options if kind == "labels" or name != "ignore_index"]


@remembered
def answer_of(formula, x, targets, **options):
    """What a formula gives for the arguments of a loss."""
    for name in {"sample_weight", "temperature"} & set(options):
        options[name] = long(options[name])
        if np.ndim(options[name]):
            options[name] = np.expand_dims(options[name], -1)
    for name in {"weight", "pos_weight"} & set(options):
        options[name] = long(options[name])
    with np.errstate(all="ignore"):
        return formula(long(x), targets, **options)


@dataclass(frozen=True, eq=False)
class Problem:
    """Arguments of a loss, classes along the last axis; and the answer."""

    loss: Loss
    x: np.ndarray
    targets: np.ndarray
    options: dict = field(default_factory=dict)

    @cached_property
    def answer(self):
        return answer_of(self.loss.formula, self.x, self.targets, **self.options)

    def arguments(self, axis=-1):
        """Positional and keyword arguments with the classes along ``axis``."""

        def turn(a):
            if axis == -1 or np.shape(a) != self.x.shape:
                return a
            return np.ascontiguousarray(np.moveaxis(a, -1, axis))

        if self.loss.elementwise:
            assert axis == -1
        options = self.options | (
            {"where": turn(self.options["where"])} if "where" in self.options else {}
        )
        return (turn(self.x), turn(self.targets)), options | self.loss.axis(axis)

    def value(self, axis=-1, **more):
        arrays, options = self.arguments(axis)
        return self.loss.call(*arrays, **(options | more))

    def value_and_grad(self, axis=-1, **more):
        arrays, options = self.arguments(axis)
        return self.loss.call_with_grad(*arrays, **(options | more))

    def errors(self, axis=-1, reduction="none", **more):
        """Largest errors of the loss, from either function, and of the gradient, in ulp."""
        loss, grad = self.answer.reduced(reduction)
        alone = self.value(axis, reduction=reduction, **more)
        value, got = self.value_and_grad(axis, reduction=reduction, **more)
        assert np.shape(alone) == np.shape(value) == loss.shape
        assert (
            alone.dtype == value.dtype == (np.float64 if self.x.dtype.itemsize == 8 else np.float32)
        )
        got = np.moveaxis(got, axis, -1) if got.ndim else got
        assert got.shape == self.x.shape
        got = unflushed(got, grad) if self.loss.elementwise else got
        found = (oracle.ulp_error(a, e) for a, e in ((alone, loss), (value, loss), (got, grad)))
        alone, value, got = (float(np.max(f, initial=0.0)) for f in found)
        return max(alone, value), got

    def check(self, axis=-1, reduction="none", about="", **more):
        error, grad_error = self.errors(axis, reduction, **more)
        bound, grad_bound = self.loss.bounds(self.options)
        about = (
            f"{self.loss} of {self.x.shape} {about}, axis {axis}, {reduction}, {list(self.options)}"
        )
        assert error <= bound, f"{about}: loss {error:.3g} ulp"
        assert grad_error <= grad_bound, f"{about}: gradient {grad_error:.3g} ulp"


CROSS_ENTROPY = (
    "(logits, targets, axis=-1, *, weight=None, sample_weight=None, ignore_index=None,"
    " label_smoothing=0.0, temperature=1.0, where=None, z_loss=0.0, reduction='mean',"
    " {}num_threads=None)"
)
NLL_LOSS = (
    "(log_probs, targets, axis=-1, *, weight=None, sample_weight=None, ignore_index=None,"
    " reduction='mean', {}num_threads=None)"
)
BINARY = "(probs, targets, *, weight=None, clamp=None, reduction='mean', {}num_threads=None)"
BINARY_WITH_LOGITS = (
    "(logits, targets, *, weight=None, pos_weight=None, reduction='mean', {}num_threads=None)"
)
KL = "(log_q, p, axis=-1, *, log_target=False, reduction='batchmean', {}num_threads=None)"
KL_FROM_LOGITS = (
    "(logits, target_logits, axis=-1, *, temperature=1.0, reduction='batchmean',"
    " {}num_threads=None)"
)
GRAD_HESS = {
    "cross_entropy_grad_hess": (
        "(logits, targets, axis=-1, *, sample_weight=None, hess_factor=1.0, "
        "hess_floor=0.0, grad_out=None, hess_out=None, num_threads=None)"
    ),
    "binary_cross_entropy_with_logits_grad_hess": (
        "(logits, targets, *, sample_weight=None, hess_factor=1.0, "
        "hess_floor=0.0, grad_out=None, hess_out=None, num_threads=None)"
    ),
}


def signatures(pattern):
    return {"signature": pattern.format(""), "gradient_signature": pattern.format("out=None, ")}


LOSSES = (
    Loss(
        name="cross_entropy",
        **signatures(CROSS_ENTROPY),
        formula=cross_entropy,
        hand=(
            ([0.0, 0.0], 0, {}, LOG2),
            ([0.0, LOG3], 0, {}, 2 * LOG2),
            (
                [[0.0, LOG3], [LOG3, 0.0]],
                [1, 1],
                {"reduction": "none"},
                [2 * LOG2 - LOG3, 2 * LOG2],
            ),
            ([20.0, 0.0], 0, {}, 2.0611536203e-09),
            ([0.0, 1000.0], 0, {}, 1000.0),
            ([0.0, 1000.0], 1, {}, 0.0),
            ([0.0, LOG3], [0.5, 0.5], {}, 2 * LOG2 - LOG3 / 2),
            ([0.0, LOG3], 1, {"label_smoothing": 1.0}, 2 * LOG2 - LOG3 / 2),
            ([0.0, 3 * LOG3], 0, {"temperature": 3.0}, 2 * LOG2),
            ([0.0, 0.0, 9.0], 0, {"where": [True, True, False]}, LOG2),
            ([0.0, 0.0], 0, {"z_loss": 2.0, "reduction": "sum"}, LOG2 + 2 * LOG2**2),
            ([0.0, 0.0], 1, {"weight": [1.0, 3.0], "reduction": "sum"}, 3 * LOG2),
            (
                [[0.0, 0.0], [0.0, LOG3]],
                [0, 1],
                {"weight": [1.0, 3.0]},
                7 / 4 * LOG2 - 3 / 4 * LOG3,
            ),
            ([[0.0, 0.0], [7.0, 5.0]], [0, -1], {"ignore_index": -1}, LOG2),
        ),
        options=ROW_OPTIONS,
        targets={"labels": labels, "soft": distributions},
        calls={
            "": lambda given: (given.labels, {}),
            "none": lambda given: (given.labels, {"reduction": "none", "where": given.where}),
            "gradient": lambda given: (given.labels, {}),
            "options": lambda given: (
                given.labels,
                {
                    "temperature": given.t,
                    "z_loss": 0.1,
                    "label_smoothing": 0.1,
                    "weight": np.ones(given.n),
                },
            ),
            "z_loss": lambda given: (given.labels, {"z_loss": 0.1}),
            "targets": lambda given: (given.wide, {"weight": np.ones(given.n)}),
        },
        without_gradient=("", "none"),
        grad_hess=lambda given: (given.labels, {}),
    ),
    Loss(
        name="nll_loss",
        **signatures(NLL_LOSS),
        formula=nll_loss,
        hand=(
            ([-3.0, -1.0], 0, {}, 3.0),
            ([[-3.0, -1.0], [-5.0, -2.0]], [1, 0], {"reduction": "none"}, [1.0, 5.0]),
            ([[-3.0, -1.0], [-5.0, -2.0]], [1, 0], {}, 3.0),
            ([[-3.0, -1.0], [-5.0, -2.0]], [1, 0], {"weight": [3.0, 1.0]}, 4.0),
            ([-4.0, -2.0], [0.25, 0.75], {}, 2.5),
        ),
        options=only(ROW_OPTIONS, "weight", "sample_weight", "ignore_index"),
        targets={"labels": labels, "soft": distributions},
        typical=typical_log_probs,
        sums_elements=True,
        calls={
            "": lambda given: (given.labels, {}),
            "targets": lambda given: (given.wide, {}),
        },
        scores="log_probs",
    ),
    Loss(
        name="binary_cross_entropy",
        **signatures(BINARY),
        formula=binary_cross_entropy,
        hand=(
            ([0.5, 0.25], [1.0, 0.0], {"reduction": "none"}, [LOG2, 2 * LOG2 - LOG3]),
            ([0.5, 0.25], [1.0, 1.0], {}, 1.5 * LOG2),
            ([0.0, 1.0], [1.0, 0.0], {"clamp": 100.0}, 100.0),
            ([0.0, 1.0], [1.0, 0.0], {}, np.inf),
            ([0.0, 1.0], [0.0, 1.0], {}, 0.0),
            (0.25, 0.5, {}, 2 * LOG2 - LOG3 / 2),
        ),
        options=only(ELEMENT_OPTIONS, "weight", "clamp"),
        targets={"soft": answers},
        typical=typical_probs,
        scores="probs",
        elementwise=True,
        calls={"": lambda given: (given.p, {"weight": given.w})},
        grad_ulp=4,
    ),
    Loss(
        name="binary_cross_entropy_with_logits",
        **signatures(BINARY_WITH_LOGITS),
        formula=binary_cross_entropy_with_logits,
        hand=(
            ([0.0, LOG3], [1.0, 1.0], {"reduction": "none"}, [LOG2, 2 * LOG2 - LOG3]),
            ([-LOG3, LOG3], [1.0, 0.0], {}, 2 * LOG2),
            ([20.0], [1.0], {}, 2.0611536203e-09),
            ([-1000.0, 1000.0], [1.0, 1.0], {"reduction": "sum"}, 1000.0),
            ([0.0, 0.0], [1.0, 0.0], {"pos_weight": 3.0, "reduction": "none"}, [3 * LOG2, LOG2]),
            (0.0, 0.5, {"weight": 2.0}, 2 * LOG2),
        ),
        options=only(ELEMENT_OPTIONS, "weight", "pos_weight"),
        targets={"soft": answers},
        typical=typical_scores,
        elementwise=True,
        calls={
            "": lambda given: (given.p, {}),
            "options": lambda given: (given.p, {"weight": given.w, "pos_weight": given.w}),
        },
        grad_hess=lambda given: (given.p, {"sample_weight": given.w}),
        grad_ulp=6,
    ),
    Loss(
        name="kl_divergence",
        **signatures(KL),
        formula=kl_divergence,
        hand=(
            ([-LOG2, -LOG2], [1.0, 0.0], {}, LOG2),
            ([-LOG2, -LOG2], [0.75, 0.25], {}, 0.75 * LOG3 - LOG2),
            ([-LOG2, -LOG2], [0.0, -np.inf], {"log_target": True}, LOG2),
            ([[-LOG2, -LOG2], [0.0, -5.0]], [[1.0, 0.0], [1.0, 0.0]], {}, LOG2 / 2),
            (
                [[-LOG2, -LOG2], [0.0, -5.0]],
                [[1.0, 0.0], [1.0, 0.0]],
                {"reduction": "mean"},
                LOG2 / 2,
            ),
        ),
        sums_elements=True,
        options={},
        targets={"soft": distributions},
        typical=typical_log_probs,
        calls={
            "": lambda given: (given.wide, {}),
            "log_target": lambda given: (given.x, {"log_target": True}),
        },
        without_gradient=("log_target",),
        scores="log_q",
        second="p",
        grad_ulp=2,
    ),
    Loss(
        name="kl_divergence_from_logits",
        **signatures(KL_FROM_LOGITS),
        formula=kl_divergence_from_logits,
        hand=(
            ([0.0, 0.0], [0.0, LOG3], {}, 0.75 * LOG3 - LOG2),
            ([0.0, 1000.0], [0.0, 0.0], {}, 500.0 - LOG2),
            ([0.0, 0.0], [0.0, 2 * LOG3], {"temperature": 2.0}, 0.75 * LOG3 - LOG2),
            # log(cosh(d / 2)): the terms cancel but for a part in 10^9
            ([0.0, 1e-4], [0.0, 0.0], {}, 1.25e-9),
        ),
        options=only(ROW_OPTIONS, "temperature", "temperature of each row"),
        targets={"soft": lambda x, rng: typical_logits(x.shape, storable(x), rng)},
        second="target_logits",
        calls={"": lambda given: (given.x[::-1], {"temperature": given.t})},
        hard_ulp=16,
    ),
)

BY_NAME = {loss.name: loss for loss in LOSSES}
OF_ROWS = tuple(loss for loss in LOSSES if not loss.elementwise)
OF_ELEMENTS = tuple(loss for loss in LOSSES if loss.elementwise)
OF_LABELS = tuple(loss for loss in LOSSES if "labels" in loss.targets)
SIGNATURES = (
    {loss.name: loss.signature for loss in LOSSES}
    | {f"{loss.name}_value_and_grad": loss.gradient_signature for loss in LOSSES}
    | GRAD_HESS
)
