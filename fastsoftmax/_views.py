"""Axes, shapes and strides: the only place that knows them.

Kernels see arrays as views of three axes, (outer, n, inner), of which they go along the middle one,
or of as few axes as there can be, if they work element by element. No array is copied for its
strides, but where a row is several axes that no single stride steps through.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]
Views = list[Any]  # arrays, with None for what is not there
Group = tuple[int, ...]  # axes that are one for the kernels

BLOCK = 1 << 17  # elements that are copied at a time where a view of three axes does not exist

# Shapes were right when the arguments were looked at; then ran code of theirs, or another thread.
RESIZED = "an array must not change its shape during the call"


# --- axes and shapes ------------------------------------------------------------------------------


def normalize_axes(axis: Any, ndim: int) -> Shape:
    """`axis` as distinct axes from 0 to ndim - 1, in order;
    none for a 0-d array, which has one element.
    """
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    try:
        axes = [operator.index(a) for a in (axis if isinstance(axis, tuple) else (axis,))]
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, got {axis!r}") from None
    allowed = ndim or 1
    for a in axes:
        if not -allowed <= a < allowed:
            raise np.exceptions.AxisError(a, allowed, "axis")
    distinct = {a % allowed for a in axes}
    if len(distinct) != len(axes):
        raise ValueError(f"axis must not name an axis twice, got {axis!r}")
    return tuple(sorted(distinct)) if ndim else ()


def reduced_shape(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """`shape` with length 1 on `axes`, or without them."""
    if len(axes) == 1:  # by far the quickest for one
        return shape[: axes[0]] + (1,) * keepdims + shape[axes[0] + 1 :]
    if keepdims:
        return tuple(1 if a in axes else length for a, length in enumerate(shape))
    return tuple(length for a, length in enumerate(shape) if a not in axes)


def with_axes_in_front(a: Array, shape: Shape, name: str) -> Array:
    """`a` with as many axes as `shape`, to which it must broadcast."""
    if a.shape == shape:
        return a
    broadcast(a, shape, name)
    return a.reshape((1,) * (len(shape) - a.ndim) + a.shape)


def broadcast(a: Array, shape: Shape, name: str) -> Array:
    """`a` broadcast to `shape`; the error names it."""
    if not broadcasts(a, shape):
        raise ValueError(f"{name} must broadcast to shape {shape}, got shape {a.shape}")
    return np.broadcast_to(a, shape)


def broadcasts(a: Array, shape: Shape) -> bool:
    """Whether `a` broadcasts to `shape`."""
    axes = zip(reversed(a.shape), reversed(shape), strict=False)
    return a.ndim <= len(shape) and all(n in (1, full) for n, full in axes)


@dataclass
class Rows:
    """Scores along one axis, that of the classes, and what belongs to each row of them."""

    x: Array
    axis: int
    name: str
    given: Shape  # that of the scores as they were passed

    @property
    def axes(self) -> Shape:
        return (self.axis,)

    @property
    def classes(self) -> int:
        length: int = self.x.shape[self.axis]
        return length

    @property
    def shape(self) -> Shape:
        """Of what has one value for each row."""
        return reduced_shape(self.x.shape, self.axes, keepdims=False)

    @property
    def kept(self) -> Shape:
        """The same, with the axis of the classes at length 1."""
        return self.of_length(1)

    def of_length(self, length: int) -> Shape:
        """The shape of the scores with another length of the axis of the classes."""
        shape, axis = self.x.shape, self.axis
        return (*shape[:axis], length, *shape[axis + 1 :])

    def per_row(self, a: Array) -> Array:
        """What broadcasts to the shape of the rows, with the axis of the classes at length 1."""
        return np.expand_dims(a.reshape((1,) * (len(self.shape) - a.ndim) + a.shape), self.axis)

    def any_class(self, mask: Array) -> Array:
        """Whether there is a class in each row for which a mask is true."""
        found: Array = np.any(mask, axis=self.axis, keepdims=True)
        return found


# --- views of rows --------------------------------------------------------------------------------


def iter_views(
    axes: Sequence[int],
    arrays: Sequence[Array | None],
    in_order: bool = False,
    any_length: bool = False,
) -> Iterable[Views]:
    """The arrays as views (outer, n, inner), in as few steps as their strides allow, mostly one.

    All have as many axes as the first, whose shape is the full one; where another has length 1 it
    is broadcast, and if `any_length` is true, its length on a single reduced axis is free. The
    second is written. A None stays None. If `in_order` is true, n runs through the reduced axes in
    C order.
    """
    first = arrays[0]
    assert first is not None
    shape = first.shape
    if any_length and (written := arrays[1]) is not None and not written.size:
        return ()
    views = _contiguous_views(axes, arrays, shape, any_length) if axes else None
    return _each_strided(axes, arrays, shape, in_order, any_length) if views is None else (views,)


def _contiguous_views(
    axes: Sequence[int], arrays: Sequence[Array | None], shape: Shape, any_length: bool
) -> Views | None:
    """Views of arrays without gaps, with all of the reduced axes or one value a row;
    None for others.
    """
    start, stop = axes[0], axes[-1] + 1
    if stop - start != len(axes):
        return None
    before, behind = shape[:start], shape[stop:]
    outer = math.prod(before) if before else 1
    inner = math.prod(behind) if behind else 1
    views: Views = []
    for a in arrays:
        if a is not None:
            if not a.flags.c_contiguous:
                return None
            if a.shape != shape:  # then one value a row, or any length of a single axis
                n = a.shape[start:stop]
                free = any_length and len(n) == 1
                if a.shape != before + n + behind or not (free or math.prod(n) == 1):
                    return None
            a = a.reshape(outer, -1, inner)
        views.append(a)
    return views


def _each_strided(
    axes: Sequence[int],
    arrays: Sequence[Array | None],
    shape: Shape,
    in_order: bool,
    any_length: bool,
) -> Iterator[Views]:
    """The views of `iter_views` for any strides."""
    free = axes if any_length else ()
    for a in arrays:
        if a is not None and not _fits(a, shape, free):
            raise ValueError(RESIZED)
    strides = [_strides(a, shape) for a in arrays if a is not None]
    reduced = _groups(axes, shape, strides) or [tuple(axes)]
    n = reduced[0]
    if len(reduced) > 1 or (in_order and list(n) != sorted(n)):
        yield from _each_block(axes, arrays, shape)
        return

    def step(group: Group) -> int:
        """That of the first array; an axis of length 1, in want of an axis,
        takes its place next to n.
        """
        return abs(strides[0][(group or n)[-1]]) if group or n else 0

    batch = _groups([a for a in range(len(shape)) if a not in axes], shape, strides)
    batch.sort(key=lambda group: -math.prod(shape[a] for a in group))
    # The two longest groups are outer and inner, whichever steps less being inner; any further one
    # is a loop.
    outer, inner = sorted([*batch, (), ()][:2], key=step, reverse=True)
    yield from _each_regrouped(arrays, [*batch[2:], outer, n, inner])


def _fits(a: Array, shape: Shape, free: Sequence[int]) -> bool:
    """Whether an array still broadcasts to a shape;
    its length on the `free` axes does not matter.
    """
    lengths = enumerate(zip(a.shape, shape, strict=False))
    return a.shape == shape or (
        a.ndim == len(shape) and all(n in (1, full) or axis in free for axis, (n, full) in lengths)
    )


def _groups(axes: Sequence[int], shape: Shape, strides: Sequence[Shape]) -> list[Group]:
    """`axes`, from the longest stride to the shortest, merged where every array can step through
    them as one.

    Those of length 1 are left out.
    """
    groups: list[Group] = []
    for axis in sorted(
        (a for a in axes if shape[a] != 1), key=lambda a: [-abs(s[a]) for s in strides]
    ):
        if groups and all(s[groups[-1][-1]] == s[axis] * shape[axis] for s in strides):
            groups[-1] += (axis,)
        else:
            groups.append((axis,))
    return groups


def _strides(a: Array, shape: Shape) -> Shape:
    """Strides that broadcast an array to `shape`."""
    if a.shape == shape:
        return a.strides
    return tuple(
        0 if n == 1 and full != 1 else s
        for s, n, full in zip(a.strides, a.shape, shape, strict=True)
    )


def _each_regrouped(arrays: Sequence[Array | None], groups: Sequence[Group]) -> Iterator[Views]:
    """Views with one axis for each of the last three groups,
    at every index of the groups before.
    """
    order = [axis for group in groups for axis in group]
    views = [None if a is None else _regrouped(a, groups, order) for a in arrays]
    first = views[0]
    assert first is not None
    for index in product(*map(range, first.shape[:-3])):
        yield [None if v is None else _at(index, v) for v in views]


def _at(index: Shape, view: Array) -> Any:
    """What an array holds at an index of its first axes, along which it may be broadcast."""
    return view[tuple(i if n > 1 else 0 for i, n in zip(index, view.shape, strict=False))]


def _regrouped(a: Array, groups: Sequence[Group], order: list[int]) -> Array:
    """A view with one axis for each group. Axes in no group have length 1."""
    lengths = [math.prod(a.shape[axis] for axis in group) for group in groups]
    return a.transpose([axis for axis in range(a.ndim) if axis not in order] + order).reshape(
        lengths
    )


def _each_block(
    axes: Sequence[int], arrays: Sequence[Array | None], shape: Shape
) -> Iterator[Views]:
    """Contiguous copies of blocks of rows, for reduced axes that no single stride steps through.

    What the caller writes to the second is copied back.
    """
    batch = sorted((a for a in range(len(shape)) if a not in axes), key=lambda a: -shape[a])
    turned: Views = [None if a is None else a.transpose([*batch, *axes]) for a in arrays]
    rows = shape[batch[0]] if batch else 1
    step = max(1, BLOCK * rows // math.prod(shape))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        parts = [t if t is None or not batch or t.shape[0] == 1 else t[part] for t in turned]
        copies: Views = [
            None if p is None else _rows_of(p, parts[0].shape, len(batch)) for p in parts
        ]
        yield copies
        parts[1][...] = copies[1].reshape(parts[1].shape)


def _rows_of(a: Array, shape: Shape, leading: int) -> Any:
    """A copy (rows, n, 1) of an array broadcast to `shape`, (rows, 1, 1)
    if it has one value for each row.
    """
    if math.prod(a.shape[leading:]) == 1:
        shape = shape[:leading] + a.shape[leading:]
    rows = math.prod(shape[:leading])
    return np.array(np.broadcast_to(a, shape), order="C").reshape(rows, -1, 1)


# --- views of elements ----------------------------------------------------------------------------


def element_views(arrays: Sequence[Array | None], written: int) -> Iterable[Views]:
    """The arrays as views of as few axes as every one can step through, in one step.

    The first has the full shape, and its shortest step along the last axis; the next ones,
    `written` of them, have that shape, too. Others are broadcast. A None stays None.
    """
    first = arrays[0]
    assert first is not None
    shape = first.shape
    spread: list[Array] = []
    for place, a in enumerate(arrays):
        if a is None:
            continue
        if a.shape != shape:
            if place <= written or not broadcasts(a, shape):
                raise ValueError(RESIZED)
            a = np.broadcast_to(a, shape)
        spread.append(a)
    merged = _merged(spread, shape)
    if len(merged) == len(arrays):
        return (merged,)
    views = iter(merged)
    return ([None if a is None else next(views) for a in arrays],)


def _merged(arrays: Sequence[Array], shape: Shape) -> list[Array]:
    """The arrays, of one shape, with axes merged that every one can step through as one."""
    if all(a.flags.c_contiguous for a in arrays):
        return [a.reshape(-1) for a in arrays]
    groups = _groups(range(len(shape)), shape, [a.strides for a in arrays]) or [()]
    order = [axis for group in groups for axis in group]
    return [_regrouped(a, groups, order) for a in arrays]
