"""What the NumPy twins share: exponentials, sums and logarithms with the accuracy of the compiled
kernels.

float32 and the 16-bit formats are computed in float64 and rounded once. float64 (and longdouble)
put the rounding error of each subtraction back, and sum in blocks. NaN, infinities and overflow are
ordinary values here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[Any, Any]  # hi + lo
Twin = TypeVar("Twin", bound=Callable[..., Any])

BLOCK = 1 << 15  # elements that a twin handles at a time: its temporaries stay in the cache


def blockwise(twin: Twin) -> Twin:
    """Decorate a twin for rows: call it on blocks of whole rows.

    No warning comes from it, and no FloatingPointError, whatever the caller has set. The arrays
    have three axes, (outer, n, inner), or two for one value a row, (outer, inner). Where one has
    length 1, it is broadcast. What the calls return is added up.
    """

    @wraps(twin)
    def in_blocks(*arguments: Any) -> Any:
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        shape = np.broadcast_shapes(*[(a.shape[0], a.shape[-1]) for a in arrays])
        size = np.max([a.size for a in arrays])
        outer_step = max(1, BLOCK * shape[0] // size)
        inner_step = max(1, BLOCK * shape[0] * shape[1] // size) if outer_step == 1 else shape[1]
        return _added(
            twin,
            (
                [_part(a, o, outer_step, i, inner_step) for a in arguments]
                for o in range(0, shape[0], outer_step)
                for i in range(0, shape[1], inner_step)
            ),
        )

    return cast(Twin, in_blocks)


def by_elements(twin: Twin) -> Twin:
    """Decorate a twin that works element by element on arrays of one shape, of any number of axes.

    It is called on blocks, likewise.
    """

    @wraps(twin)
    def in_blocks(*arguments: Any) -> Any:
        shape = next(a.shape for a in arguments if isinstance(a, np.ndarray))
        return _added(
            twin,
            (
                [a[block] if isinstance(a, np.ndarray) else a for a in arguments]
                for block in _blocks(shape)
            ),
        )

    return cast(Twin, in_blocks)


def _added(twin: Twin, blocks: Iterable[list[Any]]) -> Any:
    """The sum of what calls return; None if that is nothing."""
    with np.errstate(all="ignore"):
        sums = [twin(*block) for block in blocks]
        return None if sums[0] is None else np.sum(sums, axis=0).tolist()


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices of parts of an array, in C order, each of as many elements as a block may have."""
    # the axis that is cut, and how many elements one step of it has
    axis, behind = len(shape) - 1, 1
    while axis and behind * shape[axis] <= BLOCK:
        behind *= shape[axis]
        axis -= 1
    step = max(1, BLOCK // behind)
    for index in np.ndindex(shape[:axis]):
        for start in range(0, shape[axis], step):
            yield (*index, slice(start, start + step))


def _part(a: Any, outer: int, outer_step: int, inner: int, inner_step: int) -> Any:
    """The part of an array on its first and last axis; anything else as it is."""
    if not isinstance(a, np.ndarray):
        return a
    a = a if a.shape[0] == 1 else a[outer : outer + outer_step]
    return a if a.shape[-1] == 1 else a[..., inner : inner + inner_step]


def widened(x: Array, *others: Array) -> Array:
    """`x` in the dtype that twins compute in: float64, or longdouble if any array is."""
    wide = any(a.dtype == np.longdouble for a in (x, *others))
    return x.astype(np.longdouble if wide else np.float64, copy=False)


def weights(given: Array | None, *others: Array) -> Any:
    """Weights as `widened` has them, since a narrow one times a number stays narrow;
    1 if there are none.
    """
    return 1.0 if given is None else widened(given, *others)


def indices(labels: Array) -> Array:
    """Labels as intp, which holds whatever they are compared with: NumPy 2.0 and 2.1 crash where it
    is not in the range of a strided array's dtype. Labels beyond it, which are to be ignored,
    become negative."""
    return labels.astype(np.intp, copy=False)


def is_narrow(*arrays: Array) -> bool:
    """Whether float64 has digits to spare for all arrays, so that its own rounding errors do not
    show.

    It has none for integers, whose results are float64.
    """
    return all(a.dtype.itemsize <= 4 and a.dtype.kind not in "iub" for a in arrays)


def total(terms: Array, narrow: bool = False) -> Array:
    """The sum over the middle axis, kept: half upon half, with the rounding errors added in the
    end.

    For narrow arrays it is the plain sum.
    """
    if narrow:
        return cast(Array, terms.sum(axis=1, keepdims=True))
    hi, lo = total_pair((terms, np.zeros_like(terms)))
    return cast(Array, np.where(np.isfinite(lo), hi + lo, hi))


def total_pair(terms: Pair) -> Pair:
    """The sum over the middle axis, kept, of hi + lo as hi + lo."""
    hi, lo = terms
    while hi.shape[1] > 1:
        middle = hi.shape[1] // 2
        a, b, last = hi[:, :middle], hi[:, middle : 2 * middle], hi[:, 2 * middle :]
        s, error = two_sum(a, b)
        lo = np.concatenate(
            [lo[:, :middle] + lo[:, middle : 2 * middle] + error, lo[:, 2 * middle :]], axis=1
        )
        hi = np.concatenate([s, last], axis=1)
    return hi, lo


def two_sum(a: Any, b: Any) -> Pair:
    """a + b as hi + lo (Knuth 1969)."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


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


def pair_product(a: Pair, b: Pair) -> Pair:
    """The product of two pairs."""
    p, error = two_product(a[0], b[0])
    return p, error + (a[0] * b[1] + a[1] * b[0])


LN2_HI = float.fromhex("0x1.62e42feep-1")  # 2048 * LN2_HI is exact
LN2_LO = float.fromhex("0x1.a39ef35793c76p-33")


def exp(hi: Array, lo: Array, scale: int = 0) -> Array:
    """2^scale exp(hi + lo) for hi <= 0:
    2^n (1 + expm1(r)), an ulp better than exp(hi) corrected for lo.
    """
    wide = hi.dtype == np.longdouble
    # 0 all the same, and NaN stays
    least = (-12000 if wide else -800) - float(scale)
    hi, lo = np.maximum(hi, least), np.where(hi > least, lo, 0)
    n = np.rint(hi * np.log2(np.e))
    e: Array = 1 + np.expm1((hi - n * LN2_HI) - (n * LN2_LO - lo))
    n += scale
    if wide:
        e = np.ldexp(e, n.astype(np.int32))
    else:
        half = np.floor(n / 2)  # 2^n in two factors, each a normal number
        e = e * _power(half) * _power(n - half)
    return e


# The octaves by which exponentials are larger that would be subnormal before they are multiplied.
LIFT = 512

LN2_PARTS = (LN2_HI, float.fromhex("0x1.a39ef35793p-33"), float.fromhex("0x1.8ece600fcbdacp-74"))


def exp_pair(hi: Array, lo: Array) -> tuple[Array, Pair]:
    """n and f, a pair good to 2^-100, with exp(hi + lo) = 2^n (1 + f);
    n is 0 wherever hi is next to 0.
    """
    n = np.rint(hi * np.log2(np.e))
    d, error = two_sum(hi - n * LN2_PARTS[0], -(n * LN2_PARTS[1]))
    r = two_sum(d, error + (lo - n * LN2_PARTS[2]))
    q = _INVERSE_FACTORIALS[22]
    # from r^13 / 13! on, terms are below 2^-50 of the first: they need no pairs
    for k in range(21, 12, -1):
        q = _INVERSE_FACTORIALS[k][0] + q[0] * r[0], 0.0
    for k in range(12, 1, -1):
        p, error = pair_product(q, r)
        s, rest = two_sum(_INVERSE_FACTORIALS[k][0], p)
        q = s, rest + (error + _INVERSE_FACTORIALS[k][1])
    p, error = pair_product(pair_product(r, r), q)
    s, rest = two_sum(r[0], p)
    return n, two_sum(s, rest + (r[1] + error))


def _inverse_factorial(k: int) -> Pair:
    exact = Fraction(1, math.factorial(k))
    return float(exact), float(exact - Fraction(float(exact)))


_INVERSE_FACTORIALS = [_inverse_factorial(k) for k in range(23)]


def _power(n: Array) -> Array:
    """2^n for whole n, by its bits."""
    return ((n.astype(np.int64) + 1023) << 52).view(np.float64)


def times_exp(a: Array, z: Array, b: Any = 1.0) -> Array:
    """a b exp(z) for z <= 0, as if neither a b nor exp(z) had a largest or a least value."""
    info = np.finfo(z.dtype)
    z = np.maximum(z, 4 * np.log(info.smallest_normal))  # 0 all the same, and NaN stays
    n = np.rint(z * np.log2(np.e))
    fraction = 1 + np.expm1((z - n * LN2_HI) - n * LN2_LO)
    (a, of_a), (b, of_b) = np.frexp(a), np.frexp(b)
    product: Array = np.ldexp(a * b * fraction, of_a + of_b + n.astype(np.int32))
    return product


def tail_from(dtype: np.dtype[Any]) -> float:
    """The |x| from which 1 + exp(-|x|) is 1 and exp(-|x|) next to the smallest normal number."""
    return float(-np.log(np.finfo(dtype).smallest_normal))


def times_sigmoid(g: Array, x: Array) -> Array:
    """g / (1 + exp(-x)), rounded as if the exponential had no least value."""
    e = np.exp(-np.abs(x))
    y = g * (np.where(x < 0, e, 1) / (1 + e))
    far = x < -tail_from(x.dtype)
    return np.where(far, times_exp(g, np.where(far, x, 0)), y) if far.any() else y


def log_pair(p: Array, narrow: bool = False) -> tuple[Array, Array | float]:
    """log(p) as hi + lo, good to 2^-58 of the larger of its terms; for narrow arrays lo is 0.

    The method is that of kernels/math/log.h: p = 2^k m, log(m) = 2 artanh((m - 1) / (m + 1)). In
    longdouble lo is 0, too.
    """
    if narrow or p.dtype == np.longdouble:
        return np.log(p), 0.0
    m, k = np.frexp(p)
    low = m < np.sqrt(0.5)
    m, k = np.where(low, 2 * m, m), np.where(low, k - 1, k).astype(p.dtype)
    d, d_lo = two_sum(m, np.ones_like(m))
    s = (m - 1) / d
    q, q_lo = two_product(s, d)
    s_lo = ((((m - 1) - q) - q_lo) - s * d_lo) / d
    z = s * s
    series = np.zeros_like(z)
    for i in range(10, 0, -1):
        series = series * z + 2 / (2 * i + 1)
    hi, lo = two_sum(k * LN2_HI, 2 * s)
    lo = lo + (k * LN2_LO + series * (z * s) + 2 * s_lo)
    usual = (p > 0) & (p < np.inf)
    return np.where(usual, hi, np.log(p)), np.where(usual, lo, 0)


class Scaled:
    """The logits relative to their row's maximum, times ln(base) / temperature, as hi + lo.

    A negative temperature stands for negated logits. Masked logits are -inf. For narrow arrays lo
    is 0.
    """

    def __init__(
        self,
        x: Array,
        temperature: Array,
        ln_base: tuple[float, float],
        where: Array | None,
        narrow: bool = False,
    ) -> None:
        self.narrow = narrow
        heat = temperature[:, None, :]
        x = np.where(heat < 0, -x, x) if np.any(heat < 0) else x
        if where is not None:
            x = np.where(where, x, -np.inf)
        self.x = x
        self.max: Array = x.max(axis=1, keepdims=True)
        self.over_temperature = self._quotient(np.abs(heat))
        self.hi, self.lo = self._times(*self.over_temperature, ln_base)

    def _quotient(self, heat: Array) -> tuple[Array, Array]:
        """(x - max) / temperature."""
        if self.narrow:
            return (self.x - self.max) / heat, np.zeros((1, 1, 1))
        if np.all(heat == 1):
            d, error = two_sum(self.x, -self.max)
            return d, np.where(np.isfinite(error), error, 0)
        half = np.where(
            np.abs(self.max) > np.finfo(self.x.dtype).max / 4, 0.5, 1.0
        )  # the difference may overflow
        d, error = two_sum(self.x * half, -self.max * half)
        heat = heat.astype(d.dtype) * half
        q = d / heat
        p, p_lo = two_product(q, heat)
        error = ((d - p) - p_lo + error) / heat
        return q, np.where(np.isfinite(error) & np.isfinite(p_lo), error, 0)

    def _times(self, hi: Array, lo: Array, ln_base: tuple[float, float]) -> tuple[Array, Array]:
        """Times the logarithm of the base; base 1 leaves -inf, which takes no part, as it is."""
        if ln_base == (1.0, 0.0):
            return hi, lo
        if self.narrow:
            return np.where(hi == -np.inf, hi, hi * ln_base[0]), lo
        p, p_lo = two_product(hi, ln_base[0])
        p = np.where(hi == -np.inf, hi, p)
        error = p_lo + (hi * ln_base[1] + lo * ln_base[0])
        return p, np.where(np.isfinite(error), error, 0)

    def exp(self, scale: int = 0) -> Array:
        """The exponentials, 2^scale at the maximum."""
        if self.narrow:
            return np.exp(self.hi) * 2.0**scale if scale else np.exp(self.hi)
        return exp(self.hi, self.lo, scale)

    def sum(self, terms: Array) -> Array:
        """The sums of the rows of terms as they come from `exp`."""
        return total(terms, self.narrow)

    def log_total(self) -> Array:
        """log(sum of the exponentials): log1p of all but one maximum, which keeps a confident row's
        digits.

        In longdouble, so that its sum with the maximum may cancel; -inf where there is nothing but
        -inf.
        """
        top = self.x == self.max
        scale = 64  # with which terms below the smallest normal number keep their digits
        rest = np.ldexp(self.sum(np.where(top, 0, self.exp(scale))).astype(np.longdouble), -scale)
        others = np.count_nonzero(top, axis=1, keepdims=True) - 1
        return np.where(self.max == -np.inf, self.max, np.log1p(others + rest))


def over_ln(log: Array, ln_base: tuple[float, float]) -> Array:
    """A natural logarithm to another base."""
    if ln_base != (1.0, 0.0):
        log = log / (np.longdouble(ln_base[0]) + np.longdouble(ln_base[1]))
    return log


def store(out: Array, y: Array, where: Array | None, absent: float) -> None:
    """Write results, `absent` where the mask is false."""
    out[...] = y if where is None else np.where(where, y, absent)
