"""log_softmax and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _call
from .._backend import kernel
from .._parameters import UNSCALED
from .._reference import (
    Array,
    Scaled,
    blockwise,
    is_narrow,
    over_ln,
    store,
    times_exp,
    total,
    widened,
)
from .._signatures import ArrayLike, activation, activation_vjp


@kernel
def log_softmax_plain(x: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty), its last axis or all of them,
    and a plain `out`; or None.
    """
    return None


@kernel
@blockwise
def log_softmax_rows(
    x: Array,
    out: Array,
    temperature: Array,
    ln_base: tuple[float, float],
    where: Array | None,
    num_threads: int,
) -> None:
    """x / temperature - log_base(sum(base**(x / temperature))), over the middle axis."""
    store(out, log_probabilities(x, out, temperature, ln_base, where), where, -np.inf)


def log_probabilities(
    x: Array,
    out: Array,
    temperature: Array,
    ln_base: tuple[float, float] = (1.0, 0.0),
    where: Array | None = None,
) -> Array:
    """The rows of log_softmax, wide, with the accuracy that `out` deserves."""
    z = Scaled(widened(x, out), temperature, ln_base, where, is_narrow(x, out))
    relative, relative_lo = z.over_temperature
    log = over_ln(z.log_total(), ln_base)
    log_hi = log.astype(relative.dtype)
    log_lo = np.where(np.isfinite(log), log - log_hi, 0).astype(relative.dtype)
    return np.where(z.max == np.inf, np.nan, (relative - log_hi) + (relative_lo - log_lo))


@kernel
def log_softmax_vjp_plain(g: Any, y: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for plain arrays (native, contiguous, not empty), their last axis or all of them,
    and a plain `out`; or None.
    """
    return None


@kernel
@blockwise
def log_softmax_vjp_rows(
    g: Array, y: Array, out: Array, temperature: Array, num_threads: int
) -> None:
    """(g - exp(y) sum(g)) / temperature, over the middle axis."""
    wide = widened(g, out)
    share = times_exp(total(wide, is_narrow(g, out)), widened(y, out))
    store(out, (wide - share) / temperature[:, None, :], None, 0)


@activation
def log_softmax(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    temperature: ArrayLike = UNSCALED,
    base: float | None = None,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Turn scores into log-probabilities: ``x - log(sum(exp(x)))`` along an axis.

    Parameters
    ----------
    x : array_like
        Scores (logits) of any shape: floating point (float16, bfloat16, float32, float64,
        longdouble), or integers and booleans, which become float64.
    axis : int, tuple of int or None, default -1
        The axis or axes over which the probabilities sum to 1; None means all. (SciPy's default is
        None.)
    temperature : float or array_like, default 1.0
        ``log_softmax(x / temperature)``: one number, or an array that broadcasts to the shape of
        `x` with `axis` of length 1, a temperature for each row. Finite and greater than 0.
    base : float, optional
        Logarithms and exponentials of this base instead of e. Finite and greater than 1.
    where : array_like of bool, optional
        Broadcasts to `x`. Entries where it is false take no part, whatever they hold; their result
        is -inf.
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
        The log-probabilities, of the shape of `x`; `out` if that was given; a NumPy scalar for 0-d
        `x`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    softmax
    logsumexp
    log_softmax_vjp : its gradient.

    Notes
    -----
    A row with NaN or +inf, and a row of nothing but -inf, is NaN. A row in which `where` is false
    throughout is -inf.

    The largest error is 3 ulp of the result for float32 and float64, however near to zero that is:
    the logarithm is log1p of the sum without the largest term [1]_ and enters as hi + lo.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and
    softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), 2311-2330.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import log_softmax
    >>> log_softmax(np.array([20.0, 0.0])).round(11)
    array([-2.06e-09, -2.00e+01])
    >>> log_softmax([1.0, 1.0, 1.0, 1.0], base=2)
    array([-2., -2., -2., -2.])
    """
    unscaled = temperature is UNSCALED or (type(temperature) is float and temperature == 1.0)
    if unscaled and base is None and where is None and dtype is None:
        result = log_softmax_plain(x, axis, out, num_threads)
        if result is not None:
            return result
    return _call.normalize_rows(
        log_softmax_rows,
        x,
        axis,
        temperature=temperature,
        base=base,
        where=where,
        out=out,
        dtype=dtype,
        num_threads=num_threads,
        logarithm=True,
    )


@activation_vjp
def log_softmax_vjp(
    g: ArrayLike,
    y: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    temperature: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> Any:
    """Take a gradient back through log_softmax, from its output.

    That is ``(g - exp(y) * sum(g)) / temperature``.

    Parameters
    ----------
    g : array_like
        The gradient with respect to `y`.
    y : array_like
        ``log_softmax(x, axis, temperature=temperature)``, of the shape of `g`.
    axis : int, tuple of int or None, default -1
        The axis or axes of the log_softmax.
    temperature : float or array_like, default 1.0
        The temperature of the log_softmax, one number or one for each row.
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
    log_softmax

    Notes
    -----
    The sum over the row is made in float64 (float32 input) or with its rounding errors kept
    (float64 input).

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import log_softmax, log_softmax_vjp
    >>> log_softmax_vjp(np.array([1.0, 0.0]), log_softmax(np.array([0.0, 0.0]))).round(4)
    array([ 0.5, -0.5])
    """
    if type(temperature) is float and temperature == 1.0:
        result = log_softmax_vjp_plain(g, y, axis, out, num_threads)
        if result is not None:
            return result
    return _call.rows_vjp(
        log_softmax_vjp_rows, g, y, axis, temperature=temperature, out=out, num_threads=num_threads
    )
