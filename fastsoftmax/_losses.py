"""What losses share: weights, reductions, and the calls of their kernels.

Kernels return the sum of all losses in float64, and write the losses one by one only where
``reduction="none"`` asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _inputs, _views
from ._call import Kernel, prepare
from ._outputs import Output, ShapedOutput
from ._targets import are, blocks
from ._views import Rows

Array = NDArray[Any]

FLOAT32 = np.dtype(np.float32)

REDUCTIONS = ("none", "sum", "mean", "batchmean")


# --- weights --------------------------------------------------------------------------------------


def as_class_weight(rows: Rows, weight: Any) -> Array | None:
    """A weight for each class, as float64 of shape (1, classes, 1)."""
    if weight is None:
        return None
    a = _inputs.as_float64(weight, "weight")
    if a.shape != (rows.classes,):
        raise ValueError(
            f"weight must have shape ({rows.classes},), one for each class, got {a.shape}"
        )
    return a.reshape(1, -1, 1)


def as_sample_weight(rows: Rows, weight: Any) -> Array | None:
    """A weight for each row, of a dtype that kernels take."""
    if weight is None:
        return None
    a = _inputs.as_numbers(weight, "sample_weight")
    _views.broadcast(a, rows.shape, "sample_weight")
    given = _inputs.is_compiled(a.dtype)
    return rows.per_row(a if given else _inputs.as_float64(a, "sample_weight"))


def as_element_weight(weight: Any, name: str, shape: tuple[int, ...]) -> Array | None:
    """A weight for each element, to whose shape it broadcasts."""
    if weight is None:
        return None
    a = _inputs.as_numbers(weight, name)
    _views.broadcast(a, shape, name)
    return a


# --- reductions -----------------------------------------------------------------------------------


def check_reduction(reduction: Any) -> None:
    """Raise ValueError unless it is one of REDUCTIONS."""
    if not (isinstance(reduction, str) and reduction in REDUCTIONS):
        raise ValueError(
            f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, got {reduction!r}"
        )


def divisor(
    reduction: str,
    rows: Rows,
    *,
    labels: Array | None = None,
    ignore_index: int | None = None,
    weight: Array | None = None,
    sample_weight: Array | None = None,
    where: Array | None = None,
) -> float:
    """What the sum of the losses of rows is divided by.

    Rows that are ignored, fully masked or of sample weight 0 do not count.

    "mean" has the weights of rows, and of the labels' classes; "batchmean" only counts.
    """
    if reduction in ("none", "sum"):
        return 1.0
    weighted = reduction == "mean"
    parts: dict[str, Array] = {}
    if labels is not None and (ignore_index is not None or (weighted and weight is not None)):
        parts["labels"] = labels
    if sample_weight is not None:
        parts["samples"] = sample_weight if weighted else sample_weight != 0
    if where is not None:
        parts["present"] = rows.any_class(where)
    if not parts:
        return float(math.prod(rows.shape))
    shape = rows.kept
    classes = weight.ravel() if weighted and weight is not None and labels is not None else None
    with np.errstate(all="ignore"):
        totals = [
            _total(dict(zip(parts, block, strict=True)), classes, ignore_index)
            for block in blocks(*parts.values(), shape=shape)
        ]
        return float(np.sum(totals))


def _total(part: dict[str, Array], classes: Array | None, ignore_index: int | None) -> float:
    """The sum of the weights of some rows."""
    total = np.ones(next(iter(part.values())).shape)
    if "labels" in part:
        ignored = (
            np.zeros(total.shape, bool)
            if ignore_index is None
            else are(part["labels"], ignore_index)
        )
        if classes is not None:
            total = classes.take(np.where(ignored, 0, part["labels"]).astype(np.intp))
        total = np.where(ignored, 0, total)
    if "samples" in part:
        total = np.where((total == 0) | (part["samples"] == 0), 0, total * part["samples"])
    if "present" in part:
        total = np.where(part["present"], total, 0)
    return float(total.sum())


def loss_dtype(x: Array) -> np.dtype[Any]:
    """float64 for float64 scores, longdouble for longdouble, float32 for all others."""
    own = _inputs.float_dtype(x)
    return own if own.itemsize >= 8 else FLOAT32


# --- calls ----------------------------------------------------------------------------------------

# Calls a kernel with views: (kernel, scores, gradient, losses, other arrays ..., scale, threads) ->
# sum.
Call = Callable[..., float]


def row_loss(
    call: Call,
    kernel: Kernel,
    rows: Rows,
    others: Sequence[Array | None],
    *,
    divisor: float,
    reduction: str,
    gradient: bool,
    out: Any = None,
    num_threads: Any,
    extreme: bool = False,
) -> Any:
    """A loss of rows, and its gradient if that is wanted.

    `others` are arrays with as many axes as the scores, of their shape or of length 1.
    """
    x = rows.x
    dtype = loss_dtype(x)
    grad = _gradient(x, out, rows.given) if gradient else None
    losses = ShapedOutput(None, dtype, rows.shape, rows.kept) if reduction == "none" else None
    outputs = (grad, losses)
    run, threads, views = prepare(kernel, rows.axes, x, others, outputs, num_threads, extreme)
    total = 0.0
    if divisor == 0 or divisor != divisor:  # a mean over nothing
        if grad is not None:
            grad.target.fill(0)
    else:
        for source, into, loss, *rest in views:
            row = None if loss is None else loss[:, 0]
            total += call(run, source, into, row, *rest, 1 / divisor, threads)
    return _value_and_grad(total, divisor, dtype, losses, grad)


def element_loss(
    call: Call,
    kernel: Kernel,
    x: Array,
    others: Sequence[Array | None],
    *,
    reduction: str,
    gradient: bool,
    out: Any = None,
    num_threads: Any,
) -> Any:
    """An elementwise loss, and its gradient if that is wanted. `others` broadcast to the scores."""
    dtype = loss_dtype(x)
    grad = _gradient(x, out, x.shape) if gradient else None
    losses = ShapedOutput(None, dtype, x.shape, x.shape) if reduction == "none" else None
    divisor = 1.0 if reduction in ("none", "sum") else float(x.size)
    run, threads, views = prepare(kernel, None, x, others, (grad, losses), num_threads)
    total = 0.0
    for arrays in views:
        total += call(run, *arrays, 1 / divisor, threads)
    return _value_and_grad(total, divisor, dtype, losses, grad)


def grad_hess(
    call: Callable[..., None],
    kernel: Kernel,
    x: Array,
    others: Sequence[Array | None],
    *,
    axes: Sequence[int] | None,
    shape: tuple[int, ...],
    outs: tuple[Any, Any],
    num_threads: Any,
) -> tuple[Any, Any]:
    """Gradient and curvature of a loss, of the shape and in the memory order of the scores.

    `axes` are those of rows; None: element by element. `shape` is that of the scores as they were
    passed.
    """
    grad, hess = (
        _gradient(x, out, shape, name)
        for out, name in zip(outs, ("grad_out", "hess_out"), strict=True)
    )
    run, threads, views = prepare(kernel, axes, x, others, (grad, hess), num_threads)
    for arrays in views:
        call(run, *arrays, threads)
    return grad.deliver(), hess.deliver()


def _gradient(x: Array, out: Any, shape: tuple[int, ...], name: str = "out") -> Output:
    """What a gradient is written to: of the dtype of the scores, whose 16-bit ones may also have
    one of float32. `shape` is that of the scores as they were passed.
    """
    dtype = _inputs.float_dtype(x)
    if _inputs.is_half(dtype) and isinstance(out, np.ndarray) and out.dtype == np.float32:
        dtype = out.dtype
    is_number = shape != x.shape  # which is seen as a row of one class
    output = ShapedOutput(out, dtype, shape, x.shape) if is_number else Output(out, dtype, x)
    output.name = name
    return output


def _value_and_grad(
    total: float,
    divisor: float,
    dtype: np.dtype[Any],
    losses: Output | None,
    grad: Output | None,
) -> Any:
    """What the caller of a loss gets: the losses, or their sum over the divisor, which is NaN for a
    mean over nothing; and the gradient, if wanted.
    """
    if losses is not None:
        value = losses.deliver()
    else:
        with np.errstate(all="ignore"):
            value = np.float64(total / divisor if divisor else math.nan).astype(dtype)
    return value if grad is None else (value, grad.deliver())
