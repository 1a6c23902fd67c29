"""logsumexp and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _arrays
from .._arrays import LAST
from .._backend import kernel
from .._signatures import ArrayLike, reduction, reduction_vjp
from ..kernels.reference import Array, Scaled, blockwise, is_narrow, over_ln, store, total, widened

ONE = np.ones((1, 1))


@kernel
def logsumexp_plain(x: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty) and a plain `out`; None: not ones."""
    return None


@kernel
@blockwise
def logsumexp_rows(
    x: Array, b: Array | None, out: Array, ln_base: tuple[float, float], where: Array | None, num_threads: int
) -> None:
    """log_base(sum(b * base**x)), over the middle axis."""
    wide = widened(x, out)
    if b is None:
        z = Scaled(wide, ONE, ln_base, where, is_narrow(x, out))
        log = z.log_total()
    else:
        z = Scaled(np.where(b == 0, -np.inf, wide), ONE, ln_base, where)
        log = _weighted_log_total(z, b if where is None else np.where(where, b, 0))
    y = _sum(z.max, log, ln_base)
    cancelled = (z.max < 0) & (np.abs(y * ln_base[0]) < 1)
    if b is None and not z.narrow and np.any(cancelled):
        # The error of the exponentials would show: longdouble ones for these rows.
        rows = np.moveaxis(z.x, 1, 2)[cancelled[:, 0]].astype(np.longdouble)[:, :, None]
        log = Scaled(rows, ONE, ln_base, None).log_total()
        y[cancelled] = _sum(rows.max(axis=1, keepdims=True), log, ln_base)[:, 0, 0]
    store(out, y[:, 0], None, 0)


def _sum(top: Array, log: Array, ln_base: tuple[float, float]) -> Array:
    """The maximum plus the logarithm relative to it; an infinite maximum is the result."""
    return np.where(np.isinf(top), np.where(np.isnan(log), log, top), top + over_ln(log, ln_base))


def _weighted_log_total(z: Scaled, b: Array) -> Array:
    """log(sum of the weighted exponentials), NaN if that is negative; terms of weight 0 are -inf in `z`."""
    top = z.x == z.max
    sum_ = total(np.where(top, b, 0)).astype(np.longdouble) + total(np.where(top, 0, b * z.exp()))
    undefined = (z.max == np.inf) & (sum_ == 0)
    nothing = (z.max == -np.inf) & ~np.isnan(sum_)
    return np.where(nothing, -np.inf, np.where(undefined, np.nan, np.log(sum_)))


@kernel
@blockwise
def logsumexp_vjp_rows(g: Array, x: Array, out: Array, num_threads: int) -> None:
    """g * softmax(x), over the middle axis; g has one value for each row."""
    z = Scaled(widened(x), ONE, (1.0, 0.0), None, is_narrow(x))
    e = z.exp()
    store(out, widened(g)[:, None, :] * (e / z.sum(e)), None, 0)


@reduction
def logsumexp(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    base: float | None = None,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Add up in the domain of logarithms: ``log(sum(exp(x)))`` along an axis, without overflow.

    Parameters
    ----------
    x : array_like
        Logarithms of what is summed, of any shape: floating point (float16, bfloat16, float32, float64,
        longdouble), or integers and booleans, which become float64.
    axis : int, tuple of int or None, default -1
        The axis or axes to reduce; None means all. (SciPy's default is None.)
    b : array_like, optional
        Broadcasts to `x`: factors of the exponentials, ``log(sum(b * exp(x)))``. Terms of factor 0 take no
        part, whatever `x` is there; a negative total gives NaN. It does not change the dtype of the result;
        it is used as float64.
    keepdims : bool, default False
        Whether reduced axes stay, with length 1.
    base : float, optional
        ``log_base(sum(base**x))`` instead of base e. Finite and greater than 1.
    where : array_like of bool, optional
        Broadcasts to `x`. Entries where it is false take no part, whatever they hold.
    out : ndarray, optional
        Where to write the result: of its shape and dtype.
    dtype : dtype, optional
        The floating dtype of the result instead of that of `x` (float32 for float16 and bfloat16). The wider
        of both is computed in, and rounded once.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        One value for each row, of the shape of `x` without `axis`; `out` if that was given; a NumPy scalar if
        no axis is left.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    log_softmax
    logsumexp_vjp : its gradient.

    Notes
    -----
    A row with NaN is NaN, one with +inf otherwise +inf. A row of nothing but -inf, an empty one and one in
    which `where` is false throughout are -inf.

    The largest error is 3 ulp of the result for float32 and float64 (where the maximum and the logarithm of
    the sum cancel to less than a sixteenth of the maximum, 3 ulp of that). With `b`, what cancels within the
    sum is lost as in any sum.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), 2311-2330.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import logsumexp
    >>> float(logsumexp(np.array([1000.0, 1000.0])).round(4))
    1000.6931
    >>> logsumexp([[0.0, 1.0], [3.0, 3.0]], base=2).round(4)
    array([1.585, 4.   ])
    """
    if axis is LAST and b is None and base is None and where is None and dtype is None and keepdims is False:
        result = logsumexp_plain(x, out, num_threads)
        if result is not None:
            return result
    return _arrays.reduce_rows(
        logsumexp_rows,
        x,
        axis,
        b=b,
        keepdims=keepdims,
        base=base,
        where=where,
        out=out,
        dtype=dtype,
        num_threads=num_threads,
    )


@reduction_vjp
def logsumexp_vjp(
    g: ArrayLike,
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> Any:
    """Take a gradient back through logsumexp, from its input: ``g * softmax(x)``.

    Parameters
    ----------
    g : array_like
        The gradient with respect to ``logsumexp(x, axis)``: one value for each row, with the reduced axes or
        without.
    x : array_like
        The input of the logsumexp.
    axis : int, tuple of int or None, default -1
        The axis or axes of the logsumexp.
    out : ndarray, optional
        Where to write the result: of its shape and dtype; `x` itself is allowed.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        The gradient with respect to `x`, of its shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    logsumexp

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import logsumexp_vjp
    >>> logsumexp_vjp(np.array([1.0, 2.0]), np.zeros((2, 4)))
    array([[0.25, 0.25, 0.25, 0.25],
           [0.5 , 0.5 , 0.5 , 0.5 ]])
    """
    return _arrays.reduced_vjp(logsumexp_vjp_rows, g, x, axis, out=out, num_threads=num_threads)
