"""How each library computes a case."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import fastsoftmax

from . import numba_loops, onnx_models
from .cases import REDUCED, Case
from .formulas import OPERATIONS, Array, Call
from .losses import (
    class_labels,
    fastsoftmax_call,
    has_gradient,
    jax_call,
    loss_of,
    numpy_call,
    torch_call,
)

VJP = "_vjp"
# their vjp takes results, that of others the scores
FROM_RESULTS = ("softmax", "log_softmax", "sigmoid")


class Missing(Exception):
    """The rival has no such operation, or no `out=` for it."""


class Rival(NamedTuple):
    """A module to import, and how to make a call of it for a case: ``make(module, case, scores)``.

    A call returns something that NumPy turns into an array, and runs in one thread. A rival that
    lacks the operation raises `Missing`. `label` is for texts, `short` for heads of columns.
    """

    label: str
    short: str
    module: str
    make: Callable[[Any, Case, Array], Call]
    distribution: str
    needs: tuple[str, ...] = ()  # other modules

    @property
    def missing_modules(self) -> list[str]:
        """What would have to be installed."""
        packages = (self.module.partition(".")[0], *self.needs)
        return [package for package in packages if importlib.util.find_spec(package) is None]

    @property
    def installed(self) -> bool:
        return not self.missing_modules

    @property
    def version(self) -> str:
        if self.module == "fastsoftmax":  # which may run from a checkout
            return fastsoftmax.__version__
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "of unknown version"


def known(table: dict[str, Any], case: Case) -> Any:
    """What a table has for the case's operation."""
    if case.operation not in table:
        raise Missing(case.operation)
    return table[case.operation]


def destination(case: Case, x: Array) -> Array:
    """The array for `out=`, where the result has the size of the scores."""
    if case.operation in REDUCED:
        raise Missing("out=")
    return np.empty_like(x)


def no_out(case: Case) -> None:
    if case.out:
        raise Missing("out=")


# --- this package ---------------------------------------------------------------------------------


def make_fastsoftmax(fastsoftmax: Any, case: Case, x: Array, threads: int = 1) -> Call:
    """Called as users do."""
    fastsoftmax.set_num_threads(threads)
    if loss := loss_of(case):
        if not has_gradient(case):
            no_out(case)
        return fastsoftmax_call(loss, case, fastsoftmax, x)
    function = getattr(fastsoftmax, case.operation)
    arguments = vjp_arguments(fastsoftmax, case, x) if case.operation.endswith(VJP) else (x,)
    options = {"out": destination(case, x)} if case.out else {}
    return partial(function, *arguments, **case.our_options, **options)


def vjp_arguments(fastsoftmax: Any, case: Case, x: Array) -> tuple[Array, Array]:
    """A gradient with respect to the results, here the results themselves,
    and what the vjp starts from.
    """
    forward = case.operation.removesuffix(VJP)
    y = getattr(fastsoftmax, forward)(x, **case.our_options)
    return y, y if forward in FROM_RESULTS else x


# --- NumPy and its yardsticks ---------------------------------------------------------------------


def make_numpy(_: Any, case: Case, x: Array) -> Call:
    """The usual formula."""
    if loss := loss_of(case):
        no_out(case)
        return numpy_call(loss, case, x)
    operation = known(OPERATIONS, case)
    if not case.out:
        return partial(operation.numpy, x, **case.axis_option)
    return partial(
        operation.numpy_into, destination(case, x), np.empty_like(x), x, **case.axis_option
    )


def make_exp(numpy: Any, case: Case, x: Array) -> Call:
    """One exponential per element and nothing else."""
    return partial(numpy.exp, x, **({"out": np.empty_like(x)} if case.out else {}))


def make_copy(numpy: Any, case: Case, x: Array) -> Call:
    """A plain copy into an array that exists."""
    out = np.zeros_like(x)  # not empty: pages that nobody wrote would be made by the first copy

    def copy() -> Array:
        numpy.copyto(out, x)
        return out

    return copy


# --- other libraries ------------------------------------------------------------------------------


def make_scipy(special: Any, case: Case, x: Array) -> Call:
    function = getattr(special, known(OPERATIONS, case).scipy)
    if case.out and not isinstance(function, np.ufunc):
        raise Missing("out=")
    return partial(
        function, x, **case.axis_option, **({"out": destination(case, x)} if case.out else {})
    )


def make_torch(torch: Any, case: Case, x: Array) -> Call:
    torch.set_num_threads(1)
    if loss := loss_of(case):
        no_out(case)
        return torch_call(loss, case, torch, x)
    known(OPERATIONS, case)
    axis = () if case.axis is None else (case.axis,)
    options = {"out": torch.from_numpy(destination(case, x))} if case.out else {}
    return partial(getattr(torch, case.operation), torch.from_numpy(x), *axis, **options)


def make_onnxruntime(runtime: Any, case: Case, x: Array) -> Call:
    """A session that runs a model of one operator; with `out=` one whose arrays are bound once."""
    known(onnx_models.NODES, case)
    inputs = {"x": x} | ({"labels": class_labels(case)} if loss_of(case) else {})
    session = onnx_models.session(runtime, case, inputs)
    if not case.out:
        return lambda: session.run(None, inputs)[0]
    out = destination(case, x)
    binding = onnx_models.bound(session, inputs, out)

    def run(keep: dict[str, Array]) -> Array:
        session.run_with_iobinding(binding)
        return out

    return partial(run, inputs)  # the binding has but their addresses


def make_jax(jax: Any, case: Case, x: Array) -> Call:
    no_out(case)
    if case.operation.startswith("cross_entropy"):
        return jax_call(case, jax, x)
    known(OPERATIONS, case)
    parent = jax.scipy.special if case.operation == "logsumexp" else jax.nn
    function = jax.jit(partial(getattr(parent, case.operation), **case.axis_option))
    scores = jax.numpy.asarray(x)
    return lambda: function(scores).block_until_ready()


def make_numexpr(numexpr: Any, case: Case, x: Array) -> Call:
    """The elementwise steps in numexpr, the reductions in NumPy."""
    numexpr.set_num_threads(1)
    known(OPERATIONS, case)
    options = {"out": destination(case, x)} if case.out else {}
    axis = case.axis

    def evaluate(expression: str, **arrays: Any) -> Any:
        return numexpr.evaluate(expression, local_dict=arrays, global_dict={}, **options)

    def without_out(expression: str, **arrays: Any) -> Any:
        return numexpr.evaluate(expression, local_dict=arrays, global_dict={})

    def softmax() -> Any:
        e = evaluate("exp(x - top)", x=x, top=x.max(axis, keepdims=True))
        return numexpr.evaluate(
            "e / total",
            local_dict={"e": e, "total": e.sum(axis, keepdims=True)},
            global_dict={},
            out=e,
        )

    def log_softmax() -> Any:
        top = x.max(axis, keepdims=True)
        total = without_out("exp(x - top)", x=x, top=top).sum(axis, keepdims=True)
        return evaluate("(x - top) - logarithm", x=x, top=top, logarithm=np.log(total))

    def logsumexp() -> Any:
        top = x.max(axis, keepdims=True)
        total = without_out("exp(x - top)", x=x, top=top).sum(axis, keepdims=True)
        return (top + np.log(total)).squeeze(axis)

    def sigmoid() -> Any:
        return evaluate("1 / (1 + exp(-x))", x=x)

    functions: dict[str, Call] = {
        "softmax": softmax,
        "log_softmax": log_softmax,
        "logsumexp": logsumexp,
        "sigmoid": sigmoid,
    }
    return functions[case.operation]


def make_numba(numba: Any, case: Case, x: Array) -> Call:
    """Compiled loops over a view of rows."""
    loop = numba.njit(known(numba_loops.LOOPS, case))
    axis = -1 if case.axis is None else case.axis
    if x.ndim > 2 and axis not in (-1, x.ndim - 1):
        raise Missing("a view of rows")
    reduced = case.operation == "logsumexp"

    def as_rows(array: Array) -> Array:
        return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])

    def into(out: Array) -> Array:
        loop(rows, out.reshape(-1) if reduced else as_rows(out))
        return out

    def run() -> Array:
        return into(
            np.empty(np.moveaxis(x, axis, -1).shape[:-1], x.dtype) if reduced else np.empty_like(x)
        )

    rows = as_rows(x)
    return partial(into, destination(case, x)) if case.out else run


def make_sklearn(extmath: Any, case: Case, x: Array) -> Call:
    """A softmax of the rows of a matrix, by way of a new array."""
    no_out(case)
    if case.operation != "softmax" or x.ndim != 2 or case.axis not in (-1, 1):
        raise Missing(case.operation)
    return partial(extmath.softmax, x, copy=True)


OURS, COPY, EXP = "fastsoftmax", "copy", "exp"
RIVALS = {
    OURS: Rival("fastsoftmax", "fastsoftmax", "fastsoftmax", make_fastsoftmax, "fastsoftmax"),
    "numpy": Rival("NumPy", "NumPy", "numpy", make_numpy, "numpy"),
    "scipy": Rival("SciPy", "SciPy", "scipy.special", make_scipy, "scipy"),
    "torch": Rival("PyTorch", "PyTorch", "torch", make_torch, "torch"),
    "onnxruntime": Rival(
        "ONNX Runtime", "ONNX", "onnxruntime", make_onnxruntime, "onnxruntime", needs=("onnx",)
    ),
    "jax": Rival("JAX", "JAX", "jax", make_jax, "jax"),
    "numexpr": Rival("numexpr", "numexpr", "numexpr", make_numexpr, "numexpr"),
    "numba": Rival("Numba", "Numba", "numba", make_numba, "numba"),
    "sklearn": Rival(
        "scikit-learn", "sklearn", "sklearn.utils.extmath", make_sklearn, "scikit-learn"
    ),
    COPY: Rival("np.copyto", "copyto", "numpy", make_copy, "numpy"),
    EXP: Rival("np.exp", "np.exp", "numpy", make_exp, "numpy"),
}
LIBRARIES = tuple(name for name in RIVALS if name not in (OURS, COPY, EXP))

# Not for tables: this package in two threads.
TWO_THREADS = "fastsoftmax-2"
RIVALS[TWO_THREADS] = RIVALS[OURS]._replace(make=partial(make_fastsoftmax, threads=2))
