"""The Kullback-Leibler divergence of distributions given by the
logarithms of their probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _inputs, _losses, _parameters, _targets
from .._backend import kernel
from .._reference import (
    Array,
    blockwise,
    is_narrow,
    log_pair,
    tail_from,
    times_exp,
    total,
    widened,
)
from .._signatures import ArrayLike


@kernel
@blockwise
def kl_divergence_rows(
    log_q: Array,
    p: Array,
    loss: Array | None,
    grad: Array | None,
    log_target: bool,
    scale: float,
    num_threads: int,
) -> float:
    """The sum over rows of sum(p (log p - log_q)), and scale times its gradient, -p."""
    given, narrow = widened(p, log_q), is_narrow(p, log_q)
    q = widened(log_q, p)
    if log_target:
        masses, d = np.exp(given), given - q
        terms = np.where(masses == 0, 0, masses * d)
        far = (given < -tail_from(given.dtype)) & np.isfinite(d)
        if far.any():
            terms = np.where(far, times_exp(d, np.where(far, given, 0)), terms)
    else:
        log, rest = log_pair(given, narrow)
        masses, d = given, (log - q) + rest  # which may be less than the rounding error of log p
        terms = np.where(masses == 0, 0, masses * d)
    rows = total(terms, narrow)
    if loss is not None:
        loss[...] = rows[:, 0]
    if grad is not None:
        grad[...] = 0 - masses * scale
    return float(rows.sum())


def _kl_divergence(
    log_q: Any,
    p: Any,
    axis: Any,
    log_target: Any,
    reduction: Any,
    num_threads: Any,
    gradient: bool = False,
    out: Any = None,
) -> Any:
    _losses.check_reduction(reduction)
    rows = _inputs.as_rows(log_q, "log_q", axis)
    target = _targets.as_probabilities(rows, p, "p")
    logs = _parameters.as_flag(log_target, "log_target")

    def call(run: Any, x: Any, grad: Any, loss: Any, p: Any, scale: float, threads: int) -> float:
        total: float = run(x, p, loss, grad, logs, scale, threads)
        return total

    return _losses.row_loss(
        call,
        kl_divergence_rows,
        rows,
        [target],
        divisor=_losses.divisor(reduction, rows),
        reduction=reduction,
        gradient=gradient,
        out=out,
        num_threads=num_threads,
    )


def kl_divergence(
    log_q: ArrayLike,
    p: ArrayLike,
    axis: int = -1,
    *,
    log_target: bool = False,
    reduction: str = "batchmean",
    num_threads: int | None = None,
) -> Any:
    """Kullback-Leibler divergence KL(p || q): ``sum(p * (log(p) - log_q))`` along an axis.

    Parameters
    ----------
    log_q : array_like
        Logarithms of the probabilities of a model, such as `log_softmax` returns.
    p : array_like
        The probabilities they should be, of the shape of `log_q`; their logarithms if `log_target`.
    axis : int, default -1
        The axis of the classes.
    log_target : bool, default False
        Whether `p` holds logarithms.
    reduction : {'batchmean', 'mean', 'sum', 'none'}, default 'batchmean'
        'none': a divergence for each row. 'batchmean' and 'mean': their sum divided by the number
        of rows.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    scalar or ndarray
        The divergence, float64 for float64 `log_q` and integers, float32 for all others; an array
        of the shape of `log_q` without `axis` for reduction 'none'.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    kl_divergence_from_logits : of two arrays of logits.
    cross_entropy : which differs from it by the entropy of `p`, a constant.

    Notes
    -----
    A class with ``p == 0`` has no part, whatever `log_q` is there; one with ``p > 0`` and ``log_q
    == -inf`` makes the divergence +inf; a negative `p` makes it NaN. Unlike PyTorch's ``kl_div``,
    'mean' divides by the number of rows, not of elements, and 'none' sums over the classes.

    The largest error is 4 ulp of ``sum(abs(p * (log(p) - log_q)))``, to which the logarithms of `p`
    add a 64th of an ulp of ``sum(abs(p * log(p)))``; for float32 and float64, and exactly 0 for
    equal logarithms. float32 divergences below a sixteenth, which nearly equal distributions have,
    are summed in float64. An array of float64 beside a narrower one is used as it is;
    `kl_divergence_from_logits` has no terms that cancel.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import kl_divergence
    >>> round(float(kl_divergence(np.log([[0.5, 0.5]]), [[0.75, 0.25]])), 4)
    0.1308
    """
    return _kl_divergence(log_q, p, axis, log_target, reduction, num_threads)


def kl_divergence_value_and_grad(
    log_q: ArrayLike,
    p: ArrayLike,
    axis: int = -1,
    *,
    log_target: bool = False,
    reduction: str = "batchmean",
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Kullback-Leibler divergence and its gradient with respect to `log_q`, which is ``-p``.

    Parameters
    ----------
    log_q, p, axis, log_target, reduction
        As for `kl_divergence`.
    out : ndarray, optional
        Where to write the gradient: of the shape and dtype of `log_q`, which is allowed itself. For
        float16 and bfloat16 it may be float32.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    loss : scalar or ndarray
        As `kl_divergence` returns it.
    grad : ndarray
        Its derivative, of the shape and dtype of `log_q`; that of ``loss.sum()`` with reduction
        'none'.

    Raises
    ------
    TypeError, ValueError
        As `kl_divergence` does; `out` is untouched then.

    See Also
    --------
    kl_divergence, kl_divergence_from_logits_value_and_grad

    Notes
    -----
    The largest error of the gradient is 2 ulp of the result.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import kl_divergence_value_and_grad
    >>> loss, grad = kl_divergence_value_and_grad(np.log([[0.5, 0.5]]), [[0.75, 0.25]])
    >>> grad
    array([[-0.75, -0.25]])
    """
    result: tuple[Any, Any] = _kl_divergence(
        log_q, p, axis, log_target, reduction, num_threads, True, out
    )
    return result
