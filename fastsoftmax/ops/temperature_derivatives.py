"""The cross-entropy of logits as a function of their temperature, with derivatives,
for `fit_temperature`.
"""

from __future__ import annotations

import numpy as np

from .._backend import kernel
from .._reference import Array, blockwise, weights, widened


@kernel
@blockwise
def temperature_derivatives_rows(
    x: Array,
    labels: Array,
    sample_weight: Array | None,
    inverse_temperature: float,
    num_threads: int,
) -> tuple[float, float, float]:
    """The sum over rows of w (log(sum(exp(b x))) - b x_label), and its first two derivatives by b.

    b is the inverse temperature. With p = softmax(b x), they are w (mean of x under p - x_label)
    and w (variance of x under p).
    """
    wide = widened(x)
    d = wide - wide.max(axis=1, keepdims=True)
    e = np.exp(inverse_temperature * d)
    total = e.sum(axis=1, keepdims=True)
    p, d = e / total, np.where(e == 0, 0, d)
    mean = (p * d).sum(axis=1, keepdims=True)
    square = (p * d * d).sum(axis=1, keepdims=True)
    own = np.take_along_axis(wide, labels.astype(np.intp), axis=1) - wide.max(axis=1, keepdims=True)
    weight = weights(sample_weight, x)
    sums = np.log(total) - inverse_temperature * own, mean - own, square - mean * mean
    # Where the loss is flat, its minimum depends on the last digits of these; so they depend less
    # on the order of the rows in memory.
    terms = (np.where(weight == 0, 0, weight * a) for a in sums)
    loss, first, second = (float(a.sum(dtype=np.longdouble)) for a in terms)
    return loss, first, second
