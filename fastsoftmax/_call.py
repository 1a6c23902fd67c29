"""The calls of kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _threads
from ._backend import TWINS
from ._inputs import as_array, as_numbers, float_dtype, is_compiled, result_dtype
from ._outputs import check_out, delivered, destination, new_or_checked
from ._parameters import (
    ONE,
    as_flag,
    as_ln_base,
    as_temperature,
    as_where,
    is_extreme,
    per_row_temperatures,
    with_weights,
)
from ._views import iter_views, merged, normalize_axes, reduced_shape

Array = NDArray[Any]
Kernel = Callable[..., Any]


def kernel_for(kernel: Kernel, *dtypes: np.dtype[Any], extreme: bool = False) -> Kernel:
    """The active kernel, or its twin for dtypes and scales that no compiled kernel takes."""
    if not extreme and all(map(is_compiled, dtypes)):
        return kernel
    return TWINS[kernel.__name__]


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
    run = kernel_for(kernel, given, wanted, extreme=is_extreme(ln_base, heat, given))
    if negated:
        heat = -heat
    result = new_or_checked(out, a, wanted)
    target, a, mask = destination(out, result, a, mask)
    for source, into, row, present in iter_views(
        axes, [a, target, per_row_temperatures(heat), mask]
    ):
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
    run = kernel_for(kernel, float_dtype(a), wanted)
    result = new_or_checked(out, a, wanted)
    target, a, mask = destination(out, result, a, mask)
    for source, into, present in iter_views(axes, [a, target, mask]):
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
    run = kernel_for(
        kernel, float_dtype(a), float_dtype(b), dtype, extreme=is_extreme((1.0, 0.0), heat, dtype)
    )
    result = new_or_checked(out, b, dtype)
    target, a, b = destination(out, result, a, b)
    for left, into, right, row in iter_views(axes, [a, target, b, per_row_temperatures(heat)]):
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
    run = kernel_for(
        kernel, float_dtype(a), wanted, *([] if weights is None else [float_dtype(weights)])
    )
    kept = reduced_shape(a.shape, axes, keepdims=True)
    shape = kept if keepdims else reduced_shape(a.shape, axes, keepdims=False)
    result = np.empty(shape, wanted) if out is None else check_out(out, shape, wanted)
    target, a, mask, weights = destination(out, result, a, mask, weights)
    if not a.size:
        target.fill(-np.inf)
    for source, into, present, weight in iter_views(axes, [a, target.reshape(kept), mask, weights]):
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
    run = kernel_for(kernel, a.dtype, dtype)
    result = new_or_checked(out, b, dtype)
    target, a, b = destination(out, result, a.reshape(kept), b)
    for source, into, row in iter_views(axes, [b, target, a]):
        run(row[:, 0], source, into, threads)
    return delivered(out, result, target)


def elementwise(
    kernel: Kernel, x: Any, *, out: Any, dtype: Any, num_threads: Any, argument: str = "x"
) -> Any:
    """Call an elementwise kernel."""
    a = as_numbers(x, argument)
    return _each_element(kernel, a, out=out, dtype=result_dtype(a, dtype), num_threads=num_threads)


def elementwise_vjp(
    kernel: Kernel, g: Any, y: Any, other: str, *, out: Any, num_threads: Any
) -> Any:
    """Call an elementwise kernel of two arguments."""
    a, b, dtype = _pair(g, y, other)
    return _each_element(kernel, a, b, out=out, dtype=dtype, num_threads=num_threads)


def _each_element(
    kernel: Kernel, *inputs: Array, out: Any, dtype: np.dtype[Any], num_threads: Any
) -> Any:
    """Call an elementwise kernel on arrays of one shape."""
    last = inputs[-1]
    threads = _threads.resolve(num_threads, last.size)
    run = kernel_for(kernel, *map(float_dtype, inputs), dtype)
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
