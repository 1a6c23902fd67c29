"""One row per operation: the table that the tests (and the benchmarks) iterate.

Adding an operation is adding one `Case` to `CASES`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import oracle

import fastsoftmax

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
HALVES = (np.dtype(np.float16),)
if importlib.util.find_spec("ml_dtypes"):
    import ml_dtypes

    HALVES += (np.dtype(ml_dtypes.bfloat16),)


# --- inputs that are hard to get right ------------------------------------------------------------


def _normal(scale, shift=0.0):
    return lambda n, dtype, rng: shift + rng.normal(0.0, scale, n)


def _constant(value):
    return lambda n, dtype, rng: np.full(n, value)


def _dominant(rest):
    """One logit, anywhere, so far above the others that these sum to
    about ``rest`` of its exponential.
    """

    def make(n, dtype, rng):
        row = rng.normal(np.log(rest / n), 0.5, n)
        row[rng.integers(n)] = 0.0
        return row

    return make


def _ramp(first, last):
    return lambda n, dtype, rng: np.linspace(first, last, n)


def _late(rise):
    """The last logit exceeds all others by ``rise``:
    a shift guessed from the first ones is wrong.
    """

    def make(n, dtype, rng):
        row = rng.normal(0.0, 1.0, n)
        row[-1] += rise
        return row

    return make


def _masked(mask):
    """Every third logit is ``mask``, the first included."""

    def make(n, dtype, rng):
        row = rng.normal(0.0, 3.0, n)
        row[:: 3 if n > 1 else 2 * n] = mask
        if n == 1:
            row[:] = 1.0
        return row

    return make


def _denormal(n, dtype, rng):
    return rng.integers(-1000, 1000, n) * float(np.finfo(dtype).smallest_subnormal)


def _cancelling(n, dtype, rng):
    """The maximum and the logarithm of the sum nearly cancel in logsumexp."""
    return -np.log(n) * (1 + rng.normal(0, 1e-2)) + rng.normal(0.0, 1e-3, n)


HARD_ROWS: dict[str, Callable] = {
    "N(0,1)": _normal(1.0),
    "N(0,3)": _normal(3.0),
    "N(0,20)": _normal(20.0),
    "N(0,100)": _normal(100.0),
    "zeros": _constant(0.0),
    "constant -7.3": _constant(-7.3),
    "constant 3.3": _constant(3.3),
    "constant 1e6": _constant(1e6),
    "dominant 1e-3": _dominant(1e-3),
    "dominant 1e-6": _dominant(1e-6),
    "dominant 1e-9": _dominant(1e-9),
    "dominant 1e-15": _dominant(1e-15),
    "dominant 1e-30": _dominant(1e-30),
    "shift 255": _normal(3.0, 255.0),
    "shift -300": _normal(3.0, -300.0),
    "shift 2050": _normal(3.0, 2050.0),
    "shift 1e5": _normal(3.0, 1e5),
    "shift -1e5": _normal(20.0, -1e5),
    "shift 1e6": _normal(3.0, 1e6),
    "shift -1e6": _normal(20.0, -1e6),
    "ascending 200": _ramp(0.0, 200.0),
    "ascending 1": _ramp(-1.0, 0.0),
    "ascending -350..-150": _ramp(-350.0, -150.0),
    "descending 200": _ramp(150.0, -50.0),
    "late 1": _late(1.0),
    "late 30": _late(30.0),
    "late 59": _late(59.0),
    "late 70": _late(70.0),
    "late 100": _late(100.0),
    "late 200": _late(200.0),
    "late 800": _late(800.0),
    "late 1e30": _late(1e30),
    "masked -1e9": _masked(-1e9),
    "masked -1e30": _masked(-1e30),
    "masked -inf": _masked(-np.inf),
    "denormal": _denormal,
    "cancelling": _cancelling,
}


@np.errstate(all="ignore")
def hard_rows(n, dtype, rng, names=tuple(HARD_ROWS)):
    """One row of length ``n`` of each kind, and the names of the kinds."""
    return np.stack([HARD_ROWS[name](n, dtype, rng) for name in names]).astype(dtype), list(names)


def negated_hard_rows(n, dtype, rng):
    rows, names = hard_rows(n, dtype, rng)
    return -rows, [f"minus {name}" for name in names]


def _of_any_size(low, high):
    """Numbers of both signs and of sizes between powers of ten."""
    return lambda n, dtype, rng: rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(low, high, n)


def _normal_of(size):
    """Normal numbers of a size that depends on the dtype."""
    return lambda n, dtype, rng: rng.normal(0.0, float(size(np.finfo(dtype))), n)


AMPLITUDES = {
    "of any size": _of_any_size(-30, 30),
    "of moderate size": _of_any_size(-4, 4),
    "large": _of_any_size(17, 22),
    "small": _of_any_size(-24, -17),
    "around the smallest normal number": _normal_of(lambda info: info.smallest_normal),
    "whose squares are": _normal_of(lambda info: info.smallest_normal**0.5),
    "next to the largest number": _normal_of(lambda info: info.max / 8),
    "whose squares are, too": _normal_of(lambda info: info.max**0.5),
}


@np.errstate(all="ignore")
def hard_amplitudes(n, dtype, rng):
    """Rows that are squared: those of `hard_rows`,
    and some whose squares leave the range of numbers.
    """
    rows, names = hard_rows(n, dtype, rng)
    more = np.stack([make(n, dtype, rng) for make in AMPLITUDES.values()]).astype(dtype)
    return np.concatenate([rows, more]), names + list(AMPLITUDES)


@np.errstate(all="ignore")
def hard_reals(n, dtype, rng):
    """Arguments of functions of any real number: near 0, moderate, and where results underflow."""
    info = np.finfo(dtype)
    edge = -np.log(float(info.smallest_normal))
    kinds = {
        "N(0,1)": rng.normal(0, 1, n),
        "N(0,20)": rng.normal(0, 20, n),
        "uniform to the edge of underflow": rng.uniform(-edge - 20, edge + 20, n),
        "powers of ten": np.sign(rng.normal(size=n)) * 10.0 ** rng.uniform(-36, 6, n),
        "near 0": np.linspace(-1e-3, 1e-3, n),
        "around 1/2 ln 2": np.linspace(-1, 1, n),
        "large": rng.normal(0, 1e6, n),
        "denormal": _denormal(n, dtype, rng),
    }
    return np.stack(list(kinds.values())).astype(dtype), list(kinds)


@np.errstate(all="ignore")
def hard_probabilities(n, dtype, rng):
    """Arguments of logit: the middle, both ends, and numbers next to 1/2 and 1."""
    eps = float(np.finfo(dtype).eps)
    steps = np.arange(1, n + 1)
    kinds = {
        "uniform": rng.uniform(0, 1, n),
        "small": 10.0 ** rng.uniform(-37, 0, n),
        "next to 1": 1.0 - steps * eps / 2,
        "near 1": 1.0 - 10.0 ** rng.uniform(-6, -0.5, n),
        "next to 1/2": 0.5 + (steps - n // 2) * eps / 4,
        "near 1/2": 0.5 + rng.normal(0, 1e-3, n),
        "around sqrt(1/2)": rng.uniform(0.65, 0.75, n),
        "denormal": np.abs(_denormal(n, dtype, rng)) + float(np.finfo(dtype).smallest_subnormal),
    }
    return np.stack(list(kinds.values())).astype(dtype), list(kinds)


@np.errstate(all="ignore")
def typical_reals(shape, dtype, rng):
    return rng.normal(0.0, 3.0, shape).astype(dtype)


@np.errstate(all="ignore")
def typical_probabilities(shape, dtype, rng):
    return rng.uniform(0.01, 0.99, shape).astype(dtype)


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    signature: str  # exactly what users may rely on
    exact: Callable  # vectorised reference, called like the operation
    definition: Callable  # mpmath, one row (or one number)
    ulp: float  # promised largest error, float32 and float64
    hand: tuple  # (arguments, expected): values a reader can verify
    rowwise: bool = True
    # of rows: -inf takes no part, +inf and nothing but -inf make NaN of the row
    of_logits: bool = True
    oriented: Callable = np.positive  # of what is to this operation as logits are to softmax
    reduced: bool = False
    options: tuple = ()
    masked: float | None = None  # what a masked-out entry gives
    undefined: float | None = None  # what a fully masked row gives where it is reduced
    inputs: Callable = hard_rows  # (n, dtype, rng) -> rows that are hard, their names
    typical: Callable = typical_reals  # (shape, dtype, rng) -> unremarkable input
    # of functions of elements: their values at infinities and other special arguments
    special: tuple[tuple[float, float], ...] = ()
    # calls in every regime beside the plain one: what names add -> options, from `regimes.Given`
    calls: dict[str, Callable] = field(default_factory=dict)
    vjp: str | None = None
    vjp_signature: str = ""
    vjp_from: str = "y"  # the vjp takes the output ("y") or the input ("x")
    vjp_options: Callable = lambda given: {}  # of the call in every regime
    vjp_formula: Callable | None = None  # (g, y or x, options) -> value, size of its terms
    vjp_hand: tuple = ()  # (g, y or x, expected), extremes among them
    # whether NaN in y or x is NaN in the whole row: the others need only sum(g) of it
    vjp_nan_spreads: bool = False
    vjp_ulp: float = 8  # promised largest error of the vjp, against its terms where they may cancel

    def __str__(self):
        return self.name

    @property
    def of_probabilities(self):
        return self.typical is typical_probabilities

    @property
    def argument(self):
        """The name of the first argument."""
        return self.signature[1:].partition(",")[0]

    @property
    def logarithmic(self):
        """Whether results are logarithms of shares."""
        return self.masked == -np.inf

    @property
    def call(self):
        return getattr(fastsoftmax, self.name)

    @property
    def call_vjp(self):
        return getattr(fastsoftmax, self.vjp)

    def result_dtype(self, dtype):
        """dtype of the result for input of a float ``dtype``."""
        return (
            np.dtype(np.float32) if self.reduced and np.dtype(dtype) in HALVES else np.dtype(dtype)
        )

    def bound(self, dtype):
        """Largest error (ulp) of results of ``dtype``;
        half precision is as good as float32, rounded once.
        """
        bits = {"float16": 13, "bfloat16": 16}.get(np.dtype(dtype).name)
        return self.ulp if bits is None else 0.5 + self.ulp * 2.0**-bits


@np.errstate(all="ignore")
def errors(case, got, x, dtype=None, exact=None, **options):
    """Errors of ``got``, the result for ``x``, in ulp; its shape and dtype must be right."""
    x = np.asarray(x)
    exact = case.exact(x, **options) if exact is None else exact
    if dtype is None:
        dtype = case.result_dtype(x.dtype) if x.dtype in FLOATS + HALVES else np.dtype(np.float64)
    assert isinstance(got, np.ndarray | np.generic)
    assert got.dtype == dtype
    assert got.shape == exact.shape
    return oracle.ulp_error(got, exact)


def check(case, got, x, dtype=None, **options):
    """Assert that ``got`` is the result for ``x`` within the promised accuracy."""
    found = errors(case, got, x, dtype, **options)
    if found.size:
        worst = np.unravel_index(found.argmax(), found.shape)
        where = tuple(map(int, worst))
        assert found[worst] <= case.bound(got.dtype), (
            f"{case}: {found[worst]:.3g} ulp, {got[worst]!r} at {where}"
        )


SOFTMAX = (
    "(x, axis=-1, *, temperature=1.0, base=None, where=None, out=None, dtype=None,"
    " num_threads=None)"
)
LOGSUMEXP = (
    "(x, axis=-1, *, b=None, keepdims=False, base=None, where=None, out=None, dtype=None,"
    " num_threads=None)"
)
SOFTMAX_OPTIONS = ("temperature", "base", "where")
LOG2, LOG3 = float(np.log(2)), float(np.log(3))

CASES = (
    Case(
        name="softmax",
        signature=SOFTMAX,
        exact=oracle.softmax,
        definition=oracle.define_softmax,
        ulp=6,
        hand=(
            ([0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]),
            ([0.0, LOG3], [0.25, 0.75]),
            ([LOG2, 0.0, 0.0], [0.5, 0.25, 0.25]),
            ([2.0, 4.0, 2.0, 1.0], [0.1024911967, 0.7573132023, 0.1024911967, 0.0377044042]),
            ([0.0, 1000.0], [0.0, 1.0]),
            ([-1000.0, -1000.0], [0.5, 0.5]),
        ),
        options=SOFTMAX_OPTIONS,
        masked=0.0,
        calls={
            "temperatures": lambda given: {"temperature": given.t},
            "where": lambda given: {"where": given.where},
        },
        vjp="softmax_vjp",
        vjp_formula=oracle.softmax_vjp,
        vjp_hand=(
            ([1.0, -2.0, 3.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]),
            ([1.0, -2.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
            ([1.0, -2.0, 3.0], [np.nan] * 3, [np.nan] * 3),
        ),
        vjp_nan_spreads=True,
        vjp_signature="(g, y, axis=-1, *, temperature=1.0, out=None, num_threads=None)",
    ),
    Case(
        name="softmin",
        signature=SOFTMAX,
        exact=oracle.softmin,
        definition=oracle.define_softmin,
        ulp=6,
        hand=(
            ([0.0, LOG3], [0.75, 0.25]),
            ([-LOG2, 0.0, 0.0], [0.5, 0.25, 0.25]),
            ([0.0, 1000.0], [1.0, 0.0]),
        ),
        options=SOFTMAX_OPTIONS,
        masked=0.0,
        inputs=negated_hard_rows,
        oriented=np.negative,
    ),
    Case(
        name="log_softmax",
        signature=SOFTMAX,
        exact=oracle.log_softmax,
        definition=oracle.define_log_softmax,
        ulp=3,
        hand=(
            ([0.0, 0.0], [-LOG2, -LOG2]),
            ([20.0, 0.0], [-2.0611536203e-09, -20.0]),
            ([0.0, LOG3], [-2 * LOG2, LOG3 - 2 * LOG2]),
            ([0.0, 1000.0], [-1000.0, 0.0]),
        ),
        options=SOFTMAX_OPTIONS,
        masked=-np.inf,
        calls={
            "temperatures": lambda given: {"temperature": given.t},
            "base": lambda given: {"base": 2.0, "where": given.where},
        },
        vjp="log_softmax_vjp",
        vjp_options=lambda given: {"temperature": given.t},
        vjp_formula=oracle.log_softmax_vjp,
        vjp_hand=(([1.0, -2.0, 3.0], [-np.inf, 0.0, -np.inf], [1.0, -4.0, 3.0]),),
        vjp_signature="(g, y, axis=-1, *, temperature=1.0, out=None, num_threads=None)",
    ),
    Case(
        name="logsumexp",
        signature=LOGSUMEXP,
        exact=oracle.logsumexp,
        definition=oracle.define_logsumexp,
        ulp=3,
        hand=(
            ([0.0, 0.0], LOG2),
            ([LOG2, LOG2, LOG2, LOG2], 3 * LOG2),
            ([1000.0, 1000.0], 1000.0 + LOG2),
            ([-1000.0], -1000.0),
            ([0.0, -20.0], 2.0611536203e-09),
        ),
        reduced=True,
        options=("b", "base", "where", "keepdims"),
        undefined=-np.inf,
        calls={
            "where": lambda given: {"where": given.where, "base": 2.0},
            "b": lambda given: {"b": given.b},
            "b of its dtype": lambda given: {"b": given.b.astype(given.x.dtype)},
        },
        vjp="logsumexp_vjp",
        vjp_formula=oracle.logsumexp_vjp,
        vjp_hand=((2.0, [-np.inf, 5.0, 5.0], [0.0, 1.0, 1.0]), (2.0, [-np.inf] * 3, [np.nan] * 3)),
        vjp_nan_spreads=True,
        vjp_signature="(g, x, axis=-1, *, out=None, num_threads=None)",
        vjp_from="x",
    ),
    Case(
        name="square_normalize",
        signature="(x, axis=-1, *, where=None, out=None, dtype=None, num_threads=None)",
        exact=oracle.square_normalize,
        definition=oracle.define_square_normalize,
        ulp=4,
        hand=(
            ([1.0, 1.0, -1.0, 1.0], [0.25, 0.25, 0.25, 0.25]),
            ([3.0, -4.0], [0.36, 0.64]),
            ([0.0, -7.0], [0.0, 1.0]),
            ([3e-30, 4e-30, 0.0], [0.36, 0.64, 0.0]),
            ([3e30, 4e30], [0.36, 0.64]),
            ([0.0, 0.0], [np.nan, np.nan]),
            ([np.inf, 1.0, -np.inf], [np.nan, 0.0, np.nan]),
        ),
        of_logits=False,
        options=("where",),
        masked=0.0,
        inputs=hard_amplitudes,
        calls={"where": lambda given: {"where": given.where}},
        vjp="square_normalize_vjp",
        vjp_formula=oracle.square_normalize_vjp,
        vjp_hand=(
            ([1.0, -2.0], [1.0, 1.0], [1.5, -1.5]),
            ([1.0, -2.0, 3.0], [0.0, 0.0, 0.0], [np.nan] * 3),
        ),
        vjp_nan_spreads=True,
        vjp_signature="(g, x, axis=-1, *, out=None, num_threads=None)",
        vjp_from="x",
    ),
    Case(
        name="sigmoid",
        signature="(x, *, out=None, dtype=None, num_threads=None)",
        exact=oracle.sigmoid,
        definition=oracle.define_sigmoid,
        ulp=4,
        hand=(([0.0, LOG3, -LOG3, 1000.0, -1000.0], [0.5, 0.75, 0.25, 1.0, 0.0]),),
        rowwise=False,
        special=((np.inf, 1.0), (-np.inf, 0.0), (0.0, 0.5), (-0.0, 0.5)),
        inputs=hard_reals,
        vjp="sigmoid_vjp",
        vjp_formula=oracle.sigmoid_vjp,
        vjp_hand=(([1.0, -2.0, 3.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.75]),),
        vjp_signature="(g, y, *, out=None, num_threads=None)",
        vjp_ulp=3,
    ),
    Case(
        name="log_sigmoid",
        signature="(x, *, out=None, dtype=None, num_threads=None)",
        exact=oracle.log_sigmoid,
        definition=oracle.define_log_sigmoid,
        ulp=3,
        hand=(([0.0, -LOG3, -1000.0, 20.0], [-LOG2, -2 * LOG2, -1000.0, -2.0611536203e-09]),),
        rowwise=False,
        special=((np.inf, 0.0), (-np.inf, -np.inf)),
        inputs=hard_reals,
        vjp="log_sigmoid_vjp",
        vjp_formula=oracle.log_sigmoid_vjp,
        vjp_hand=(([1.0, -2.0, 3.0], [np.inf, -np.inf, 0.0], [0.0, -2.0, 1.5]),),
        vjp_signature="(g, x, *, out=None, num_threads=None)",
        vjp_from="x",
        vjp_ulp=5,
    ),
    Case(
        name="softplus",
        signature="(x, *, out=None, dtype=None, num_threads=None)",
        exact=oracle.softplus,
        definition=oracle.define_softplus,
        ulp=3,
        hand=(([0.0, LOG3, 1000.0, -20.0], [LOG2, 2 * LOG2, 1000.0, 2.0611536203e-09]),),
        rowwise=False,
        special=((np.inf, np.inf), (-np.inf, 0.0)),
        inputs=hard_reals,
        vjp="softplus_vjp",
        vjp_formula=oracle.softplus_vjp,
        vjp_hand=(([1.0, -2.0, 3.0], [np.inf, -np.inf, 0.0], [1.0, 0.0, 1.5]),),
        vjp_signature="(g, x, *, out=None, num_threads=None)",
        vjp_from="x",
        vjp_ulp=5,
    ),
    Case(
        name="logit",
        signature="(p, *, out=None, dtype=None, num_threads=None)",
        exact=oracle.logit,
        definition=oracle.define_logit,
        ulp=3,
        hand=(([0.5, 0.75, 0.25, 0.0, 1.0], [0.0, LOG3, -LOG3, -np.inf, np.inf]),),
        rowwise=False,
        oriented=lambda x: 1 / (1 + np.exp(-x)),
        special=(
            *((0.0, -np.inf), (-0.0, -np.inf), (1.0, np.inf), (0.5, 0.0)),
            *((outside, np.nan) for outside in (2.0, -1.0, np.inf, -np.inf, -1e-40)),
        ),
        inputs=hard_probabilities,
        typical=typical_probabilities,
    ),
)

BY_NAME = {case.name: case for case in CASES}
ROWWISE = tuple(case for case in CASES if case.rowwise)
OF_LOGITS = tuple(case for case in ROWWISE if case.of_logits)
ELEMENTWISE = tuple(case for case in CASES if not case.rowwise)
WITH_VJP = tuple(case for case in CASES if case.vjp)


def supporting(option):
    """The operations that take an option."""
    return tuple(case for case in CASES if option in case.options)
