"""logsumexp and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _inputs, _parameters, _views
from .._backend import kernel
from .._call import prepare
from .._outputs import Output, ShapedOutput
from .._reference import (
    BLOCK,
    LIFT,
    Array,
    Pair,
    Scaled,
    blockwise,
    exp_pair,
    is_narrow,
    over_ln,
    pair_product,
    store,
    total,
    total_pair,
    two_sum,
    widened,
)
from .._signatures import ArrayLike, reduction, reduction_vjp

ONE = np.ones((1, 1))


@kernel
def logsumexp_plain(x: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for a plain array (native, contiguous, not empty), its last axis or all of them,
    and a plain `out`; or None.
    """
    return None


@kernel
@blockwise
def logsumexp_rows(
    x: Array,
    b: Array | None,
    out: Array,
    ln_base: tuple[float, float],
    where: Array | None,
    num_threads: int,
) -> None:
    """log_base(sum(b * base**x)), over the middle axis."""
    wide = widened(x, out)
    if b is not None:
        b = b.astype(np.float64)
        z = Scaled(np.where(b == 0, -np.inf, wide), ONE, ln_base, where)
        y = _weighted(
            z, b if where is None else np.where(where, b, 0), ln_base, out.dtype.itemsize <= 4
        )
        return store(out, y[:, 0], None, 0)
    z = Scaled(wide, ONE, ln_base, where, is_narrow(x, out))
    y = _sum(z.max, z.log_total(), ln_base)
    cancelled = (z.max < 0) & (np.abs(y * ln_base[0]) < 1)
    if not z.narrow and np.any(cancelled):
        # The error of the exponentials would show: longdouble ones for these rows.
        rows = np.moveaxis(z.x, 1, 2)[cancelled[:, 0]].astype(np.longdouble)[:, :, None]
        log = Scaled(rows, ONE, ln_base, None).log_total()
        y[cancelled] = _sum(rows.max(axis=1, keepdims=True), log, ln_base)[:, 0, 0]
    store(out, y[:, 0], None, 0)


def _sum(top: Array, log: Array, ln_base: tuple[float, float]) -> Array:
    """The maximum plus the logarithm relative to it; an infinite maximum is the result."""
    return np.where(np.isinf(top), np.where(np.isnan(log), log, top), top + over_ln(log, ln_base))


def _weighted(z: Scaled, b: Array, ln_base: tuple[float, float], narrow: bool) -> Array:
    """log(sum of the weighted exponentials), NaN if that is negative; terms of weight 0 are -inf in
    `z`.

    Where errors of the exponentials would show, or weights leave the range of numbers, in pairs.
    """
    terms = b * np.where(z.x == z.max, 1, z.exp())
    sum_ = total(terms)
    size = np.abs(terms).sum(axis=1, keepdims=True)
    undefined = (z.max == np.inf) & (sum_ == 0)
    nothing = (z.max == -np.inf) & ~np.isnan(sum_)
    log = np.where(undefined, np.nan, np.log(sum_.astype(np.longdouble)))
    y = _sum(z.max, np.where(nothing, -np.inf, log), ln_base)
    heaviest = np.abs(b).max(axis=1, keepdims=True)  # each term may lack 2^-1022 of it
    least = z.x.shape[1] * 2.0**-965
    doubtful = (size > 2.0**900) | (size < 2.0**-900) | (size < heaviest * least)
    largest = np.maximum(np.abs(y), np.abs(z.max) / 16) * ln_base[0]
    defined = (sum_ > size * 2.0**-40) & (largest * sum_ >= size * (2.0**-25 if narrow else 1))
    doubtful |= ~defined & ~(sum_ < -size * 2.0**-40)
    doubtful &= np.isfinite(z.max) & ~np.isnan(size) & np.isfinite(heaviest)
    if np.any(doubtful):
        rows, weights = (
            np.moveaxis(a, 1, 2)[doubtful[:, 0]] for a in (z.x, np.broadcast_to(b, z.x.shape))
        )
        y[doubtful] = _weighted_in_pairs(rows, weights, ln_base)[:, 0]
    return y


def _weighted_in_pairs(x: Array, b: Array, ln_base: tuple[float, float]) -> Array:
    """The same of rows (rows, n), with finite weights.

    Logits next to 0 are taken as they are, since log1p(sum(b (exp(x) - 1)) + (sum(b) - 1)) has
    digits to spare however small it is; others relative to the maximum.
    """
    top = x.max(axis=1, keepdims=True)
    center = np.where(np.abs(top) * ln_base[0] > 1, top, 0)
    parts = [np.s_[:, start : start + BLOCK] for start in range(0, x.shape[1], BLOCK)]
    exponent = np.max([_largest_exponent(x[p], b[p], center, ln_base) for p in parts], axis=0)
    exponent[np.abs(exponent) <= 64] = 0  # beyond, a total cannot be next to 1
    lift = 300 - exponent  # with which the smallest terms beside 1 have all their digits
    sums = [_sums_in_pairs(x[p], b[p], center, exponent, lift, ln_base) for p in parts]
    hi, lo = total_pair(
        (np.concatenate([s[0] for s in sums], axis=1), np.concatenate([s[1] for s in sums], axis=1))
    )
    whole, close, far = ((hi[..., k], lo[..., k]) for k in range(3))
    small = _times_power(far, -lift)
    less_one = _added(_added(_added(whole, (-1.0, 0.0)), close), small)
    usual = _added(_added(whole, close), small)
    sum_ = _wide(np.where(exponent == 0, usual, far))
    log = np.log(sum_) - np.where(exponent == 0, 0, lift) * np.log(np.longdouble(2))
    next_to_one = (exponent == 0) & (less_one[0] >= -0.5) & (less_one[0] <= 1)
    return center + over_ln(np.where(next_to_one, np.log1p(_wide(less_one)), log), ln_base)


def _sums_in_pairs(
    x: Array, b: Array, center: Array, exponent: Array, lift: Array, ln_base: tuple[float, float]
) -> Pair:
    """The sums of weights of terms next to their weights, of what these terms are more, of others,
    lifted.
    """
    n, f = exp_pair(*_power_of(x, center, ln_base))
    near = (n == 0) & (exponent == 0)
    fractions, exponents = np.frexp(b.astype(x.dtype))
    close = pair_product((b, 0.0), f)
    head = two_sum(1.0, f[0])
    term = _times_power(
        pair_product((fractions, 0.0), (head[0], head[1] + f[1])), n + exponents + lift
    )
    kinds = [(near, (b, 0.0)), (near, close), (~near, term)]
    hi, lo = (np.stack([np.where(taken, t[k], 0.0) for taken, t in kinds], axis=2) for k in (0, 1))
    return total_pair((hi, lo))


def _power_of(x: Array, center: Array, ln_base: tuple[float, float]) -> Pair:
    """ln(base) * (x - center); what is below any weight's reach ends at -2500."""
    d, error = two_sum(x, -center)
    least = -2500 / ln_base[0]
    error = np.where(d > least, error, 0)
    d = np.maximum(d, least)
    return (d, error) if ln_base == (1.0, 0.0) else pair_product((d, error), ln_base)


def _largest_exponent(x: Array, b: Array, center: Array, ln_base: tuple[float, float]) -> Array:
    hi, _ = _power_of(x, center, ln_base)
    _, exponents = np.frexp(b)
    largest: Array = np.where(b == 0, -np.inf, hi * np.log2(np.e) + exponents).max(
        axis=1, keepdims=True
    )
    return np.floor(largest)


def _times_power(a: Pair, exponent: Array) -> Pair:
    """Times 2^exponent."""
    power = np.clip(exponent, -9999, 9999).astype(np.int32)
    return np.ldexp(a[0], power), np.ldexp(a[1], power)


def _added(a: Pair, b: Pair) -> Pair:
    """The sum of two pairs, with what cancellation has left in the higher term."""
    s, error = two_sum(a[0], b[0])
    return two_sum(s, error + (a[1] + b[1]))


def _wide(a: Any) -> Array:
    """A pair as longdouble."""
    wide: Array = a[0].astype(np.longdouble) + a[1]
    return wide


@kernel
def logsumexp_vjp_plain(g: Any, x: Any, axis: Any, out: Any, num_threads: Any) -> Any:
    """The result for plain arrays (native, contiguous, not empty), the last axis and a plain `out`;
    or None.
    """
    return None


@kernel
@blockwise
def logsumexp_vjp_rows(g: Array, x: Array, out: Array, num_threads: int) -> None:
    """g * softmax(x), over the middle axis; g has one value for each row."""
    z = Scaled(widened(x), ONE, (1.0, 0.0), None, is_narrow(x, out))
    e = z.exp(LIFT)
    lifted = e / np.ldexp(z.sum(e), -LIFT)
    factor = widened(g)[:, None, :]
    down = np.abs(factor) > 1  # the factor can bear it
    product = np.where(down, np.ldexp(factor, -LIFT), factor) * lifted
    store(out, np.where(down, product, np.ldexp(product, -LIFT)), None, 0)


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
        Logarithms of what is summed, of any shape: floating point (float16, bfloat16, float32,
        float64, longdouble), or integers and booleans, which become float64.
    axis : int, tuple of int or None, default -1
        The axis or axes to reduce; None means all. (SciPy's default is None.)
    b : array_like, optional
        Factors of the exponentials, ``log(sum(b * exp(x)))``; `x` and `b` broadcast against each
        other, and their common shape stands for that of `x` in what follows. Terms of factor 0 take
        no part, whatever `x` is there; a negative total gives NaN. It does not change the dtype of
        the result, and its numbers are not rounded to that.
    keepdims : bool, default False
        Whether reduced axes stay, with length 1.
    base : float, optional
        ``log_base(sum(base**x))`` instead of base e. Finite and greater than 1.
    where : array_like of bool, optional
        Broadcasts to `x`. Entries where it is false take no part, whatever they hold.
    out : ndarray, optional
        Where to write the result: of its shape and dtype.
    dtype : dtype, optional
        The floating dtype of the result instead of that of `x` (float32 for float16 and bfloat16).
        The wider of both is computed in, and rounded once.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        One value for each row, of the shape of `x` without `axis`; `out` if that was given; a NumPy
        scalar if no axis is left.

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
    A row with NaN is NaN, one with +inf otherwise +inf. A row of nothing but -inf, an empty one and
    one in which `where` is false throughout are -inf.

    The largest error is 3 ulp of the result for float32 and float64 (where the maximum and the
    logarithm of the sum cancel to less than a sixteenth of the maximum, 3 ulp of that). With `b`,
    terms are added with about 30 digits where that is needed; what cancels beyond them is lost.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and
    softmax
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
    if b is None and base is None and where is None and dtype is None and keepdims is False:
        result = logsumexp_plain(x, axis, out, num_threads)
        if result is not None:
            return result
    return _reduced(x, axis, b, keepdims, base, where, out, dtype, num_threads)


def _reduced(
    x: Any,
    axis: Any,
    b: Any,
    keepdims: Any,
    base: Any,
    where: Any,
    out: Any,
    dtype: Any,
    num_threads: Any,
) -> Any:
    a, weights = _parameters.with_weights(_inputs.as_numbers(x, "x"), b)
    mask = _parameters.as_where(where, a.shape)
    axes = _views.normalize_axes(axis, a.ndim)
    keepdims = _parameters.as_flag(keepdims, "keepdims")
    wanted = _inputs.result_dtype(a, dtype, reduced=True)
    ln_base = _parameters.as_ln_base(base, least_exclusive=True)
    kept = _views.reduced_shape(a.shape, axes, keepdims=True)
    shape = kept if keepdims else _views.reduced_shape(a.shape, axes, keepdims=False)
    output = ShapedOutput(out, wanted, shape, kept)
    output.nothing = -np.inf
    others = (mask, weights)
    run, threads, views = prepare(logsumexp_rows, axes, a, others, (output,), num_threads)
    for source, into, present, weight in views:
        run(source, weight, into[:, 0], ln_base, present, threads)
    return output.deliver()


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
        The gradient with respect to ``logsumexp(x, axis)``: one value for each row, with the
        reduced axes or without.
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
    result = logsumexp_vjp_plain(g, x, axis, out, num_threads)
    if result is not None:
        return result
    a, b = _inputs.as_array(g, "g"), _inputs.as_numbers(x, "x")
    axes = _views.normalize_axes(axis, b.ndim)
    kept, left = (_views.reduced_shape(b.shape, axes, keepdims) for keepdims in (True, False))
    if a.shape not in (kept, left):
        allowed = " or ".join(str(shape) for shape in dict.fromkeys([left, kept]))
        raise ValueError(f"g must have the shape of logsumexp(x), {allowed}, got {a.shape}")
    output = Output(out, _inputs.float_dtype(b), b)
    others = (a.reshape(kept),)
    run, threads, views = prepare(logsumexp_vjp_rows, axes, b, others, (output,), num_threads)
    for source, into, row in views:
        run(row[:, 0], source, into, threads)
    return output.deliver()
