"""One picture: elements per second against size, and error against time.
Nothing else imports matplotlib.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import machine
from .cases import CLASS_LOSSES, FILLS_OUT, Case, case_of
from .rivals import COPY, EXP, OURS, RIVALS
from .rows import Row

# The colours of Okabe and Ito, which the colour-blind tell apart; greys and other markers for the
# rest.
STYLES = {
    OURS: ("#D55E00", "o"),
    "numpy": ("#0072B2", "s"),
    "scipy": ("#56B4E9", "v"),
    "torch": ("#CC79A7", "D"),
    "onnxruntime": ("#009E73", "^"),
    "jax": ("#E69F00", "P"),
    "numexpr": ("#777777", "X"),
    "numba": ("#B5A800", "<"),  # their yellow, darker: lines of it would be lost on white
    "sklearn": ("#AAAAAA", ">"),
    COPY: ("#000000", ""),
}
OPERATION_MARKERS = "o^sDPXv*"
FILLS = {"float16": "left", "float32": "full", "float64": "none"}
COLUMNS = 1000  # of the sweep
SWEEP_ROWS = (1, 4, 16, 64, 250, 1000, 4000, 16000)
QUICK_SWEEP_ROWS = (1, 16, 250)
TINY_SHAPES = ((10,), (100,))
LABEL_STEP = 0.05  # between names at the end of lines, of the height of the panel
MOST_OPERATIONS = 3  # in the right panel: more would hide each other


def formats() -> list[str]:
    """Endings of files that matplotlib writes; raises ImportError without it."""
    base = importlib.import_module("matplotlib.backend_bases")
    return sorted(base.FigureCanvasBase.get_supported_filetypes())


def sweep(operation: str, dtype: str, quick: bool) -> Iterator[Case]:
    """Sizes for the left panel, with a given array for the result where there may be one."""
    rows = QUICK_SWEEP_ROWS if quick else SWEEP_ROWS
    shapes = () if operation in CLASS_LOSSES else TINY_SHAPES
    for shape in (*shapes, *((count, COLUMNS) for count in rows)):
        yield case_of(operation, dtype, shape, out=operation in FILLS_OUT)


def draw(rows: Sequence[Row], swept: Sequence[Row], names: Sequence[str], path: Path) -> None:
    """Write the picture to a file."""
    figure = importlib.import_module("matplotlib.figure").Figure(
        figsize=(13, 6), layout="constrained"
    )
    left, right = figure.subplots(1, 2, width_ratios=(1.12, 1))
    drawn = [name for name in names if name != EXP]
    draw_speed(left, swept, drawn)
    draw_error(right, compared(rows), drawn)
    figure.suptitle("Softmax and relatives on one CPU thread", fontsize=14, fontweight="bold")
    figure.supxlabel(machine.described(names), fontsize=7, color="#555555")
    figure.savefig(path, dpi=100)


# --- elements per second --------------------------------------------------------------------------


def draw_speed(axes: Any, swept: Sequence[Row], names: Sequence[str]) -> None:
    """A line for each library, and its name at the end."""
    ends: dict[str, tuple[float, float]] = {}
    for name in names:
        points = [
            (row.case.elements, 1 / row.per_element(name)) for row in swept if name in row.seconds
        ]
        if points:
            draw_line(axes, name, *zip(*points, strict=True))
            ends[name] = points[-1]
    case = swept[0].case
    axes.set(
        xscale="log", yscale="log", xlabel="elements (rows of 1000)", ylabel="elements per second"
    )
    axes.set_title(f"Speed: {case.operation}, {case.dtype} (higher is better)", fontsize=11)
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    label_ends(axes, ends, {name for row in swept for name in row.fresh})


def draw_line(axes: Any, name: str, x: Sequence[float], y: Sequence[float]) -> None:
    colour, marker = STYLES[name]
    thick = name == OURS
    axes.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=6 if thick else 4,
        linewidth=3 if thick else 1.5,
        linestyle="--" if name == COPY else "-",
        zorder=3 if thick else 2,
    )


def label_ends(axes: Any, ends: dict[str, tuple[float, float]], fresh: set[str]) -> None:
    """Names next to the ends of lines, moved apart."""
    to_panel = axes.transData + axes.transAxes.inverted()
    axes.figure.draw_without_rendering()  # settles the limits
    wanted = sorted((to_panel.transform(point)[1], name) for name, point in ends.items())
    heights = spread([height for height, _ in wanted], LABEL_STEP)
    for (_, name), height in zip(wanted, heights, strict=True):
        star = "*" if name in fresh else ""
        axes.annotate(
            label(name) + star,
            xy=ends[name],
            xytext=(1.03, height),
            textcoords="axes fraction",
            color=STYLES[name][0],
            fontweight="bold" if name == OURS else "normal",
            verticalalignment="center",
            arrowprops={
                "arrowstyle": "-",
                "color": STYLES[name][0],
                "linewidth": 0.5,
                "relpos": (0, 0.5),  # to the left of the name
                "shrinkB": 3,
            },
        )
    if fresh:
        note = "results go to an array that exists (out=);\n* has none: a new array"
        axes.text(
            0.98, 0.02, note, transform=axes.transAxes, ha="right", fontsize=8, color="#555555"
        )


def spread(heights: Sequence[float], step: float) -> list[float]:
    """Ascending heights moved as little as a simple rule can,
    so that neighbours are a step apart.
    """
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + step) if moved else height)
    excess = (sum(moved) - sum(heights)) / max(1, len(moved))
    return [height - excess for height in moved]


def label(name: str) -> str:
    return "plain copy (np.copyto)" if name == COPY else RIVALS[name].label


# --- error against time ---------------------------------------------------------------------------


def compared(rows: Sequence[Row]) -> list[Row]:
    """Rows with errors of one shape: that of the most rows,
    then a matrix of about COLUMNS columns.
    """
    checked = [row for row in rows if row.ulp and not row.case.out]
    shapes = [row.case.shape for row in checked]
    if not shapes:
        return []
    chosen = max(
        shapes, key=lambda shape: (shapes.count(shape), len(shape) == 2, -abs(shape[-1] - COLUMNS))
    )
    found = [row for row in checked if row.case.shape == chosen]
    operations = list(dict.fromkeys(row.case.operation for row in found))[:MOST_OPERATIONS]
    return [row for row in found if row.case.operation in operations]


def draw_error(axes: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    """A marker for each library (colour), operation (shape) and dtype (filled or not)."""
    names = [name for name in names if any(name in row.ulp for row in rows)]
    operations = list(dict.fromkeys(row.case.operation for row in rows))
    markers = dict(zip(operations, OPERATION_MARKERS, strict=False))
    for row in rows:
        for name in names:
            if row.ulp.get(name, 0) > 0:
                draw_point(axes, row, name, markers[row.case.operation])
    shape = rows[0].case.size.replace("x", " × ") if rows else ""
    axes.set(
        xscale="log", yscale="log", xlabel="nanoseconds per element", ylabel="largest error, ulp"
    )
    axes.set_title(f"Error and time: {shape} (lower left is better)", fontsize=11)
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    add_legend(axes, markers, list(dict.fromkeys(row.case.dtype for row in rows)), names)


def plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10 instead of powers of ten."""
    ticker = importlib.import_module("matplotlib.ticker")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(ticker.NullFormatter())


def draw_point(axes: Any, row: Row, name: str, marker: str) -> None:
    colour = STYLES[name][0]
    axes.plot(
        row.per_element(name) * 1e9,
        row.ulp[name],
        linestyle="",
        marker=marker,
        color=colour,
        fillstyle=FILLS[row.case.dtype],
        markeredgewidth=1.6,
        markersize=11 if name == OURS else 7,
        zorder=3 if name == OURS else 2,
    )


def add_legend(
    axes: Any, markers: dict[str, str], dtypes: Sequence[str], names: Sequence[str]
) -> None:
    """What colours mean, and what shapes and fillings do."""
    line = importlib.import_module("matplotlib.lines").Line2D
    grey = {"linestyle": "", "color": "#444444", "markersize": 7}
    handles = [
        line([], [], linestyle="", marker="o", color=STYLES[name][0], label=RIVALS[name].label)
        for name in names
    ]
    handles.append(line([], [], linestyle="", label=" "))
    handles += [line([], [], marker=marker, label=name, **grey) for name, marker in markers.items()]
    handles += [
        line([], [], marker="h", fillstyle=FILLS[dtype], label=dtype, **grey) for dtype in dtypes
    ]
    axes.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, frameon=False
    )
