"""square_normalize, shares of squares, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _call
from .._backend import kernel
from .._reference import Array, blockwise, is_narrow, store, total, widened
from .._signatures import ArrayLike, normalization, normalization_vjp


@kernel
def square_normalize_plain(x: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty), its last axis or all of them,
    and a plain `out`; or None.
    """
    return None


@kernel
@blockwise
def square_normalize_rows(x: Array, out: Array, where: Array | None, num_threads: int) -> None:
    """x^2 / sum(x^2), over the middle axis."""
    present = x if where is None else np.where(where, x, x.dtype.type(0))
    scaled, _ = _near_one(widened(present, out))
    squares = scaled * scaled
    store(out, squares / total(squares, is_narrow(x, out)), where, 0)


@kernel
def square_normalize_vjp_plain(g: Any, x: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for plain arrays (native, contiguous, not empty), their last axis or all of them,
    and a plain `out`; or None.
    """
    return None


@kernel
@blockwise
def square_normalize_vjp_rows(g: Array, x: Array, out: Array, num_threads: int) -> None:
    """2 x (g - sum(g x^2) / sum(x^2)) / sum(x^2), over the middle axis."""
    narrow = is_narrow(g, x, out)
    wide_g, exponent_of_g = _near_one(widened(g, x, out))
    wide_x, exponent_of_x = _near_one(widened(x, g, out))
    squares = wide_x * wide_x
    sum_ = total(squares, narrow)
    result = 2 * wide_x / sum_ * (wide_g - total(wide_g * squares, narrow) / sum_)
    store(out, np.ldexp(result, exponent_of_g - exponent_of_x), None, 0)


def _near_one(x: Array) -> tuple[Array, Array]:
    """Rows over powers of two, whose squares stay in the range of numbers,
    and the exponents of these.
    """
    largest = np.where(np.isfinite(x), np.abs(x), 0).max(axis=1, keepdims=True)
    exponent = np.frexp(largest)[1] - 16
    return np.ldexp(x, -exponent), exponent


@normalization
def square_normalize(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Turn numbers into shares of their squares: ``x**2 / sum(x**2)`` along an axis.

    Parameters
    ----------
    x : array_like
        Scores or amplitudes of any shape and sign: floating point (float16, bfloat16, float32,
        float64, longdouble), or integers and booleans, which become float64.
    axis : int, tuple of int or None, default -1
        The axis or axes over which the shares sum to 1; None means all.
    where : array_like of bool, optional
        Broadcasts to `x`. Entries where it is false take no part, whatever they hold; their result
        is 0.
    out : ndarray, optional
        Where to write the result: of its shape and dtype; `x` itself is allowed.
    dtype : dtype, optional
        The floating dtype of the result instead of that of `x`. The wider of both is computed in,
        and rounded once.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        The shares, of the shape of `x`; `out` if that was given; a NumPy scalar for 0-d `x`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    softmax : shares of exponentials.
    square_normalize_vjp : its gradient.

    Notes
    -----
    Only ratios count: rows whose squares overflow or underflow are divided by a power of two first.

    A row of zeros is NaN, as 0 / 0 is, and so is one with NaN. In a row with an infinity, what is
    infinite is NaN, the rest 0, as the formula has it. A row in which `where` is false throughout
    is 0. A number that is alone, or all others of which are 0, gives exactly 1.

    The largest error is 4 ulp of the result for float32 and float64, whatever the length of the
    axis and the size of the numbers. float16 and bfloat16 are computed in float32 or better and
    rounded once.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import square_normalize
    >>> square_normalize(np.array([1.0, -2.0, 2.0])).round(4)
    array([0.1111, 0.4444, 0.4444])
    >>> square_normalize([[3.0, 4.0], [3e200, 4e200]])
    array([[0.36, 0.64],
           [0.36, 0.64]])
    """
    if where is None and dtype is None:
        result = square_normalize_plain(x, axis, out, num_threads)
        if result is not None:
            return result
    return _call.map_rows(
        square_normalize_rows, x, axis, where=where, out=out, dtype=dtype, num_threads=num_threads
    )


@normalization_vjp
def square_normalize_vjp(
    g: ArrayLike,
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> Any:
    """Take a gradient back through square_normalize, from its input.

    With ``s = sum(x**2)`` it is ``2 * x * (g - sum(g * x**2) / s) / s``.

    Parameters
    ----------
    g : array_like
        The gradient with respect to ``square_normalize(x, axis)``, of the shape of `x`.
    x : array_like
        The input of square_normalize; 0 where its `where` was false.
    axis : int, tuple of int or None, default -1
        The axis or axes of square_normalize.
    out : ndarray, optional
        Where to write the result: of its shape and dtype; `g` or `x` itself is allowed.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        The gradient with respect to `x`, of its shape and of the dtype that `g` and `x` have in
        common.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    square_normalize

    Notes
    -----
    A row of zeros is NaN, and so is one in which `x` is NaN or infinite anywhere. Rows whose sums
    overflow or underflow are scaled by powers of two first.

    The largest error is 8 eps (of the dtype) of the size of the terms, which may cancel:
    ``2 * abs(x) * (abs(g) + sum(abs(g) * x**2) / s) / s``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import square_normalize_vjp
    >>> square_normalize_vjp(np.array([1.0, 0.0]), np.array([3.0, 4.0])).round(4)
    array([ 0.1536, -0.1152])
    """
    result = square_normalize_vjp_plain(g, x, axis, out, num_threads)
    if result is not None:
        return result
    return _call.rows_vjp(
        square_normalize_vjp_rows,
        g,
        x,
        axis,
        saved="x",
        temperature=None,
        out=out,
        num_threads=num_threads,
    )
