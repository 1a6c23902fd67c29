"""How many threads a call uses.

In this order: the call's ``num_threads``, `set_num_threads`, ``FASTSOFTMAX_NUM_THREADS``,
``OMP_NUM_THREADS``, else the CPUs this process may use. The results of the kernels do not depend on
any of it.
"""

from __future__ import annotations

import math
import operator
import os
from functools import cache
from pathlib import Path, PurePosixPath
from typing import SupportsIndex

from ._backend import cpu, cpus_at_import

# A parallel region costs 0.5 us when its threads are awake, 4 us when they sleep, and far more on a
# busy machine; an exponential costs 0.2 to 1 ns. Below SERIAL_BELOW of them a region is not worth
# it, and WORK_PER_THREAD of them is the least that a further thread is woken for.
SERIAL_BELOW = 49152
WORK_PER_THREAD = 32768

MOST_THREADS = 2**31 - 1  # the kernels take a C int
MOST_PER_CPU = 4  # more threads than that are never started, whatever is asked for

# Any of these may make a runtime of OpenMP bind the thread that loads it to one CPU.
BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")

_chosen: int | None = None  # by set_num_threads
# whether this process, or the one it was forked from, was allowed a parallel region
_ran_parallel = False
_forked = False  # whether this process must not run one


def set_num_threads(n: SupportsIndex) -> None:
    """Set the most threads that a call may use, for the whole process.

    Parameters
    ----------
    n : int
        At least 1. A call's own ``num_threads`` takes precedence.

    See Also
    --------
    get_num_threads

    Notes
    -----
    Whatever is asked for, here or by a call, no call uses more than four threads for each CPU that
    this process may use, nor more than there is work for, nor than the system lets it start.
    Results do not depend on it.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.set_num_threads(1)
    >>> fastsoftmax.get_num_threads()
    1
    """
    global _chosen
    _chosen = checked(n, "n")


def get_num_threads() -> int:
    """Return the most threads that a call without ``num_threads`` may use.

    Returns
    -------
    int
        What `set_num_threads` set, else the environment variable ``FASTSOFTMAX_NUM_THREADS``, else
        ``OMP_NUM_THREADS``, else the number of CPUs that this process may use (its affinity and its
        control group's quota count). 1 in a forked child whose parent had already used several
        threads.

    See Also
    --------
    set_num_threads
    """
    return 1 if _forked else _setting()


def resolve(num_threads: SupportsIndex | None, work: int) -> int:
    """How many threads a call uses for `work` exponentials, given its `num_threads` argument."""
    global _ran_parallel
    wanted = None if num_threads is None else checked(num_threads, "num_threads")
    if work < SERIAL_BELOW or _forked:
        return 1
    wanted = _setting() if wanted is None else wanted
    threads = min(wanted, work // WORK_PER_THREAD, MOST_PER_CPU * usable_cpus())
    if threads > 1:
        _ran_parallel = True
    return threads


def checked(n: SupportsIndex, name: str, least: int = 1, most: int = MOST_THREADS) -> int:
    """`n` as an int of at least `least`, or `most` if it is more; the error names the argument."""
    if isinstance(n, bool):
        raise TypeError(f"{name} must be an integer, got {n!r}")
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(n).__name__}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return min(count, most)


def _setting() -> int:
    """The process-wide number of threads, without regard to forks."""
    if _chosen is not None:
        return _chosen
    if _FROM_ENVIRONMENT is not None:
        return _FROM_ENVIRONMENT
    default = _omp_num_threads() or usable_cpus()
    # OpenMP's own setting is asked each time because that is what threadpoolctl limits, for a block
    # of code.
    return min(default, cpu.max_threads()) if _HAS_OPENMP else default


def _environment(name: str) -> int | None:
    """The count that an environment variable of this package holds, if any."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ImportError(f"{name} must be an integer of at least 1, got {text!r}")
    return checked(int(text), name)


@cache
def _omp_num_threads() -> int | None:
    """The first number of OMP_NUM_THREADS, for the outermost level;
    OpenMP, too, ignores nonsense.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else None


@cache
def usable_cpus() -> int:
    """CPUs that this process may use: its affinity,
    and the quota of its control group rounded up.
    """
    try:
        cpus = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        cpus = os.cpu_count() or 1
    if _HAS_OPENMP and any(os.environ.get(name, "false").lower() != "false" for name in BINDING):
        cpus = max(cpus, cpus_at_import, cpu.processors())
    return max(1, math.ceil(min(cpus, cgroup_quota())))


def cgroup_quota(
    mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float:
    """CPUs that the control groups of this process grant, of version 2 or 1;
    infinity without a quota.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    quotas = [math.inf]
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = mount / "cpu" if controllers else mount
        # Every group above counts. Within a container the path may be one of the host, and only "/"
        # exists.
        path = PurePosixPath(group)
        quotas += [_quota(folder / str(level).lstrip("/")) for level in (path, *path.parents)]
    return min(quotas)


def _quota(folder: Path) -> float:
    """The quota of one control group in CPUs."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such files, or "max"
        return math.inf


def _before_fork() -> None:
    """End this thread's OpenMP workers:
    any user of the same runtime would wait for them in a child.
    """
    if _HAS_OPENMP:
        cpu.pause_openmp()


def _after_fork_in_child() -> None:
    """Stay serial if the parent has been parallel: not every runtime can start again in a child."""
    global _forked
    _forked = _forked or _ran_parallel


_HAS_OPENMP = cpu is not None and cpu.openmp() is not None
_FROM_ENVIRONMENT = _environment("FASTSOFTMAX_NUM_THREADS")

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
