"""Hashes of the bytes of results, which a change of the kernels that is to change no result must
keep.

    python tests/golden.py              # what differs from tests/golden.json
    python tests/golden.py --record     # after a change that is meant to change results

Every function is called in every regime, dtype and layout of `regimes`, on rows that are easy and
on rows that are not, by every compiled backend. Results do not depend on the processor nor on the
number of threads; those of the NumPy backend depend on NumPy and are not on record.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import regimes

import fastsoftmax as fs

RECORD = Path(__file__).with_name("golden.json")
MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
KINDS = [*regimes.KINDS, (np.float32, "Fortran"), (np.float64, "Fortran")]
PLACES = [(shape, 1) for shape in regimes.SHAPES] + [(shape, 0) for shape in regimes.COLUMNS]


def compiled_backends():
    return [name for name in fs.config()["backends"] if name != "numpy"]


def scores(shape, axis, rng):
    """Rows (along `axis`) of five kinds in turn:
    easy, shifted, masked, with one that dominates, and wide.
    """
    x = rng.normal(0, 3, shape)
    rows = x if axis else x.T
    rows[1::5] += 300
    rows[2::5, ::3] = -np.inf
    rows[3::5, 0] += 25
    rows[4::5] *= 20
    return x


def arrays_of(result):
    """The arrays and numbers of a result, of which some are named tuples."""
    if isinstance(result, tuple):
        for part in result:
            yield from arrays_of(part)
    else:
        yield np.asarray(result)


def digest(call):
    """Eight hexadecimal digits for the bytes of a result. One NaN is as good as another."""
    found = hashlib.sha256()
    try:
        result = call()
    except ValueError as error:
        return "refused:" + type(error).__name__
    for array in arrays_of(result):
        plain = np.array(array, order="C")
        if plain.dtype.kind in "fV":
            plain[plain != plain] = np.nan
        found.update(f"{plain.dtype.name} {plain.shape}".encode())
        found.update(plain.tobytes())
    return found.hexdigest()[:8]


@np.errstate(all="ignore")
def hashes(backend):
    """`{function and shape: its hashes, in the order of KINDS}` of a backend."""
    found: dict[str, list[str]] = {}
    rng = np.random.default_rng(11)
    with fs.use_backend(backend):
        for shape, axis in PLACES:
            values = scores(shape, axis, rng)
            for dtype, layout in KINDS:
                x = regimes.laid_out(values.astype(dtype), layout)
                for name, call in regimes.calls_of(x, axis):
                    key = f"{name}: {shape[0]}x{shape[1]}, axis {axis}"
                    found.setdefault(key, []).append(digest(call))
    return {key: " ".join(parts) for key, parts in found.items()}


def differences(recorded, found):
    """What to tell a reader: each function and shape whose hashes are others, with the kinds."""
    for key in sorted(recorded.keys() | found.keys()):
        before, now = recorded.get(key, "").split(), found.get(key, "").split()
        if len(before) != len(now):
            yield (
                f"{key}: {'is new' if not before else 'is gone' if not now else 'has other kinds'}"
            )
            continue
        kinds = [k for k, a, b in zip(KINDS, before, now, strict=True) if a != b]
        if kinds:
            yield (
                f"{key}: {', '.join(f'{layout} {np.dtype(dtype).name}' for dtype, layout in kinds)}"
            )


def recorded():
    """`{backend: hashes}` on record for this kind of machine."""
    return json.loads(RECORD.read_text()).get(MACHINE, {}) if RECORD.exists() else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name} anew")
    arguments = parser.parse_args()
    found = {backend: hashes(backend) for backend in compiled_backends()}
    if arguments.record:
        whole = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        whole[MACHINE] = whole.get(MACHINE, {}) | found
        RECORD.write_text(json.dumps(whole, indent=0, sort_keys=True) + "\n")
        return 0
    changed = [
        f"{backend}: {line}"
        for backend in found
        for line in differences(recorded()[backend], found[backend])
    ]
    print("\n".join(changed) or "no result has changed")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
