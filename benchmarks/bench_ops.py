"""Every operation of tests/cases.py, on short rows and long ones,
with the array of results given.
"""

import numpy as np
import pytest
from cases import CASES, FLOATS, WITH_VJP

SHAPES = [(10_000, 10), (1024, 100), (256, 1000), (8, 32_000)]


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def shape(request):
    return request.param


@pytest.fixture(params=FLOATS, ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize("case", CASES, ids=str)
def bench_operation(benchmark, case, shape, dtype, rng):
    benchmark.group = f"{case}, {dtype}"
    x = case.typical(shape, dtype, rng)
    benchmark(case.call, x, out=np.empty_like(case.call(x)))


@pytest.mark.parametrize("case", WITH_VJP, ids=lambda case: case.vjp)
def bench_gradient(benchmark, case, shape, dtype, rng):
    benchmark.group = f"{case.vjp}, {dtype}"
    x = case.typical(shape, dtype, rng)
    y = case.call(x)
    g = rng.normal(size=y.shape).astype(dtype)
    saved = x if case.vjp_from == "x" else y
    benchmark(case.call_vjp, g, saved, out=np.empty_like(saved))
