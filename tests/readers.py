"""One row per function that reads a distribution: classes, or numbers about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import fastsoftmax


@dataclass(frozen=True, eq=False)
class Reader:
    name: str
    signature: str
    # calls in every regime: what their names add -> arguments and options, of `regimes.Given`
    calls: dict[str, Callable]

    def __str__(self):
        return self.name

    @property
    def call(self):
        return getattr(fastsoftmax, self.name)


READERS = (
    Reader(
        name="hardmax",
        signature="(x, axis=-1, *, out=None, dtype=None, num_threads=None)",
        calls={"": lambda given: ((), {})},
    ),
    Reader(
        name="logprobs",
        signature="(logits, ids, axis=-1, *, temperature=1.0, num_threads=None)",
        calls={
            "": lambda given: ((given.labels,), {}),
            "several": lambda given: ((given.several,), {"temperature": given.t}),
        },
    ),
    Reader(
        name="top_k_logprobs",
        signature="(logits, k, axis=-1, *, temperature=1.0, num_threads=None)",
        calls={"": lambda given: ((min(given.n, 5),), {})},
    ),
    Reader(
        name="fit_temperature",
        signature=(
            "(logits, labels, axis=-1, *, sample_weight=None, bounds=(0.001, 1000.0),"
            " num_threads=None)"
        ),
        calls={"": lambda given: ((np.argmax(given.x, given.axis),), {})},
    ),
)
