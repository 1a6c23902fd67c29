"""The loops one writes for Numba, which compiles them:
over the rows of a matrix, or over all elements.
"""

from __future__ import annotations

import math

from .formulas import Array


def softmax(x: Array, out: Array) -> None:
    for i in range(x.shape[0]):
        row, result = x[i], out[i]
        top = row[0]
        for j in range(1, row.size):
            top = max(top, row[j])
        total = row.dtype.type(0)
        for j in range(row.size):
            result[j] = math.exp(row[j] - top)
            total += result[j]
        for j in range(row.size):
            result[j] /= total


def log_softmax(x: Array, out: Array) -> None:
    for i in range(x.shape[0]):
        row, result = x[i], out[i]
        top = row[0]
        for j in range(1, row.size):
            top = max(top, row[j])
        total = row.dtype.type(0)
        for j in range(row.size):
            result[j] = row[j] - top
            total += math.exp(result[j])
        logarithm = math.log(total)
        for j in range(row.size):
            result[j] -= logarithm


def logsumexp(x: Array, out: Array) -> None:
    for i in range(x.shape[0]):
        row = x[i]
        top = row[0]
        for j in range(1, row.size):
            top = max(top, row[j])
        total = row.dtype.type(0)
        for j in range(row.size):
            total += math.exp(row[j] - top)
        out[i] = top + math.log(total)


def sigmoid(x: Array, out: Array) -> None:
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = one / (one + math.exp(-x[i, j]))


LOOPS = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp, "sigmoid": sigmoid}
