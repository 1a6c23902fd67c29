"""What every function promises about its arguments:
kinds of input, dtypes, axes, out, options, errors.
"""

import importlib.util
import sys
import tracemalloc

import numpy as np
import pytest
from arrays import REFUSED, Exporter, layouts, outs, pairs_of_views, refuses
from cases import BY_NAME, CASES, ELEMENTWISE, FLOATS, ROWWISE, check, supporting

import fastsoftmax as fs

EVERY = pytest.mark.parametrize("case", CASES, ids=str)
EVERY_ROWWISE = pytest.mark.parametrize("case", ROWWISE, ids=str)
FULL = tuple(case for case in CASES if not case.reduced)
EVERY_FULL = pytest.mark.parametrize("case", FULL, ids=str)
pytestmark = pytest.mark.usefixtures("backend")


softmax, log_softmax, logsumexp = fs.softmax, fs.log_softmax, fs.logsumexp


# --- kinds of input -------------------------------------------------------------------------------


@EVERY
def test_hand_values(case, dtype):
    for x, expected in case.hand:
        got = case.call(np.array(x, dtype))
        np.testing.assert_allclose(
            got, expected, rtol=max(1e-7, 8 * float(np.finfo(dtype).eps)), atol=0
        )


@EVERY
def test_lists_tuples_and_numbers(case):
    x = case.typical((3, 4), np.float64, np.random.default_rng(0))
    check(case, case.call(x.tolist()), x)
    check(case, case.call(tuple(map(tuple, x.tolist()))), x)
    check(case, case.call(float(x[0, 0])), x[0, 0])
    check(case, case.call([x[0], x[1]]), x[:2])


@EVERY
def test_layouts(case, dtype):
    x = case.typical((5, 6, 19), dtype, np.random.default_rng(1))
    for name, array in layouts(x):
        before = array.tobytes()
        for axis in range(array.ndim) if case.rowwise else [None]:
            options = {"axis": axis} if case.rowwise else {}
            got = case.call(array, **options)
            assert got.dtype.isnative, name
            assert got.flags.aligned, name
            assert got.flags.writeable, name
            check(case, got, array.astype(dtype), **options)
        assert array.tobytes() == before, name


@EVERY
def test_every_case_of_misalignment_and_length(case, dtype):
    """Vectors start at any address and end anywhere."""
    for n in (1, 3, 8, 17, 64, 100):
        for offset in (1, 2, 3, 4, 8, 12):
            x = case.typical(n, dtype, np.random.default_rng(n))
            buffer = np.zeros(x.nbytes + offset, np.uint8)
            array = buffer[offset:].view(dtype)
            array[...] = x
            check(case, case.call(array), x)


@EVERY
def test_subclasses_and_memory_maps(case, tmp_path):
    class Sub(np.ndarray):
        pass

    x = case.typical((4, 9), np.float32, np.random.default_rng(2))
    check(case, case.call(x.view(Sub)), x)
    x.tofile(tmp_path / "x")
    for mode in ("r", "r+", "c"):
        mapped = np.memmap(tmp_path / "x", np.float32, mode, shape=x.shape)
        check(case, case.call(mapped), x)
        del mapped
    assert (tmp_path / "x").read_bytes() == x.tobytes()


@EVERY
def test_dlpack(case, dtype):
    x = case.typical((4, 9), dtype, np.random.default_rng(3))
    for array in (x.copy(), x.copy().T, x.repeat(2, 1)[:, ::2]):
        exporter = Exporter(array)
        check(case, case.call(exporter), array)
        assert exporter.exports == 1


@EVERY_FULL
def test_dlpack_shares_memory(case):
    """The object is read where it lies:
    a call with ``out`` in the same memory is a call in place.
    """
    x = case.typical((4, 9), np.float32, np.random.default_rng(4))
    memory = x.copy()
    assert case.call(Exporter(memory), out=memory) is memory
    check(case, memory, x)


@pytest.mark.once
@EVERY
def test_dlpack_of_another_device(case):
    exporter = Exporter(np.ones(3, np.float32), device=(2, 0))
    refuses(lambda: case.call(exporter), TypeError, case.argument)


if importlib.util.find_spec("torch"):
    import torch

    @EVERY
    def test_torch_tensors(case):
        for kind in ("float32", "float64", "float16", "int64", "uint8", "bool"):
            numbers = case.typical((4, 9), np.float32, np.random.default_rng(5))
            tensor = torch.tensor(numbers).to(getattr(torch, kind))
            numbers = (
                tensor.numpy() if tensor.is_floating_point() else tensor.numpy().astype(np.float64)
            )
            check(case, case.call(tensor), numbers)
            check(case, case.call(tensor.T), numbers.T)

    @pytest.mark.once
    @EVERY
    def test_torch_bfloat16_points_to_float(case, monkeypatch):
        """Where there is no ml_dtypes."""
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
        tensor = torch.zeros(3, 4, dtype=torch.bfloat16)
        refuses(lambda: case.call(tensor), TypeError, f"pass {case.argument}.float()")

    @EVERY_FULL
    def test_torch_memory_in_place(case):
        numbers = case.typical((4, 9), np.float32, np.random.default_rng(6))
        tensor = torch.tensor(numbers)
        case.call(tensor, out=tensor.numpy())
        check(case, tensor.numpy(), numbers)


@EVERY
def test_masked_arrays(case):
    x = case.typical((3, 4), np.float64, np.random.default_rng(7))
    refuses(lambda: case.call(np.ma.array(x, mask=x > np.median(x))), TypeError, "where")
    one = np.zeros(x.shape, bool)
    one[2, 3] = True
    refuses(lambda: case.call(np.ma.array(x, mask=one)), TypeError, "where")
    got = case.call(np.ma.array(x, mask=np.zeros(x.shape, bool)))
    assert not isinstance(got, np.ma.MaskedArray)
    check(case, got, x)
    check(case, case.call(np.ma.array(x)), x)


@pytest.mark.once
@EVERY
def test_refused_inputs(case):
    for make in REFUSED.values():
        refuses(lambda make=make: case.call(make()), TypeError, case.argument)


@pytest.mark.once
@EVERY
def test_ragged_lists(case):
    refuses(lambda: case.call([[1.0, 2.0], [3.0]]), (TypeError, ValueError))


# --- dtypes ---------------------------------------------------------------------------------------

INTEGERS = [np.dtype(kind) for kind in "bBhHiIlLqQ?"]


@EVERY
def test_integers_become_float64_first(case):
    for kind in INTEGERS:
        x = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 0, 0]]).astype(kind)
        check(case, case.call(x), x.astype(np.float64))
        check(case, case.call(x.T), x.T.astype(np.float64))
        if case.rowwise:
            check(case, case.call(x, axis=0), x.astype(np.float64), axis=0)
        check(case, case.call(x, dtype=np.float32), x.astype(np.float64), dtype=np.float32)


@EVERY_ROWWISE
def test_integers_that_would_wrap(case):
    """Differences of small and unsigned integers, before a conversion, wrap around."""
    for x in (
        np.array([0, 1, 2], np.uint8),
        np.array([255, 0, 3], np.uint8),
        np.array([-100, 100], np.int8),
        np.array([-128, 127, 0], np.int8),
        np.array([0, 2**64 - 1, 2**64 - 2049], np.uint64),
        np.array([-(2**63), 2**63 - 1, 5], np.int64),
        np.array([2**53, 2**53 + 2, 2**53 - 1]),
    ):
        check(case, case.call(x), x.astype(np.float64))


def test_small_integers_by_hand():
    thirds = [0.09003057, 0.24472847, 0.66524096]
    np.testing.assert_allclose(softmax(np.array([0, 1, 2], np.uint8)), thirds, rtol=1e-7)
    np.testing.assert_allclose(
        softmax(np.array([False, True])), [0.26894142, 0.73105858], rtol=1e-7
    )
    far = softmax(np.array([-100, 100], np.int8))
    np.testing.assert_allclose(far, [np.exp(-200.0), 1.0], rtol=1e-14, atol=0)


@EVERY
def test_half_precision_keeps_its_dtype(case, half):
    x = case.typical((4, 31), half, np.random.default_rng(8))
    got = check_half(case, x)
    assert got.dtype == (np.float32 if case.reduced else half)
    check(case, case.call(x, dtype=np.float32), x, dtype=np.float32)
    check(case, case.call(x, dtype=np.float64), x, dtype=np.float64)
    check(case, case.call(np.asfortranarray(x)[::-1, ::2]), x[::-1, ::2])


def check_half(case, x):
    got = case.call(x)
    check(case, got, x)
    return got


@EVERY_FULL
def test_half_precision_in_place(case, half):
    x = case.typical((4, 31), half, np.random.default_rng(9))
    memory = x.copy()
    assert case.call(memory, out=memory) is memory
    check(case, memory, x)


def test_half_precision_sums_do_not_overflow(half):
    x = np.zeros(100_000, half)
    assert logsumexp(x) == pytest.approx(np.log(100_000), rel=1e-6)
    assert softmax(x)[0].astype(float) == pytest.approx(1e-5, rel=1e-2)
    assert log_softmax(x)[-1].astype(float) == pytest.approx(-np.log(100_000), rel=1e-2)


@EVERY
def test_longdouble(case):
    x = case.typical((4, 9), np.float64, np.random.default_rng(10)).astype(np.longdouble)
    got = case.call(x)
    assert got.dtype == np.longdouble
    exact = case.exact(x.astype(np.float64))
    hi, lo = (np.ldexp(part.astype(np.longdouble), exact.exponent) for part in (exact.hi, exact.lo))
    difference = np.abs((got - hi) - lo)
    scale = np.maximum(np.abs(got), exact.floor)
    assert np.all(difference <= 32 * max(np.finfo(np.longdouble).eps, 2.0**-63) * scale)


@EVERY
def test_dtype_spellings(case):
    x = case.typical((2, 5), np.float64, np.random.default_rng(11))
    for spelling in ("float32", "f4", np.float32, np.dtype(np.float32), "single"):
        check(case, case.call(x, dtype=spelling), x, dtype=np.float32)
    check(case, case.call(x, dtype=None), x)
    check(case, case.call(x, dtype=float), x)


@pytest.mark.once
@pytest.mark.parametrize(
    "wrong", [int, bool, complex, np.complex64, object, str, "i4", "M8[s]", "nonsense"]
)
@EVERY
def test_dtype_must_be_floating(case, wrong):
    words = [] if wrong == "nonsense" else ["dtype"]
    refuses(lambda: case.call(np.ones(3), dtype=wrong), TypeError, *words)


@pytest.mark.parametrize("given", FLOATS, ids=str)
@EVERY_FULL
def test_dtype_makes_no_converted_copy(case, given):
    wanted = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.float32}[given]
    x = case.typical((2000, 1000), given, np.random.default_rng(12))
    out = np.empty(x.shape, wanted)
    tracemalloc.start()
    try:
        case.call(x, out=out, dtype=wanted)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes / 2


# --- axes -----------------------------------------------------------------------------------------


SINGLE_AXES = [0, 1, 2, 3, -1, -2, -3, -4]
SETS_OF_AXES = [None, (0,), (1, 3), (3, 1), (0, 1), (-1, 0), (2, -3), (0, 1, 2), (3, 2, 1, 0)]


@EVERY_ROWWISE
def test_axis(case, dtype):
    x = case.typical((3, 2, 5, 4), dtype, np.random.default_rng(13))
    for axis in SINGLE_AXES + SETS_OF_AXES:
        for array in (x, np.asfortranarray(x)[:, ::-1]):
            exact = case.exact(array, axis=axis)
            check(case, case.call(array, axis=axis), array, exact=exact)
            check(case, case.call(array, axis), array, exact=exact)


@EVERY_ROWWISE
def test_axis_of_numpy_integers(case):
    x = case.typical((3, 2, 5), np.float32, np.random.default_rng(13))
    for axis in (np.int64(1), np.int8(1), np.uint8(1), (np.int64(1),)):
        check(case, case.call(x, axis=axis), x, axis=1)


@EVERY_ROWWISE
@pytest.mark.parametrize("shape", [(7,), (3, 2, 5), (40, 300), (1, 3, 1)])
def test_the_last_axis_by_any_name(case, shape, dtype):
    """And all axes, which are those of the flat array."""
    x = case.typical(shape, dtype, np.random.default_rng(14))
    last = case.call(x, axis=-1)
    np.testing.assert_array_equal(case.call(x, axis=len(shape) - 1), last, strict=True)
    whole, flat = case.call(x, axis=None), case.call(x.reshape(-1), axis=-1)
    np.testing.assert_array_equal(np.reshape(whole, np.shape(flat)), flat, strict=True)
    assert np.shape(whole) == (() if case.reduced else shape)
    out = np.empty(np.shape(whole), dtype)
    assert case.call(x, axis=None, out=out) is out
    check(case, out, x, axis=None)
    check(case, case.call(x, axis=tuple(range(len(shape)))), x, axis=None)


def test_no_axes_at_all():
    """Like NumPy's reductions: over no axis every number is on its own."""
    x = np.array([[1.0, -2.0], [0.5, 7.0]])
    np.testing.assert_array_equal(softmax(x, axis=()), np.ones((2, 2)))
    np.testing.assert_array_equal(log_softmax(x, axis=()), np.zeros((2, 2)))
    np.testing.assert_array_equal(logsumexp(x, axis=()), x)


@pytest.mark.once
@pytest.mark.parametrize("axis", [2, -3, 100, (0, 2), (-3,), 2**40, 2**70, -(2**70)])
@EVERY_ROWWISE
def test_axis_out_of_range(case, axis):
    refuses(lambda: case.call(np.ones((2, 3)), axis=axis), np.exceptions.AxisError, "axis")


@pytest.mark.once
@pytest.mark.parametrize("axis", [(0, 0), (0, -2), (1, 0, -1)])
@EVERY_ROWWISE
def test_axis_given_twice(case, axis):
    refuses(lambda: case.call(np.ones((2, 3)), axis=axis), ValueError, "axis")


@pytest.mark.once
@pytest.mark.parametrize("axis", [1.0, "0", [0], (0.0,), (0, None), object], ids=repr)
@EVERY_ROWWISE
def test_axis_of_another_type(case, axis):
    refuses(lambda: case.call(np.ones((2, 3)), axis=axis), TypeError, "axis")


@pytest.mark.parametrize("axis", [0, -1, None])
@EVERY_ROWWISE
def test_zero_dimensional_input(case, axis):
    for x in (
        np.float32(3.5),
        np.array(3.5, np.float32),
        np.float64(-2.0),
        np.array(-2.0),
        7.0,
        3,
        True,
    ):
        got = case.call(x, axis=axis)
        assert isinstance(got, np.float64 | np.float32)
        kind = np.asarray(x).dtype
        check(case, got, np.asarray(x, kind if kind in FLOATS else float), axis=axis)
    assert isinstance(softmax(np.float16(5), axis=axis), np.float16)


@pytest.mark.once
@pytest.mark.parametrize("axis", [1, -2, (0, 0)])
@EVERY_ROWWISE
def test_zero_dimensional_input_has_one_axis(case, axis):
    refuses(lambda: case.call(1.0, axis=axis), ValueError, "axis")  # AxisError is a ValueError


@EVERY
def test_zero_dimensional_input_with_out_and_options(case):
    out = np.empty((), np.float64)
    assert case.call(0.25, out=out) is out
    check(case, out, np.array(0.25))
    got = case.call(0.25, dtype=np.float32)
    assert isinstance(got, np.float32)
    if "temperature" in case.options:
        check(case, case.call(0.25, temperature=2.0), np.array(0.25), temperature=2.0)
    if "where" in case.options:
        expected = case.undefined if case.reduced else case.masked
        assert case.call(0.25, where=False) == expected
        assert isinstance(case.call(np.nan, where=False), np.float64)
    if "keepdims" in case.options:
        assert isinstance(case.call(0.25, keepdims=True), np.float64)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
def test_zero_dimensional_elementwise(case):
    for x in (np.float32(0.25), np.array(0.25), 0.25, 1, np.float16(0.25)):
        assert isinstance(case.call(x), np.generic)


@EVERY_FULL
def test_empty_input(case, dtype):
    for shape in [(0,), (0, 3), (3, 0), (2, 0, 4), (0, 0)]:
        for axis in range(len(shape)) if case.rowwise else [None]:
            options = {"axis": axis} if case.rowwise else {}
            got = case.call(np.empty(shape, dtype), **options)
            assert got.shape == shape
            assert got.dtype == dtype
            out = np.empty(shape, dtype)
            assert case.call(np.empty(shape, dtype), out=out, **options) is out
    assert case.call(np.empty((3, 0), dtype), **({"axis": None} if case.rowwise else {})).shape == (
        3,
        0,
    )
    assert case.call([]).dtype == np.float64


def test_empty_reductions(dtype):
    assert logsumexp(np.empty(0, dtype)) == -np.inf
    assert logsumexp(np.empty((0, 3), dtype)).shape == (0,)
    nothing = np.full(3, -np.inf, dtype)
    np.testing.assert_array_equal(logsumexp(np.empty((3, 0), dtype)), nothing, strict=True)
    np.testing.assert_array_equal(logsumexp(np.empty((0, 3), dtype), axis=0), nothing, strict=True)
    assert logsumexp(np.empty((3, 0), dtype), axis=None) == -np.inf
    assert logsumexp(np.empty((3, 0), dtype), keepdims=True).shape == (3, 1)
    out = np.zeros(3, dtype)
    assert logsumexp(np.empty((3, 0), dtype), out=out) is out
    assert np.all(out == -np.inf)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, (0, 2), None], ids=repr)
def test_keepdims(axis, dtype):
    x = np.random.default_rng(14).normal(size=(3, 4, 5)).astype(dtype)
    got = logsumexp(x, axis, keepdims=True)
    check(BY_NAME["logsumexp"], got, x, axis=axis, keepdims=True)
    out = np.empty(got.shape, dtype)
    assert logsumexp(x, axis, keepdims=True, out=out) is out
    np.testing.assert_array_equal(out, got)


# --- out ------------------------------------------------------------------------------------------


@EVERY
def test_out_of_every_layout(case, dtype):
    x = case.typical((5, 6, 19), dtype, np.random.default_rng(15))
    for axis in (0, 1, 2) if case.rowwise else (None,):
        options = {"axis": axis} if case.rowwise else {}
        expected = case.call(x, **options)
        for name, out, memory in outs(expected.shape, dtype):
            out[...] = 0
            around = memory.copy()
            assert case.call(x, out=out, **options) is out, name
            check(case, out, x, **options)
            out[...] = 0
            assert memory.tobytes() == around.tobytes(), f"{name}: wrote outside of out"


@EVERY_FULL
def test_results_do_not_depend_on_where_out_begins(case, dtype):
    """Long rows are written in vectors that meet cache lines, wherever these are."""
    for n in (4096, 4097, 4103, 5000, 32_768):
        x = case.typical((2, n), dtype, np.random.default_rng(n))
        expected = case.call(x)
        memory = np.full(2 * n + 40, -7.25, dtype)
        for offset in range(17):
            out = memory[20 + offset :][: 2 * n].reshape(2, n)
            case.call(x, out=out)
            np.testing.assert_array_equal(out, expected)
            out[...] = -7.25
            assert np.all(memory == -7.25)


@EVERY_FULL
def test_in_place(case, dtype):
    x = case.typical((5, 6, 19), dtype, np.random.default_rng(16))
    for axis in (0, 1, 2, None, (0, 2)) if case.rowwise else (None,):
        options = {"axis": axis} if case.rowwise else {}
        for name, array in layouts(x):
            if name in ("read-only", "windows") or name.startswith(("stride 0", "byte-swapped")):
                continue
            given = array.copy()
            assert case.call(array, out=array, **options) is array
            check(case, array, given, **options)


@EVERY_FULL
def test_overlapping_input_and_out(case, dtype):
    """As if they did not overlap, within one unit in the last place."""
    for size in (10, 100, 1003):
        for name, memory, x, out in pairs_of_views(size, dtype):
            memory[...] = case.typical(memory.shape, dtype, np.random.default_rng(17))
            given = x.copy()
            expected = case.call(given)
            assert case.call(x, out=out) is out
            check(case, out, given)
            np.testing.assert_array_max_ulp(out, expected, 1), name


@EVERY_FULL
def test_overlapping_rows_and_columns(case, dtype):
    for axis in (0, 1) if case.rowwise else (None,):
        options = {"axis": axis} if case.rowwise else {}
        for x_part, out_part in [
            (np.s_[:30, :20], np.s_[1:31, 1:21]),
            (np.s_[1:31, 1:21], np.s_[:30, :20]),
            (np.s_[:30, :20], np.s_[29::-1, :20]),
            (np.s_[:30, :20], np.s_[5:35, :20]),
            (np.s_[5:35, :20], np.s_[:30, :20]),
            (np.s_[:30, :20], np.s_[:30, 3:23]),
            (np.s_[:20, :20], np.s_[:20, :20]),
        ]:
            memory = case.typical((40, 40), dtype, np.random.default_rng(18))
            x, out = memory[x_part], memory[out_part]
            out = out.T if out.shape == (20, 20) else out
            given = x.copy()
            assert case.call(x, out=out, **options) is out
            check(case, out, given, **options)


@pytest.mark.parametrize("case", [case for case in CASES if case.reduced], ids=str)
def test_out_of_a_reduction_inside_its_input(case, dtype):
    memory = case.typical((30, 20), dtype, np.random.default_rng(19))
    columns = [np.s_[:, 0], np.s_[:, 19], np.s_[::-1, 7]]
    rows = [np.s_[0], np.s_[29], np.s_[4, ::-1]]
    for axis, part in [(1, part) for part in columns] + [(0, part) for part in rows]:
        x = memory.copy()
        out = x[part]
        assert case.call(x, axis=axis, out=out) is out
        check(case, out, memory, axis=axis)


@pytest.mark.parametrize("option", ["where", "b", "temperature"])
def test_out_that_overlaps_another_argument(option, dtype):
    x = np.random.default_rng(20).normal(1, 2, (6, 5)).astype(dtype)
    if option == "where":
        out = np.zeros((6, 5), dtype)
        where = out.view(np.uint8).reshape(6, 5, -1)[..., 0].view(bool)
        where[...] = x > 0
        options = {"where": where.copy()}
        softmax(x, where=where, out=out)
        check(BY_NAME["softmax"], out, x, **options)
    elif option == "b":
        b = np.random.default_rng(21).uniform(0.5, 2, (6, 5)).astype(dtype)
        given = b.copy()
        out = logsumexp(x, b=b, out=b[:, 2])
        check(BY_NAME["logsumexp"], out, x, b=given)
    else:
        out = np.full((6, 5), 2.0, dtype)
        out[:, 1] = np.linspace(0.5, 3, 6)
        temperature = out[:, 1:2]
        given = temperature.copy()
        softmax(x, temperature=temperature, out=out)
        check(BY_NAME["softmax"], out, x, temperature=given)


@pytest.mark.once
@EVERY_FULL
def test_out_that_overlaps_itself(case, dtype):
    for strides in [(0, 0), (0, 1), (1, 0), (1, 1), (3, 1), (-3, 1), (2, 2)]:
        memory = np.zeros(30, dtype)
        steps = [step * dtype.itemsize for step in strides]
        out = np.lib.stride_tricks.as_strided(memory[10:], (3, 4), steps)
        refuses(lambda out=out: case.call(np.full((3, 4), 0.5, dtype), out=out), ValueError, "out")
        assert not memory.any()


@EVERY_FULL
def test_out_whose_rows_interleave_without_overlap(case, dtype):
    """Extents that overlap are fine as long as no two elements share memory."""
    memory = np.zeros(40, dtype)
    for strides in [(1, 3), (9, 2), (2, 6)]:
        out = np.lib.stride_tricks.as_strided(
            memory, (3, 4), [step * dtype.itemsize for step in strides]
        )
        x = case.typical((3, 4), dtype, np.random.default_rng(21))
        assert case.call(x, out=out) is out
        check(case, out, x)


@pytest.mark.once
@EVERY
def test_out_that_does_not_fit(case, dtype):
    x = case.typical((3, 4), dtype, np.random.default_rng(22))
    given = x.copy()
    right = (3,) if case.reduced else (3, 4)
    other = np.float64 if dtype == np.float32 else np.float32
    wrong = [
        (np.zeros((5, *right), dtype), ValueError),
        (np.zeros((4, 3), dtype), ValueError),
        (np.zeros((*right, 1), dtype), ValueError),
        (np.zeros((1, *right), dtype), ValueError),
        (np.zeros((), dtype), ValueError),
        (np.zeros(12, dtype), ValueError),
        (np.zeros(right, other), TypeError),
        (np.zeros(right, np.float16), TypeError),
        (np.zeros(right, dtype.newbyteorder("S")), TypeError),
        (np.zeros(right, int), TypeError),
        (np.zeros(right, complex), TypeError),
        (np.zeros(right, object), TypeError),
    ]
    for out, error in wrong:
        before = out.copy()
        refuses(lambda out=out: case.call(x, out=out), error, "out")
        np.testing.assert_array_equal(out, before)
    for out in ([0.0] * 3, "out", 1.0, np.float64(1), (np.zeros(right, dtype),), x.tolist()):
        refuses(lambda out=out: case.call(x, out=out), TypeError, "out")
    read_only = np.zeros(right, dtype)
    read_only.flags.writeable = False
    refuses(lambda: case.call(x, out=read_only), ValueError, "out")
    assert not read_only.any()
    np.testing.assert_array_equal(x, given)


@EVERY
def test_out_has_the_result_dtype(case):
    x = case.typical((3, 4), np.float32, np.random.default_rng(23))
    shape = (3,) if case.reduced else (3, 4)
    out = np.zeros(shape)
    assert case.call(x, out=out, dtype=np.float64) is out
    check(case, out, x, dtype=np.float64)
    refuses(
        lambda: case.call(x, out=np.zeros(shape, np.float32), dtype=np.float64), TypeError, "out"
    )
    out = np.zeros(shape)
    assert case.call(np.ones((3, 4), int), out=out) is out
    refuses(
        lambda: case.call(np.ones((3, 4), int), out=np.zeros(shape, np.float32)), TypeError, "out"
    )


@EVERY_FULL
def test_input_may_be_larger_in_another_dtype_than_out(case):
    """Overlap counts in bytes, not elements."""
    memory = case.typical(100, np.float64, np.random.default_rng(24))
    given = memory.copy()
    for offset in (0, 50, 100):
        memory[...] = given
        out = memory.view(np.float32)[offset : offset + 100]
        case.call(memory, out=out, dtype=np.float32)
        check(case, out, given, dtype=np.float32)


# --- where ----------------------------------------------------------------------------------------

WITH_WHERE = pytest.mark.parametrize("case", supporting("where"), ids=str)


@WITH_WHERE
def test_where_broadcasts(case, dtype):
    rng = np.random.default_rng(25)
    x = case.typical((3, 4, 5), dtype, rng)
    for shape in [(3, 4, 5), (5,), (4, 1), (3, 1, 1), (1, 1, 5), (1,), ()]:
        where = rng.random(shape) < 0.6
        for axis in (0, 1, 2, (0, 2), None):
            check(case, case.call(x, axis=axis, where=where), x, axis=axis, where=where)
    check(case, case.call(x, where=True), x)
    check(case, case.call(x, where=None), x)
    where = [True, False, True, True, False]
    check(case, case.call(x, where=where), x, where=where)


@WITH_WHERE
def test_where_of_any_layout(case, dtype):
    rng = np.random.default_rng(26)
    x = case.typical((6, 7), dtype, rng)
    where = rng.random((6, 7)) < 0.6
    for array in (np.asfortranarray(where), where[::-1, ::-1], where.repeat(2, 1)[:, ::2]):
        array.flags.writeable = False
        for axis in (0, 1):
            check(case, case.call(x, axis=axis, where=array), x, axis=axis, where=array)


@WITH_WHERE
def test_masked_entries_do_not_take_part(case, dtype):
    rng = np.random.default_rng(27)
    for n in (2, 5, 16, 33, 100):
        x = case.typical((40, n), dtype, rng)
        where = rng.random((40, n)) < 0.6
        where[:, 0] = True
        clean = case.call(x, where=where)
        for hidden in (np.nan, np.inf, -np.inf, 1e30, -1e30):
            dirty = np.where(where, x, dtype.type(hidden))
            for axis, given, mask in [(1, dirty, where), (0, dirty.T.copy(), where.T)]:
                got = case.call(given, axis=axis, where=mask)
                check(case, got, x.T if axis == 0 else x, axis=axis, where=mask)
                if not case.reduced:
                    assert np.all(got[~mask] == case.masked)
        assert np.all(np.isfinite(clean[where if not case.reduced else slice(None)]))


@WITH_WHERE
def test_fully_masked_rows(case, dtype):
    x = case.typical((4, 5), dtype, np.random.default_rng(28))
    x[1] = np.nan
    x[2, 3] = np.inf
    where = np.ones((4, 5), bool)
    where[1:3] = False
    got = case.call(x, where=where)
    expected = case.undefined if case.reduced else case.masked
    assert np.all(got[1:3] == expected)
    assert np.all(np.isfinite(got[[0, 3]]))
    got = case.call(x, where=False)
    assert np.all(got == expected)


@WITH_WHERE
def test_masked_entries_of_undefined_rows(case, dtype):
    """Masked entries give 0 or -inf even where the rest of the row is NaN."""
    where = np.array([True, True, False, True])
    for bad in (np.nan, np.inf):
        x = np.array([1.0, bad, 2.0, 3.0], dtype)
        got = case.call(case.oriented(x), where=where)
        if case.reduced:
            np.testing.assert_array_equal(got, bad)
        else:
            assert got[2] == case.masked
            undefined = where & np.isinf(x) if bad == np.inf and not case.of_logits else where
            np.testing.assert_array_equal(np.isnan(got), undefined)


@pytest.mark.once
@WITH_WHERE
def test_where_must_be_boolean_and_fit(case):
    x = np.ones((3, 4))
    for where in (
        np.ones((3, 4), int),
        np.ones((3, 4)),
        [1, 0, 1, 1],
        "yes",
        1,
        np.ones(4, object),
    ):
        refuses(lambda where=where: case.call(x, where=where), TypeError, "where")
    for shape in [(3,), (4, 3), (2, 3, 4), (1, 3, 4)]:
        refuses(lambda shape=shape: case.call(x, where=np.ones(shape, bool)), ValueError, "where")


# --- temperature and base -------------------------------------------------------------------------

WITH_TEMPERATURE = pytest.mark.parametrize("case", supporting("temperature"), ids=str)
WITH_BASE = pytest.mark.parametrize("case", supporting("base"), ids=str)


# of float64: infinite and 0 there
OUT_OF_RANGE = [np.longdouble("1e4000"), np.longdouble("1e-4000")]


@WITH_TEMPERATURE
def test_temperature_shapes(case, dtype):
    rng = np.random.default_rng(29)
    x = case.typical((3, 4, 5), dtype, rng)
    for axis, shapes in [
        (2, [(), (1,), (3, 4, 1), (4, 1), (1, 4, 1), (3, 1, 1)]),
        (1, [(), (3, 1, 5), (5,), (1, 5), (3, 1, 1), (1, 1, 1)]),
        (0, [(4, 5), (1, 4, 5), (5,), (4, 1)]),
        ((0, 2), [(1, 4, 1), (4, 1), ()]),
        (None, [(), (1,), (1, 1, 1)]),
    ]:
        for shape in shapes:
            temperature = np.asarray(rng.uniform(0.2, 4, shape))
            for t in (temperature, temperature.astype(np.float32)):
                check(case, case.call(x, axis=axis, temperature=t), x, axis=axis, temperature=t)


@WITH_TEMPERATURE
def test_temperature_kinds(case):
    x = case.typical((3, 4), np.float32, np.random.default_rng(30))
    numbers = [2, np.int8(2), np.float32(0.7), np.float16(0.7), np.array(3.0)]
    for temperature in [*numbers, [[0.5], [1], [2]], np.array([[1], [2], [3]])]:
        check(case, case.call(x, temperature=temperature), x, temperature=temperature)
    strided = np.linspace(0.5, 2, 6)[::-2][:, None]
    check(case, case.call(x, temperature=strided), x, temperature=strided)


@pytest.mark.once
@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, np.nan, np.inf, -np.inf, *OUT_OF_RANGE])
@WITH_TEMPERATURE
def test_temperature_must_be_positive_and_finite(case, temperature):
    x = np.ones((3, 4))
    refuses(lambda: case.call(x, temperature=temperature), ValueError, "temperature")
    refuses(
        lambda: case.call(x, temperature=[[1.0], [temperature], [2.0]]), ValueError, "temperature"
    )


@pytest.mark.once
@pytest.mark.parametrize("shape", [(3,), (3, 4), (4,), (4, 1), (2, 1), (1, 3, 1)], ids=str)
@WITH_TEMPERATURE
def test_temperature_must_fit(case, shape):
    refuses(
        lambda: case.call(np.ones((3, 4)), temperature=np.ones(shape)), ValueError, "temperature"
    )


@pytest.mark.once
@pytest.mark.parametrize("temperature", [1j, "1", None, [None], np.array(["1"]), object], ids=str)
@WITH_TEMPERATURE
def test_temperature_must_be_a_number(case, temperature):
    x = np.ones((3, 4))
    refuses(lambda: case.call(x, temperature=temperature), (TypeError, ValueError), "temperature")


@WITH_BASE
def test_base_of_large_scores(case, dtype):
    for base in (2, 10, 100, 1.5, np.float32(3)):
        x = np.array([[1000, -1000, 999, 0], [-1000, -1000, -999, -1000], [3, 4, 5, 6]], dtype)
        for axis in (0, 1):
            check(case, case.call(x, axis=axis, base=base), x, axis=axis, base=base)


def test_base_by_hand(dtype):
    x = np.array([0, 1, 2], dtype)
    np.testing.assert_allclose(softmax(x, base=2), [1 / 7, 2 / 7, 4 / 7], rtol=1e-6)
    np.testing.assert_allclose(fs.softmin(x, base=2), [4 / 7, 2 / 7, 1 / 7], rtol=1e-6)
    assert logsumexp(x, base=2) == pytest.approx(np.log2(7), rel=1e-6)
    assert logsumexp(x, base=10) == pytest.approx(np.log10(111), rel=1e-6)
    np.testing.assert_allclose(log_softmax(x, base=10), x - np.log10(111), rtol=1e-6)


@pytest.mark.parametrize("case", supporting("temperature"), ids=str)
def test_base_one(case, dtype):
    """Uniform over the unmasked; no logarithm has this base."""
    x = np.array([[1000.0, -1000.0, 3.0, 0.0], [1.0, 2.0, 3.0, 4.0]], dtype)
    where = np.array([True, True, False, True])
    if case.logarithmic:
        refuses(lambda: case.call(x, base=1), ValueError, "base")
        return
    for axis in (0, 1, None):
        count = x.size if axis is None else x.shape[axis]
        np.testing.assert_allclose(
            case.call(x, axis=axis, base=1), np.full(x.shape, 1 / count), rtol=2e-7
        )
    np.testing.assert_allclose(
        case.call(x, base=1, where=where), np.array([[1, 1, 0, 1]] * 2) / 3, rtol=2e-7
    )
    np.testing.assert_allclose(
        case.call(x, base=1, temperature=0.01), np.full(x.shape, 0.25), rtol=2e-7
    )


@pytest.mark.once
@pytest.mark.parametrize("base", [0.5, 0.0, -2.0, np.nan, np.inf, -np.inf], ids=str)
@WITH_BASE
def test_base_must_be_finite_and_large_enough(case, base):
    refuses(lambda: case.call(np.ones((3, 4)), base=base), ValueError, "base")


@pytest.mark.once
def test_base_one_has_no_logarithms():
    refuses(lambda: logsumexp([1.0, 2.0], base=1), ValueError, "base")
    refuses(lambda: log_softmax([1.0, 2.0], base=1.0), ValueError, "base")


@pytest.mark.once
@pytest.mark.parametrize("base", [2j, "2", [2.0, 3.0], object], ids=str)
@WITH_BASE
def test_base_must_be_a_number(case, base):
    refuses(lambda: case.call(np.ones((3, 4)), base=base), (TypeError, ValueError), "base")


# --- b of logsumexp -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "b", "expected"),
    [
        ([0.0, 0.0], [1.0, 2.0], np.log(3)),
        ([1.0, 2.0], [3.0, 0.0], 1 + np.log(3)),
        ([1.0, 2.0], [0.0, 0.0], -np.inf),
        ([1.0, 2.0], [1.0, -5.0], np.nan),
        ([1.0, 1.0], [1.0, -1.0], -np.inf),
        ([1000.0, 999.0], [1.0, -1.0], 1000 + np.log(1 - np.exp(-1))),
        ([np.inf, 1.0], [0.0, 1.0], 1.0),
        ([np.nan, 1.0], [0.0, 1.0], 1.0),
        ([np.inf, 1.0], [1.0, -1.0], np.inf),
        ([np.inf, 1.0], [-1.0, 1.0], np.nan),
        ([-np.inf, -np.inf], [1.0, 1.0], -np.inf),
        ([-np.inf, -np.inf], [1.0, -1.0], -np.inf),
        ([-np.inf, 2.0], [1.0, 1.0], 2.0),
        ([1.0, 2.0], [np.nan, 1.0], np.nan),
        ([1.0, 2.0], [np.inf, 1.0], np.inf),
        ([np.nan, 2.0], [1.0, 1.0], np.nan),
    ],
)
def test_weights_as_in_scipy(x, b, expected, dtype):
    x, b = np.array(x, dtype), np.array(b, dtype)
    many = np.tile(x, (7, 1)), np.tile(b, (7, 1))
    for given, weights, axis in [(x, b, 0), (*many, 1), (many[0].T, many[1].T, 0)]:
        got = logsumexp(given, axis, b=weights)
        np.testing.assert_allclose(got, np.full(got.shape, expected), rtol=1e-6)


def test_weights_broadcast_and_do_not_promote(dtype):
    rng = np.random.default_rng(31)
    x = rng.normal(1, 2, (3, 4, 5)).astype(dtype)
    case = BY_NAME["logsumexp"]
    for shape in [(), (5,), (4, 1), (3, 1, 1), (3, 4, 5)]:
        for kind in (np.float64, np.float32, np.int64, np.uint8):
            b = rng.integers(1, 4, shape).astype(kind)
            for axis in (0, 1, 2, (0, 2), None):
                check(case, case.call(x, axis=axis, b=b), x, axis=axis, b=b)
    check(case, case.call(x, b=2), x, b=2)
    check(case, case.call(x, b=[1, 2, 3, 4, 5]), x, b=[1, 2, 3, 4, 5])
    check(case, case.call(x, b=np.array([True, False, True, True, True])), x, b=[1, 0, 1, 1, 1])
    where = rng.random(x.shape) < 0.7
    b = rng.uniform(0.5, 3, x.shape)
    check(case, case.call(x, b=b, where=where), x, b=b, where=where)
    check(case, case.call(x + 10, b=b, base=2), x + dtype.type(10), b=b, base=2)
    check(case, case.call(x, b=b, keepdims=True, axis=(0, 1)), x, b=b, keepdims=True, axis=(0, 1))


def test_masked_weights_do_not_take_part(dtype):
    x = np.array([0.0, np.log(2), np.nan], dtype)
    b = np.array([1.0, 1.0, np.nan], dtype)
    assert logsumexp(x, b=b, where=[True, True, False]) == pytest.approx(np.log(3), rel=1e-6)


@pytest.mark.once
def test_weights_that_do_not_fit():
    x = np.ones((3, 4))
    for b in (np.ones(3), np.ones((4, 3)), np.ones((2, 2))):
        refuses(lambda b=b: logsumexp(x, b=b), ValueError, "b")
    for b in (1j, "1", [None] * 4, np.ones(4, object)):
        refuses(lambda b=b: logsumexp(x, b=b), TypeError, "b")


# --- threads, keywords, quiet ---------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", [1]], ids=repr)
@EVERY
def test_num_threads_must_be_a_positive_integer(case, wrong):
    error = ValueError if isinstance(wrong, int) else TypeError
    for shape in [(3,), (400, 500)]:
        x = case.typical(shape, np.float32, np.random.default_rng(32))
        out = np.full(shape[:-1] if case.reduced else shape, 7, np.float32)
        refuses(lambda x=x, out=out: case.call(x, out=out, num_threads=wrong), error, "num_threads")
        assert np.all(out == 7)


@EVERY
def test_num_threads(case, dtype):
    x = case.typical((30, 40), dtype, np.random.default_rng(33))
    expected = case.call(x)
    for num_threads in (None, 1, 2, 7, np.int64(3), 1000):
        np.testing.assert_array_equal(case.call(x, num_threads=num_threads), expected)


@pytest.mark.once
@EVERY
def test_unknown_keywords(case):
    refuses(lambda: case.call([1.0], nonsense=1), TypeError, "nonsense")
    refuses(lambda: case.call(), TypeError)
    refuses(lambda: case.call([0.5], -1, np.zeros(1)), TypeError)


@pytest.mark.once
@EVERY
def test_errors_come_before_any_writing(case):
    """Every argument is checked first: ``out`` and the input stay as they were."""
    x = case.typical((3, 4), np.float32, np.random.default_rng(34))
    wrong = {"num_threads": 0, "dtype": int, "nonsense": 1}
    if case.rowwise:
        wrong |= {"axis": 5}
    wrong_options = {"temperature": 0.0, "base": 0.5, "where": np.ones(3, bool), "b": np.ones(3)}
    wrong |= {option: wrong_options[option] for option in case.options if option in wrong_options}
    separate = np.full((3,) if case.reduced else (3, 4), 7, np.float32)
    for option, value in wrong.items():
        for out in [separate] if case.reduced else [separate, x]:
            before = x.copy(), out.copy()
            options = {"out": out, option: value}
            refuses(lambda options=options: case.call(x, **options), (TypeError, ValueError))
            np.testing.assert_array_equal(x, before[0])
            np.testing.assert_array_equal(out, before[1])


@EVERY
def test_no_warnings_and_no_floating_point_errors(case, dtype):
    """Overflow, underflow, infinities, NaN, whatever NumPy is told to do about them;
    warnings are errors.
    """
    for mode in ("raise", "warn", "ignore"):
        largest = np.finfo(dtype).max
        extremes = [("temperature", 1e-3), ("temperature", 1e3), ("base", 100), ("where", False)]
        for n in (1, 3, 20, 1000):
            x, _ = case.inputs(n, dtype, np.random.default_rng(35))
            special = np.array(
                [np.nan, np.inf, -np.inf, largest, -largest, 0.0, -0.0, 1e-40, 2.0, -1.0], dtype
            )
            special = np.resize(special, (11, n))
            with np.errstate(all=mode):
                for array in (x, special):
                    case.call(array)
                    case.call(array.T, **({"axis": 0} if case.rowwise else {}))
                    case.call(array, dtype=np.float32)
                    for option, value in extremes:
                        if option in case.options:
                            case.call(array, **{option: value})


# --- the softmin alias ----------------------------------------------------------------------------


def test_softmin_is_softmax_of_minus_x(dtype):
    x = np.random.default_rng(37).normal(0, 3, (5, 6)).astype(dtype)
    for options in ({}, {"axis": 0}, {"temperature": 0.3}, {"base": 3}, {"where": x > 0}):
        np.testing.assert_array_max_ulp(fs.softmin(x, **options), softmax(-x, **options), 1)
    check(
        BY_NAME["softmin"], fs.softmin(np.array([0, 1, 255], np.uint8)), np.array([0.0, 1.0, 255.0])
    )
    check(BY_NAME["softmin"], fs.softmin(np.array([-128, 0], np.int8)), np.array([-128.0, 0.0]))
