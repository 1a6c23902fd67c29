"""Fit the polynomial of an exponential: exp(r) = 1 + r + r^2 q(r) on |r| <= ln(2) / (2 entries).

    python tools/fit_exp.py --degree 4 --entries 16       # q of float64 on AVX-512
    python tools/fit_exp.py --degree 4 --entries 1        # of float32, to compare with what is used

q has the given degree and the least largest error relative to exp(r): the exchange algorithm of
Remez (1934), which solves for coefficients with an error of the same size and alternating sign at
degree + 2 points, and moves the points to where the error is largest. Prints the coefficients, the
highest first, rounded to the format, and the error of the rounded ones relative to 2^-bits, for
fastsoftmax/kernels/math/exp.h.
"""

from __future__ import annotations

import argparse
import functools

import mpmath
import numpy as np

GRID = 4000  # points that errors are looked at


def error(coefficients, r):
    """Of 1 + r + r^2 q(r), relative to exp(r)."""
    q = functools.reduce(lambda value, c: value * r + c, coefficients)  # Horner
    return (1 + r + r * r * q) * mpmath.exp(-r) - 1


def solve(points):
    """Coefficients whose errors at these points are of one size, with alternating signs."""
    size = len(points)
    matrix, right = mpmath.matrix(size, size), mpmath.matrix(size, 1)
    for row, r in enumerate(points):
        weight = r * r * mpmath.exp(-r)
        for column in range(size - 1):
            matrix[row, column] = weight * r ** (size - 2 - column)
        matrix[row, size - 1] = (-1) ** row
        right[row] = 1 - (1 + r) * mpmath.exp(-r)
    found = mpmath.lu_solve(matrix, right)
    return [found[k] for k in range(size - 1)]


def extremes(coefficients, limit, count):
    """The `count` points of largest errors of alternating sign, in order."""
    grid = [limit * (2 * mpmath.mpf(k) / GRID - 1) for k in range(GRID + 1)]
    errors = [error(coefficients, r) for r in grid]
    peaks = []
    for k, e in enumerate(errors):
        inside = 0 < k < GRID
        if inside and not abs(e) >= max(abs(errors[k - 1]), abs(errors[k + 1])):
            continue
        if peaks and mpmath.sign(errors[peaks[-1]]) == mpmath.sign(e):
            peaks[-1] = max(peaks[-1], k, key=lambda j: abs(errors[j]))
        else:
            peaks.append(k)
    while len(peaks) > count:  # the smaller one of the two at the ends goes
        peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
    return [grid[k] for k in peaks]


def fit(degree, limit):
    """The coefficients of q, the highest first."""
    count = degree + 2
    points = [limit * mpmath.cos(mpmath.pi * (count - 1 - k) / (count - 1)) for k in range(count)]
    coefficients = solve(points)
    for _ in range(20):
        found = extremes(coefficients, limit, count)
        if len(found) < count or found == points:
            break
        points, coefficients = found, solve(found)
    return coefficients


def largest_error(coefficients, limit):
    grid = (limit * (2 * mpmath.mpf(k) / GRID - 1) for k in range(GRID + 1))
    return max(abs(error(coefficients, r)) for r in grid)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--degree", type=int, default=4, help="of q")
    parser.add_argument("--entries", type=int, default=16, help="of the table; 1: there is none")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    options = parser.parse_args()
    round_to = getattr(np, options.dtype)
    with mpmath.workprec(160):
        limit = mpmath.log(2) / (2 * options.entries)
        exact = fit(options.degree, limit)
        rounded = [mpmath.mpf(float(round_to(mpmath.nstr(c, 30)))) for c in exact]
        for c in rounded:
            print(float(c).hex())
        for name, coefficients in (("exact", exact), ("rounded", rounded)):
            bits = mpmath.log(largest_error(coefficients, limit), 2)
            print(f"{name} coefficients: relative error 2^{mpmath.nstr(bits, 4)}")


if __name__ == "__main__":
    main()
