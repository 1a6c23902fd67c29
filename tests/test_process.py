"""What must not end a process: memory, threads or stacks that are short,
and arguments that change.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sizes import exhaustive

import fastsoftmax as fs

resource = pytest.importorskip("resource")

HERE = Path(__file__).parent
SETTINGS = (
    "FASTSOFTMAX_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_STACKSIZE",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
)


def output(script, backend, **environment):
    """What a script prints that runs with a backend, in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    inherited |= {"FASTSOFTMAX_BACKEND": backend, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    return done.stdout.strip()


# --- stacks ---------------------------------------------------------------------------------------

IN_A_SMALL_STACK = """
import threading, regimes
threading.stack_size(64 << 10)
thread = threading.Thread(target=regimes.make_all, args=(regimes.KINDS[{kinds}],))
thread.start(); thread.join()
"""


@pytest.mark.parametrize("kinds", [":1", pytest.param("1:", marks=exhaustive)])
def test_every_call_runs_in_a_small_stack(kinds, backend):
    assert output(IN_A_SMALL_STACK.format(kinds=kinds), backend).endswith("done")


@pytest.mark.parametrize("kinds", ["1:2", pytest.param("3:4", marks=exhaustive)])
def test_every_large_call_runs_in_workers_with_small_stacks(kinds, compiled):
    script = f"regimes.make_all(regimes.KINDS[{kinds}], large=True)"
    script = f"import fastsoftmax, regimes; fastsoftmax.set_num_threads(2); {script}"
    assert output(script, compiled, OMP_STACKSIZE="32k", OMP_WAIT_POLICY="passive").endswith("done")


# --- memory and threads ---------------------------------------------------------------------------

LIMIT = """
import resource
import numpy as np
import fastsoftmax as fs

def limit(further):
    '''Lets the process have so many more bytes.'''
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + further, resource.RLIM_INFINITY))

def fill():
    '''Takes what the process may still have, and has but does not use, but for some 300 kB.'''
    blocks = []
    try:
        while True:
            blocks.append(bytearray(300_000))
    except MemoryError:
        return blocks

def lift():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""

linux = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="the size of a process is in /proc"
)

SHORT_OF_MEMORY = (
    LIMIT
    + """
import regimes
kinds = regimes.KINDS[KINDS]
with fs.use_backend("numpy"):  # the threads of compiled backends keep what they once had
    made = list(regimes.calls([(300, 10), (70, 150), (3, 33000)], [(300, 130)], kinds))
limit(4 << 20)
blocks = fill()
short = 0
for name, call in made:
    try:
        call()
    except MemoryError as error:
        short += "to compute in" in str(error)
lift()
assert short > len(made) / 2, (short, len(made))
for name, call in made:
    call()
print("done")
"""
)


@linux
@pytest.mark.parametrize("kinds", [":1", pytest.param("1:2", marks=exhaustive)])
def test_too_little_memory_is_a_memory_error(kinds, compiled):
    assert output(SHORT_OF_MEMORY.replace("KINDS[KINDS]", f"KINDS[{kinds}]"), compiled) == "done"


def test_every_call_of_a_kernel_asks_whether_there_was_memory():
    for room in Path(fs.__file__).parent.glob("ops/*.pxi"):  # none where only modules are installed
        for call in room.read_text().split("with nogil:\n")[1:]:
            lines = itertools.takewhile(lambda line: line.startswith(" " * 8), call.split("\n"))
            assert [line.strip() for line in lines][-1] == "settled()", room.name


NOTHING_WRITTEN = (
    LIMIT
    + """
x, y = np.random.default_rng(0).normal(0, 3, (40, 500)), np.arange(40)
out = np.full(x.shape, 7.0)
calls = [
    lambda: fs.softmax(x, out=out),
    lambda: fs.log_softmax(x, out=out),
    lambda: fs.cross_entropy_value_and_grad(x, y, out=out),
    lambda: fs.softmax(x, 0, out=out),
]
limit(4 << 20)
blocks = fill()
for call in calls:
    try:
        call()
    except MemoryError:
        pass
    else:
        raise AssertionError("there was enough memory")
lift()
assert (out == 7.0).all()
for call in calls:
    call()
assert (out != 7.0).all()
print("done")
"""
)


@linux
def test_nothing_is_written_when_memory_is_short(compiled):
    assert output(NOTHING_WRITTEN, compiled) == "done"


FEW_THREADS = (
    LIMIT
    + """
x = np.random.default_rng(0).normal(0, 3, (200, 4000))
expected = fs.softmax(x, num_threads=1)
limit(64 << 20)
for _ in range(3):
    assert np.array_equal(fs.softmax(x, num_threads=4), expected)
print("done")
"""
)


@linux
@pytest.mark.parametrize("stack", ["1G", "20M"])
def test_threads_that_cannot_be_had_are_done_without(backend, stack):
    """The memory is enough for three stacks of 20 MiB, and for none of 1 GiB."""
    assert output(FEW_THREADS, backend, OMP_STACKSIZE=stack) == "done"


# --- arguments that change during a call ----------------------------------------------------------

UNCHECKED = """
import sys
import numpy as np
import fastsoftmax as fs
from fastsoftmax.ops import cross_entropy, logprobs, nll_loss, temperature_derivatives

one = np.ones((1, 1))
for dtype in (np.float32, np.float64):
    for n in (8, 100, 33_000):
        x = np.zeros((4, n, 1), dtype)
        for label in LABELS:
            y = np.full((4, 1, 1), label)
            out, loss = np.empty((4, 1, 1), dtype), np.zeros((4, 1), dtype)
            calls = [
                lambda: logprobs.logprobs_rows(x, y, out, one, 1),
                lambda: temperature_derivatives.temperature_derivatives_rows(x, y, None, 1.0, 1),
                lambda: nll_loss.nll_loss_rows(
                    x, y, loss, x.copy(), np.ones((1, n, 1)), None, -1, 1.0, 1
                ),
                lambda: cross_entropy.cross_entropy_grad_hess_rows(
                    x, y, x + 0, x + 0, None, 1.0, 0.0, 1
                ),
            ]
            for smoothing in (0.0, 0.1):
                for grad in (None, np.empty_like(x)):
                    calls.append(lambda g=grad, s=smoothing: cross_entropy.cross_entropy_rows(
                        x, y, loss, g, np.ones((1, n, 1)), None, one, None, -1, s, 0.0, 1.0, 1))
            for call in calls:
                try:
                    call()
                except IndexError:  # what the twins may say
                    pass
print("done")
"""


NO_CLASSES = ["(-1, 2**40)", pytest.param("(-(2**62), n)", marks=exhaustive)]


@pytest.mark.parametrize("labels", NO_CLASSES)
def test_labels_that_are_no_classes_are_never_followed(labels, backend):
    """As when another thread changes labels that were checked."""
    assert output(UNCHECKED.replace("LABELS", labels), backend) == "done"


RESIZING = """
import numpy as np
import fastsoftmax as fs

class Resizing:
    '''A number of threads, or another integer, that takes an array's memory when asked for.'''
    def __init__(self, array, value, shape=(1,)):
        self.array, self.value, self.shape = array, value, shape
    def __index__(self):
        self.array.resize(self.shape, refcheck=False)
        return self.value
    def __array__(self, dtype=None, copy=None):
        self.array.resize(self.shape, refcheck=False)
        return np.asarray(self.value)

class Mean(str):
    def __eq__(self, other):
        self.array.resize((1, 1), refcheck=False)
        return str.__eq__(self, other)
    __hash__ = str.__hash__

rows, n = 24, 500
def logits(): return np.ones((rows, n))
def tried(make):
    for which in range(4):
        for shape in ((1,), (1, 1), (2 * rows, n), (rows, 2 * n)):
            x, y, t, out = logits(), np.zeros(rows, int), logits(), logits()
            try:
                make(x, y, t, out, [x, y, t, out][which], shape)
            except (TypeError, ValueError, IndexError):
                pass

R = Resizing
calls = [
    lambda x, y, t, out, a, s: fs.softmax(x, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.softmax(x, out=out, num_threads=R(a, 2, s)),
    lambda x, y, t, out, a, s: fs.softmax(x, 0, out=out, num_threads=R(a, 2, s)),
    lambda x, y, t, out, a, s: fs.softmax(x, R(a, 1, s), out=out),
    lambda x, y, t, out, a, s: fs.softmax(x, temperature=R(a, 2.0, s), out=out),
    lambda x, y, t, out, a, s: fs.softmax(x, where=R(a, True, s), out=out),
    lambda x, y, t, out, a, s: fs.logsumexp(x, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.logsumexp(x, b=R(a, np.ones(n), s)),
    lambda x, y, t, out, a, s: fs.sigmoid(x, out=out, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.softmax_vjp(x, t, out=out, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.square_normalize(x, where=R(a, True, s), out=out),
    lambda x, y, t, out, a, s: fs.square_normalize_vjp(x, t, out=out, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.hardmax(x, out=out, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.logprobs(x, y, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.top_k_logprobs(x, R(a, 3, s)),
    lambda x, y, t, out, a, s: fs.fit_temperature(x, y, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.cross_entropy(x, y, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.cross_entropy(x, y, ignore_index=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.cross_entropy(x, R(a, y.copy(), s)),
    lambda x, y, t, out, a, s: fs.cross_entropy(x, y, sample_weight=R(a, np.ones(rows), s)),
    lambda x, y, t, out, a, s: fs.cross_entropy_value_and_grad(
        x, y, out=out, num_threads=R(a, 1, s)
    ),
    lambda x, y, t, out, a, s: fs.cross_entropy_grad_hess(
        x, y, grad_out=out, num_threads=R(a, 1, s)
    ),
    lambda x, y, t, out, a, s: fs.nll_loss(x, y, weight=R(a, np.ones(n), s)),
    lambda x, y, t, out, a, s: fs.binary_cross_entropy_with_logits(x, t, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.sigmoid_vjp(x, t, out=out, num_threads=R(a, 1, s)),
    lambda x, y, t, out, a, s: fs.binary_cross_entropy(x, t, weight=R(a, np.ones(n), s)),
    lambda x, y, t, out, a, s: fs.kl_divergence_from_logits(x, t, num_threads=R(a, 1, s)),
]
def with_reduction(x, y, t, out, a, s):
    mean = Mean("mean")
    mean.array = a
    fs.cross_entropy(x, y, reduction=mean)
for make in [*calls, with_reduction]:
    with np.errstate(all="ignore"):
        tried(make)
print("done")
"""


def test_arrays_that_arguments_resize_are_not_read_where_they_were(backend):
    assert output(RESIZING, backend, MALLOC_MMAP_THRESHOLD_="65536") == "done"
