"""What goes out: the caller's ``out``, or a new array, and what of the inputs overlaps it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _memory

Array = NDArray[Any]

SMALL = _memory.SMALLEST // np.dtype(np.longdouble).itemsize  # elements that no pool is asked for
MOST_WORK: Any = 10_000  # steps of looking for an element that two arrays share: a few milliseconds


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> Array:
    """`out` as a plain array to write to, if it is fit for a result of this shape and dtype."""
    if type(out) is not np.ndarray and not _is_writable_kind(out):
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


def _is_writable_kind(out: Any) -> bool:
    """Whether something is an array that plain numbers can be written to."""
    return isinstance(out, np.ndarray) and not isinstance(out, (np.ma.MaskedArray, np.matrix))


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


def copy_if_overlapping(a: Array, out: Array) -> Array:
    """An input to read while `out` is written:
    a copy if they share memory without being the same.
    """
    if not np.may_share_memory(a, out):
        return a
    same_place = (
        a.__array_interface__["data"] == out.__array_interface__["data"]
        and a.strides == out.strides
    )
    return a if same_place and a.shape == out.shape and a.dtype == out.dtype else a.copy(order="K")


class Output:
    """What a call writes: the caller's ``out``, or a new array, of the shape of `like`.

    A new one has the order of axes of `like`, too.
    """

    name = "out"
    nothing = 0.0  # what it holds where there is nothing to compute
    copied = False  # whether kernels write something else than the caller's array

    result: Array  # in the caller's shape, and
    target: Array  # what kernels write: a view of it, or aligned memory in its stead

    def __init__(self, out: Any, dtype: np.dtype[Any], like: Array) -> None:
        self.out = out
        self.dtype = dtype
        self.like = like

    def allocate(self) -> Array:
        """The array that kernels write: the caller's, if it is fit, or a new one."""
        like = self.like  # its shape counts once all arguments were looked at
        if self.out is not None:
            return self._take(check_out(self.out, like.shape, self.dtype, self.name))
        if like.flags.c_contiguous:
            new = (np.empty if like.size < SMALL else _memory.empty)(like.shape, self.dtype)
        else:
            new = np.empty_like(like, self.dtype, subok=False)
        self.result = self.target = new
        return new

    def _take(self, result: Array, kept: tuple[int, ...] | None = None) -> Array:
        """The caller's array, as kernels see it, or memory that is aligned in its stead."""
        self.result = result
        target = result if kept is None else result.reshape(kept)
        if not target.flags.aligned:
            self.copied = True
            target = np.empty(target.shape, self.dtype)
        self.target = target
        return target

    def deliver(self) -> Any:
        """What the caller gets once kernels have written: `out`, a new array, or a scalar."""
        result = self.result
        if self.out is None:
            return result if result.ndim else result[()]
        if self.copied:
            result[...] = self.target.reshape(result.shape)
        return self.out


class ShapedOutput(Output):
    """An output that has the shape of no input. Kernels see it in the shape `kept`."""

    def __init__(
        self, out: Any, dtype: np.dtype[Any], shape: tuple[int, ...], kept: tuple[int, ...]
    ) -> None:
        self.out = out
        self.dtype = dtype
        self.shape = shape
        self.kept = kept

    def allocate(self) -> Array:
        if self.out is not None:
            return self._take(check_out(self.out, self.shape, self.dtype, self.name), self.kept)
        self.result = new = np.empty(self.shape, self.dtype)
        self.target = new = new if self.kept is self.shape else new.reshape(self.kept)
        return new


def resolve_overlap(outputs: Sequence[Output | None], arrays: list[Array | None]) -> None:
    """Put copies of inputs that overlap outputs in their place.

    `arrays` are an input, what kernels write as `outputs`, and further inputs.
    """
    if len(outputs) > 1:
        _refuse_shared(outputs)
    behind = 1 + len(outputs)
    for output in outputs:
        if output is not None and output.out is not None:
            for place, a in enumerate(arrays):
                if a is not None and not 1 <= place < behind:
                    arrays[place] = copy_if_overlapping(a, output.target)


def _refuse_shared(outputs: Sequence[Output | None]) -> None:
    """Raise ValueError if arrays of the caller's to write to have an element in common."""
    given = [output for output in outputs if output is not None and output.out is not None]
    for one, other in combinations(given, 2):
        if share_elements(one.out, other.out):
            raise ValueError(f"{one.name} and {other.name} must not share memory")
