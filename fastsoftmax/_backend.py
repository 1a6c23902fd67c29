"""Which implementation of the kernels runs.

A *kernel* is a NumPy function in a room of ``fastsoftmax/ops`` (the twin, which is the
specification) and a compiled function of the same name and parameters in every module of
``fastsoftmax/kernels``. A backend is one such module, or the twins themselves. Choosing a backend
rebinds the kernels' names in their rooms, so that a call looks nothing up.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, TypeVar

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

ORDER = ("avx512", "avx2", "baseline", "numpy")  # best first

#: The NumPy twin of every kernel, by name: for the numpy backend, and for dtypes without compiled
#: kernels.
TWINS: dict[str, Callable[..., Any]] = {}

cpu: Any = None  # the module fastsoftmax._cpu, if there is one
# the compiled modules that were asked for; None: cannot be used
_modules: dict[str, ModuleType | None] = {}
_reasons: dict[str, str] = {}  # why not
_active = "numpy"
_chosen_by = ""  # what forced the active backend, if anything did


@dataclass(eq=False)
class _Block:
    """A ``with use_backend(...)`` that was entered and not left."""

    name: str
    thread: threading.Thread


_default = (_active, _chosen_by)  # outside of all blocks
_blocks: list[_Block] = []  # all of one thread; the last counts
_switching = threading.Lock()


def kernel(twin: Kernel) -> Kernel:
    """Register the NumPy twin of a kernel; the active backend's implementation takes its name.

    Other modules must reach a kernel through its room, since the name is bound anew when the
    backend changes.
    """
    TWINS[twin.__name__] = twin
    implementation: Kernel = _implementation(twin.__name__, _active)
    return implementation


def available() -> list[str]:
    """The backends that work here, best first; "numpy" always does."""
    return [name for name in ORDER if _works(name)]


def active() -> str:
    """The backend that runs."""
    return _active


def active_module() -> ModuleType | None:
    """The compiled module that runs; None for NumPy."""
    return _modules.get(_active)


def use_backend(name: str) -> AbstractContextManager[None]:
    """Let another backend run within a ``with`` block.

    Parameters
    ----------
    name : str
        One of ``config()["backends"]``.

    Returns
    -------
    context manager
        Switches the whole process, every thread of it, and back.

    Raises
    ------
    ValueError
        If there is no such backend here; the message lists those there are.
    RuntimeError
        If another thread is within such a block. Only one thread may switch at a time.

    Notes
    -----
    Of blocks that overlap without being nested (tasks of one event loop), the one entered last
    counts; what ran before the first is back when all are left. A forked child is in the blocks of
    the thread that forked.

    Examples
    --------
    >>> import fastsoftmax
    >>> with fastsoftmax.use_backend("numpy"):
    ...     fastsoftmax.config()["backend"]
    'numpy'
    """
    if not _works(name):
        raise ValueError(f"name must be one of the available backends {available()}, got {name!r}")
    return _switched(name)


@contextmanager
def _switched(name: str) -> Iterator[None]:
    block = _Block(name, threading.current_thread())
    with _switching:
        for other in _blocks:
            if other.thread is not block.thread and other.thread.is_alive():
                raise RuntimeError(
                    f"use_backend switches the whole process, and thread {other.thread.name!r} is"
                    f" within use_backend({other.name!r}): only one thread may switch at a time"
                )
        _blocks.append(block)
        _activate_last()
    try:
        yield
    finally:
        with _switching:
            if block in _blocks:  # a forked child has left those of other threads
                _blocks.remove(block)
                _activate_last()


def _activate_last() -> None:
    """Activate the backend of the block entered last, or what was chosen at import."""
    _activate(_blocks[-1].name, f"use_backend({_blocks[-1].name!r})") if _blocks else _activate(
        *_default
    )


def _after_fork_in_child() -> None:
    """Leave the blocks of threads that are no more, one of which may have been switching."""
    global _switching
    _switching = threading.Lock()
    _blocks[:] = [block for block in _blocks if block.thread is threading.current_thread()]
    _activate_last()


def config() -> dict[str, Any]:
    """Tell what this installation computes with.

    Returns
    -------
    dict
        ``version``; ``backend``, the active one; ``backends``, the available ones, best first;
        ``reason``, why a better one is not active, or None; ``cpu``, a list of features;
        ``openmp``, its runtime and version, or None; ``num_threads``; ``uncompiled``, the functions
        without a compiled kernel in the active backend.

    See Also
    --------
    show_config

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.config()["backends"][-1]
    'numpy'
    """
    package = sys.modules[__package__]
    return {
        "version": package.__version__,
        "backend": _active,
        "backends": available(),
        "reason": _reason(),
        "cpu": [] if cpu is None else cpu.features(),
        "openmp": None if cpu is None else cpu.openmp(),
        "num_threads": package.get_num_threads(),
        "uncompiled": _uncompiled(package),
    }


def show_config() -> None:
    """Print what this installation computes with, as `config` returns it.

    See Also
    --------
    config
    """
    for key, value in config().items():
        text = (
            (" ".join(value) or "none")
            if isinstance(value, list)
            else "none"
            if value is None
            else value
        )
        print(f"{key + ':':13}{text}")


def _works(name: str) -> bool:
    """Whether a backend of that name can run here.  Imports no other module than that backend's."""
    return name == "numpy" or (name in ORDER and _module(name) is not None)


def _module(isa: str) -> ModuleType | None:
    """The module of an instruction set, imported only if the CPU can run it;
    None if it is of no use.
    """
    if isa not in _modules:
        _modules[isa] = _load(isa)
    return _modules[isa]


def _load(isa: str) -> ModuleType | None:
    # not built, or an instruction set of another architecture
    if cpu is None or isa not in cpu.isas():
        return None
    if missing := cpu.missing(isa):
        _reasons[isa] = f"the CPU lacks {', '.join(missing)}"
        return None
    return _import(f"{__package__}.kernels.{isa}", isa)


def _import(name: str, label: str) -> ModuleType | None:
    """Import a compiled module.  Whatever prevents it must not break the package:
    NumPy is always there.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        not_built = "not built (no compiler could, when the package was installed)"
        _reasons[label] = not_built if error.name == name else str(error)
    # no libgomp, no static TLS left, a sub-interpreter, another NumPy ABI, ...
    except Exception as error:
        _reasons[label] = f"{name} cannot be imported: {error}"
    return None


def optional_module(name: str) -> ModuleType | None:
    """A compiled module of the package that is no backend; None where there are none."""
    return _import(f"{__package__}.{name}", "compiled kernels") if cpu is not None else None


def _implementation(name: str, backend: str) -> Any:
    """The compiled kernel of that name, or its twin."""
    return getattr(_modules.get(backend), name, TWINS[name])


def _activate(name: str, chosen_by: str) -> None:
    """Bind every kernel's name to the implementation of a backend."""
    global _active, _chosen_by
    for kernel_name, twin in TWINS.items():
        # One assignment each: another thread sees the old kernel or the new one, and either is
        # right.
        setattr(sys.modules[twin.__module__], kernel_name, _implementation(kernel_name, name))
    _active, _chosen_by = name, chosen_by


def _reason() -> str | None:
    """Why no better backend is active."""
    best = available()[0]
    if _active != best:
        return f"{best} works here, but {_chosen_by} chose {_active}"
    better = [*ORDER[: ORDER.index(_active)], "compiled kernels"]
    return "; ".join(f"{label}: {_reasons[label]}" for label in better if label in _reasons) or None


def _uncompiled(package: ModuleType) -> list[str]:
    """Public functions that compute without a compiled kernel in the active backend."""
    operations = {name: getattr(package, name) for name in package.__all__}
    rooms = {
        name: function.__module__
        for name, function in operations.items()
        if isinstance(function, FunctionType)
        and function.__module__.startswith(f"{package.__name__}.ops.")
    }
    return [name for name, room in rooms.items() if not _is_compiled(name, room)]


def _is_compiled(operation: str, room: str) -> bool:
    """Whether the active backend has the kernels of a function.

    These are the ones named after it, or all of its room if there are none, as for softmin.
    """
    in_room = [name for name, twin in TWINS.items() if twin.__module__ == room]
    kernels = [name for name in in_room if name.rpartition("_")[0] == operation] or in_room
    return bool(kernels) and all(hasattr(_modules.get(_active), name) for name in kernels)


def _choose() -> None:
    """Activate the backend that FASTSOFTMAX_BACKEND asks for, else the best one that works."""
    global _default
    forced = os.environ.get("FASTSOFTMAX_BACKEND", "").strip()
    if not forced:
        _activate(next(name for name in ORDER if _works(name)), "")
    elif _works(forced):
        _activate(forced, f"FASTSOFTMAX_BACKEND={forced}")
    else:
        message = (
            f"FASTSOFTMAX_BACKEND={forced!r} is not one of the available backends {available()}"
        )
        raise ImportError(
            "\n  ".join([message, *(f"{label}: {why}" for label, why in _reasons.items())])
        )
    _default = _active, _chosen_by


#: The CPUs of this thread, before a runtime of OpenMP is loaded, which may bind it to one of them.
cpus_at_import = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
cpu = _import(f"{__package__}._cpu", "compiled kernels")
_choose()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
