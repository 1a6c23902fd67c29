"""``python -m fastsoftmax bench``, as a user runs it, and what it is made of.
No test asserts a time.
"""

import importlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import __main__ as command_line
from fastsoftmax.bench import command, machine, plot, report, turns
from fastsoftmax.bench.cases import Case, case_of
from fastsoftmax.bench.rivals import COPY, EXP, LIBRARIES, OURS, RIVALS, Missing
from fastsoftmax.bench.rows import Row, geometric_mean, means

SMALL = ("bench", "--quick", "--turns", "1", "--shapes", "3x5", "--rivals")


def run(*arguments, before=()):
    """Run ``python -m fastsoftmax`` with arguments,
    with some folders before all others of sys.path.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*map(str, before), *filter(None, sys.path)])
    }
    return subprocess.run(
        [sys.executable, "-m", "fastsoftmax", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
    )


def refusal(capsys, *arguments):
    """What argparse says to a command line that it refuses."""
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["bench", *arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def no_measuring(monkeypatch):
    """Starting a process is an error."""

    def refuse(name):
        raise AssertionError(name)

    monkeypatch.setattr(turns, "Worker", refuse)


def test_table():
    done = run(*SMALL, "numpy")
    assert done.returncode == 0, done.stderr
    check_table(done.stdout)


def check_table(printed):
    lines = printed.splitlines()
    heads = [line.split() for line in lines if line.startswith("operation")]
    assert heads == [
        ["operation", "dtype", "shape", "to", "us", "NumPy", "copyto", "np.exp", "best"],
    ]
    table = [line.split() for line in lines if line.startswith("softmax")]
    assert [row[:4] for row in table[:2]] == [
        ["softmax", "float32", "3x5", "new"],
        ["softmax", "float32", "3x5", "out"],
    ]
    assert len(table[2]) == 5  # two errors


@pytest.mark.exhaustive
def test_table_json_and_picture(tmp_path):
    """Everything at once."""
    figures, drawn = tmp_path / "figures.json", tmp_path / "picture.png"
    done = run(*SMALL, "numpy", "--json", str(figures), "--plot", str(drawn))
    assert done.returncode == 0, done.stderr
    check_table(done.stdout)
    record = json.loads(figures.read_text())
    assert record["versions"]["fastsoftmax"] == fastsoftmax.__version__
    assert [(row["shape"], row["out"]) for row in record["rows"]] == [
        ([3, 5], False),
        ([3, 5], True),
    ]
    assert all(row["best"] == "numpy" for row in record["rows"])
    assert len(record["sweep"]) == len(list(plot.sweep("softmax", "float32", quick=True)))
    assert drawn.read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.exhaustive
def test_json_alone():
    done = run(*SMALL, "numpy,scipy", "--json")
    assert done.returncode == 0, done.stderr
    new, out = json.loads(done.stdout)["rows"]
    assert set(new["seconds"]) == {OURS, "numpy", "scipy", COPY, EXP}
    assert set(out["seconds"]) == {OURS, "numpy", COPY, EXP}  # SciPy has no out=
    assert 0 < new["ulp"][OURS] <= 6


BROKEN = {
    "numexpr": (
        "raise ImportError('a library is missing')",
        "without numexpr: ImportError: a library is missing",
    ),
    "numba": (
        "import os, sys; print('gone', file=sys.stderr); os._exit(3)",
        "without Numba: its process ended with status 3: gone",
    ),
    "jax": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "without JAX: its process ended by SIGKILL",
    ),
    "torch": ("print('welcome')", "PyTorch failed in 2 of the rows: AttributeError: "),
}


@pytest.mark.exhaustive
def test_rivals_that_do_not_work_are_reported(tmp_path):
    """And the others measured; nothing that a library prints gets between the answers."""
    for name, (module, _) in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(f"{module}\n")
    done = run(*SMALL, ",".join([*BROKEN, "numpy"]), before=[tmp_path])
    assert (done.returncode, done.stderr) == (0, "")
    assert [reason for _, reason in BROKEN.values() if reason not in done.stdout] == []
    assert "welcome" not in done.stdout
    (row,) = [
        line.split()
        for line in done.stdout.splitlines()
        if line.startswith("softmax") and " new " in line
    ]
    assert row[5:9] == ["-"] * 4
    assert row[9] != "-"


def test_rivals_that_are_not_installed(monkeypatch, capsys):
    """They have no column, and a line that says so."""
    monkeypatch.setitem(RIVALS, "jax", RIVALS["jax"]._replace(module="no_such_module"))
    command.run(options("--quick", "--turns", "1", "--shapes", "3", "--rivals", "jax"))
    printed = capsys.readouterr().out
    assert "without JAX: no_such_module not installed" in printed
    assert "us   copyto" in printed


def test_a_worker_of_what_is_not_installed(monkeypatch):
    absent = RIVALS["numpy"]._replace(module="no_such_module", needs=("nor_this",))
    monkeypatch.setitem(RIVALS, "numpy", absent)
    with turns.Workers() as workers:
        assert workers.take_turns(case_of("softmax", "float32", (3,)), ["numpy"], 1) == {}
    assert workers.absent == {"numpy": "no_such_module and nor_this not installed"}


@pytest.mark.usefixtures("no_measuring")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rivals", "numpy,nonsense"), "'nonsense' is not one of numpy, scipy, torch"),
        (("--operations", "softmin"), "'softmin' is not one of softmax, log_softmax"),
        (("--dtypes", "int8"), "'int8' is not one of float16, float32, float64"),
        (("--shapes", "10,3x"), "'3x' is not a shape such as 10 or 256x1000"),
        (("--shapes", "0"), "'0' is not a shape"),
        (("--turns", "0"), "'0' is not a positive number"),
        (("--plot", "picture.doc"), "'picture.doc' does not end in one of"),
        (("--plot", "no/such/folder.png"), "there is no folder 'no/such'"),
        (("--operations", "cross_entropy", "--shapes", "10"), "need shapes of two dimensions"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    assert message in refusal(capsys, *arguments)


@pytest.mark.usefixtures("no_measuring")
def test_without_matplotlib(capsys, monkeypatch):
    """None in sys.modules makes the import fail.
    What to install is told before anything is measured.
    """
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    assert 'pip install "fastsoftmax[bench]"' in refusal(capsys, "--plot", "picture.png")


def options(*arguments):
    return command_line.parser().parse_args(["bench", *arguments])


def test_plan():
    """Every combination; losses of classes only where there are rows."""
    found = command.plan(
        options("--operations", "softmax,cross_entropy", "--shapes", "7,2x3", "--rivals", "numpy")
    )
    assert [(case.operation, case.dtype, case.shape, case.out) for case in found.cases[:4]] == [
        ("softmax", "float32", (7,), False),
        ("softmax", "float32", (7,), True),
        ("softmax", "float32", (2, 3), False),
        ("softmax", "float32", (2, 3), True),
    ]
    assert [case.dtype for case in found.cases if case.operation == "cross_entropy"] == [
        "float32",
        "float64",
    ]
    assert found.names == [OURS, "numpy", COPY, EXP]
    assert found.sweep == []


@pytest.mark.parametrize("out", [False, True], ids=["new", "out"])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("operation", command.NAMES)
def test_all_compute_the_same(operation, axis, out):
    """Those that are in these tests' requirements, in this process."""
    axis = (
        axis
        if operation in ("softmax", "log_softmax", "logsumexp")
        else case_of(operation, "", ()).axis
    )
    case = Case(operation, "float64", (6, 4), axis, out)
    results = {}
    for name in (OURS, "numpy", "scipy", "sklearn"):
        try:
            call = RIVALS[name].make(
                importlib.import_module(RIVALS[name].module), case, case.scores()
            )
        except Missing:
            continue
        results[name] = np.asarray(call())
    for result in results.values():
        np.testing.assert_allclose(result, results[OURS], rtol=1e-13)


def row_of(operation, out=False, **ratios):
    seconds = {name: ratio * 1e-6 for name, ratio in ratios.items()} | {OURS: 1e-6}
    return Row(
        case_of(operation, "float32", (250, 1000), out), seconds, ratios, {OURS: 1.5, "numpy": 20.0}
    )


def test_best_and_means():
    rows = [
        row_of("softmax", numpy=4.0, torch=2.0, copy=0.5),
        row_of("softmax", numpy=1.0, copy=0.5),
    ]
    assert [row.best for row in rows] == ["torch", "numpy"]
    found = means(rows, ["numpy", "torch", COPY, "jax"])
    assert found == {"numpy": 2.0, "torch": 2.0, COPY: 0.5, "best": pytest.approx(math.sqrt(2))}
    assert geometric_mean([]) is None
    assert row_of("softmax").best is None


def test_line_of_the_table():
    table = report.Table([OURS, "numpy", "torch", COPY], ["softmax"])
    assert table.row(row_of("softmax", out=True, numpy=4.0, copy=0.5)).split() == [
        *("softmax", "float32", "250x1000", "out"),
        *("1.0", "4.0", "-", "0.50", "4.0"),
    ]


def test_names_at_the_ends_of_lines_are_apart():
    moved = plot.spread([0.1, 0.11, 0.12, 0.5], 0.05)
    assert min(np.diff(moved)) >= 0.05 - 1e-12
    assert plot.spread([], 0.05) == []


def test_picture_of_all_rivals(tmp_path):
    """Every library has a style; other formats work, too."""
    names = [OURS, *LIBRARIES, COPY, EXP]
    times = dict.fromkeys(names[1:], 2.0)
    rows = [row_of(operation, **times) for operation in ("softmax", "log_softmax")]
    plot.draw(rows, [row_of("softmax", out=True, **times)], names, tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    assert "<svg" in text
    assert set(plot.STYLES) == {*names} - {EXP}


def test_machine():
    where, found = machine.machine(), machine.versions([OURS, "numpy", COPY])
    assert where["backend"] == fastsoftmax.config()["backend"]
    assert found["fastsoftmax"] == fastsoftmax.__version__
    assert found["NumPy"] == np.__version__
    assert str(where["processor"]) in machine.described([OURS])
