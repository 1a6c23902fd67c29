"""The Kullback-Leibler divergence of two softmaxes, from their logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _inputs, _losses, _parameters, _targets
from .._backend import kernel
from .._reference import Array, Scaled, blockwise, total, two_sum, widened
from .._signatures import ArrayLike


@kernel
@blockwise
def kl_divergence_from_logits_rows(
    x: Array,
    target: Array,
    loss: Array | None,
    grad: Array | None,
    temperature: Array,
    scale: float,
    num_threads: int,
) -> float:
    """The sum over rows of KL(softmax(target / temperature) || softmax(x / temperature)), and its
    gradient.

    With d = (x - target - level) / temperature, where the level makes its mean under p_target 0, it
    is log1p(sum(p_target (expm1(d) - d))): no term is negative, and none cancels. Classes without
    p_target are not in that sum; their share u of the other softmax makes it (sum + u) / (1 - u).
    Where d is large, exp(target / temperature) exp(d) is exp(x / temperature) times a constant.
    """
    a, b, heat = widened(x, target), widened(target, x), temperature[:, None, :]
    max_a, e_a, sum_a = _softmax(a, temperature)
    max_b, e_b, sum_b = _softmax(b, temperature)
    p_a, p_b = e_a / sum_a, e_b / sum_b
    none = p_b == 0
    level, level_lo = two_sum(max_a, -max_b)
    d = _above_level(a, b, level, level_lo) / heat
    mean = total(np.where(none, 0, p_b * d))
    raised, raised_lo = two_sum(level, mean * heat)
    mean = np.where(np.isfinite(mean), (raised - level + raised_lo) / heat, mean)
    d = _above_level(a, b, raised, raised_lo + level_lo) / heat
    close, far = _beyond_line(d), e_a * np.exp(-mean) - e_b * (1 + d)
    terms = np.where(none, 0, np.where(np.abs(d) < 0.35, e_b * close, far))
    growth = total(terms) / sum_b
    unmatched, matched = (total(np.where(part, p_a, 0)) for part in (none, ~none))
    growth = (growth + unmatched) / matched
    rows = np.where(growth < np.inf, np.log1p(growth), np.log(sum_a) - np.log(sum_b) - mean)
    rows = np.where(mean == -np.inf, np.inf, rows) + 0 * (p_a + p_b).sum(axis=1, keepdims=True)
    if loss is not None:
        loss[...] = rows[:, 0]
    if grad is not None:
        near = (np.abs(d) < 0.35) & ~none & (growth < 0.35)
        g = np.where(near, p_b * ((d + close - growth) / (1 + growth)), p_a - p_b)
        grad[...] = g * scale / heat
    return float(rows.sum())


def _softmax(x: Array, temperature: Array) -> tuple[Array, Array, Array]:
    """The maxima of the rows of x, the exponentials of x / temperature relative to them,
    and their sums.
    """
    z = Scaled(x, temperature, (1.0, 0.0), None)
    e = z.exp()
    return z.max, e, z.sum(e)


def _above_level(a: Array, b: Array, level: Array, level_lo: Array) -> Array:
    """a - b - level, rounded once where the first difference is not exact."""
    d, d_lo = two_sum(a, -b)
    above: Array = (d - level) + np.where(np.isnan(d_lo - level_lo), 0, d_lo - level_lo)
    return above


def _beyond_line(d: Array) -> Array:
    """exp(d) - 1 - d for |d| < 0.35, where that cancels: its series."""
    series = np.zeros_like(d)
    factorial = np.cumprod(np.arange(1.0, 17.0))
    for k in range(16, 1, -1):
        series = series * d + 1 / factorial[k - 1]
    return series * d * d


def _kl_divergence_from_logits(
    logits: Any,
    target_logits: Any,
    axis: Any,
    temperature: Any,
    reduction: Any,
    num_threads: Any,
    gradient: bool = False,
    out: Any = None,
) -> Any:
    _losses.check_reduction(reduction)
    rows = _inputs.as_rows(logits, "logits", axis)
    target = _targets.as_probabilities(rows, target_logits, "target_logits")
    temperatures, extreme = _parameters.as_row_temperatures(rows, temperature)

    def call(
        run: Any, x: Any, grad: Any, loss: Any, t: Any, row: Any, scale: float, threads: int
    ) -> float:
        heat = temperatures if row is None else row[:, 0]
        total: float = run(x, t, loss, grad, heat, scale, threads)
        return total

    return _losses.row_loss(
        call,
        kl_divergence_from_logits_rows,
        rows,
        [target, _parameters.per_row_temperatures(temperatures)],
        divisor=_losses.divisor(reduction, rows),
        reduction=reduction,
        gradient=gradient,
        out=out,
        num_threads=num_threads,
        extreme=extreme,
    )


def kl_divergence_from_logits(
    logits: ArrayLike,
    target_logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: ArrayLike = 1.0,
    reduction: str = "batchmean",
    num_threads: int | None = None,
) -> Any:
    """How far one softmax is from another: KL(softmax(target_logits / T) || softmax(logits / T)).

    The loss of distillation, where `target_logits` are those of the teacher.

    Parameters
    ----------
    logits : array_like
        Scores of a model; the classes are along `axis`.
    target_logits : array_like
        The scores whose distribution they should have, of the same shape.
    axis : int, default -1
        The axis of the classes.
    temperature : float or array_like, default 1.0
        T, one number or one for each row.
    reduction : {'batchmean', 'mean', 'sum', 'none'}, default 'batchmean'
        'none': a divergence for each row. 'batchmean' and 'mean': their sum divided by the number
        of rows.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    scalar or ndarray
        The divergence, float64 for float64 `logits` and integers, float32 for all others; an array
        of the shape of `logits` without `axis` for reduction 'none'.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    kl_divergence : from logarithms of probabilities.

    Notes
    -----
    Exactly 0 for equal logits, and never negative: with d the difference of the logits over T and m
    its mean under the target distribution p, it is ``log1p(sum(p * (expm1(d - m) - (d - m))))``, in
    float64, of which no term cancels. A class to which the target gives probability and the model
    none (-inf) makes it +inf.

    Relative to itself, however small it is, the divergence is within 1 unit in the last place of
    float32, and within 16 of float64.

    Examples
    --------
    >>> from fastsoftmax import kl_divergence_from_logits
    >>> round(float(kl_divergence_from_logits([[1.0, 2.0]], [[2.0, 1.0]])), 4)
    0.4621
    """
    return _kl_divergence_from_logits(
        logits, target_logits, axis, temperature, reduction, num_threads
    )


def kl_divergence_from_logits_value_and_grad(
    logits: ArrayLike,
    target_logits: ArrayLike,
    axis: int = -1,
    *,
    temperature: ArrayLike = 1.0,
    reduction: str = "batchmean",
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """The divergence of two softmaxes, and its gradient with respect to `logits`.

    The gradient is ``(p - p_target) / T``.

    Parameters
    ----------
    logits, target_logits, axis, temperature, reduction
        As for `kl_divergence_from_logits`.
    out : ndarray, optional
        Where to write the gradient: of the shape and dtype of `logits`, which is allowed itself.
        For float16 and bfloat16 it may be float32.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    loss : scalar or ndarray
        As `kl_divergence_from_logits` returns it.
    grad : ndarray
        Its derivative, of the shape and dtype of `logits`; that of ``loss.sum()`` with reduction
        'none'.

    Raises
    ------
    TypeError, ValueError
        As `kl_divergence_from_logits` does; `out` is untouched then.

    See Also
    --------
    kl_divergence_from_logits

    Notes
    -----
    Each element of the gradient is within 1 unit in the last place of float32, or 16 of float64, of
    ``(p + p_target) / T``.

    Examples
    --------
    >>> from fastsoftmax import kl_divergence_from_logits_value_and_grad
    >>> loss, grad = kl_divergence_from_logits_value_and_grad([[1.0, 2.0]], [[2.0, 1.0]])
    >>> grad.round(4)
    array([[-0.4621,  0.4621]])
    """
    result: tuple[Any, Any] = _kl_divergence_from_logits(
        logits, target_logits, axis, temperature, reduction, num_threads, True, out
    )
    return result
