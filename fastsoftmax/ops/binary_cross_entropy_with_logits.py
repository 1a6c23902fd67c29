"""Binary cross-entropy of logits: the loss, its gradient in the same pass,
and what boosting wants of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _inputs, _losses, _parameters, _targets
from .._backend import kernel
from .._reference import Array, by_elements, tail_from, times_exp, weights, widened
from .._signatures import ArrayLike


@kernel
def binary_cross_entropy_with_logits_plain(
    logits: Any, targets: Any, reduction: Any, gradient: bool, out: Any, num_threads: Any
) -> Any:
    """The result for plain arrays (native, contiguous, not empty, labels in range); or None."""
    return None


@kernel
@by_elements
def binary_cross_entropy_with_logits_flat(
    x: Array,
    targets: Array,
    loss: Array | None,
    grad: Array | None,
    weight: Array | None,
    pos_weight: Array | None,
    scale: float,
    num_threads: int,
) -> float:
    """The sum of weight (pos_weight t softplus(-x) + (1 - t) softplus(x)),
    and scale times its gradient.
    """
    z, t = widened(x), widened(targets)
    positive, negative = weights(pos_weight, x) * t, 1 - t
    w = weights(weight, x)
    e = np.exp(-np.abs(z))
    log = np.log1p(e)
    terms = _term(positive, np.maximum(-z, 0) + log) + _term(negative, np.maximum(z, 0) + log)
    losses = _term(w, terms)
    # c |z| + d e and its slope, where e may be too small a number before it is multiplied.
    far = np.abs(z) > tail_from(z.dtype) / 2
    c, d = np.where(z < 0, positive, negative), np.where(z < 0, negative, positive)
    if far.any():
        far_z = np.where(far, -np.abs(z), 0)
        tails = _term(w, _term(c, np.abs(z))) + times_exp(w, far_z, d)
        losses = np.where(far, tails, losses)
    if loss is not None:
        loss[...] = losses
    if grad is not None:
        above, below = _sigmoids(z, e)
        slopes = _term(w, negative * above - positive * below)
        if far.any():
            sign = np.where(z < 0, -1, 1)
            slopes = np.where(far, sign * (_term(w, c) - times_exp(w, far_z, d)), slopes)
        grad[...] = slopes * scale
    return float(losses.sum())


@kernel
@by_elements
def binary_cross_entropy_with_logits_grad_hess_flat(
    x: Array,
    targets: Array,
    grad: Array,
    hess: Array,
    sample_weight: Array | None,
    hess_factor: float,
    hess_floor: float,
    num_threads: int,
) -> None:
    """p - t and max(hess_factor p (1 - p), hess_floor), each times sample_weight."""
    z, t = widened(x), widened(targets)
    w = weights(sample_weight, x)
    p, q = _sigmoids(z, np.exp(-np.abs(z)))
    curvature = w * np.maximum(hess_factor * (p * q), hess_floor)
    slopes = w * ((1 - t) * p - t * q)
    far = np.abs(z) > tail_from(z.dtype) / 2
    if far.any():  # as above
        far_z = np.where(far, -np.abs(z), 0)
        c, d = np.where(z < 0, -t, 1 - t), np.where(z < 0, 1 - t, -t)
        slopes = np.where(far, w * c + times_exp(w, far_z, d), slopes)
        if hess_factor > 0 and hess_floor <= 0:
            curvature = np.where(far, times_exp(w, far_z, hess_factor), curvature)
    curvature = np.where(w == 0, 0, curvature)
    grad[...] = np.where(w == 0, 0, slopes)  # which may be where the weights were
    hess[...] = curvature


def _term(coefficient: Any, value: Array) -> Array:
    """Their product; a coefficient of 0 drops it, be it infinite."""
    return np.where(coefficient == 0, 0, coefficient * value)


def _sigmoids(x: Array, e: Array) -> tuple[Array, Array]:
    """sigmoid(x) and sigmoid(-x), from e = exp(-|x|)."""
    small, large = e / (1 + e), 1 / (1 + e)
    return np.where(x < 0, small, large), np.where(x < 0, large, small)


def _binary_cross_entropy_with_logits(
    logits: Any,
    targets: Any,
    weight: Any,
    pos_weight: Any,
    reduction: Any,
    num_threads: Any,
    gradient: bool = False,
    out: Any = None,
) -> Any:
    if weight is None and pos_weight is None:
        result = binary_cross_entropy_with_logits_plain(
            logits, targets, reduction, gradient, out, num_threads
        )
        if result is not None:
            return result
    _losses.check_reduction(reduction)
    x = _inputs.as_numbers(logits, "logits")

    def call(
        run: Any,
        x: Any,
        grad: Any,
        loss: Any,
        t: Any,
        w: Any,
        positive: Any,
        scale: float,
        threads: int,
    ) -> float:
        total: float = run(x, t, loss, grad, w, positive, scale, threads)
        return total

    return _losses.element_loss(
        call,
        binary_cross_entropy_with_logits_flat,
        x,
        [
            _targets.as_element_targets(targets, x.shape, "logits"),
            _losses.as_element_weight(weight, "weight", x.shape),
            _losses.as_element_weight(pos_weight, "pos_weight", x.shape),
        ],
        reduction=reduction,
        gradient=gradient,
        out=out,
        num_threads=num_threads,
    )


def binary_cross_entropy_with_logits(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: str = "mean",
    num_threads: int | None = None,
) -> Any:
    r"""Measure how far scores are from the yes or no they should say.

    That is the cross-entropy of ``sigmoid(logits)``.

    Parameters
    ----------
    logits : array_like
        Scores of any shape, each for a question of its own.
    targets : array_like
        0 or 1, or a probability in between, for each: of the shape of `logits` and any real dtype,
        bool too.
    weight : array_like, optional
        A weight for each element; broadcasts to the shape of `logits`.
    pos_weight : array_like, optional
        Multiplies the part of the targets that is 1 (above 1: more recall); broadcasts likewise.
    reduction : {'mean', 'sum', 'none', 'batchmean'}, default 'mean'
        'none': a loss for each element. 'mean' and 'batchmean': their sum divided by the number of
        elements, whatever the weights; NaN where there are none.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    scalar or ndarray
        The loss, float64 for float64 logits and integers, float32 for all others; of the shape of
        `logits` for reduction 'none'.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    binary_cross_entropy_with_logits_value_and_grad : with the gradient, in one pass.
    binary_cross_entropy : from probabilities.
    cross_entropy : one of many classes instead of yes or no for each.

    Notes
    -----
    .. math:: w \, (v \, t \, \mathrm{softplus}(-x) + (1 - t) \, \mathrm{softplus}(x))

    with :math:`w` = `weight` and :math:`v` = `pos_weight`, as PyTorch has it. A coefficient of 0
    drops its term, and a weight of 0 both, so that infinite logits give 0 or +inf and never NaN.
    The largest error of a loss is 4 ulp (with weights 6) of the result or, if that is larger, of
    its larger term; for float32 and float64. The sum is made in float64. Targets and weights of
    float64 are used as they are, whatever the dtype of `logits`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import binary_cross_entropy_with_logits
    >>> binary_cross_entropy_with_logits(np.array([2.0, -1.0]), [1, 0], reduction="none").round(4)
    array([0.1269, 0.3133])
    """
    return _binary_cross_entropy_with_logits(
        logits, targets, weight, pos_weight, reduction, num_threads
    )


def binary_cross_entropy_with_logits_value_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    reduction: str = "mean",
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Binary cross-entropy of logits and its gradient with respect to them, in one pass.

    Parameters
    ----------
    logits, targets, weight, pos_weight, reduction
        As for `binary_cross_entropy_with_logits`.
    out : ndarray, optional
        Where to write the gradient: of the shape and dtype of `logits`, which is allowed itself.
        For float16 and bfloat16 it may be float32.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    loss : scalar or ndarray
        As `binary_cross_entropy_with_logits` returns it.
    grad : ndarray
        Its derivative, of the shape and dtype of `logits`; that of ``loss.sum()`` with reduction
        'none'.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_with_logits` does; `out` is untouched then.

    See Also
    --------
    binary_cross_entropy_with_logits binary_cross_entropy_with_logits_grad_hess : gradient and
    curvature of each element, for boosting.

    Notes
    -----
    The gradient is ``weight * ((1 - t) * sigmoid(x) - pos_weight * t * sigmoid(-x))``, which keeps
    its digits next to 0, divided by what the reduction divides by. Its largest error is 6 ulp of
    its larger term; weights multiply an exponential before it is rounded, so that a large one of a
    confident logit is no exception.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import binary_cross_entropy_with_logits_value_and_grad
    >>> loss, grad = binary_cross_entropy_with_logits_value_and_grad(np.array([2.0, -1.0]), [1, 0])
    >>> round(float(loss), 4)
    0.2201
    >>> grad.round(4)
    array([-0.0596,  0.1345])
    """
    result: tuple[Any, Any] = _binary_cross_entropy_with_logits(
        logits, targets, weight, pos_weight, reduction, num_threads, True, out
    )
    return result


def binary_cross_entropy_with_logits_grad_hess(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    hess_factor: float = 1.0,
    hess_floor: float = 0.0,
    grad_out: NDArray[Any] | None = None,
    hess_out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Gradient and second derivative of each element's loss: an objective for gradient boosting.

    Parameters
    ----------
    logits, targets
        As for `binary_cross_entropy_with_logits`.
    sample_weight : array_like, optional
        A weight for each element, which multiplies both results; broadcasts to the shape of
        `logits`.
    hess_factor : float, default 1.0
        Multiplies the second derivative.
    hess_floor : float, default 0.0
        The least value of the second derivative (before `sample_weight`).
    grad_out, hess_out : ndarray, optional
        Where to write the results: of the shape and dtype of `logits`, without an element in
        common. One of them may be `logits` itself.
    num_threads : int, optional
        The most threads to use. The results do not depend on it.

    Returns
    -------
    grad : ndarray
        ``p - t``, with p = sigmoid(logits) and t the targets. In the memory order of `logits`, C or
        F.
    hess : ndarray
        ``max(hess_factor * p * (1 - p), hess_floor)``.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy_with_logits` does; nothing is written then.

    See Also
    --------
    binary_cross_entropy_with_logits_value_and_grad, cross_entropy_grad_hess

    Notes
    -----
    The largest error of the gradient is 6 ulp of its larger term, that of the second derivative 8
    ulp.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import binary_cross_entropy_with_logits_grad_hess
    >>> grad, hess = binary_cross_entropy_with_logits_grad_hess(np.array([2.0, -1.0]), [1, 0])
    >>> grad.round(4)
    array([-0.1192,  0.2689])
    >>> hess.round(4)
    array([0.105 , 0.1966])
    """
    factor, floor = (
        _parameters.as_real(hess_factor, "hess_factor"),
        _parameters.as_real(hess_floor, "hess_floor"),
    )
    x = _inputs.as_numbers(logits, "logits")
    target = _targets.as_element_targets(targets, x.shape, "logits")
    samples = _losses.as_element_weight(sample_weight, "sample_weight", x.shape)

    def call(run: Any, x: Any, grad: Any, hess: Any, t: Any, w: Any, threads: int) -> None:
        run(x, t, grad, hess, w, factor, floor, threads)

    return _losses.grad_hess(
        call,
        binary_cross_entropy_with_logits_grad_hess_flat,
        x,
        [target, samples],
        axes=None,
        shape=x.shape,
        outs=(grad_out, hess_out),
        num_threads=num_threads,
    )
