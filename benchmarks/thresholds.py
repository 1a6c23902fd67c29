"""Measure the thresholds of the kernels anew: ``python benchmarks/thresholds.py [NAME ...]``.

Every constant of ``fastsoftmax/kernels/tuning.h`` that chooses between two ways, and those of
``_threads.py``. For each, a small program (thresholds.cpp) is compiled with other values of it and
times shapes to which it matters; the table shows nanoseconds per element. It needs the sources and
a C++ compiler (CXX, else c++).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastsoftmax as fs
from fastsoftmax import _backend, _threads

HERE = Path(__file__).parent
SOURCES = HERE.parent / "fastsoftmax"
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
FLAGS += ["-fno-exceptions", "-fno-rtti", "-w"]
ISA_FLAGS = {
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "avx2": ["-march=x86-64-v3"],
}


class Call(NamedTuple):
    """An operation on rows, or on columns for axis 0.

    cross_entropy, with its gradient, is on rows alone; "targets" is the same with a target for each
    class.
    """

    operation: str
    dtype: str
    rows: int
    n: int
    axis: int = -1

    def __str__(self) -> str:
        axis = "" if self.axis == -1 else ", axis 0"
        shape = f"{self.n}x{self.rows}" if self.axis == 0 else f"{self.rows}x{self.n}"
        return f"{self.operation} {self.dtype} {shape}{axis}"

    def arguments(self) -> list[str]:
        codes = {
            "softmax": "s",
            "log_softmax": "l",
            "logsumexp": "e",
            "cross_entropy": "c",
            "targets": "t",
        }
        return [codes[self.operation], self.dtype[0], str(self.rows), str(self.n), str(self.axis)]


MIB = 2**20
# By constant: values to try, and calls for which they are different ways.
EXPERIMENTS: dict[str, tuple[tuple[int, ...], tuple[Call, ...]]] = {
    "short_row": (
        (16, 24, 32),
        tuple(Call("softmax", t, 4096, n) for t in ("float32", "double") for n in (20, 24, 28, 32)),
    ),
    "short_log_row": (
        (24, 40, 112),
        tuple(
            Call(f, "float32", 4096, n)
            for f in ("log_softmax", "logsumexp")
            for n in (32, 40, 48, 100)
        ),
    ),
    "short_label_row": (
        (24, 32, 40),
        tuple(
            Call("cross_entropy", t, 4096, n) for t in ("float32", "double") for n in (28, 32, 36)
        ),
    ),
    "short_target_row": (
        (40, 128, 512),
        tuple(
            Call("targets", t, 4096, n) for t in ("float32", "double") for n in (50, 100, 200, 500)
        ),
    ),
    "enough_rows": (
        (2, 4, 16),
        tuple(Call("softmax", "float32", rows, 10) for rows in (3, 4, 8, 15)),
    ),
    "batch_elements": (
        (100, 2048, 4096),
        tuple(Call("softmax", "float32", 100_000 // n, n) for n in (48, 100, 500)),
    ),
    "kept_in_l1": (
        (512, 4096, 32768),
        tuple(Call("softmax", "float32", 250_000 // n, n) for n in (1000, 4000, 8000, 30_000)),
    ),
    "kept_in_output_from": (
        (32, 64, 4097),
        tuple(
            Call("softmax", "float32", 16_000_000 // n, n) for n in (48, 80, 128, 400, 1000, 4000)
        ),
    ),
    "kept_in_output": (
        (4096, 16384, 65536),
        tuple(Call("softmax", "float32", 16_000_000 // n, n) for n in (100, 300, 1000, 4000)),
    ),
    "stream_from": (
        (4 * MIB, 24 * MIB, 1024 * MIB),
        tuple(
            Call(f, "float32", rows, 40_000)
            for f in ("softmax", "log_softmax")
            for rows in (40, 120, 400)
        ),
    ),
    "fetch_from": (
        (0, 4 * MIB, 1024 * MIB),
        tuple(
            Call("logsumexp", "float32", rows, n, 0)
            for rows, n in ((1000, 256), (1000, 1000), (4000, 4000))
        ),
    ),
    "strips_from": (
        (0, 2 * MIB, 1024 * MIB),
        tuple(
            Call("softmax", t, inner, n, 0)
            for t in ("float32", "double")
            for inner, n in ((1000, 256), (32_000, 32), (4000, 4000))
        ),
    ),
    "strip_bytes": (
        (8 << 10, 32 << 10, 128 << 10),
        tuple(Call(f, "float32", 4000, 4000, 0) for f in ("softmax", "log_softmax", "logsumexp")),
    ),
    "tile_bytes": (
        (64 << 10, 512 << 10, 4 * MIB),
        tuple(Call("softmax", "float32", 1000, n, 0) for n in (256, 1000, 4000)),
    ),
}


def constant(name: str) -> str:
    """The line of tuning.h that sets a constant, up to its value."""
    return rf"(constexpr Index {name} = )[^;]*;"


def program(name: str, value: int, isa: str, folder: Path) -> Path:
    """thresholds.cpp, compiled with another value of a constant."""
    headers, made = folder / f"{name}-{value}", folder / f"{name}-{value}.out"
    shutil.copytree(SOURCES, headers, ignore=shutil.ignore_patterns("*.py", "*.so"))
    path = headers / "kernels" / "tuning.h"
    text, count = re.subn(constant(name), rf"\g<1>{value};", path.read_text())
    if count != 1:
        raise SystemExit(f"{path.name} has no constant {name}")
    path.write_text(text)
    compiler = os.environ.get("CXX", "c++").split()
    command = [
        *compiler,
        *FLAGS,
        *ISA_FLAGS.get(isa, []),
        f"-I{headers}",
        str(HERE / "thresholds.cpp"),
        "-o",
        str(made),
    ]
    subprocess.run(command, check=True)
    return made


def experiment(name: str, isa: str, turns: int) -> Iterator[str]:
    """The lines of the table of one constant. Programs take turns."""
    values, calls = EXPERIMENTS[name]
    with tempfile.TemporaryDirectory() as folder:
        programs = {value: program(name, value, isa, Path(folder)) for value in values}
        yield f"\n{name:<42}" + "".join(f"{value:>12}" for value in values)
        for call in calls:
            times: dict[int, list[float]] = {value: [] for value in values}
            for _ in range(turns):
                for value, path in programs.items():
                    done = subprocess.run(
                        [path, *call.arguments()], capture_output=True, text=True, check=True
                    )
                    times[value].append(float(done.stdout))
            yield f"{call!s:<42}" + "".join(
                f"{statistics.median(t):>12.3f}" for t in times.values()
            )


def threads() -> Iterator[str]:
    """Softmax of one thread and of two around the size from which calls use several."""
    yield f"\n{'SERIAL_BELOW ' + str(_threads.SERIAL_BELOW):<42}{'1 thread':>12}{'2 threads':>12}"
    before = _threads.SERIAL_BELOW, _threads.WORK_PER_THREAD
    _threads.SERIAL_BELOW = _threads.WORK_PER_THREAD = 1
    try:
        for rows in (16, 32, 48, 64, 128, 512):
            x = np.random.default_rng(0).normal(0, 3, (rows, 1000)).astype(np.float32)
            out = np.empty_like(x)
            best = [seconds(x, out, count) for count in (1, 2)]
            yield f"{f'softmax float32 {rows}x1000':<42}" + "".join(
                f"{t * 1e9 / x.size:>12.3f}" for t in best
            )
    finally:
        _threads.SERIAL_BELOW, _threads.WORK_PER_THREAD = before


def seconds(x: np.ndarray, out: np.ndarray, count: int) -> float:
    """The median time of a call."""
    samples = []
    for _ in range(200):
        start = time.perf_counter()
        fs.softmax(x, out=out, num_threads=count)
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="constants to measure (default: all)"
    )
    parser.add_argument(
        "--turns", type=int, default=3, help="how often each is timed (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    known = [*EXPERIMENTS, "threads"]
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    isa = _backend.active()
    print(f"{isa}, nanoseconds per element; the middle column of each is what is set")
    for name in options.names or known:
        for line in threads() if name == "threads" else experiment(name, isa, options.turns):
            print(line, flush=True)


if __name__ == "__main__":
    main()
