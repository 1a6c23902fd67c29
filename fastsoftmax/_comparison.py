"""Time and error of an operation next to the same elsewhere, for the command line and the benchmarks."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastsoftmax

Array = NDArray[Any]
Call = Callable[[], Any]

SAMPLE_SECONDS = 0.002  # calls are repeated to this, well above the resolution of the clock
LEAST_SAMPLES, MOST_SAMPLES = 3, 51


# --- the formulas as one writes them in NumPy; on longdouble they are the reference -------------------------


def numpy_softmax(x: Array, axis: int) -> Any:
    """The stable formula of the textbooks."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def numpy_log_softmax(x: Array, axis: int) -> Any:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def numpy_logsumexp(x: Array, axis: int) -> Any:
    top = x.max(axis, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(axis, keepdims=True))).squeeze(axis)


def numpy_sigmoid(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


class Operation(NamedTuple):
    """A function of this package, the same in NumPy, and its name in scipy.special."""

    ours: Callable[..., Any]
    numpy: Callable[..., Any]
    scipy: str


OPERATIONS = {
    "softmax": Operation(fastsoftmax.softmax, numpy_softmax, "softmax"),
    "log_softmax": Operation(fastsoftmax.log_softmax, numpy_log_softmax, "log_softmax"),
    "logsumexp": Operation(fastsoftmax.logsumexp, numpy_logsumexp, "logsumexp"),
    "sigmoid": Operation(fastsoftmax.sigmoid, numpy_sigmoid, "expit"),
}


class Case(NamedTuple):
    """What is compared: an operation on an array of scores."""

    operation: str
    dtype: str
    shape: tuple[int, ...]
    axis: int | None = -1  # None: element by element

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def axis_option(self) -> dict[str, int]:
        return {} if self.axis is None else {"axis": self.axis}

    def scores(self) -> Array:
        """The same typical scores each time."""
        return np.random.default_rng(0).normal(0.0, 3.0, self.shape).astype(self.dtype)

    def reference(self) -> Array:
        """The result in longdouble."""
        x = self.scores().astype(np.longdouble)
        return np.asarray(OPERATIONS[self.operation].numpy(x, **self.axis_option))


# --- time -------------------------------------------------------------------------------------------------


def seconds(call: Call, repeat: int) -> float:
    """Time of a call, on average over some."""
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def repeats_for(call: Call) -> int:
    """How often to call for a sample of SAMPLE_SECONDS; also warms up."""
    call()
    repeat = 1
    while seconds(call, repeat) * repeat < SAMPLE_SECONDS / 4:
        repeat *= 4
    return max(1, round(SAMPLE_SECONDS / seconds(call, repeat)))


def interleaved(calls: Mapping[str, Call], budget: float) -> dict[str, list[float]]:
    """Times of each call. They take turns, so that a slow moment of the machine hits all of them."""
    repeats = {name: repeats_for(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + budget
    for turn in range(MOST_SAMPLES):
        if turn >= LEAST_SAMPLES and time.perf_counter() > end:
            break
        for name, call in calls.items():
            samples[name].append(seconds(call, repeats[name]))
    return samples


def median_ratio(times: Sequence[float], ours: Sequence[float]) -> float:
    """The median over turns: what both share, as the frequency of the CPU, cancels within a turn."""
    return statistics.median(theirs / own for theirs, own in zip(times, ours, strict=True))


# --- error ------------------------------------------------------------------------------------------------


def largest_error(got: Any, exact: Array) -> float:
    """The largest distance in units in the last place of the dtype of `got`; NaN if `exact` is no finer."""
    info = np.finfo(got.dtype)
    if not np.finfo(exact.dtype).eps < info.eps / 256:
        return float("nan")
    exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp)
    unit = np.ldexp(np.ones_like(exact), exponent - info.nmant)
    return float((np.abs(got - exact) / unit).max())


def figure(value: float | None) -> str:
    """A number with two digits, or all of those before the point."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"
