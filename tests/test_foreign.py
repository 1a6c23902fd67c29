"""Numbers that kernels convert as they read:
integers, booleans, foreign byte order, misaligned memory.
"""

import ml_dtypes
import numpy as np
import pytest
from sizes import exhaustive

import fastsoftmax as fs

SHAPES = [(7, 3), pytest.param((9, 30), marks=exhaustive), (3, 300)]
INTEGERS = "bBhHiIlLqQ"


def misaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    moved = memory[1:].view(a.dtype).reshape(a.shape)
    moved[...] = a
    return moved


def foreign(shape):
    """Names, arrays, and what their numbers are."""
    rng = np.random.default_rng(3)
    for kind in INTEGERS:
        dtype = np.dtype(kind)
        a = rng.integers(0 if dtype.kind == "u" else -20, 30, shape).astype(dtype)
        for name, given in [
            ("", a),
            ("swapped ", a.astype(dtype.newbyteorder())),
            ("misaligned ", misaligned(a)),
        ]:
            yield name + dtype.name, given, a.astype(np.float64)
    a = rng.integers(0, 3, shape).astype(np.uint8)
    yield "bool", a.view(bool), (a > 0).astype(np.float64)
    for dtype in map(np.dtype, (np.float16, np.float32, np.float64, np.longdouble)):
        a = (rng.integers(-300, 300, shape) / 64).astype(dtype)
        yield f"swapped {dtype}", a.astype(dtype.newbyteorder()), a
        yield f"misaligned {dtype}", misaligned(a), a
    a = rng.normal(0, 3, shape).astype(np.float32).astype(ml_dtypes.bfloat16)
    yield "misaligned bfloat16", misaligned(a), a


def labels(x):
    return np.arange(len(x)) % x.shape[1]


def ramp(x):
    return np.linspace(-3, 3, x.size, dtype=np.float32).reshape(x.shape)


ROWS = [fs.softmax, fs.log_softmax, fs.logsumexp, fs.softmin, fs.hardmax, fs.square_normalize]
CALLS = (
    {
        f"{f.__name__}, axis {axis}": lambda x, f=f, axis=axis: f(x, axis)
        for f in ROWS
        for axis in (0, 1, None)
    }
    | {f"{f.__name__} of columns": lambda x, f=f: f(x.T) for f in ROWS}
    | {f"{f.__name__} to float32": lambda x, f=f: f(x, dtype=np.float32) for f in ROWS}
    | {f.__name__: f for f in (fs.sigmoid, fs.log_sigmoid, fs.softplus, fs.logit)}
    | {
        "every second": lambda x: fs.sigmoid(x[:, ::2]),
        "temperature": lambda x: fs.softmax(x, temperature=0.7),
        "base": lambda x: fs.log_softmax(x, base=2),
        "where": lambda x: fs.softmax(x, where=np.arange(x.shape[1]) % 3 != 1),
        "weighted": lambda x: fs.logsumexp(x, b=np.full(x.shape[1], 0.3)),
        "weights": lambda x: fs.logsumexp(ramp(x), b=x),
        "weights of one": lambda x: fs.logsumexp(np.float32(0), axis=0, b=x),
        "logsumexp_vjp": lambda x: fs.logsumexp_vjp(np.ones(len(x)), x),
        "label": lambda x: fs.cross_entropy_value_and_grad(x, labels(x)),
        "labels of columns": lambda x: fs.cross_entropy(x.T, labels(x), axis=0, reduction="none"),
        "options": lambda x: fs.cross_entropy(
            x, labels(x), label_smoothing=0.1, temperature=0.5, z_loss=0.1
        ),
        "sample weight": lambda x: fs.cross_entropy(
            ramp(x), labels(x), sample_weight=x[:, 0], reduction="none"
        ),
        "nll_loss": lambda x: fs.nll_loss_value_and_grad(x, labels(x)),
        "grad_hess": lambda x: fs.cross_entropy_grad_hess(x, labels(x)),
        "binary": lambda x: fs.binary_cross_entropy_with_logits_value_and_grad(x, abs(ramp(x)) / 4),
        "binary targets": lambda x: fs.binary_cross_entropy_with_logits(
            ramp(x), x, reduction="none"
        ),
        "binary weights": lambda x: fs.binary_cross_entropy_with_logits(
            ramp(x), ramp(x), weight=x, reduction="none"
        ),
        "binary probabilities": lambda x: fs.binary_cross_entropy(x, abs(ramp(x)) / 4),
        "binary grad_hess": lambda x: fs.binary_cross_entropy_with_logits_grad_hess(
            x, abs(ramp(x)) / 4
        ),
        "kl_divergence": lambda x: fs.kl_divergence_value_and_grad(x, abs(ramp(x))),
        "kl_divergence of logits": lambda x: fs.kl_divergence_from_logits_value_and_grad(
            x, ramp(x)
        ),
        "kl_divergence to logits": lambda x: fs.kl_divergence_from_logits_value_and_grad(
            ramp(x), x
        ),
        "logprobs": lambda x: fs.logprobs(x, labels(x)),
        "top_k_logprobs": lambda x: fs.top_k_logprobs(x, 2),
    }
    | {
        f"{f.__name__} of g": lambda x, f=f: f(x, ramp(x))
        for f in (fs.softmax_vjp, fs.log_softmax_vjp)
    }
    | {
        f"{f.__name__} of y": lambda x, f=f: f(ramp(x), x)
        for f in (fs.softmax_vjp, fs.square_normalize_vjp, fs.sigmoid_vjp, fs.softplus_vjp)
    }
)


def parts(result):
    return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_they_are_taken_for_their_values(name, shape, backend):
    """As after a conversion to native, aligned floats;
    integers become float64 before any arithmetic.
    """
    for kind, given, numbers in foreign(shape):
        for got, expected in zip(
            parts(CALLS[name](given)), parts(CALLS[name](numbers)), strict=True
        ):
            assert got.dtype == expected.dtype, kind
            if got.dtype == ml_dtypes.bfloat16:
                got, expected = got.astype(np.float32), expected.astype(np.float32)
            eps = 8 * np.finfo(got.dtype).eps if got.dtype.kind == "f" else 0
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(got, expected, rtol=eps, atol=eps, err_msg=kind)


def test_temperature_fits_alike(backend):
    for kind, given, numbers in foreign((9, 30)):
        got, expected = (fs.fit_temperature(x, labels(x)) for x in (given, numbers))
        assert got == pytest.approx(expected, rel=1e-5), kind
