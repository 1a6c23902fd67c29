"""hardmax: the winner takes all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _inputs, _views
from .._backend import kernel
from .._call import prepare
from .._outputs import Output
from .._reference import Array, blockwise, widened
from .._signatures import ArrayLike


@kernel
@blockwise
def hardmax_rows(x: Array, out: Array, num_threads: int) -> None:
    """1 at the first maximum, 0 elsewhere, over the middle axis; rows with NaN are NaN."""
    wide = widened(x)
    first = np.arange(x.shape[1])[:, None] == wide.argmax(axis=1, keepdims=True)
    out[...] = np.where(np.isnan(wide).any(axis=1, keepdims=True), np.nan, first)


def hardmax(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Choose the largest score: 1 at the first maximum along an axis, 0 elsewhere.

    Parameters
    ----------
    x : array_like
        Scores of any shape: floating point (float16, bfloat16, float32, float64, longdouble), or
        integers and booleans, which become float64.
    axis : int, tuple of int or None, default -1
        The axis or axes of the choice; None means all. Over several axes, the first maximum is that
        in C order.
    out : ndarray, optional
        Where to write the result: of its shape and dtype; `x` itself is allowed.
    dtype : dtype, optional
        The floating dtype of the result instead of that of `x`.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        Of the shape and dtype of `x`; `out` if that was given.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    softmax : at a temperature near 0 it comes close to this; equal maxima share.
    top_k_logprobs : the largest scores and where they are.

    Notes
    -----
    A row with NaN is NaN. In a row of nothing but -inf the first is chosen.

    Examples
    --------
    >>> from fastsoftmax import hardmax
    >>> hardmax([[2.0, 4.0, 2.0, 1.0], [3.0, 0.0, 3.0, 3.0]])
    array([[0., 1., 0., 0.],
           [1., 0., 0., 0.]])
    """
    a = _inputs.as_numbers(x, "x")
    axes = _views.normalize_axes(axis, a.ndim)
    output = Output(out, _inputs.result_dtype(a, dtype), a)
    run, threads, views = prepare(hardmax_rows, axes, a, (), (output,), num_threads, in_order=True)
    for source, into in views:
        run(source, into, threads)
    return output.deliver()
