"""Exact references for every operation, and the measure of error.

Two independent references:

* *definitions* with mpmath at several hundred digits: scalar code that follows the textbook
  formula;
* *exact* references, vectorised, in double-double arithmetic: a value is the unevaluated sum ``hi +
  lo`` of two float64, with a relative error of about 2**-63. They avoid ``np.longdouble``, whose
  width depends on the platform.

``test_oracle.py`` holds the second to the first. The bounds of the package are in units of 2**-53
and larger, so the references are hundreds of times finer than what they judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np
from remembered import remembered

# --- double-double arithmetic on pairs of float64 arrays ------------------------------------------


def two_sum(a, b):
    """Sum and its rounding error: ``a + b == s + e`` exactly (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def fast_two_sum(a, b):
    """As `two_sum`, for ``|a| >= |b|`` (Dekker)."""
    s = a + b
    return s, b - (s - a)


def two_prod(a, b):
    """Product and its rounding error: ``a * b == p + e`` exactly (Dekker's,
    with Veltkamp's split).
    """
    splitter = 134217729.0  # 2**27 + 1
    t = splitter * a
    a_high = t - (t - a)
    a_low = a - a_high
    t = splitter * b
    b_high = t - (t - b)
    b_low = b - b_high
    p = a * b
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def add(a, b):
    s, e = two_sum(a[0], b[0])
    t, f = two_sum(a[1], b[1])
    s, e = fast_two_sum(s, e + t)
    return fast_two_sum(s, e + f)


def mul(a, b):
    p, e = two_prod(a[0], b[0])
    return fast_two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


def div(a, b):
    q = a[0] / b[0]
    p = mul((q, 0.0), b)
    r = add(a, (-p[0], -p[1]))
    return fast_two_sum(q, r[0] / b[0])


def total(a, axis=-1):
    """Sum of a double-double array over its last axis, by pairs."""
    hi, lo = a
    if hi.shape[-1] == 0:
        return np.zeros(hi.shape[:-1]), np.zeros(hi.shape[:-1])
    while hi.shape[-1] > 1:
        half = hi.shape[-1] // 2
        rest = hi[..., 2 * half :], lo[..., 2 * half :]
        hi, lo = add(
            (hi[..., :half], lo[..., :half]), (hi[..., half : 2 * half], lo[..., half : 2 * half])
        )
        hi, lo = np.concatenate([hi, rest[0]], -1), np.concatenate([lo, rest[1]], -1)
    return hi[..., 0], lo[..., 0]


def _parts(value, bits):
    """A high-precision number as float64 parts, cut at ``bits`` after the point:
    multiples are exact.
    """
    parts = []
    for width in bits:
        scaled = mpmath.ldexp(value, width)
        part = mpmath.ldexp(mpmath.nint(scaled), -width)
        parts.append(float(part))
        value -= part
    return (*parts, float(value))


with mpmath.workdps(80):
    LN2 = _parts(mpmath.log(2), (33, 66))
    _POWERS = np.array([_parts(mpmath.exp(mpmath.mpf(j) / 256), (52,)) for j in range(-96, 97)])

# exp of anything below is 0 in every format, whatever it is then divided by
SMALLEST_EXPONENT = -1e5


def exp(a):
    """``exp(hi + lo)`` as ``(hi, lo, k)``, meaning ``(hi + lo) * 2**k``,
    so that nothing underflows.
    """
    hi, lo = np.broadcast_arrays(*a)
    shape = hi.shape
    hi, lo = hi.ravel(), lo.ravel()
    out = np.empty((2, hi.size))
    exponent = np.empty(hi.size, np.int64)
    block = 1 << 14  # stays in the cache
    for start in range(0, hi.size, block):
        part = slice(start, start + block)
        out[0, part], out[1, part], exponent[part] = _exp_block(hi[part], lo[part])
    return out[0].reshape(shape), out[1].reshape(shape), exponent.reshape(shape)


def _exp_block(hi, lo):
    tiny = ~(hi > SMALLEST_EXPONENT)
    hi, lo = np.where(tiny, SMALLEST_EXPONENT, hi), np.where(tiny, 0.0, lo)
    k = np.rint(hi * 1.4426950408889634)
    s, e1 = two_sum(hi, -k * LN2[0])
    s, e2 = two_sum(s, -k * LN2[1])
    r, r_low = fast_two_sum(s, ((e1 + e2) - k * LN2[2]) + lo)
    j = np.rint(r * 256.0)
    power = _POWERS[j.astype(np.int64) + 96]
    r -= j / 256.0  # exact; |r| <= 2**-9
    tail = 1 / 24 + r * (1 / 120 + r * (1 / 720 + r / 5040))
    s, e = fast_two_sum(r, r * r * (0.5 + r * (1 / 6 + r * tail)) + r_low)
    p, p_low = mul((power[:, 0], power[:, 1]), (s, e))
    high, e = fast_two_sum(power[:, 0], p)
    high, low = fast_two_sum(high, e + (power[:, 1] + p_low))
    return high, low, k.astype(np.int64)


def log1p(a):
    """``log(1 + a)`` of a double-double ``a > -1``, relatively accurate near 0."""
    small = np.abs(a[0]) < 2.0**-9
    near = _log1p_series((np.where(small, a[0], 0.0), np.where(small, a[1], 0.0)))
    one_plus = add((np.where(small, 1.0, a[0]), np.where(small, 0.0, a[1])), (1.0, 0.0))
    far = _log(one_plus)
    return np.where(small, near[0], far[0]), np.where(small, near[1], far[1])


def log(a):
    """Logarithm of a positive double-double, relatively accurate near 1."""
    t = add(a, (-1.0, 0.0))
    near = np.abs(t[0]) < 2.0**-9
    series = _log1p_series((np.where(near, t[0], 0.0), np.where(near, t[1], 0.0)))
    plain = _log(a)
    return np.where(near, series[0], plain[0]), np.where(near, series[1], plain[1])


def _log1p_series(a):
    t = a[0]
    cubic = (
        t
        * t
        * t
        * (1 / 3 - t * (1 / 4 - t * (1 / 5 - t * (1 / 6 - t * (1 / 7 - t * (1 / 8 - t / 9))))))
    )
    square = mul(a, a)
    return add(a, add((-square[0] / 2, -square[1] / 2), (cubic, 0.0)))


def _log(a):
    fraction, exponent = np.frexp(a[0])
    exponent = np.where(fraction < 0.7071, exponent - 1, exponent)
    f = np.ldexp(a[0], -exponent), np.ldexp(a[1], -exponent)
    guess = np.log(f[0])
    high, low, k = exp((-guess, np.zeros_like(guess)))
    correction = add(mul(f, (np.ldexp(high, k), np.ldexp(low, k))), (-1.0, 0.0))
    # one Newton step leaves correction**2, about 2**-106
    y = add((guess, np.zeros_like(guess)), correction)
    for part in LN2:
        y = add(y, (exponent * part, 0.0))
    return y


# --- exact results --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exact:
    """The value ``(hi + lo) * 2**exponent``;
    ``floor`` is the least magnitude errors are measured against.
    """

    hi: np.ndarray
    lo: np.ndarray
    exponent: np.ndarray | int = 0
    floor: np.ndarray | float = 0.0

    def __neg__(self):
        return Exact(-self.hi, -self.lo, self.exponent, self.floor)

    def __getitem__(self, index):
        def pick(part):
            return part[index] if np.ndim(part) else part

        return Exact(self.hi[index], self.lo[index], pick(self.exponent), pick(self.floor))

    @property
    def T(self):
        return Exact(self.hi.T, self.lo.T, np.transpose(self.exponent), np.transpose(self.floor))

    @property
    def shape(self):
        return np.shape(self.hi)

    def rounded(self):
        """The value as the nearest float64 (within a unit in the last
        place of the smallest numbers).
        """
        with np.errstate(all="ignore"):
            return np.ldexp(self.hi + self.lo, self.exponent)


def _precision(dtype):
    """Fraction bits, smallest normal exponent and largest finite value of a float format."""
    dtype = np.dtype(dtype)
    if dtype.name == "bfloat16":  # numpy.finfo does not know it
        return 7, -126, float(np.ldexp(2.0 - 2.0**-7, 127))
    info = np.finfo(dtype)
    return info.nmant, info.minexp, float(info.max)


@np.errstate(all="ignore")
def ulp_error(got, exact, dtype=None):
    """Distance of ``got`` from an `Exact` value in units in the last place of ``dtype`` (that of
    ``got``).

    NaN agrees with NaN only, infinity with the same infinity or with a value that overflows
    ``dtype``. Where the exact value is below the smallest normal number, 0 is as good as the value.
    Whatever else is wrong in kind is ``inf`` away.
    """
    fraction_bits, smallest, largest = _precision(np.asarray(got).dtype if dtype is None else dtype)
    got = np.asarray(got).astype(np.float64)
    hi, lo, exponent, floor, got = np.broadcast_arrays(
        exact.hi, exact.lo, exact.exponent, exact.floor, got
    )
    magnitude = np.frexp(hi)[1].astype(np.int64) - 1 + exponent
    magnitude = np.where(floor > 0, np.maximum(magnitude, np.frexp(floor)[1] - 1), magnitude)
    magnitude = np.where(hi == 0, np.where(floor > 0, np.frexp(floor)[1] - 1, smallest), magnitude)
    unit = np.maximum(magnitude, smallest) - fraction_bits
    error = np.abs(np.ldexp((np.ldexp(got, -exponent) - hi) - lo, exponent - unit))
    value = np.ldexp(hi, exponent)
    below_normal = np.abs(value) < np.ldexp(1.0 + 8 * 2.0**-fraction_bits, smallest)
    error = np.where((got == 0) & below_normal, 0.0, error)
    half_step_beyond = largest * (1 + 2.0 ** -(fraction_bits + 2)) if largest < 1e300 else largest
    overflows = (
        (np.abs(value) > half_step_beyond) & np.isinf(got) & (np.sign(got) == np.sign(value))
    )
    error = np.where(overflows | (got == value) & np.isinf(value), 0.0, error)
    error = np.where(np.isnan(value) & np.isnan(got), 0.0, error)
    return np.where(np.isnan(error), np.inf, error)


@dataclass
class _Rows:
    """A broadcast set of rows (rows, n),
    with the way back to the shape of the array they came from.
    """

    x: np.ndarray
    where: np.ndarray
    temperature: np.ndarray
    shape: tuple
    axes: tuple

    def full(self, part):
        """Array of the input's shape from one value per element."""
        rest = [i for i in range(len(self.shape)) if i not in self.axes]
        moved = part.reshape([self.shape[i] for i in rest] + [self.shape[i] for i in self.axes])
        return np.moveaxis(moved, range(len(rest), len(self.shape)), self.axes)

    def reduced(self, part, keepdims):
        """Array of the reduced shape from one value per row."""
        rest = [size for i, size in enumerate(self.shape) if i not in self.axes]
        kept = [1 if i in self.axes else size for i, size in enumerate(self.shape)]
        return part.reshape(kept if keepdims else rest)


def _as_rows(array, shape, axes):
    array = np.broadcast_to(array, shape)
    moved = np.moveaxis(array, axes, range(len(shape) - len(axes), len(shape)))
    n = int(np.prod([shape[i] for i in axes], dtype=np.int64))
    rows = int(np.prod([size for i, size in enumerate(shape) if i not in axes], dtype=np.int64))
    return moved.reshape(rows, n)


def _rows(x, axis, temperature, where):
    x = np.asarray(x)
    x = x.astype(np.float64)
    scalar = x.ndim == 0
    x = x.reshape(1) if scalar else x
    if axis is None:
        axes = tuple(range(x.ndim))
    else:
        axes = tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    where = np.asarray(True if where is None else where)
    reduced = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    temperature = np.broadcast_to(np.asarray(temperature, np.float64), reduced)
    parts = (
        _as_rows(x, x.shape, axes),
        _as_rows(where, x.shape, axes),
        _as_rows(temperature, reduced, axes),
    )
    rows = _Rows(*parts, x.shape, axes)
    if scalar:
        rows.full = lambda part: part.reshape(())
        rows.reduced = lambda part, keepdims: part.reshape(())
    return rows


def _log_of_base(base):
    if base is None:
        return 1.0, 0.0
    with mpmath.workdps(60):
        return _parts(mpmath.log(mpmath.mpf(float(base))), (44,))


@dataclass
class _Terms:
    """What every operation on rows starts from. Arrays of one value per element, or per row:
    (rows, 1).
    """

    maximum: np.ndarray  # 0 where the row has no finite one
    d: tuple  # (x - maximum) * ln(base) / temperature, double-double
    e: tuple  # exp(d) as (hi, lo, k), 0 where masked
    top: np.ndarray  # one element per row: the maximum
    undefined: np.ndarray  # NaN, +inf or nothing but -inf in the row
    nan: np.ndarray
    infinite: np.ndarray
    nothing: np.ndarray  # no unmasked entry in the row
    all_minus_infinity: np.ndarray


def _terms(rows, base=None):
    v = np.where(rows.where, rows.x, -np.inf)
    top_value = v.max(-1, keepdims=True, initial=-np.inf)
    nan = np.isnan(v).any(-1, keepdims=True)
    infinite = ~nan & (top_value == np.inf)
    nothing = ~rows.where.any(-1, keepdims=True)
    all_minus_infinity = ~nan & ~nothing & (top_value == -np.inf)
    undefined = nan | infinite | all_minus_infinity
    v = np.where(undefined | nothing, 0.0, v)
    maximum = np.where(undefined | nothing, 0.0, top_value)
    hi, lo = two_sum(v, -maximum)
    d = _scaled(
        (hi, np.where(np.isfinite(hi) & np.isfinite(lo), lo, 0.0)),
        _log_of_base(base),
        rows.temperature,
    )
    high, low, k = exp(d)
    gone = v == -np.inf
    e = np.where(gone, 0.0, high), np.where(gone, 0.0, low), np.where(gone, 0, k)
    top = np.zeros(v.shape, bool)
    if v.size:
        top[np.arange(len(v)), v.argmax(-1)] = True
    return _Terms(maximum, d, e, top, undefined, nan, infinite, nothing, all_minus_infinity)


def _scaled(d, factor, divisor):
    """``d * factor / divisor``; beyond 1e280, where the splitting would overflow,
    in plain float64.
    """
    rough = d[0] * factor[0] / divisor
    large = ~(np.abs(rough) < 1e280) | ~(np.abs(d[0]) < 1e280)
    safe = np.where(large, 0.0, d[0]), np.where(large, 0.0, d[1])
    hi, lo = div(mul(safe, factor), (divisor, np.zeros_like(divisor)))
    return np.where(large, rough, hi), np.where(large, 0.0, lo)


def _over(a, divisor):
    """``a / divisor``; beyond 1e280 in plain float64."""
    large = ~(np.abs(a[0]) < 1e280)
    hi, lo = div((np.where(large, 0.0, a[0]), np.where(large, 0.0, a[1])), divisor)
    return np.where(large, a[0] / divisor[0], hi), np.where(large, 0.0, lo)


def _sum_below_top(t):
    """Sum of the exponentials without the maximum's (which is 1), as double-double times 2**k."""
    high, low, k = t.e
    counts = ~t.top & (high != 0)
    k_row = np.where(counts, k, -(10**6)).max(-1, keepdims=True, initial=-(10**6))
    shift = np.where(counts, k - k_row, 0)
    s = total(
        (np.where(counts, np.ldexp(high, shift), 0.0), np.where(counts, np.ldexp(low, shift), 0.0))
    )
    return s[0][:, None], s[1][:, None], k_row


def _log1p_scaled(high, low, k):
    """``log(1 + (high + low) * 2**k)``, itself with an exponent:
    below 2**-200 it is its argument.
    """
    tiny = k < -200
    plain = log1p((np.where(tiny, 0.0, np.ldexp(high, k)), np.where(tiny, 0.0, np.ldexp(low, k))))
    return (
        np.where(tiny, high, plain[0]),
        np.where(tiny, low, plain[1]),
        np.where(tiny & (high != 0), k, 0),
    )


def _full(rows, hi, lo, exponent, special):
    """Assemble an `Exact`; ``special`` is a list of (mask, value)."""
    for mask, value in special:
        hi, lo = np.where(mask, value, hi), np.where(mask, 0.0, lo)
        exponent = np.where(mask, 0, exponent)
    return Exact(rows.full(hi), rows.full(lo), rows.full(exponent))


@remembered
@np.errstate(all="ignore")
def softmax(x, axis=-1, *, temperature=1.0, base=None, where=None):
    rows = _rows(x, axis, temperature, where)
    t = _terms(rows, base)
    high, low, k = _sum_below_top(t)
    total = add((np.ldexp(high, k), np.ldexp(low, k)), (1.0, 0.0))
    hi, lo = div((t.e[0], t.e[1]), total)
    return _full(rows, hi, lo, t.e[2], [(t.undefined, np.nan), (~rows.where, 0.0)])


def softmin(x, axis=-1, *, temperature=1.0, base=None, where=None):
    return softmax(
        -np.asarray(x, np.float64), axis, temperature=temperature, base=base, where=where
    )


@remembered
@np.errstate(all="ignore")
def log_softmax(x, axis=-1, *, temperature=1.0, base=None, where=None):
    rows = _rows(x, axis, temperature, where)
    t = _terms(rows, base)
    high, low, k = _log1p_scaled(*_sum_below_top(t))
    gone = t.d[0] == -np.inf
    d = np.where(gone, 0.0, t.d[0]), np.where(gone, 0.0, t.d[1])
    hi, lo = add(d, (-np.ldexp(high, k), -np.ldexp(low, k)))
    lo = np.where(np.isfinite(lo), lo, 0.0)  # next to the largest number the sums overflow inside
    at_top = t.d[0] == 0  # there the result may be tiny: keep its exponent
    hi, lo, k = np.where(at_top, -high, hi), np.where(at_top, -low, lo), np.where(at_top, k, 0)
    hi, lo = _over((hi, lo), _log_of_base(base))
    return _full(rows, hi, lo, k, [(gone, -np.inf), (t.undefined, np.nan), (~rows.where, -np.inf)])


@remembered
@np.errstate(all="ignore")
def square_normalize(x, axis=-1, *, where=None):
    rows = _rows(x, axis, 1.0, where)
    fraction, exponent = np.frexp(np.where(rows.where, rows.x, 0.0))
    counts = np.isfinite(fraction) & (fraction != 0)
    largest = np.where(counts, exponent, -(10**6)).max(-1, keepdims=True, initial=-(10**6))
    scaled = np.ldexp(fraction, np.where(counts, exponent - largest, 0))
    s = total(two_prod(scaled, scaled))
    infinite = np.isinf(scaled).any(-1, keepdims=True) & ~np.isnan(scaled).any(-1, keepdims=True)
    hi, lo = div(two_prod(fraction, fraction), (s[0][:, None], s[1][:, None]))
    special = [(infinite & np.isfinite(scaled), 0.0), (~rows.where, 0.0)]
    return _full(rows, hi, lo, np.where(counts, 2 * (exponent - largest), 0), special)


@np.errstate(all="ignore")
def logsumexp(x, axis=-1, *, b=None, keepdims=False, base=None, where=None):
    where = np.asarray(True if where is None else where)
    if b is not None:
        b = np.broadcast_to(np.asarray(b, np.float64), np.shape(x))
        where = where & (b != 0)
    rows = _rows(x, axis, 1.0, where)
    t = _terms(rows, base)
    if b is None:
        high, low, k = _log1p_scaled(*_sum_below_top(t))
        k_kept = np.where(t.maximum == 0, k, 0)  # there the result may be tiny
        high, low = np.ldexp(high, k - k_kept), np.ldexp(low, k - k_kept)
        negative = np.zeros_like(t.nothing)
    else:
        factor = _as_rows(np.where(where, b, 0.0), np.shape(x), rows.axes)
        plain = np.ldexp(t.e[0], t.e[2]), np.ldexp(t.e[1], t.e[2])
        weighted = total(mul(plain, (factor, np.zeros_like(factor))))
        s = weighted[0][:, None], weighted[1][:, None]
        negative = s[0] < 0
        nothing = s[0] == 0
        high, low = log(
            (np.where(negative | nothing, 1.0, s[0]), np.where(negative | nothing, 0.0, s[1]))
        )
        k_kept = np.zeros_like(t.nothing, np.int64)
        t.all_minus_infinity |= nothing & ~t.undefined
    high, low = _over((high, low), _log_of_base(base))
    high, low = add((t.maximum, 0.0), (high, low))
    special = [
        (t.nothing | t.all_minus_infinity, -np.inf),
        (t.infinite, np.inf),
        (t.nan | negative & ~t.undefined, np.nan),
    ]
    for mask, value in special:
        high, low, k_kept = (
            np.where(mask, value, high),
            np.where(mask, 0.0, low),
            np.where(mask, 0, k_kept),
        )
    return Exact(
        *(rows.reduced(part, keepdims) for part in (high, low, k_kept, np.abs(t.maximum) / 16))
    )


def _elementwise(values):
    """Put NaN back and hand out an `Exact` of the given shape."""
    x, high, low, k, special = values
    for mask, value in [*special, (np.isnan(x), np.nan)]:
        high, low, k = np.where(mask, value, high), np.where(mask, 0.0, low), np.where(mask, 0, k)
    return Exact(high, low, k)


def _exp_of_minus(x):
    magnitude = np.where(np.isfinite(x), np.abs(x), 1e6)
    return exp((-magnitude, np.zeros_like(magnitude)))


@remembered
@np.errstate(all="ignore")
def sigmoid(x):
    x = np.asarray(x).astype(np.float64)
    high, low, k = _exp_of_minus(x)
    total = add((np.ldexp(high, k), np.ldexp(low, k)), (1.0, 0.0))
    left = x < 0
    hi, lo = div((np.where(left, high, 1.0), np.where(left, low, 0.0)), total)
    return _elementwise(
        (x, hi, lo, np.where(left, k, 0), [(x == np.inf, 1.0), (x == -np.inf, 0.0)])
    )


@remembered
@np.errstate(all="ignore")
def log_sigmoid(x):
    x = np.asarray(x).astype(np.float64)
    high, low, k = _log1p_scaled(*_exp_of_minus(x))
    negative = np.where((x < 0) & np.isfinite(x), x, 0.0)
    hi, lo = add((negative, 0.0), (-np.ldexp(high, k), -np.ldexp(low, k)))
    right = x >= 0
    hi, lo, k = np.where(right, -high, hi), np.where(right, -low, lo), np.where(right, k, 0)
    return _elementwise((x, hi, lo, k, [(x == np.inf, 0.0), (x == -np.inf, -np.inf)]))


def softplus(x):
    return -log_sigmoid(-np.asarray(x).astype(np.float64))


@remembered
@np.errstate(all="ignore")
def logit(p):
    x = np.asarray(p).astype(np.float64)
    inside = (x > 0) & (x < 1)
    p = np.where(inside, x, 0.5)
    q = two_sum(np.ones_like(p), -p)
    zero = np.zeros_like(p)
    near = np.abs(p - 0.5) < 2.0**-11
    odds_less_one = div((np.where(near, 2 * p - 1, 0.0), zero), q)  # numerator exact near 1/2
    close = log1p(odds_less_one)
    log_q = log1p((np.where(near, 0.0, -p), zero))
    log_p = _log((p, zero))
    far = add(log_p, (-log_q[0], -log_q[1]))
    high, low = np.where(near, close[0], far[0]), np.where(near, close[1], far[1])
    special = [(x == 0, -np.inf), (x == 1, np.inf), ((x < 0) | (x > 1), np.nan)]
    return _elementwise((x, high, low, np.zeros(x.shape, np.int64), special))


# --- gradients, in the precision of their arguments -----------------------------------------------
# Each of g and of what the vjp takes: the value, and the size of its terms, which may cancel.


def softmax_vjp(g, y, axis=-1, temperature=1.0):
    dot = np.sum(g * y, axis, keepdims=True)
    size = np.abs(y) * (np.abs(g) + np.sum(np.abs(g * y), axis, keepdims=True))
    return y * (g - dot) / temperature, size / temperature


def log_softmax_vjp(g, y, axis=-1, temperature=1.0):
    p = np.exp(y)
    size = np.abs(g) + p * np.sum(np.abs(g), axis, keepdims=True)
    return (g - p * np.sum(g, axis, keepdims=True)) / temperature, size / temperature


def logsumexp_vjp(g, x, axis=-1):
    p = np.exp(x - np.max(x, axis, keepdims=True))
    value = np.expand_dims(g, axis) * p / np.sum(p, axis, keepdims=True)
    return value, np.abs(value)


def square_normalize_vjp(g, x, axis=-1):
    squares = x * x
    s = np.sum(squares, axis, keepdims=True)
    mean, size = (np.sum(a * squares, axis, keepdims=True) / s for a in (g, np.abs(g)))
    return 2 * x / s * (g - mean), 2 * np.abs(x) / s * (np.abs(g) + size)


def sigmoid_vjp(g, y):
    value = g * y * (1 - y)
    return value, np.abs(value)


def log_sigmoid_vjp(g, x):
    value = g / (1 + np.exp(x))
    return value, np.abs(value)


def softplus_vjp(g, x):
    value = g / (1 + np.exp(-x))
    return value, np.abs(value)


# --- definitions, mpmath --------------------------------------------------------------------------

DIGITS = 800  # log(1 - 1e-320) needs more than 320 of them


def _powers(row, temperature, base):
    unit = 1 if base is None else mpmath.log(mpmath.mpf(base))
    return [mpmath.exp(mpmath.mpf(v) * unit / mpmath.mpf(temperature)) for v in row], unit


def define_softmax(row, temperature=1.0, base=None):
    powers, _ = _powers(row, temperature, base)
    return [power / mpmath.fsum(powers) for power in powers]


def define_softmin(row, temperature=1.0, base=None):
    return define_softmax([-v for v in row], temperature, base)


def define_log_softmax(row, temperature=1.0, base=None):
    powers, unit = _powers(row, temperature, base)
    return [mpmath.log(power / mpmath.fsum(powers)) / unit for power in powers]


def define_logsumexp(row, base=None, b=None):
    powers, unit = _powers(row, 1.0, base)
    weights = [1] * len(row) if b is None else [mpmath.mpf(w) for w in b]
    return (
        mpmath.log(mpmath.fsum(w * power for w, power in zip(weights, powers, strict=True))) / unit
    )


def define_square_normalize(row):
    squares = [mpmath.mpf(v) ** 2 for v in row]
    whole = mpmath.fsum(squares)
    return [square / whole if whole else mpmath.nan for square in squares]


def define_sigmoid(x):
    return 1 / (1 + mpmath.exp(-mpmath.mpf(x)))


def define_log_sigmoid(x):
    return mpmath.log(define_sigmoid(x))


def define_softplus(x):
    return mpmath.log(1 + mpmath.exp(mpmath.mpf(x)))


def define_logit(p):
    return mpmath.log(mpmath.mpf(p) / (1 - mpmath.mpf(p)))
