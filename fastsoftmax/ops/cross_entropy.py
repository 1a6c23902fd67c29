"""Cross-entropy of logits: the loss, its gradient in the same pass,
and what boosting wants of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _inputs, _losses, _parameters, _targets
from .._backend import kernel
from .._parameters import is_plain_float
from .._reference import (
    Array,
    Scaled,
    blockwise,
    indices,
    is_narrow,
    store,
    total,
    weights,
    widened,
)
from .._signatures import ArrayLike


@kernel
def cross_entropy_plain(
    logits: Any,
    targets: Any,
    axis: Any,
    reduction: Any,
    gradient: bool,
    out: Any,
    num_threads: Any,
) -> Any:
    """The result for plain arrays (native, contiguous, not empty, labels in range), along the last
    axis; or None.
    """
    return None


@kernel
@blockwise
def cross_entropy_rows(
    x: Array,
    target: Array,
    loss: Array | None,
    grad: Array | None,
    weight: Array | None,
    sample_weight: Array | None,
    temperature: Array,
    where: Array | None,
    ignored: int,
    label_smoothing: float,
    z_loss: float,
    scale: float,
    num_threads: int,
) -> float:
    """The sum over rows of sample_weight (sum(q (-log p)) + z_loss logsumexp**2); scale times its
    gradient.

    q = weight ((1 - label_smoothing) t + label_smoothing / number of classes); t is 1 at a label.
    Rows whose label is `ignored` or no class, and fully masked ones, do not count.
    """
    z = Scaled(widened(x), temperature, (1.0, 0.0), where, is_narrow(x))
    log_total = np.where(z.max == np.inf, np.nan, z.log_total())
    surprise = (log_total - z.hi) - z.lo  # -log p
    present = np.ones((1, 1, 1), bool) if where is None else where.astype(bool)
    counted = np.broadcast_to(present, x.shape).any(axis=1, keepdims=True)
    if target.dtype.kind == "f" or target.dtype.kind == "V":
        given = widened(target)
    else:
        label = indices(target)
        counted = counted & (label >= 0) & (label < x.shape[1]) & (label != ignored)
        given = (np.arange(x.shape[1])[:, None] == label).astype(np.float64)
    samples = weights(sample_weight, x)
    counted = counted & (samples != 0)
    classes = np.count_nonzero(np.broadcast_to(present, x.shape), axis=1, keepdims=True)
    q = (1 - label_smoothing) * given + np.where(
        present, label_smoothing / np.maximum(classes, 1), 0
    )
    q = q * weights(weight, x)
    log_sum = z.max / temperature[:, None, :] + log_total
    rows = total(np.where(q == 0, 0, q * surprise)) + log_total * 0
    if z_loss:
        rows = rows + z_loss * log_sum**2
    rows = np.where(counted, rows * samples, 0)
    if loss is not None:
        loss[...] = rows[:, 0]
    if grad is not None:
        # q (p - 1) + (Q - q) p, where p - 1 keeps the digits of a p next to 1
        masses = total(q) + (2 * z_loss * log_sum if z_loss else 0)
        g = q * np.expm1(-surprise) + (masses - q) * np.exp(-surprise)
        g = g * (samples * scale) / temperature[:, None, :]
        store(grad, np.where(counted, g, 0), where, 0)
    return float(rows.sum())


@kernel
@blockwise
def cross_entropy_grad_hess_rows(
    x: Array,
    target: Array,
    grad: Array,
    hess: Array,
    sample_weight: Array | None,
    hess_factor: float,
    hess_floor: float,
    num_threads: int,
) -> None:
    """p - t and max(hess_factor p (1 - p), hess_floor), each times sample_weight."""
    z = Scaled(widened(x), np.ones((1, 1)), (1.0, 0.0), None, is_narrow(x))
    log_p = (z.hi - np.where(z.max == np.inf, np.nan, z.log_total())) + z.lo
    p, others = np.exp(log_p), -np.expm1(log_p)
    if target.dtype.kind == "f" or target.dtype.kind == "V":
        t = widened(target)
    else:
        t = (np.arange(x.shape[1])[:, None] == indices(target)).astype(np.float64)
    samples = weights(sample_weight, x)
    counted = samples != 0
    curvature = np.where(counted, samples * np.maximum(hess_factor * (p * others), hess_floor), 0)
    gradient = np.where(counted, samples * ((1 - t) * p - t * others), 0)
    store(grad, gradient, None, 0)  # which may be where the weights were
    store(hess, curvature, None, 0)


def _cross_entropy(
    logits: Any,
    targets: Any,
    axis: Any,
    weight: Any,
    sample_weight: Any,
    ignore_index: Any,
    label_smoothing: Any,
    temperature: Any,
    where: Any,
    z_loss: Any,
    reduction: Any,
    num_threads: Any,
    gradient: bool = False,
    out: Any = None,
) -> Any:
    default = weight is None and sample_weight is None and ignore_index is None and where is None
    default = default and is_plain_float(label_smoothing, 0) and is_plain_float(z_loss, 0)
    if default and is_plain_float(temperature, 1):
        result = cross_entropy_plain(logits, targets, axis, reduction, gradient, out, num_threads)
        if result is not None:
            return result
    _losses.check_reduction(reduction)
    ignore = _parameters.as_ignore_index(ignore_index)
    smoothing = _parameters.as_real(label_smoothing, "label_smoothing", 0, 1)
    square = _parameters.as_real(z_loss, "z_loss")
    rows = _inputs.as_rows(logits, "logits", axis)
    target = _targets.as_targets(rows, targets, ignore)
    hard = target.dtype.kind in "iu"
    classes = _losses.as_class_weight(rows, weight)
    samples = _losses.as_sample_weight(rows, sample_weight)
    temperatures, extreme = _parameters.as_row_temperatures(rows, temperature)
    mask = _parameters.as_where(where, rows.x.shape)
    divisor = _losses.divisor(
        reduction,
        rows,
        labels=target if hard else None,
        ignore_index=ignore,
        weight=classes,
        sample_weight=samples,
        where=mask,
    )
    ignored = ignore if ignore is not None and 0 <= ignore < rows.classes else -1

    def call(run: Any, x: Any, grad: Any, loss: Any, *others: Any) -> float:
        t, sample, row, mask, scale, threads = others
        heat = temperatures if row is None else row[:, 0]
        options = ignored, smoothing, square, scale, threads
        total: float = run(x, t, loss, grad, classes, sample, heat, mask, *options)
        return total

    return _losses.row_loss(
        call,
        cross_entropy_rows,
        rows,
        [target, samples, _parameters.per_row_temperatures(temperatures), mask],
        divisor=divisor,
        reduction=reduction,
        gradient=gradient,
        out=out,
        num_threads=num_threads,
        extreme=extreme,
    )


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    axis: int = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    num_threads: int | None = None,
) -> Any:
    r"""Measure how far scores are from the classes they should predict.

    That is ``-log(softmax(logits)[label])``.

    The logits are read once, and nothing of their size is made.

    Parameters
    ----------
    logits : array_like
        Scores of any shape; the classes are along `axis`. They may be the logarithms of
        unnormalised probabilities, whatever their sum.
    targets : array_like
        Labels: of an integer dtype and the shape of `logits` without `axis`, each from 0 to C - 1.
        Or probabilities: of a floating dtype and the shape of `logits`; they need not sum to 1.
    axis : int, default -1
        The axis of the classes.
    weight : array_like, optional
        A weight for each class, shape (C,).
    sample_weight : array_like, optional
        A weight for each row; broadcasts to the shape of `logits` without `axis`. A row of weight 0
        does not count, whatever it holds; its label is still checked.
    ignore_index : int, optional
        Rows with this label do not count. It need not be a class. (PyTorch's default is -100; here
        every label is checked unless you say otherwise.)
    label_smoothing : float, default 0.0
        The part of each target, from 0 to 1, that is spread evenly over the classes.
    temperature : float or array_like, default 1.0
        The loss of ``logits / temperature``: one number, or one for each row.
    where : array_like of bool, optional
        Broadcasts to `logits`. Classes where it is false take no part. A target on one gives +inf;
        a row in which it is false throughout does not count.
    z_loss : float, default 0.0
        Adds ``z_loss * logsumexp(logits / temperature)**2`` for each row that counts, which keeps
        logits from drifting away.
    reduction : {'mean', 'sum', 'none', 'batchmean'}, default 'mean'
        'none': a loss for each row, 0 where it does not count. 'mean': their sum divided by the sum
        of ``weight[label] * sample_weight`` of the rows that count; with probabilities, by the sum
        of `sample_weight`. 'batchmean': divided by the number of rows that count. A mean over
        nothing, or over weights that sum to 0, is NaN.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    scalar or ndarray
        The loss, float64 for float64 logits and integers, float32 for all others; an array of the
        shape of `logits` without `axis` for reduction 'none'.

    Raises
    ------
    IndexError
        If a label is neither a class nor `ignore_index`; the message names the first such place.
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    cross_entropy_value_and_grad : with the gradient, in one pass.
    nll_loss : from logarithms of probabilities.
    logprobs : the logarithms of the probabilities of some classes.

    Notes
    -----
    The loss of a row with label :math:`y` is

    .. math:: (1 - s) w_y (-\log p_y) + \frac{s}{C} \sum_c w_c (-\log p_c) + z \log^2 \sum_c e^{x_c
    / T}

    with :math:`s` = `label_smoothing` and :math:`z` = `z_loss`; with targets :math:`t`,
    :math:`t'_c = (1 - s) t_c + s / C` and :math:`\sum_c w_c t'_c (-\log p_c)`, where classes with
    :math:`t'_c = 0` have no part. A row's `sample_weight` multiplies all of it.

    Unlike PyTorch's, the axis of the classes is the last by default, a confident row's loss keeps
    its digits (``log1p`` of the other classes' exponentials, relative to the label's [1]_), and the
    sum over the rows is made in float64. A row with NaN or +inf, and a row of nothing but -inf, is
    NaN.

    Losses are within 4 units in the last place of their dtype, with options within 6, however small
    they are. Where terms of both signs cancel (weights or targets below 0), that is of the sum of
    their magnitudes; and in the term of `z_loss`, the logarithm is counted as at least a sixteenth
    of the largest logit. Targets and weights of float64 are used as they are given, beside float32
    logits, too.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and
    softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), 2311-2330.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy
    >>> logits = np.array([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
    >>> round(float(cross_entropy(logits, [0, 1])), 4)
    0.3171
    >>> cross_entropy(logits, [0, 1], reduction="none").round(4)
    array([0.1698, 0.4644])
    >>> cross_entropy(logits, [0, 9], ignore_index=9, reduction="none").round(4)
    array([0.1698, 0.    ])
    >>> round(float(cross_entropy(logits, [[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])), 4)
    0.4171
    """
    return _cross_entropy(
        logits,
        targets,
        axis,
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        temperature,
        where,
        z_loss,
        reduction,
        num_threads,
    )


def cross_entropy_value_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    axis: int = -1,
    *,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    z_loss: float = 0.0,
    reduction: str = "mean",
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    r"""Cross-entropy and its gradient with respect to the logits, in one pass.

    Parameters
    ----------
    logits, targets, axis, weight, sample_weight, ignore_index
        As for `cross_entropy`.
    label_smoothing, temperature, where, z_loss, reduction
        As for `cross_entropy`.
    out : ndarray, optional
        Where to write the gradient: of the shape and dtype of `logits`; `logits` itself is allowed.
        For float16 and bfloat16 logits it may be float32.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    loss : scalar or ndarray
        As `cross_entropy` returns it.
    grad : ndarray
        The derivative of `loss` with respect to `logits`, of their shape and dtype; with reduction
        'none', the derivative of ``loss.sum()``. Rows that do not count, and masked classes, have
        0. Where the loss is a mean over nothing, all of it is 0.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `cross_entropy` does; `out` is untouched then.

    See Also
    --------
    cross_entropy
    cross_entropy_grad_hess : gradient and curvature for each row, for boosting.

    Notes
    -----
    The gradient of a row is :math:`(Q + 2 z \log \sum_c e^{x_c / T}) p - q`, divided by the
    temperature, with the masses :math:`q` of the classes and their sum :math:`Q`. At a label, ``p -
    1`` is minus the sum of the other classes: it does not cancel. No probabilities are kept besides
    the gradient.

    Each element is within 8 units in the last place of the sum of the magnitudes of its terms: of
    itself for labels without `label_smoothing` and `z_loss`, else of :math:`|q_c| (1 - p_c)`,
    :math:`p_c \sum_k |q_k|` and what `z_loss` adds. No weight and no temperature makes that worse:
    probabilities do not underflow before they are multiplied. Results below the smallest normal
    number may be 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_value_and_grad
    >>> loss, grad = cross_entropy_value_and_grad(np.array([[2.0, 0.0, -1.0]]), [0])
    >>> round(float(loss), 4)
    0.1698
    >>> grad.round(4)
    array([[-0.1562,  0.1142,  0.042 ]])
    """
    result: tuple[Any, Any] = _cross_entropy(
        logits,
        targets,
        axis,
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        temperature,
        where,
        z_loss,
        reduction,
        num_threads,
        True,
        out,
    )
    return result


def cross_entropy_grad_hess(
    logits: ArrayLike,
    targets: ArrayLike,
    axis: int = -1,
    *,
    sample_weight: ArrayLike | None = None,
    hess_factor: float = 1.0,
    hess_floor: float = 0.0,
    grad_out: NDArray[Any] | None = None,
    hess_out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Gradient and diagonal Hessian of the cross-entropy of every row, for gradient boosting.

    Parameters
    ----------
    logits, targets, axis
        As for `cross_entropy`: labels, or a probability for every class.
    sample_weight : array_like, optional
        A weight for each row, which multiplies both results. Where it is 0 they are 0, whatever the
        row holds.
    hess_factor : float, default 1.0
        Multiplies the Hessian. XGBoost's own objective has 2, LightGBM's C / (C - 1).
    hess_floor : float, default 0.0
        The least value of the Hessian (before `sample_weight`). XGBoost's own objective has 1e-6.
    grad_out, hess_out : ndarray, optional
        Where to write the results: of the shape and dtype of `logits`, without an element in
        common. One of them may be `logits` itself.
    num_threads : int, optional
        The most threads to use. The results do not depend on it.

    Returns
    -------
    grad : ndarray
        ``p - t``, with p = softmax(logits) and t the targets, 1 at a label. In the memory order of
        `logits`, C or F.
    hess : ndarray
        ``max(hess_factor * p * (1 - p), hess_floor)``.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `cross_entropy` does; nothing is written then.

    See Also
    --------
    cross_entropy_value_and_grad : one loss for all rows, and its gradient.

    Notes
    -----
    Computed in float64. ``p - 1`` and ``1 - p`` are sums of the other classes, not differences, and
    keep their digits next to p = 1: both results are within 8 units in the last place, with
    probabilities as targets of ``p * (1 - t) + t * (1 - p)``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_grad_hess
    >>> grad, hess = cross_entropy_grad_hess(np.array([[1.0, 0.0], [0.0, 0.0]]), [0, 1])
    >>> grad.round(4)
    array([[-0.2689,  0.2689],
           [ 0.5   , -0.5   ]])
    >>> hess.round(4)
    array([[0.1966, 0.1966],
           [0.25  , 0.25  ]])
    """
    factor, floor = (
        _parameters.as_real(hess_factor, "hess_factor"),
        _parameters.as_real(hess_floor, "hess_floor"),
    )
    rows = _inputs.as_rows(logits, "logits", axis)
    target = _targets.as_targets(rows, targets, None)
    samples = _losses.as_sample_weight(rows, sample_weight)

    def call(run: Any, x: Any, grad: Any, hess: Any, t: Any, sample: Any, threads: int) -> None:
        run(x, t, grad, hess, sample, factor, floor, threads)

    return _losses.grad_hess(
        call,
        cross_entropy_grad_hess_rows,
        rows.x,
        [target, samples],
        axes=rows.axes,
        shape=rows.given,
        outs=(grad_out, hess_out),
        num_threads=num_threads,
    )
