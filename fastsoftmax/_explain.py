"""``python -m fastsoftmax explain``: which driver of the kernels runs a call, and why."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastsoftmax

from . import _backend
from .bench.command import shape

DTYPES = ("float16", "float32", "float64")


class Line(NamedTuple):
    """A line of the table of drivers: the first one that holds decides."""

    driver: str
    condition: str
    measured: str
    holds: bool


class Decision(NamedTuple):
    """What a kernel has decided."""

    operation: str
    lines: list[Line]

    @property
    def driver(self) -> str:
        return next(line.driver for line in self.lines if line.holds)


def _rows(name: str) -> Callable[..., Any]:
    return lambda x, **options: getattr(fastsoftmax, name)(x, **options)


def _gradient(name: str, reduced: bool = False) -> Callable[..., Any]:
    """A vjp: of x itself where the result has x's shape, else of one number for each row."""

    def call(x: Any, axis: int = -1, **options: Any) -> Any:
        g = x.sum(axis) if reduced else x
        return getattr(fastsoftmax, name)(g, x, axis, **options)

    return call


def _labels(name: str, **more: Any) -> Callable[..., Any]:
    """A call for the first class."""

    def call(x: Any, axis: int = -1, **options: Any) -> Any:
        labels = np.zeros_like(x.sum(axis), np.int64)
        return getattr(fastsoftmax, name)(x, labels, axis, **options, **more)

    return call


def _targets(name: str, **more: Any) -> Callable[..., Any]:
    """A loss of a target for each class."""
    return lambda x, **options: getattr(fastsoftmax, name)(x, np.zeros_like(x), **options, **more)


#: Calls on an array x; only what is given on the command line is among the keywords.
CALLS: dict[str, Callable[..., Any]] = {
    **{name: _rows(name) for name in ("softmax", "softmin", "log_softmax", "logsumexp")},
    **{name: _rows(name) for name in ("square_normalize", "hardmax")},
    **{name: _gradient(name) for name in ("softmax_vjp", "log_softmax_vjp")},
    "logsumexp_vjp": _gradient("logsumexp_vjp", reduced=True),
    "square_normalize_vjp": _gradient("square_normalize_vjp"),
    "cross_entropy": _labels("cross_entropy"),
    "cross_entropy_of_targets": _targets("cross_entropy"),
    "cross_entropy_grad_hess": _labels("cross_entropy_grad_hess"),
    "nll_loss_of_targets": _targets("nll_loss", reduction="none"),
    "kl_divergence": _targets("kl_divergence", reduction="none"),
    "kl_divergence_from_logits": _targets("kl_divergence_from_logits"),
    "logprobs": _labels("logprobs"),
    "top_k_logprobs": lambda x, **options: fastsoftmax.top_k_logprobs(x, 1, **options),
}


def explained(operation: str, x: Any, **options: Any) -> Decision | None:
    """What decides how a call runs; None where nothing does.
    The call is made, by the active backend.
    """
    module = _backend.active_module()
    if module is None:
        CALLS[operation](x, **options)  # bad arguments are refused here too
        return None
    module.watch_decisions(True)
    try:
        module.last_decision()  # of earlier calls
        CALLS[operation](x, **options)
        last = module.last_decision()
    finally:
        module.watch_decisions(False)
    return last and Decision(last[0], [Line(*line) for line in last[1]])


def report(found: Decision) -> Iterator[str]:
    """The lines of the table, with yes and no, and the figure that each is worth."""
    width = max(len(line.driver) for line in found.lines)
    decided = False
    for line in found.lines:
        verdict = "" if decided else "yes" if line.holds else "no"
        decided |= line.holds
        yield f"{verdict:>4}  {line.driver:{width}}  {line.condition}"
        yield f"{'':{width + 8}}({line.measured})"


# --- the command line -----------------------------------------------------------------------------


def add_to(commands: Any) -> None:
    """Declare the command among others."""
    text = (
        "Make a call on zeros, and print the table of drivers (kernels/drivers/regime.h) with yes"
        " or no at each line. The first yes decides. Times are ns per element of float32, without"
        " the line and with it."
    )
    parser = commands.add_parser("explain", help="tell which driver runs a call", description=text)
    parser.add_argument(
        "operation", choices=sorted(CALLS), help=", ".join(sorted(CALLS)), metavar="operation"
    )
    parser.add_argument("shape", type=shape, help="such as 4096x10")
    parser.add_argument(
        "dtype", nargs="?", default="float32", choices=DTYPES, help="float32 unless given"
    )
    parser.add_argument(
        "--axis", type=int, help="that the operation runs along; the last one unless given"
    )
    parser.add_argument("--order", choices=("C", "F"), default="C", help="of the array in memory")
    parser.add_argument("--temperature", type=float, help="as the function takes it, where it does")
    parser.add_argument("--base", type=float, help="the same")


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    names = ("axis", "temperature", "base")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    x = np.zeros(options.shape, options.dtype, order=options.order)
    try:
        found = explained(options.operation, x, **given)
    except (TypeError, ValueError) as error:
        raise SystemExit(f"fastsoftmax.{options.operation}: {error}") from None
    what = (
        f"{options.operation} of {'x'.join(map(str, options.shape))} {options.dtype},"
        f" {options.order} order"
    )
    backend = _backend.active()
    if found is None:
        print(f"{what}: the {backend} backend has no drivers to choose from")
        return
    print(f"{what}: {found.driver} (backend {backend}; kernels of {found.operation})")
    print(*report(found), sep="\n")
