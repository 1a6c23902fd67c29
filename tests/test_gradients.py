"""Vector-Jacobian products: against finite differences, against their formulas,
and what they take.
"""

import numpy as np
import pytest
from arrays import REFUSED, Exporter, layouts, outs, refuses
from cases import BY_NAME, WITH_VJP
from sizes import sizes, sweep

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

EVERY_VJP = pytest.mark.parametrize("case", WITH_VJP, ids=lambda case: case.vjp)
ROWWISE_VJP = pytest.mark.parametrize(
    "case", [case for case in WITH_VJP if case.rowwise], ids=lambda case: case.vjp
)
TEMPERED_VJP = pytest.mark.parametrize(
    "case",
    [case for case in WITH_VJP if "temperature" in case.vjp_signature],
    ids=lambda case: case.vjp,
)


def saved_for(case, x, **options):
    return case.call(x, **options) if case.vjp_from == "y" else x


def finite_differences(function, x, step=1e-3):
    """Gradient of a scalar function of an array by central differences of fourth order."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):

        def shifted(steps, index=index):
            moved = x.copy()
            moved[index] += steps * step
            return function(moved)

        gradient[index] = (8 * (shifted(1) - shifted(-1)) - (shifted(2) - shifted(-2))) / (
            12 * step
        )
    return gradient


def check_gradient(case, x, call_options, vjp_options):
    g = np.random.default_rng(1).normal(size=case.call(x, **call_options).shape)
    got = case.call_vjp(g, saved_for(case, x, **call_options), **vjp_options)
    numeric = finite_differences(
        lambda moved: float(np.sum(g * case.call(moved, **call_options))), x
    )
    np.testing.assert_allclose(got, numeric, rtol=1e-9, atol=1e-10)


@EVERY_VJP
def test_finite_differences(case):
    x = np.random.default_rng(2).normal(0, 2, (3, 4))
    check_gradient(case, x, {}, {})
    check_gradient(case, x[0], {}, {})


@pytest.mark.parametrize("axis", [0, 1, 2, -2, None, (0, 2), (1, 0)], ids=repr)
@ROWWISE_VJP
def test_finite_differences_along_axes(case, axis):
    x = np.random.default_rng(3).normal(0, 2, (2, 3, 4))
    check_gradient(case, x, {"axis": axis}, {"axis": axis})


@pytest.mark.parametrize("temperature", [0.5, 3.0, "per row", "per column"])
@TEMPERED_VJP
def test_finite_differences_at_temperatures(case, temperature):
    x = np.random.default_rng(4).normal(0, 2, (3, 4))
    per_row = np.array([[0.5], [1.0], [2.0]])
    options = {
        "per row": {"temperature": per_row},
        "per column": {"temperature": np.array([[0.5, 1.0, 2.0, 4.0]]), "axis": 0},
    }.get(temperature, {"temperature": temperature})
    check_gradient(case, x, options, options)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1, None, (0, 2)], ids=repr)
def test_logsumexp_gradient_takes_either_reduced_shape(axis, keepdims, dtype):
    rng = np.random.default_rng(5)
    x = rng.normal(0, 2, (2, 3, 4)).astype(dtype)
    g = rng.normal(size=fs.logsumexp(x, axis, keepdims=True).shape).astype(dtype)
    given = g if keepdims else g.reshape(fs.logsumexp(x, axis).shape)
    got = fs.logsumexp_vjp(given, x, axis)
    np.testing.assert_allclose(
        got, g * fs.softmax(x, axis), rtol=1e-6 if dtype == np.float32 else 1e-14
    )
    refuses(lambda: fs.logsumexp_vjp(np.ones(x.shape, dtype), x, axis), ValueError, "g")


def check_formula(case, g, saved, got, **options):
    wide = g.astype(np.longdouble), saved.astype(np.longdouble)
    with np.errstate(all="ignore"):
        expected, size = case.vjp_formula(*wide, **options)
    eps = float(np.finfo(got.dtype).eps)
    assert np.all(
        np.abs(got - expected) <= 8 * eps * size + float(np.finfo(got.dtype).smallest_normal)
    )


@sweep((*range(1, 71), 127, 128, 129, 255, 257, 1000, 4097, 4099))
@EVERY_VJP
def test_formula_at_every_length(case, lengths, dtype):
    """Tails of vectors, short and long rows, both directions."""
    rng = np.random.default_rng(6)
    for n in lengths:
        x = rng.normal(0, 3, (7, n)).astype(dtype)
        g = rng.normal(size=7 if case.reduced else (7, n)).astype(dtype)
        saved = saved_for(case, x)
        check_formula(case, g, saved, case.call_vjp(g, saved))
        if case.rowwise:
            turned = np.ascontiguousarray(saved.T)
            got = case.call_vjp(np.ascontiguousarray(g.T), turned, axis=0)
            check_formula(case, g.T, turned, got, axis=0)


@sizes(70_007, 300_007)
@EVERY_VJP
def test_formula_of_long_rows(case, size, dtype):
    rng = np.random.default_rng(7)
    x = rng.normal(0, 3, (2, size)).astype(dtype)
    g = rng.normal(size=2 if case.reduced else x.shape).astype(dtype)
    saved = saved_for(case, x)
    check_formula(case, g, saved, case.call_vjp(g, saved))


@TEMPERED_VJP
def test_formula_with_temperature(case, dtype):
    rng = np.random.default_rng(8)
    for n in (1, 5, 16, 33, 1000):
        x, g = rng.normal(0, 3, (2, 30, n)).astype(dtype)
        for temperature in (0.1, 7.0, np.geomspace(0.01, 100, 30)[:, None]):
            y = case.call(x, temperature=temperature)
            check_formula(
                case, g, y, case.call_vjp(g, y, temperature=temperature), temperature=temperature
            )
            if np.ndim(temperature):
                got = case.call_vjp(g.T.copy(), y.T.copy(), axis=0, temperature=temperature.T)
                check_formula(case, g, y, got.T, temperature=temperature)


@EVERY_VJP
def test_values_by_hand(case, dtype):
    """Saturated outputs have zero gradient, not NaN; an impossible class gets none."""
    for g, saved, expected in case.vjp_hand:
        got = case.call_vjp(np.array(g, dtype), np.array(saved, dtype))
        np.testing.assert_array_equal(got, np.array(expected, dtype))


@pytest.mark.parametrize("n", [1, 2, 5, 20, 33, 150, 3000, 40_000])
def test_gradients_of_squares_that_leave_the_range_of_numbers(n, dtype):
    """Where g or x are next to the largest or the smallest numbers, among other rows,
    in every regime.
    """
    case = BY_NAME["square_normalize"]
    eps, info = float(np.finfo(dtype).eps), np.finfo(dtype)
    rng = np.random.default_rng(n)
    numbers = rng.normal(0, 1, (2, 18, n))
    g, x = (np.sign(numbers) * (np.abs(numbers) + 0.1)).astype(dtype)
    exponents = [(0, 0), (0, -1), (0, -2), (1, 1), (0, 2), (-2, 0), (-2, -2), (2, 2), (-1, -2)] * 2
    powers = np.ldexp(np.ones(1, dtype), np.array(exponents) * (info.maxexp // 2 - 8))
    of_g, of_x = powers.T[:, :, None]
    quotient = of_g.astype(np.longdouble) / of_x
    with np.errstate(all="ignore"):
        exact = case.vjp_formula(g.astype(np.longdouble), x.astype(np.longdouble))
        expected, size = (a * quotient for a in exact)
    for axis in (-1, 0):
        arrays = (np.ascontiguousarray(np.moveaxis(a, -1, axis)) for a in (g * of_g, x * of_x))
        got = np.moveaxis(case.call_vjp(*arrays, axis), axis, -1)
        assert np.all(
            np.abs(got - expected) <= case.vjp_ulp * eps * size + float(info.smallest_normal)
        )


@EVERY_VJP
def test_nan_in_one_row_stays_there(case, dtype):
    for n in (1, 3, 16, 33, 70):
        x = np.random.default_rng(9).normal(0, 1, (3, n)).astype(dtype)
        g = np.ones(3 if case.reduced else (3, n), dtype)
        saved = np.array(saved_for(case, x))
        saved[1, n // 2] = np.nan
        expected = np.zeros((3, n), bool)
        expected[1, slice(None) if case.vjp_nan_spreads else n // 2] = True
        np.testing.assert_array_equal(np.isnan(case.call_vjp(g, saved)), expected)


def arguments(case, shape, dtype):
    rng = np.random.default_rng(10)
    x = case.typical(shape, dtype, rng)
    return rng.normal(size=shape[:-1] if case.reduced else shape).astype(dtype), saved_for(case, x)


@pytest.mark.parametrize("shape", [(7,), (3, 2, 5), (40, 300), (1, 3, 1)])
@ROWWISE_VJP
def test_the_last_axis_by_any_name(case, shape, dtype):
    """And all axes, which are those of the flat array."""
    g, saved = arguments(case, shape, dtype)
    last = case.call_vjp(g, saved, axis=-1)
    for name in (len(shape) - 1, (-1,)):  # tuples do not go the same way
        np.testing.assert_array_equal(case.call_vjp(g, saved, axis=name), last, strict=True)
    if case.reduced and len(shape) > 1:
        refuses(lambda: case.call_vjp(g, saved, axis=None), ValueError, "g")
    g = g.reshape(-1)[:1] if case.reduced else g
    row = saved.reshape(1, -1)
    flat = case.call_vjp(g if case.reduced else g.reshape(row.shape), row)
    whole = case.call_vjp(g[0] if case.reduced else g, saved, axis=None)
    np.testing.assert_array_equal(whole, flat.reshape(shape), strict=True)
    of_all = case.call_vjp(g[0] if case.reduced else g, saved, axis=tuple(range(len(shape))))
    np.testing.assert_array_equal(whole, of_all, strict=True)


@EVERY_VJP
def test_gradients_of_another_kind(case, dtype):
    """Beside plain arrays those of another dtype."""
    g, saved = arguments(case, (6, 20), dtype)
    other = np.float64 if dtype == np.float32 else np.float32
    mixed = case.call_vjp(g.astype(np.float32).astype(other), saved)
    wide = case.call_vjp(g.astype(np.float32).astype(np.float64), saved.astype(np.float64))
    assert mixed.dtype == (dtype if case.reduced else np.float64)
    np.testing.assert_allclose(mixed, wide, rtol=1e-5, atol=1e-6)


@EVERY_VJP
def test_gradients_inside_the_memory_of_the_result(case, dtype):
    """Before it and behind its start, so that some are overwritten before they are read."""
    g, saved = arguments(case, (300, 20), dtype)
    expected = case.call_vjp(g, saved)
    for of_g, of_out in ((0, 0), (0, 60), (60, 0), (60, 60), (6000, 0)):
        memory = np.zeros(60 + saved.size + g.size, dtype)
        inside = memory[of_g : of_g + g.size].reshape(g.shape)
        inside[...] = g
        out = memory[of_out : of_out + saved.size].reshape(saved.shape)
        assert case.call_vjp(inside, saved, out=out) is out
        np.testing.assert_array_max_ulp(out, expected, 1)


@EVERY_VJP
def test_in_place(case, dtype):
    g, saved = arguments(case, (30, 20), dtype)
    expected = case.call_vjp(g, saved)
    memory = saved.copy()
    assert case.call_vjp(g, memory, out=memory) is memory
    np.testing.assert_array_max_ulp(memory, expected, 1)
    if not case.reduced:
        memory = g.copy()
        assert case.call_vjp(memory, saved, out=memory) is memory
        np.testing.assert_array_max_ulp(memory, expected, 1)
        both = saved.copy()
        expected = case.call_vjp(saved, saved)
        assert case.call_vjp(both, both, out=both) is both
        np.testing.assert_array_max_ulp(both, expected, 1)


@EVERY_VJP
def test_layouts_dtypes_and_out(case, dtype):
    g, saved = arguments(case, (5, 6, 19), dtype)
    expected = case.call_vjp(g, saved)
    assert expected.dtype == dtype
    assert expected.shape == saved.shape
    tolerance = {"rtol": 16 * float(np.finfo(dtype).eps), "atol": 16 * float(np.finfo(dtype).eps)}
    for name, array in layouts(saved):
        if array.shape != saved.shape or "stride 0" in name:
            continue
        got = case.call_vjp(g, array)
        assert got.dtype == dtype, name
        np.testing.assert_allclose(got, expected, err_msg=name, **tolerance)
        if not case.reduced and array.dtype == dtype and array.flags.writeable:
            array = array.copy(order="K")
            assert case.call_vjp(g, array, out=array) is array
            np.testing.assert_allclose(array, expected, err_msg=f"{name}, in place", **tolerance)
    np.testing.assert_allclose(case.call_vjp(g.tolist(), saved.tolist()), expected, **tolerance)
    np.testing.assert_allclose(case.call_vjp(Exporter(g), Exporter(saved)), expected, **tolerance)
    for name, out, _ in outs(saved.shape, dtype):
        assert case.call_vjp(g, saved, out=out) is out
        np.testing.assert_allclose(out, expected, err_msg=name, **tolerance)


@EVERY_VJP
def test_half_precision(case, half):
    g, saved = arguments(case, (4, 9), np.float32)
    with np.errstate(under="ignore"):
        g, saved = g.astype(half), saved.astype(half)
    if case.reduced:
        g = g.astype(np.float32)
    got = case.call_vjp(g, saved)
    assert got.dtype == half
    expected = case.call_vjp(g.astype(np.float64), saved.astype(np.float64))
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[half.name]
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=0.51 * eps, atol=1e-6)


@EVERY_VJP
def test_integers_and_longdouble(case):
    g, saved = np.array([[1, 2, 3], [4, 5, 7]]), np.array([[0, 1, 0], [1, 0, 1]])
    g = g[:, 0] if case.reduced else g
    expected = case.call_vjp(g.astype(float), saved.astype(float))
    got = case.call_vjp(g, saved)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, expected)
    got = case.call_vjp(g.astype(np.longdouble), saved.astype(np.longdouble))
    assert got.dtype == np.longdouble
    np.testing.assert_allclose(got.astype(float), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.once
@EVERY_VJP
def test_errors(case, dtype):
    g, saved = arguments(case, (3, 4), dtype)
    for shape in [(5,), (4, 3), (2, 3, 4), (3, 5)]:
        wrong = np.ones(shape, dtype)
        refuses(lambda wrong=wrong: case.call_vjp(wrong, saved), ValueError, "g")
        if not case.reduced:
            refuses(lambda wrong=wrong: case.call_vjp(g, wrong), ValueError, "g")
    for kind in ("object", "complex", "str", "None"):
        refuses(lambda kind=kind: case.call_vjp(REFUSED[kind](), saved), TypeError, "g")
        refuses(lambda kind=kind: case.call_vjp(g, REFUSED[kind]()), TypeError, case.vjp_from)
    out = np.full((3, 4), 7, dtype)
    wrong_options = [("num_threads", 0, ValueError), ("num_threads", 1.5, TypeError)]
    if case.rowwise:
        wrong_options += [("axis", 2, np.exceptions.AxisError), ("axis", (0, 0), ValueError)]
    if "temperature" in case.vjp_signature:
        wrong_options += [("temperature", 0.0, ValueError), ("temperature", np.ones(3), ValueError)]
    for option, value, error in wrong_options:
        options = {"out": out, option: value}
        refuses(lambda options=options: case.call_vjp(g, saved, **options), error, option)
    for wrong, error in [
        (np.zeros((4, 3), dtype), ValueError),
        (np.zeros((3, 4), int), TypeError),
        (np.zeros((3, 4), np.float16), TypeError),
        ([0.0], TypeError),
    ]:
        refuses(lambda wrong=wrong: case.call_vjp(g, saved, out=wrong), error, "out")
    read_only = np.zeros((3, 4), dtype)
    read_only.flags.writeable = False
    refuses(lambda: case.call_vjp(g, saved, out=read_only), ValueError, "out")
    assert np.all(out == 7)


@EVERY_VJP
def test_overlaps(case, dtype):
    g, saved = arguments(case, (30, 20), dtype)
    expected = case.call_vjp(g, saved)
    tolerance = (
        {"rtol": 1e-6, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14}
    )
    for shift in (1, 20, 21, 300):
        for forth in (False, True):
            memory = np.zeros(1000, dtype)
            low, high = memory[:600].reshape(30, 20), memory[shift : shift + 600].reshape(30, 20)
            given, out = (low, high) if forth else (high, low)
            given[...] = saved
            assert case.call_vjp(g, given, out=out) is out
            np.testing.assert_allclose(out, expected, **tolerance)
            if not case.reduced:
                given[...] = g
                assert case.call_vjp(given, saved, out=out) is out
                np.testing.assert_allclose(out, expected, **tolerance)


@EVERY_VJP
def test_of_empty_and_zero_dimensional(case, dtype):
    for shape in [(0,), (0, 3), (3, 0)]:
        g = np.empty(shape[:-1] if case.reduced else shape, dtype)
        assert case.call_vjp(g, np.empty(shape, dtype)).shape == shape
    assert isinstance(case.call_vjp(dtype.type(1), dtype.type(0.5)), dtype.type)
