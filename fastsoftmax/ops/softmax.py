"""softmax, softmin and the gradient of softmax."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike, NDArray

from .. import _call
from .._backend import kernel
from .._parameters import UNSCALED
from .._reference import Array, Scaled, blockwise, is_narrow, store, total, widened
from .._signatures import ArrayLike, activation, activation_vjp


@kernel
def softmax_plain(x: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty), its last axis or all of them,
    and a plain `out`; or None.
    """
    return None


@kernel
@blockwise
def softmax_rows(
    x: Array,
    out: Array,
    temperature: Array,
    ln_base: tuple[float, float],
    where: Array | None,
    num_threads: int,
) -> None:
    """base**(x / temperature) / its sum, over the middle axis;
    a negative temperature gives softmin.
    """
    z = Scaled(widened(x, out), temperature, ln_base, where, is_narrow(x, out))
    e = z.exp()
    store(out, e / z.sum(e), where, 0)


@kernel
def softmax_vjp_plain(g: Any, y: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for plain arrays (native, contiguous, not empty), their last axis or all of them,
    and a plain `out`; or None.
    """
    return None


@kernel
@blockwise
def softmax_vjp_rows(g: Array, y: Array, out: Array, temperature: Array, num_threads: int) -> None:
    """y (g - sum(g y)) / temperature, over the middle axis."""
    wide_g, wide_y = widened(g, out), widened(y, out)
    products = total(wide_g * wide_y, is_narrow(g, out))
    store(out, wide_y * (wide_g - products) / temperature[:, None, :], None, 0)


@activation
def softmax(
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
    r"""Turn scores into probabilities: ``exp(x) / sum(exp(x))`` along an axis.

    Parameters
    ----------
    x : array_like
        Scores (logits) of any shape: floating point (float16, bfloat16, float32, float64,
        longdouble), or integers and booleans, which become float64.
    axis : int, tuple of int or None, default -1
        The axis or axes over which the probabilities sum to 1; None means all. (SciPy's default is
        None.)
    temperature : float or array_like, default 1.0
        ``softmax(x / temperature)``: above 1 flattens the distribution, below 1 sharpens it. One
        number, or an array that broadcasts to the shape of `x` with `axis` of length 1: a
        temperature for each row. Finite and greater than 0.
    base : float, optional
        ``base**x / sum(base**x)`` instead of base e. Finite and at least 1; base 1 is uniform over
        all entries but -inf.
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
        The probabilities, of the shape of `x`; `out` if that was given; a NumPy scalar for 0-d `x`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    log_softmax : the logarithm, exact where the probability is next to 1 or underflows.
    softmin : the softmax of ``-x``.
    softmax_vjp : its gradient.

    Notes
    -----
    A row with NaN or +inf, and a row of nothing but -inf, is NaN. A row in which `where` is false
    throughout is 0.

    The largest error is 6 ulp of the result for float32 and float64, whatever the length of the
    axis and the size of the logits. Usual implementations round ``x - max`` first and lose up to 70
    ulp; here the range reduction of exp is applied to `x` itself, and the shift is a power of two
    [1]_. float16 and bfloat16 are computed in float32 or better and rounded once.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and
    softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), 2311-2330, analyses the errors of
       the shifted formulas.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softmax
    >>> softmax(np.array([2.0, 4.0, 2.0, 1.0])).round(4)
    array([0.1025, 0.7573, 0.1025, 0.0377])
    >>> softmax([[1, 2], [3, 3]], temperature=[[0.5], [1.0]]).round(4)
    array([[0.1192, 0.8808],
           [0.5   , 0.5   ]])
    >>> softmax([1.0, np.nan, 1.0], where=[True, False, True])
    array([0.5, 0. , 0.5])
    """
    unscaled = temperature is UNSCALED or (type(temperature) is float and temperature == 1.0)
    if unscaled and base is None and where is None and dtype is None:
        result = softmax_plain(x, axis, out, num_threads)
        if result is not None:
            return result
    return _call.normalize_rows(
        softmax_rows,
        x,
        axis,
        temperature=temperature,
        base=base,
        where=where,
        out=out,
        dtype=dtype,
        num_threads=num_threads,
        logarithm=False,
    )


@activation
def softmin(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    temperature: ArrayLike = 1.0,
    base: float | None = None,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Turn costs into probabilities: the softmax of ``-x``, without a negated copy.

    Parameters
    ----------
    x : array_like
        Costs or distances: the smallest gets the largest probability.
    axis, temperature, base, where, out, dtype, num_threads
        As for `softmax`.

    Returns
    -------
    ndarray or scalar
        The probabilities, of the shape of `x`.

    Raises
    ------
    TypeError, ValueError
        As `softmax` does.

    See Also
    --------
    softmax

    Notes
    -----
    A row with NaN or -inf, and a row of nothing but +inf, is NaN. The largest error is that of
    `softmax`, 6 ulp.

    Examples
    --------
    >>> from fastsoftmax import softmin
    >>> softmin([1.0, 2.0, 4.0]).round(4)
    array([0.7054, 0.2595, 0.0351])
    """
    return _call.normalize_rows(
        softmax_rows,
        x,
        axis,
        temperature=temperature,
        base=base,
        where=where,
        out=out,
        dtype=dtype,
        num_threads=num_threads,
        logarithm=False,
        negated=True,
    )


@activation_vjp
def softmax_vjp(
    g: ArrayLike,
    y: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    temperature: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> Any:
    """Take a gradient back through softmax, from its output.

    That is ``y * (g - sum(g * y)) / temperature``.

    Parameters
    ----------
    g : array_like
        The gradient with respect to `y`.
    y : array_like
        ``softmax(x, axis, temperature=temperature)``, of the shape of `g`.
    axis : int, tuple of int or None, default -1
        The axis or axes of the softmax.
    temperature : float or array_like, default 1.0
        The temperature of the softmax, one number or one for each row.
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
    softmax

    Notes
    -----
    The sum over the row is made in float64 (float32 input) or with its rounding errors kept
    (float64 input).

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softmax, softmax_vjp
    >>> softmax_vjp(np.array([1.0, 0.0, 0.0]), softmax(np.array([0.0, 0.0, 0.0]))).round(4)
    array([ 0.2222, -0.1111, -0.1111])
    """
    if type(temperature) is float and temperature == 1.0:
        result = softmax_vjp_plain(g, y, axis, out, num_threads)
        if result is not None:
            return result
    return _call.rows_vjp(
        softmax_vjp_rows, g, y, axis, temperature=temperature, out=out, num_threads=num_threads
    )
