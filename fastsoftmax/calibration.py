"""Calibration: the temperature at which scores mean what they say."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _inputs, _losses, _parameters, _targets
from ._call import prepare
from ._signatures import ArrayLike
from ._views import iter_views
from .ops import temperature_derivatives as ops

MOST_STEPS = 200  # far more than bisection alone would need
PRECISION = 4 * sys.float_info.epsilon


def fit_temperature(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: int = -1,
    *,
    sample_weight: ArrayLike | None = None,
    bounds: tuple[float, float] = (1e-3, 1e3),
    num_threads: int | None = None,
) -> float:
    """Fit a temperature to labels: the T of the least cross-entropy.

    That minimises ``cross_entropy(logits, labels, temperature=T)``.

    A classifier's scores often say too much: where it is 99 % sure, it is right less often. Divided
    by a temperature that was fitted on data it was not trained with, they keep their order and all
    decisions, and become probabilities that can be believed [1]_.

    Parameters
    ----------
    logits : array_like
        Scores of any shape; the classes are along `axis`.
    labels : array_like of int
        The right class of every row, from 0 to C - 1, in the shape of `logits` without `axis`.
    axis : int, default -1
        The axis of the classes.
    sample_weight : array_like, optional
        A weight for each row, not negative; broadcasts to the shape of `labels`. A row of weight 0
        is left out, whatever it holds; its label is still checked.
    bounds : tuple of two float, default (1e-3, 1e3)
        The lowest and the highest temperature to consider.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    float
        The temperature, or the bound beyond which it would lie: the lowest if every label has the
        largest score of its row. Where no temperature is better than 1 because none makes a
        difference, 1.

    Raises
    ------
    IndexError
        If a label is no class; the message names the first such place.
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it. Among these: no
        rows, weights that sum to 0, and a loss that is not finite, as for NaN in `logits` or a
        label with score -inf.

    See Also
    --------
    cross_entropy : the loss, for any temperature.

    Notes
    -----
    In b = 1 / T the loss is convex; its derivatives are, for each row, the mean score under
    softmax(b x) minus the score of the label, and the variance of the scores. Newton's iteration
    within a bracket, which falls back to bisection, finds the zero of the first to double
    precision. Each step reads the logits; nothing of their size is made.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural
    networks",
       International Conference on Machine Learning (2017), 1321-1330.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import fit_temperature
    >>> scores = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> round(fit_temperature(scores, [0, 0, 1, 1]), 4)  # right in 3 of 4 cases: 4 / log(3)
    3.641
    """
    rows = _inputs.as_rows(logits, "logits", axis)
    label = rows.per_row(_targets.as_labels(labels, "labels", rows.shape, rows.classes))
    weight = _as_weight(_losses.as_sample_weight(rows, sample_weight), rows.shape)
    lowest, highest = _as_bounds(bounds)
    kernel, arrays = ops.temperature_derivatives_rows, (rows.x, label, weight)
    run, threads, _ = prepare(kernel, rows.axes, rows.x, arrays[1:], (), num_threads)

    def derivatives(b: float) -> tuple[float, float]:
        parts = [run(*views, b, threads) for views in iter_views(rows.axes, arrays)]
        loss, first, second = map(sum, zip(*parts, strict=True))
        if not math.isfinite(loss):
            reason = "a row has NaN or +inf, or its label has -inf"
            raise ValueError(f"logits must give a finite loss with labels, got {loss}: {reason}")
        return first, second

    low, high = 1 / highest, 1 / lowest
    b = _zero_of_first(derivatives, low, high)
    return highest if b == low else lowest if b == high else min(max(1 / b, lowest), highest)


def _zero_of_first(
    derivatives: Callable[[float], tuple[float, float]], low: float, high: float
) -> float:
    """Where the first derivative, which increases, is 0: by Newton's iteration in a bracket, or its
    end.

    Steps that leave the bracket, or fall short of halving the one before, are geometric bisections
    instead.
    """
    b = min(max(1.0, low), high)
    first, second = derivatives(b)
    if first == 0:
        # The minimum; or every label has the largest score, and what other classes contribute
        # underflows.
        return high if second == 0 and derivatives(sys.float_info.min)[1] != 0 else b
    end = low if first > 0 else high
    if derivatives(end)[0] * math.copysign(1, first) >= 0:  # 0 where it has underflowed
        return end
    last = math.inf
    for _ in range(MOST_STEPS):
        low, high = (low, b) if first > 0 else (b, high)
        newton = b - first / second if second > 0 else math.inf
        good = low < newton < high and abs(newton - b) < last / 2
        following = newton if good else math.sqrt(low) * math.sqrt(high)
        last = abs(following - b)
        b = following
        first, second = derivatives(b)
        if first == 0 or last <= PRECISION * b:
            break
    return b


def _as_weight(weight: Any, shape: tuple[int, ...]) -> Any:
    """Weights that are fit for a loss with a minimum."""
    if not math.prod(shape):
        raise ValueError(f"labels must not be empty, got shape {shape}")
    if weight is not None:
        with np.errstate(all="ignore"):
            least, total = float(weight.min()), float(weight.sum(dtype=np.float64))
        if not (least >= 0 and 0 < total < math.inf):
            got = f"got {least:g} as the least one and a sum of {total:g}"
            raise ValueError(
                f"sample_weight must not be negative, its sum finite and greater than 0; {got}"
            )
    return weight


def _as_bounds(bounds: Any) -> tuple[float, float]:
    try:
        low, high = (_parameters.as_number(bound, "bounds") for bound in bounds)
    except (TypeError, ValueError):
        raise TypeError(f"bounds must be two numbers, got {bounds!r}") from None
    if not (0 < low < high < math.inf and 1 / low < math.inf):
        raise ValueError(f"bounds must be finite, greater than 0 and ascending, got {bounds!r}")
    return low, high
