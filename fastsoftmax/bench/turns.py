"""Rivals in processes of their own that take turns.

In one process, a thread pool that spins while it waits and an allocator's habits would be charged
to whoever runs next.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from .cases import Case
from .rivals import RIVALS

LEAST_TURNS = 5
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NPROC",  # the thread pool of XLA
    ),
    "1",
)
# JAX knows neither of these by a function that works after its import.
JAX = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


class Absent(Exception):
    """A rival cannot be used at all: it is not installed,
    its import failed or its process ended.
    """


class Failed(Exception):
    """A rival raised an error in a case."""


class Worker:
    """A process that holds one rival and measures it when told to. Raises `Absent`."""

    def __init__(self, name: str) -> None:
        if missing := RIVALS[name].missing_modules:
            raise Absent(f"{' and '.join(missing)} not installed")
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastsoftmax.bench.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ
            | ONE_THREAD
            | JAX
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if "absent" in (greeting := self.reply()):
            self.close()
            raise Absent(greeting["absent"])

    def ask(self, verb: str, case: Case) -> float | None:
        """Send a request; None means that the rival has no such operation.
        Raises `Failed` or `Absent`.
        """
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended, and reply() tells how
            print(json.dumps([verb, case]), file=self.process.stdin, flush=True)
        reply = self.reply()
        if "failed" in reply:
            raise Failed(reply["failed"])
        value: float | None = reply.get("value")
        return value

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Absent(self.end())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def end(self) -> str:
        """How the process ended, and the last it said."""
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        self.close()
        return f"its process ended {status(self.process.returncode)}" + (
            f": {said}" if said else ""
        )

    def close(self) -> None:
        """Let the process end: it does when there is nothing more to read."""
        try:
            self.process.communicate(timeout=10)
        except (BrokenPipeError, ValueError):  # it has ended, or this was called before
            pass
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.errors.close()


def status(code: int) -> str:
    """A return code in words."""
    return f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


class Workers:
    """Workers by the name of their rival, started when first needed.

    `absent` tells why a rival could not be used, `failed` why it could not in a case.
    """

    def __init__(self) -> None:
        self.running: dict[str, Worker] = {}
        self.absent: dict[str, str] = {}
        self.failed: dict[tuple[str, Case], str] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        while self.running:
            self.running.popitem()[1].close()

    def ask(self, name: str, verb: str, case: Case) -> float | None:
        """What a rival measures; None if it is absent, has no such operation or fails."""
        if name in self.absent or (name, case) in self.failed:
            return None
        try:
            if name not in self.running:
                self.running[name] = Worker(name)
            return self.running[name].ask(verb, case)
        except Failed as error:
            self.failed[name, case] = str(error)
        except Absent as error:
            self.absent[name] = str(error)
            self.running.pop(name, None)
        return None

    def able(self, case: Case, names: Sequence[str]) -> list[str]:
        """Those that have the operation; each is warm."""
        return [name for name in names if self.ask(name, "time", case) is not None]

    def take_turns(
        self, case: Case, names: Sequence[str], turns: int, budget: float = float("inf")
    ) -> dict[str, list[float]]:
        """Times in seconds of each rival that has the operation; the i-th of all are of the same
        turn.

        After `budget` seconds there are no more turns than LEAST_TURNS.
        """
        return self.pairs({name: (name, case) for name in self.able(case, names)}, turns, budget)

    def pairs(
        self, who: dict[str, tuple[str, Case]], turns: int, budget: float = float("inf")
    ) -> dict[str, list[float]]:
        """The same for any rivals with any cases."""
        samples: dict[str, list[float]] = {key: [] for key in who}
        end = time.perf_counter() + budget
        for turn in range(turns):
            if turn >= LEAST_TURNS and time.perf_counter() > end:
                break
            for key, (name, case) in who.items():
                if (value := self.ask(name, "time", case)) is not None:
                    samples[key].append(value)
        most = max(map(len, samples.values()), default=0)
        return {key: times for key, times in samples.items() if len(times) == most > 0}

    def errors(self, case: Case, names: Sequence[str]) -> dict[str, float]:
        """Largest errors in ulp."""
        found = {name: self.ask(name, "error", case) for name in names}
        return {name: error for name, error in found.items() if error is not None}
