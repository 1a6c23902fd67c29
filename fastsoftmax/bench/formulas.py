"""The formulas as one writes them in NumPy; on longdouble all but one are the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastsoftmax

Array = NDArray[Any]
Call = Callable[[], Any]


def numpy_softmax(x: Array, axis: int) -> Any:
    """The stable formula of the textbooks."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def numpy_log_softmax(x: Array, axis: int) -> Any:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def numpy_logsumexp(x: Array, axis: int) -> Any:
    top = x.max(axis, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(axis, keepdims=True))).squeeze(axis)


def numpy_sigmoid(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


def accurate_log_softmax(x: Array, axis: int) -> Any:
    """The reference. Next to 0 the logarithm of the sum loses digits,
    log1p of the sum of the others none.
    """
    shifted = x - x.max(axis, keepdims=True)
    others = np.exp(shifted)
    np.put_along_axis(others, np.expand_dims(x.argmax(axis), axis), 0, axis)
    return shifted - np.log1p(others.sum(axis, keepdims=True))


# --- the same without arrays of the size of x, but for `out` and one to work in -------------------


def numpy_softmax_into(out: Array, work: Array, x: Array, axis: int) -> Array:
    np.subtract(x, x.max(axis, keepdims=True), out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis, keepdims=True), out=out)
    return out


def numpy_log_softmax_into(out: Array, work: Array, x: Array, axis: int) -> Array:
    np.subtract(x, x.max(axis, keepdims=True), out=out)
    np.exp(out, out=work)
    np.subtract(out, np.log(work.sum(axis, keepdims=True)), out=out)
    return out


def numpy_sigmoid_into(out: Array, work: Array, x: Array) -> Array:
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.reciprocal(out, out=out)
    return out


class Operation(NamedTuple):
    """A function of this package, the same in NumPy without and with `out`,
    and its name in scipy.special.
    """

    ours: Callable[..., Any]
    numpy: Callable[..., Any]
    numpy_into: Callable[..., Array] | None
    scipy: str


OPERATIONS = {
    "softmax": Operation(fastsoftmax.softmax, numpy_softmax, numpy_softmax_into, "softmax"),
    "log_softmax": Operation(
        fastsoftmax.log_softmax, numpy_log_softmax, numpy_log_softmax_into, "log_softmax"
    ),
    "logsumexp": Operation(fastsoftmax.logsumexp, numpy_logsumexp, None, "logsumexp"),
    "sigmoid": Operation(fastsoftmax.sigmoid, numpy_sigmoid, numpy_sigmoid_into, "expit"),
}
