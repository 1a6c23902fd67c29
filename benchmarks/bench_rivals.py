"""Softmax and losses next to the same elsewhere: one thread each, each in a process of its own, taking turns.

Only rivals that are installed run. The table shows the time of the rival; the summary the ratio to ours.
"""

import statistics

import pytest
from compare import LOSSES
from rivals import RIVALS
from turns import Workers

from fastsoftmax._comparison import Case, median_ratio

TURNS = 41
BATCHES = [Case("softmax", "float32", shape) for shape in ((256, 1000), (1024, 100), (64, 32_000))]
TINY = Case("softmax", "float32", (10,))
LIBRARIES = [name for name in ("numpy", "scipy", "torch") if RIVALS[name].installed]
PAIRS = [(case, rival) for case in BATCHES for rival in LIBRARIES] + [(TINY, "exp")]
PAIRS += [(case, "torch") for case in LOSSES if "torch" in LIBRARIES]

_elapsed = 0.0


def clock():
    """Seconds of a rival's calls as its own process measured them, so that messages do not count."""
    return _elapsed


def label(value):
    """Of a case or a rival, in the identifier of a benchmark."""
    return f"{value.operation}-{value.size}" if isinstance(value, Case) else value


@pytest.fixture(scope="module")
def workers():
    with Workers() as processes:
        yield processes


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize(("case", "rival"), PAIRS, ids=label)
def bench_rival(benchmark, case, rival, workers, ratios):
    benchmark.group = f"{case.operation}, float32, {case.size}"
    times = {"fastsoftmax": [], rival: []}

    def turn(name):
        times[name].append(workers[name].ask("time", case))
        return times[name][-1]

    def theirs():
        global _elapsed
        _elapsed += turn(rival)

    for name in times:
        workers[name].ask("time", case)  # warm
    benchmark.pedantic(theirs, setup=lambda: turn("fastsoftmax") and None, rounds=TURNS)
    ratio = median_ratio(times[rival], times["fastsoftmax"])
    benchmark.extra_info |= {"fastsoftmax": statistics.median(times["fastsoftmax"]), "ratio": ratio}
    ratios.append((f"{RIVALS[rival].label}, {benchmark.group}", ratio))
