"""Calls of every public function in every regime of the kernels,
for what a process must survive.
"""

import functools
import itertools
from functools import partial

import numpy as np
from cases import ELEMENTWISE, ROWWISE
from losses import OF_ELEMENTS, OF_ROWS
from readers import READERS

import fastsoftmax as fs

try:
    import ml_dtypes
except ImportError:
    BFLOAT16 = np.float16
else:
    BFLOAT16 = ml_dtypes.bfloat16

# Single elements; short rows, few and many; rows in batches; longer ones; rows of several chunks.
SHAPES = [
    (1, 1),
    (2, 10),
    (300, 10),
    (65, 31),
    (70, 40),
    (70, 150),
    (9, 3000),
    (3, 20000),
    (3, 33000),
]
# With axis 0: short columns, tiles of a few rows and of many, strips that fit the cache and that do
# not.
COLUMNS = [(10, 300), (10, 700), (60, 200), (300, 130), (50, 700)]
# The same with work for two threads.
LARGE = [(7000, 10), (2000, 35), (1100, 65), (500, 150), (25, 3000), (3, 33000), (1, 70000)]
LARGE_COLUMNS = [(10, 7000), (60, 1200), (300, 250), (1100, 600)]
KINDS = [
    (np.float32, "contiguous"),
    (np.float64, "contiguous"),
    (np.float16, "contiguous"),
    (np.float64, "strided"),
    (BFLOAT16, "strided"),
]


class Given:
    """The arguments of calls on a matrix of numbers, with rows along `axis`."""

    def __init__(self, x, axis):
        self.x, self.axis = x, axis
        self.n, rows = x.shape[axis], x.shape[1 - axis]
        self.labels = np.arange(rows) % self.n
        self.several = np.expand_dims(self.labels, axis)
        self.t = np.where(np.arange(rows) % 2, 1.0, 2.0).reshape(self.several.shape)
        self.where = np.ones(x.shape, bool)
        self.b = np.ones(x.shape, np.float64)
        self.g = np.ones(rows, x.dtype)  # of what is reduced
        self.shares = fs.softmax(x, axis)
        self.wide = self.shares.astype(np.float64)

    @functools.cached_property
    def p(self):
        """Probabilities of elements."""
        return fs.sigmoid(self.x)

    @functools.cached_property
    def w(self):
        return np.full(self.x.shape, 2.0)


def named(name, addition):
    return f"{name}, {addition}" if addition else name


def of_rows(given):
    """Functions of rows."""
    x, axis = given.x, given.axis
    for case in ROWWISE:
        for addition, options in {"": lambda given: {}, **case.calls}.items():
            made = options(given)
            yield named(case.name, addition), partial(case.call, x, axis, **made)
        if case.vjp:
            g = given.g if case.reduced else given.shares
            saved = given.shares if case.vjp_from == "y" else x
            yield case.vjp, partial(case.call_vjp, g, saved, axis, **case.vjp_options(given))
    for reader in READERS:
        for addition, made in reader.calls.items():
            arguments, options = made(given)
            yield (
                named(reader.name, addition),
                partial(reader.call, x, *arguments, axis=axis, **options),
            )
    yield from of_losses(given, OF_ROWS, x)


def of_losses(given, losses, x):
    for loss in losses:
        for addition, made in loss.calls.items():
            targets, options = made(given)
            call = loss.call if addition in loss.without_gradient else loss.call_with_grad
            scores = given.p if loss.scores == "probs" else x
            options = loss.axis(given.axis) | options
            yield named(loss.name, addition), partial(call, scores, targets, **options)
        if loss.grad_hess:
            targets, options = loss.grad_hess(given)
            options = loss.axis(given.axis) | options
            yield loss.grad_hess_name, partial(loss.call_grad_hess, x, targets, **options)


def of_elements(given):
    """Functions of elements."""
    for case in ELEMENTWISE:
        yield case.name, partial(case.call, given.p if case.of_probabilities else given.x)
        if case.vjp:
            yield case.vjp, partial(case.call_vjp, given.p, given.p)
    yield from of_losses(given, OF_ELEMENTS, given.x)


def laid_out(x, layout):
    """The numbers of a matrix, in a layout of `KINDS`."""
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[:, ::2]
    return np.asfortranarray(x) if layout == "Fortran" else x


def calls_of(x, axis):
    """(name, function without arguments) of every call on a matrix;
    of elementwise functions for one axis.
    """
    given = Given(x, axis)
    yield from of_rows(given)
    if axis:
        yield from of_elements(given)


def calls(shapes=SHAPES, columns=COLUMNS, kinds=KINDS):
    """(name, function without arguments) of every call."""
    rng = np.random.default_rng(7)
    places = [(shape, 1) for shape in shapes] + [(shape, 0) for shape in columns]
    for (shape, axis), (dtype, layout) in itertools.product(places, kinds):
        x = laid_out(rng.normal(0, 3, shape).astype(dtype), layout)
        for name, call in calls_of(x, axis):
            yield f"{name} of {layout} {shape} {np.dtype(dtype).name}, axis {axis}", call


def make_all(kinds, large=False):
    with np.errstate(all="ignore"):
        for name, call in calls(LARGE, LARGE_COLUMNS, kinds) if large else calls(kinds=kinds):
            print(name, flush=True)  # the last one is the one that crashed
            call()
    print("done")
