"""logit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _call
from .._backend import kernel
from .._reference import Array, by_elements, store, widened
from .._signatures import ArrayLike, of_probabilities


@kernel
def logit_plain(x: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty) and a plain `out`; or None."""
    return None


@kernel
@by_elements
def logit_flat(x: Array, out: Array, num_threads: int) -> None:
    """log(x / (1 - x)), element by element."""
    p = widened(x, out)
    # Next to 1/2 both logarithms would cancel; p - 1/2 is exact there, and the logit is 2 artanh(2
    # p - 1).
    middle = 2 * np.arctanh(2 * (p - 0.5))
    tails = np.log(p) - np.log1p(-p)
    store(out, np.where(np.abs(p - 0.5) < 0.25, middle, tails), None, 0)


@of_probabilities
def logit(
    p: ArrayLike,
    *,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Turn probabilities into log-odds: ``log(p / (1 - p))``, element by element.

    Parameters
    ----------
    p : array_like
        Probabilities of any shape: floating point (float16, bfloat16, float32, float64,
        longdouble), or integers and booleans, which become float64.
    out : ndarray, optional
        Where to write the result: of its shape and dtype; `p` itself is allowed.
    dtype : dtype, optional
        The floating dtype of the result instead of that of `p`. The wider of both is computed in,
        and rounded once.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        The log-odds, of the shape of `p`; `out` if that was given; a NumPy scalar for 0-d `p`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    sigmoid : its inverse.

    Notes
    -----
    The largest error is 3 ulp of the result for float32 and float64; results below the smallest
    normal number may flush to 0. 0 gives -inf, 1 gives +inf, what lies outside [0, 1] gives NaN,
    and NaN stays.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import logit
    >>> logit(np.array([0.0, 0.5, 0.75, 2.0])).round(4)
    array([  -inf, 0.    , 1.0986,    nan])
    """
    if dtype is None:
        result = logit_plain(p, out, num_threads)
        if result is not None:
            return result
    return _call.elementwise(
        logit_flat, p, argument="p", out=out, dtype=dtype, num_threads=num_threads
    )
