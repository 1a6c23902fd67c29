"""Operations and losses next to the same elsewhere: one thread and one process each, taking turns.

Only rivals that are installed run. The table shows the time of the rival; the summary the ratio to
ours.
"""

import statistics

import pytest
from compare import LOSSES, RELATIVES

from fastsoftmax.bench.cases import Case
from fastsoftmax.bench.measuring import median_ratio
from fastsoftmax.bench.rivals import COPY, EXP, LIBRARIES, OURS, RIVALS
from fastsoftmax.bench.turns import Workers

TURNS = 15
BATCHES = [
    Case("softmax", dtype, shape, out=out)
    for dtype, shapes in {
        "float32": [(4096, 10), (1024, 100), (256, 1000), (64, 32_000)],
        "float64": [(1024, 100), (256, 1000)],
    }.items()
    for shape in shapes
    for out in (False, True)
]
TINY = [Case("softmax", "float32", (10,)), Case("softmax", "float32", (10,), out=True)]
INSTALLED = [name for name in LIBRARIES if RIVALS[name].installed]
WITHOUT_OUT = ("scipy", "jax", "sklearn")


def able(case, rival):
    """Whether the rival has the operation on this array."""
    rows = case.operation == "softmax" and case.axis == -1 and len(case.shape) == 2
    return not (case.out and rival in WITHOUT_OUT) and (rows or rival != "sklearn")


PAIRS = [
    (case, rival)
    for case in BATCHES + RELATIVES
    for rival in (*INSTALLED, COPY)
    if able(case, rival)
]
PAIRS += [(case, rival) for case in TINY for rival in (*INSTALLED, EXP) if able(case, rival)]
PAIRS += [(case, "torch") for case in LOSSES if "torch" in INSTALLED]

_elapsed = 0.0


def clock():
    """Seconds of a rival's calls as its own process measured them,
    so that messages do not count.
    """
    return _elapsed


def label(value):
    """Of a case or a rival, in the identifier of a benchmark."""
    if not isinstance(value, Case):
        return value
    axis = "" if value.axis in (-1, None) else f"-axis{value.axis}"
    return f"{value.operation}-{value.dtype}-{value.size}{axis}{'-out' if value.out else ''}"


@pytest.fixture(scope="module")
def workers():
    with Workers() as processes:
        yield processes


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize(("case", "rival"), PAIRS, ids=label)
def bench_rival(benchmark, case, rival, workers, ratios):
    benchmark.group = label(case)
    times = {OURS: [], rival: []}

    def turn(name):
        times[name].append(workers.ask(name, "time", case))
        return times[name][-1]

    def theirs():
        global _elapsed
        _elapsed += turn(rival)

    for name in times:  # warm
        assert workers.ask(name, "time", case), workers.absent | workers.failed
    benchmark.pedantic(theirs, setup=lambda: turn(OURS) and None, rounds=TURNS)
    ratio = median_ratio(times[rival], times[OURS])
    benchmark.extra_info |= {OURS: statistics.median(times[OURS]), "ratio": ratio}
    ratios.append((f"{RIVALS[rival].label}, {benchmark.group}", ratio))
