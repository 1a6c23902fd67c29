"""softplus and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _call
from .._backend import kernel
from .._reference import Array, by_elements, store, times_sigmoid, widened
from .._signatures import ArrayLike, elementwise, elementwise_vjp


@kernel
def softplus_plain(x: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty) and a plain `out`; or None."""
    return None


@kernel
@by_elements
def softplus_flat(x: Array, out: Array, num_threads: int) -> None:
    """log(1 + exp(x)), element by element."""
    wide = widened(x, out)
    store(out, np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide))), None, 0)


@kernel
def softplus_vjp_plain(g: Any, x: Any, out: Any, num_threads: Any) -> Any:
    """The result for plain arrays (native, contiguous, not empty) and a plain `out`; or None."""
    return None


@kernel
@by_elements
def softplus_vjp_flat(g: Array, x: Array, out: Array, num_threads: int) -> None:
    """g * sigmoid(x), element by element."""
    store(out, times_sigmoid(widened(g), widened(x)), None, 0)


@elementwise
def softplus(
    x: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Compute ``log(1 + exp(x))``, element by element, without overflow: a smooth ``max(x, 0)``.

    Parameters
    ----------
    x : array_like
        Scores of any shape: floating point (float16, bfloat16, float32, float64, longdouble), or
        integers and booleans, which become float64.
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
        The results, of the shape of `x`; `out` if that was given; a NumPy scalar for 0-d `x`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    log_sigmoid : ``softplus(x)`` is ``-log_sigmoid(-x)``.
    softplus_vjp : its gradient.

    Notes
    -----
    The largest error is 3 ulp of the result for float32 and float64; below the smallest normal
    number it is one step of the subnormal ones. -inf gives 0, +inf stays +inf, NaN stays.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softplus
    >>> softplus(np.array([-1.0, 0.0, 1000.0])).round(4)
    array([3.133e-01, 6.931e-01, 1.000e+03])
    """
    if dtype is None:
        result = softplus_plain(x, out, num_threads)
        if result is not None:
            return result
    return _call.elementwise(softplus_flat, x, out=out, dtype=dtype, num_threads=num_threads)


@elementwise_vjp
def softplus_vjp(
    g: ArrayLike, x: ArrayLike, *, out: NDArray[Any] | None = None, num_threads: int | None = None
) -> Any:
    """Take a gradient back through softplus, from its input: ``g * sigmoid(x)``.

    Parameters
    ----------
    g : array_like
        The gradient with respect to ``softplus(x)``.
    x : array_like
        The input of the softplus, of the shape of `g`.
    out : ndarray, optional
        Where to write the result: of its shape and dtype; `g` or `x` itself is allowed.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        The gradient with respect to x, of the shape of `g` and of the dtype that `g` and `x` have
        in common.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    softplus

    Notes
    -----
    The largest error is 5 ulp of the result for float32 and float64, or one step of the subnormal
    numbers: an exponential too small for the dtype is multiplied by `g` before it is rounded.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softplus_vjp
    >>> softplus_vjp(np.array([1.0, 2.0]), np.array([0.0, 0.0]))
    array([0.5, 1. ])
    """
    result = softplus_vjp_plain(g, x, out, num_threads)
    if result is not None:
        return result
    return _call.elementwise_vjp(softplus_vjp_flat, g, x, "x", out=out, num_threads=num_threads)
