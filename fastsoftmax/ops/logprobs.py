"""Log-probabilities of some classes only."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _inputs, _losses, _parameters, _targets
from .._backend import kernel
from .._call import prepare
from .._outputs import ShapedOutput
from .._reference import Array, blockwise
from .._signatures import ArrayLike
from .log_softmax import log_probabilities


@kernel
@blockwise
def logprobs_rows(x: Array, ids: Array, out: Array, temperature: Array, num_threads: int) -> None:
    """log_softmax(x / temperature) at the indices `ids`, over the middle axis."""
    out[...] = np.take_along_axis(
        log_probabilities(x, out, temperature), ids.astype(np.intp), axis=1
    )


def logprobs(
    logits: ArrayLike,
    ids: ArrayLike,
    axis: int = -1,
    *,
    temperature: ArrayLike = 1.0,
    num_threads: int | None = None,
) -> Any:
    """Look up log-probabilities of classes: ``log_softmax(logits)`` at `ids`, and no others.

    Parameters
    ----------
    logits : array_like
        Scores of any shape; the classes are along `axis`.
    ids : array_like of int
        Classes, from 0 to C - 1: one for each row, in the shape of `logits` without `axis`; or
        several, in the shape of `logits` but for the length of `axis`, which is free.
    axis : int, default -1
        The axis of the classes.
    temperature : float or array_like, default 1.0
        Log-probabilities of ``logits / temperature``: one number, or one for each row.
    num_threads : int, optional
        The most threads to use. The result does not depend on it.

    Returns
    -------
    ndarray or scalar
        One value for each of `ids`, in their shape: of the dtype of `logits`, float32 for float16
        and bfloat16, float64 for integers.

    Raises
    ------
    IndexError
        If one of `ids` is no class; the message names the first such place.
    TypeError, ValueError
        If an argument is of a wrong type, shape or value; the message names it.
        ``numpy.exceptions.AxisError`` if there is no such axis.

    See Also
    --------
    top_k_logprobs : of the most probable classes.
    log_softmax : of all classes.
    cross_entropy : minus these, reduced, and with weights.

    Notes
    -----
    The logits are read where they are, whatever their strides, and nothing of their size is made
    besides the result. Values are good to 3 ulp, as those of `log_softmax`. A row with NaN or +inf,
    and a row of nothing but -inf, gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import logprobs
    >>> logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    >>> np.exp(logprobs(logits, [0, 2])).round(4)
    array([0.5, 0.8])
    >>> np.exp(logprobs(logits, [[0, 1], [1, 2]])).round(4)
    array([[0.5 , 0.25],
           [0.1 , 0.8 ]])
    """
    rows = _inputs.as_rows(logits, "logits", axis)
    given = _inputs.as_plain_array(ids, "ids")
    several = given.ndim == rows.x.ndim
    shape = rows.of_length(given.shape[rows.axis]) if several else rows.shape
    found = _targets.as_labels(given if given.size else ids, "ids", shape, rows.classes, passed=ids)
    temperatures, extreme = _parameters.as_row_temperatures(rows, temperature)
    at = found if several else rows.per_row(found)
    output = ShapedOutput(None, _losses.loss_dtype(rows.x), shape, at.shape)
    others = (at, _parameters.per_row_temperatures(temperatures))
    run, threads, views = prepare(
        logprobs_rows, rows.axes, rows.x, others, (output,), num_threads, extreme, any_length=True
    )
    for x, into, i, row in views:
        run(x, i, into, temperatures if row is None else row[:, 0], threads)
    return output.deliver()
