"""What losses share: weights, reductions, and the calls of their kernels.

Kernels return the sum of all losses in float64, and write the losses one by one only where
``reduction="none"`` asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _call, _inputs, _outputs, _threads, _views
from ._targets import are, blocks
from ._views import Rows

Array = NDArray[Any]

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
    given = _inputs.is_compiled(_inputs.float_dtype(a))
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
    return own if own.itemsize >= 8 else np.dtype(np.float32)


class Gradient:
    """The array for a gradient: `out`, or a new one of the shape and dtype of the scores."""

    def __init__(self, x: Array, out: Any, shape: tuple[int, ...], name: str = "out") -> None:
        self.out = out
        own = _inputs.float_dtype(x)
        single = isinstance(out, np.ndarray) and out.dtype == np.float32 and _inputs.is_half(own)
        dtype = np.dtype(np.float32) if single else own
        if out is None:
            self.result = _outputs.new_or_checked(None, x, dtype)
        else:
            self.result = _outputs.check_out(out, shape, dtype, name).reshape(x.shape)
        self.shape = shape

    def delivered(self, target: Array) -> Any:
        """What the caller gets."""
        result = _outputs.delivered(None, self.result, target) if self.result.ndim else self.result
        if self.out is not None:
            return self.out
        return result.reshape(self.shape) if self.shape else result.reshape(())[()]


# --- calls ----------------------------------------------------------------------------------------


# Calls a kernel with views: (kernel, scores, gradient, losses, other arrays ..., scale, threads) ->
# sum.
Call = Callable[..., float]


def row_loss(
    call: Call,
    kernel: _call.Kernel,
    rows: Rows,
    others: list[Array | None],
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
    threads = _threads.resolve(num_threads, x.size)
    dtypes = [_inputs.float_dtype(a) for a in (x, *others) if a is not None]
    run = _call.kernel_for(kernel, *dtypes, extreme=extreme)
    grad = Gradient(x, out, rows.given) if gradient else None
    target: Array | None = None
    if grad is not None:
        target, x, *others = _outputs.destination(out, grad.result, x, *others)
    losses = np.zeros(rows.shape, loss_dtype(x)) if reduction == "none" else None
    by_row = None if losses is None else rows.per_row(losses)
    undefined = divisor == 0 or divisor != divisor
    total = 0.0
    if undefined and target is not None:
        target.fill(0)
    elif not undefined:
        for source, into, loss, *rest in _views.iter_views(rows.axes, [x, target, by_row, *others]):
            row = None if loss is None else loss[:, 0]
            total += call(run, source, into, row, *rest, 1 / divisor, threads)
    value = _reduced(losses, total, divisor, loss_dtype(x))
    return value if grad is None else (value, grad.delivered(target))  # type: ignore[arg-type]


def element_loss(
    call: Call,
    kernel: _call.Kernel,
    x: Array,
    others: list[Array | None],
    *,
    reduction: str,
    gradient: bool,
    out: Any = None,
    num_threads: Any,
) -> Any:
    """An elementwise loss, and its gradient if that is wanted. `others` broadcast to the scores."""
    threads = _threads.resolve(num_threads, x.size)
    dtypes = [_inputs.float_dtype(a) for a in (x, *others) if a is not None]
    run = _call.kernel_for(kernel, *dtypes)
    grad = Gradient(x, out, x.shape) if gradient else None
    target: Array | None = None
    if grad is not None:
        target, x, *others = _outputs.destination(out, grad.result, x, *others)
    losses = np.zeros(x.shape, loss_dtype(x)) if reduction == "none" else None
    divisor = 1.0 if reduction in ("none", "sum") else float(x.size)
    total = 0.0
    if x.size:
        source, into, loss, *rest = _elements(x, target, losses, *others)
        total = call(run, source, into, loss, *rest, 1 / divisor, threads)
    value = _reduced(losses, total, divisor, loss_dtype(x))
    return value if grad is None else (value, grad.delivered(target))  # type: ignore[arg-type]


def _elements(x: Array, *others: Array | None) -> _views.Views:
    """The scores and what broadcasts to their shape, as kernels for elements want them."""
    given = (a for a in others if a is not None)
    spread = [a if a.shape == x.shape else np.broadcast_to(a, x.shape) for a in given]
    views = iter(_views.merged([x, *spread]))
    return [next(views), *(None if a is None else next(views) for a in others)]


def _reduced(losses: Array | None, total: float, divisor: float, dtype: np.dtype[Any]) -> Any:
    """The losses themselves, or their sum over the divisor; NaN for a mean over nothing."""
    if losses is not None:
        return losses if losses.ndim else losses[()]
    with np.errstate(all="ignore"):
        return np.float64(total / divisor if divisor else math.nan).astype(dtype)


def grad_hess(
    call: Callable[..., None],
    kernel: _call.Kernel,
    x: Array,
    others: list[Array | None],
    *,
    axis: int | None,
    shape: tuple[int, ...],
    outs: tuple[Any, Any],
    threads: int,
) -> tuple[Any, Any]:
    """Gradient and curvature of a loss, of the shape and in the memory order of the scores.

    `axis` is that of rows; None: element by element. `shape` is that of the scores as they were
    passed.
    """
    names = ("grad_out", "hess_out")
    results = [Gradient(x, out, shape, name) for out, name in zip(outs, names, strict=True)]
    if all(out is not None for out in outs) and _outputs.share_elements(*outs):
        raise ValueError("grad_out and hess_out must not share memory")
    dtypes = [_inputs.float_dtype(a) for a in (x, *others) if a is not None]
    run = _call.kernel_for(kernel, *dtypes, *(r.result.dtype for r in results))
    targets = []
    for out, result in zip(outs, results, strict=True):
        target, x, *others = _outputs.destination(out, result.result, x, *others)
        targets.append(target)
    if axis is None:
        if x.size:
            call(run, *_elements(x, *targets, *others), threads)
    else:
        for views in _views.iter_views((axis,), [x, *targets, *others]):
            call(run, *views, threads)
    grad, hess = (r.delivered(t) for r, t in zip(results, targets, strict=True))
    return grad, hess
