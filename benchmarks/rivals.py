"""What is compared: each rival's way to compute an operation.

``python rivals.py NAME`` is a worker: it holds one rival, answers each request on standard input with a line,
and otherwise waits without using the processor (`turns.py` starts it). A request is a JSON array: a verb of
`ANSWERS` and a case.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from losses import fastsoftmax_call, loss_of, numpy_call, reference, torch_call

from fastsoftmax import _comparison
from fastsoftmax._comparison import Case

Make = Callable[[Any, Case, np.ndarray], Callable[[], Any]]


class Rival(NamedTuple):
    """A module to import, and how to make a call of it for a case: ``make(module, case, scores)``.

    A call returns something that NumPy turns into an array, and runs in one thread. A rival that lacks the
    operation raises `Missing`.
    """

    label: str
    module: str
    make: Make

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


class Missing(Exception):
    """The rival has no such operation."""


def lookup(table: dict[str, str], case: Case, module: Any) -> Callable[..., Any]:
    """The function of a module that a table names for the case's operation."""
    if case.operation not in table:
        raise Missing(case.operation)
    return getattr(module, table[case.operation])


def make_fastsoftmax(fastsoftmax, case, x):
    """Called as users do: without the axis that is its default."""
    fastsoftmax.set_num_threads(1)
    if loss := loss_of(case):
        return fastsoftmax_call(loss, case, fastsoftmax, x)
    return partial(getattr(fastsoftmax, case.operation), x, **({} if case.axis == -1 else case.axis_option))


def make_numpy(_, case, x):
    """The usual formula."""
    if loss := loss_of(case):
        return numpy_call(loss, case, x)
    return partial(_comparison.OPERATIONS[case.operation].numpy, x, **case.axis_option)


def make_exp(numpy, case, x):
    """One exponential per element and nothing else."""
    return partial(numpy.exp, x)


def make_copy(numpy, case, x):
    """A plain copy into an array that exists."""
    return partial(numpy.copyto, numpy.empty_like(x), x)


def make_scipy(special, case, x):
    names = {name: operation.scipy for name, operation in _comparison.OPERATIONS.items()}
    return partial(lookup(names, case, special), x, **case.axis_option)


def make_torch(torch, case, x):
    names = {
        "softmax": "softmax",
        "log_softmax": "log_softmax",
        "logsumexp": "logsumexp",
        "sigmoid": "sigmoid",
    }
    torch.set_num_threads(1)
    if loss := loss_of(case):
        return torch_call(loss, case, torch, x)
    function = lookup(names, case, torch)
    axis = () if case.axis is None else (case.axis,)
    return partial(function, torch.from_numpy(x), *axis)


RIVALS = {
    "fastsoftmax": Rival("fastsoftmax", "fastsoftmax", make_fastsoftmax),
    "numpy": Rival("NumPy", "numpy", make_numpy),
    "scipy": Rival("SciPy", "scipy.special", make_scipy),
    "torch": Rival("PyTorch", "torch", make_torch),
    "exp": Rival("np.exp", "numpy", make_exp),
    "copy": Rival("np.copyto", "numpy", make_copy),
}


# --- the worker -------------------------------------------------------------------------------------------


@functools.cache
def call_for(name: str, case: Case) -> tuple[Callable[[], Any], int]:
    """A rival's call for a case, and how often to repeat it for a sample."""
    rival = RIVALS[name]
    call = rival.make(importlib.import_module(rival.module), case, case.scores())
    return call, _comparison.repeats_for(call)


def time_of(name: str, case: Case) -> float:
    """Seconds of a call; one before it brings the caches back."""
    call, repeat = call_for(name, case)
    call()
    return _comparison.seconds(call, repeat)


def error_of(name: str, case: Case) -> float:
    """The largest error in ulp."""
    loss = loss_of(case)
    exact = reference(loss, case) if loss else case.reference()
    return _comparison.largest_error(np.asarray(call_for(name, case)[0]()), exact)


ANSWERS = {"time": time_of, "error": error_of}


def answer(name: str, request: str) -> float | None:
    verb, (operation, dtype, shape, axis) = json.loads(request)
    try:
        return ANSWERS[verb](name, Case(operation, dtype, tuple(shape), axis))
    except Missing:
        return None


def main(name: str) -> None:
    for request in sys.stdin:
        print(json.dumps(answer(name, request)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
