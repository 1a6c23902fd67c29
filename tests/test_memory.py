"""What calls add to the memory of a process at most, over their arguments and results."""

import os
import subprocess
import sys

import pytest
from sizes import exhaustive, sizes

import fastsoftmax as fs

MIB = 2**20
STATUS = "/proc/self/status"
pytestmark = pytest.mark.skipif(
    not os.path.exists(STATUS), reason="the peak of memory is read from /proc"
)

# The peak of the resident set counts every page that was touched, by whatever allocator. VmHWM is
# that of the new process; ru_maxrss would start from the peak of its parent. Pages of files are not
# counted: they are code that runs for the first time, and the system maps as much around it as it
# likes. Nor is what a first call on ten rows of ten needs: it is what imports leave to the first
# call.
SCRIPT = """
import sys
import numpy as np
import fastsoftmax as fs

def peak():
    with open("/proc/self/status") as lines:
        found = dict(line.split(":") for line in lines)
    signs = {{"VmHWM": 1, "RssFile": -1}}
    return sum(int(found[name].split()[0]) * sign * 1024 for name, sign in signs.items())

rng = np.random.default_rng(0)
def call(rows, n):
    make, runs = {make}, [{runs}]
    made = make(rows, n)
    before = peak()
    for run in runs:
        run(*made)
    return peak() - before

call(10, 10)
print(call({rows}, {n}))
"""

LOGITS = "lambda r, n: (np.zeros((r, n), np.float32), np.arange(r) % n)"
WITH_OUT = (
    "lambda r, n: (np.ones((r, n), np.float32), np.arange(r) % n, np.ones((r, n), np.float32))"
)
TOUCHED = "lambda r, n: (rng.random((r, n), np.float32), np.arange(r) % n)"
PAIR = (
    "lambda r, n: (np.ones((r, n), np.float32), np.ones((r, n), np.float32), np.ones((r, n),"
    " np.float32))"
)
LABELS = "lambda r, n: (np.ones((r, 2), np.float32), np.ones((r, 3), np.int64)[:, 1])"
OF_16_MIB = {"rows": 256, "n": 16384}
OF_64_MIB = pytest.param({"rows": 1024, "n": 16384}, marks=exhaustive)
LONG_ROWS = pytest.param({"rows": 16, "n": 2**20}, marks=exhaustive)
SHORT_ROWS = pytest.param({"rows": 2**21, "n": 8}, marks=exhaustive)


def growth(make, *runs, rows, n, backend="default", threads=2):
    """Bytes that ``run(*make(rows, n))`` added to the peak of a new process;
    the most of several runs.
    """
    environment = os.environ | {"FASTSOFTMAX_NUM_THREADS": str(threads)}
    environment |= {} if backend == "default" else {"FASTSOFTMAX_BACKEND": backend}
    script = SCRIPT.format(make=make, runs=", ".join(runs), rows=rows, n=n)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


compiled = pytest.mark.skipif(
    fs.config()["backend"] == "numpy", reason="the twin works in larger blocks"
)


def test_the_measure_measures():
    """A copy of 64 MiB is seen, and so is one of 2 MiB."""
    assert 15 * MIB < growth(TOUCHED, "lambda x, y: np.exp(x)", **OF_16_MIB) < 18 * MIB
    assert 1 * MIB < growth(TOUCHED, "lambda x, y: np.exp(x[:32])", **OF_16_MIB) < 3 * MIB


@compiled
@pytest.mark.parametrize("shape", [OF_16_MIB, OF_64_MIB, LONG_ROWS], ids=str)
def test_float16_is_converted_in_blocks(shape):
    make = "lambda r, n: (np.ones((r, n), np.float16),)"
    runs = (f"lambda x: fs.{name}(x, out=x)" for name in ("softmax", "log_softmax", "sigmoid"))
    assert growth(make, *runs, **shape) < MIB


@compiled
@pytest.mark.parametrize("shape", [OF_16_MIB, OF_64_MIB, LONG_ROWS, SHORT_ROWS], ids=str)
def test_cross_entropy(shape):
    """Nothing of the size of the logits is made, and labels are not copied."""
    runs = (
        f"lambda x, y: fs.cross_entropy(x, y, reduction='{reduction}')"
        for reduction in ("mean", "sum")
    )
    assert growth(TOUCHED, *runs, **shape) < MIB


of_either_size = pytest.mark.parametrize("shape", [OF_16_MIB, OF_64_MIB], ids=str)
OPTIONS = ["label_smoothing=0.1", "temperature=2.0", "ignore_index=3", "z_loss=0.01"]
OPTIONS += ["weight=np.ones(x.shape[1])"]


@compiled
@of_either_size
def test_cross_entropy_with_options(shape):
    runs = (f"lambda x, y: fs.cross_entropy(x, y, {option})" for option in OPTIONS)
    assert growth(TOUCHED, *runs, **shape) < MIB


@compiled
@pytest.mark.parametrize("shape", [OF_16_MIB, OF_64_MIB, LONG_ROWS, SHORT_ROWS], ids=str)
@pytest.mark.parametrize("out", ["out", "x"])
def test_gradients_go_to_out_alone(out, shape):
    run = f"lambda x, y, out: fs.cross_entropy_value_and_grad(x, y, out={out})"
    # x is written to for the first time
    first = 0 if out == "out" else 4 * shape["rows"] * shape["n"]
    assert growth(WITH_OUT, run, **shape) < MIB + first


@compiled
@of_either_size
def test_gradients_of_yes_or_no_go_to_out_alone(shape):
    run = "lambda x, t, out: fs.binary_cross_entropy_with_logits_value_and_grad(x, t, out=out)"
    assert growth(PAIR, run, **shape) < MIB


@compiled
@of_either_size
def test_booleans_are_not_copied(shape):
    """Four million of them, or sixteen: as bytes a copy would take 4 MiB or more."""
    make = "lambda r, n: (np.ones((r, n), np.float32), np.full((r, n), 3, np.uint8).view(bool))"
    call = "lambda x, t: fs.binary_cross_entropy_with_logits(x, t, {})"
    runs = map(call.format, ("", "weight=t", "pos_weight=t"))
    assert growth(make, *runs, **shape) < MIB


# Arrays that no kernel takes as they are, of 8 MiB or more; what is made for them would be seen.
KINDS = {
    "uint8": "np.ones((r, n), np.uint8)",
    "bool": "np.ones((r, n), bool)",
    "int64": "np.ones((r, n), np.int64)",
    "swapped": "np.ones((r, n), np.dtype(np.float32).newbyteorder())",
    "misaligned": "np.ones(4 * r * n + 1, np.uint8)[1:].view(np.float32).reshape(r, n)",
}
FOREIGN = [
    "fs.logsumexp(x)",
    "fs.logsumexp(x, axis=0)",
    "fs.logsumexp(x, axis=None)",
    "fs.logsumexp(x, b=x)",
    "fs.logsumexp(np.float32(0), axis=None, b=x)",
    "fs.cross_entropy(x, np.zeros(len(x), int))",
    "fs.logprobs(x, np.zeros(len(x), int))",
    "fs.top_k_logprobs(x, 3)",
    "fs.fit_temperature(x, np.zeros(len(x), int))",
    "fs.binary_cross_entropy_with_logits(x, x)",
    "fs.kl_divergence(x, x)",
    "fs.kl_divergence_from_logits(x, x)",
]
OF_8_MIB = {"rows": 256, "n": 32768}


@compiled
@pytest.mark.parametrize(
    "kind",
    [
        "uint8",
        "swapped",
        *(pytest.param(kind, marks=exhaustive) for kind in ("bool", "int64", "misaligned")),
    ],
)
def test_no_input_is_copied(kind):
    """Integers, booleans and foreign bytes are converted in blocks, logits,
    weights and targets alike.
    """
    make = f"lambda r, n: ({KINDS[kind]},)"
    assert growth(make, f"lambda x: [{', '.join(FOREIGN)}]", **OF_8_MIB) < 2 * MIB


@compiled
@pytest.mark.parametrize("kind", ["uint8", "swapped"])
def test_the_result_is_all_that_is_made(kind):
    make = f"lambda r, n: ({KINDS[kind]}, np.ones((r, n), np.float{64 if kind == 'uint8' else 32}))"
    functions = (
        "fs.softmax, fs.log_softmax, fs.softmin, fs.sigmoid, fs.softplus, fs.hardmax,"
        " fs.square_normalize"
    )
    assert (
        growth(make, f"lambda x, out: [f(x, out=out) for f in ({functions})]", **OF_8_MIB) < 2 * MIB
    )


@compiled
def test_logits_are_broadcast_to_weights_without_a_copy():
    make = "lambda r, n: (np.ones((1, n), np.float32), np.ones((r, n), np.float32))"
    assert growth(make, "lambda x, b: fs.logsumexp(x, axis=0, b=b)", **OF_8_MIB) < MIB


@compiled
def test_labels_are_not_copied():
    """Two million labels with gaps between them: a copy would take 16 MiB."""
    runs = (f"lambda x, y: fs.{name}(x, y)" for name in ("cross_entropy", "nll_loss"))
    assert growth(LABELS, *runs, rows=2**21, n=2) < MIB


@compiled
@sizes(512, 4096)
def test_logprobs(size):
    """At most 1 MiB for each thread, where log_softmax would take up to 2 GiB.

    Zeros that nobody wrote take no memory to be read.
    """
    runs = (f"lambda x, y: fs.logprobs(x, {ids})" for ids in ("y", "np.stack([y, y], axis=-1)"))
    assert growth(LOGITS, *runs, rows=size, n=128_000) < 2 * MIB


@compiled
def test_best_log_probabilities():
    assert growth(TOUCHED, "lambda x, y: fs.top_k_logprobs(x, 5)", rows=128, n=128_000) < 2 * MIB


@compiled
@of_either_size
def test_fit_temperature(shape):
    assert growth(TOUCHED, "lambda x, y: fs.fit_temperature(x, y)", **shape) < 2 * MIB


@sizes(256, 1024)
def test_the_twin_works_in_blocks(size):
    calls = (
        "fs.cross_entropy(x, y)",
        "fs.logprobs(x, y)",
        "fs.top_k_logprobs(x, 2)",
        "fs.fit_temperature(x, y)",
    )
    runs = (f"lambda x, y: {call}" for call in calls)
    assert growth(TOUCHED, *runs, rows=size, n=16384, backend="numpy", threads=1) < 6 * MIB
