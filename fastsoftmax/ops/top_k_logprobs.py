"""The most probable classes and their log-probabilities."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .. import _inputs, _losses, _parameters
from .._backend import kernel
from .._call import prepare
from .._outputs import ShapedOutput
from .._reference import Array, blockwise, widened
from .._signatures import ArrayLike
from .._views import Rows
from .log_softmax import log_probabilities

INTP = np.dtype(np.intp)


@kernel
@blockwise
def top_k_logprobs_rows(
    x: Array, values: Array, indices: Array, temperature: Array, num_threads: int
) -> None:
    """The largest of log_softmax(x / temperature) and where they are, over the middle axis;
    NaN for NaN.
    """
    log_p = log_probabilities(x, values, temperature)
    indices[...] = _largest(np.where(np.isnan(log_p), 0, widened(x)), values.shape[1])
    values[...] = np.take_along_axis(log_p, indices, axis=1)


def _largest(x: Array, k: int) -> Array:
    """Where the `k` largest elements are, in descending order;
    of equals those with the lower index.
    """
    least = -np.partition(-x, k - 1, axis=1)[:, k - 1 : k]
    above, equal = x > least, x == least
    missing = k - np.count_nonzero(above, axis=1, keepdims=True)
    taken = np.moveaxis(above | (equal & (np.cumsum(equal, axis=1) <= missing)), 1, 2)
    found = np.moveaxis(np.nonzero(taken)[2].reshape(*taken.shape[:2], k), 2, 1)
    order = np.argsort(-np.take_along_axis(x, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def top_k_logprobs(
    logits: ArrayLike,
    k: int,
    axis: int = -1,
    *,
    temperature: ArrayLike = 1.0,
    num_threads: int | None = None,
) -> tuple[Any, Any]:
    """Find the `k` most probable classes of every row, and their log-probabilities.

    Parameters
    ----------
    logits : array_like
        Scores of any shape; the classes are along `axis`.
    k : int
        How many classes, from 0 to C.
    axis : int, default -1
        The axis of the classes.
    temperature : float or array_like, default 1.0
        Log-probabilities of ``logits / temperature``: one number, or one for each row.
    num_threads : int, optional
        The most threads to use. The results do not depend on it.

    Returns
    -------
    values : ndarray
        Log-probabilities in descending order, of the shape of `logits` with `k` along `axis`: of
        the dtype of `logits`, float32 for float16 and bfloat16, float64 for integers.
    indices : ndarray of intp
        Their classes, in that shape. Of equal logits the lower index comes first.

    Raises
    ------
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    logprobs : of classes that are known.
    hardmax : the first maximum, as an indicator.

    Notes
    -----
    Logits are compared with the worst of the best so far; few are better. Nothing of the size of
    the logits is made. Values are good to 3 ulp. A row with NaN or +inf, and a row of nothing but
    -inf, gives NaN and the indices from 0 to k - 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import top_k_logprobs
    >>> values, indices = top_k_logprobs(np.log([0.1, 0.6, 0.1, 0.2]), 3)
    >>> indices
    array([1, 3, 0])
    >>> np.exp(values).round(4)
    array([0.6, 0.2, 0.1])
    """
    rows = _inputs.as_rows(logits, "logits", axis)
    shape = rows.of_length(_as_count(k, rows))
    temperatures, extreme = _parameters.as_row_temperatures(rows, temperature)
    values = ShapedOutput(None, _losses.loss_dtype(rows.x), shape, shape)
    indices = ShapedOutput(None, INTP, shape, shape)
    run, threads, views = prepare(
        top_k_logprobs_rows,
        rows.axes,
        rows.x,
        (_parameters.per_row_temperatures(temperatures),),
        (values, indices),
        num_threads,
        extreme,
        any_length=True,
    )
    for x, into, places, row in views:
        run(x, into, places, temperatures if row is None else row[:, 0], threads)
    return values.result, indices.result  # which are no scalars


def _as_count(k: Any, rows: Rows) -> int:
    try:
        count = operator.index(k)
    except TypeError:
        raise TypeError(f"k must be an integer, got {k!r}") from None
    if not 0 <= count <= rows.classes:  # asked now: code of k's own has run
        raise ValueError(f"k must be from 0 to the number of classes, {rows.classes}; got {k!r}")
    return count
