"""Fixtures of all tests: available backends, dtypes, no warnings; and the table of the largest errors."""

import os
import pathlib
import sys
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # cases and oracle, also for benchmarks

from cases import CASES, FLOATS, HALVES, errors

import fastsoftmax
from fastsoftmax import _backend

settings.register_profile(
    "package",
    database=None,
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("ci", settings.get_profile("package"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "package")

BACKENDS = _backend.available()


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Every backend this machine can run, one after the other."""
    with fastsoftmax.use_backend(request.param):
        yield request.param


@pytest.fixture(params=FLOATS, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=HALVES, ids=str)
def half(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture(autouse=True)
def _quiet_and_strict():
    """No call may warn, nor raise FloatingPointError in a program that asks for it."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        yield


def pytest_collection_modifyitems(items):
    """Run a test on all backends in a row: they share its references, which cost more than the calls."""
    order = {}

    def group(item):
        parameters = item.callspec.params.items() if hasattr(item, "callspec") else ()
        others = tuple((name, str(value)) for name, value in parameters if name != "backend")
        return order.setdefault((item.nodeid.partition("[")[0], others), len(order))

    items.sort(key=group)


# --- largest errors, printed after the run ----------------------------------------------------------------

_largest: dict[tuple[str, str, str], tuple[float, str]] = {}


@pytest.fixture
def measure(backend):
    """Check a result as `check` does, and remember the largest error of the operation in this backend."""

    def measure(case, got, x, note, names=(), names_axis=0, **options):
        found = errors(case, got, x, **options)
        worst = np.unravel_index(found.argmax(), found.shape) if found.size else ()
        kind = f"{names[worst[names_axis]]}, " if len(names) else ""
        error, note = float(np.max(found, initial=0.0)), kind + note
        key = case.name, backend, got.dtype.name
        if error >= _largest.get(key, (0.0, ""))[0]:
            _largest[key] = error, note
        assert error <= case.bound(got.dtype), f"{note}: {got[worst]!r} at {tuple(map(int, worst))}"

    return measure


def pytest_terminal_summary(terminalreporter):
    if not _largest:
        return
    terminalreporter.section("largest errors, in units in the last place")
    columns = "  ".join(f"{name:>9}" for name in BACKENDS)
    terminalreporter.line(f"{'operation':<12} {'dtype':<9} {'bound':>7}   {columns}   worst input")
    for case in CASES:
        dtypes = dict.fromkeys(name for operation, _, name in _largest if operation == case.name)
        for dtype in dtypes:
            found = [_largest.get((case.name, name, dtype), (float("nan"), "")) for name in BACKENDS]
            figures = "  ".join(f"{error:9.3f}" for error, _ in found)
            _, note = max(found, key=lambda pair: np.nan_to_num(pair[0], nan=-1.0))
            terminalreporter.line(f"{case.name:<12} {dtype:<9} {case.bound(dtype):7.4g}   {figures}   {note}")
