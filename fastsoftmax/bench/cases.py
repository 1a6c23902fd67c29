"""What is compared: an operation on an array of scores."""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple

import numpy as np

from .formulas import OPERATIONS, Array, accurate_log_softmax

ELEMENTWISE = ("sigmoid",)
REDUCED = ("logsumexp",)  # the result lacks the axis
FILLS_OUT = ("softmax", "log_softmax", "sigmoid")  # the result has the size of the scores
CLASS_LOSSES = ("cross_entropy", "cross_entropy_value_and_grad")  # of rows of a matrix


class Case(NamedTuple):
    """An operation on scores of a dtype and shape,
    whose result is new or goes to an array that exists.
    """

    operation: str
    dtype: str
    shape: tuple[int, ...]
    axis: int | None = -1  # None: element by element
    out: bool = False

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def axis_option(self) -> dict[str, int]:
        return {} if self.axis is None else {"axis": self.axis}

    @property
    def our_options(self) -> dict[str, Any]:
        """As users write them: without the axis that is the default."""
        return {} if self.axis == -1 else self.axis_option

    def scores(self) -> Array:
        """The same typical scores each time."""
        if self.dtype == "bfloat16":
            importlib.import_module("ml_dtypes")  # tells NumPy the name
        return np.random.default_rng(0).normal(0.0, 3.0, self.shape).astype(self.dtype)

    def reference(self) -> Array:
        """The result in longdouble."""
        x = self.scores().astype(np.longdouble)
        log = self.operation == "log_softmax"
        formula = accurate_log_softmax if log else OPERATIONS[self.operation].numpy
        return np.asarray(formula(x, **self.axis_option))


def case_of(operation: str, dtype: str, shape: tuple[int, ...], out: bool = False) -> Case:
    """A case along the last axis, where the operation has one."""
    return Case(operation, dtype, shape, None if operation in ELEMENTWISE else -1, out)
