"""Find the unit of a table of exponentials: unit 2^(i/16), i = 0 .. 15, all next to numbers of the
format.

    python tools/exponential_tables.py float32
    python tools/exponential_tables.py float64 --draws 20000000

A softmax does not change when all its exponentials are multiplied by one number. That leaves a free
choice, and among some millions of candidates there is one for which all sixteen entries round by
0.14 (float32) or 0.12 (float64) steps at most, not by 0.5 (S. Gal, "Computing elementary functions:
a new approach for achieving high accuracy and good performance", 1986). Prints the unit and the
entries for fastsoftmax/kernels/math/exp.h.
"""

from __future__ import annotations

import argparse

import mpmath
import numpy as np

ENTRIES = 16
BATCH = 1 << 20


def largest_errors(units, bits):
    """Of the tables of these units: the largest error of an entry, relative to 2^-bits of it."""
    worst = np.zeros(units.shape)
    with mpmath.workprec(100):
        powers = [
            np.longdouble(mpmath.nstr(mpmath.mpf(2) ** (mpmath.mpf(i) / ENTRIES), 25))
            for i in range(ENTRIES)
        ]
    for power in powers:
        entry = units.astype(np.longdouble) * power
        steps = np.ldexp(entry, bits)  # entries are between 1 and 2
        worst = np.maximum(worst, np.abs((steps - np.rint(steps)) / entry).astype(float))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("format", choices=["float32", "float64"])
    parser.add_argument("--draws", type=int, default=6_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng, bits = np.random.default_rng(arguments.seed), np.finfo(arguments.format).nmant
    best = np.inf, 1.0
    for _ in range(0, arguments.draws, BATCH):
        # all others give one of these tables, turned
        units = rng.uniform(1, 2 ** (1 / ENTRIES), BATCH)
        error = largest_errors(units, bits)
        best = min(best, (float(error.min()), float(units[error.argmin()])))
    print(f"unit {best[1].hex()}, entries within {best[0]:.3f} of 2^-{bits}")
    with mpmath.workprec(200):
        for i in range(ENTRIES):
            exact = mpmath.mpf(best[1]) * mpmath.mpf(2) ** (mpmath.mpf(i) / ENTRIES)
            print(float(mpmath.ldexp(mpmath.nint(mpmath.ldexp(exact, bits)), -bits)).hex())


if __name__ == "__main__":
    main()
