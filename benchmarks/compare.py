"""Print, as a Markdown table, times and errors next to other libraries.

One thread each, every library in a process of its own, in turns: ``python benchmarks/compare.py``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from rivals import RIVALS
from turns import Workers

import fastsoftmax
from fastsoftmax._comparison import Case, figure, median_ratio

BEGIN, END = "<!-- figures: python benchmarks/compare.py --into FILE -->", "<!-- end of figures -->"
OURS = "fastsoftmax"
OTHERS = ("numpy", "scipy", "torch")
SCORES_32 = [
    Case("softmax", "float32", shape) for shape in ((10,), (4096, 10), (1024, 100), (256, 1000), (64, 32000))
]
SCORES_64 = [Case("softmax", "float64", shape) for shape in ((10,), (4096, 10), (1024, 100), (256, 1000))]
RELATIVES = [
    Case("softmax", "float32", (256, 1000), 0),
    Case("log_softmax", "float32", (256, 1000)),
    Case("logsumexp", "float32", (256, 1000)),
    Case("sigmoid", "float32", (256, 1000), None),
]
LOSSES = [
    Case(operation, "float32", shape)
    for operation in (
        "cross_entropy",
        "cross_entropy_value_and_grad",
        "binary_cross_entropy_with_logits_value_and_grad",
    )
    for shape in ((1024, 100), (256, 1000), (64, 32000))
]


def machine() -> str:
    """The processor, the backend and the versions, in one line."""
    packages = [RIVALS[name].package for name in OTHERS if RIVALS[name].installed]
    versions = [f"{RIVALS[package].label} {importlib.metadata.version(package)}" for package in packages]
    python = f"Python {platform.python_version()}"
    return f"{processor()}, backend {fastsoftmax.config()['backend']}; {', '.join([python, *versions])}"


def processor() -> str:
    """The model of the processor, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def rows(cases: Sequence[Case], turns: int) -> Iterator[str]:
    """The lines of the table, each as soon as it is measured."""
    names = [name for name in (OURS, *OTHERS) if RIVALS[name].installed]
    labels = [RIVALS[name].label for name in names]
    columns = ["operation", "dtype", "shape", "time"]
    columns += [f"× {label}" for label in labels[1:]] + ["ulp", *(f"ulp {label}" for label in labels[1:])]
    yield line(columns)
    yield line(["---"] * 3 + ["---:"] * (len(columns) - 3))
    with Workers() as workers:
        for case in cases:
            times, errors = workers.take_turns(case, names, turns), workers.errors(case, names)
            ratios = {name: median_ratio(times[name], times[OURS]) for name in times}
            yield line(
                [
                    case.operation,
                    case.dtype,
                    place(case),
                    f"{figure(statistics.median(times[OURS]) * 1e6)} µs",
                ]
                + [figure(ratios.get(name)) for name in names[1:]]
                + [figure(errors[name]) for name in names]
            )


def place(case: Case) -> str:
    """The shape, and the axis unless it is the last."""
    axis = "" if case.axis in (-1, None) else f", axis {case.axis}"
    return case.size.replace("x", " × ") + axis


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def insert(text: str, path: Path) -> None:
    """Replace what stands between the two marks of a file."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{path} has no lines {BEGIN!r} and {END!r}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--turns", type=int, default=41, help="how often each is timed (default: %(default)s)"
    )
    parser.add_argument(
        "--into", type=Path, nargs="+", default=[], metavar="FILE", help="put the table there"
    )
    options = parser.parse_args()
    lines = [machine(), ""]
    print(*lines, sep="\n")
    for text in rows(SCORES_32 + SCORES_64 + RELATIVES + LOSSES, options.turns):
        print(text, flush=True)
        lines.append(text)
    for path in options.into:
        insert("\n".join(lines), path)


if __name__ == "__main__":
    main()
