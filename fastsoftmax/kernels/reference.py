"""What the NumPy twins share: exponentials, sums and logarithms with the accuracy of the compiled kernels.

float32 and the 16-bit formats are computed in float64 and rounded once. float64 (and longdouble) put the rounding error of each subtraction
back, and sum in blocks. NaN, infinities and overflow are ordinary values here: twins run under `quietly`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

quietly = np.errstate(all="ignore")  # a decorator: no warning, and no FloatingPointError, whatever the caller has set


def widened(x: Array, *others: Array) -> Array:
    """`x` in the dtype that twins compute in: float64, or longdouble if any array is."""
    wide = any(a.dtype == np.longdouble for a in (x, *others))
    return x.astype(np.longdouble if wide else np.float64, copy=False)


def total(terms: Array) -> Array:
    """The sum over the middle axis, kept; errors grow with the logarithm of its length."""
    while terms.shape[1] > 32:
        terms = np.add.reduceat(terms, np.arange(0, terms.shape[1], 32), axis=1)
    return terms.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def two_product(a: Array, b: Array | float) -> tuple[Array, Array]:
    """a * b as hi + lo (Dekker 1971)."""
    splitter = 2.0 ** ((np.finfo(a.dtype).nmant + 2) // 2) + 1

    def split(x: Array | float) -> tuple[Any, Any]:
        t = splitter * x
        hi = t - (t - x)
        return hi, x - hi

    p = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


class Scaled:
    """The logits relative to their row's maximum, times ln(base) / temperature, as hi + lo.

    A negative temperature stands for negated logits. Masked logits are -inf.
    """

    def __init__(self, x: Array, temperature: Array, ln_base: tuple[float, float], where: Array | None) -> None:
        if where is not None:
            x = np.where(where, x, -np.inf)
        heat = temperature[:, None, :]
        x = np.where(heat < 0, -x, x) if np.any(heat < 0) else x
        self.x = x
        self.max = x.max(axis=1, keepdims=True)
        self.over_temperature = self._quotient(np.abs(heat))
        self.hi, self.lo = self._times(*self.over_temperature, ln_base)

    def _quotient(self, heat: Array) -> tuple[Array, Array]:
        """(x - max) / temperature."""
        d = self.x - self.max
        back = self.x - d
        error = (self.x - (d + back)) + (back - self.max)
        if np.all(heat == 1):
            return d, np.where(np.isfinite(error), error, 0)
        heat = heat.astype(d.dtype)
        q = d / heat
        p, p_lo = two_product(q, heat)
        error = ((d - p) - p_lo + error) / heat
        return q, np.where(np.isfinite(error) & np.isfinite(p_lo), error, 0)

    @staticmethod
    def _times(hi: Array, lo: Array, ln_base: tuple[float, float]) -> tuple[Array, Array]:
        """Times the logarithm of the base; base 1 leaves -inf, which takes no part, as it is."""
        if ln_base == (1.0, 0.0):
            return hi, lo
        p, p_lo = two_product(hi, ln_base[0])
        p = np.where(hi == -np.inf, hi, p)
        error = p_lo + (hi * ln_base[1] + lo * ln_base[0])
        return p, np.where(np.isfinite(error), error, 0)

    def exp(self) -> Array:
        """The exponentials, 1 at the maximum."""
        e = np.exp(self.hi)
        e *= 1 + np.clip(self.lo, -1, 1)  # lo is a few ulp wherever the exponential is not 0
        return e  # type: ignore[no-any-return]

    def log_total(self) -> Array:
        """log(sum of the exponentials): log1p of all but one maximum, which keeps the digits of a confident row.

        In longdouble, so that its sum with the maximum may cancel; -inf where there is nothing but -inf.
        """
        top = self.x == self.max
        rest = total(np.where(top, 0, self.exp())).astype(np.longdouble)
        others = np.count_nonzero(top, axis=1, keepdims=True) - 1
        return np.where(self.max == -np.inf, self.max, np.log1p(others + rest))


def over_ln(log: Array, ln_base: tuple[float, float]) -> Array:
    """A natural logarithm to another base."""
    if ln_base == (1.0, 0.0):
        return log
    return log / (np.longdouble(ln_base[0]) + np.longdouble(ln_base[1]))


def store(out: Array, y: Array, where: Array | None, absent: float) -> None:
    """Write results, `absent` where the mask is false."""
    out[...] = y if where is None else np.where(where, y, absent)
