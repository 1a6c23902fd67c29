"""Labels and targets: checked here, and nowhere else.

Everything is checked once for every loss, its gradient and every reduction, before a kernel reads
through a label or anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _inputs
from ._views import Rows

Array = NDArray[Any]


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
    a = _inputs.as_plain_array(labels, name)
    if a.size == 0 and a.dtype == np.float64 and not isinstance(labels, np.ndarray):
        a = a.astype(np.intp)  # an empty list
    if a.dtype.kind not in "iu":
        way = _inputs.conversion(labels if passed is None else passed, name, "int")
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
    for (part,) in blocks(labels):
        wrong = ~_are_classes(part, classes)
        if ignore_index is not None:
            wrong &= ~are(part, ignore_index)
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


def are(labels: Array, number: int) -> Array:
    """Which labels are a certain number."""
    info = np.iinfo(labels.dtype)
    return labels == number if info.min <= number <= info.max else np.zeros(labels.shape, bool)


def blocks(*arrays: Array, shape: tuple[int, ...] | None = None) -> Iterator[tuple[Array, ...]]:
    """Arrays, broadcast to a shape, in blocks of a few thousand elements in C order."""
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    per_array: Any = [["readonly"]] * len(arrays)
    with np.nditer(arrays, flags=flags, op_flags=per_array, order="C", itershape=shape) as blocks:
        for block in blocks:
            yield block if isinstance(block, tuple) else (block,)


def as_targets(rows: Rows, targets: Any, ignore_index: int | None) -> Array:
    """Labels, checked, or a probability for every class."""
    a = _inputs.as_plain_array(targets, "targets")
    labels = (
        "iubO" if a.size and a.shape == rows.shape else "iub"
    )  # objects for each row: meant as labels
    soft = a.dtype.kind not in labels and not (a.size == 0 and a.shape == rows.shape)
    if not soft:
        if a.shape == rows.given != rows.shape:
            raise _one_hot(rows, targets, a)
        given = a if a.size else targets
        return rows.per_row(
            as_labels(given, "targets", rows.shape, rows.classes, ignore_index, targets)
        )
    if ignore_index is not None:
        advice = (
            f": {_inputs.conversion(targets, 'targets', 'int')}" if a.shape == rows.shape else ""
        )
        is_for = "ignore_index is for labels, of an integer dtype"
        raise ValueError(f"{is_for}, but targets are probabilities, of {a.dtype}{advice}")
    return as_probabilities(rows, targets, "targets", a)


def _one_hot(rows: Rows, targets: Any, a: Array) -> Exception:
    """What to raise for integers or booleans that have the shape of probabilities."""
    advice = _inputs.conversion(targets, "targets", "float")
    best = (
        f"or {_inputs.of_largest(targets, 'targets', rows.axis)} for the labels of one-hot targets"
    )
    message = (
        f"targets of dtype {a.dtype} must be labels, of shape {rows.shape}, but have the shape"
        f" of {rows.name}, {a.shape}: {advice} for a probability for each class, {best}"
    )
    return TypeError(message) if a.dtype == np.bool_ else ValueError(message)


def as_probabilities(rows: Rows, p: Any, name: str, plain: Array | None = None) -> Array:
    """An array of the shape of the scores; `plain` is `p` as an array, if it is one already."""
    a = _inputs.as_numbers(p, name, plain)
    if a.shape != rows.given:
        labels = f", or {rows.shape} for labels, of an integer dtype" if name == "targets" else ""
        shapes = f"{rows.given}{labels}; got {a.shape} of {a.dtype}"
        if labels and a.shape == rows.shape:
            shapes += f": for labels, {_inputs.conversion(p, name, 'int')}"
        raise ValueError(f"{name} must have the shape of {rows.name}, {shapes}")
    return a.reshape(rows.x.shape) if not a.ndim else a


def as_element_targets(targets: Any, shape: tuple[int, ...], of: str) -> Array:
    """A target for each element."""
    a = _inputs.as_numbers(targets, "targets")
    if a.shape != shape:
        raise ValueError(f"targets must have the shape of {of}, {shape}, got {a.shape}")
    return a
