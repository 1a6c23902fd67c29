"""Arguments and arrays: the only place that knows axes, strides, dtypes, ``out``, ``where`` and
overlap.

Whatever a caller passes is checked and normalised here, once, before anything is written. Kernels
then see native, aligned arrays as views of three axes, (outer, n, inner), of which they normalise
the middle one, or of as few as there can be, if they work element by element. No array is copied
for its strides; what is copied (integers, foreign byte order, misaligned or partly overlapping
memory) says so below.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Context, Decimal
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _memory, _threads
from ._backend import TWINS

Array = NDArray[Any]
Kernel = Callable[..., Any]

COMPILED = tuple(
    map(np.dtype, (np.float32, np.float64, np.float16))
)  # with bfloat16, what compiled kernels take
ONE = np.ones((1, 1))  # temperature 1 for all rows

# By identity with these the short lane of a function knows its defaults: comparing types and values
# takes 40 ns more, of 290 for a call. (Where -1 is not one object, calls take longer, but give the
# same.)
LAST: int = -1
UNSCALED: float = 1.0

MOST_WORK: Any = 10_000  # steps of looking for an element that two arrays share: a few milliseconds
BLOCK = 1 << 17  # elements that are copied at a time where a view of three axes does not exist

# ln(base) / temperature beyond which a compiled kernel could overflow inside; the twins divide by
# the temperature instead.
_LARGEST_SCALE = {4: 2.0**60, 8: 2.0**900}  # by the size of the type in which is computed


# --- inputs and dtypes ----------------------------------------------------------------------------


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is ``ml_dtypes.bfloat16``,
    which NumPy knows only once that package was imported.
    """
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is for storage only: 16 bits, computed with in float32 or better."""
    return dtype == np.float16 or is_bfloat16(dtype)


def is_compiled(dtype: np.dtype[Any]) -> bool:
    """Whether compiled kernels take arrays of a dtype; the twins take the rest."""
    return dtype in COMPILED or is_bfloat16(dtype)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether results can have this dtype."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def as_array(x: Any, name: str, plain: Array | None = None) -> Array:
    """`x` as a native, aligned array of real numbers of a floating dtype, itself if it is one
    already.

    `plain` is what `as_plain_array` makes of it, if that is known.
    """
    a: Array = x if type(x) is np.ndarray else as_plain_array(x, name) if plain is None else plain
    if a.dtype in COMPILED and a.flags.aligned:  # which says that the byte order is native, too
        return a
    if a.dtype.kind in "iub":
        return a.astype(np.float64)
    if not is_float(a.dtype):
        advice = f": {conversion(x, name, 'float')}" if a.dtype.kind == "O" else ""
        raise TypeError(f"{name} must hold real numbers, got dtype {a.dtype}{advice}")
    if not (a.flags.aligned and a.dtype.isnative):
        return a.astype(a.dtype.newbyteorder("="))
    return a


def as_numbers(x: Any, name: str, plain: Array | None = None) -> Array:
    """`x` as an array of real numbers as they are in memory.

    Kernels that take it convert what is of an integer dtype, not native or not aligned in blocks.
    `plain` is what `as_plain_array` makes of it, if that is known.
    """
    a: Array = x if type(x) is np.ndarray else as_plain_array(x, name) if plain is None else plain
    if (
        a.dtype in COMPILED
        or a.dtype.kind in "iub"
        or (is_float(a.dtype) and a.dtype.itemsize <= 8)
    ):
        return a
    return as_array(x, name, a)


def float_dtype(a: Array) -> np.dtype[Any]:
    """The native floating dtype that the numbers of an array are taken for:
    float64 for integers.
    """
    if a.dtype in COMPILED:
        return a.dtype
    native: np.dtype[Any] = a.dtype.newbyteorder("=")
    return np.dtype(np.float64) if native.kind in "iub" else native


def as_float64(x: Any, name: str) -> Array:
    """A copy of `x` as float64; what is beyond its range is an ordinary infinity or 0."""
    a = as_array(x, name)
    with np.errstate(all="ignore"):
        return a.astype(np.float64)


def as_plain_array(x: Any, name: str) -> Array:
    """`x` as an ``np.ndarray`` proper, with its mask and its lazy signs minded."""
    if type(x) is np.ndarray:
        return x
    if hasattr(x, "__dlpack__") and not isinstance(x, (np.ndarray, np.generic)):
        return _from_tensor(x, name)
    return _from_array_like(x, name)


def _from_array_like(x: Any, name: str) -> Array:
    """Whatever ``np.asarray`` takes, but masks that it would ignore."""
    try:
        a = np.asanyarray(x)
    except MemoryError:
        raise
    except ValueError as error:
        raise ValueError(f"{name} cannot be made an array: {error}") from None
    except Exception as error:  # the libraries' own, from __array__: they tell the way out
        raise TypeError(
            f"{name}, of type {type(x).__name__}, cannot be made an array: {error}"
        ) from error
    if _is_masked(a) or (_is_of_arrays(x) and any(map(_is_masked, x))):
        advice = "pass its data, and where=~mask, or what .filled() makes of it"
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: {advice}")
    if isinstance(a, np.matrix):
        advice = f"pass np.asarray({name})"
        raise TypeError(f"{name} must not be a np.matrix, got one of shape {a.shape}: {advice}")
    return np.asarray(a)


def _is_masked(x: Any) -> bool:
    """Whether `x` is a masked array with an element that does not count."""
    return isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x)


def _is_of_arrays(x: Any) -> bool:
    """Whether `x` is a list of arrays, by its first item."""
    return isinstance(x, (list, tuple)) and len(x) > 0 and isinstance(x[0], np.ndarray)


def _from_tensor(x: Any, name: str) -> Array:
    """A tensor of another library, in the memory where it is if that library lets NumPy have it."""
    if _is_of_torch(x):
        return _from_torch(sys.modules["torch"], x, name)
    try:
        return np.from_dlpack(_AskedOnce(x))
    except MemoryError:
        raise
    except Exception as error:
        if hasattr(x, "__array__"):  # of which more is taken: any device, nulls, bfloat16
            return _from_array_like(x, name)
        advice = "it must be an array of real numbers in memory of the CPU"
        raise TypeError(
            f"{name}, of type {type(x).__name__}, cannot be imported ({error}); {advice}"
        ) from error


def _is_of_torch(x: Any) -> bool:
    """Whether `x` is a tensor of PyTorch, which is not imported for that."""
    return isinstance(x, getattr(sys.modules.get("torch"), "Tensor", ()))


class _AskedOnce:
    """A tensor that refuses for good.

    After any TypeError NumPy asks again, in the old way, of which PyArrow warns.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        try:
            return self.tensor.__dlpack__(**options)
        except TypeError as error:
            if type(error) is TypeError:  # perhaps of an unknown option
                raise
            raise BufferError(str(error)) from error


def _from_torch(torch: Any, x: Any, name: str) -> Array:
    """A tensor of PyTorch on the CPU, sharing its memory,
    unless a sign in it is yet to be changed.
    """
    try:
        if x.is_conj() or x.is_neg():  # __dlpack__ would export what lies in memory
            x = x.resolve_conj().resolve_neg()
        if (
            x.dtype == torch.bfloat16
            and not x.requires_grad
            and (bfloat16 := _bfloat16()) is not None
        ):
            return np.from_dlpack(x.view(torch.int16)).view(bfloat16)
        return np.from_dlpack(x)
    except MemoryError:
        raise
    except Exception as error:
        steps = "".join(_steps_out_of_torch(torch, x))
        advice = (
            f"pass {name}{steps}" if steps else "it must be a tensor of real numbers on the CPU"
        )
        raise TypeError(
            f"{name}, of type {type(x).__name__}, cannot be imported ({error}); {advice}"
        ) from error


def _steps_out_of_torch(torch: Any, x: Any) -> Iterator[str]:
    """What makes a tensor that can be imported of one that cannot."""
    if x.requires_grad:
        yield ".detach()"
    if x.is_quantized:
        yield ".dequantize()"
    elif x.layout != torch.strided:
        yield ".to_dense()"
    if x.device.type not in ("cpu", "meta"):  # which has no numbers
        yield ".cpu()"
    known = (
        torch.float16,
        torch.float32,
        torch.float64,
        *[torch.bfloat16] * (_bfloat16() is not None),
    )
    if x.is_floating_point() and x.dtype not in known:
        yield ".float()"


def _bfloat16() -> Any:
    """The type, where there is a package that has it."""
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return None
    return bfloat16


def conversion(x: Any, name: str, kind: str) -> str:
    """How to make an array of "float", "int" or "bool" of an argument,
    in the words of its library.
    """
    if _is_of_torch(x):
        return f"pass {name}.{'double' if kind == 'float' else 'long' if kind == 'int' else kind}()"
    if type(x).__module__.partition(".")[0] == "pandas":  # NumPy makes objects of nullable columns
        missing = {"float": ", na_value=np.nan", "int": "", "bool": ", na_value=False"}[kind]
        return f"pass {name}.to_numpy(dtype={kind}{missing})"
    if isinstance(x, np.ndarray):
        return f"pass {name}.astype({kind})"
    return f"pass np.asarray({name}, {kind})"


def of_largest(x: Any, name: str, axis: int) -> str:
    """How to get the labels of one-hot targets, likewise."""
    array = name if isinstance(x, np.ndarray) or _is_of_torch(x) else f"np.asarray({name})"
    return f"{array}.argmax({axis})"


def result_dtype(x: Array, dtype: Any, reduced: bool = False) -> np.dtype[Any]:
    """The result's dtype: `dtype`, else the input's, or float32 for reductions of 16-bit input."""
    if dtype is None:
        own = float_dtype(x)
        return np.dtype(np.float32) if reduced and is_half(own) else own
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a floating dtype, got {dtype!r}") from None
    if not is_float(wanted):
        raise TypeError(f"dtype must be a floating dtype, got {wanted}")
    native: np.dtype[Any] = wanted.newbyteorder("=")
    return native


# --- axes and shapes ------------------------------------------------------------------------------


def normalize_axes(axis: Any, ndim: int) -> tuple[int, ...]:
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


def reduced_shape(shape: tuple[int, ...], axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    """`shape` with length 1 on `axes`, or without them."""
    if keepdims:
        return tuple(1 if a in axes else length for a, length in enumerate(shape))
    return tuple(length for a, length in enumerate(shape) if a not in axes)


# --- parameters -----------------------------------------------------------------------------------


def as_where(where: Any, shape: tuple[int, ...]) -> Array | None:
    """The mask as bytes, of as many axes as `shape`, to which it broadcasts."""
    if where is None:
        return None
    mask: Array = where if type(where) is np.ndarray else as_plain_array(where, "where")
    if mask.dtype != np.bool_:
        advice = f": {conversion(where, 'where', 'bool')}" if mask.dtype.kind in "Oiuf" else ""
        raise TypeError(f"where must be an array of bool, got dtype {mask.dtype}{advice}")
    return _with_axes_in_front(mask, shape, "where").view(np.uint8)


def with_weights(x: Array, b: Any) -> tuple[Array, Array | None]:
    """`x` and its weights, broadcast against each other:
    `x` in full, the weights to as many axes.
    """
    if b is None:
        return x, None
    weights = as_numbers(b, "b")
    if weights.shape == x.shape:
        return x, weights
    try:
        shape = np.broadcast_shapes(x.shape, weights.shape)
    except ValueError:
        shapes = f"{x.shape} and {weights.shape}"
        raise ValueError(
            f"x and b must broadcast against each other, got shapes {shapes}"
        ) from None
    x = x if x.shape == shape else np.broadcast_to(x, shape)
    return x, weights.reshape((1,) * (len(shape) - weights.ndim) + weights.shape)


def as_temperature(temperature: Any, shape: tuple[int, ...], axes: Sequence[int]) -> Array:
    """Temperatures as float64: one, of shape (1, 1), or one a row,
    of the shape with `axes` of length 1.
    """
    if type(temperature) is float and 0 < temperature < math.inf:
        return ONE if temperature == 1.0 else np.array([[temperature]])
    values = as_float64(temperature, "temperature")
    if not (np.all(np.isfinite(values)) and np.all(values > 0)):
        raise ValueError(f"temperature must be finite and greater than 0, got {temperature!r}")
    if values.ndim:
        values = broadcast(values, reduced_shape(shape, axes, keepdims=True), "temperature")
    return values.reshape(1, 1) if values.size == 1 else values


def varying(heat: Array) -> Array | None:
    """Temperatures that differ, to be viewed along with the rows; None for a single one."""
    return None if heat.size == 1 else heat


def _with_axes_in_front(a: Array, shape: tuple[int, ...], name: str) -> Array:
    """`a` with as many axes as `shape`, to which it must broadcast."""
    if a.shape == shape:
        return a
    broadcast(a, shape, name)
    return a.reshape((1,) * (len(shape) - a.ndim) + a.shape)


def broadcast(a: Array, shape: tuple[int, ...], name: str) -> Array:
    """`a` broadcast to `shape`; the error names it."""
    if not broadcasts(a, shape):
        raise ValueError(f"{name} must broadcast to shape {shape}, got shape {a.shape}")
    return np.broadcast_to(a, shape)


def broadcasts(a: Array, shape: tuple[int, ...]) -> bool:
    """Whether `a` broadcasts to `shape`."""
    axes = zip(reversed(a.shape), reversed(shape), strict=False)
    return a.ndim <= len(shape) and all(n in (1, full) for n, full in axes)


def as_number(value: Any, name: str, allowed: str = "a real number") -> float:
    """A number as a float, infinite where it is too large for one."""
    is_real = hasattr(value, "__float__") or hasattr(value, "__index__")
    if not is_real or isinstance(value, (complex, np.complexfloating)) or np.ndim(value):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be {allowed}, got {value!r}: {error}") from None


def as_flag(value: Any, name: str) -> bool:
    """True or False, or 1 or 0."""
    if not isinstance(value, (bool, np.bool_, int, np.integer)) or value not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_ln_base(base: Any, least_exclusive: bool) -> tuple[float, float]:
    """The natural logarithm of the base as hi + lo; (1, 0) for base e."""
    if base is None:
        return 1.0, 0.0
    value = as_number(base, "base", "a real number or None")
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


def is_extreme(ln_base: tuple[float, float], temperature: Array, dtype: np.dtype[Any]) -> bool:
    """Whether logits are scaled by so much or so little (0 for base 1)
    that compiled kernels would fail.
    """
    if (ln_base == (1.0, 0.0) and temperature is ONE) or not temperature.size:
        return False
    limit = _LARGEST_SCALE.get(max(dtype.itemsize, 4), math.inf)
    return not (ln_base[0] / limit <= temperature.min() and temperature.max() <= ln_base[0] * limit)


# --- outputs --------------------------------------------------------------------------------------


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


# --- views ----------------------------------------------------------------------------------------

Views = list[Any]  # arrays, with None for what is not there


def each_view(
    axes: Sequence[int],
    arrays: Sequence[Array | None],
    in_order: bool = False,
    any_length: bool = False,
) -> Iterable[Views]:
    """The arrays as views (outer, n, inner), in as few steps as their strides allow, mostly one.

    All have as many axes as the first, whose shape is the full one; where another has length 1 it
    is broadcast, and if `any_length` is true, its length on a single reduced axis is free. The
    second is the one that is written. A None stays None. If `in_order` is true, n runs through the
    reduced axes in C order.
    """
    first = arrays[0]
    assert first is not None
    if not first.size:
        return []
    views = _contiguous_views(axes, arrays, first.shape, any_length) if axes else None
    return (
        _each_strided(axes, arrays, first.shape, in_order, any_length) if views is None else [views]
    )


def _contiguous_views(
    axes: Sequence[int], arrays: Sequence[Array | None], shape: tuple[int, ...], any_length: bool
) -> Views | None:
    """Views of arrays without gaps, with all of the reduced axes or one value a row;
    None for others.
    """
    start, stop = axes[0], axes[-1] + 1
    if stop - start != len(axes):
        return None
    outer, inner = math.prod(shape[:start]), math.prod(shape[stop:])
    views: Views = []
    for a in arrays:
        if a is not None:
            fits = a.shape == shape or _has_rows_of(a, shape, start, stop, any_length)
            if not (fits and a.flags.c_contiguous):
                return None
            a = a.reshape(outer, -1, inner)
        views.append(a)
    return views


def _has_rows_of(a: Array, shape: tuple[int, ...], start: int, stop: int, any_length: bool) -> bool:
    """Whether a shape is the full one but for length 1 from `start` to `stop`,
    or any length of one axis.
    """
    n = a.shape[start:stop]
    return a.shape == shape[:start] + n + shape[stop:] and (
        (any_length and len(n) == 1) or math.prod(n) == 1
    )


def _each_strided(
    axes: Sequence[int],
    arrays: Sequence[Array | None],
    shape: tuple[int, ...],
    in_order: bool,
    any_length: bool,
) -> Iterator[Views]:
    """The views of `each_view` for any strides."""
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


def merged(arrays: Sequence[Array]) -> list[Array]:
    """The arrays, of one shape, with axes merged that every one can step through as one.

    The first array has its shortest step along the last axis.
    """
    shape = arrays[0].shape
    if any(a.shape != shape for a in arrays):
        raise ValueError(RESIZED)
    if all(a.flags.c_contiguous for a in arrays):
        return [a.reshape(-1) for a in arrays]
    groups = _groups(range(len(shape)), shape, [a.strides for a in arrays]) or [()]
    order = [axis for group in groups for axis in group]
    return [_regrouped(a, groups, order) for a in arrays]


# Shapes were right when the arguments were looked at; then ran code of theirs, or another thread.
RESIZED = "an array must not change its shape during the call"


def _fits(a: Array, shape: tuple[int, ...], free: Sequence[int]) -> bool:
    """Whether an array still broadcasts to a shape;
    its length on the `free` axes does not matter.
    """
    lengths = enumerate(zip(a.shape, shape, strict=False))
    return a.ndim == len(shape) and all(
        n in (1, full) or axis in free for axis, (n, full) in lengths
    )


Group = tuple[int, ...]  # axes that are one for the kernels


def _groups(
    axes: Sequence[int], shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]
) -> list[Group]:
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


def _strides(a: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides that broadcast an array to `shape`."""
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


def _at(index: tuple[int, ...], view: Array) -> Any:
    """What an array holds at an index of its first axes, along which it may be broadcast."""
    return view[tuple(i if n > 1 else 0 for i, n in zip(index, view.shape, strict=False))]


def _regrouped(a: Array, groups: Sequence[Group], order: list[int]) -> Array:
    """A view with one axis for each group. Axes in no group have length 1."""
    lengths = [math.prod(a.shape[axis] for axis in group) for group in groups]
    return a.transpose([axis for axis in range(a.ndim) if axis not in order] + order).reshape(
        lengths
    )


def _each_block(
    axes: Sequence[int], arrays: Sequence[Array | None], shape: tuple[int, ...]
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


def _rows_of(a: Array, shape: tuple[int, ...], leading: int) -> Any:
    """A copy (rows, n, 1) of an array broadcast to `shape`, (rows, 1, 1)
    if it has one value for each row.
    """
    if math.prod(a.shape[leading:]) == 1:
        shape = shape[:leading] + a.shape[leading:]
    rows = math.prod(shape[:leading])
    return np.array(np.broadcast_to(a, shape), order="C").reshape(rows, -1, 1)


# --- calls ----------------------------------------------------------------------------------------


def normalize_rows(
    kernel: Kernel,
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
    negated: bool = False,
) -> Any:
    """Call a kernel of the softmax kind: a result for every element, from the row it stands in."""
    a = as_numbers(x, "x")
    axes = normalize_axes(axis, a.ndim)
    wanted = result_dtype(a, dtype)
    heat = as_temperature(temperature, a.shape, axes)
    ln_base = as_ln_base(base, least_exclusive=logarithm)
    mask = as_where(where, a.shape)
    threads = _threads.resolve(num_threads, a.size)
    given = float_dtype(a)
    run = able(kernel, given, wanted, extreme=is_extreme(ln_base, heat, given))
    if negated:
        heat = -heat
    result = new_or_checked(out, a, wanted)
    target, a, mask = destination(out, result, a, mask)
    for source, into, row, present in each_view(axes, [a, target, varying(heat), mask]):
        run(source, into, heat if row is None else row[:, 0], ln_base, present, threads)
    return delivered(out, result, target)


def map_rows(
    kernel: Kernel, x: Any, axis: Any, *, where: Any, out: Any, dtype: Any, num_threads: Any
) -> Any:
    """Call a kernel that has no other options than a mask:
    a result for every element, from its row.
    """
    a = as_numbers(x, "x")
    axes = normalize_axes(axis, a.ndim)
    wanted = result_dtype(a, dtype)
    mask = as_where(where, a.shape)
    threads = _threads.resolve(num_threads, a.size)
    run = able(kernel, float_dtype(a), wanted)
    result = new_or_checked(out, a, wanted)
    target, a, mask = destination(out, result, a, mask)
    for source, into, present in each_view(axes, [a, target, mask]):
        run(source, into, present, threads)
    return delivered(out, result, target)


def rows_vjp(
    kernel: Kernel,
    g: Any,
    y: Any,
    axis: Any,
    *,
    saved: str = "y",
    temperature: Any,
    out: Any,
    num_threads: Any,
) -> Any:
    """Call a kernel that takes the gradient back through rows, from what a caller knows as `saved`.

    Kernels of operations that have no temperature, None, get none.
    """
    a, b, dtype = _pair(g, y, saved)
    axes = normalize_axes(axis, a.ndim)
    heat = ONE if temperature is None else as_temperature(temperature, a.shape, axes)
    threads = _threads.resolve(num_threads, a.size)
    run = able(
        kernel, float_dtype(a), float_dtype(b), dtype, extreme=is_extreme((1.0, 0.0), heat, dtype)
    )
    result = new_or_checked(out, b, dtype)
    target, a, b = destination(out, result, a, b)
    for left, into, right, row in each_view(axes, [a, target, b, varying(heat)]):
        options = () if temperature is None else (heat if row is None else row[:, 0],)
        run(left, right, into, *options, threads)
    return delivered(out, result, target)


def reduce_rows(
    kernel: Kernel,
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
    a, weights = with_weights(as_numbers(x, "x"), b)
    mask = as_where(where, a.shape)
    axes = normalize_axes(axis, a.ndim)
    keepdims = as_flag(keepdims, "keepdims")
    wanted = result_dtype(a, dtype, reduced=True)
    ln_base = as_ln_base(base, least_exclusive=True)
    threads = _threads.resolve(num_threads, a.size)
    run = able(kernel, float_dtype(a), wanted, *([] if weights is None else [float_dtype(weights)]))
    kept = reduced_shape(a.shape, axes, keepdims=True)
    shape = kept if keepdims else reduced_shape(a.shape, axes, keepdims=False)
    result = np.empty(shape, wanted) if out is None else check_out(out, shape, wanted)
    target, a, mask, weights = destination(out, result, a, mask, weights)
    if not a.size:
        target.fill(-np.inf)
    for source, into, present, weight in each_view(axes, [a, target.reshape(kept), mask, weights]):
        run(source, weight, into[:, 0], ln_base, present, threads)
    return delivered(out, result, target)


def reduced_vjp(kernel: Kernel, g: Any, x: Any, axis: Any, *, out: Any, num_threads: Any) -> Any:
    """Call a kernel that takes the gradient of one number per row back to the row."""
    a, b = as_array(g, "g"), as_numbers(x, "x")
    axes = normalize_axes(axis, b.ndim)
    kept, left = (reduced_shape(b.shape, axes, keepdims) for keepdims in (True, False))
    if a.shape not in (kept, left):
        allowed = " or ".join(str(shape) for shape in dict.fromkeys([left, kept]))
        raise ValueError(f"g must have the shape of logsumexp(x), {allowed}, got {a.shape}")
    threads = _threads.resolve(num_threads, b.size)
    dtype = float_dtype(b)
    run = able(kernel, a.dtype, dtype)
    result = new_or_checked(out, b, dtype)
    target, a, b = destination(out, result, a.reshape(kept), b)
    for source, into, row in each_view(axes, [b, target, a]):
        run(row[:, 0], source, into, threads)
    return delivered(out, result, target)


def flat(
    kernel: Kernel, x: Any, *, out: Any, dtype: Any, num_threads: Any, argument: str = "x"
) -> Any:
    """Call an elementwise kernel."""
    a = as_numbers(x, argument)
    return _each_element(kernel, a, out=out, dtype=result_dtype(a, dtype), num_threads=num_threads)


def flat_vjp(kernel: Kernel, g: Any, y: Any, other: str, *, out: Any, num_threads: Any) -> Any:
    """Call an elementwise kernel of two arguments."""
    a, b, dtype = _pair(g, y, other)
    return _each_element(kernel, a, b, out=out, dtype=dtype, num_threads=num_threads)


def _each_element(
    kernel: Kernel, *inputs: Array, out: Any, dtype: np.dtype[Any], num_threads: Any
) -> Any:
    """Call an elementwise kernel on arrays of one shape."""
    last = inputs[-1]
    threads = _threads.resolve(num_threads, last.size)
    run = able(kernel, *map(float_dtype, inputs), dtype)
    result = new_or_checked(out, last, dtype)
    target, *sources = destination(out, result, *inputs)
    if target.size:
        run(*merged([*sources, target]), threads)
    return delivered(out, result, target)


def _pair(g: Any, y: Any, other: str) -> tuple[Array, Array, np.dtype[Any]]:
    """`g` and what belongs to it as arrays of one shape, and the dtype they have in common."""
    a, b = as_numbers(g, "g"), as_numbers(y, other)
    if a.shape != b.shape:
        raise ValueError(f"g must have the shape of {other}, {b.shape}, got {a.shape}")
    return a, b, np.result_type(float_dtype(a), float_dtype(b))


def able(kernel: Kernel, *dtypes: np.dtype[Any], extreme: bool = False) -> Kernel:
    """The active kernel, or its twin for dtypes and scales that no compiled kernel takes."""
    if not extreme and all(map(is_compiled, dtypes)):
        return kernel
    return TWINS[kernel.__name__]
