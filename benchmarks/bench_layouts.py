"""One array in many layouts: every time is to be compared with the contiguous one of its group."""

import numpy as np
import pytest
from cases import ROWWISE

SHAPE = (256, 1000)


def spread(x):
    """The same elements, each followed by a gap."""
    wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    return wide[:, ::2]


def swapped(x):
    """The same numbers in the other byte order."""
    return x.astype(x.dtype.newbyteorder())


def misaligned(x):
    """The same elements one byte off."""
    buffer = bytearray(x.nbytes + 1)
    view = np.frombuffer(buffer, x.dtype, x.size, offset=1).reshape(x.shape)
    view[...] = x
    return view


# name: (array, axis); rows of 1000 are summed over in each
LAYOUTS = {
    "contiguous": lambda x: (x, -1),
    "axis 0": lambda x: (np.ascontiguousarray(x.T), 0),
    "axis 0 of Fortran order": lambda x: (x.T, 0),
    "Fortran order": lambda x: (np.asfortranarray(x), -1),
    "middle axis": lambda x: (np.ascontiguousarray(x.reshape(16, 16, 1000).swapaxes(1, 2)), 1),
    "reversed rows": lambda x: (x[:, ::-1], -1),
    "every second element": lambda x: (spread(x), -1),
    "two axes": lambda x: (x.reshape(256, 40, 25), (1, 2)),
    "swapped bytes": lambda x: (swapped(x), -1),
    "misaligned": lambda x: (misaligned(x), -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ROWWISE, ids=str)
def bench_layout(benchmark, case, layout, rng):
    benchmark.group = f"{case}, float32, rows of 1000"
    x, axis = LAYOUTS[layout](case.typical(SHAPE, np.float32, rng))
    benchmark(case.call, x, axis)


@pytest.mark.parametrize("kind", ["new array", "out", "in place"])
def bench_destination(benchmark, kind, rng):
    """Where the result goes."""
    case = ROWWISE[0]
    benchmark.group = f"{case}, float32, destination"
    x = case.typical(SHAPE, np.float32, rng)
    out = {"new array": None, "out": np.empty_like(x), "in place": x}[kind]
    benchmark(case.call, x, out=out)
