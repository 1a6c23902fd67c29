"""Measure anew what the package wants to reach, and say what is met: ``python
benchmarks/targets.py``.

Every figure is the median ratio of times of processes that take turns, but for memory; those of two
threads are medians of several rounds of such. ``--only tiny axis`` measures some of the rows,
``--quick`` fewer shapes and turns, ``--into FILE`` puts the table into a document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import memory
from documents import insert, line
from quiet import two_cores_are_free

from fastsoftmax.bench import machine
from fastsoftmax.bench.cases import Case, case_of
from fastsoftmax.bench.measuring import figure, median_ratio
from fastsoftmax.bench.rivals import COPY, EXP, LIBRARIES, OURS, RIVALS, TWO_THREADS
from fastsoftmax.bench.turns import Workers

TURNS, QUICK_TURNS = 31, 7
SECONDS = 4.0  # of turns for one figure; LEAST_TURNS are taken in any case
ROUNDS = 5  # of all figures of two threads: another program may have a core for a second
PATIENCE = 90.0  # seconds to wait for two free cores, before all figures that need them
# slower than the fastest library by more, in a first call, is not measured further
CONTENDERS = 2.0

ELEMENTS_IN_CACHE = 250_000  # 1 or 2 MB of scores
LENGTHS = (
    2,
    3,
    4,
    5,
    7,
    8,
    10,
    13,
    16,
    17,
    24,
    32,
    33,
    48,
    64,
    65,
    100,
    128,
    200,
    256,
    500,
    1000,
    2000,
)
LENGTHS += (4000, 8000, 16_000, 32_000)
QUICK_LENGTHS = (2, 5, 10, 32, 100, 1000, 32_000)
SHORT = (2, 3, 4, 5, 6, 8, 10, 12, 14, 16)
SHORT_IN_MANY_ROWS = (2, 5, 10, 16)
OUT_OF_CACHE = ((16_000, 1000), (4000, 4000), (500, 32_000), (32, 1_000_000))
AXIS_SHAPES = ((1000, 100), (100, 1000), (256, 1000), (1000, 1000), (32, 32_000), (4000, 4000))
GRADIENT_SHAPES = ((1024, 100), (256, 1000), (64, 32_000))
WITH_OUT = ("softmax", "softmin", "log_softmax", "sigmoid", "log_sigmoid", "softplus")
WITH_OUT += ("softmax_vjp", "log_softmax_vjp", "sigmoid_vjp", "cross_entropy_value_and_grad")
WITH_OUT += ("binary_cross_entropy_with_logits_value_and_grad",)
OF_64_MIB = (16_384, 1024)


class Detail(NamedTuple):
    """One figure, and what it belongs to."""

    what: str
    value: float


class Found(NamedTuple):
    """The figures of a line of the table, their worst and the verdict."""

    row: str
    what: str
    shown: str
    target: str
    met: str
    details: list[Detail]


class Bench:
    """The processes, and how long they take turns."""

    def __init__(self, workers: Workers, quick: bool) -> None:
        self.workers, self.quick, self.turns = workers, quick, QUICK_TURNS if quick else TURNS
        self.patience = PATIENCE

    def some(self, values: tuple) -> tuple:
        """The first of several, where it must be quick."""
        return values[:1] if self.quick else values

    def ratio(self, above: tuple[str, Case], below: tuple[str, Case]) -> float:
        """Time of one / time of the other."""
        times = self.workers.pairs({"above": above, "below": below}, self.turns, SECONDS)
        if len(times) < 2:
            raise SystemExit(
                f"not measured: {above}, {below}: {self.workers.absent} {self.workers.failed}"
            )
        return median_ratio(times["above"], times["below"])

    def wait_for_two_cores(self) -> None:
        start = time.perf_counter()
        two_cores_are_free(self.patience)
        self.patience -= time.perf_counter() - start

    def fastest(self, case: Case) -> Detail:
        """Time of the fastest library / ours."""
        first = {name: self.workers.ask(name, "time", case) for name in LIBRARIES}
        known = {name: time for name, time in first.items() if time is not None}
        names = [name for name, time in known.items() if time < CONTENDERS * min(known.values())]
        times = self.workers.take_turns(case, [OURS, *names], self.turns, SECONDS)
        ratios = {name: median_ratio(times[name], times[OURS]) for name in names if name in times}
        best = min(ratios, key=ratios.get)
        return Detail(f"{describe(case)}, {RIVALS[best].label}", ratios[best])


def describe(case: Case) -> str:
    axis = "" if case.axis in (-1, None) else f" axis {case.axis}"
    return f"{case.operation} {case.dtype} {case.size}{axis}{' out=' if case.out else ''}"


# --- verdicts -------------------------------------------------------------------------------------


def at_least(
    row: str, what: str, bound: float, details: Iterable[Detail], mean: float | None = None
) -> Found:
    """The smallest figure counts, and the geometric mean if that has a bound, too."""
    details = list(details)
    worst = min(details, key=lambda detail: detail.value)
    met = worst.value >= bound
    shown, target = f"{figure(worst.value)} ({worst.what})", f"≥ {bound:g}"
    if len(details) > 1:
        average = statistics.geometric_mean(detail.value for detail in details)
        shown += f"; geometric mean of {len(details)}: {figure(average)}"
        met = met and (mean is None or average >= mean)
    target += f", mean ≥ {mean:g}" if mean else ""
    return Found(row, what, shown, target, "yes" if met else "no", details)


def at_most(row: str, what: str, bound: float, details: Iterable[Detail], unit: str = "") -> Found:
    """The largest figure counts."""
    details = list(details)
    if not details:
        return Found(row, what, "not measured here", f"≤ {bound:g}{unit}", "-", [])
    worst = max(details, key=lambda detail: detail.value)
    shown = f"{figure(worst.value)}{unit} ({worst.what})"
    if len(details) > 1 and not unit:
        average = statistics.geometric_mean(detail.value for detail in details)
        shown += f"; geometric mean of {len(details)}: {figure(average)}"
    return Found(
        row, what, shown, f"≤ {bound:g}{unit}", "yes" if worst.value <= bound else "no", details
    )


# --- the rows -------------------------------------------------------------------------------------


def tiny(bench: Bench) -> Iterator[Found]:
    case = Case("softmax", "float32", (10,))
    detail = Detail(describe(case), bench.ratio((OURS, case), (EXP, case)))
    found = at_most("tiny", "time of a call / of np.exp, 10 elements", 1.0, [detail])
    met = "the first" if 1.0 < detail.value <= 1.5 else found.met
    yield found._replace(target="≤ 1.5, then ≤ 1", met=met)


def cache(bench: Bench) -> Iterator[Found]:
    lengths = QUICK_LENGTHS if bench.quick else LENGTHS
    for out in (False, True):
        for dtype in ("float32", "float64"):
            cases = [
                case_of("softmax", dtype, (max(1, ELEMENTS_IN_CACHE // n), n), out) for n in lengths
            ]
            what = f"in cache, {dtype}{', out=' if out else ''}: fastest library / ours"
            yield at_least("cache", what, 1.5, map(bench.fastest, cases), mean=2.5)


def short(bench: Bench) -> Iterator[Found]:
    rows = (1000,) if bench.quick else (1000, 10_000, 100_000)
    shapes = [(count, n) for count in rows for n in SHORT]
    shapes += [] if bench.quick else [(1_000_000, n) for n in SHORT_IN_MANY_ROWS]
    for dtype in ("float32", "float64"):
        cases = [case_of("softmax", dtype, shape) for shape in shapes]
        yield at_least(
            "short", f"short rows, {dtype}: fastest library / ours", 3, map(bench.fastest, cases)
        )


def copy(bench: Bench) -> Iterator[Found]:
    for dtype in bench.some(("float32", "float64")):
        cases = [case_of("softmax", dtype, shape, out=True) for shape in bench.some(OUT_OF_CACHE)]
        what = f"out of cache, {dtype}, out=: np.copyto / softmax"
        yield at_least("copy", what, 1.0, [against_copy(bench, case) for case in cases])


def against_copy(bench: Bench, case: Case) -> Detail:
    return Detail(describe(case), bench.ratio((COPY, case), (OURS, case)))


def reads(bench: Bench) -> Iterator[Found]:
    for operation in ("logsumexp", "cross_entropy"):
        cases = [case_of(operation, "float32", shape) for shape in bench.some(OUT_OF_CACHE)]
        what = f"out of cache: np.copyto / {operation}"
        yield at_least("reads", what, 1.5, [against_copy(bench, case) for case in cases])


def gradient(bench: Bench) -> Iterator[Found]:
    for operation in (
        "cross_entropy_value_and_grad",
        "binary_cross_entropy_with_logits_value_and_grad",
    ):
        cases = [case_of(operation, "float32", shape) for shape in GRADIENT_SHAPES]
        found = [
            Detail(describe(case), bench.ratio(("torch", case), (OURS, case))) for case in cases
        ]
        yield at_least("gradient", f"PyTorch forward + backward / {operation}", 4, found)


def axis(bench: Bench) -> Iterator[Found]:
    for operation in bench.some(("softmax", "log_softmax", "logsumexp")):
        for dtype in bench.some(("float32", "float64")):
            out = operation != "logsumexp"
            cases = [case_of(operation, dtype, shape, out) for shape in AXIS_SHAPES]
            found = [
                Detail(describe(case), bench.ratio((OURS, case._replace(axis=0)), (OURS, case)))
                for case in cases
            ]
            yield at_most("axis", f"{operation}, {dtype}: axis 0 / axis -1", 1.3, found)


def long_row(bench: Bench) -> Iterator[Found]:
    cases = [case_of("softmax", dtype, (10_000_000,), out=True) for dtype in ("float32", "float64")]
    found = threads_help(bench, cases)
    yield undisturbed(
        at_least("long-row", "one row of 10⁷, out=: 1 thread / 2 threads", 1.7, found)
    )


def threads_help(bench: Bench, cases: list[Case]) -> list[Detail]:
    rounds = []
    for _ in range(1 if bench.quick else ROUNDS):
        bench.wait_for_two_cores()
        rounds.append([bench.ratio((OURS, case), (TWO_THREADS, case)) for case in cases])
    return [
        Detail(describe(case), statistics.median(ratios))
        for case, ratios in zip(cases, zip(*rounds, strict=True), strict=True)
    ]


def undisturbed(found: Found) -> Found:
    """No verdict on two threads if another program has one of the cores."""
    return found if found.met == "yes" or two_cores_are_free(0) else found._replace(met="disturbed")


def threads(bench: Bench) -> Iterator[Found]:
    shape = (1000, 1000)
    cases = [case_of(operation, "float32", shape, out=True) for operation in bench.some(WITH_OUT)]
    cases += [case_of(operation, "float32", shape) for operation in ("logsumexp", "cross_entropy")]
    found = threads_help(bench, cases)
    yield undisturbed(
        at_least("threads", "10⁶ elements in cache, out=: 1 thread / 2 threads", 1.8, found)
    )


def fresh(bench: Bench) -> Iterator[Found]:
    for name in (OURS, TWO_THREADS):
        case = case_of("softmax", "float32", OF_64_MIB)
        found = [Detail(describe(case), bench.ratio((name, case), (name, case._replace(out=True))))]
        threads = "1 thread" if name == OURS else "2 threads"
        yield at_most("fresh", f"64 MiB, {threads}: new result / out=", 1.3, found)


def half(bench: Bench) -> Iterator[Found]:
    single = case_of("softmax", "float32", OF_64_MIB, out=True)
    cases = [single._replace(dtype=dtype) for dtype in ("float16", "bfloat16")]
    found = [Detail(describe(case), bench.ratio((OURS, case), (OURS, single))) for case in cases]
    yield at_most("half", "out of cache, out=: 16 bits / float32", 0.8, found)


def extra(bench: Bench) -> Iterator[Found]:
    found = [Detail(what, max(0.0, value)) for what, value in memory.measured(bench.quick)]
    yield at_most(
        "memory", "peak beyond arguments and results, of each of 2 threads", 1, found, unit=" MiB"
    )


ROWS: dict[str, Callable[[Bench], Iterator[Found]]] = {
    "tiny": tiny,
    "cache": cache,
    "short": short,
    "copy": copy,
    "reads": reads,
    "gradient": gradient,
    "axis": axis,
    "long-row": long_row,
    "threads": threads,
    "fresh": fresh,
    "half": half,
    "memory": extra,
}


# --- the script -----------------------------------------------------------------------------------


def table(rows: Iterable[str], quick: bool, found: list[Found]) -> Iterator[str]:
    """Lines of the table, each as soon as it is measured."""
    yield line(("row", "what", "worst", "target", "met"))
    yield line(("---",) * 5)
    with Workers() as workers:
        bench = Bench(workers, quick)
        for row in rows:
            for result in ROWS[row](bench):
                found.append(result)
                yield line(result[:5])
        for name, reason in workers.absent.items():
            print(f"without {RIVALS[name].label}: {reason}", file=sys.stderr)


def as_json(found: list[Found]) -> str:
    rows = [
        result._asdict() | {"details": [detail._asdict() for detail in result.details]}
        for result in found
    ]
    where = {"machine": machine.machine(), "versions": machine.versions((OURS, *LIBRARIES))}
    return json.dumps(where | {"rows": rows}, indent=1, ensure_ascii=False) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--quick", action="store_true", help="fewer shapes, fewer turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, not only the worst")
    parser.add_argument(
        "--into", type=Path, nargs="+", default=[], metavar="FILE", help="put the table there"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    found: list[Found] = []
    where = machine.machine()
    lines = [
        machine.described((OURS, *LIBRARIES)),
        f"Load average at the start: {where['load']}",
        "",
    ]
    print(*lines, sep="\n")
    for text in table(options.only, options.quick, found):
        print(text, flush=True)
        lines.append(text)
    if options.json:
        options.json.write_text(as_json(found), encoding="utf-8")
    for path in options.into:
        insert("targets.py", lines, path)


if __name__ == "__main__":
    main()
