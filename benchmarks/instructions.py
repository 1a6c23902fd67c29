"""Count the instructions of kernels and compare with those on record: ``python
benchmarks/instructions.py``.

Times on shared machines cannot guard anything; the number of instructions for a fixed input is the
same every time. Valgrind's callgrind counts them, those of the module of kernels alone: not
Python's, not NumPy's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastsoftmax as fs

RECORD = Path(__file__).with_suffix(".json")
BACKENDS = ("baseline", "avx2")  # valgrind knows no AVX-512
TOLERANCE = 0.05

# Requests to callgrind are instructions without effect elsewhere, which its header makes.
REQUESTS = """
#include <valgrind/callgrind.h>
void toggle(void) { CALLGRIND_TOGGLE_COLLECT; }
void dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
"""


# --- what is counted ------------------------------------------------------------------------------


class Case(NamedTuple):
    """A call of a function on scores of a shape,
    or on probabilities for functions that take these.
    """

    function: str
    dtype: str
    shape: tuple[int, ...]
    axis: int = -1

    def __str__(self) -> str:
        axis = "" if self.axis == -1 else f", axis {self.axis}"
        return f"{self.function} {self.dtype} {'x'.join(map(str, self.shape))}{axis}"

    def call(self) -> Callable[[], Any]:
        """The call, with its arguments made."""
        rng = np.random.default_rng(0)
        x = rng.normal(0, 3, self.shape).astype(self.dtype)
        function = getattr(fs, self.function)
        more: dict[str, Any] = {} if self.axis == -1 else {"axis": self.axis}
        if self.function.startswith("cross_entropy"):
            return partial(function, x, rng.integers(0, self.shape[-1], self.shape[:-1]))
        if self.function.startswith("binary_cross_entropy"):
            return partial(function, x, rng.integers(0, 2, self.shape).astype(self.dtype))
        if self.function.endswith("_vjp"):
            return partial(
                function, x, getattr(fs, self.function.removesuffix("_vjp"))(x, **more), **more
            )
        if self.function == "softmax" and x.size == 4000:
            x, out = half_a_page_apart(x)
            more["out"] = out
        return partial(function, x, **more)


def half_a_page_apart(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy, and memory for its result: in what order results are written depends on how far from
    the input they lie, modulo a page, and that on where the allocator puts them.
    """
    page = 4096
    memory = np.zeros(2 * x.nbytes + 3 * page, np.uint8)
    first = -memory.ctypes.data % page
    second = first + -(-x.nbytes // page) * page + page // 2
    copy, out = (
        memory[at : at + x.nbytes].view(x.dtype).reshape(x.shape) for at in (first, second)
    )
    copy[...] = x
    return copy, out


ROWS = ((1, 10), (64, 10), (16, 100), (4, 1000), (1, 40_000))
SOME_ROWS = ((16, 100), (4, 1000))
CASES = (
    *(
        Case(f, t, s)
        for f in ("softmax", "log_softmax")
        for t in ("float32", "float64")
        for s in ROWS
    ),
    *(
        Case(f, "float32", s)
        for f in ("logsumexp", "softmax_vjp", "log_softmax_vjp")
        for s in SOME_ROWS
    ),
    *(Case("cross_entropy" + v, "float32", s) for v in ("", "_value_and_grad") for s in SOME_ROWS),
    *(
        Case("binary_cross_entropy_with_logits" + v, "float32", (4000,))
        for v in ("", "_value_and_grad")
    ),
    *(Case(f, t, (4000,)) for f in ("sigmoid", "softplus") for t in ("float32", "float64")),
    *(Case(f, "float32", (100, 64), 0) for f in ("softmax", "log_softmax", "softmax_vjp")),
    Case("softmax", "float16", (4, 1000)),
)


def run_cases(requests: str) -> None:
    """Make each call twice, and have callgrind count the second. Runs under valgrind."""
    library = ctypes.CDLL(requests)
    fs.set_num_threads(1)
    for case in CASES:
        call = case.call()
        call()
        library.toggle()
        call()
        library.toggle()
        library.dump(str(case).encode())


# --- counting -------------------------------------------------------------------------------------


def count(backend: str, directory: Path) -> dict[str, int]:
    """Instructions of the backend's module in each case."""
    requests = directory / "requests.so"
    source = directory / "requests.c"
    source.write_text(REQUESTS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", requests, source], check=True)
    valgrind = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--compress-strings=no"]
    valgrind += ["--compress-pos=no", f"--callgrind-out-file={directory / backend}"]
    fixed = {"FASTSOFTMAX_BACKEND": backend, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    fixed |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*valgrind, sys.executable, __file__, "--run", str(requests)],
        env=os.environ | fixed,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"valgrind failed:\n{done.stderr}")
    counts = dict(read_dump(path.read_text(), backend) for path in directory.glob(f"{backend}.*"))
    return {str(case): counts[str(case)] for case in CASES}


def read_dump(text: str, backend: str) -> tuple[str, int]:
    """The name of a dump and the cost of a module in it, from callgrind's format.

    Lines of numbers are costs of the object that was named last, but for the one after ``calls=``,
    which is the cost of what was called.
    """
    trigger = re.search(r"^desc: Trigger: Client Request: (.*)$", text, flags=re.MULTILINE)
    cost, ours, called = 0, False, False
    for line in text.splitlines():
        if line.startswith("ob="):
            ours = f"kernels/{backend}." in line
        elif line.startswith("calls="):
            called = True
        elif line[:1].isdigit():
            cost += 0 if called or not ours else int(line.split()[-1])
            called = False
    return trigger[1] if trigger else "", cost


def compiler(backend: str) -> str:
    """The compiler that made the module of a backend, and its major version."""
    module = sys.modules[f"fastsoftmax.kernels.{backend}"]
    assert module.__file__
    found = re.search(rb"(GCC|clang)[^\0]*?[ )](\d+)\.\d+\.\d+", Path(module.__file__).read_bytes())
    return f"{found[1].decode()} {found[2].decode()}" if found else "unknown"


# --- comparing ------------------------------------------------------------------------------------


def change(counted: int, recorded: int | None) -> float:
    """By what part a count is above that on record; NaN without one."""
    return counted / recorded - 1 if recorded else math.nan


def verdict(part: float) -> str:
    """What a change means; a failure begins with an exclamation mark."""
    if math.isnan(part):
        return "! no record"
    if part > TOLERANCE:
        return "! more"
    return "fewer: record them" if part < -TOLERANCE else ""


def table(counts: dict[str, int], recorded: dict[str, int]) -> Iterable[str]:
    for name, counted in counts.items():
        part = change(counted, recorded.get(name))
        yield (
            f"{name:<68}{recorded.get(name, 0):>10}{counted:>10}"
            f"{part:>+8.1%}  {verdict(part)}".rstrip()
        )


def compare(backend: str, counts: dict[str, int], record: dict[str, Any]) -> bool:
    """Print counts next to those on record; whether none is a failure."""
    made_by, before = compiler(backend), record.get("compiler")
    lines = list(table(counts, record.get("counts", {}).get(backend, {})))
    print(f"\n{backend}, {made_by}: instructions on record, counted, change", *lines, sep="\n")
    if before != made_by:
        print(f"The record is of {before}: not compared.")
        return True
    return not any("  !" in line for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true", help=f"write the counts to {RECORD.name}")
    parser.add_argument("--run", metavar="LIBRARY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_cases(options.run)
        return 0
    if not shutil.which("valgrind") or not shutil.which("cc"):
        print("needs valgrind and cc: apt-get install valgrind gcc", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        available = [name for name in BACKENDS if name in fs.config()["backends"]]
        counts = {backend: count(backend, Path(directory)) for backend in available}
    if options.record:
        record = {"compiler": compiler(available[0]), "counts": counts}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    # and all are printed
    passed = [compare(backend, found, record) for backend, found in counts.items()]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
