"""Tables and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import machine
from .measuring import figure
from .rivals import LIBRARIES, OURS, RIVALS
from .rows import Row, means
from .turns import Workers

DTYPE, SHAPE, TO, NUMBER = 8, 14, 4, 9

ERRORS = "largest error, ulp"
EXPLANATION = """
Scores drawn from N(0, 3), one thread and one process for each library; they take turns. `to`:
whether the result is a new array or goes to one that exists (out=). `us` is the median time of
fastsoftmax; the others' figures are how many times longer they take, medians of the ratios within
a turn. `best` is the fastest library of the row. A plain copy of the scores is the limit; np.exp
tells what a tiny call costs."""


class Table:
    """Lines of a table with a column for each of some rivals."""

    def __init__(self, names: Sequence[str], operations: Iterable[str]) -> None:
        self.width = max(map(len, (ERRORS, *operations))) + 1
        self.others = [name for name in names if name != OURS]

    def head(self) -> str:
        shorts = [RIVALS[name].short for name in self.others]
        return self.line(("operation", "dtype", "shape", "to"), ["us", *shorts, "best"])

    def row(self, row: Row) -> str:
        ours = row.seconds.get(OURS)
        ratios = [row.ratios.get(name) for name in self.others]
        figures = [None if ours is None else ours * 1e6, *ratios, row.best_ratio]
        return self.line((*place(row), "out" if row.case.out else "new"), map(figure, figures))

    def summary(self, rows: Sequence[Row]) -> str:
        found = means(rows, self.others)
        figures = [figure(found.get(name)) for name in (*self.others, "best")]
        return self.line(("geometric mean", "", "", ""), ["", *figures])

    def errors(self, rows: Sequence[Row]) -> Iterator[str]:
        """A table of largest errors."""
        names = [OURS, *(name for name in self.others if name in LIBRARIES)]
        yield self.line(
            (ERRORS, "dtype", "shape", ""), ["ours", *(RIVALS[n].short for n in names[1:])]
        )
        for row in rows:
            if row.ulp and not row.case.out:
                yield self.line((*place(row), ""), (figure(row.ulp.get(name)) for name in names))

    def line(self, texts: Sequence[str], figures: Iterable[str]) -> str:
        operation, dtype, shape, to = texts
        left = f"{operation:<{self.width}}{dtype:<{DTYPE}}{shape:>{SHAPE}} {to:<{TO}}"
        return (left + "".join(f"{text:>{NUMBER}}" for text in figures)).rstrip()


def place(row: Row) -> tuple[str, str, str]:
    """Operation, dtype and shape with an axis that is not the last."""
    axis = "" if row.case.axis in (-1, None) else f" axis {row.case.axis}"
    return row.case.operation, row.case.dtype, row.case.size + axis


def notes(workers: Workers) -> Iterator[str]:
    """Who is not in the table, and why."""
    for name, reason in workers.absent.items():
        yield f"without {RIVALS[name].label}: {reason}"
    failures = Counter((name, reason) for (name, _), reason in workers.failed.items())
    for (name, reason), count in failures.items():
        yield f"{RIVALS[name].label} failed in {count} of the rows: {reason}"


def record(
    workers: Workers, names: Sequence[str], rows: Sequence[Row], turns: int
) -> dict[str, Any]:
    """Everything, for JSON."""
    failed = [
        {"rival": name, **case._asdict(), "reason": reason}
        for (name, case), reason in workers.failed.items()
    ]
    return {
        "machine": machine.machine(),
        "versions": machine.versions(names),
        "turns": turns,
        "rivals": {name: RIVALS[name].label for name in names},
        "absent": dict(workers.absent),
        "failed": failed,
        "rows": [row.as_json() for row in rows],
        "geometric_means": means(rows, names),
    }
