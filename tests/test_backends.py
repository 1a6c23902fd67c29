"""Which implementation runs, how it is chosen, and that all of them offer the same functions."""

import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sizes import exhaustive, sizes

import fastsoftmax as fs
from fastsoftmax import _backend, _call

COMPILED = [name for name in _backend.available() if name != "numpy"]
MODULES = tuple(f"fastsoftmax.kernels.{name}" for name in _backend.ORDER if name != "numpy")
KEYS = ["version", "backend", "backends", "reason", "cpu", "openmp", "num_threads", "uncompiled"]


def others(*parameters):
    """Those that only the exhaustive tests try, each in a process of its own."""
    return [pytest.param(each, marks=exhaustive) for each in parameters]


def run(script, *arguments, cwd=None, **environment):
    """Run a script in a fresh interpreter, without a choice of backend unless one is given."""
    inherited = {name: value for name, value in os.environ.items() if name != "FASTSOFTMAX_BACKEND"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, env=inherited | environment, cwd=cwd, capture_output=True, text=True, timeout=120
    )


def output(script, *arguments, **environment):
    done = run(script, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def is_installed(module):
    return importlib.util.find_spec(f"fastsoftmax.{module}") is not None


def bound(kernel):
    """What a kernel's name stands for in its room."""
    return getattr(sys.modules[_backend.TWINS[kernel].__module__], kernel)


# --- canaries -------------------------------------------------------------------------------------


def test_every_compiled_module_that_fits_this_cpu_is_available():
    """A module that was built but does not load would otherwise go unnoticed: NumPy takes over."""
    built = [isa for isa in _backend.ORDER if isa != "numpy" and is_installed(f"kernels.{isa}")]
    assert is_installed("_cpu") == bool(built)
    fitting = [isa for isa in built if not _backend.cpu.missing(isa)]
    assert fs.config()["backends"] == [*fitting, "numpy"]


def test_expected_backends():
    """Continuous integration says what it has built,
    as in FASTSOFTMAX_EXPECT_BACKENDS="baseline numpy".
    """
    expected = os.environ.get("FASTSOFTMAX_EXPECT_BACKENDS", "numpy").split()
    assert set(expected) <= set(fs.config()["backends"])


def test_best_backend_is_chosen():
    script = "import fastsoftmax as fs; print(fs.config()['backend'])"
    assert output(script) == fs.config()["backends"][0]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_kernels_really_run(name):
    """Each name is bound to the compiled function of that very module."""
    module = importlib.import_module(f"fastsoftmax.kernels.{name}")
    with fs.use_backend(name):
        for kernel in _backend.TWINS:
            assert bound(kernel) is getattr(module, kernel), kernel


def test_numpy_backend_runs_the_twins():
    with fs.use_backend("numpy"):
        for kernel, twin in _backend.TWINS.items():
            assert bound(kernel) is twin


# --- every backend has the same kernels -----------------------------------------------------------


@pytest.mark.parametrize("kernel", _backend.TWINS)
@pytest.mark.parametrize("name", COMPILED)
def test_signatures_of_kernel_and_twin_are_equal(name, kernel):
    compiled = getattr(importlib.import_module(f"fastsoftmax.kernels.{name}"), kernel)
    twin = inspect.signature(_backend.TWINS[kernel])
    parameters = inspect.signature(compiled).parameters.values()
    assert [(p.name, p.kind, p.default) for p in parameters] == [
        (p.name, p.kind, p.default) for p in twin.parameters.values()
    ]


@pytest.mark.parametrize("name", COMPILED)
def test_no_compiled_kernel_lacks_a_twin(name):
    module = importlib.import_module(f"fastsoftmax.kernels.{name}")
    kernels = [key for key in vars(module) if key.endswith(("_rows", "_flat", "_plain"))]
    assert kernels
    assert set(kernels) == set(_backend.TWINS)


# --- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*COMPILED[1:2], *others(*COMPILED[:1], *COMPILED[2:]), "numpy"])
def test_environment_forces_a_backend(name):
    script = "import fastsoftmax as fs; fs.softmax([1.0, 2.0]); print(fs.config()['backend'])"
    assert output(script, FASTSOFTMAX_BACKEND=name) == name


def test_empty_environment_variable_is_none():
    script = "import fastsoftmax as fs; print(fs.config()['backend'])"
    assert output(script, FASTSOFTMAX_BACKEND="") == fs.config()["backends"][0]


def test_environment_with_an_unknown_backend_is_an_import_error():
    done = run("import fastsoftmax", FASTSOFTMAX_BACKEND="quantum")
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "'quantum'" in done.stderr
    assert str(_backend.available()) in done.stderr


def test_numpy_backend_imports_no_kernels():
    """Whoever asks for NumPy because a compiled module misbehaves must not meet that module."""
    script = (
        "import sys, fastsoftmax as fs; fs.softmax([1.0])\n"
        "print(*{'baseline', 'avx2', 'avx512'} & {name.rpartition('.')[2] for name in sys.modules})"
    )
    assert output(script, FASTSOFTMAX_BACKEND="numpy") == ""


@pytest.mark.parametrize("name", ["quantum", "", "NUMPY", "_shared", None])
def test_use_backend_lists_what_there_is(name):
    before = fs.config()["backend"]
    with pytest.raises(ValueError, match="'numpy'"), fs.use_backend(name):
        pass
    assert fs.config()["backend"] == before


def test_use_backend_nests_and_restores():
    start, best = fs.config()["backend"], fs.config()["backends"][0]
    with fs.use_backend("numpy"):
        assert fs.config()["backend"] == "numpy"
        with fs.use_backend(best):
            assert fs.config()["backend"] == best
        assert fs.config()["backend"] == "numpy"
    assert fs.config()["backend"] == start


def test_use_backend_restores_after_an_exception():
    start = fs.config()["backend"]
    with pytest.raises(KeyError), fs.use_backend("numpy"):
        raise KeyError
    assert fs.config()["backend"] == start


def test_switching_while_others_compute(rng):
    """Calls that run during a switch use one backend or the other, and are right either way."""
    x = rng.normal(0, 5, (8, 100))
    expected = fs.softmax(x)

    def switch(_):
        for name in fs.config()["backends"] * 5:
            with fs.use_backend(name):
                fs.softmax(x)

    def compute(_):
        return max(np.abs(fs.softmax(x) - expected).max() for _ in range(200))

    start = fs.config()["backend"]
    with ThreadPoolExecutor(4) as pool:
        errors = pool.map(compute, range(3))
        switch(None)
        assert max(errors) < 1e-14
    assert fs.config()["backend"] == start


def test_one_thread_at_a_time_may_switch():
    start = fs.config()["backend"]
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with fs.use_backend("numpy"):
            inside.set()
            leave.wait(60)

    holder = threading.Thread(target=hold, name="holder")
    holder.start()
    inside.wait(60)
    try:
        with pytest.raises(RuntimeError, match=r"'holder' is within use_backend\('numpy'\)"):
            fs.use_backend("numpy").__enter__()
        assert fs.config()["backend"] == "numpy"  # as the holder wants it
    finally:
        leave.set()
        holder.join()
    assert fs.config()["backend"] == start
    with fs.use_backend("numpy"):
        assert fs.config()["backend"] == "numpy"
    assert fs.config()["backend"] == start


def test_blocks_that_overlap_restore_what_was_before_all_of_them():
    """As those of two tasks of one event loop."""
    start, best = fs.config()["backend"], fs.config()["backends"][0]
    one, other = fs.use_backend("numpy"), fs.use_backend(best)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert fs.config()["backend"] == best
    other.__exit__(None, None, None)
    assert fs.config()["backend"] == start


def test_a_block_of_a_thread_that_ended_hinders_nobody():
    start = fs.config()["backend"]
    left = fs.use_backend("numpy")
    thread = threading.Thread(target=left.__enter__)
    thread.start()
    thread.join()
    with fs.use_backend(start):
        assert fs.config()["backend"] == start
    left.__exit__(None, None, None)
    assert fs.config()["backend"] == start


FORKING = """
import os, signal, threading, warnings
import fastsoftmax as fs
warnings.simplefilter("ignore", DeprecationWarning)
names, start = fs.config()["backends"], fs.config()["backend"]
stop = threading.Event()
def switch():
    while not stop.is_set():
        for name in names:
            with fs.use_backend(name): pass

def fork(check):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            check()
            with fs.use_backend("numpy"):
                fs.softmax([1.0, 2.0])
            check()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "a child hung or failed"

def is_active(name):
    assert fs.config()["backend"] == name, fs.config()

thread = threading.Thread(target=switch)
thread.start()
for _ in range(FORKS):
    fork(lambda: is_active(start))
stop.set()
thread.join()
with fs.use_backend("numpy"):
    fork(lambda: is_active("numpy"))
is_active(start)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@sizes(10, 30)
def test_forking_while_another_thread_switches(size):
    """The child is in the blocks of the thread that forked, and in no others;
    it may switch itself.
    """
    assert output(FORKING.replace("FORKS", str(size))) == "done"


# --- configuration --------------------------------------------------------------------------------


def test_config_has_the_documented_keys(backend):
    config = fs.config()
    assert list(config) == KEYS
    assert config["version"] == fs.__version__
    assert config["backend"] == backend
    assert config["backends"] == _backend.available()
    assert config["backends"][-1] == "numpy"
    assert config["reason"] is None or isinstance(config["reason"], str)
    assert all(isinstance(feature, str) for feature in config["cpu"])
    assert config["openmp"] is None or "OpenMP" in config["openmp"]
    assert config["num_threads"] == fs.get_num_threads()


def test_config_names_what_is_not_compiled():
    with fs.use_backend("numpy"):
        uncompiled = fs.config()["uncompiled"]
        assert {"softmax", "softmin", "log_softmax", "logsumexp", "sigmoid", "softmax_vjp"} <= set(
            uncompiled
        )
        assert set(uncompiled) < set(fs.__all__)
    for name in COMPILED:
        with fs.use_backend(name):
            assert fs.config()["uncompiled"] == []


@pytest.mark.parametrize("name", COMPILED)
def test_kernels_are_compiled_for_16_bits(name, half, monkeypatch):
    """float16 and bfloat16 do not fall back on the twins."""
    x, labels = np.zeros((3, 5), half), np.array([0, 1, 2])
    wide = np.zeros((3, 5), np.longdouble)
    calls = [
        fs.softmax,
        fs.log_softmax,
        fs.logsumexp,
        fs.sigmoid,
        fs.hardmax,
        lambda x: fs.sigmoid_vjp(x, x),
    ]
    calls += [lambda x: fs.softmax_vjp(x, x), lambda x: fs.logsumexp_vjp(np.ones(3, np.float32), x)]
    calls += [
        lambda x: fs.cross_entropy_value_and_grad(x, labels),
        lambda x: fs.logprobs(x, labels),
    ]
    calls += [
        lambda x: fs.binary_cross_entropy_with_logits(x, x),
        lambda x: fs.kl_divergence_from_logits(x, x),
    ]
    with fs.use_backend(name):
        monkeypatch.setattr(_call, "TWINS", {})
        for call in calls:
            call(x)
            with pytest.raises(KeyError):  # the test can fail
                call(wide)


def test_config_is_a_fresh_dict():
    fs.config()["backends"].clear()
    fs.config()["cpu"].append("nothing")
    assert fs.config()["backends"]
    assert "nothing" not in fs.config()["cpu"]


def test_reason_says_who_chose():
    best = fs.config()["backends"][0]
    with fs.use_backend("numpy"):
        assert best == "numpy" or "use_backend('numpy')" in fs.config()["reason"]
    forced = output(
        "import fastsoftmax as fs; print(fs.config()['reason'])", FASTSOFTMAX_BACKEND="numpy"
    )
    assert best == "numpy" or "FASTSOFTMAX_BACKEND=numpy" in forced


def test_show_config_prints_everything(capsys):
    fs.show_config()
    printed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in printed.splitlines()] == KEYS
    assert fs.config()["backend"] in printed


# --- what must not break the import ---------------------------------------------------------------

BROKEN = """
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({names!r}):
            raise {error}

sys.meta_path.insert(0, Broken())
import fastsoftmax as fs
assert abs(fs.softmax([0.0, 0.0])[0] - 0.5) < 1e-15
print(*fs.config()["backends"], sep=",")
print(fs.config()["reason"])
"""


def without(names, error):
    """Backends and reason where importing modules of these names fails with an error."""
    backends, reason = output(BROKEN.format(names=names, error=error)).split("\n", 1)
    return backends.split(","), reason


ERRORS = [
    "ImportError('cannot allocate memory in static TLS block')",
    "ImportError('module does not support loading in subinterpreters')",
    "OSError('libgomp.so.1: cannot open shared object file')",
    "RuntimeError('module compiled against another ABI of NumPy')",
]


@pytest.mark.parametrize("error", [ERRORS[0], *others(*ERRORS[1:])])
def test_compiled_modules_that_do_not_load_leave_numpy(error):
    backends, reason = without(MODULES, error)
    assert backends == ["numpy"]
    assert not COMPILED or error.split("'")[1] in reason


def test_package_without_compiled_modules_says_so():
    missing = "ModuleNotFoundError('gone', name=name)"
    backends, reason = without(("fastsoftmax._cpu",), missing)
    assert backends == ["numpy"]
    assert "not built" in reason


def test_one_module_that_does_not_load_leaves_the_others():
    for best, *others in (COMPILED[i:] for i in range(len(COMPILED))):
        broken = tuple(f"fastsoftmax.kernels.{name}" for name in COMPILED if name not in others)
        backends, reason = without(broken, "ImportError('out of luck')")
        assert backends == [*others, "numpy"]
        assert f"{best}: " in reason


# --- what must not happen to the process ----------------------------------------------------------


def test_subnormal_numbers_survive():
    """A library linked with -ffast-math flushes them to zero in the whole process."""
    script = (
        "import threading, numpy as np, fastsoftmax as fs\n"
        "found = []\n"
        "def check(): found.append(float((np.array([5e-324]) * 1.0)[0]) != 0)\n"
        "x = np.zeros((64, 4000))\n"
        "for name in fs.config()['backends']:\n"
        "    with fs.use_backend(name):\n"
        "        fs.softmax(x, num_threads=2)\n"
        "        check(); t = threading.Thread(target=check); t.start(); t.join()\n"
        "print(all(found))"
    )
    assert output(script) == "True"


def test_import_needs_nothing_but_numpy():
    script = (
        "import sys, fastsoftmax as fs; fs.softmax([1.0])\nprint(sorted({'ml_dtypes', 'scipy',"
        " 'torch', 'Cython', 'threadpoolctl'} & set(sys.modules)))"
    )
    assert output(script) == "[]"


def test_type_information_is_shipped():
    assert Path(fs.__file__).with_name("py.typed").exists()
