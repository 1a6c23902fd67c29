"""What goes out: the caller's ``out``, or a new array, and what of the inputs overlaps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _memory

Array = NDArray[Any]

MOST_WORK: Any = 10_000  # steps of looking for an element that two arrays share: a few milliseconds


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> Array:
    """`out` as a plain array to write to, if it is fit for a result of this shape and dtype."""
    if not isinstance(out, np.ndarray) or isinstance(out, (np.ma.MaskedArray, np.matrix)):
        advice = (
            f": pass {name}.numpy(), which shares its memory"
            if type(out).__name__ == "Tensor"
            else ""
        )
        raise TypeError(
            f"{name} must be a numpy.ndarray to write to, got {type(out).__name__}{advice}"
        )
    if out.dtype != dtype:
        raise TypeError(f"{name} must have the result's dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"{name} must have the result's shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} must be writeable, got a read-only array")
    if _overlaps_itself(out):
        raise ValueError(
            f"{name} must not overlap itself, got strides {out.strides} for shape {out.shape}"
        )
    return out if type(out) is np.ndarray else out.view(np.ndarray)


def _overlaps_itself(a: Array) -> bool:
    """Whether two elements of an array share memory."""
    if a.flags.c_contiguous:
        return False
    axes = sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1)
    reach = a.itemsize
    for stride, length in axes:
        if stride < reach:  # unusual: the axes interleave, so look at every address
            return a.size > 0 and _addresses_collide(axes, a.itemsize)
        reach += stride * (length - 1)
    return False


def _addresses_collide(axes: Sequence[tuple[int, int]], itemsize: int) -> bool:
    addresses = np.zeros(1, np.intp)
    for stride, length in axes:
        addresses = np.add.outer(addresses, stride * np.arange(length)).ravel()
    addresses.sort()
    return bool(np.any(np.diff(addresses) < itemsize))


def share_elements(a: Array, b: Array) -> bool:
    """Whether two arrays have memory in common; also if that is too hard to tell."""
    try:
        return np.shares_memory(a, b, max_work=MOST_WORK)
    except np.exceptions.TooHardError:
        return True


def apart(a: Array | None, out: Array) -> Array | None:
    """An input to read while `out` is written:
    a copy if they share memory without being the same.
    """
    if a is None or not np.may_share_memory(a, out):
        return a
    same_place = (
        a.__array_interface__["data"] == out.__array_interface__["data"]
        and a.strides == out.strides
    )
    return a if same_place and a.shape == out.shape and a.dtype == out.dtype else a.copy(order="K")


def new_or_checked(out: Any, like: Array, dtype: np.dtype[Any]) -> Array:
    """The array for a result of the shape of `like`:
    a new one, in the same order of axes, or `out`.
    """
    if out is not None:
        return check_out(out, like.shape, dtype)
    if like.flags.c_contiguous:
        return _memory.empty(like.shape, dtype)
    return np.empty_like(like, dtype, subok=False)


def destination(out: Any, result: Array, *inputs: Array | None) -> tuple[Any, ...]:
    """Where kernels write what becomes `result`, and the inputs:
    aligned, and apart from each other.
    """
    if out is None:  # new memory is both
        return result, *inputs
    target = result if result.flags.aligned else np.empty(result.shape, result.dtype)
    return target, *[apart(a, target) for a in inputs]


def delivered(out: Any, result: Array, target: Array) -> Any:
    """What the caller gets once kernels have written `target`: `out`, a new array, or a scalar."""
    if target is not result:
        result[...] = target
    if out is not None:
        return out
    return result if result.ndim else result[()]
