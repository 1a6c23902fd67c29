"""Rivals in processes of their own that take turns.

In one process, a thread pool that spins while it waits and an allocator's habits would be charged to whoever
runs next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fastsoftmax._comparison import Case

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)


class Worker:
    """A process that holds one rival and times it when told to."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("rivals.py")), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def ask(self, verb: str, case: Case) -> float | None:
        """Send a request; None means that the rival has no such operation."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([verb, case]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker {self.process.args} ended with status {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self.process.communicate()


class Workers(dict):
    """Workers by the name of their rival, started when first needed."""

    def __missing__(self, name: str) -> Worker:
        self[name] = Worker(name)
        return self[name]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_) -> None:
        for worker in self.values():
            worker.close()

    def take_turns(self, case: Case, names: Sequence[str], turns: int) -> dict[str, list[float]]:
        """Times in seconds of each rival that has the operation; the i-th of all are of the same turn."""
        able = [name for name in names if self[name].ask("time", case) is not None]  # and warm
        samples: dict[str, list[float]] = {name: [] for name in able}
        for _ in range(turns):
            for name in able:
                samples[name].append(self[name].ask("time", case))
        return samples

    def errors(self, case: Case, names: Sequence[str]) -> dict[str, float]:
        """Largest errors in ulp."""
        return {name: self[name].ask("error", case) for name in names}
