"""Negative log-likelihood, from logarithms of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _inputs, _losses, _parameters, _targets
from .._backend import kernel
from .._reference import Array, blockwise, indices, is_narrow, total, weights, widened
from .._signatures import ArrayLike


@kernel
@blockwise
def nll_loss_rows(
    log_probs: Array,
    target: Array,
    loss: Array | None,
    grad: Array | None,
    weight: Array | None,
    sample_weight: Array | None,
    ignored: int,
    scale: float,
    num_threads: int,
) -> float:
    """The sum over rows of sample_weight sum(weight t (-log_probs)), and scale times its gradient.

    t is 1 at a label; a label that is `ignored` or no class does not count.
    """
    if target.dtype.kind in "iu":
        classes, label = np.arange(log_probs.shape[1])[:, None], indices(target)
        q = ((classes == label) & (label != ignored)).astype(np.float64)
    else:
        q = widened(target)
    q = q * weights(weight, log_probs)
    wide = widened(log_probs)
    samples = weights(sample_weight, log_probs)
    q = np.where(samples == 0, 0, q)
    rows = total(np.where(q == 0, 0, 0 - q * wide), is_narrow(log_probs))
    rows = np.where((rows == 0) & (q == 0).all(axis=1, keepdims=True), 0, rows * samples)
    if loss is not None:
        loss[...] = rows[:, 0]
    if grad is not None:
        grad[...] = np.where(q == 0, 0, -q * (samples * scale))
    return float(rows.sum())


def _nll_loss(
    log_probs: Any,
    targets: Any,
    axis: Any,
    weight: Any,
    sample_weight: Any,
    ignore_index: Any,
    reduction: Any,
    num_threads: Any,
    gradient: bool = False,
    out: Any = None,
) -> Any:
    _losses.check_reduction(reduction)
    ignore = _parameters.as_ignore_index(ignore_index)
    rows = _inputs.as_rows(log_probs, "log_probs", axis)
    target = _targets.as_targets(rows, targets, ignore)
    classes = _losses.as_class_weight(rows, weight)
    samples = _losses.as_sample_weight(rows, sample_weight)
    divisor = _losses.divisor(
        reduction,
        rows,
        labels=target if target.dtype.kind in "iu" else None,
        ignore_index=ignore,
        weight=classes,
        sample_weight=samples,
    )
    ignored = ignore if ignore is not None and 0 <= ignore < rows.classes else -1

    def call(
        run: Any, x: Any, grad: Any, loss: Any, t: Any, sample: Any, scale: float, threads: int
    ) -> float:
        total: float = run(x, t, loss, grad, classes, sample, ignored, scale, threads)
        return total

    return _losses.row_loss(
        call,
        nll_loss_rows,
        rows,
        [target, samples],
        divisor=divisor,
        reduction=reduction,
        gradient=gradient,
        out=out,
        num_threads=num_threads,
    )


def nll_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    axis: int = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    num_threads: int | None = None,
) -> Any:
    """Negative log-likelihood of classes: ``-log_probs[label]``.

    Parameters
    ----------
    log_probs : array_like
        Logarithms of probabilities, such as `log_softmax` returns.
    targets, axis, weight, sample_weight, ignore_index, reduction, num_threads
        As for `cross_entropy`.

    Returns
    -------
    scalar or ndarray
        The loss, float64 for float64 input and integers, float32 for all others; an array of the
        shape of `log_probs` without `axis` for reduction 'none'.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `cross_entropy` does.

    See Also
    --------
    cross_entropy : from logits, which is faster and needs no logarithms kept.

    Notes
    -----
    With probabilities `t` as targets it is ``-sum(weight * t * log_probs)``, where ``t == 0`` has
    no part (PyTorch's takes labels only). ``nll_loss(log_softmax(z), y)`` is ``cross_entropy(z,
    y)``.

    Losses are within 4 units in the last place of their dtype, with options within 6; where terms
    of both signs cancel, of the sum of their magnitudes. Targets and weights of float64 are used as
    they are given.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import nll_loss
    >>> round(float(nll_loss(np.log([[0.5, 0.25, 0.25]]), [1])), 4)
    1.3863
    """
    return _nll_loss(
        log_probs, targets, axis, weight, sample_weight, ignore_index, reduction, num_threads
    )


def nll_loss_value_and_grad(
    log_probs: ArrayLike,
    targets: ArrayLike,
    axis: int = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Negative log-likelihood and its gradient with respect to `log_probs`.

    Parameters
    ----------
    log_probs, targets, axis, weight, sample_weight, ignore_index, reduction
        As for `nll_loss`.
    out : ndarray, optional
        Where to write the gradient: of the shape and dtype of `log_probs`, which is allowed itself.
        For float16 and bfloat16 it may be float32.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    loss : scalar or ndarray
        As `nll_loss` returns it.
    grad : ndarray
        Its derivative, of the shape and dtype of `log_probs`; that of ``loss.sum()`` with reduction
        'none'.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `cross_entropy` does; `out` is untouched then.

    See Also
    --------
    nll_loss, cross_entropy_value_and_grad

    Notes
    -----
    The gradient is minus target times weights, within 8 units in the last place.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import nll_loss_value_and_grad
    >>> loss, grad = nll_loss_value_and_grad(np.log([[0.5, 0.25, 0.25]]), [1])
    >>> grad
    array([[ 0., -1.,  0.]])
    """
    result: tuple[Any, Any] = _nll_loss(
        log_probs,
        targets,
        axis,
        weight,
        sample_weight,
        ignore_index,
        reduction,
        num_threads,
        True,
        out,
    )
    return result
