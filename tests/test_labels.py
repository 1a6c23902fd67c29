"""Labels and the other arguments of losses are checked before anything is read with them or
written.

Every function that takes labels is a row of `TAKERS`, every loss one of `FUNCTIONS`. Whatever a
call refuses, it leaves its inputs and the arrays it was given for results as they were, byte for
byte.
"""

import importlib.util
import itertools
import re
import sys
import tracemalloc
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from arrays import REFUSED, Exporter, layouts, refuses
from cases import FLOATS
from hypothesis import given
from hypothesis import strategies as st
from losses import GRAD_HESS, LOSSES

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

SENTINEL = -7.25  # no gradient of these tests
REDUCTIONS = ("none", "sum", "mean", "batchmean")
INTEGERS = [np.dtype(kind + size) for kind in "iu" for size in "1248"]
AXIS_ERROR = np.exceptions.AxisError


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Taker:
    """A function that takes labels, and how it is called with one for every row."""

    name: str
    argument: str = "targets"
    reductions: tuple = ()
    outs: tuple = ()
    options: dict = field(default_factory=dict)
    several: bool = False  # labels have the axis of the classes, too

    def __str__(self):
        return " ".join([self.name, *self.options.values(), *["several"] * self.several])

    def __call__(self, x, labels, axis=-1, **more):
        if self.several:
            labels = np.expand_dims(labels, axis)
        return getattr(fs, self.name)(x, labels, axis, **(self.options | more))

    def place(self, index, axis):
        """How a message writes where a label is:
        an index tuple, or an integer for one dimension.
        """
        index = list(index)
        if self.several:
            index.insert(axis % (len(index) + 1), 0)
        return f"{self.argument}[{', '.join(map(str, index))}]" if len(index) else self.argument


BARE = (
    Taker("cross_entropy", reductions=REDUCTIONS),
    Taker("cross_entropy_value_and_grad", reductions=REDUCTIONS, outs=("out",)),
    Taker("nll_loss", reductions=REDUCTIONS),
    Taker("nll_loss_value_and_grad", reductions=REDUCTIONS, outs=("out",)),
    Taker("cross_entropy_grad_hess", outs=("grad_out", "hess_out")),
    Taker("logprobs", "ids"),
    Taker("logprobs", "ids", several=True),
    Taker("fit_temperature", "labels"),
)
TAKERS = tuple(
    replace(taker, options={"reduction": reduction} if reduction else {})
    for taker in BARE
    for reduction in taker.reductions or (None,)
)
EVERY_TAKER = pytest.mark.parametrize("taker", TAKERS, ids=str)
EVERY_BARE_TAKER = pytest.mark.parametrize("taker", BARE, ids=str)
OF_LOSSES = [taker for taker in BARE if taker.reductions]
EVERY_IGNORING_TAKER = pytest.mark.parametrize("taker", OF_LOSSES, ids=str)

# Of logits of five classes, and their axis.
SHAPES = [((6, 5), -1), ((5, 6), 0), ((2, 5, 3), 1), ((2, 4, 3, 5), -1)]


def scores(shape, dtype=np.float64, seed=3):
    return np.random.default_rng(seed).normal(0, 2, shape).astype(dtype)


def right_labels(x, axis=-1, dtype=np.int64):
    """Labels 0, 1, 2, ... in turn."""
    shape = np.delete(x.shape, axis)
    return (np.arange(np.prod(shape, dtype=int)).reshape(shape) % x.shape[axis]).astype(dtype)


def wrong_labels(dtype, classes):
    """Numbers of an integer dtype that are no class;
    some would be one if they were cut to fewer bits.
    """
    info = np.iinfo(dtype)
    powers = (2**8, 2**16, 2**32, 2**63, 2**63 + 1, 2**64 - classes + 1)
    found = {-1, -(2**32), info.min, info.max, classes, *powers}
    return sorted(
        wrong for wrong in found if info.min <= wrong <= info.max and not 0 <= wrong < classes
    )


def memories(labels):
    """The same labels in every layout of memory that `layouts` has for them."""
    missing = (None,) * (3 - labels.ndim)
    for name, array in layouts(labels[missing]):
        if "stride 0" not in name and name != "windows":
            yield name, array[(0,) * len(missing)]


def says(place, wrong):
    """What a message must match: a place, and the number there as the next one to be named."""
    return re.escape(place) + r"[^\d\[-]*" + re.escape(str(wrong)) + r"(?!\d)"


def untouched(call, error, match, *inputs, outs=(), like=None):
    """Assert that a call raises and has written nothing:
    not to its inputs, not to the arrays for results.
    """
    results = {name: np.full(like.shape, SENTINEL, like.dtype) for name in outs}
    watched = [
        a for a in (*inputs, *results.values()) if isinstance(a, np.ndarray) and a.dtype != object
    ]
    before = [a.tobytes() for a in watched]
    with pytest.raises(error, match=match):
        call(**results)
    assert [a.tobytes() for a in watched] == before


def is_refused(taker, x, labels, error, match, axis=-1, **options):
    """Assert that a taker raises and writes nothing."""

    def call(**outs):
        taker(x, labels, axis, **outs, **options)

    untouched(call, error, match, x, labels, outs=taker.outs, like=x)


# --- numbers that are no class --------------------------------------------------------------------


@pytest.mark.once
@EVERY_TAKER
def test_no_class(taker):
    """In every integer dtype, and at the first, a middle and the last place,
    a wrong label is named.
    """
    for kind, (shape, axis) in itertools.product(INTEGERS, SHAPES):
        x = scores(shape)
        for at in (0, 2, -1):
            for wrong in wrong_labels(kind, 5):
                labels = right_labels(x, axis, kind)
                labels.flat[at] = wrong
                place = taker.place(np.unravel_index(at % labels.size, labels.shape), axis)
                is_refused(taker, x, labels, IndexError, says(place, wrong), axis)


@EVERY_TAKER
def test_the_first_of_several(taker):
    """First is in C order of the indices, whatever the order in memory."""
    for shape, axis in SHAPES:
        x = scores(shape)
        labels = right_labels(x, axis, np.int32)
        labels.flat[[1, -2, -1]] = 5, -1, 77
        place = taker.place(np.unravel_index(1, labels.shape), axis)
        for _, array in memories(labels):
            is_refused(taker, x, array, IndexError, says(place, 5), axis)


@pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.float16), np.dtype(np.longdouble)], ids=str)
@EVERY_BARE_TAKER
def test_no_class_for_logits_of_every_layout(taker, dtype):
    """Labels are checked before the short lane, a compiled kernel or its twin gets them."""
    labels = np.array([[[4, 0], [1, 5]], [[3, -1], [2, 2]]])
    place = taker.place((0, 1, 1), -1)
    for name, x in layouts(scores((4, 2, 5), dtype)):
        if name == "windows":
            continue
        x = x.reshape(2, 2, 2, 5)
        is_refused(taker, x, labels, IndexError, says(place, 5))


@EVERY_TAKER
def test_no_class_far_inside(taker):
    """Many labels are looked through piece by piece, and places counted over all pieces."""
    x = np.zeros((3, 9001, 2), np.float32)
    for at in (0, 8191, 8192, 20_000, 27_002):
        labels = right_labels(x)
        labels.flat[at] = 2
        place = taker.place(np.unravel_index(at, labels.shape), -1)
        for array in (labels, np.asfortranarray(labels), labels.repeat(2, 1)[:, ::2]):
            is_refused(taker, x, array, IndexError, says(place, 2))


@pytest.mark.once
@EVERY_IGNORING_TAKER
def test_no_class_among_weights(taker):
    """Weights of classes are looked up with labels that were checked,
    also for what a mean divides by.
    """
    weights = {
        "weight": np.array([1.0, 0.5, 2.0, 3.0, 0.25]),
        "sample_weight": 0.5,
        "ignore_index": -100,
    }
    for names in (["weight"], ["weight", "sample_weight"], ["weight", "ignore_index"]):
        options = {name: weights[name] for name in names}
        for wrong, reduction in itertools.product((-1, 5, 2**40, -(2**63), -5), REDUCTIONS):
            labels = np.array([0, 1, wrong, 4])
            match = says("targets[2]", wrong)
            is_refused(
                taker, scores((4, 5)), labels, IndexError, match, reduction=reduction, **options
            )


@EVERY_BARE_TAKER
def test_a_single_row(taker):
    """The label of a single row is one number, which has no place;
    that of a number can only be 0.
    """
    for make in (int, np.int64, np.array, lambda label: np.array(label, ">i2")):
        for x, wrong in [
            (scores(5), 5),
            (scores(5), -1),
            (np.float64(0.5), 1),
            (np.float64(0.5), -1),
        ]:
            place = taker.place((), -1)
            is_refused(taker, x, make(wrong), IndexError, says(place, wrong))
    taker(scores(5), 4)


@EVERY_TAKER
def test_no_classes_at_all(taker):
    """Where there are no classes every label is wrong, and where there are no rows none can be."""
    is_refused(
        taker, np.zeros((2, 0)), np.array([0, 0]), IndexError, says(taker.place((0,), -1), 0)
    )
    for shape in ((0, 5), (0, 0), (3, 0, 5)):
        x, labels = np.zeros(shape), np.zeros(shape[:-1], np.int8)
        if taker.name == "fit_temperature":  # no temperature is the best of nothing
            is_refused(taker, x, labels, ValueError, "labels")
            continue
        result = taker(x, labels, **{name: np.zeros(shape) for name in taker.outs})
        if "reduction" not in taker.options:
            assert np.size(result) == 0


# --- what is no label -----------------------------------------------------------------------------

NO_LABELS = {
    "bool": np.array([True, False, True, True]),
    "bool for each class": np.ones((4, 5), bool),
    "floats for each row": np.array([0.0, 1.0, 2.0, 3.0]),
    "float32 for each row": np.zeros(4, np.float32),
    "halves for each row": np.zeros(4, np.float16),
    "floats, one row short": np.zeros((3, 5)),
    "floats, one class short": np.zeros((4, 4)),
    "floats, transposed": np.zeros((5, 4)),
    "a float": 1.0,
    "complex for each class": np.ones((4, 5), complex),
    "objects": np.array([0, 1, 2, 3], object),
    "objects for each class": np.ones((4, 5), object),
    "beyond any integer dtype": [0, 1, 2, 2**70],
    "strings": np.array(["0", "1", "2", "3"]),
    "list of strings": ["a", "b", "c", "d"],
    "None in a list": [0, 1, 2, None],
    "ragged": [[0], [1, 2], [3], [4]],
    "set": {0, 1, 2, 3},
    "durations": np.zeros(4, "m8[s]"),
    "masked": np.ma.array([0, 1, 2, 3], mask=[False, True, False, False]),
    "masked probabilities": np.ma.array(np.full((4, 5), 0.2), mask=np.eye(4, 5)),
    "matrix of integers": np.zeros((4, 5), int).view(np.matrix),
    "matrix of probabilities": np.full((4, 5), 0.2).view(np.matrix),
    "on another device": Exporter(np.zeros(4, int), device=(2, 0)),
}
WRONG_SHAPES = [(), (1,), (3,), (5,), (1, 4), (5, 4), (4, 1, 1), (4, 5, 1), (2, 2)]


@pytest.mark.once
@EVERY_BARE_TAKER
def test_no_labels(taker):
    """Neither integers nor, for a loss, probabilities: the message names the argument."""
    if not taker.several:
        for labels in NO_LABELS.values():
            is_refused(taker, scores((4, 5)), labels, (TypeError, ValueError), taker.argument)


@pytest.mark.once
@EVERY_BARE_TAKER
def test_what_no_function_takes(taker):
    """Nor anything of what is refused everywhere, as labels or as scores."""
    first = "log_probs" if taker.name.startswith("nll") else "logits"
    for make in REFUSED.values():
        if not taker.several:
            is_refused(taker, scores((4, 5)), make(), (TypeError, ValueError), taker.argument)
        with pytest.raises((TypeError, ValueError), match=first):
            taker(make(), np.zeros(2, int))


@pytest.mark.once
@EVERY_BARE_TAKER
def test_labels_of_a_wrong_shape(taker):
    """Labels do not broadcast, and one-hot integers are no probabilities."""
    if taker.several:
        shapes = [(3,), (1,), (4, 1)]  # to which it adds the axis of the classes
    elif taker.argument == "ids":
        shapes = WRONG_SHAPES
    else:
        shapes = [*WRONG_SHAPES, (4, 1), (4, 5)]
    for shape in shapes:
        is_refused(taker, scores((4, 5)), np.zeros(shape, int), ValueError, taker.argument)


@EVERY_BARE_TAKER
def test_a_mask_that_masks_nothing(taker):
    """A masked array without a true mask is its data, labels in it are checked,
    and subclasses are arrays.
    """

    class Sub(np.ndarray):
        pass

    x, labels = scores((4, 5)), np.array([0, 4, 2, 2])
    expected = taker(x, labels)
    if not taker.several:
        for same in (
            np.ma.array(labels),
            np.ma.array(labels, mask=np.zeros(4, bool)),
            labels.view(Sub),
        ):
            np.testing.assert_equal(taker(x, same), expected)
        is_refused(taker, x, np.ma.array(labels + 1), IndexError, says(taker.place((1,), -1), 5))
        is_refused(taker, x, (labels + 1).view(Sub), IndexError, says(taker.place((1,), -1), 5))
        wrong = Exporter(labels + 1)
        is_refused(taker, x, wrong, IndexError, says(taker.place((1,), -1), 5))


# --- labels that do not count ---------------------------------------------------------------------


def rows_of(result):
    """Losses and, if there is one, gradient."""
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(
    ("kind", "ignored"),
    [
        ("i8", -100),
        ("i8", -(2**63)),
        ("i8", 2**63 - 1),
        ("u8", 2**64 - 1),
        ("u8", 2**63),
        ("i1", -1),
        ("i1", -100),
        ("u1", 255),
        ("i2", 5),
        ("i4", 2),
        (">i4", -100),
        ("u2", 0),
    ],
)
@EVERY_IGNORING_TAKER
def test_ignored_labels(taker, kind, ignored):
    """They may be any number, a class or not;
    their rows hold anything and the others are as without them.
    """
    x = -np.abs(scores((8, 5)))
    labels = (np.arange(8) % 5).astype(kind)
    labels[[0, 3, 7]] = ignored
    counted = labels != ignored
    x[~counted] = np.nan
    for reduction in REDUCTIONS:
        got = rows_of(taker(x, labels, ignore_index=ignored, reduction=reduction))
        others = rows_of(taker(x[counted], labels[counted], reduction=reduction))
        for a, b in zip(got, others, strict=True):
            if np.ndim(a):
                np.testing.assert_array_equal(a[~counted], 0)
                a = a[counted]
            # Neither rows nor their sum are computed differently; the sum's order may be.
            np.testing.assert_allclose(a, b, rtol=4e-16, atol=0)


@pytest.mark.once
@EVERY_IGNORING_TAKER
def test_other_labels_are_still_checked(taker):
    """What is to be ignored excuses no other number,
    not even one of the same bits in another dtype.
    """
    x = scores((4, 5))
    for kind, ignored, wrong in [
        ("i8", -100, -1),
        ("i8", -100, 5),
        ("i8", -100, 2**63 - 1),
        ("i4", -1, 5),
        ("u1", -1, 255),
        ("i1", 255, -1),
        ("u8", -1, 2**64 - 1),
        ("i8", 2**64 - 1, -1),
        ("u8", -100, 2**64 - 100),
        ("i1", 2**70, 5),
        ("u2", -(2**70), 5),
        ("i8", 3, 5),
        ("i8", 2**53 + 1, 2**53),  # equal as floats
        ("u8", 2**63 + 1, 2**63),
    ]:
        labels = np.zeros(4, kind)
        labels[[1, 3]] = wrong
        if np.iinfo(kind).min <= ignored <= np.iinfo(kind).max:
            labels[0] = ignored
        for reduction in REDUCTIONS:
            options = {"ignore_index": ignored, "reduction": reduction}
            is_refused(taker, x, labels, IndexError, says("targets[1]", wrong), **options)
        taker(x, np.zeros(4, kind), ignore_index=ignored)


@EVERY_IGNORING_TAKER
def test_ignored_where_there_are_no_classes(taker):
    """A label that does not count is no error even then."""
    none = rows_of(taker(np.zeros((2, 0)), [-1, -1], ignore_index=-1, reduction="none"))[0]
    np.testing.assert_array_equal(none, [0, 0])
    assert np.isnan(rows_of(taker(np.zeros((2, 0)), [-1, -1], ignore_index=-1))[0])
    with pytest.raises(IndexError, match=re.escape("targets[1]")):
        taker(np.zeros((2, 0)), [-1, 0], ignore_index=-1)


@pytest.mark.once
@EVERY_IGNORING_TAKER
def test_what_cannot_be_ignored(taker):
    """Probabilities name no class; and only integers are labels."""
    x = scores((4, 5))
    for ignored in (-100, 0, np.int8(3)):
        soft = np.full((4, 5), 0.2)
        is_refused(taker, x, soft, ValueError, "ignore_index", ignore_index=ignored)
    for ignored in (1.0, np.float64(1), np.nan, "1", [1], (), np.array([1]), 1j):
        is_refused(taker, x, np.zeros(4, int), TypeError, "ignore_index", ignore_index=ignored)


@pytest.mark.once
def test_only_some_functions_ignore():
    """Where a label is always wanted there is no such option, and -100 is an error."""
    for taker in (taker for taker in BARE if not taker.reductions):
        with pytest.raises(TypeError, match="ignore_index"):
            taker(scores((4, 5)), np.zeros(4, int), ignore_index=-100)


# --- right labels ---------------------------------------------------------------------------------


def bits(result):
    """What a call returned, for comparison to the last bit."""
    return [
        (np.asarray(a).dtype, np.asarray(a).shape, np.asarray(a).tobytes()) for a in rows_of(result)
    ]


def in_any_form(labels, classes, rng):
    """The same labels in every integer dtype that has them, and in every layout of one of these."""
    kinds = [kind for kind in INTEGERS if np.iinfo(kind).max >= classes - 1]
    layouts_of_one = memories(labels.astype(rng.choice(kinds)))
    return [labels.astype(kind) for kind in kinds] + [array for _, array in layouts_of_one]


@given(
    classes=st.sampled_from([1, 2, 3, 17, 64, 127, 130, 300, 5000]),
    rows=st.integers(2, 30),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@EVERY_BARE_TAKER
def test_any_labels(taker, classes, rows, dtype, seed, data):
    """Classes never raise, and no bit depends on the dtype or the memory they come in: in the short
    lane (contiguous, default options), for strided logits, and for labels of any strides.
    """
    rng = np.random.default_rng(seed)
    rows = min(rows, 20_000 // classes)
    options = (
        {"reduction": data.draw(st.sampled_from(taker.reductions))} if taker.reductions else {}
    )
    x = rng.normal(0, 3, (rows, classes)).astype(dtype)
    strided = x.repeat(2, 1)[:, ::2]
    labels = rng.integers(0, classes, rows)
    expected = bits(taker(x, labels, **options))
    forms = in_any_form(labels, classes, rng)
    for array in forms:
        assert bits(taker(x, array, **options)) == expected, array.dtype
    for array in (forms[0], forms[-1]):
        assert bits(taker(strided, array, **options)) == expected


@EVERY_TAKER
def test_labels_of_many_axes_in_any_layout(taker):
    """Labels need not lie like logits: the axes of each may be in any order of memory.

    That is the order in which losses are added up, so that sums may differ in the last bit; nothing
    else may.
    """
    for axis in range(4):
        x = -np.abs(scores((2, 3, 4, 5)))  # so that no sum of losses cancels
        labels = right_labels(x, axis)
        expected = rows_of(taker(x, labels, axis))
        for name, array in memories(labels):
            for a, b in zip(rows_of(taker(x, array, axis)), expected, strict=True):
                np.testing.assert_allclose(
                    a, b, rtol=0 if np.ndim(a) else 1e-14, atol=0, err_msg=name
                )


@pytest.mark.parametrize(
    ("kind", "classes"), [("i1", 128), ("u1", 256), ("i2", 32768), ("u2", 65536)]
)
@EVERY_BARE_TAKER
def test_as_many_classes_as_a_dtype_has(taker, kind, classes):
    """The largest number of a dtype is a class where there are that many, or more:
    nothing wraps around.
    """
    last = np.iinfo(kind).max
    labels = [last, 1]
    for length in (classes, classes + 2):
        x = np.linspace(-3, 3, 2 * length, dtype=np.float32).reshape(2, length)
        assert bits(taker(x, np.array(labels, kind))) == bits(taker(x, np.array(labels)))
    match = says(taker.place((0,), -1), last)
    is_refused(taker, x[:, :last].copy(), np.array(labels, kind), IndexError, match)


@EVERY_BARE_TAKER
def test_strided_labels_and_numbers_beyond_their_dtype(taker):
    """NumPy 2.0 and 2.1 crash at some comparisons of the two; so they are never compared."""
    for kind in INTEGERS:
        for classes, ignored in [
            (130, None),
            (300, None),
            *[(300, -1), (130, 2**40)] * bool(taker.reductions),
        ]:
            x, options = (
                np.zeros((20, classes)),
                {} if ignored is None else {"ignore_index": ignored},
            )
            labels = (np.arange(20) % 5).astype(kind)
            expected = rows_of(taker(x, labels.astype(int), **options))
            for array in (labels[::-1].copy()[::-1], labels.repeat(2)[::2]):
                for a, b in zip(rows_of(taker(x, array, **options)), expected, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("taker", [taker for taker in BARE if taker.outs], ids=str)
def test_labels_in_the_memory_of_a_gradient(taker):
    """They are read before anything is written over them,
    and are left alone if one of them is wrong.
    """
    x = -np.abs(scores((6, 5)))
    expected = bits(taker(x, np.arange(6) % 5))
    for name, start, wrong in itertools.product(taker.outs, (0, 7, 24), (False, True)):
        out = np.zeros_like(x)
        labels = out.view(np.int64).ravel()[start : start + 6]
        labels[...] = np.arange(6) % 5
        if not wrong:
            assert bits(taker(x, labels, **{name: out})) == expected
            continue
        labels[4] = 9
        before = out.tobytes()
        with pytest.raises(IndexError, match=says("targets[4]", 9)):
            taker(x, labels, **{name: out})
        assert out.tobytes() == before


@EVERY_BARE_TAKER
def test_one_label_for_all_rows(taker):
    """A label that is broadcast to the rows (stride 0) is each row's."""
    x = scores((2, 6, 5))
    for label in (0, 4):
        labels = np.broadcast_to(label, (2, 6))
        assert bits(taker(x, labels)) == bits(taker(x, labels.copy()))
    match = says(taker.place((0, 0), -1), 5)
    is_refused(taker, x, np.broadcast_to(5, (2, 6)), IndexError, match)


@pytest.mark.parametrize("options", [{}, {"ignore_index": -100}], ids=["", "ignore_index"])
@EVERY_BARE_TAKER
def test_labels_are_not_copied(taker, options):
    """Checking labels, and reading them where they lie, takes no memory of their size."""
    if options and not taker.reductions:
        return
    x = np.zeros((200_000, 2), np.float32)
    labels = np.zeros((len(x), 2), np.int64)[:, 1]
    outs = {name: np.empty_like(x) for name in taker.outs}
    own = 4 * len(x) if taker.argument == "ids" else 0  # what it returns
    taker(x[:9], labels[:9], **options)  # imports and the like
    for wrong in (False, True):
        labels[-1] = 2 * wrong
        tracemalloc.start()
        try:
            if wrong:
                with pytest.raises(IndexError):
                    taker(x, labels, **outs, **options)
            elif fs.config()["backend"] != "numpy":  # whose twins compute with arrays of a block
                taker(x, labels, **outs, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak - own < labels.size  # an eighth of their size


# --- other arguments of losses --------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A loss, its gradient, or its curvature, with arguments that are right."""

    name: str
    signature: str
    x: np.ndarray
    targets: np.ndarray
    first: str
    second: str

    def __str__(self):
        return self.name

    @property
    def outs(self):
        return [name for name in ("out", "grad_out", "hess_out") if self.takes(name)]

    def takes(self, name):
        return f" {name}=" in self.signature

    @property
    def of_rows(self):
        return self.takes("axis")

    def refuses(self, error, match, **changes):
        """Assert that a call with other arguments raises and writes nothing,
        not to these either.
        """
        options = {"x": self.x, "targets": self.targets} | changes
        x, targets = options.pop("x"), options.pop("targets")
        untouched(
            lambda **results: getattr(fs, self.name)(x, targets, **options, **results),
            error,
            match,
            x,
            targets,
            *options.values(),
            outs=[name for name in self.outs if name not in options],
            like=self.x,
        )


def functions():
    """All of them, for labels and for targets of every class."""
    for loss in LOSSES:
        signatures = {
            loss.name: loss.signature,
            f"{loss.name}_value_and_grad": loss.gradient_signature,
        }
        if f"{loss.name}_grad_hess" in GRAD_HESS:
            signatures[f"{loss.name}_grad_hess"] = GRAD_HESS[f"{loss.name}_grad_hess"]
        given = loss.problem((3, 4), np.dtype(np.float64), np.random.default_rng(0))
        for name, signature in signatures.items():
            yield Function(name, signature, given.x, given.targets, loss.scores, loss.second)


FUNCTIONS = tuple(functions())
EVERY_FUNCTION = pytest.mark.parametrize("function", FUNCTIONS, ids=str)
EVERY_GRADIENT = pytest.mark.parametrize("function", [f for f in FUNCTIONS if f.outs], ids=str)


def does_not_broadcast(name, *shapes):
    return [(name, np.ones(shape), ValueError) for shape in shapes]


# what cannot be a number of any kind
REAL = ("complex", "str", "object", "datetime", "records", "matrix")
WRONG_OPTIONS = [
    *[
        ("reduction", value, ValueError)
        for value in ("average", "Mean", "", None, 0, b"mean", ["mean"])
    ],
    *[("axis", value, TypeError) for value in (None, (0, 1), (0,), (), "0", 0.5, [0], 1j)],
    *[("axis", value, AXIS_ERROR) for value in (2, -3, 2**70)],
    *[
        ("label_smoothing", value, ValueError)
        for value in (-1e-9, 1 + 1e-9, np.nan, np.inf, 2, -np.inf)
    ],
    *[("label_smoothing", value, TypeError) for value in (None, "0.1", [0.1], np.zeros(3), 1j)],
    *[("z_loss", value, TypeError) for value in (None, "1", [1.0], 1j)],
    ("z_loss", np.nan, ValueError),
    *[
        ("temperature", value, ValueError)
        for value in (0.0, -1.0, np.nan, np.inf, np.zeros(3), [1, 1, -1])
    ],
    *[("temperature", [1, 1, np.longdouble(value)], ValueError) for value in ("1e4000", "1e-4000")],
    *does_not_broadcast("temperature", (4,), (3, 4), (2, 1), (1, 1, 1)),
    *[("where", np.ones((3, 4), kind), TypeError) for kind in (int, float, np.uint8, object)],
    *[("where", np.ones(shape, bool), ValueError) for shape in ((3,), (4, 3), (1, 3, 4), (0,))],
    *does_not_broadcast("sample_weight", (4,), (2,), (0,)),
    *[
        (name, REFUSED[kind](), TypeError)
        for name in ("weight", "sample_weight", "where")
        for kind in REAL
    ],
    *[("clamp", value, ValueError) for value in (np.nan, -1.0, -np.inf)],
    ("clamp", "1", TypeError),
    *does_not_broadcast("pos_weight", (3,), (4, 3), (1, 3, 4)),
    *[
        (name, value, TypeError)
        for name in ("hess_factor", "hess_floor")
        for value in (None, "1", [1.0], 1j)
    ],
    *[(name, np.nan, ValueError) for name in ("hess_factor", "hess_floor")],
    *[("num_threads", value, ValueError) for value in (0, -1)],
    *[("num_threads", value, TypeError) for value in (1.5, "2")],
]
# One number for each class; in losses of elements, for each of these.
WRONG_WEIGHTS = {True: [(), (1,), (3,), (5,), (3, 4), (1, 4)], False: [(3,), (4, 3), (1, 3, 4)]}


@pytest.mark.once
@EVERY_FUNCTION
def test_wrong_options(function):
    """A wrong value, dtype or shape of an option is named, in losses,
    gradients and curvatures alike.
    """
    right = {"weight": np.ones(4), "sample_weight": np.ones(3)} if function.of_rows else {}
    for name, value, error in WRONG_OPTIONS:
        if not function.takes(name) or (
            name == "sample_weight" and np.shape(value) == (4,) and not right
        ):
            continue
        among = {option: weight for option, weight in right.items() if function.takes(option)}
        for others in ({}, among):  # away from the short lane, too
            function.refuses(error, rf"\b{name}\b", **(others | {name: value}))
    if function.takes("weight"):
        for shape in WRONG_WEIGHTS[function.of_rows]:
            function.refuses(ValueError, r"\bweight\b", weight=np.ones(shape))


@pytest.mark.once
@pytest.mark.parametrize("axis", [-1.0, np.array([0, 1]), np.array([-1])], ids=repr)
@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f.of_rows], ids=str)
def test_an_axis_is_an_integer(function, axis):
    """What only equals -1 is none, in the short lane neither;
    and an array that does not compare is named.
    """
    function.refuses(TypeError, r"\baxis must be an int, got", axis=axis)


@pytest.mark.once
@EVERY_FUNCTION
def test_wrong_scores_and_targets(function):
    """What is no array of real numbers is named; and targets have the shape of the scores."""
    for make in REFUSED.values():
        function.refuses((TypeError, ValueError), rf"\b{function.first}\b", x=make())
        function.refuses((TypeError, ValueError), rf"\b{function.second}\b", targets=make())
    one = np.zeros((3, 4), bool)
    one[2, 3] = True
    function.refuses(
        TypeError, rf"\b{function.first}\b.*\bwhere\b", x=np.ma.array(function.x, mask=one)
    )
    masked = np.ma.array(np.full((3, 4), 0.5), mask=one)
    function.refuses(TypeError, rf"\b{function.second}\b", targets=masked)
    for shape in ((), (3,), (1,), (1, 4), (3, 1), (4, 3), (1, 3, 4), (3, 5), (0, 4)):
        function.refuses(ValueError, rf"\b{function.second}\b", targets=np.full(shape, 0.5))


def overlapping(shape):
    """Arrays whose elements share memory."""
    memory = np.full(64, SENTINEL)
    for strides in ((0, 0), (8, 8), (0, 8), (16, 8), (4, 32)):
        yield np.lib.stride_tricks.as_strided(memory, shape, strides)


def wrong_outs(shape):
    """Arrays that are unfit for a gradient of float64."""
    for kind in (np.float32, np.float16, np.longdouble, int, complex, object, ">f8"):
        yield np.zeros(shape, kind), TypeError
    for other in (
        (),
        (12,),
        shape[::-1],
        (1, *shape),
        (*shape, 1),
        (shape[0] + 1, shape[1]),
        (1, 1),
    ):
        yield np.full(other, SENTINEL), ValueError
    read_only = np.full(shape, SENTINEL)
    read_only.flags.writeable = False
    yield read_only, ValueError
    for array in overlapping(shape):
        yield array, ValueError
    yield np.ma.array(np.full(shape, SENTINEL)), TypeError
    yield np.full(shape, SENTINEL).view(np.matrix), TypeError
    for other in ([[SENTINEL] * 4] * 3, 1.0, "out", (np.zeros(shape),)):
        yield other, TypeError


@pytest.mark.once
@EVERY_GRADIENT
def test_wrong_outs(function):
    """An array for a gradient has its dtype and shape, is writeable,
    and does not overlap itself.
    """
    for name in function.outs:
        for array, error in wrong_outs(function.x.shape):
            function.refuses(error, rf"\b{name}\b", **{name: array})
            if function.takes("sample_weight") and not function.takes("hess_factor"):
                function.refuses(error, r"\bout\b", sample_weight=np.ones(3), **{name: array})


@pytest.mark.once
@pytest.mark.parametrize("function", [f for f in FUNCTIONS if "hess_out" in f.outs], ids=str)
def test_outs_that_share_memory(function):
    """Gradient and curvature cannot lie in one place."""
    memory = np.full(30, SENTINEL)
    first = memory[:12].reshape(3, 4)
    for second in (first, first[::-1], memory[4:16].reshape(3, 4), memory[11:23].reshape(3, 4)):
        function.refuses(ValueError, r"\bhess_out\b", grad_out=first, hess_out=second)
    assert np.all(memory == SENTINEL)


@EVERY_GRADIENT
def test_wrong_labels_in_place(function):
    """Logits that are their own gradient's place keep their values if a call is refused."""
    if not np.issubdtype(np.asarray(function.targets).dtype, np.integer):
        return
    labels = np.array([0, 1, 4])
    for name in function.outs:
        for x in (function.x.copy(), function.x.copy("F"), function.x.repeat(2, 1)[:, ::2]):
            function.refuses(IndexError, says("targets[2]", 4), x=x, targets=labels, **{name: x})


@pytest.mark.once
def test_messages_tell_what_is_allowed():
    """The number, its place, and the classes there are;
    with what to ignore if there is such a number.
    """
    x = np.zeros((2, 3))
    refuses(lambda: fs.cross_entropy(x, [0, 3]), IndexError, "targets[1]", "is 3", "0 to 2")
    refuses(lambda: fs.cross_entropy(x, [0, 3], ignore_index=-100), IndexError, "0 to 2", "-100")
    refuses(
        lambda: fs.cross_entropy(x, [0.0, 1.0]), ValueError, "targets", "(2, 3)", "(2,)", "integer"
    )
    refuses(
        lambda: fs.cross_entropy(x, [0, 1], reduction="avg"),
        ValueError,
        "'mean'",
        "'none'",
        "'avg'",
    )
    refuses(lambda: fs.cross_entropy(x, [0, 1], label_smoothing=2), ValueError, "0 to 1", "2")
    refuses(lambda: fs.cross_entropy(x, [0, 1], weight=[1.0]), ValueError, "(3,)", "(1,)")
    refuses(
        lambda: fs.cross_entropy_grad_hess(x, [0, 1], hess_out=np.zeros(3)),
        ValueError,
        "hess_out",
        "(2, 3)",
    )


if importlib.util.find_spec("torch"):
    import torch

    @pytest.mark.once
    @EVERY_FUNCTION
    def test_torch_bfloat16_points_to_float(function, monkeypatch):
        """By the name of the argument that it is about, where there is no ml_dtypes."""
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        tensor = torch.zeros(3, 4, dtype=torch.bfloat16)
        function.refuses(TypeError, rf"pass {function.first}\.float\(\)", x=tensor)
        function.refuses(TypeError, rf"pass {function.second}\.float\(\)", targets=tensor)
