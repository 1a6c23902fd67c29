"""A user's script, for ``mypy --strict``: what must be accepted, and (``type: ignore``) what must not.

An unused ``type: ignore`` is an error, so each of them states that the line is wrong.
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastsoftmax as fs

x: NDArray[np.float32] = np.zeros((4, 3), dtype=np.float32)
mask: NDArray[np.bool_] = x > 0

p: NDArray[np.float32] = fs.softmax(x)
q: NDArray[np.float32] = fs.log_softmax(x, axis=0, temperature=[[0.5, 1.0, 2.0]], where=mask, out=x)
r: NDArray[np.float64] = fs.softmax([[1, 2], [3, 4]], axis=(0, 1), base=2.0, dtype=np.float64, num_threads=2)
total: NDArray[np.float32] = fs.logsumexp(x, axis=None, b=x, keepdims=True)
s: NDArray[np.float32] = fs.sigmoid(x, out=x)
gradient: NDArray[np.float32] = fs.softmax_vjp(x, p, temperature=2.0)
number: float = float(fs.sigmoid(0.0))

threads: int = fs.get_num_threads()
fs.set_num_threads(np.int64(2))
backend: AbstractContextManager[None] = fs.use_backend("numpy")
config: dict[str, Any] = fs.config()
with backend:
    fs.show_config()

fs.softmax()  # type: ignore[call-arg]
fs.softmax(x, axis="rows")  # type: ignore[arg-type]
fs.softmax(x, 0, 2.0)  # type: ignore[call-arg]
fs.softmax(x, out=[0.0])  # type: ignore[arg-type]
fs.sigmoid(x, axis=0)  # type: ignore[call-arg]
fs.logsumexp(x, keepdims="yes")  # type: ignore[arg-type]
fs.set_num_threads("2")  # type: ignore[arg-type]
fs.use_backend(2)  # type: ignore[arg-type]
