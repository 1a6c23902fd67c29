"""Where large results come from.

The operating system hands out memory one zeroed page after the other, as it is first touched, and
NumPy gives large arrays back as soon as they are freed: a program that calls ``softmax(x)`` over
and over pays for all pages each time, more than for the softmax itself (64 MiB: 2.0 to 2.3 times
the time of ``out=``). So the memory of freed large results is kept for the next ones of about that
size, up to a limit.
"""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from . import _backend, _threads

SMALLEST = 4 << 20  # bytes; below, the allocator of the C library keeps memory by itself
DEFAULT_LIMIT = 128 << 20

_pool: Any = _backend.optional_module("_pool")  # None without a compiler
_limit = 0


def set_buffer_pool(nbytes: SupportsIndex) -> None:
    """Set how many bytes of freed results are kept for the next ones.

    Parameters
    ----------
    nbytes : int
        The most that is kept, for the whole process: at least 0, which switches the pool off and
        returns its memory. 128 MiB unless set.

    Raises
    ------
    TypeError, ValueError
        If `nbytes` is not an integer of at least 0.

    See Also
    --------
    set_num_threads

    Notes
    -----
    Results of at least 4 MiB and at most `nbytes` that a call allocates itself (no ``out=``) live
    in the pool's memory. It returns there when the last array that views it is gone, never before,
    and is given to a later result of about the same size, which then costs no page faults; where
    `nbytes` would be exceeded, what has been kept longest is freed. Such an array does not own its
    data (``a.flags.owndata`` is false), and :mod:`tracemalloc` does not see it. Without compiled
    modules there is no pool.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.set_buffer_pool(0)  # never keep memory
    >>> fastsoftmax.set_buffer_pool(128 * 2**20)
    """
    global _limit
    _limit = _threads.checked(nbytes, "nbytes", least=0, most=2**62)
    if _pool is not None:
        _pool.set_limit(_limit)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A new C-contiguous array of native byte order, not initialised."""
    nbytes = math.prod(shape) * dtype.itemsize
    if _pool is None or not SMALLEST <= nbytes <= _limit:
        return np.empty(shape, dtype)
    array: NDArray[Any] = _pool.empty(shape, dtype, nbytes)
    return array


set_buffer_pool(DEFAULT_LIMIT)
