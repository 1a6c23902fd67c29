"""Calls on ten elements: what a call costs before it computes anything. np.exp is the yardstick."""

import numpy as np
import pytest
from cases import CASES

import fastsoftmax

SIZE = 10


def bench_exp(benchmark, rng):
    """The yardstick."""
    benchmark.group = "ten elements, defaults"
    benchmark(np.exp, rng.normal(size=SIZE).astype(np.float32))


@pytest.mark.parametrize("case", CASES, ids=str)
def bench_defaults(benchmark, case, rng):
    benchmark.group = "ten elements, defaults"
    benchmark(case.call, case.typical(SIZE, np.float32, rng))


OPTIONS = {
    "axis": {"axis": 0},
    "num_threads": {"num_threads": 1},
    "out": {"out": np.empty(SIZE, np.float32)},
    "temperature": {"temperature": 2.0},
    "base": {"base": 2.0},
    "where": {"where": np.arange(SIZE) % 2 == 0},
    "dtype": {"dtype": np.float64},
}


@pytest.mark.parametrize("option", OPTIONS)
def bench_option(benchmark, option, rng):
    """Softmax with one keyword argument."""
    benchmark.group = "ten elements, softmax with an option"
    benchmark(fastsoftmax.softmax, rng.normal(size=SIZE).astype(np.float32), **OPTIONS[option])


@pytest.mark.parametrize("kind", ["list", "float16", "int64", "strided"])
def bench_input(benchmark, kind, rng):
    """Softmax of what is not a plain float array."""
    benchmark.group = "ten elements, softmax of other input"
    x = rng.normal(size=SIZE)
    inputs = {"list": x.tolist(), "strided": np.repeat(x, 2)[::2]}
    benchmark(fastsoftmax.softmax, inputs[kind] if kind in inputs else x.astype(kind))
