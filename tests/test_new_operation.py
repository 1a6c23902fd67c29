"""CONTRIBUTING's four steps: a toy operation that is added by them alone is tested like all others.

A copy of the sources gets the operation, is built with its room alone (the kernels of the others
are then their twins), and runs the tests of the tables for it.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from programs import ROOT
from test_math import pytestmark as needs_sources

pytestmark = [*needs_sources, pytest.mark.exhaustive]

KERNELS_IN_C = """\
// Shares of magnitudes, and their gradient from the input.
#pragma once

#include "kernels/drivers/row_map.h"

namespace {
namespace fs {

struct Toy : RowMap<1, 1> {
    static constexpr Index added_together = added_singly;
    template <class X, class V>
    static FS_ALWAYS_INLINE Vectors<X, 1> terms(V x) {
        return {absolute<X>(x)};
    }
    template <class X, class V>
    static FS_ALWAYS_INLINE V result(const Vectors<X, 1> &sum, V x) {
        return absolute<X>(x) / sum[0];
    }
};

struct ToyVjp : RowMap<2, 2> {
    static constexpr Index added_together = added_singly;
    template <class X, class V>
    static FS_ALWAYS_INLINE Vectors<X, 2> terms(V g, V x) {
        return {absolute<X>(x), g * absolute<X>(x)};
    }
    template <class X, class V>
    static FS_ALWAYS_INLINE V result(const Vectors<X, 2> &sums, V g, V x) {
        const V value = (g - sums[1] / sums[0]) / sums[0];
        return x < 0 ? -value : value;
    }
};

}  // namespace fs
}  // namespace
"""

ROOM_IN_CYTHON = """\
# Kernels of toy: see toy.py for what they compute.

cdef extern from "ops/toy.h" namespace "fs" nogil:
    cppclass Toy:
        Toy() noexcept
    cppclass ToyVjp:
        ToyVjp() noexcept


def toy_rows(
        cnp.ndarray x, cnp.ndarray out, const unsigned char[:, :, :] where, Py_ssize_t num_threads):
    cdef RowMapArguments a
    a.input[0], a.out = any_view(x), any_view(out)
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    with nogil:
        row_map(Toy(), a, num_threads)
        settled()


def toy_vjp_rows(cnp.ndarray g, cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef RowMapArguments a
    a.input[0], a.input[1], a.out = any_view(g), any_view(x), any_view(out)
    with nogil:
        row_map(ToyVjp(), a, num_threads)
        settled()
"""

ROOM = '''\
"""toy, shares of magnitudes, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _call
from .._backend import kernel
from .._signatures import ArrayLike, normalization, normalization_vjp
from .._reference import Array, blockwise, is_narrow, store, total, widened


@kernel
@blockwise
def toy_rows(x: Array, out: Array, where: Array | None, num_threads: int) -> None:
    """|x| / sum(|x|), over the middle axis."""
    present = x if where is None else np.where(where, x, x.dtype.type(0))
    sizes = np.abs(widened(present, out))
    store(out, sizes / total(sizes, is_narrow(x, out)), where, 0)


@kernel
@blockwise
def toy_vjp_rows(g: Array, x: Array, out: Array, num_threads: int) -> None:
    """sign(x) (g - sum(g |x|) / sum(|x|)) / sum(|x|), over the middle axis."""
    narrow = is_narrow(g, x, out)
    wide_g, wide_x = widened(g, x, out), widened(x, g, out)
    sizes = np.abs(wide_x)
    sum_ = total(sizes, narrow)
    result = (wide_g - total(wide_g * sizes, narrow) / sum_) / sum_
    store(out, np.where(wide_x < 0, -result, result), None, 0)


@normalization
def toy(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    where: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    dtype: DTypeLike | None = None,
    num_threads: int | None = None,
) -> Any:
    """Turn numbers into shares of their magnitudes.

    Parameters
    ----------
    x, axis, where, out, dtype, num_threads
        As for square_normalize.

    Returns
    -------
    ndarray or scalar
        The shares.

    Examples
    --------
    >>> from fastsoftmax import toy
    >>> toy([1.0, -3.0])
    array([0.25, 0.75])
    """
    return _call.map_rows(
        toy_rows, x, axis, where=where, out=out, dtype=dtype, num_threads=num_threads
    )


@normalization_vjp
def toy_vjp(
    g: ArrayLike,
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> Any:
    """Take a gradient back through toy, from its input.

    Parameters
    ----------
    g, x, axis, out, num_threads
        As for square_normalize_vjp.

    Returns
    -------
    ndarray or scalar
        The gradient.

    Examples
    --------
    >>> from fastsoftmax import toy_vjp
    >>> toy_vjp([1.0, 0.0], [1.0, -1.0])
    array([0.25, 0.25])
    """
    return _call.rows_vjp(
        toy_vjp_rows,
        g,
        x,
        axis,
        saved="x",
        temperature=None,
        out=out,
        num_threads=num_threads,
    )
'''

REFERENCE = """

@remembered
@np.errstate(all="ignore")
def toy(x, axis=-1, *, where=None):
    rows = _rows(x, axis, 1.0, where)
    sizes = np.abs(np.where(rows.where, rows.x, 0.0))
    infinite = np.isinf(sizes).any(-1, keepdims=True) & ~np.isnan(sizes).any(-1, keepdims=True)
    largest = np.where(np.isfinite(sizes), sizes, 0.0).max(-1, keepdims=True, initial=0.0)
    sizes = np.ldexp(sizes, -np.frexp(largest)[1])
    s = total((sizes, np.zeros_like(sizes)))
    hi, lo = div((sizes, np.zeros_like(sizes)), (s[0][:, None], s[1][:, None]))
    special = [(infinite & np.isfinite(sizes), 0.0), (~rows.where, 0.0)]
    return _full(rows, hi, lo, np.zeros(hi.shape, np.int64), special)


def define_toy(row):
    sizes = [abs(mpmath.mpf(v)) for v in row]
    whole = mpmath.fsum(sizes)
    return [size / whole if whole else mpmath.nan for size in sizes]


def toy_vjp(g, x, axis=-1):
    sizes, sign = np.abs(x), np.where(x < 0, -1, 1)
    s = np.sum(sizes, axis, keepdims=True)
    mean, size = (np.sum(a * sizes, axis, keepdims=True) / s for a in (g, np.abs(g)))
    return sign * (g - mean) / s, (np.abs(g) + size) / s
"""

CASE = """\
    Case(
        name="toy",
        signature="(x, axis=-1, *, where=None, out=None, dtype=None, num_threads=None)",
        exact=oracle.toy,
        definition=oracle.define_toy,
        ulp=4,
        hand=(
            ([3.0, -1.0], [0.75, 0.25]),
            ([0.0, -7.0], [0.0, 1.0]),
            ([0.0, 0.0], [np.nan, np.nan]),
            ([np.inf, 1.0, -np.inf], [np.nan, 0.0, np.nan]),
        ),
        of_logits=False,
        options=("where",),
        masked=0.0,
        vjp="toy_vjp",
        vjp_signature="(g, x, axis=-1, *, out=None, num_threads=None)",
        vjp_from="x",
        vjp_formula=oracle.toy_vjp,
        vjp_hand=(([1.0, 0.0], [1.0, -1.0], [0.25, 0.25]),),
        vjp_nan_spreads=True,
    ),
"""

TESTS = ("accuracy", "contract", "special_values", "gradients", "identities", "oracle", "threads")
TESTS += ("public_api", "backends", "messages")


def insert(path, place, text):
    """Text before the only place of its kind."""
    before, found, after = path.read_text().partition(place)
    assert found
    assert place not in after
    path.write_text(before + text + found + after)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The sources with the operation, and two compiled kernels."""
    folder = tmp_path_factory.mktemp("copy")
    leave = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.cpp")
    for name in ("fastsoftmax", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    package, tests = folder / "fastsoftmax", folder / "tests"

    for room in package.glob("ops/*.pxi"):
        room.unlink()
    (package / "ops" / "toy.py").write_text(ROOM)
    (package / "ops" / "toy.pxi").write_text(ROOM_IN_CYTHON)
    (package / "ops" / "toy.h").write_text(KERNELS_IN_C)
    insert(package / "__init__.py", "\n__version__ =", "from .ops.toy import toy, toy_vjp\n")
    insert(package / "__init__.py", '    "use_backend",\n', '    "toy",\n    "toy_vjp",\n')
    with open(tests / "oracle.py", "a") as file:
        file.write(REFERENCE)
    insert(tests / "cases.py", ")\n\nBY_NAME = ", CASE)

    insert(folder / "setup.py", "PACKAGE = ", 'FLAGS[1] = "-O1"  # to be quick\n')
    environment = {"FASTSOFTMAX_ISAS": "baseline", "FASTSOFTMAX_REQUIRE": "1"}
    done = run(folder, "setup.py", "build_ext", "--inplace", **environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def run(folder, *arguments, **environment):
    """Run Python in a folder, whose packages come first."""
    inherited = {name: value for name, value in os.environ.items() if "FASTSOFTMAX" not in name}
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=inherited | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.parametrize("name", ["baseline", "numpy"])
def test_an_operation_is_added_in_four_steps(copy, name):
    files = [f"tests/test_{test}.py" for test in TESTS]
    options = ["-q", "-p", "no:cacheprovider", f"--backends={name}", "-k", "toy or test_all"]
    done = run(copy, "-m", "pytest", *options, *files)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > 100
    assert "skipped" not in done.stdout


IN_EVERY_REGIME = """
import sys
sys.path.insert(0, "tests")
import numpy as np, regimes, test_regimes, fastsoftmax as fs
count = 0
with np.errstate(all="ignore"):
    for about, call in regimes.calls():
        if about.startswith("toy"):
            with fs.use_backend("numpy"):
                expected = call()
            test_regimes.same(call(), expected, about)
            count += 1
print(count)
"""


def test_it_runs_in_every_regime(copy):
    done = run(copy, "-c", IN_EVERY_REGIME)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 100


def test_its_kernels_are_compiled(copy):
    script = "import fastsoftmax as fs; fs.toy([1.0]); print(fs.config()['uncompiled'])"
    done = run(copy, "-c", script)
    assert "toy" not in done.stdout
    assert "softmax" in done.stdout
