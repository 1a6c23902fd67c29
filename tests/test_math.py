"""The exponentials and logarithms of the kernels, each by itself:
the errors that docs/accuracy.md uses.
"""

import os
import platform
import re
import shutil
import subprocess

import mpmath
import numpy as np
import pytest
from programs import ROOT, loaded

KERNELS = ROOT / "fastsoftmax" / "kernels"
COMPILER = shutil.which(os.environ.get("CXX", "c++").split()[0])
FLAGS = ["-std=c++17", "-O2", "-w", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}

# Largest errors: exponentials in units of 2^-23 (float32) and 2^-52 (float64) of the result, as a
# pair in units of 2^-57; logarithms in units of 2^-30 and 2^-58. SSE2 has no fused multiply-add.
FUSED = {
    ("fixed_shift", "float32"): 0.66,
    ("fixed_shift", "float64"): 0.62,
    ("plain", "float32"): 0.67,
    ("plain", "float64"): 0.62,
    ("nonpositive", "float32"): 1.2,
    ("nonpositive", "float64"): 1.2,
    ("difference", "float32"): 0.67,
    ("difference", "float64"): 0.63,
    ("difference_scaled", "float32"): 0.67,
    ("difference_scaled", "float64"): 0.67,
    ("pair", "float64"): 2.4,
    ("log1p", "float32"): 10,
    ("log1p", "float64"): 5,
}
LARGEST = {
    "baseline": FUSED
    | {
        ("fixed_shift", "float32"): 0.69,
        ("plain", "float32"): 0.69,
        ("fixed_shift", "float64"): 0.67,
        ("plain", "float64"): 0.67,
        ("difference", "float32"): 0.7,
        ("difference", "float64"): 0.67,
        ("difference_scaled", "float32"): 0.7,
        ("difference_scaled", "float64"): 0.71,
    },
    "avx2": FUSED,
    "avx512": FUSED
    | {
        ("fixed_shift", "float32"): 0.64,
        ("plain", "float32"): 0.91,
        ("plain", "float64"): 0.93,
        ("difference", "float32"): 0.97,
        ("difference", "float64"): 0.97,
        ("difference_scaled", "float32"): 0.97,
        ("difference_scaled", "float64"): 0.97,
        ("nonpositive", "float32"): 1.4,
        ("nonpositive", "float64"): 1.5,
    },
}
RAN_HERE = [isa for isa in INSTRUCTION_SETS if X86 or isa == "baseline"]

pytestmark = [
    pytest.mark.skipif(
        not KERNELS.is_dir() or not list(KERNELS.glob("math/*.h")), reason="needs the sources"
    ),
    pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A function from an instruction set to the program that is compiled for it."""
    folder, made = tmp_path_factory.mktemp("math"), {}

    def compiled(isa):
        if isa not in made:
            made[isa] = folder / isa
            options = [*FLAGS, *(INSTRUCTION_SETS[isa] if X86 else []), f"-I{KERNELS.parent}"]
            source = str(ROOT / "tests" / "math_errors.cpp")
            subprocess.run([COMPILER, *options, source, "-o", str(made[isa])], check=True)
        return made[isa]

    return compiled


def largest_errors(path, stride):
    done = subprocess.run(
        [path, str(stride)], capture_output=True, text=True, check=True, timeout=900
    )
    for line in done.stdout.splitlines():
        routine, dtype, error, argument = line.split()
        yield (routine, dtype), float(error), argument


def check(program, isa, stride):
    from fastsoftmax import _backend

    if X86 and (_backend.cpu is None or _backend.cpu.missing(isa)):
        pytest.skip(f"the CPU cannot run {isa}")
    found = list(largest_errors(program(isa), stride))
    expected = LARGEST[isa]
    assert len(found) >= len(expected) - 1  # the unit of AVX-512's float64 is not a double
    for key, error, argument in found:
        assert 0.05 < error <= expected[key], f"{isa} {key}: {error} at {argument}"


def constants_of(start):
    """The numbers of the header from a place on."""
    text = (KERNELS / "math" / "exp.h").read_text()
    return [
        float.fromhex(c) for c in re.findall(r"0x[0-9a-f.]+p[-+]\d+", text[text.index(start) :])
    ]


@pytest.mark.parametrize(
    ("start", "degree", "dtype", "bits"),
    [
        ("static constexpr float c3", 1, np.float32, 29.2),
        ("static FS_ALWAYS_INLINE V product(V power, V r", 4, np.float64, 56.2),
    ],
)
def test_coefficients_are_the_best(start, degree, dtype, bits):
    """Those in use have the error of those that tools/fit_exp.py finds."""
    fit_exp = loaded("tools", "fit_exp.py")
    with mpmath.workprec(160):
        limit = mpmath.log(2) / 32
        found = fit_exp.fit(degree, limit)
        used = [mpmath.mpf(c) for c in constants_of(start)[: degree + 1]]
        least = fit_exp.largest_error(found, limit)
        assert -mpmath.log(least, 2) > bits
        assert fit_exp.largest_error(used, limit) < least * 1.01
    if dtype is np.float32:  # of the others many are as good
        assert [dtype(mpmath.nstr(c, 20)) for c in found] == used


@pytest.mark.parametrize("isa", RAN_HERE)
def test_samples(program, isa):
    check(program, isa, 1009)


@pytest.mark.exhaustive
@pytest.mark.parametrize("isa", RAN_HERE)
def test_all(program, isa):
    """Every float32 of their domains, and eight million float64."""
    check(program, isa, 1)
