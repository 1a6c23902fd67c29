"""What else comes in: numbers, flags, masks, temperatures, bases and weights of terms."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._inputs import as_array, as_float64, as_numbers, as_plain_array, conversion, float_dtype
from ._views import Rows, broadcast, broadcasts, reduced_shape, with_axes_in_front

Array = NDArray[Any]

ONE = np.ones((1, 1))  # temperature 1 for all rows

# By identity with it the short lane of a function knows its default: comparing types and values
# takes 20 ns more, of 290 for a call.
UNSCALED: float = 1.0

# ln(base) / temperature beyond which a compiled kernel could overflow inside; the twins divide by
# the temperature instead.
_LARGEST_SCALE = {4: 2.0**60, 8: 2.0**900}  # by the size of the type in which is computed


# --- numbers --------------------------------------------------------------------------------------


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


def as_ignore_index(ignore_index: Any) -> int | None:
    """An integer, or None."""
    if ignore_index is None:
        return None
    try:
        return operator.index(ignore_index)
    except TypeError:
        raise TypeError(f"ignore_index must be an integer or None, got {ignore_index!r}") from None


def as_real(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A real number within bounds, and not NaN."""
    number = as_number(value, name)
    if not low <= number <= high:
        allowed = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(
            f"{name} must be {'a number' if low == -math.inf else allowed}, got {value!r}"
        )
    return number


def is_plain_float(value: Any, expected: float) -> bool:
    """Whether an option is a plain float of that value."""
    return type(value) is float and value == expected


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


# --- arrays beside the input ----------------------------------------------------------------------


def as_where(where: Any, shape: tuple[int, ...]) -> Array | None:
    """The mask as bytes, of as many axes as `shape`, to which it broadcasts."""
    if where is None:
        return None
    mask: Array = where if type(where) is np.ndarray else as_plain_array(where, "where")
    if mask.dtype != np.bool_:
        advice = f": {conversion(where, 'where', 'bool')}" if mask.dtype.kind in "Oiuf" else ""
        raise TypeError(f"where must be an array of bool, got dtype {mask.dtype}{advice}")
    return with_axes_in_front(mask, shape, "where").view(np.uint8)


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
    if temperature is UNSCALED:
        return ONE
    if type(temperature) is float and 0 < temperature < math.inf:
        return ONE if temperature == 1.0 else np.array([[temperature]])
    values = as_float64(temperature, "temperature")
    if not (np.all(np.isfinite(values)) and np.all(values > 0)):
        raise ValueError(f"temperature must be finite and greater than 0, got {temperature!r}")
    if values.ndim:
        values = broadcast(values, reduced_shape(shape, axes, keepdims=True), "temperature")
    return values.reshape(1, 1) if values.size == 1 else values


def as_row_temperatures(rows: Rows, temperature: Any) -> tuple[Array, bool]:
    """A temperature for all rows, shape (1, 1), or for each, with or without the axis of the
    classes; and whether one `is_extreme`.
    """
    if is_plain_float(temperature, 1):
        return ONE, False
    if not isinstance(temperature, float):
        a = as_array(temperature, "temperature")
        if 0 < a.ndim < rows.x.ndim and broadcasts(a, rows.shape):
            temperature = rows.per_row(a)
    temperatures = as_temperature(temperature, rows.x.shape, rows.axes)
    return temperatures, is_extreme((1.0, 0.0), temperatures, float_dtype(rows.x))


def per_row_temperatures(temperatures: Array) -> Array | None:
    """Temperatures that differ, to be viewed along with the rows; None for a single one."""
    return None if temperatures.size == 1 else temperatures


def is_extreme(ln_base: tuple[float, float], temperature: Array, dtype: np.dtype[Any]) -> bool:
    """Whether logits are scaled by so much or so little (0 for base 1)
    that compiled kernels would fail.
    """
    if (temperature is ONE and ln_base == (1.0, 0.0)) or not temperature.size:
        return False
    limit = _LARGEST_SCALE.get(max(dtype.itemsize, 4), math.inf)
    if temperature.size == 1:  # by far the quickest for one
        low = high = temperature.item()
    else:
        low, high = temperature.min(), temperature.max()
    return not (ln_base[0] / limit <= low and high <= ln_base[0] * limit)
