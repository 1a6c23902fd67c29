"""What losses share: labels and targets, weights, reductions, and the calls of their kernels.

Everything is checked here, once for every loss, its gradient and every reduction, before a kernel
reads through a label or anything is written. Kernels return the sum of all losses in float64, and
write the losses one by one only where ``reduction="none"`` asks for them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _threads

Array = NDArray[Any]

REDUCTIONS = ("none", "sum", "mean", "batchmean")


# --- labels and targets ---------------------------------------------------------------------------


def as_labels(
    labels: Any,
    name: str,
    shape: tuple[int, ...],
    classes: int,
    ignore_index: int | None = None,
    passed: Any = None,
) -> Array:
    """`labels` as native integers of `shape`, each a class or `ignore_index`; the only place that
    checks.

    Nothing of their size is made, unless they are not native or not aligned. `passed` is what the
    caller passed, if that was made an array already.
    """
    a = _arrays.as_plain_array(labels, name)
    if a.size == 0 and a.dtype == np.float64 and not isinstance(labels, np.ndarray):
        a = a.astype(np.intp)  # an empty list
    if a.dtype.kind not in "iu":
        way = _arrays.conversion(labels if passed is None else passed, name, "int")
        advice = f": {way}" if a.dtype.kind in "Obf" else ""
        raise TypeError(
            f"{name} must be class indices, of an integer dtype, got dtype {a.dtype}{advice}"
        )
    if a.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {a.shape}")
    if not (a.flags.aligned and a.dtype.isnative):
        a = a.astype(a.dtype.newbyteorder("="))
    _check_range(a, name, classes, ignore_index)
    return a


def _check_range(labels: Array, name: str, classes: int, ignore_index: int | None) -> None:
    """Raise IndexError for the first label, in C order,
    that is neither a class nor to be ignored.
    """
    if not labels.size or (int(labels.min()) >= 0 and int(labels.max()) < classes):
        return
    start = 0
    for (part,) in _blocks(labels):
        wrong = ~_are_classes(part, classes)
        if ignore_index is not None:
            wrong &= ~_are(part, ignore_index)
        if wrong.any():
            first = int(wrong.argmax())
            place = tuple(int(i) for i in np.unravel_index(start + first, labels.shape))
            at = f"[{place[0] if len(place) == 1 else ', '.join(map(str, place))}]" if place else ""
            besides = "" if ignore_index is None else f", or {ignore_index} to be ignored"
            allowed = f"from 0 to {classes - 1}" if classes else "none, for there are no classes"
            raise IndexError(f"{name}{at} is {int(part[first])}; allowed is {allowed}{besides}")
        start += part.size


def _are_classes(labels: Array, classes: int) -> Array:
    """Which labels are classes."""
    # NumPy 2.0 and 2.1 may crash at comparisons with numbers beyond that
    most = np.iinfo(labels.dtype).max
    return (labels >= 0) & ((labels < classes) if classes <= most else True)


def _are(labels: Array, number: int) -> Array:
    """Which labels are a certain number."""
    info = np.iinfo(labels.dtype)
    return labels == number if info.min <= number <= info.max else np.zeros(labels.shape, bool)


def _blocks(*arrays: Array, shape: tuple[int, ...] | None = None) -> Iterator[tuple[Array, ...]]:
    """Arrays, broadcast to a shape, in blocks of a few thousand elements in C order."""
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    per_array: Any = [["readonly"]] * len(arrays)
    with np.nditer(arrays, flags=flags, op_flags=per_array, order="C", itershape=shape) as blocks:
        for block in blocks:
            yield block if isinstance(block, tuple) else (block,)


def as_real(a: Any, name: str) -> Array:
    """`a` as an array of any real dtype, as it is in memory: kernels convert it as they read."""
    array = _arrays.as_plain_array(a, name)
    return _arrays.as_numbers(a, name, array)


def as_element_targets(targets: Any, shape: tuple[int, ...], of: str) -> Array:
    """A target for each element."""
    a = as_real(targets, "targets")
    if a.shape != shape:
        raise ValueError(f"targets must have the shape of {of}, {shape}, got {a.shape}")
    return a


def as_element_weight(weight: Any, name: str, shape: tuple[int, ...]) -> Array | None:
    """A weight for each element, to whose shape it broadcasts."""
    if weight is None:
        return None
    a = as_real(weight, name)
    _arrays.broadcast(a, shape, name)
    return a


@dataclass
class Rows:
    """The scores of a loss of rows: an array, the axis of the classes,
    and what belongs to each row.
    """

    x: Array
    axis: int
    name: str
    given: tuple[int, ...]  # the shape of the scores as they were passed

    @property
    def classes(self) -> int:
        length: int = self.x.shape[self.axis]
        return length

    @property
    def dtype(self) -> np.dtype[Any]:
        """The floating dtype that the scores are taken for."""
        return _arrays.float_dtype(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what has one value for each row."""
        return _arrays.reduced_shape(self.x.shape, (self.axis,), keepdims=False)

    def of_length(self, length: int) -> tuple[int, ...]:
        """The shape of the scores with another length of the axis of the classes."""
        return (*self.x.shape[: self.axis], length, *self.x.shape[self.axis + 1 :])

    def views(self, *others: Array | None) -> Iterable[_arrays.Views]:
        """The scores and other arrays, with as many axes and of any
        length on that of the classes.
        """
        return _arrays.each_view((self.axis,), [self.x, *others], any_length=True)

    def per_row(self, a: Array) -> Array:
        """What broadcasts to the shape of the rows, with the axis of the classes at length 1."""
        return np.expand_dims(a.reshape((1,) * (len(self.shape) - a.ndim) + a.shape), self.axis)

    def targets(self, targets: Any, ignore_index: int | None) -> Array:
        """Labels, checked, or a probability for every class."""
        a = _arrays.as_plain_array(targets, "targets")
        labels = (
            "iubO" if a.size and a.shape == self.shape else "iub"
        )  # objects for each row: meant as labels
        soft = a.dtype.kind not in labels and not (a.size == 0 and a.shape == self.shape)
        if not soft:
            if a.shape == self.given != self.shape:
                raise self._one_hot(targets, a)
            given = a if a.size else targets
            return self.per_row(
                as_labels(given, "targets", self.shape, self.classes, ignore_index, targets)
            )
        if ignore_index is not None:
            advice = (
                f": {_arrays.conversion(targets, 'targets', 'int')}"
                if a.shape == self.shape
                else ""
            )
            is_for = "ignore_index is for labels, of an integer dtype"
            raise ValueError(f"{is_for}, but targets are probabilities, of {a.dtype}{advice}")
        return self.probabilities(targets, "targets", a)

    def _one_hot(self, targets: Any, a: Array) -> Exception:
        """What to raise for integers or booleans that have the shape of probabilities."""
        advice = _arrays.conversion(targets, "targets", "float")
        best = (
            f"or {_arrays.of_largest(targets, 'targets', self.axis)} for the labels of one-hot"
            " targets"
        )
        message = (
            f"targets of dtype {a.dtype} must be labels, of shape {self.shape}, but have the shape"
            f" of {self.name}, {a.shape}: {advice} for a probability for each class, {best}"
        )
        return TypeError(message) if a.dtype == np.bool_ else ValueError(message)

    def probabilities(self, p: Any, name: str, plain: Array | None = None) -> Array:
        """An array of the shape of the scores; `plain` is `p` as an array, if it is one already."""
        a = _arrays.as_numbers(p, name, plain)
        if a.shape != self.given:
            labels = (
                f", or {self.shape} for labels, of an integer dtype" if name == "targets" else ""
            )
            shapes = f"{self.given}{labels}; got {a.shape} of {a.dtype}"
            if labels and a.shape == self.shape:
                shapes += f": for labels, {_arrays.conversion(p, name, 'int')}"
            raise ValueError(f"{name} must have the shape of {self.name}, {shapes}")
        return a.reshape(self.x.shape) if not a.ndim else a

    def class_weight(self, weight: Any) -> Array | None:
        """A weight for each class, as float64 of shape (1, classes, 1)."""
        if weight is None:
            return None
        a = _arrays.as_float64(weight, "weight")
        if a.shape != (self.classes,):
            raise ValueError(
                f"weight must have shape ({self.classes},), one for each class, got {a.shape}"
            )
        return a.reshape(1, -1, 1)

    def sample_weight(self, weight: Any) -> Array | None:
        """A weight for each row, of a dtype that kernels take."""
        if weight is None:
            return None
        a = _arrays.as_numbers(weight, "sample_weight")
        _arrays.broadcast(a, self.shape, "sample_weight")
        given = _arrays.is_compiled(_arrays.float_dtype(a))
        return self.per_row(a if given else _arrays.as_float64(a, "sample_weight"))

    def temperature(self, temperature: Any) -> Array:
        """A temperature for all rows, shape (1, 1), or for each,
        with or without the axis of the classes.
        """
        if not isinstance(temperature, float):
            a = _arrays.as_array(temperature, "temperature")
            if 0 < a.ndim < self.x.ndim and _arrays.broadcasts(a, self.shape):
                temperature = self.per_row(a)
        return _arrays.as_temperature(temperature, self.x.shape, (self.axis,))


def as_rows(x: Any, name: str, axis: Any) -> Rows:
    """The scores and their axis, which must be a single one; a number is a row of one class."""
    a = _arrays.as_numbers(x, name)
    try:
        axes = _arrays.normalize_axes(operator.index(axis), a.ndim)
    except TypeError:
        raise TypeError(f"axis must be an int, got {axis!r}") from None
    return Rows(a, axes[0], name, a.shape) if axes else Rows(a.reshape(1), 0, name, ())


# --- parameters -----------------------------------------------------------------------------------


def as_ignore_index(ignore_index: Any) -> int | None:
    """An integer, or None."""
    if ignore_index is None:
        return None
    try:
        return operator.index(ignore_index)
    except TypeError:
        raise TypeError(f"ignore_index must be an integer or None, got {ignore_index!r}") from None


def as_number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A real number within bounds, and not NaN."""
    number = _arrays.as_number(value, name)
    if not low <= number <= high:
        allowed = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(
            f"{name} must be {'a number' if low == -math.inf else allowed}, got {value!r}"
        )
    return number


def is_float(value: Any, expected: float) -> bool:
    """Whether an option is a plain float of that value."""
    return type(value) is float and value == expected


def check_reduction(reduction: Any) -> None:
    """Raise ValueError unless it is one of REDUCTIONS."""
    if not (isinstance(reduction, str) and reduction in REDUCTIONS):
        raise ValueError(
            f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, got {reduction!r}"
        )


# --- reductions -----------------------------------------------------------------------------------


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
        parts["present"] = np.any(where, axis=rows.axis, keepdims=True)
    if not parts:
        return float(math.prod(rows.shape))
    shape = _arrays.reduced_shape(rows.x.shape, (rows.axis,), keepdims=True)
    classes = weight.ravel() if weighted and weight is not None and labels is not None else None
    with np.errstate(all="ignore"):
        totals = [
            _total(dict(zip(parts, block, strict=True)), classes, ignore_index)
            for block in _blocks(*parts.values(), shape=shape)
        ]
        return float(np.sum(totals))


def _total(part: dict[str, Array], classes: Array | None, ignore_index: int | None) -> float:
    """The sum of the weights of some rows."""
    total = np.ones(next(iter(part.values())).shape)
    if "labels" in part:
        ignored = (
            np.zeros(total.shape, bool)
            if ignore_index is None
            else _are(part["labels"], ignore_index)
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
    own = _arrays.float_dtype(x)
    return own if own.itemsize >= 8 else np.dtype(np.float32)


class Gradient:
    """The array for a gradient: `out`, or a new one of the shape and dtype of the scores."""

    def __init__(self, x: Array, out: Any, shape: tuple[int, ...], name: str = "out") -> None:
        self.out = out
        own = _arrays.float_dtype(x)
        single = isinstance(out, np.ndarray) and out.dtype == np.float32 and _arrays.is_half(own)
        dtype = np.dtype(np.float32) if single else own
        if out is None:
            self.result = _arrays.new_or_checked(None, x, dtype)
        else:
            self.result = _arrays.check_out(out, shape, dtype, name).reshape(x.shape)
        self.shape = shape

    def delivered(self, target: Array) -> Any:
        """What the caller gets."""
        result = _arrays.delivered(None, self.result, target) if self.result.ndim else self.result
        if self.out is not None:
            return self.out
        return result.reshape(self.shape) if self.shape else result.reshape(())[()]


# --- calls ----------------------------------------------------------------------------------------

# Calls a kernel with views: (kernel, scores, gradient, losses, other arrays ..., scale, threads) ->
# sum.
Call = Callable[..., float]


def row_loss(
    call: Call,
    kernel: _arrays.Kernel,
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
    dtypes = [_arrays.float_dtype(a) for a in (x, *others) if a is not None]
    run = _arrays.able(kernel, *dtypes, extreme=extreme)
    grad = Gradient(x, out, rows.given) if gradient else None
    target: Array | None = None
    if grad is not None:
        target, x, *others = _arrays.destination(out, grad.result, x, *others)
    losses = np.zeros(rows.shape, loss_dtype(x)) if reduction == "none" else None
    by_row = None if losses is None else np.expand_dims(losses, rows.axis)
    undefined = divisor == 0 or divisor != divisor
    total = 0.0
    if undefined and target is not None:
        target.fill(0)
    elif not undefined:
        for source, into, loss, *rest in _arrays.each_view(
            (rows.axis,), [x, target, by_row, *others]
        ):
            row = None if loss is None else loss[:, 0]
            total += call(run, source, into, row, *rest, 1 / divisor, threads)
    value = _reduced(losses, total, divisor, loss_dtype(x))
    return value if grad is None else (value, grad.delivered(target))  # type: ignore[arg-type]


def element_loss(
    call: Call,
    kernel: _arrays.Kernel,
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
    dtypes = [_arrays.float_dtype(a) for a in (x, *others) if a is not None]
    run = _arrays.able(kernel, *dtypes)
    grad = Gradient(x, out, x.shape) if gradient else None
    target: Array | None = None
    if grad is not None:
        target, x, *others = _arrays.destination(out, grad.result, x, *others)
    losses = np.zeros(x.shape, loss_dtype(x)) if reduction == "none" else None
    divisor = 1.0 if reduction in ("none", "sum") else float(x.size)
    total = 0.0
    if x.size:
        source, into, loss, *rest = _elements(x, target, losses, *others)
        total = call(run, source, into, loss, *rest, 1 / divisor, threads)
    value = _reduced(losses, total, divisor, loss_dtype(x))
    return value if grad is None else (value, grad.delivered(target))  # type: ignore[arg-type]


def _elements(x: Array, *others: Array | None) -> _arrays.Views:
    """The scores and what broadcasts to their shape, as kernels for elements want them."""
    given = (a for a in others if a is not None)
    spread = [a if a.shape == x.shape else np.broadcast_to(a, x.shape) for a in given]
    views = iter(_arrays.merged([x, *spread]))
    return [next(views), *(None if a is None else next(views) for a in others)]


def _reduced(losses: Array | None, total: float, divisor: float, dtype: np.dtype[Any]) -> Any:
    """The losses themselves, or their sum over the divisor; NaN for a mean over nothing."""
    if losses is not None:
        return losses if losses.ndim else losses[()]
    with np.errstate(all="ignore"):
        return np.float64(total / divisor if divisor else math.nan).astype(dtype)


def grad_hess(
    call: Callable[..., None],
    kernel: _arrays.Kernel,
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
    if all(out is not None for out in outs) and _arrays.share_elements(*outs):
        raise ValueError("grad_out and hess_out must not share memory")
    dtypes = [_arrays.float_dtype(a) for a in (x, *others) if a is not None]
    run = _arrays.able(kernel, *dtypes, *(r.result.dtype for r in results))
    targets = []
    for out, result in zip(outs, results, strict=True):
        target, x, *others = _arrays.destination(out, result.result, x, *others)
        targets.append(target)
    if axis is None:
        if x.size:
            call(run, *_elements(x, *targets, *others), threads)
    else:
        for views in _arrays.each_view((axis,), [x, *targets, *others]):
            call(run, *views, threads)
    grad, hess = (r.delivered(t) for r, t in zip(results, targets, strict=True))
    return grad, hess
