"""Fixtures of all tests: chosen backends, dtypes, no warnings;
and the table of the largest errors.
"""

import argparse
import os
import pathlib
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # threads that spin while they wait would take the time of the other tests
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(pathlib.Path(__file__).parent))  # cases and oracle, also for benchmarks

from cases import CASES, FLOATS, HALVES, errors

import fastsoftmax
from fastsoftmax import _backend

BACKENDS = _backend.available()
EXAMPLES, EXHAUSTIVE_EXAMPLES = 8, 30  # of hypothesis, for each test


def backends_named(text):
    """What --backends= asks for, best first."""
    names = text.split(",")
    for name in names:
        if name not in BACKENDS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is none of {','.join(BACKENDS)}, which run here"
            )
    return [name for name in BACKENDS if name in names]


def pytest_addoption(parser):
    parser.addoption(
        "--backends",
        type=backends_named,
        default=BACKENDS,
        metavar="NAMES",
        help=f"run tests on these backends only, of {','.join(BACKENDS)}",
    )


def is_exhaustive(config):
    """Whether this is `pytest -m exhaustive`."""
    return config.option.markexpr == "exhaustive"


def pytest_configure(config):
    settings.register_profile(
        "package",
        database=None,
        deadline=None,
        max_examples=EXHAUSTIVE_EXAMPLES if is_exhaustive(config) else EXAMPLES,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    settings.register_profile(
        "ci", settings.get_profile("package"), derandomize=True, print_blob=True
    )
    settings.load_profile("ci" if os.environ.get("CI") else "package")


def pytest_itemcollected(item):
    """Tests of random examples belong to either run: the exhaustive one has more of these."""
    if is_exhaustive(item.config) and getattr(item.obj, "is_hypothesis_test", False):
        item.add_marker("exhaustive")


def pytest_generate_tests(metafunc):
    """Tests that compute run on every chosen backend;
    what needs only one (`once`) on the best of them.
    """
    chosen = metafunc.config.option.backends
    if "compiled" in metafunc.fixturenames:
        metafunc.parametrize("compiled", [name for name in chosen if name != "numpy"])
    if "backend" in metafunc.fixturenames:
        once = metafunc.definition.get_closest_marker("once")
        metafunc.parametrize("backend", chosen[:1] if once else chosen, indirect=True)


@pytest.fixture
def backend(request):
    """Every chosen backend, one after the other."""
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


def variant(item):
    """A test, and the places of its parameters in their lists, but for the backend."""
    places = item.callspec.indices.items() if hasattr(item, "callspec") else ()
    others = tuple((name, place) for name, place in places if name != "backend")
    return item.nodeid.partition("[")[0], others


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Run a test on all backends in a row: they share its references, which cost more than the
    calls.

    Of the variants of a test each runs on one backend by default: half of them on the best, the
    rest on the others in turn, drawn by lot. Where there are too few for that, the best backend
    runs all, and each of the others one. `test_regimes` brings every function, in every regime, to
    every backend.
    """
    variants = {item: variant(item) for item in items}
    order = {key: place for place, key in enumerate(dict.fromkeys(variants.values()))}
    items.sort(key=lambda item: order[variants[item]])
    of_backends = [item for item in items if "backend" in getattr(item, "fixturenames", ())]
    by_default = {}  # the variants of each test
    for item in of_backends:
        if not item.get_closest_marker("exhaustive"):
            test, parameters = variants[item]
            by_default.setdefault(test, {})[parameters] = None
    lots = {test: drawn(parameters) for test, parameters in by_default.items()}
    backends = config.option.backends
    for item in of_backends:
        test, parameters = variants[item]
        if parameters in by_default.get(test, ()):
            rank = backends.index(item.callspec.params["backend"])
            if rank not in ranks(lots[test][parameters], len(lots[test]), len(backends)):
                item.add_marker("exhaustive")


def drawn(variants):
    """`{variant: its number}` in an order that has nothing to do with parameters."""
    lot = {parameters: zlib.crc32(repr(parameters).encode()) for parameters in variants}
    return {parameters: number for number, parameters in enumerate(sorted(lot, key=lot.get))}


def ranks(number, variants, backends):
    """The places of the backends, best first, that run a variant by default."""
    others = backends - 1
    if variants < 2 * others:
        return {0, *(rank for rank in range(1, backends) if (number - rank) % variants == 0)}
    return {1 + number // 2 % others if number % 2 and others else 0}


# --- largest errors, printed after the run --------------------------------------------------------

_largest: dict[tuple[str, str, str], tuple[float, str]] = {}


@pytest.fixture
def measure(backend):
    """Check a result as `check` does, and remember the largest error
    of the operation in this backend.
    """

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


def pytest_sessionfinish(session):
    """A process of pytest-xdist tells what it found to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["largest"] = [(*key, *found) for key, found in _largest.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    for *key, error, note in getattr(node, "workeroutput", {}).get("largest", ()):
        _largest[tuple(key)] = max(_largest.get(tuple(key), (0.0, "")), (error, note))


def pytest_terminal_summary(terminalreporter):
    if not _largest:
        return
    terminalreporter.section("largest errors, in units in the last place")
    backends = terminalreporter.config.option.backends
    columns = "  ".join(f"{name:>9}" for name in backends)
    terminalreporter.line(f"{'operation':<12} {'dtype':<9} {'bound':>7}   {columns}   worst input")
    for case in CASES:
        dtypes = dict.fromkeys(name for operation, _, name in _largest if operation == case.name)
        for dtype in dtypes:
            found = [
                _largest.get((case.name, name, dtype), (float("nan"), "")) for name in backends
            ]
            figures = "  ".join(f"{error:9.3f}" for error, _ in found)
            _, note = max(found, key=lambda pair: np.nan_to_num(pair[0], nan=-1.0))
            terminalreporter.line(
                f"{case.name:<12} {dtype:<9} {case.bound(dtype):7.4g}   {figures}   {note}"
            )
