"""How many threads a call uses, that its results do not depend on it,
and that forked children never hang.
"""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cases import CASES
from sizes import exhaustive
from threadpoolctl import threadpool_limits

import fastsoftmax as fs
from fastsoftmax import _threads

SETTINGS = (
    "FASTSOFTMAX_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "OMP_DYNAMIC",
    "OMP_WAIT_POLICY",
    *_threads.BINDING,
)
HAS_OPENMP = fs.config()["openmp"] is not None


def run(script, timeout=120, **environment):
    """Run a script in a fresh interpreter with no other thread settings than the ones given."""
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def output(script, **environment):
    done = run(script, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def threads():
    """Restores the setting that a test changes."""
    before = _threads._chosen
    yield
    _threads._chosen = before


# --- the number -----------------------------------------------------------------------------------

GET = "import fastsoftmax; print(fastsoftmax.get_num_threads())"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FASTSOFTMAX_NUM_THREADS": " 5 ", "OMP_NUM_THREADS": "2"}, 5),
        ({"FASTSOFTMAX_NUM_THREADS": "", "OMP_NUM_THREADS": "3,2"}, 3),
        pytest.param({"FASTSOFTMAX_NUM_THREADS": "3"}, 3, marks=exhaustive),
        pytest.param({"FASTSOFTMAX_NUM_THREADS": " 5 "}, 5, marks=exhaustive),
        pytest.param({"FASTSOFTMAX_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3, marks=exhaustive),
        pytest.param({"OMP_NUM_THREADS": "1"}, 1, marks=exhaustive),
        pytest.param({"OMP_NUM_THREADS": "3"}, 3, marks=exhaustive),
        pytest.param({"OMP_NUM_THREADS": "3,2"}, 3, marks=exhaustive),
        pytest.param({"FASTSOFTMAX_NUM_THREADS": "", "OMP_NUM_THREADS": "3"}, 3, marks=exhaustive),
    ],
    ids=str,
)
def test_environment_sets_the_number(environment, expected):
    assert output(GET, **environment) == str(expected)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        pytest.param({"OMP_NUM_THREADS": ""}, marks=exhaustive),
        {"OMP_NUM_THREADS": "many"},
    ],
    ids=str,
)
def test_default_is_what_this_process_may_use(environment):
    assert output(GET, **environment) == str(_threads.usable_cpus())


@pytest.mark.parametrize(
    "value", ["0", "two", *(pytest.param(v, marks=exhaustive) for v in ("-1", "1.5", "3,2"))]
)
def test_environment_variable_of_no_use_is_told(value):
    done = run(GET, FASTSOFTMAX_NUM_THREADS=value)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "FASTSOFTMAX_NUM_THREADS" in done.stderr
    assert repr(value) in done.stderr


def test_set_num_threads_beats_the_environment():
    script = f"import fastsoftmax; fastsoftmax.set_num_threads(2); {GET}"
    assert output(script, FASTSOFTMAX_NUM_THREADS="7", OMP_NUM_THREADS="5") == "2"


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("2", TypeError)]
)
def test_bad_numbers_name_the_argument(threads, n, error):
    fs.set_num_threads(3)
    with pytest.raises(error, match=r"\bn must be"):
        fs.set_num_threads(n)
    assert fs.get_num_threads() == 3
    out = np.full(4, 7.0)
    with pytest.raises(error, match="num_threads must be"):
        fs.softmax(np.zeros(4), out=out, num_threads=n)
    assert (out == 7.0).all()


@pytest.mark.parametrize("n", [None, True])
def test_set_num_threads_takes_integers_only(threads, n):
    with pytest.raises(TypeError, match="n must be an integer"):
        fs.set_num_threads(n)


@pytest.mark.parametrize("n", [np.int64(4), np.uint8(4), 4])
def test_any_integer_type_will_do(threads, n):
    fs.set_num_threads(n)
    assert fs.get_num_threads() == 4
    assert type(fs.get_num_threads()) is int


def test_a_call_stays_serial_for_little_work(threads, monkeypatch):
    monkeypatch.setattr(_threads, "usable_cpus", lambda: 4)
    fs.set_num_threads(8)
    assert _threads.resolve(None, _threads.SERIAL_BELOW - 1) == 1
    assert _threads.resolve(8, _threads.SERIAL_BELOW - 1) == 1
    assert _threads.resolve(None, 10**9) == 8
    assert _threads.resolve(3, 10**9) == 3
    assert _threads.resolve(16, 10**9) == 16
    assert _threads.resolve(17, 10**9) == _threads.resolve(10**6, 10**12) == 16
    assert _threads.resolve(8, 2 * _threads.WORK_PER_THREAD) == 2


def test_affinity_counts():
    script = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {GET}"
    if hasattr(os, "sched_setaffinity"):
        assert output(script) == "1"


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_PROC_BIND": "true"},
        pytest.param({"OMP_PROC_BIND": "spread", "OMP_PLACES": "threads"}, marks=exhaustive),
        pytest.param({"OMP_PROC_BIND": "false"}, marks=exhaustive),
    ],
    ids=str,
)
def test_threads_that_are_bound_to_cpus_are_as_many(environment):
    """A runtime that binds threads binds the first one when it is loaded."""
    assert output(GET, **environment) == output(GET)


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/", {}, np.inf),
        ("0::/", {"cpu.max": "max 100000\n"}, np.inf),
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/of/the/host", {"cpu.max": "50000 100000\n"}, 0.5),
        (
            "3:cpu,cpuacct:/\n0::/",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            np.inf,
        ),
        (
            "3:cpu,cpuacct:/x",
            {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "20000"},
            2.5,
        ),
        ("3:memory:/x", {"cpu.max": "50000 100000"}, np.inf),
        ("0::/", {"cpu.max": "nonsense"}, np.inf),
        ("nonsense", {"cpu.max": "50000 100000"}, np.inf),
    ],
)
def test_control_group_quota(tmp_path, membership, files, cpus):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _threads.cgroup_quota(tmp_path / "mount", tmp_path / "membership") == cpus


def test_no_control_groups_no_quota(tmp_path):
    assert _threads.cgroup_quota(tmp_path, tmp_path / "absent") == np.inf


def test_threadpoolctl_limits_the_default_only(threads):
    _threads._chosen = None
    environment = _threads._FROM_ENVIRONMENT
    default = fs.get_num_threads()
    with threadpool_limits(1):
        assert fs.get_num_threads() == (1 if HAS_OPENMP and environment is None else default)
        fs.set_num_threads(3)
        assert fs.get_num_threads() == 3


# --- the same bits --------------------------------------------------------------------------------

FOR_THREE_THREADS = [((1, 100_003), -1), ((3, 33_991), None), ((311, 331), 0), ((311, 331), -1)]
FOR_THREE_THREADS += [((50_003, 2), -1)]
FOR_MORE = [((1, 1_000_003), -1), ((3, 99_991), -1), ((3, 99_991), None), ((1009, 331), -1)]
FOR_MORE += [((1009, 331), 0), ((1009, 331), None), ((200_003, 2), -1), ((200_003, 2), 0)]
SHAPES = [
    pytest.param(FOR_THREE_THREADS, id="few"),
    pytest.param(FOR_MORE, id="many", marks=exhaustive),
]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_do_not_depend_on_the_number(case, shapes, backend, dtype, rng):
    for shape, axis in shapes:
        x = case.oriented(rng.normal(0, 5, shape).astype(dtype))
        options = {"axis": axis} if case.rowwise else {}
        g = case.call(x, **options) if case.reduced else x
        calls = [partial(case.call, x, **options)]
        calls += [partial(case.call_vjp, g, x, **options)] if case.vjp else []
        for call in calls:
            serial = np.asarray(call(num_threads=1)).tobytes()
            for n in (2, 3, 8):
                assert np.asarray(call(num_threads=n)).tobytes() == serial, (call, n)


COMPUTE = """
import os, threading, time
import numpy as np
import fastsoftmax as fs

x = np.random.default_rng(1).normal(0, 5, (64, 4000)).astype(np.float32)
expected = fs.softmax(x, num_threads=1)
def compute(n=2):
    assert np.array_equal(fs.softmax(x, num_threads=n), expected)
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_THREAD_LIMIT": "1"},
        pytest.param({"OMP_DYNAMIC": "true"}, marks=exhaustive),
        pytest.param({"OMP_NUM_THREADS": "1"}, marks=exhaustive),
        pytest.param({"OMP_NUM_THREADS": "3"}, marks=exhaustive),
    ],
    ids=str,
)
def test_team_smaller_than_asked_for(environment):
    assert output(COMPUTE + "for n in (2, 5): compute(n)\nprint('done')", **environment) == "done"


@pytest.mark.parametrize("n", [1, 2])
def test_concurrent_callers(backend, rng, n):
    x = rng.normal(0, 5, (64, 4000)).astype(np.float32)
    serial = fs.softmax(x, num_threads=1)
    start = threading.Barrier(8)

    def call(_):
        start.wait()
        return [fs.softmax(x, num_threads=n) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(call, range(8)):
            assert all(np.array_equal(result, serial) for result in results)


COUNT = (
    COMPUTE
    + """
before = len(os.listdir("/proc/self/task"))
for _ in range(5):
    compute({n})
print(len(os.listdir("/proc/self/task")) - before)
"""
)


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=exhaustive) for n in (1, 3))])
def test_no_more_threads_than_asked_for(n):
    if Path("/proc/self/task").exists():
        assert int(output(COUNT.format(n=n))) <= n - 1


def test_no_call_starts_many_more_threads_than_there_are_cpus():
    if Path("/proc/self/task").exists():
        large = "x = np.zeros((400, 4000), np.float32); expected = fs.softmax(x, num_threads=1)\n"
        script = COUNT.format(n=10**6).replace("before =", large + "before =")
        assert (
            int(output(script, OMP_WAIT_POLICY="passive"))
            < _threads.MOST_PER_CPU * _threads.usable_cpus()
        )


# --- forks ----------------------------------------------------------------------------------------
# Runtimes of OpenMP lose their threads in a forked child and may wait for them for ever. Each
# script forks in a process of its own; SIGALRM ends a child that hangs.

FORK = (
    COMPUTE
    + """
import signal

def fork(children, work):
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(20)
                work()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0, "a child hung or failed"
        compute()  # and the parent goes on
"""
)

FORKS = {
    "after use": "compute(); fork(20, compute)",
    "before use": "fork(3, compute)",
    "after use in another thread": (
        """
t = threading.Thread(target=compute); t.start(); t.join()
fork(5, compute)"""
    ),
    "from another thread": (
        """
compute()
t = threading.Thread(target=lambda: (compute(), fork(5, compute))); t.start(); t.join()"""
    ),
    "while another thread computes": (
        """
stop = threading.Event()
def work():
    while not stop.is_set(): compute()
t = threading.Thread(target=work); t.start()
compute(); fork(5, compute)
stop.set(); t.join()"""
    ),
    "from a child": (
        "compute(); fork(3, lambda: (compute(), fork(2, lambda: (compute(), fork(1, compute)))))"
    ),
    "child uses threads of its own": (
        """
def work():
    ts = [threading.Thread(target=compute) for _ in range(3)]
    for t in ts: t.start()
    for t in ts: t.join()
compute(); fork(5, work)"""
    ),
    "from C": (
        """
import ctypes
def fork_in_c(children):
    for _ in range(children):
        pid = ctypes.PyDLL(None).fork()  # no hook of Python's runs
        if pid == 0:
            signal.alarm(20)
            compute()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "a child hung or failed"
        compute()
compute(); fork_in_c(10)
t = threading.Thread(target=lambda: (compute(), fork_in_c(5))); t.start(); t.join()"""
    ),
    "multiprocessing pool": (
        """
import multiprocessing, warnings
# newer Pythons warn of every fork beside threads
warnings.simplefilter("ignore", DeprecationWarning)
compute()
with multiprocessing.get_context("fork").Pool(4) as pool:
    parts = pool.map_async(fs.softmax, [x] * 20).get(timeout=60)
assert all(np.array_equal(part, expected) for part in parts)"""
    ),
}


@pytest.mark.parametrize("scenario", FORKS)
def test_forked_child_never_hangs(scenario):
    assert output(FORK + FORKS[scenario] + "\nprint('done')") == "done"


SERIAL_CHILDREN = (
    FORK
    + """
def serial():
    assert fs.get_num_threads() == fs.config()["num_threads"] == 1

fs.set_num_threads(3)
pid = os.fork()  # nothing has run in parallel yet
if pid == 0:
    os._exit(fs.get_num_threads() != 3)
assert os.waitpid(pid, 0)[1] == 0

compute(2)
fork(1, serial)
fork(1, lambda: (fs.set_num_threads(2), serial(), fork(1, serial)))
print(fs.get_num_threads())
"""
)


def test_forked_child_of_a_parallel_parent_is_serial():
    assert output(SERIAL_CHILDREN) == "3"
