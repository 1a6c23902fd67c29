"""Binary cross-entropy of probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _inputs, _losses, _parameters, _targets
from .._backend import kernel
from .._reference import Array, by_elements, weights, widened
from .._signatures import ArrayLike


@kernel
@by_elements
def binary_cross_entropy_flat(
    probs: Array,
    targets: Array,
    loss: Array | None,
    grad: Array | None,
    weight: Array | None,
    clamp: float,
    scale: float,
    num_threads: int,
) -> float:
    """The sum of -weight (t log(p) + (1 - t) log1p(-p)), and scale times its gradient.

    Each logarithm is at least -clamp.
    """
    p, t = widened(probs), widened(targets)
    w = weights(weight, probs)
    inside = (p >= 0) & (p <= 1)
    log_p, log_q = np.log(p), np.log1p(-p)
    terms = _term(t, np.maximum(log_p, -clamp)) + _term(1 - t, np.maximum(log_q, -clamp))
    losses = np.where(inside, 0 - _term(w, terms), np.nan)
    if loss is not None:
        loss[...] = losses
    if grad is not None:
        rise = np.where((t == 1) | (log_q < -clamp), 0, (1 - t) / (1 - p))
        steep = (t != 0) & ~(log_p < -clamp)
        slopes = _term(w, rise - np.where(steep, t / p, 0)) * scale
        hard = steep & (p > 0) & (p < np.sqrt(np.finfo(p.dtype).smallest_normal))
        if hard.any():  # t / p may overflow where its product with a small weight does not
            slopes = np.where(hard, _steep(rise, t, p, w, scale), slopes)
        grad[...] = np.where(inside, slopes, np.nan)
    return float(losses.sum())


def _term(coefficient: Any, value: Array) -> Array:
    """Their product; a coefficient of 0 drops it, be it infinite."""
    return np.where(coefficient == 0, 0, coefficient * value)


def _steep(rise: Array, t: Array, p: Array, w: Any, scale: float) -> Array:
    """w scale (rise - t / p), with powers of two apart."""
    (t, of_t), (p, of_p), (w, of_w) = np.frexp(t), np.frexp(p), np.frexp(w)
    quotient = of_t - of_p
    difference = np.ldexp(rise, -quotient) - t / p
    slopes: Array = np.ldexp(difference * w * scale, quotient + of_w)
    return slopes


def _binary_cross_entropy(
    probs: Any,
    targets: Any,
    weight: Any,
    clamp: Any,
    reduction: Any,
    num_threads: Any,
    gradient: bool = False,
    out: Any = None,
) -> Any:
    _losses.check_reduction(reduction)
    bound = math.inf if clamp is None else _parameters.as_real(clamp, "clamp", 0)
    x = _inputs.as_numbers(probs, "probs")

    def call(
        run: Any, x: Any, grad: Any, loss: Any, t: Any, w: Any, scale: float, threads: int
    ) -> float:
        total: float = run(x, t, loss, grad, w, bound, scale, threads)
        return total

    return _losses.element_loss(
        call,
        binary_cross_entropy_flat,
        x,
        [
            _targets.as_element_targets(targets, x.shape, "probs"),
            _losses.as_element_weight(weight, "weight", x.shape),
        ],
        reduction=reduction,
        gradient=gradient,
        out=out,
        num_threads=num_threads,
    )


def binary_cross_entropy(
    probs: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    clamp: float | None = None,
    reduction: str = "mean",
    num_threads: int | None = None,
) -> Any:
    """Binary cross-entropy of probabilities: ``-(t * log(p) + (1 - t) * log1p(-p))``.

    Parameters
    ----------
    probs : array_like
        Probabilities of any shape, such as `sigmoid` returns. One outside [0, 1] makes its loss
        NaN, whatever its weight.
    targets : array_like
        0 or 1, or a probability in between, for each: of the shape of `probs` and any real dtype,
        bool too.
    weight : array_like, optional
        A weight for each element; broadcasts to the shape of `probs`.
    clamp : float, optional
        Each logarithm is at least ``-clamp``. PyTorch does that with 100.
    reduction : {'mean', 'sum', 'none', 'batchmean'}, default 'mean'
        As for `binary_cross_entropy_with_logits`.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    scalar or ndarray
        The loss, float64 for float64 `probs` and integers, float32 for all others; of the shape of
        `probs` for reduction 'none'.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.

    See Also
    --------
    binary_cross_entropy_with_logits : from scores, which keeps digits that probabilities next to 1
    have lost.

    Notes
    -----
    A coefficient of 0 drops its term: ``p = 0`` costs nothing where the target or the weight is 0.
    Without `clamp`, it costs +inf elsewhere; PyTorch's always clamps. The largest error of a loss
    is 4 ulp (with options 6) of the result or, if that is larger, of its larger term; for float32
    and float64. Targets and weights of float64 are used as they are, whatever the dtype of `probs`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import binary_cross_entropy
    >>> binary_cross_entropy(np.array([0.9, 0.2, 0.0]), [1, 0, 0], reduction="none").round(4)
    array([0.1054, 0.2231, 0.    ])
    >>> float(binary_cross_entropy(np.array([0.0]), [1], clamp=100))
    100.0
    """
    return _binary_cross_entropy(probs, targets, weight, clamp, reduction, num_threads)


def binary_cross_entropy_value_and_grad(
    probs: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    clamp: float | None = None,
    reduction: str = "mean",
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Binary cross-entropy of probabilities and its gradient with respect to them.

    Parameters
    ----------
    probs, targets, weight, clamp, reduction
        As for `binary_cross_entropy`.
    out : ndarray, optional
        Where to write the gradient: of the shape and dtype of `probs`, which is allowed itself. For
        float16 and bfloat16 it may be float32.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    loss : scalar or ndarray
        As `binary_cross_entropy` returns it.
    grad : ndarray
        Its derivative, of the shape and dtype of `probs`; that of ``loss.sum()`` with reduction
        'none'.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy` does; `out` is untouched then.

    See Also
    --------
    binary_cross_entropy

    Notes
    -----
    The gradient is ``weight * ((1 - t) / (1 - p) - t / p)``. Where a logarithm is clamped, the loss
    is flat and its part of the gradient 0. (PyTorch's gradient knows nothing of the clamp of its
    loss; it divides by at least 1e-12 instead.) Its largest error is 4 ulp of its larger term; a
    `p` whose inverse overflows, or a small weight of one that nearly does, is no exception.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import binary_cross_entropy_value_and_grad
    >>> loss, grad = binary_cross_entropy_value_and_grad(np.array([0.8, 0.5]), [1, 0])
    >>> grad
    array([-0.625,  1.   ])
    """
    result: tuple[Any, Any] = _binary_cross_entropy(
        probs, targets, weight, clamp, reduction, num_threads, True, out
    )
    return result
