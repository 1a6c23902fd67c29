"""sigmoid and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _call
from .._backend import kernel
from .._reference import Array, by_elements, store, widened
from .._signatures import ArrayLike, elementwise, elementwise_vjp_of_output


@kernel
def sigmoid_plain(x: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty) and a plain `out`; or None."""
    return None


@kernel
@by_elements
def sigmoid_flat(x: Array, out: Array, num_threads: int) -> None:
    """1 / (1 + exp(-x)), element by element."""
    wide = widened(x, out)
    e = np.exp(-np.abs(wide))  # at most 1, so that neither tail overflows or loses its digits
    store(out, np.where(wide < 0, e, 1) / (1 + e), None, 0)


@kernel
def sigmoid_vjp_plain(g: Any, y: Any, out: Any, num_threads: Any) -> Any:
    """The result for plain arrays (native, contiguous, not empty) and a plain `out`; or None."""
    return None


@kernel
@by_elements
def sigmoid_vjp_flat(g: Array, y: Array, out: Array, num_threads: int) -> None:
    """g * y * (1 - y), element by element."""
    wide = widened(y)
    store(out, widened(g) * (wide * (1 - wide)), None, 0)


@elementwise
def sigmoid(
    x: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Squash scores into (0, 1): ``1 / (1 + exp(-x))``, element by element.

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
        The probabilities, of the shape of `x`; `out` if that was given; a NumPy scalar for 0-d `x`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    log_sigmoid : its logarithm. logit : its inverse. sigmoid_vjp : its gradient. softmax : the same
    for one of many classes; ``softmax([x, 0])`` is ``[sigmoid(x), sigmoid(-x)]``.

    Notes
    -----
    The largest error is 4 ulp of the result for float32 and float64; below the smallest normal
    number it is one step of the subnormal ones. Both tails keep their relative accuracy:
    ``sigmoid(-50.0)`` is 1.93e-22. -inf gives 0, +inf gives 1, NaN stays.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import sigmoid
    >>> sigmoid(np.array([-50.0, 0.0, 1.0])).round(4)
    array([0.    , 0.5   , 0.7311])
    """
    if dtype is None:
        result = sigmoid_plain(x, out, num_threads)
        if result is not None:
            return result
    return _call.elementwise(sigmoid_flat, x, out=out, dtype=dtype, num_threads=num_threads)


@elementwise_vjp_of_output
def sigmoid_vjp(
    g: ArrayLike, y: ArrayLike, *, out: NDArray[Any] | None = None, num_threads: int | None = None
) -> Any:
    """Take a gradient back through sigmoid, from its output: ``g * y * (1 - y)``.

    Parameters
    ----------
    g : array_like
        The gradient with respect to ``sigmoid(x)``.
    y : array_like
        ``sigmoid(x)``, of the shape of `g`.
    out : ndarray, optional
        Where to write the result: of its shape and dtype; `g` or `y` itself is allowed.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        The gradient with respect to x, of the shape of `g` and of the dtype that `g` and `y` have
        in common.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    sigmoid

    Notes
    -----
    The largest error is 3 ulp of the result for float32 and float64, or one step of the subnormal
    numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import sigmoid, sigmoid_vjp
    >>> sigmoid_vjp(np.array([1.0, 2.0]), sigmoid(np.array([0.0, 0.0])))
    array([0.25, 0.5 ])
    """
    result = sigmoid_vjp_plain(g, y, out, num_threads)
    if result is not None:
        return result
    return _call.elementwise_vjp(sigmoid_vjp_flat, g, y, "y", out=out, num_threads=num_threads)
