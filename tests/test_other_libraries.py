"""Arrays of other libraries: what `np.asarray` takes is taken, signs and masks are minded, refusals
help.

PyTorch is tried itself, where it is installed; classes that do as JAX, PyArrow, pandas and polars
do stand for these. (All of it was tried with jax 0.10, pyarrow 26, pandas 3.1, polars 2.1 and
xarray 2026.9.)
"""

import array
import ctypes
import importlib.util
import sys

import numpy as np
import pytest
from arrays import Exporter, refuses

import fastsoftmax as fs
from fastsoftmax import _inputs

X = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
LABELS = np.array([2, 0])
EXPECTED = fs.softmax(X)

# Every way in: the name of the parameter, and a call that gives it an array of the shape of X.
WAYS_IN = {
    "x": fs.softmax,
    "p": fs.logit,
    "g": lambda a: fs.sigmoid_vjp(a, X),
    "y": lambda a: fs.sigmoid_vjp(X, a),
    "b": lambda a: fs.logsumexp(X, b=a),
    "temperature": lambda a: fs.softmax(X, temperature=a),
    "logits": lambda a: fs.cross_entropy(a, LABELS),
    "targets": lambda a: fs.binary_cross_entropy(X, a),
    "weight": lambda a: fs.binary_cross_entropy(X, X, weight=a),
    "pos_weight": lambda a: fs.binary_cross_entropy_with_logits(X, X, pos_weight=a),
    "sample_weight": lambda a: fs.binary_cross_entropy_with_logits_grad_hess(X, X, sample_weight=a),
    "log_q": lambda a: fs.kl_divergence(a, X),
    "target_logits": lambda a: fs.kl_divergence_from_logits(X, a),
}
EVERY_WAY_IN = pytest.mark.parametrize("name", WAYS_IN)


class ArrayLike:
    """An object with ``__array__``, and nothing else."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.a, Exception):
            raise self.a
        return self.a


class Refusing(ArrayLike):
    """One that DLPack is refused of, as JAX and PyArrow have it."""

    def __init__(self, a, error):
        super().__init__(a)
        self.error, self.asked = error, 0

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **options):
        self.asked += 1
        raise self.error


class ArrowTypeError(TypeError):
    pass


class OldExporter(Exporter):
    """DLPack before it knew versions."""

    def __dlpack__(self, stream=None):
        return super().__dlpack__(stream=stream)


REFUSALS = [
    BufferError("more than one device"),
    RuntimeError("UNIMPLEMENTED: no DLPack equivalent"),
    ValueError("to_dlpack can only pack an array on a singular device"),
    ArrowTypeError("Can only use DLPack on arrays with no nulls"),
    NotImplementedError("bfloat16"),
]


# --- DLPack, or __array__ where that is refused ---------------------------------------------------


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_array_is_used_where_dlpack_is_refused(error):
    """Of sharded arrays, booleans and nulls, and it is asked for once:
    PyArrow warns at a second time.
    """
    refusing = Refusing(X, error)
    np.testing.assert_array_equal(fs.softmax(refusing), EXPECTED)
    assert refusing.asked == 1
    expected = fs.binary_cross_entropy(abs(X) / 2, X > 0)
    np.testing.assert_array_equal(
        fs.binary_cross_entropy(abs(X) / 2, Refusing(X > 0, error)), expected
    )
    np.testing.assert_array_equal(
        fs.cross_entropy(X, Refusing(LABELS, error)), fs.cross_entropy(X, LABELS)
    )
    np.testing.assert_array_equal(
        fs.softmax(X, where=Refusing(X > -1, error)), fs.softmax(X, where=X > -1)
    )
    assert np.isnan(fs.logsumexp(Refusing(np.array([1.0, np.nan]), error)))  # a null


def test_bfloat16_is_used_where_dlpack_is_refused():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    got = fs.softmax(Refusing(X.astype(bfloat16), BufferError("Unsupported dtype in DLTensor.")))
    assert got.dtype == bfloat16
    np.testing.assert_array_equal(got, fs.softmax(X.astype(bfloat16)))


def test_dlpack_of_any_age_is_used_first():
    for kind in (Exporter, OldExporter):
        exporter = kind(X.copy())
        np.testing.assert_array_equal(fs.softmax(exporter), EXPECTED)
        assert np.shares_memory(_inputs.as_array(exporter, "x"), exporter.array)


@EVERY_WAY_IN
def test_what_refuses_both(name):
    """Both reasons are told by the library, in a TypeError that names the argument."""
    both = Refusing(RuntimeError("Array has been deleted"), BufferError("none"))
    refuses(lambda: WAYS_IN[name](both), TypeError, name, "Array has been deleted", "Refusing")
    refuses(
        lambda: WAYS_IN[name](Exporter(X, device=(2, 0))), TypeError, name, "another device", "CPU"
    )
    refuses(
        lambda: WAYS_IN[name](ArrayLike(RuntimeError("use key_data"))),
        TypeError,
        name,
        "use key_data",
    )
    refuses(lambda: WAYS_IN[name](ArrayLike(ValueError("ragged"))), ValueError, name, "ragged")


def test_memory_shortage_is_no_wrong_type():
    for short in (ArrayLike(MemoryError()), Refusing(X, MemoryError())):
        with pytest.raises(MemoryError):
            fs.softmax(short)


# --- masks ----------------------------------------------------------------------------------------


@EVERY_WAY_IN
def test_masks_that_would_be_ignored(name):
    """A masked array is refused, and so is what turns out to be one."""
    masked = np.ma.array(X, mask=X > 1)
    for given in (
        masked,
        ArrayLike(masked),
        Refusing(masked, BufferError("none")),
        [masked[0], masked[1]],
    ):
        refuses(lambda given=given: WAYS_IN[name](given), TypeError, name, "masked", "where=~mask")
    matrix = np.ones((2, 3)).view(np.matrix)
    refuses(
        lambda: WAYS_IN[name](ArrayLike(matrix)), TypeError, name, "matrix", f"np.asarray({name})"
    )


def test_masks_that_mask_nothing():
    bare = np.ma.array(X)
    for given in (
        bare,
        ArrayLike(bare),
        [bare[0], bare[1]],
        np.ma.array(X, mask=np.zeros(X.shape, bool)),
    ):
        np.testing.assert_array_equal(fs.softmax(given), EXPECTED)


# --- objects --------------------------------------------------------------------------------------


class Frame(ArrayLike):
    """A frame of pandas with nullable columns."""

    def to_numpy(self, dtype=object, na_value=None):
        missing = self.a == None  # noqa: E711 (element by element)
        return np.where(missing, na_value, self.a).astype(dtype)


Frame.__module__ = "pandas.core.frame"


@EVERY_WAY_IN
def test_nullable_frames(name):
    """The advice is pandas' own, and it works."""
    frame = Frame(np.array([[0.5, None], [0.25, 0.75]], object))
    advice = f"{name}.to_numpy(dtype=float, na_value=np.nan)"
    refuses(lambda: WAYS_IN[name](frame), TypeError, "dtype object", advice)
    numbers = eval(advice, {name: frame, "np": np})
    np.testing.assert_array_equal(numbers, [[0.5, np.nan], [0.25, 0.75]])


def test_nullable_labels_and_masks():
    labels, mask = (
        Frame(np.array([2, 0], object)),
        Frame(np.array([[True, None, True]] * 2, object)),
    )
    refuses(lambda: fs.cross_entropy(X, labels), TypeError, "object", "targets.to_numpy(dtype=int)")
    refuses(lambda: fs.logprobs(X, labels), TypeError, "ids.to_numpy(dtype=int)")
    refuses(lambda: fs.fit_temperature(X, labels), TypeError, "labels.to_numpy(dtype=int)")
    refuses(
        lambda: fs.softmax(X, where=mask), TypeError, "where.to_numpy(dtype=bool, na_value=False)"
    )
    assert fs.logprobs(X, labels.to_numpy(dtype=int)).shape == (2,)
    assert fs.softmax(X, where=mask.to_numpy(dtype=bool, na_value=False))[0, 1] == 0


def test_other_objects():
    objects = np.array([[1.0, None]], object)
    refuses(lambda: fs.softmax(objects), TypeError, "x.astype(float)")
    refuses(lambda: fs.softmax([[1.0, None]]), TypeError, "np.asarray(x, float)")
    refuses(lambda: fs.softmax(ArrayLike(objects)), TypeError, "np.asarray(x, float)")
    assert np.isnan(fs.logsumexp(np.asarray([[1.0, None]], float))[0])


def test_buffers():
    """Of the standard library."""
    numbers = [0.0, 1.0, 3.0]
    for given in (
        array.array("d", numbers),
        memoryview(array.array("d", numbers)),
        memoryview(np.array([numbers])[:, ::-1])[:],
        (ctypes.c_double * 3)(*numbers),
        range(3),
    ):
        np.testing.assert_array_equal(fs.softmax(given), fs.softmax(np.asarray(given, float)))


# --- PyTorch --------------------------------------------------------------------------------------

if importlib.util.find_spec("torch"):
    import torch

    T = torch.from_numpy(X.copy())

    def test_lazy_signs():
        """A view with the negative bit set lies in memory with the other sign."""
        z = torch.complex(T, T)
        expected = fs.softmax(-X)
        for negative in (z.conj().imag, torch._neg_view(T), torch._neg_view(T.T).T):
            assert negative.is_neg()
            np.testing.assert_array_equal(fs.softmax(negative), expected)
            np.testing.assert_array_equal(
                fs.cross_entropy(negative, LABELS), fs.cross_entropy(-X, LABELS)
            )
            target = fs.binary_cross_entropy_with_logits(X, negative)
            np.testing.assert_array_equal(target, fs.binary_cross_entropy_with_logits(X, -X))
        np.testing.assert_array_equal(fs.softmax(z.conj().real), EXPECTED)
        refuses(lambda: fs.softmax(z.conj()), TypeError, "x", "complex64")
        refuses(lambda: fs.softmax([z.conj().imag[0], T[0]]), TypeError, "x", "resolve_neg()")

    @EVERY_WAY_IN
    def test_lazy_signs_everywhere(name):
        half = torch.full((2, 3), 0.5)
        if name == "temperature":  # one for each row
            half = half[:, :1]
        got = WAYS_IN[name](torch._neg_view(-half))
        for a, b in zip(
            np.atleast_1d(got), np.atleast_1d(WAYS_IN[name](half.numpy())), strict=True
        ):
            np.testing.assert_array_equal(a, b)

    def test_bfloat16_without_a_copy():
        bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
        for tensor in (T.bfloat16(), T.bfloat16().T, T.bfloat16()[:, ::2], T.bfloat16()[0, 1]):
            a = _inputs.as_array(tensor, "x")
            assert a.dtype == bfloat16
            assert a.ctypes.data == tensor.data_ptr()
            np.testing.assert_array_equal(a.astype(np.float32), tensor.float().numpy())
        got = fs.softmax(T.bfloat16())
        np.testing.assert_array_equal(got, fs.softmax(X.astype(bfloat16)))
        negative = torch._neg_view(T.bfloat16())
        np.testing.assert_array_equal(fs.softmax(negative), fs.softmax((-X).astype(bfloat16)))

    def test_bfloat16_without_its_package(monkeypatch):
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        refuses(lambda: fs.softmax(T.bfloat16()), TypeError, "pass x.float()")
        parameter = T.bfloat16().requires_grad_()
        refuses(lambda: fs.softmax(parameter), TypeError, "pass x.detach().float()")

    def refused_tensors():
        """What cannot be read as it is, with the steps that help."""
        yield T.clone().requires_grad_(), ".detach()"
        yield torch.nn.Parameter(T.clone()), ".detach()"
        yield T.bfloat16().requires_grad_(), ".detach()"
        yield T.to_sparse(), ".to_dense()"
        yield T.to_sparse().requires_grad_(), ".detach().to_dense()"
        yield T.to(torch.float8_e4m3fn), ".float()"

    @EVERY_WAY_IN
    def test_steps_out_of_torch(name):
        """The advice leads to a tensor that is taken."""
        for tensor, steps in refused_tensors():
            refuses(lambda tensor=tensor: WAYS_IN[name](tensor), TypeError, f"pass {name}{steps}")
            _inputs.as_array(eval(name + steps, {name: tensor}), name)

    def test_tensors_without_numbers():
        refuses(lambda: fs.softmax(T.to("meta")), TypeError, "x", "meta")
        refuses(lambda: fs.softmax(X, out=T.clone()), TypeError, "out.numpy()")

    def test_steps_in_the_words_of_torch():
        refuses(lambda: fs.softmax(X, where=torch.ones(2, 3)), TypeError, "pass where.bool()")
        refuses(
            lambda: fs.cross_entropy(X, torch.tensor([2.0, 0.0])), ValueError, "pass targets.long()"
        )
        one_hot = torch.eye(3, dtype=torch.int64)[[2, 0]]
        refuses(
            lambda: fs.cross_entropy(X, one_hot),
            ValueError,
            "targets.double()",
            "targets.argmax(1)",
        )
        expected = fs.cross_entropy(X, LABELS)
        np.testing.assert_allclose(fs.cross_entropy(X, one_hot.double()), expected, rtol=1e-6)
        np.testing.assert_allclose(fs.cross_entropy(X, one_hot.argmax(1)), expected, rtol=1e-6)
