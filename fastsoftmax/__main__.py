"""The command line: ``python -m fastsoftmax``, alone or with ``info``, ``explain`` or ``bench``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import fastsoftmax

from . import _explain
from .bench import command
from .bench.cases import Case
from .bench.formulas import OPERATIONS, Array
from .bench.measuring import figure, interleaved, largest_error, median_ratio

ROW_SECONDS = 0.5  # of measuring, for each row of the table


CASES = (
    Case("softmax", "float32", (10,)),
    Case("softmax", "float32", (4096, 10)),
    Case("softmax", "float32", (1024, 100)),
    Case("softmax", "float32", (256, 1000)),
    Case("softmax", "float32", (64, 32000)),
    Case("softmax", "float32", (32, 1000), 0),
    Case("softmax", "float64", (10,)),
    Case("softmax", "float64", (1024, 100)),
    Case("softmax", "float64", (256, 1000)),
    Case("log_softmax", "float32", (256, 1000)),
    Case("logsumexp", "float32", (256, 1000)),
    Case("sigmoid", "float32", (256, 1000), None),
)

EXPLANATION = """
Scores drawn from N(0, 3), one thread each. Times and ratios: medians over repetitions that take
turns. Errors: the largest of all results, in units in the last place (ulp), against the formula in
np.longdouble.
"""
COLUMNS = "{:<11} {:<7} {:>9} {:>4} |{:>9}{:>9}{:>13} |{:>7}{:>7} |{:>7}{:>7}{:>13}"
GROUPS = f"{'':<34} |{'time, us':>31} |{'x faster':>14} |{'largest error, ulp':>27}"
NAMES = ("NumPy", "SciPy", "fastsoftmax")


def implementations(case: Case) -> dict[str, Callable[[Array], Any]]:
    """The row's operation as NumPy, SciPy (if installed) and this package compute it."""
    operation = OPERATIONS[case.operation]
    scipy = scipy_function(operation.scipy)
    functions: dict[str, Callable[[Array], Any]] = {
        "NumPy": partial(operation.numpy, **case.axis_option)
    }
    if scipy is not None:
        functions["SciPy"] = partial(scipy, **case.axis_option)
    # This package is called as users do, without the axis that is its default.
    functions["fastsoftmax"] = partial(
        operation.ours, **({} if case.axis == -1 else case.axis_option)
    )
    return functions


def scipy_function(name: str) -> Callable[..., Any] | None:
    """A function of scipy.special; None without SciPy."""
    try:
        return getattr(importlib.import_module("scipy.special"), name)  # type: ignore[no-any-return]
    except ImportError:
        return None


def measure(case: Case) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Times in seconds, and largest errors in ulp, by implementation."""
    x = case.scores()
    functions = implementations(case)
    times = interleaved(
        {name: partial(function, x) for name, function in functions.items()}, ROW_SECONDS
    )
    exact = case.reference()
    return times, {name: largest_error(function(x), exact) for name, function in functions.items()}


def table_rows(cases: Sequence[Case]) -> Iterator[str]:
    """The lines of the table, each as soon as it is measured."""
    yield GROUPS
    yield COLUMNS.format("operation", "dtype", "shape", "axis", *NAMES, *NAMES[:2], *NAMES)
    for case in cases:
        yield table_row(case, *measure(case))


def table_row(case: Case, times: dict[str, list[float]], errors: dict[str, float]) -> str:
    microseconds = {name: statistics.median(samples) * 1e6 for name, samples in times.items()}
    ratios = {name: median_ratio(samples, times["fastsoftmax"]) for name, samples in times.items()}
    return COLUMNS.format(
        case.operation,
        case.dtype,
        case.size,
        "" if case.axis is None else case.axis,
        *(figure(microseconds.get(name)) for name in NAMES),
        *(figure(ratios.get(name)) for name in NAMES[:2]),
        *(figure(errors.get(name)) for name in NAMES),
    )


def print_table() -> None:
    """Compare with NumPy and SciPy, one thread each."""
    print(EXPLANATION)
    before = fastsoftmax.get_num_threads()
    fastsoftmax.set_num_threads(1)
    try:
        for line in table_rows(CASES):
            print(line.rstrip(), flush=True)
    finally:
        fastsoftmax.set_num_threads(before)


def print_info(as_json: bool) -> None:
    """Print the configuration."""
    if as_json:
        print(json.dumps(fastsoftmax.config(), indent=2))
    else:
        fastsoftmax.show_config()


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if options.command == "info":
        print_info(options.json)
    elif options.command == "explain":
        _explain.run(options)
    elif options.command == "bench":
        command.run(options)
    else:
        print_info(as_json=False)
        print_table()


def parser() -> argparse.ArgumentParser:
    description = (
        "Without a command: print the configuration, then time and error next to NumPy and SciPy."
    )
    main_parser = argparse.ArgumentParser(prog="python -m fastsoftmax", description=description)
    commands = main_parser.add_subparsers(dest="command", metavar="command")
    info = commands.add_parser("info", help="print the configuration alone")
    info.add_argument("--json", action="store_true", help="as JSON")
    _explain.add_to(commands)
    command.add_to(commands)
    return main_parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line."""
    options = parser().parse_args(arguments)
    try:
        run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:  # what was measured until then has been printed
        sys.exit(130)
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
