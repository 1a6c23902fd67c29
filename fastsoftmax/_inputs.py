"""What comes in: whatever a caller passes becomes a native array of real numbers, or an error.

What is copied (integers, foreign byte order, misaligned memory, where kernels do not convert it as
they read) says so below.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._views import Rows, normalize_axes

Array = NDArray[Any]

COMPILED = tuple(
    map(np.dtype, (np.float32, np.float64, np.float16))
)  # with bfloat16, what compiled kernels take
READ = frozenset(map(np.dtype, "fde?bhilqBHILQ"))  # and what they take once they convert it


# --- dtypes ---------------------------------------------------------------------------------------


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is ``ml_dtypes.bfloat16``,
    which NumPy knows only once that package was imported.
    """
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is for storage only: 16 bits, computed with in float32 or better."""
    return dtype == np.float16 or is_bfloat16(dtype)


def is_compiled(dtype: np.dtype[Any]) -> bool:
    """Whether compiled kernels read arrays of a dtype, converting what is of an integer dtype or
    not native; the twins take the rest.
    """
    return dtype in READ or is_bfloat16(dtype) or dtype.newbyteorder("=") in READ


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether results can have this dtype."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def float_dtype(a: Array) -> np.dtype[Any]:
    """The native floating dtype that the numbers of an array are taken for:
    float64 for integers.
    """
    if a.dtype in COMPILED:
        return a.dtype
    native: np.dtype[Any] = a.dtype.newbyteorder("=")
    return np.dtype(np.float64) if native.kind in "iub" else native


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


# --- arrays ---------------------------------------------------------------------------------------


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


def as_float64(x: Any, name: str) -> Array:
    """A copy of `x` as float64; what is beyond its range is an ordinary infinity or 0."""
    a = as_array(x, name)
    with np.errstate(all="ignore"):
        return a.astype(np.float64)


def as_rows(x: Any, name: str, axis: Any) -> Rows:
    """The scores and their axis, which must be a single one; a number is a row of one class."""
    a = as_numbers(x, name)
    try:
        axes = normalize_axes(axis if type(axis) is int else operator.index(axis), a.ndim)
    except TypeError:
        raise TypeError(f"axis must be an int, got {axis!r}") from None
    return Rows(a, axes[0], name, a.shape) if axes else Rows(a.reshape(1), 0, name, ())


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


# --- tensors of other libraries -------------------------------------------------------------------


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


# --- the way out, in messages ---------------------------------------------------------------------


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
