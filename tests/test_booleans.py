"""Booleans of any byte: whatever is not 0 is true, in every argument of every function.

NumPy and PyTorch make such bytes where other memory is viewed as bool, and convert them to 0 and 1.
"""

import importlib.util

import numpy as np
import pytest
from arrays import Exporter
from cases import CASES, WITH_VJP, supporting

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

SHAPE = (6, 5)
LABELS = np.arange(6) % 5
KINDS = ["float32", "float64", "float16", "longdouble"]
BYTES = np.array([255, 0, 2, 1, 128, 0, 64], np.uint8)


def odd(shape):
    """Booleans of many bytes."""
    return np.resize(BYTES, shape).view(bool)


def memories(mask):
    """The same bytes in every order and at every distance."""
    raw = mask.view(np.uint8)
    yield mask
    yield np.asfortranarray(raw).view(bool)
    yield raw[::-1].copy()[::-1].view(bool)
    yield raw.repeat(2, -1).view(bool)[..., ::2]
    yield np.broadcast_to(mask[:1], mask.shape)
    yield Exporter(mask)
    if importlib.util.find_spec("torch"):
        import torch

        yield torch.from_numpy(raw.copy()).view(torch.bool)


def scores(kind):
    return np.linspace(-3, 3, 30).reshape(SHAPE).astype(kind)


def probabilities(kind):
    return np.linspace(0.01, 0.99, 30).reshape(SHAPE).astype(kind)


def activations():
    """(label, call): for each argument that may be an array of the shape of the scores."""
    for case in CASES:
        yield f"{case} x", lambda m, kind, f=case.call: f(m)
    for case in supporting("where"):
        yield f"{case} where", lambda m, kind, f=case.call: f(scores(kind), where=m)
        yield f"{case} where axis 0", lambda m, kind, f=case.call: f(scores(kind), 0, where=m)
    for case in WITH_VJP:
        gradient = (lambda kind: scores(kind)[:, 0]) if case.reduced else scores
        yield f"{case.vjp} saved", lambda m, kind, f=case.call_vjp, g=gradient: f(g(kind), m)
        if not case.reduced:
            yield f"{case.vjp} g", lambda m, kind, f=case.call_vjp: f(m, probabilities(kind))
    yield "logsumexp b", lambda m, kind: fs.logsumexp(scores(kind), b=m)
    yield "hardmax", lambda m, kind: fs.hardmax(m)
    yield "logprobs", lambda m, kind: fs.logprobs(m, LABELS)
    yield "top_k_logprobs", lambda m, kind: fs.top_k_logprobs(m, 2)
    yield "fit_temperature", lambda m, kind: fs.fit_temperature(m, LABELS)


def losses():
    """(label, call): likewise."""
    binary = fs.binary_cross_entropy_value_and_grad
    logits = fs.binary_cross_entropy_with_logits_value_and_grad
    boosting = fs.binary_cross_entropy_with_logits_grad_hess
    rows = fs.cross_entropy_value_and_grad
    for how in ("none", "sum"):
        yield (
            f"binary targets {how}",
            lambda m, kind, r=how: binary(probabilities(kind), m, reduction=r),
        )
        yield f"logits targets {how}", lambda m, kind, r=how: logits(scores(kind), m, reduction=r)
        for name in ("weight", "pos_weight"):
            yield (
                f"logits {name} {how}",
                lambda m, kind, r=how, n=name: logits(
                    scores(kind), probabilities(kind), reduction=r, **{n: m}
                ),
            )
        yield (
            f"binary weight {how}",
            lambda m, kind, r=how: binary(
                probabilities(kind), probabilities(kind), weight=m, reduction=r
            ),
        )
        yield (
            f"rows where {how}",
            lambda m, kind, r=how: rows(scores(kind), LABELS, where=m, reduction=r),
        )
    yield (
        "rows where mean",
        lambda m, kind: rows(scores(kind), LABELS, where=m, label_smoothing=0.1),
    )
    yield "boosting targets", lambda m, kind: boosting(scores(kind), m)
    yield (
        "boosting weight",
        lambda m, kind: boosting(scores(kind), scores(kind) > 0, sample_weight=m),
    )
    yield "rows logits", lambda m, kind: rows(m, LABELS)
    yield "binary probs", lambda m, kind: binary(m, probabilities(kind))
    yield "logits logits", lambda m, kind: logits(m, probabilities(kind))
    yield "nll", lambda m, kind: fs.nll_loss_value_and_grad(m, LABELS)
    yield "kl log_q", lambda m, kind: fs.kl_divergence_value_and_grad(m, probabilities(kind))
    yield "kl p", lambda m, kind: fs.kl_divergence_value_and_grad(scores(kind), m)
    yield (
        "kl target_logits",
        lambda m, kind: fs.kl_divergence_from_logits_value_and_grad(scores(kind), m),
    )


def one_for_each_row():
    """(label, call): of a boolean for each row."""
    for name in (
        "cross_entropy_value_and_grad",
        "nll_loss_value_and_grad",
        "cross_entropy_grad_hess",
    ):
        f = getattr(fs, name)
        yield name, lambda m, kind, f=f: f(scores(kind), LABELS, sample_weight=m)
    yield (
        "fit_temperature",
        lambda m, kind: fs.fit_temperature(scores(kind), LABELS, sample_weight=m),
    )
    yield "logsumexp_vjp", lambda m, kind: fs.logsumexp_vjp(m, scores(kind))
    one = fs.cross_entropy_value_and_grad
    yield "weight of a class", lambda m, kind: one(scores(kind).T, [0, 1, 2, 3, 4], weight=m)


def same(call, mask, kind):
    """Assert that a call knows only true and false."""
    for array in memories(mask):
        plain = (
            np.asarray(array.array if isinstance(array, Exporter) else array).view(np.uint8) != 0
        )
        got, expected = call(array, kind), call(plain, kind)
        for a, b in zip(
            *(r if isinstance(r, tuple) else (r,) for r in (got, expected)), strict=True
        ):
            a, b = (np.asarray(r, np.float64) for r in (a, b))
            np.testing.assert_allclose(a, b, rtol=1e-6)  # sums may be made in another order


@pytest.mark.parametrize(
    "call", [pytest.param(call, id=name) for name, call in [*activations(), *losses()]]
)
def test_every_argument(call):
    for kind in KINDS:
        same(call, odd(SHAPE), kind)


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in one_for_each_row()])
def test_one_for_each_row(call):
    for kind in KINDS:
        same(call, odd(6), kind)


def test_all_is_true():
    """As temperatures, true is 1."""
    true = np.array([255, 2, 128, 1, 3, 77], np.uint8).view(bool)
    expected = fs.softmax(scores(float))
    np.testing.assert_array_equal(fs.softmax(scores(float), temperature=true[:, None]), expected)


def test_a_long_line():
    """In whole vectors, and past the first block."""
    mask, x = odd(100_003), np.linspace(-3, 3, 100_003)
    for array in (mask, mask[::-1], mask[::3]):
        plain = array.view(np.uint8) != 0
        z = x[: len(array)]
        for f in (
            fs.binary_cross_entropy_with_logits,
            fs.binary_cross_entropy_with_logits_grad_hess,
        ):
            np.testing.assert_equal(f(z, array), f(z, plain))
    loss = fs.binary_cross_entropy_with_logits(np.zeros(4), odd(4), reduction="none")
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-15)
