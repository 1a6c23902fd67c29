"""Breed the rows on which an operation is least exact, and say how far from its bound they are.

    python tools/worst_rows.py                     # every operation, backend and dtype, 10 s each
    python tools/worst_rows.py --operation softmax --backend avx512 --dtype float32 --seconds 600
    python tools/worst_rows.py --keep              # and add the finds to tests/worst_rows.json

Errors that random inputs never meet are found by selection: of a population of rows the worst are
kept, mutated (some numbers move by a few units in the last place, are drawn anew, or repeat) and
crossed. A population has one length, one layout, one set of options and one kind of row to begin
with; when it has stopped getting worse, another one begins. Errors are those that the tests count,
against their exact references. The exit status is 1 if a bound was exceeded.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
FINDS = TESTS / "worst_rows.json"
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

import losses  # noqa: E402  (the path comes first)
from cases import CASES, FLOATS, errors  # noqa: E402

import fastsoftmax as fs  # noqa: E402

POPULATION = 128
PATIENCE = 60  # generations without a worse row after which another population begins
LENGTHS = (
    2,
    3,
    5,
    7,
    10,
    16,
    20,
    25,
    31,
    33,
    41,
    48,
    63,
    64,
    65,
    80,
    100,
    128,
    160,
    200,
    256,
    384,
    500,
    768,
)
LAYOUTS = ("rows", "columns", "one row")


# --- rows to begin with ---------------------------------------------------------------------------


def _filled(rng, shape):
    """A maximum that nearly fills the sum, or half of it, next to others of one size."""
    rest = 10.0 ** rng.uniform(-8, 1, (shape[0], 1))
    x = np.log(rest / shape[1]) + rng.normal(0, 1, shape) * rng.choice([0.0, 0.01, 0.3, 1.0])
    x[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = 0
    return x + rng.normal(0, 3)


def _few(rng, shape):
    """A few logits that count, of about one size, among others far below."""
    x = rng.normal(-60, 10, shape)
    for row in x:
        some = rng.integers(shape[1], size=rng.integers(1, 9))
        row[some] = rng.normal(0, rng.choice([0.01, 0.5, 3]), some.size)
    return x


def _flat(rng, shape):
    return rng.normal(0, 5) + rng.normal(0, rng.choice([1e-6, 1e-3, 0.1, 0.5]), shape)


def _normal(rng, shape):
    return rng.normal(
        rng.choice([0, 0, 0, -300, 1000, 1e5]), rng.choice([0.3, 1, 3, 10, 20]), shape
    )


def _ladder(rng, shape):
    """Each logit about as large as all before it together."""
    steps = rng.uniform(0.3, 1.2) * np.arange(shape[1]) + rng.normal(0, 0.1, shape)
    return rng.permuted(np.maximum(steps - steps.max(axis=1, keepdims=True), -80), axis=1)


def _cancelling(rng, shape):
    """The maximum and the logarithm of the sum nearly cancel."""
    return -np.log(shape[1]) * (1 + rng.normal(0, 1e-2)) + rng.normal(0, 1e-2, shape)


ROWS = (_filled, _filled, _few, _flat, _normal, _ladder, _cancelling)


def _reals(rng, shape):
    return rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(-6, 2.1, shape)


def _probabilities(rng, shape):
    return np.where(
        rng.random(shape) < 0.5, rng.random(shape), 0.5 + 10.0 ** rng.uniform(-8, -0.4, shape)
    )


# --- what is searched -----------------------------------------------------------------------------


@dataclass(frozen=True)
class OfCase:
    """An operation of `cases`."""

    case: object

    @property
    def name(self):
        return self.case.name

    def bound(self, dtype):
        return self.case.bound(dtype)

    def begin(self, rng, shape):
        if not self.case.rowwise:
            return (_probabilities if self.name == "logit" else _reals)(rng, shape)
        rows = ROWS[rng.integers(len(ROWS))](rng, shape)
        if not self.case.of_logits:  # whose squares are as the exponentials of logits
            return rng.choice([-1.0, 1.0], shape) * np.exp(np.clip(rows / 2, -40, 40))
        return -rows if self.name == "softmin" else rows

    def options(self, rng, n):
        """Keywords for a population; none for half of them."""
        kinds = [o for o in self.case.options if o in ("temperature", "base", "b")]
        if rng.random() < 0.5 or not kinds:
            return {}
        kind = rng.choice(kinds)
        if kind == "temperature":
            return {"temperature": float(np.exp(rng.normal(0, 1)))}
        if kind == "base":
            return {"base": float(rng.choice([2, 10, 1.1]))}
        return {"b": rng.choice([1.0, 0.5, 3.0], n) * np.exp(rng.normal(0, rng.choice([0, 1]), n))}

    @np.errstate(all="ignore")
    def errors(self, rows, layout, options):
        """The largest error of each row, in ulp."""
        case = self.case
        if layout == "columns" and case.rowwise:
            turned = {
                name: value[:, None] if np.ndim(value) else value for name, value in options.items()
            }
            got = case.call(np.ascontiguousarray(rows.T), axis=0, **turned)
            found = errors(case, got, rows.T, axis=0, **turned)
            found = found if case.reduced else found.T
        elif layout == "one row":
            got = np.stack([case.call(row, **options) for row in rows])
            found = errors(case, got, rows, **options)
        else:
            found = errors(case, case.call(rows, **options), rows, **options)
        return found.reshape(len(rows), -1).max(axis=1)


def _normal_errors(got, exact):
    """Errors in ulp; none of results below the smallest normal number,
    which every term may round to.
    """
    least = np.finfo(got.dtype).smallest_normal
    tiny = (np.abs(exact.hi) < least) & (np.abs(got) <= least)
    return np.where(tiny, 0, losses.oracle.ulp_error(got, exact))


@dataclass(frozen=True)
class OfLoss:
    """A loss and its gradient, of `losses`: errors are counted in their bounds."""

    loss: losses.Loss

    @property
    def name(self):
        return self.loss.name

    def bound(self, dtype):
        return 1.0

    def begin(self, rng, shape):
        if self.loss.scores == "probs":
            return _probabilities(rng, shape)
        if self.loss.elementwise:
            return _reals(rng, shape)
        rows = ROWS[rng.integers(len(ROWS))](rng, shape)
        return np.minimum(rows, 0) if self.loss.scores.startswith("log_") else rows

    def options(self, rng, n):
        """The targets, the same for all rows, and keywords for half of the populations."""
        kind = rng.choice(self.loss.kinds)
        some = np.zeros((1, n))
        targets = (
            int(rng.integers(n)) if kind == "labels" else self.loss.targets[kind](some, rng)[0]
        )
        options = {"targets": targets}
        if self.loss.name == "cross_entropy" and rng.random() < 0.5:
            options |= {"temperature": float(np.exp(rng.normal(0, 1)))}
        elif self.loss.name == "cross_entropy" and rng.random() < 0.5:
            options |= {"label_smoothing": 0.1}
        return options

    @np.errstate(all="ignore")
    def errors(self, rows, layout, options):
        options = dict(options)
        targets = np.asarray(options.pop("targets"))
        given = (
            np.full(len(rows), targets)
            if not targets.ndim
            else np.tile(targets.astype(rows.dtype), (len(rows), 1))
        )
        problem = losses.Problem(self.loss, rows, given, options)
        axis = 0 if layout == "columns" and not self.loss.elementwise else -1
        loss, grad = problem.answer.reduced("none")
        value, got = problem.value_and_grad(axis, reduction="none")
        got = losses.unflushed(np.moveaxis(got, axis, -1), grad)
        shares = zip((value, got), (loss, grad), self.loss.bounds(options), strict=True)
        found = [_normal_errors(a, exact) / bound for a, exact, bound in shares]
        return np.maximum(*(f.reshape(len(rows), -1).max(axis=1) for f in found))


# The reference of kl_divergence_from_logits cancels for near-equal rows: its own test has a better
# one.
SUBJECTS = [OfCase(case) for case in CASES]
SUBJECTS += [OfLoss(loss) for loss in losses.LOSSES if loss.name != "kl_divergence_from_logits"]
BY_NAME = {subject.name: subject for subject in SUBJECTS}


# --- breeding -------------------------------------------------------------------------------------


@dataclass
class Population:
    """Rows of one length, and what they are given to."""

    subject: OfCase | OfLoss
    layout: str
    options: dict
    rows: np.ndarray
    error: np.ndarray = field(init=False)

    def __post_init__(self):
        self.error = self.measured(self.rows)

    def measured(self, rows):
        return self.subject.errors(rows, self.layout, self.options)

    def step(self, rng):
        """Replace the better rows by children of the worse ones."""
        children = self.children(rng)
        rows, error = (
            np.concatenate([self.rows, children]),
            np.concatenate([self.error, self.measured(children)]),
        )
        keep = np.argsort(-error, kind="stable")[: len(self.rows)]
        self.rows, self.error = rows[keep], error[keep]

    @np.errstate(all="ignore")
    def children(self, rng):
        count, n = self.rows.shape
        parents = self.rows[rng.integers(count, size=(2, count)).min(axis=0)]
        others = self.rows[rng.integers(count, size=count)]
        children = parents.copy()
        crossed = (rng.random((count, n)) < 0.5) & (rng.random((count, 1)) < 0.3)
        children[crossed] = others[crossed]
        share = rng.choice([1, 2, 4, n / 8, n], (count, 1)) / n
        moved = rng.random((count, n)) < share
        steps = rng.integers(-1, 2, (count, n)) * 2 ** rng.integers(
            0, rng.choice([2, 6, 16]), (count, n)
        )
        kind = rng.random((count, 1))
        near = children + steps * np.spacing(np.abs(children))
        drawn = children[np.arange(count)[:, None], rng.integers(n, size=(count, n))]
        anew = children + rng.normal(0, 1, (count, n)) * 2.0 ** rng.integers(-16, 2, (count, 1))
        change = np.where(kind < 0.55, near, np.where(kind < 0.7, drawn, anew))
        return np.where(moved, change, children).astype(self.rows.dtype)


def population(subject, dtype, rng):
    """A new one, of a random kind."""
    n = int(rng.choice(LENGTHS))
    rows = subject.begin(rng, (POPULATION, n)).astype(dtype)
    return Population(
        subject, str(rng.choice(LAYOUTS, p=[0.5, 0.3, 0.2])), subject.options(rng, n), rows
    )


@dataclass
class Find:
    """The worst row of a search."""

    operation: str
    dtype: str
    layout: str
    options: dict
    row: np.ndarray
    error: float

    def as_json(self):
        options = {k: np.asarray(v).tolist() for k, v in self.options.items()}
        row = base64.b64encode(self.row.astype(self.row.dtype.newbyteorder("<")).tobytes()).decode()
        return {"operation": self.operation, "dtype": self.dtype, "options": options, "row": row}


def search(subject, dtype, seconds, seed=0):
    """The worst row that is found in so many seconds of processor time, on the active backend."""
    rng, end, worst = np.random.default_rng(seed), time.process_time() + seconds, None
    while worst is None or time.process_time() < end:
        breed, idle, best = population(subject, dtype, rng), 0, -1.0
        while idle < PATIENCE and time.process_time() < end:
            breed.step(rng)
            idle = 0 if breed.error[0] > best else idle + 1
            best = breed.error[0]
        if worst is None or breed.error[0] > worst.error:
            row = breed.rows[0].copy()
            worst = Find(
                subject.name, dtype.name, breed.layout, breed.options, row, float(breed.error[0])
            )
    return worst


# --- what is kept ---------------------------------------------------------------------------------


def kept():
    """The finds on record: (subject, row, options)."""
    for find in json.loads(FINDS.read_text()):
        dtype = np.dtype(find["dtype"])
        row = np.frombuffer(base64.b64decode(find["row"]), dtype.newbyteorder("<")).astype(dtype)
        options = {
            k: np.asarray(v) if isinstance(v, list) else v for k, v in find["options"].items()
        }
        yield BY_NAME[find["operation"]], row, options


def keep(find):
    finds = json.loads(FINDS.read_text()) if FINDS.exists() else []
    if find.as_json() not in finds:
        finds.append(find.as_json())
    FINDS.write_text("[\n" + ",\n".join(json.dumps(f) for f in finds) + "\n]\n")


def report(find, backend, bound):
    note = f"{find.layout}, n={find.row.size}, {', '.join(find.options) or 'no options'}"
    mark = "  EXCEEDS THE BOUND" if find.error > bound else ""
    figures = f"{find.operation:12} {backend:8} {find.dtype:8} {find.error:6.3f} of {bound:g}"
    print(f"{figures}  ({note}){mark}", flush=True)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--operation", nargs="*", default=list(BY_NAME), choices=list(BY_NAME))
    add("--backend", nargs="*", default=fs.config()["backends"])
    add("--dtype", nargs="*", default=[d.name for d in FLOATS])
    add(
        "--seconds",
        type=float,
        default=10,
        help="processor time for each operation, backend and dtype",
    )
    add("--seed", type=int, default=time.time_ns() % 2**32)
    add("--keep", action="store_true", help=f"add the finds to {FINDS.name}")
    return parser.parse_args()


def main():
    arguments = parsed()
    exceeded = False
    print(f"seed {arguments.seed}")
    for name, backend, dtype in product(arguments.operation, arguments.backend, arguments.dtype):
        subject, dtype = BY_NAME[name], np.dtype(dtype)
        with fs.use_backend(backend):
            find = search(subject, dtype, arguments.seconds, arguments.seed)
        report(find, backend, subject.bound(dtype))
        exceeded |= find.error > subject.bound(dtype)
        if arguments.keep:
            keep(find)
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
