"""Figures of a case: times, ratios and errors of this package and of its rivals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .cases import Case
from .measuring import median_ratio
from .rivals import LIBRARIES, OURS
from .turns import Workers

CASE_SECONDS = 4.0  # of taking turns
MOST_CHECKED = 2**22  # elements, of which longdouble takes a second


class Row(NamedTuple):
    """Medians in seconds, medians of the ratios to this package's times, and largest errors, by
    rival.

    `fresh` are rivals that have no `out=`, and whose time is that with a new array, though the case
    has one.
    """

    case: Case
    seconds: dict[str, float]
    ratios: dict[str, float]
    ulp: dict[str, float]
    fresh: tuple[str, ...] = ()

    @property
    def best(self) -> str | None:
        """The fastest of the other libraries."""
        libraries = [name for name in self.ratios if name in LIBRARIES]
        return min(libraries, key=lambda name: self.ratios[name], default=None)

    @property
    def best_ratio(self) -> float | None:
        return None if self.best is None else self.ratios[self.best]

    def per_element(self, name: str) -> float:
        """Seconds."""
        return self.seconds[name] / self.case.elements

    def as_json(self) -> dict[str, Any]:
        ulp = {name: None if math.isnan(error) else error for name, error in self.ulp.items()}
        figures = {
            "seconds": self.seconds,
            "ratios": self.ratios,
            "best": self.best,
            "ulp": ulp,
            "fresh": self.fresh,
        }
        return self.case._asdict() | figures


def measured(workers: Workers, case: Case, names: Sequence[str], turns: int) -> Row:
    """Have the rivals that can compute a case take turns."""
    row = timed(case, workers.take_turns(case, names, turns, CASE_SECONDS))
    able = [name for name in row.seconds if name == OURS or name in LIBRARIES]
    return row._replace(ulp=workers.errors(case, able)) if case.elements <= MOST_CHECKED else row


def swept(workers: Workers, case: Case, names: Sequence[str], turns: int) -> Row:
    """Times alone; of rivals without `out=` those with a new array."""
    able = workers.able(case, names)
    new = case._replace(out=False)
    fresh = workers.able(new, [name for name in names if name not in able]) if case.out else []
    who = {name: (name, case if name in able else new) for name in (*able, *fresh)}
    return timed(case, workers.pairs(who, turns, CASE_SECONDS))._replace(fresh=tuple(fresh))


def timed(case: Case, times: dict[str, list[float]]) -> Row:
    seconds = {name: statistics.median(samples) for name, samples in times.items()}
    ours = times.get(OURS)
    ratios = (
        {name: median_ratio(times[name], ours) for name in times if name != OURS} if ours else {}
    )
    return Row(case, seconds, ratios, {})


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """None without any."""
    values = list(ratios)
    return statistics.geometric_mean(values) if values else None


def means(rows: Sequence[Row], names: Sequence[str]) -> dict[str, float]:
    """Geometric means of ratios, by rival; `best` is that of the fastest library of each row."""
    found = {
        name: geometric_mean(row.ratios[name] for row in rows if name in row.ratios)
        for name in names
    }
    found["best"] = geometric_mean(row.best_ratio for row in rows if row.best_ratio is not None)
    return {name: mean for name, mean in found.items() if mean is not None}
