"""Whether other programs leave the processors alone:
two threads on one free core say nothing of threads.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
WINDOW, PAUSE = 0.3, 3.0  # seconds
FREE = 0.8  # of a core


def idle_seconds() -> float:
    """Of all cores together, since the start; those that wait for a disk count."""
    # user, nice, system, idle, waiting, ...
    times = STAT.read_text().partition("\n")[0].split()[1:]
    return (int(times[3]) + int(times[4])) / os.sysconf("SC_CLK_TCK")


def idle_cores() -> float:
    """How many cores had nothing to do in a moment in which this process sleeps."""
    before, start = idle_seconds(), time.perf_counter()
    time.sleep(WINDOW)
    return (idle_seconds() - before) / (time.perf_counter() - start)


def two_cores_are_free(patience: float) -> bool:
    """Wait for that, but not forever; where it is unknown, believe it."""
    end = time.perf_counter() + patience
    while STAT.exists() and idle_cores() < 2 * FREE:
        if time.perf_counter() > end:
            return False
        time.sleep(PAUSE)
    return True
