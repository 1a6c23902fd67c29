"""Lengths of rows: by default those next to which kernels change their way;
all when tests are exhaustive.
"""

import math

import pytest

VECTORS = (2, 4, 8, 16)  # elements of a vector, of all instruction sets and dtypes
# As in fastsoftmax/kernels/tuning.h: from there on rows are computed in another way.
THRESHOLDS = {
    "short_row": 24,
    "short_label_row": 32,
    "short_log_row": 40,
    "kept_in_output_from": 64,
    "singly_summed": 112,
    "small_call": 256,
    "kept_in_l1": 4096,
    "chunk": 32768,
}
BORDERS = (1, *VECTORS, *THRESHOLDS.values(), 128)
BETWEEN = (10, 100, 1000, 40_000)
BY_DEFAULT = {n + step for n in BORDERS for step in (-1, 0, 1)} | set(BETWEEN)

exhaustive = pytest.mark.exhaustive


def sweep(every, at_most=math.inf):
    """Parametrise a test by `lengths`, through which it goes itself; `at_most`:
    the longest by default.
    """
    near = [n for n in every if n in BY_DEFAULT and n <= at_most]
    others = [n for n in every if n not in near]
    parameters = [
        pytest.param(near, id="near"),
        pytest.param(others, id="others", marks=exhaustive),
    ]
    return pytest.mark.parametrize("lengths", parameters)


def sizes(few, many):
    """Parametrise a test by `size`, a small number and a large one."""
    parameters = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=exhaustive)]
    return pytest.mark.parametrize("size", parameters)
