"""Where figures were measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import fastsoftmax

from .rivals import RIVALS


def processor() -> str:
    """The model of the processor, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def load_average() -> float | None:
    """Of the last minute: much above 0, and others disturb what is measured. None where unknown."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, str | float | None]:
    """The processor, how many, the system, its load, and the backend of this package."""
    return {
        "processor": processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": load_average(),
        "backend": str(fastsoftmax.config()["backend"]),
    }


def versions(names: Sequence[str]) -> dict[str, str]:
    """By the labels of rivals that are installed; Python's first."""
    found = {RIVALS[name].distribution: RIVALS[name] for name in names if RIVALS[name].installed}
    labels = {"numpy": "NumPy"}  # np.copyto and np.exp are NumPy's, too
    return {"Python": platform.python_version()} | {
        labels.get(distribution, rival.label): rival.version
        for distribution, rival in found.items()
    }


def described(names: Sequence[str]) -> str:
    """The processor, the backend and the versions, in one line."""
    where = machine()
    installed = ", ".join(f"{label} {version}" for label, version in versions(names).items())
    return (
        f"{where['processor']}, {where['processors']} CPUs, backend {where['backend']}; {installed}"
    )
