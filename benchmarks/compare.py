"""Print, as a Markdown table, times and errors next to other libraries.

One thread each, every library in a process of its own, in turns: ``python benchmarks/compare.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from documents import insert, line

from fastsoftmax.bench import machine
from fastsoftmax.bench.cases import Case
from fastsoftmax.bench.measuring import figure
from fastsoftmax.bench.report import notes
from fastsoftmax.bench.rivals import OURS, RIVALS
from fastsoftmax.bench.rows import Row, measured
from fastsoftmax.bench.turns import Workers

# those of many columns; the command has them all
OTHERS = ("numpy", "scipy", "torch", "onnxruntime", "jax")
SCORES_32 = [
    Case("softmax", "float32", shape)
    for shape in ((10,), (4096, 10), (1024, 100), (256, 1000), (64, 32000))
]
SCORES_64 = [
    Case("softmax", "float64", shape) for shape in ((10,), (4096, 10), (1024, 100), (256, 1000))
]
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


def rows(cases: Sequence[Case], turns: int) -> Iterator[str]:
    """The lines of the table, each as soon as it is measured."""
    names = [name for name in OTHERS if RIVALS[name].installed]
    columns = ["operation", "dtype", "shape", "time"]
    columns += [f"× {RIVALS[name].label}" for name in names] + ["ulp", "ulp of the others"]
    yield line(columns)
    yield line(["---"] * 3 + ["---:"] * (len(columns) - 3))
    with Workers() as workers:
        for case in cases:
            yield table_row(measured(workers, case, [OURS, *names], turns), names)
        for note in notes(workers):
            print(note)


def table_row(row: Row, names: Sequence[str]) -> str:
    case, others = row.case, [row.ulp[name] for name in names if name in row.ulp]
    errors = (
        dict.fromkeys(figure(error) for error in (min(others), max(others))) if others else ["-"]
    )
    return line(
        [case.operation, case.dtype, place(case), f"{figure(row.seconds[OURS] * 1e6)} µs"]
        + [figure(row.ratios.get(name)) for name in names]
        + [figure(row.ulp.get(OURS)), " to ".join(errors)]
    )


def place(case: Case) -> str:
    """The shape, and the axis unless it is the last."""
    axis = "" if case.axis in (-1, None) else f", axis {case.axis}"
    return case.size.replace("x", " × ") + axis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--turns", type=int, default=41, help="how often each is timed (default: %(default)s)"
    )
    parser.add_argument(
        "--into", type=Path, nargs="+", default=[], metavar="FILE", help="put the table there"
    )
    options = parser.parse_args()
    lines = [machine.described((OURS, *OTHERS)), ""]
    print(*lines, sep="\n")
    for text in rows(SCORES_32 + SCORES_64 + RELATIVES + LOSSES, options.turns):
        print(text, flush=True)
        lines.append(text)
    for path in options.into:
        insert("compare.py", lines, path)


if __name__ == "__main__":
    main()
