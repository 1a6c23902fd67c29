"""Losses: their targets, the formulas as one writes them in NumPy, and calls of PyTorch and JAX.

The result is the loss, averaged over rows or elements, or for a `..._value_and_grad` its gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .cases import Case
from .formulas import Array, Call, numpy_log_softmax, numpy_sigmoid, numpy_softmax

WITH_GRADIENT = "_value_and_grad"


def class_labels(case: Case) -> Array:
    """The same label of each row each time."""
    return np.random.default_rng(1).integers(0, case.shape[-1], case.shape[:-1])


def yes_or_no(case: Case) -> Array:
    """0 or 1 for each element, of the dtype of the scores."""
    return np.random.default_rng(1).integers(0, 2, case.shape).astype(case.dtype)


def numpy_cross_entropy(x: Array, labels: Array) -> Any:
    return -np.take_along_axis(numpy_log_softmax(x, -1), labels[:, None], -1).mean()


def numpy_cross_entropy_gradient(x: Array, labels: Array) -> Any:
    gradient = numpy_softmax(x, -1)
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient / len(labels)


def numpy_binary_cross_entropy(x: Array, targets: Array) -> Any:
    return (np.maximum(x, 0) - x * targets + np.log1p(np.exp(-np.abs(x)))).mean()


def numpy_binary_cross_entropy_gradient(x: Array, targets: Array) -> Any:
    return (numpy_sigmoid(x) - targets) / x.size


class Loss(NamedTuple):
    """The targets for a case, value and gradient in NumPy, and the name in torch.nn.functional."""

    targets: Callable[[Case], Array]
    numpy: Callable[[Array, Array], Any]
    numpy_gradient: Callable[[Array, Array], Any]
    torch: str


LOSSES = {
    "cross_entropy": Loss(
        class_labels, numpy_cross_entropy, numpy_cross_entropy_gradient, "cross_entropy"
    ),
    "binary_cross_entropy_with_logits": Loss(
        yes_or_no,
        numpy_binary_cross_entropy,
        numpy_binary_cross_entropy_gradient,
        "binary_cross_entropy_with_logits",
    ),
}


def loss_of(case: Case) -> Loss | None:
    """The loss of the case's operation; None if that is not one."""
    return LOSSES.get(case.operation.removesuffix(WITH_GRADIENT))


def has_gradient(case: Case) -> bool:
    return case.operation.endswith(WITH_GRADIENT)


def fastsoftmax_call(loss: Loss, case: Case, fastsoftmax: Any, x: Array) -> Call:
    options = {"out": np.empty_like(x)} if case.out else {}
    call = partial(getattr(fastsoftmax, case.operation), x, loss.targets(case), **options)
    return (lambda: call()[1]) if has_gradient(case) else call


def numpy_call(loss: Loss, case: Case, x: Array) -> Call:
    """Value and gradient as two formulas, of which each computes the exponentials."""
    targets = loss.targets(case)
    if not has_gradient(case):
        return partial(loss.numpy, x, targets)

    def value_and_gradient() -> Any:
        loss.numpy(x, targets)
        return loss.numpy_gradient(x, targets)

    return value_and_gradient


def torch_call(loss: Loss, case: Case, torch: Any, x: Array) -> Call:
    """The forward pass, and where there is a gradient the backward pass."""
    function = getattr(torch.nn.functional, loss.torch)
    scores, targets = torch.from_numpy(x), torch.from_numpy(loss.targets(case))
    if not has_gradient(case):
        return partial(function, scores, targets)
    scores.requires_grad_()

    def forward_and_backward() -> Any:
        scores.grad = None
        function(scores, targets).backward()
        return scores.grad

    return forward_and_backward


def jax_call(case: Case, jax: Any, x: Array) -> Call:
    """Cross-entropy, and where there is a gradient both from one compiled function."""
    labels = jax.numpy.asarray(class_labels(case))[:, None]

    def mean(scores: Any) -> Any:
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(scores, axis=-1), labels, -1).mean()

    function = jax.jit(jax.value_and_grad(mean) if has_gradient(case) else mean)
    scores = jax.numpy.asarray(x)
    if has_gradient(case):
        return lambda: jax.block_until_ready(function(scores))[1]
    return lambda: jax.block_until_ready(function(scores))


def reference(case: Case) -> Array:
    """The result of any operation in longdouble."""
    loss = loss_of(case)
    if not loss:
        return case.reference()
    x, targets = case.scores().astype(np.longdouble), loss.targets(case)
    return np.asarray((loss.numpy_gradient if has_gradient(case) else loss.numpy)(x, targets))
