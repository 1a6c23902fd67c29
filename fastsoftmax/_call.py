"""One way of all operations to their kernels, and the operations that differ in a kernel only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _threads
from ._backend import TWINS
from ._inputs import READ, as_numbers, float_dtype, is_compiled, result_dtype
from ._outputs import Output, resolve_overlap
from ._parameters import (
    ONE,
    as_ln_base,
    as_temperature,
    as_where,
    is_extreme,
    per_row_temperatures,
)
from ._views import Views, element_views, iter_views, normalize_axes

Array = NDArray[Any]
Kernel = Callable[..., Any]


def prepare(
    kernel: Kernel,
    axes: Sequence[int] | None,
    x: Array,
    others: Sequence[Array | None],
    outputs: Sequence[Output | None],
    num_threads: Any,
    extreme: bool = False,
    in_order: bool = False,
    any_length: bool = False,
) -> tuple[Kernel, int, Iterable[Views]]:
    """What is left of a call whose arguments have been looked at: a kernel, how many threads it may
    use, and the views to call it with, one after the other: of `x`, the outputs and the others.

    The kernel goes along `axes`, or element by element if they are None. For `extreme` scales it is
    the twin; `in_order` and `any_length` are those of `iter_views`. Nothing is written before all
    that may be wrong has been refused. When all views are done, outputs can be delivered.
    """
    threads = _threads.resolve(num_threads, x.size)
    arrays: list[Array | None] = [x]
    given = False
    for output in outputs:
        if output is None:
            arrays.append(None)
        else:
            arrays.append(output.allocate())
            given = given or output.out is not None
    arrays += others
    if given:  # new memory overlaps nothing
        resolve_overlap(outputs, arrays)
    run = TWINS[kernel.__name__] if extreme else kernel_for(kernel, arrays)
    if not x.size:
        return run, threads, _nothing(outputs)
    if axes is None:
        return run, threads, element_views(arrays, len(outputs))
    return run, threads, iter_views(axes, arrays, in_order, any_length)


def _nothing(outputs: Sequence[Output | None]) -> Iterable[Views]:
    """No views: outputs hold what they do where there is nothing to compute."""
    for output in outputs:
        if output is not None:
            output.target.fill(output.nothing)
    return ()


def kernel_for(kernel: Kernel, arrays: Sequence[Array | None]) -> Kernel:
    """The active kernel, or its twin for dtypes that no compiled kernel takes."""
    for a in arrays:
        if a is not None and a.dtype not in READ and not is_compiled(a.dtype):
            return TWINS[kernel.__name__]
    return kernel


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
    given = float_dtype(a)
    output = Output(out, given if dtype is None else result_dtype(a, dtype), a)
    temperatures = as_temperature(temperature, a.shape, axes)
    ln_base = as_ln_base(base, least_exclusive=logarithm)
    mask = as_where(where, a.shape)
    extreme = is_extreme(ln_base, temperatures, given)
    if negated:
        temperatures = -temperatures
    others = (per_row_temperatures(temperatures), mask)
    run, threads, views = prepare(kernel, axes, a, others, (output,), num_threads, extreme)
    for source, into, row, present in views:
        run(source, into, temperatures if row is None else row[:, 0], ln_base, present, threads)
    return output.deliver()


def map_rows(
    kernel: Kernel, x: Any, axis: Any, *, where: Any, out: Any, dtype: Any, num_threads: Any
) -> Any:
    """Call a kernel that has no other options than a mask:
    a result for every element, from its row.
    """
    a = as_numbers(x, "x")
    axes = normalize_axes(axis, a.ndim)
    output = Output(out, float_dtype(a) if dtype is None else result_dtype(a, dtype), a)
    others = (as_where(where, a.shape),)
    run, threads, views = prepare(kernel, axes, a, others, (output,), num_threads)
    for source, into, present in views:
        run(source, into, present, threads)
    return output.deliver()


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
    temperatures = ONE if temperature is None else as_temperature(temperature, a.shape, axes)
    output = Output(out, dtype, b)
    others = (b, per_row_temperatures(temperatures))
    extreme = is_extreme((1.0, 0.0), temperatures, dtype)
    run, threads, views = prepare(kernel, axes, a, others, (output,), num_threads, extreme)
    for left, into, right, row in views:
        options = () if temperature is None else (temperatures if row is None else row[:, 0],)
        run(left, right, into, *options, threads)
    return output.deliver()


def elementwise(
    kernel: Kernel, x: Any, *, out: Any, dtype: Any, num_threads: Any, argument: str = "x"
) -> Any:
    """Call an elementwise kernel."""
    a = as_numbers(x, argument)
    output = Output(out, result_dtype(a, dtype), a)
    run, threads, views = prepare(kernel, None, a, (), (output,), num_threads)
    for source, into in views:
        run(source, into, threads)
    return output.deliver()


def elementwise_vjp(
    kernel: Kernel, g: Any, y: Any, other: str, *, out: Any, num_threads: Any
) -> Any:
    """Call an elementwise kernel of two arguments."""
    a, b, dtype = _pair(g, y, other)
    output = Output(out, dtype, b)
    run, threads, views = prepare(kernel, None, a, (b,), (output,), num_threads)
    for left, into, right in views:
        run(left, right, into, threads)
    return output.deliver()


def _pair(g: Any, y: Any, other: str) -> tuple[Array, Array, np.dtype[Any]]:
    """`g` and what belongs to it as arrays of one shape, and the dtype they have in common."""
    a, b = as_numbers(g, "g"), as_numbers(y, other)
    if a.shape != b.shape:
        raise ValueError(f"g must have the shape of {other}, {b.shape}, got {a.shape}")
    return a, b, np.result_type(float_dtype(a), float_dtype(b))
