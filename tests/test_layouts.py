"""Elementwise functions on arrays of any axes, strides and dtypes:
the same as on contiguous copies.
"""

import itertools
import sys

import numpy as np
import pytest
from cases import ELEMENTWISE
from losses import OF_ELEMENTS

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

# One run, short and long; runs that are taken together, and that are not; tiles; many axes.
SHAPES = [
    (1,),
    (5000,),
    (20, 700),
    (700, 20),
    (90, 75),
    (900, 2, 2),
    (3, 17000),
    (35, 1, 40, 3),
    (2, 3, 2, 3, 2, 3, 2),
    (2,) * 11,
]
KINDS = [
    "float16",
    "float32",
    "float64",
    "int8",
    "uint32",
    "bool",
    "misaligned",
    "byte-swapped",
    "longdouble",
]


def laid_out(values, rng, broadcast=False):
    """The values in a view drawn at random, cropped, stepped, reversed and transposed, and all of
    its memory.

    If `broadcast` is true, some axes get stride 0, and the values those at their beginning.
    """
    axes = values.ndim
    # no more than three, for memory's sake
    order, cut = rng.permutation(axes), rng.permutation(axes) < 3
    begin = np.where(cut, rng.integers(0, 3, axes), 0)
    step = np.where(cut & (rng.random(axes) < 0.5), rng.integers(2, 4, axes), 1)
    end = begin + step * values.shape
    memory = np.zeros((end + np.where(cut, 2, 0))[order], values.dtype)
    view = memory.transpose(np.argsort(order))[tuple(map(slice, begin, end, step))]
    view = view[tuple(slice(None, None, rng.choice([1, 1, -1])) for _ in values.shape)]
    view[...] = values
    if broadcast:
        kept = tuple(slice(0, 1) if rng.random() < 0.4 else slice(None) for _ in values.shape)
        view = np.broadcast_to(view[kept], values.shape)
    return view, memory


@np.errstate(under="ignore")
def numbers(shape, kind, rng, probabilities=False):
    """Numbers of a kind, of which some have tails, or from 0 to 1."""
    values = (
        rng.random(shape)
        if probabilities
        else rng.normal(0, 3, shape) * 10 ** rng.integers(0, 3, shape)
    )
    if kind == "misaligned":
        buffer = np.zeros(values.nbytes + 1, np.uint8)[1:].view(np.float64).reshape(shape)
        buffer[...] = values
        return buffer
    if kind == "byte-swapped":
        return values.astype(np.dtype(np.float32).newbyteorder("S"))
    if np.dtype(kind).kind in "iub":
        values = values.round() if probabilities else values.clip(0, 100)
    return values.astype(kind)


def contiguous(a):
    """A copy, native and in C order."""
    return None if a is None else np.array(a, a.dtype.newbyteorder("="), order="C")


def assert_same(got, expected, backend):
    """Equal bytes; but NumPy may compute otherwise where memory is strided."""
    if backend == "numpy":
        info = np.finfo(expected.dtype)
        with np.errstate(under="ignore"):
            np.testing.assert_allclose(
                got, expected, rtol=4 * float(info.eps), atol=float(info.tiny)
            )
    else:
        np.testing.assert_array_equal(got, expected)


UNARY = pytest.mark.parametrize("case", ELEMENTWISE, ids=str)


@pytest.mark.parametrize("kind", KINDS)
@UNARY
def test_one_array(case, kind, backend):
    function, rng = case.call, np.random.default_rng(1)
    for shape, broadcast in itertools.product(SHAPES, [False, True]):
        x, _ = laid_out(numbers(shape, kind, rng, case.of_probabilities), rng, broadcast)
        expected = function(contiguous(x))
        assert_same(function(x), expected, backend)
        out, memory = laid_out(np.full(shape, 7, expected.dtype), rng)
        before = memory.copy()
        assert function(x, out=out) is out
        assert_same(out, expected, backend)
        out[...] = 7
        np.testing.assert_array_equal(memory, before)  # nothing else was written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "case", [case for case in ELEMENTWISE if case.vjp], ids=lambda case: case.vjp
)
def test_two_arrays(case, kind, backend):
    function, rng = case.call_vjp, np.random.default_rng(2)
    for shape, other in itertools.product(SHAPES, ["float32", "float64"]):
        g, _ = laid_out(numbers(shape, other, rng), rng)
        y, _ = laid_out(numbers(shape, kind, rng, probabilities=True), rng, broadcast=True)
        expected = function(contiguous(g), contiguous(y))
        assert_same(function(g, y), expected, backend)
        out, _ = laid_out(np.zeros(shape, expected.dtype), rng)
        assert_same(function(g, y, out=out), expected, backend)


@UNARY
def test_out_in_the_memory_of_the_input(case, dtype, backend):
    """In place, and where the result overlaps what is still to be read."""
    function, rng = case.call, np.random.default_rng(3)
    for shape in SHAPES:
        x, _ = laid_out(numbers(shape, dtype, rng, case.of_probabilities), rng)
        expected = function(contiguous(x))
        assert_same(function(x, out=x), expected, backend)
        wide = numbers([n + 1 for n in shape], dtype, rng, case.of_probabilities)
        x, out = wide[(slice(1, None),) * len(shape)], wide[(slice(None, -1),) * len(shape)]
        expected = function(contiguous(x))
        assert_same(function(x, out=out), expected, backend)
        square = numbers((60, 60), dtype, rng, case.of_probabilities)
        expected = function(contiguous(square))
        assert_same(function(square, out=square.T), expected, backend)


def weights_of(shape, rng):
    """None; one for each element; what broadcasts along the first axes, the last,
    and some of them.
    """
    yield None
    yield laid_out(rng.random(shape), rng)[0]
    yield rng.random(shape[-1:])
    yield rng.random((*shape[:1], *[1] * (len(shape) - 1)))
    yield rng.random([n if rng.random() < 0.5 else 1 for n in shape]).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", OF_ELEMENTS, ids=str)
def test_losses(loss, kind, backend):
    with_grad, rng = loss.call_with_grad, np.random.default_rng(4)
    options = [name for name in ("weight", "pos_weight") if name in loss.options]
    probabilities = loss.scores == "probs"
    for shape in SHAPES:
        x, _ = laid_out(numbers(shape, "float32", rng, probabilities), rng)
        t, _ = laid_out(numbers(shape, kind, rng, probabilities=True), rng, broadcast=True)
        for number, weight in enumerate(weights_of(shape, rng)):
            given = dict.fromkeys(options[: 1 + number % 2], weight)
            copy = None if weight is None else contiguous(np.broadcast_to(weight, shape))
            arrays, copies = (contiguous(x), contiguous(t)), dict.fromkeys(given, copy)
            losses, grad = with_grad(x, t, **given, reduction="none")
            expected, expected_grad = with_grad(*arrays, **copies, reduction="none")
            assert_same(losses, expected, backend)
            assert_same(grad, expected_grad, backend)
            out, _ = laid_out(np.zeros(shape, np.float32), rng)
            mean, grad = with_grad(x, t, **given, out=out)
            expected, expected_grad = with_grad(*arrays, **copies)
            assert grad is out
            assert_same(grad, expected_grad, backend)
            np.testing.assert_allclose(mean, expected, rtol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_grad_hess(kind, backend):
    rng, function = np.random.default_rng(5), fs.binary_cross_entropy_with_logits_grad_hess
    for shape in SHAPES:
        x, _ = laid_out(numbers(shape, "float32", rng), rng)
        t, _ = laid_out(numbers(shape, kind, rng, probabilities=True), rng, broadcast=True)
        for weight in weights_of(shape, rng):
            copy = None if weight is None else contiguous(np.broadcast_to(weight, shape))
            out, _ = laid_out(np.zeros(shape, np.float32), rng)
            got = function(x, t, sample_weight=weight, hess_out=out)
            for a, b in zip(
                got, function(contiguous(x), contiguous(t), sample_weight=copy), strict=True
            ):
                assert_same(a, b, backend)


def test_sums_of_doubles_are_exact_in_every_layout(backend):
    rng = np.random.default_rng(6)
    for shape in SHAPES:
        x, t = numbers(shape, "float64", rng), numbers(shape, "float64", rng, probabilities=True)
        each = fs.binary_cross_entropy_with_logits(x, t, reduction="none").astype(np.longdouble)
        for _ in range(3):
            got = fs.binary_cross_entropy_with_logits(
                laid_out(x, rng)[0], laid_out(t, rng)[0], reduction="sum"
            )
            np.testing.assert_allclose(
                got, float(each.sum()), rtol=1e-15 if backend != "numpy" else 1e-13
            )


@pytest.mark.parametrize("shape", [(40_000, 2, 2), (400, 300), (30, 20_000)])
def test_threads_change_nothing(shape):
    rng = np.random.default_rng(7)
    x, t = numbers(shape, "float32", rng), numbers(shape, "float32", rng, probabilities=True)
    x, t = laid_out(x, rng)[0], np.asfortranarray(t)
    with_grad = fs.binary_cross_entropy_with_logits_value_and_grad
    loss, grad = with_grad(x, t, num_threads=1)
    for threads in (2, 3, 7):
        other, other_grad = with_grad(x, t, num_threads=threads)
        assert other == loss
        np.testing.assert_array_equal(other_grad, grad)


def test_a_kernel_is_called_once(monkeypatch):
    """Whatever the strides, it is the kernel that steps along the axes."""
    room = sys.modules["fastsoftmax.ops.sigmoid"]
    kernel, calls = room.sigmoid_flat, []

    def sigmoid_flat(*arguments):
        calls.append(arguments)
        return kernel(*arguments)

    monkeypatch.setattr(room, "sigmoid_flat", sigmoid_flat)
    rng = np.random.default_rng(8)
    for shape in SHAPES:
        x, _ = laid_out(numbers(shape, "float16", rng), rng)
        fs.sigmoid(x, out=laid_out(np.zeros(shape, np.float16), rng)[0])
    assert len(calls) == len(SHAPES)
