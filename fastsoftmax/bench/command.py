"""``python -m fastsoftmax bench``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import machine, plot, report
from .cases import CLASS_LOSSES, FILLS_OUT, Case, case_of
from .formulas import OPERATIONS
from .losses import LOSSES, WITH_GRADIENT
from .rivals import COPY, EXP, LIBRARIES, OURS, RIVALS
from .rows import Row, measured, swept
from .turns import Workers

NAMES = (*OPERATIONS, *LOSSES, *(f"{loss}{WITH_GRADIENT}" for loss in LOSSES))
DTYPES = ("float16", "float32", "float64")
TINY = 1000  # elements, up to which np.exp tells something

OPERATIONS_BY_DEFAULT = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "sigmoid",
    "cross_entropy_value_and_grad",
)
SHAPES_BY_DEFAULT = ((10,), (4096, 10), (1024, 100), (256, 1000), (64, 32000))


class Plan(NamedTuple):
    """What a command line asks for."""

    cases: list[Case]
    names: list[str]
    turns: int
    sweep: list[Case]  # more cases, for the picture


# --- the command line -----------------------------------------------------------------------------


def add_to(commands: Any) -> None:
    """Declare the command among others."""
    text = (
        "Time and error next to other libraries: those that are installed, each in a process of its"
        " own."
    )
    parser = commands.add_parser("bench", help="compare with other libraries", description=text)
    parser.add_argument(
        "--operations",
        type=listed(one_of(NAMES)),
        help=f"of {', '.join(NAMES)} (separated by commas)",
    )
    parser.add_argument("--dtypes", type=listed(one_of(DTYPES)), help=f"of {', '.join(DTYPES)}")
    parser.add_argument(
        "--shapes", type=listed(shape), help="such as 10,256x1000; operations run along rows"
    )
    parser.add_argument(
        "--rivals", type=listed(one_of(LIBRARIES)), help=f"of {', '.join(LIBRARIES)}"
    )
    parser.add_argument(
        "--turns", type=positive, help="how often each is timed (21; with --quick 5)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="softmax of float32 alone, unless told otherwise"
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="all figures, instead of the table or to a file",
    )
    parser.add_argument(
        "--plot", type=picture, metavar="FILE", help='draw a picture (needs the extra "bench")'
    )
    parser.set_defaults(bench_parser=parser)


def listed(one: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A type of arguments: several of something, separated by commas."""

    def several(text: str) -> list[Any]:
        return [one(part.strip()) for part in text.split(",")]

    return several


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return name


def shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 10 or 256x1000")
    return tuple(map(int, text.split("x")))


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def picture(text: str) -> Path:
    """A file that can be drawn to: told before anything is measured."""
    try:
        known = plot.formats()
    except ImportError as error:
        raise argparse.ArgumentTypeError(
            f'the picture needs matplotlib ({error}): pip install "fastsoftmax[bench]"'
        ) from error
    path = Path(text)
    if path.suffix[1:].lower() not in known:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not end in one of {', '.join(sorted(known))}"
        )
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


# --- what is measured -----------------------------------------------------------------------------


def plan(options: argparse.Namespace) -> Plan:
    operations = options.operations or (
        OPERATIONS_BY_DEFAULT[:1] if options.quick else OPERATIONS_BY_DEFAULT
    )
    dtypes = options.dtypes or (("float32",) if options.quick else ("float32", "float64"))
    cases = list(cases_of(operations, dtypes, options.shapes or SHAPES_BY_DEFAULT))
    if not cases:
        options.bench_parser.error("losses of classes need shapes of two dimensions")
    libraries = options.rivals or LIBRARIES
    turns = options.turns or (5 if options.quick else 21)
    sweep = list(plot.sweep(operations[0], dtypes[0], options.quick)) if options.plot else []
    return Plan(cases, [OURS, *libraries, COPY, EXP], turns, sweep)


def cases_of(
    operations: Iterable[str], dtypes: Sequence[str], shapes: Sequence[tuple[int, ...]]
) -> Iterator[Case]:
    """Every combination that there is:
    first with a new array for the result, then with one that exists.
    """
    for operation in operations:
        for dtype in dtypes:
            for dimensions in shapes:
                if operation in CLASS_LOSSES and len(dimensions) != 2:
                    continue
                yield case_of(operation, dtype, dimensions)
                if operation in FILLS_OUT:
                    yield case_of(operation, dtype, dimensions, out=True)


def names_for(case: Case, names: Sequence[str]) -> list[str]:
    """np.exp is the yardstick of tiny calls, and a waste of time for others."""
    return [name for name in names if name != EXP or case.elements <= TINY]


def measure(workers: Workers, wanted: Plan) -> Iterator[Row]:
    """The rows of the table, each as soon as it is measured."""
    for case in wanted.cases:
        yield measured(workers, case, names_for(case, wanted.names), wanted.turns)


def measure_sweep(workers: Workers, wanted: Plan) -> list[Row]:
    """What the picture needs besides."""
    names = [name for name in wanted.names if name != EXP]
    return [swept(workers, case, names, wanted.turns) for case in wanted.sweep]


# --- running it -----------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    wanted = plan(options)
    installed = [name for name in wanted.names if RIVALS[name].installed]
    table = report.Table(installed, (case.operation for case in wanted.cases))
    say = silent if options.json == "-" else print_now
    say(machine.described(wanted.names), report.EXPLANATION, "", table.head())
    rows = []
    with Workers() as workers:
        for row in measure(workers, wanted):
            rows.append(row)
            say(table.row(row))
        say(table.summary(rows), "", *table.errors(rows))
        more = measure_sweep(workers, wanted)
        say("", *report.notes(workers))
        found = report.record(workers, wanted.names, rows, wanted.turns)
        found["sweep"] = [row.as_json() for row in more]
    if options.json:
        write(found, options.json)
    if options.plot:
        plot.draw(rows, more, wanted.names, options.plot)
        say(f"drawn: {options.plot}")


def print_now(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def silent(*lines: str) -> None:
    """Instead of `print_now`."""


def write(found: dict[str, Any], where: str) -> None:
    """To a file, or to the standard output."""
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    if where == "-":
        sys.stdout.write(text)
    else:
        Path(where).write_text(text, encoding="utf-8")
