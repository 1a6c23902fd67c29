"""What calls add to the memory of a process at most, over their arguments and results.

Linux alone: the peak of the resident set counts every page that was touched, by whatever allocator.
Each call runs in a new process, after one on ten rows of ten, which does what imports leave to the
first call.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

STATUS = "/proc/self/status"
SHAPES = {
    "1024x16384": (1024, 16384),
    "16x1048576": (16, 2**20),
    "2097152x8": (2**21, 8),
}  # 64 MiB of float32
THREADS = 2

SCRIPT = """
import sys
import numpy as np
import fastsoftmax as fs

def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

def call(rows, n):
    x = np.random.default_rng(0).random((rows, n), np.float32)
    y = np.arange(rows) % n
    out = None
    {prepare}
    before = peak()
    result = {call}
    grown = peak() - before
    results = result if isinstance(result, tuple) else (result,)
    return grown - sum(array.nbytes for array in results if array is not out)

call(10, 10)
print(call({rows}, {n}))
"""

OUT = "out = np.ones_like(x)"
HALF = "x = x.astype(np.float16); out = np.ones_like(x)"
PAIR = "g = np.ones_like(x); out = np.ones_like(x)"
MASK = "mask = np.arange(n) > 0; out = np.ones_like(x)"
STRIDED = "x = x[:, ::2]; out = np.ones(x.shape, np.float32)"

# what is printed: preparation, call
CALLS = {
    "softmax": ("pass", "fs.softmax(x)"),
    "softmax, out=": (OUT, "fs.softmax(x, out=out)"),
    "softmax, axis 0": (OUT, "fs.softmax(x, axis=0, out=out)"),
    "softmax, all axes": (OUT, "fs.softmax(x, axis=None, out=out)"),
    "softmax, strided": (STRIDED, "fs.softmax(x, out=out)"),
    "softmax, where=": (MASK, "fs.softmax(x, where=mask, out=out)"),
    "softmax, temperature=": (OUT, "fs.softmax(x, temperature=2.0, out=out)"),
    "softmax of float16": (HALF, "fs.softmax(x, out=out)"),
    "log_softmax": (OUT, "fs.log_softmax(x, out=out)"),
    "logsumexp, axis 0": ("pass", "fs.logsumexp(x, axis=0)"),
    "logsumexp": ("pass", "fs.logsumexp(x)"),
    "sigmoid": (OUT, "fs.sigmoid(x, out=out)"),
    "softmax_vjp": (PAIR, "fs.softmax_vjp(g, x, out=out)"),
    "cross_entropy": ("pass", "fs.cross_entropy(x, y)"),
    "cross_entropy_value_and_grad": (OUT, "fs.cross_entropy_value_and_grad(x, y, out=out)"),
    "binary_cross_entropy_with_logits_value_and_grad": (
        PAIR,
        "fs.binary_cross_entropy_with_logits_value_and_grad(x, g, out=out)",
    ),
    "kl_divergence_from_logits": (PAIR, "fs.kl_divergence_from_logits(x, g)"),
    "logprobs": ("pass", "fs.logprobs(x, y)"),
    "top_k_logprobs": ("pass", "fs.top_k_logprobs(x, 5)"),
    "hardmax": (OUT, "fs.hardmax(x, out=out)"),
    "fit_temperature": ("pass", "np.float64(fs.fit_temperature(x, y))"),
}


def growth(name: str, shape: tuple[int, int]) -> int:
    """Bytes that a call added to the peak of a new process."""
    prepare, call = CALLS[name]
    script = SCRIPT.format(prepare=prepare, call=call, rows=shape[0], n=shape[1])
    environment = os.environ | {
        "FASTSOFTMAX_NUM_THREADS": str(THREADS),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return int(done.stdout)


def measured(quick: bool) -> Iterator[tuple[str, float]]:
    """Calls and the MiB that each took for each thread."""
    if not os.path.exists(STATUS):
        return
    for size, shape in list(SHAPES.items())[: 1 if quick else None]:
        for name in CALLS:
            yield f"{name} of {size}", growth(name, shape) / 2**20 / THREADS
