"""Seconds of a call, and units in the last place of a result."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .formulas import Array, Call

SAMPLE_SECONDS = 0.002  # calls are repeated to this, well above the resolution of the clock
LEAST_SAMPLES, MOST_SAMPLES = 3, 51


# --- time -----------------------------------------------------------------------------------------


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
    while (sample := seconds(call, repeat) * repeat) < SAMPLE_SECONDS / 4:
        repeat *= 4
    return max(1, round(repeat * SAMPLE_SECONDS / sample))


def interleaved(calls: Mapping[str, Call], budget: float) -> dict[str, list[float]]:
    """Times of each call. They take turns,
    so that a slow moment of the machine hits all of them.
    """
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
    """The median over turns: what both share, as the frequency of the CPU,
    cancels within a turn.
    """
    return statistics.median(theirs / own for theirs, own in zip(times, ours, strict=True))


# --- error ----------------------------------------------------------------------------------------


def largest_error(got: Any, exact: Array) -> float:
    """The largest distance in units in the last place of the dtype of `got`;
    NaN if `exact` is no finer.
    """
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
