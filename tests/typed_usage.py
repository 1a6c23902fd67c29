"""A user's script, for ``mypy --strict``: what must be accepted, and (``type: ignore``) what must
not.

An unused ``type: ignore`` is an error, so each of them states that the line is wrong;
``assert_type`` states the exact type of a result.
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import fastsoftmax as fs

f16: NDArray[np.float16] = np.zeros((4, 3), dtype=np.float16)
f32: NDArray[np.float32] = np.zeros((4, 3), dtype=np.float32)
f64: NDArray[np.float64] = np.zeros((4, 3))
wide: NDArray[np.longdouble] = np.zeros((4, 3), dtype=np.longdouble)
scores: NDArray[np.int64] = np.arange(12).reshape(4, 3)
mask: NDArray[np.bool_] = f32 > 0
nested: list[list[float]] = [[0.5, 1.0, 2.0]]
matrix = np.zeros((4, 3), dtype=np.float32)  # its shape is part of its type


class Tensor:
    """An array of another library."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return f32.__dlpack__()


# --- the result has the dtype of the input, and float64 for what is not floating point ---

assert_type(fs.softmax(f16), NDArray[np.float16])
assert_type(fs.softmax(f32, 0, temperature=nested, where=mask, num_threads=2), NDArray[np.float32])
assert_type(fs.softmax(f64, axis=(0, 1), temperature=f64, base=2), NDArray[np.float64])
assert_type(fs.softmax(wide, axis=None), NDArray[np.longdouble])
assert_type(fs.softmax(matrix), NDArray[np.float32])
assert_type(fs.softmax(scores), NDArray[np.float64])
assert_type(fs.softmax(mask), NDArray[np.float64])
assert_type(fs.softmax(nested), NDArray[np.float64])
assert_type(fs.softmax([[1, 2], [3, 4]]), NDArray[np.float64])
assert_type(fs.log_softmax(f32, axis=0, base=2.0), NDArray[np.float32])
assert_type(fs.softmin(x=f32, axis=0), NDArray[np.float32])
p: NDArray[np.float32] = fs.softmax(f32)

# --- out= and dtype= decide ---

assert_type(fs.softmax(nested, out=f32), NDArray[np.float32])
assert_type(fs.softmax(f64, out=f32, dtype=np.float32), NDArray[np.float32])
assert_type(fs.softmax(f16, dtype=np.float64), NDArray[np.float64])
assert_type(fs.log_softmax(scores, dtype=np.dtype(np.float16)), NDArray[np.float16])
assert_type(fs.logsumexp(f32, dtype=np.float64), NDArray[np.float64])
assert_type(fs.logsumexp(f32, None, dtype=np.float64), np.float64)
assert_type(fs.sigmoid(nested, dtype=np.float32), NDArray[np.float32])
assert_type(fs.logit(f64, out=f64), NDArray[np.float64])

# --- reductions: one number without an axis left; float32 for float16 ---

assert_type(fs.logsumexp(f32), NDArray[np.float32])
assert_type(fs.logsumexp(f64, axis=(0, 1), keepdims=True), NDArray[np.float64])
assert_type(fs.logsumexp(f16, axis=0, b=f64, where=mask, base=2), NDArray[np.float32])
assert_type(fs.logsumexp(scores), NDArray[np.float64])
assert_type(fs.logsumexp(f32, axis=None), np.float32)
assert_type(fs.logsumexp(f16, None), np.float32)
assert_type(fs.logsumexp(nested, None), np.float64)
total: NDArray[np.float32] = fs.logsumexp(f32, axis=None, b=f32, keepdims=True)

# --- element by element: scalars, too ---

assert_type(fs.sigmoid(f32, num_threads=2), NDArray[np.float32])
assert_type(fs.sigmoid(scores), NDArray[np.float64])
assert_type(fs.sigmoid(0.0), np.float64)
assert_type(fs.sigmoid(np.float32(1)), np.float32)
assert_type(fs.log_sigmoid(f16), NDArray[np.float16])
assert_type(fs.softplus(2), np.float64)
assert_type(fs.logit(p=f32), NDArray[np.float32])
assert_type(fs.logit(0.5), np.float64)
number = float(fs.sigmoid(0.0))

# --- gradients ---

assert_type(fs.softmax_vjp(f32, p, 0, temperature=2.0), NDArray[np.float32])
assert_type(fs.softmax_vjp(f32, p, out=p), NDArray[np.float32])
assert_type(fs.log_softmax_vjp(g=f64, y=f64, axis=None, num_threads=1), NDArray[np.float64])
assert_type(fs.logsumexp_vjp(1.0, f32, None), NDArray[np.float32])
assert_type(fs.logsumexp_vjp(g=f32, x=f16), NDArray[np.float16])
assert_type(fs.square_normalize(f32, 0, where=mask), NDArray[np.float32])
assert_type(fs.square_normalize(scores, dtype=np.float16), NDArray[np.float16])
assert_type(fs.square_normalize(x=scores, out=f64), NDArray[np.float64])
assert_type(fs.square_normalize_vjp(g=f32, x=f32, axis=None), NDArray[np.float32])
assert_type(fs.square_normalize_vjp(scores, f64), NDArray[np.float64])
assert_type(fs.sigmoid_vjp(g=f32, y=f32), NDArray[np.float32])
assert_type(fs.log_sigmoid_vjp(g=f32, x=f32, out=f32), NDArray[np.float32])
assert_type(fs.softplus_vjp(scores, f64), NDArray[np.float64])
assert_type(fs.softmax_vjp(f16, f16), NDArray[np.float16])

# --- types that only the run can tell: no promise, and no complaint ---

anything: np.float32 = fs.softmax(f32, dtype="float32")
tensor: NDArray[np.float32] = fs.softmax(Tensor())
mixed: NDArray[np.float64] = fs.sigmoid_vjp(f32, 1.0)

# --- settings ---

threads: int = fs.get_num_threads()
fs.set_num_threads(np.int64(2))
backend: AbstractContextManager[None] = fs.use_backend("numpy")
config: dict[str, Any] = fs.config()
with backend:
    fs.show_config()

# --- mistakes ---

fs.softmax()  # type: ignore[call-overload]
fs.softmax(f32, axis="rows")  # type: ignore[call-overload]
fs.softmax(f32, 0, 2.0)  # type: ignore[call-overload]
fs.softmax(f32, out=[0.0])  # type: ignore[call-overload]
fs.softmax(f32, keepdims=True)  # type: ignore[call-overload]
fs.sigmoid(f32, axis=0)  # type: ignore[call-overload]
fs.sigmoid_vjp(f32)  # type: ignore[call-overload]
fs.sigmoid_vjp(f32, x=f32)  # type: ignore[call-overload]
fs.logsumexp(f32, keepdims="yes")  # type: ignore[call-overload]
fs.set_num_threads("2")  # type: ignore[arg-type]
fs.use_backend(2)  # type: ignore[arg-type]
wrong: NDArray[np.float32]
wrong = fs.softmax(f64)  # type: ignore[assignment]
wrong = fs.log_softmax(scores, axis=0)  # type: ignore[assignment]
wrong = fs.logsumexp(f64)  # type: ignore[assignment]
wrong = fs.logsumexp(f32, axis=None)  # type: ignore[assignment]
wrong = fs.sigmoid(f64)  # type: ignore[assignment]
wrong = fs.logit(nested)  # type: ignore[assignment]
wrong = fs.softmax_vjp(f64, f64)  # type: ignore[assignment]
wrong = fs.logsumexp_vjp(f32, f64)  # type: ignore[assignment]
wrong = fs.sigmoid_vjp(f64, f64)  # type: ignore[assignment]
wrong = fs.softplus_vjp(f64, f64)  # type: ignore[assignment]
