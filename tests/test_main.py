"""The command line, as a user runs it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sizes import exhaustive

import fastsoftmax
from fastsoftmax import __main__ as command_line
from fastsoftmax.bench import formulas, measuring
from fastsoftmax.bench.cases import Case

BENCH = ["bench", "--quick", "--rivals", "numpy"]


def command(*arguments):
    return [sys.executable, "-m", "fastsoftmax", *arguments]


def paths():
    """Environment in which a child finds the package under test."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(*arguments, **environment):
    """Run ``python -m fastsoftmax`` with arguments."""
    env = os.environ | paths() | environment
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=100, env=env)


def test_info():
    done = run("info")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == list(fastsoftmax.config())


def test_info_as_json():
    done = run("info", "--json", FASTSOFTMAX_NUM_THREADS="3", FASTSOFTMAX_BACKEND="numpy")
    assert (done.returncode, done.stderr) == (0, "")
    info = json.loads(done.stdout)
    assert list(info) == list(fastsoftmax.config())
    assert info["version"] == fastsoftmax.__version__
    assert info["num_threads"] == 3
    assert info["backend"] == "numpy"
    assert "softmax" in info["uncompiled"]


def check_table(printed):
    configuration, explanation, table = printed.split("\n\n")
    assert configuration.startswith(f"version:     {fastsoftmax.__version__}\n")
    assert "one thread each" in explanation
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        [case.operation, case.dtype, case.size] for case in command_line.CASES
    ]


def test_configuration_and_table(monkeypatch, capsys):
    """In this process, and each call timed once."""
    monkeypatch.setattr(command_line, "ROW_SECONDS", 0.0)
    command_line.main([])
    check_table(capsys.readouterr().out)


@exhaustive
def test_configuration_and_table_of_a_process():
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    check_table(done.stdout)


def test_table_row():
    case = Case("softmax", "float32", (4096, 10))
    times = {
        "NumPy": [3e-4, 8e-4, 4e-4],
        "SciPy": [8e-4, 16e-4, 8e-4],
        "fastsoftmax": [1e-4, 2e-4, 1e-4],
    }
    errors = {"NumPy": 15.6, "SciPy": 20.0, "fastsoftmax": 3.24}
    row = command_line.table_row(case, times, errors).replace("|", "").split()
    ratios = ["4.0", "8.0"]
    assert row == [
        "softmax",
        "float32",
        "4096x10",
        "-1",
        "400",
        "800",
        "100",
        *ratios,
        "16",
        "20",
        "3.2",
    ]


def test_without_scipy(monkeypatch):
    """None in sys.modules makes the import fail; the table then has no figures of SciPy."""
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    monkeypatch.setattr(command_line, "ROW_SECONDS", 0.0)
    lines = command_line.table_rows([Case("sigmoid", "float32", (7,), None)])
    row = list(lines)[-1].replace("|", "").split()
    assert len(row) == 11  # there is no axis
    assert [i for i, text in enumerate(row) if text == "-"] == [4, 7, 9]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("operation", formulas.OPERATIONS)
def test_errors_in_the_table(operation):
    """All implementations compute the same, and the errors are those of good float32 arithmetic."""
    axis = None if operation == "sigmoid" else 0
    case = Case(operation, "float32", (30, 20), axis)
    functions = command_line.implementations(case)
    assert list(functions) == ["NumPy", "SciPy", "fastsoftmax"]
    found = {
        name: measuring.largest_error(f(case.scores()), case.reference())
        for name, f in functions.items()
    }
    assert found["fastsoftmax"] <= 6
    assert max(found.values()) < 100


def test_largest_error():
    exact = np.array([1.0, 2.0, 3.0], np.longdouble)
    got = exact.astype(np.float32)
    assert measuring.largest_error(got, exact) == 0
    got[2] = np.nextafter(got[2], np.float32(0))
    assert measuring.largest_error(got, exact) == 1
    assert np.isnan(measuring.largest_error(got, exact.astype(np.float32)))


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "0.12"), (1.26, "1.3"), (9.96, "10"), (417.3, "417")]
)
def test_figure(value, text):
    assert measuring.figure(value) == text


@pytest.mark.parametrize("value", [None, float("nan")])
def test_no_figure(value):
    assert measuring.figure(value) == "-"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["info", "--xml"], ["--json"], ["info", "more"]]
)
def test_wrong_arguments(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("usage: python -m fastsoftmax")
    assert arguments[-1] in printed.err


@exhaustive
def test_wrong_argument_of_a_process():
    done = run("nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m fastsoftmax")


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--help"])
    assert ended.value.code == 0
    assert "info" in capsys.readouterr().out


NOBODY_READS = [[], *(pytest.param(each, marks=exhaustive) for each in (["info"], BENCH))]


@pytest.mark.parametrize("arguments", NOBODY_READS)
def test_output_that_nobody_reads(arguments):
    """As with ``python -m fastsoftmax | head -n 1``: no traceback."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | paths(),
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()


def test_wrong_backend():
    done = run("info", FASTSOFTMAX_BACKEND="nonsense")
    assert done.returncode == 1
    assert "FASTSOFTMAX_BACKEND='nonsense' is not one of the available backends" in done.stderr
