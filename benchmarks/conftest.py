"""What all benchmarks share: one thread, a summary of ratios, and the way to tests/cases.py."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

RATIOS = pytest.StashKey[list]()


@pytest.fixture(autouse=True)
def _one_thread():
    """What is measured is the kernel. Restores the setting,
    since tests may run in the same process.
    """
    before = fastsoftmax.get_num_threads()
    fastsoftmax.set_num_threads(1)
    yield
    fastsoftmax.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_configure(config):
    config.stash[RATIOS] = []


@pytest.fixture
def ratios(request):
    """Lines for the summary: (what, time of the other / ours)."""
    return request.config.stash[RATIOS]


def pytest_report_header():
    config = fastsoftmax.config()
    return f"fastsoftmax: backend {config['backend']} of {', '.join(config['backends'])}"


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[RATIOS]:
        terminalreporter.section("time of the other / time of fastsoftmax, median over turns")
        for what, ratio in config.stash[RATIOS]:
            terminalreporter.line(f"{what:<75} {ratio:8.2f}")
