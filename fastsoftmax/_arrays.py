"""Arguments and arrays: the only place that knows axes, strides, dtypes, ``out``, ``where`` and overlap.

Whatever a caller passes is checked and normalised here, once, before anything is written.  Kernels then see native, aligned arrays as views of
three axes, (outer, n, inner), of which they normalise the middle one, or of two, (rows, n), if they work element by element.
No array is copied for its strides; what is copied (integers, foreign byte order, misaligned or partly overlapping memory) says so below.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from decimal import Context, Decimal
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import _threads
from ._backend import TWINS

COMPILED = (np.dtype(np.float32), np.dtype(np.float64))  # the dtypes that compiled kernels take; the twins take the others
ONE = np.ones((1, 1))  # temperature 1 for all rows
BLOCK = 1 << 17  # elements that are copied at a time where a view of three axes does not exist

# ln(base) / temperature beyond which a compiled kernel could overflow inside; the twins divide by the temperature instead.
_SCALES = {np.dtype(np.float32): 2.0**60, np.dtype(np.float64): 2.0**900}


# ------------------------------------------------------------------------------------------------------------- inputs and dtypes
def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is ``ml_dtypes.bfloat16``, which NumPy knows only once that package was imported."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is for storage only: 16 bits, computed with in float32 or better."""
    return dtype == np.float16 or is_bfloat16(dtype)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether results can have this dtype."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def as_array(x: Any, name: str) -> np.ndarray[Any, Any]:
    """`x` as a native, aligned array of real numbers of a floating dtype, without a copy if it is one already."""
    if type(x) is not np.ndarray:
        x = _as_plain_array(x, name)
    if x.dtype in COMPILED and x.flags.aligned:  # which says that the byte order is native, too
        return x
    if x.dtype.kind in "iub":
        return x.astype(np.float64)
    if not is_float(x.dtype):
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if not (x.flags.aligned and x.dtype.isnative):
        return x.astype(x.dtype.newbyteorder("="))
    return x  # type: ignore[no-any-return]


def _as_plain_array(x: Any, name: str) -> np.ndarray[Any, Any]:
    """`x` as an ``np.ndarray`` proper."""
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise TypeError(f"{name} is a masked array, whose mask would be ignored: pass its data, and where=~mask")
        return np.asarray(x.data)
    if isinstance(x, np.matrix):
        raise TypeError(f"{name} must not be a np.matrix, got one of shape {x.shape}: pass np.asarray({name})")
    if hasattr(x, "__dlpack__") and not isinstance(x, (np.ndarray, np.generic)):
        return _from_dlpack(x, name)
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made an array: {error}") from None


def _from_dlpack(x: Any, name: str) -> np.ndarray[Any, Any]:
    """A tensor of another library on the CPU, sharing its memory."""
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if "bfloat16" in str(getattr(x, "dtype", "")) or "bfloat16" in str(error):
            advice = "NumPy cannot import bfloat16 tensors: pass x.float()"
        else:
            advice = "it must be a tensor of real numbers on the CPU that needs no gradient"
        raise TypeError(f"{name}, a {type(x).__name__}, cannot be imported ({error}); {advice}") from None


def result_dtype(x: np.ndarray[Any, Any], dtype: Any, reduced: bool = False) -> np.dtype[Any]:
    """The dtype of the result: the input's unless `dtype` names another; float32 for reductions of 16-bit input."""
    if dtype is None:
        return np.dtype(np.float32) if reduced and is_half(x.dtype) else x.dtype
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a floating dtype, got {dtype!r}") from None
    if not is_float(wanted):
        raise TypeError(f"dtype must be a floating dtype, got {wanted}")
    return wanted.newbyteorder("=")


def implementation(kernel: Callable[..., None], name: str, *dtypes: np.dtype[Any]) -> Callable[..., None]:
    """The active kernel, or its twin for dtypes that no compiled kernel takes."""
    for dtype in dtypes:
        if dtype not in COMPILED:
            return TWINS[name]
    return kernel


# --------------------------------------------------------------------------------------------------------------- axes and shapes
def normalize_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """`axis` as a tuple of distinct axes from 0 to ndim - 1."""
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if axis is None:
        return tuple(range(ndim))
    try:
        axes = tuple(operator.index(a) for a in axis) if isinstance(axis, tuple) else (operator.index(axis),)
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, got {axis!r}") from None
    for a in axes:
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim, "axis")
    axes = tuple(a % ndim for a in axes)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis must not name an axis twice, got {axis!r}")
    return axes


def reduced_shape(shape: tuple[int, ...], axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    """`shape` with length 1 on `axes`, or without them."""
    if keepdims:
        return tuple(1 if a in axes else length for a, length in enumerate(shape))
    return tuple(length for a, length in enumerate(shape) if a not in axes)


# --------------------------------------------------------------------------------------------------------------------- parameters
def as_where(where: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    """The mask as bytes, of as many axes as `shape`, to which it broadcasts."""
    if where is None:
        return None
    mask = _as_plain_array(where, "where") if type(where) is not np.ndarray else where
    if mask.dtype != np.bool_:
        raise TypeError(f"where must be an array of bool, got dtype {mask.dtype}")
    return _aligned_shape(mask, shape, "where").view(np.uint8)


def as_weights(b: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    """Weights as float64, of as many axes as `shape`, to which they broadcast."""
    if b is None:
        return None
    weights = as_array(b, "b")
    with np.errstate(all="ignore"):
        return _aligned_shape(weights.astype(np.float64, copy=False), shape, "b")


def as_temperature(temperature: Any, shape: tuple[int, ...], axes: Sequence[int]) -> np.ndarray[Any, Any]:
    """Temperatures as float64: one, as an array of shape (1, 1), or of the shape with `axes` of length 1."""
    if type(temperature) is float and temperature == 1.0:
        return ONE
    values = as_array(temperature, "temperature").astype(np.float64)
    if not (np.all(np.isfinite(values)) and np.all(values > 0)):
        raise ValueError(f"temperature must be finite and greater than 0, got {temperature!r}")
    if values.ndim == 0:
        return values.reshape(1, 1)
    return _aligned_shape(values, reduced_shape(shape, axes, keepdims=True), "temperature", full=True)


def _aligned_shape(a: np.ndarray[Any, Any], shape: tuple[int, ...], name: str, full: bool = False) -> np.ndarray[Any, Any]:
    """`a` with axes of length 1 put in front; an error that names it if it does not broadcast to `shape`."""
    try:
        broadcast = np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"{name} must broadcast to shape {shape}, got shape {a.shape}") from None
    return broadcast if full else a.reshape((1,) * (len(shape) - a.ndim) + a.shape)


def as_ln_base(base: Any, least_exclusive: bool) -> tuple[float, float]:
    """The natural logarithm of the base as hi + lo; (1, 0) for base e."""
    if base is None:
        return 1.0, 0.0
    if np.ndim(base) or not (hasattr(base, "__float__") or hasattr(base, "__index__")) or isinstance(base, complex):
        raise TypeError(f"base must be a real number or None, got {base!r}")
    value = float(base)
    if not math.isfinite(value) or value < 1 or (least_exclusive and value == 1):
        least = "greater than 1" if least_exclusive else "at least 1"
        raise ValueError(f"base must be finite and {least}, got {base!r}")
    return _ln(value)


@cache
def _ln(value: float) -> tuple[float, float]:
    context = Context(prec=50)
    exact = context.ln(Decimal(value))
    hi = float(exact)
    return hi, float(context.subtract(exact, Decimal(hi)))


def is_extreme(ln_base: tuple[float, float], temperature: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """Whether the logits are scaled by so much or so little that compiled kernels would leave their range."""
    if ln_base == (1.0, 0.0) and temperature is ONE:
        return False
    limit = _SCALES.get(dtype, math.inf)
    coolest, hottest = float(np.min(np.abs(temperature))), float(np.max(np.abs(temperature)))
    return not (ln_base[0] / limit <= coolest and hottest <= ln_base[0] * limit)


# ------------------------------------------------------------------------------------------------------------------------ outputs
def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """`out` as a plain array to write to, if it is fit for a result of this shape and dtype."""
    if not isinstance(out, np.ndarray) or isinstance(out, (np.ma.MaskedArray, np.matrix)):
        raise TypeError(f"out must be an array of numpy.ndarray, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"out must have the result's dtype {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have the result's shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if _overlaps_itself(out):
        raise ValueError(f"out must not overlap itself, got strides {out.strides} for shape {out.shape}")
    return out if type(out) is np.ndarray else out.view(np.ndarray)


def _overlaps_itself(a: np.ndarray[Any, Any]) -> bool:
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


def apart(a: np.ndarray[Any, Any] | None, out: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
    """An input that can be read while `out` is written: itself if it is `out` or shares no memory with it, else a copy."""
    if a is None or out is None or not np.may_share_memory(a, out):
        return a
    same = a.__array_interface__["data"] == out.__array_interface__["data"] and a.strides == out.strides
    return a if same and a.shape == out.shape and a.dtype == out.dtype else a.copy(order="K")


# -------------------------------------------------------------------------------------------------------------------------- views
Views = list[np.ndarray[Any, Any] | None]


def each_view(axes: Sequence[int], arrays: Sequence[np.ndarray[Any, Any] | None], written: int) -> Iterator[Views]:
    """The arrays as views (outer, n, inner), in as few steps as their strides allow, mostly one.

    All arrays have as many axes as the first, whose shape is the full one; where another has length 1 it is broadcast. A None stays None.
    `written` is the position of the array that the caller writes to.
    """
    first = arrays[0]
    assert first is not None
    shape = first.shape
    if len(axes) == 1 and _all_contiguous(arrays, shape):
        split = math.prod(shape[: axes[0]]), shape[axes[0]], math.prod(shape[axes[0] + 1 :])
        yield [None if a is None else a.reshape(split) for a in arrays]
        return
    strides = [_strides(a, shape) for a in arrays]
    reduced = _groups(axes, shape, strides)
    if len(reduced) > 1:
        yield from _each_block(axes, shape, arrays, written)
        return
    length, steps = reduced[0] if reduced else (1, (0,) * len(arrays))
    # The two longest groups of the other axes are outer and inner, whichever steps less being inner; any further one is a loop.
    batch = sorted(_groups([a for a in range(len(shape)) if a not in axes], shape, strides), key=lambda group: -group[0])
    loop, kept = batch[2:], sorted(batch[:2], key=lambda group: -abs(group[1][0]))
    if len(kept) < 2:
        nothing = (1, (0,) * len(arrays))
        inside = bool(kept) and abs(kept[0][1][0]) < abs(steps[0])
        kept = [nothing, *kept] if inside else [*kept, nothing]
        kept = kept[-2:] if inside else (kept + [nothing])[:2]
    outer, inner = kept
    axes_of_view = [*loop, outer, (length, steps), inner]
    views = [
        None if a is None else as_strided(a, [n for n, _ in axes_of_view], [s[k] for _, s in axes_of_view])
        for k, a in enumerate(arrays)
    ]
    for index in np.ndindex(*(n for n, _ in loop)):
        yield [None if v is None else v[index] for v in views]


def each_line(arrays: Sequence[np.ndarray[Any, Any]]) -> Iterator[list[np.ndarray[Any, Any]]]:
    """The arrays, of one shape, as views (rows, n), in as few steps as their strides allow."""
    shape = arrays[0].shape
    if all(a.flags.c_contiguous for a in arrays):
        yield [a.reshape(1, -1) for a in arrays]
        return
    groups = _groups(range(len(shape)), shape, [a.strides for a in arrays])
    nothing = (1, (0,) * len(arrays))
    *loop, rows, line = [nothing] * max(0, 2 - len(groups)) + groups
    axes_of_view = [*loop, rows, line]
    views = [as_strided(a, [n for n, _ in axes_of_view], [s[k] for _, s in axes_of_view]) for k, a in enumerate(arrays)]
    for index in np.ndindex(*(n for n, _ in loop)):
        yield [v[index] for v in views]


def _all_contiguous(arrays: Sequence[np.ndarray[Any, Any] | None], shape: tuple[int, ...]) -> bool:
    """Whether all arrays have this shape and no gaps."""
    for a in arrays:
        if a is not None and not (a.flags.c_contiguous and a.shape == shape):
            return False
    return True


Group = tuple[int, tuple[int, ...]]  # a length, and the step of each array


def _strides(a: np.ndarray[Any, Any] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides that broadcast an array to `shape`."""
    if a is None:
        return (0,) * len(shape)
    return tuple(0 if n == 1 and full != 1 else s for s, n, full in zip(a.strides, a.shape, shape, strict=True))


def _groups(axes: Sequence[int], shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]) -> list[Group]:
    """`axes`, from the longest stride to the shortest, merged where every array steps through two of them as through one."""
    groups: list[Group] = []
    for axis in sorted((a for a in axes if shape[a] != 1), key=lambda a: [-abs(s[a]) for s in strides]):
        length, steps = shape[axis], tuple(s[axis] for s in strides)
        if groups and all(wide == narrow * length for wide, narrow in zip(groups[-1][1], steps, strict=True)):
            groups[-1] = groups[-1][0] * length, steps
        else:
            groups.append((length, steps))
    return groups


def _each_block(
    axes: Sequence[int], shape: tuple[int, ...], arrays: Sequence[np.ndarray[Any, Any] | None], written: int
) -> Iterator[Views]:
    """Contiguous copies of blocks of rows, for reduced axes that no single stride steps through; results are copied back."""
    batch = sorted((a for a in range(len(shape)) if a not in axes), key=lambda a: -shape[a])
    order = [*batch, *axes]
    turned = [None if a is None else a.transpose(order) for a in arrays]
    length = math.prod(shape[a] for a in axes)
    rows = [1] if not batch else [shape[batch[0]]]
    step = max(1, BLOCK // max(1, math.prod(shape) // rows[0]))
    for start in range(0, rows[0], step):
        part = slice(start, start + step) if batch else Ellipsis
        parts = [None if t is None else t[part] if t.shape[0] != 1 or not batch else t for t in turned]
        full = parts[0].shape  # type: ignore[union-attr]
        copies: Views = []
        for p in parts:
            if p is None:
                copies.append(None)
                continue
            # An array with one value for each row stays so; one that lacks only some of the axes is broadcast.
            keeps = any(n != 1 for n in p.shape[len(batch) :]) or length == 1
            target = full if keeps else full[: len(batch)] + (1,) * len(axes)
            copies.append(np.array(np.broadcast_to(p, target), order="C").reshape(-1, length if keeps else 1, 1))
        yield copies
        into, result = parts[written], copies[written]
        assert into is not None and result is not None
        into[...] = result.reshape(into.shape)


# -------------------------------------------------------------------------------------------------------------------------- calls
def normalize_rows(
    kernel: Callable[..., None],
    name: str,
    x: Any,
    axis: Any,
    *,
    temperature: Any,
    base: Any,
    where: Any,
    out: Any,
    dtype: Any,
    num_threads: Any,
    logarithm: bool,
    sign: float = 1.0,
) -> Any:
    """Call a kernel of the softmax kind: a result for every element, from the row it stands in."""
    a = as_array(x, "x")
    scalar = a.ndim == 0
    if scalar:
        a = a.reshape(1)
    axes = normalize_axes(axis, a.ndim)
    wanted = result_dtype(a, dtype)
    heat = as_temperature(temperature, a.shape, axes)
    ln_base = as_ln_base(base, least_exclusive=logarithm)
    mask = as_where(where, a.shape if not scalar else ())
    if mask is not None and scalar:
        mask = mask.reshape(1)
    threads = _threads.resolve(num_threads, a.size)
    result = np.empty_like(a, wanted, subok=False) if out is None else check_out(out, () if scalar else a.shape, wanted)
    target = result.reshape(a.shape)
    if a.size:
        aligned = target if target.flags.aligned else np.empty(a.shape, wanted)
        a, mask = apart(a, aligned), apart(mask, aligned)
        assert a is not None
        run = implementation(kernel, name, a.dtype, wanted)
        if ln_base[0] == 0 or is_extreme(ln_base, heat, a.dtype):
            run = TWINS[name]
        rows = None if heat.shape == (1, 1) and a.ndim != 2 or heat.size == 1 else heat
        for source, into, row, present in each_view(axes, [a, aligned, rows, mask], written=1):
            signed = heat.reshape(1, 1) if row is None else row[:, 0]
            run(source, into, signed if sign == 1 else -signed, ln_base, present, threads)
        if aligned is not target:
            target[...] = aligned
    if out is not None:
        return out
    return result.reshape(())[()] if scalar else result


def flat(
    kernel: Callable[..., None], name: str, x: Any, *, out: Any, dtype: Any, num_threads: Any, argument: str = "x"
) -> Any:
    """Call an elementwise kernel."""
    a = as_array(x, argument)
    wanted = result_dtype(a, dtype)
    threads = _threads.resolve(num_threads, a.size)
    result = np.empty_like(a, wanted, subok=False) if out is None else check_out(out, a.shape, wanted)
    if a.size:
        aligned = result if result.flags.aligned else np.empty(a.shape, wanted)
        source = apart(a, aligned)
        assert source is not None
        run = implementation(kernel, name, a.dtype, wanted)
        for line, into in each_line([source, aligned]):
            run(line, into, threads)
        if aligned is not result:
            result[...] = aligned
    if out is not None:
        return out
    return result[()] if a.ndim == 0 else result


def _pair(g: Any, y: Any, other: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """`g` and what belongs to it as arrays of one shape and one dtype."""
    a, b = as_array(g, "g"), as_array(y, other)
    if a.shape != b.shape:
        raise ValueError(f"g must have the shape of {other}, {b.shape}, got {a.shape}")
    return a, b


def _common(*arrays: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Arrays in the dtype they have in common."""
    dtype = np.result_type(*arrays)
    with np.errstate(all="ignore"):
        return [a.astype(dtype, copy=False) for a in arrays]


def flat_vjp(kernel: Callable[..., None], name: str, g: Any, y: Any, other: str, *, out: Any, num_threads: Any) -> Any:
    """Call an elementwise kernel of two arguments."""
    a, b = _common(*_pair(g, y, other))
    threads = _threads.resolve(num_threads, a.size)
    result = np.empty_like(b, subok=False) if out is None else check_out(out, a.shape, a.dtype)
    if a.size:
        aligned = result if result.flags.aligned else np.empty(a.shape, a.dtype)
        sources = [apart(a, aligned), apart(b, aligned)]
        run = implementation(kernel, name, a.dtype)
        for left, right, into in each_line([*sources, aligned]):  # type: ignore[list-item]
            run(left, right, into, threads)
        if aligned is not result:
            result[...] = aligned
    if out is not None:
        return out
    return result[()] if a.ndim == 0 else result


def rows_vjp(
    kernel: Callable[..., None], name: str, g: Any, y: Any, axis: Any, *, temperature: Any, out: Any, num_threads: Any
) -> Any:
    """Call a kernel that takes the gradient back through rows."""
    a, b = _common(*_pair(g, y, "y"))
    scalar = a.ndim == 0
    if scalar:
        a, b = a.reshape(1), b.reshape(1)
    axes = normalize_axes(axis, a.ndim)
    heat = as_temperature(temperature, a.shape, axes)
    threads = _threads.resolve(num_threads, a.size)
    result = np.empty_like(b, subok=False) if out is None else check_out(out, () if scalar else a.shape, a.dtype)
    target = result.reshape(a.shape)
    if a.size:
        aligned = target if target.flags.aligned else np.empty(a.shape, a.dtype)
        run = implementation(kernel, name, a.dtype)
        if is_extreme((1.0, 0.0), heat, a.dtype):
            run = TWINS[name]
        rows = None if heat.size == 1 else heat
        for left, right, into, row in each_view(axes, [apart(a, aligned), apart(b, aligned), aligned, rows], written=2):
            run(left, right, into, heat.reshape(1, 1) if row is None else row[:, 0], threads)
        if aligned is not target:
            target[...] = aligned
    if out is not None:
        return out
    return result.reshape(())[()] if scalar else result


def reduce_rows(
    kernel: Callable[..., None],
    name: str,
    x: Any,
    axis: Any,
    *,
    b: Any,
    keepdims: Any,
    base: Any,
    where: Any,
    out: Any,
    dtype: Any,
    num_threads: Any,
) -> Any:
    """Call a kernel of the logsumexp kind: one result for every row."""
    a = as_array(x, "x")
    scalar = a.ndim == 0
    mask, weights = as_where(where, a.shape), as_weights(b, a.shape)
    if scalar:
        a, mask, weights = (None if v is None else v.reshape(1) for v in (a, mask, weights))
        assert a is not None
    axes = normalize_axes(axis, a.ndim)
    wanted = result_dtype(a, dtype, reduced=True)
    ln_base = as_ln_base(base, least_exclusive=True)
    threads = _threads.resolve(num_threads, a.size)
    kept = reduced_shape(a.shape, axes, keepdims=True)
    shape = () if scalar else kept if keepdims else reduced_shape(a.shape, axes, keepdims=False)
    result = np.empty(shape, wanted) if out is None else check_out(out, shape, wanted)
    if not a.size:
        result.fill(-np.inf)
    else:
        aligned = result if result.flags.aligned else np.empty(shape, wanted)
        a, mask, weights = apart(a, aligned), apart(mask, aligned), apart(weights, aligned)
        assert a is not None
        run = implementation(kernel, name, a.dtype, wanted)
        for source, into, present, weight in each_view(axes, [a, _with_axes(aligned, axes, a.ndim), mask, weights], written=1):
            assert into is not None
            run(source, weight, into[:, 0], ln_base, present, threads)
        if aligned is not result:
            result[...] = aligned
    if out is not None:
        return out
    return result[()] if result.ndim == 0 else result


def reduced_vjp(kernel: Callable[..., None], name: str, g: Any, x: Any, axis: Any, *, out: Any, num_threads: Any) -> Any:
    """Call a kernel that takes the gradient of one number per row back to the row."""
    a, b = as_array(g, "g"), as_array(x, "x")
    scalar = b.ndim == 0
    shape = b.shape
    if scalar:
        b = b.reshape(1)
    axes = normalize_axes(axis, b.ndim)
    kept = reduced_shape(b.shape, axes, keepdims=True)
    allowed = [()] if scalar else [reduced_shape(b.shape, axes, keepdims=False), kept]
    if a.shape not in allowed:
        raise ValueError(f"g must have the shape of logsumexp(x), {' or '.join(map(str, allowed))}, got {a.shape}")
    with np.errstate(all="ignore"):
        a = a.astype(b.dtype if b.dtype in COMPILED else np.result_type(a, b), copy=False)
    threads = _threads.resolve(num_threads, b.size)
    result = np.empty_like(b, subok=False) if out is None else check_out(out, shape, b.dtype)
    target = result.reshape(b.shape)
    if b.size:
        aligned = target if target.flags.aligned else np.empty(b.shape, b.dtype)
        run = implementation(kernel, name, b.dtype)
        gradient = apart(_with_axes(a, axes, b.ndim), aligned)
        for source, into, row in each_view(axes, [apart(b, aligned), aligned, gradient], written=1):
            assert row is not None
            run(row[:, 0], source, into, threads)
        if aligned is not target:
            target[...] = aligned
    if out is not None:
        return out
    return result.reshape(())[()] if scalar else result


def _with_axes(a: np.ndarray[Any, Any], axes: Sequence[int], ndim: int) -> np.ndarray[Any, Any]:
    """A reduced array with its reduced axes back, of length 1: a view, whatever its strides."""
    return a if a.ndim == ndim else np.expand_dims(a, tuple(axes))
