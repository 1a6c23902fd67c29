"""The table of drivers: both sides of every border, and that all of them run."""

import itertools

import numpy as np
import pytest
import regimes
from arrays import refuses
from cases import CASES
from golden import arrays_of
from sizes import exhaustive

import fastsoftmax as fs
from fastsoftmax import __main__ as command_line
from fastsoftmax import _backend, _explain

VECTOR = {"avx512": 64, "avx2": 32, "baseline": 16}  # bytes
NAMES = ["small", "strips", "lanes", "lanes of columns", "tiles", "gathered tiles"]
NAMES += ["row batch", "long rows"]


@pytest.fixture
def active(compiled):
    """Every compiled backend: only these have drivers."""
    with fs.use_backend(compiled):
        yield compiled


@pytest.fixture
def chosen(request):
    """All compiled backends that are to be tested."""
    return [name for name in request.config.option.backends if name != "numpy"]


def driver(operation, shape, dtype=np.float32, order="C", **options):
    return _explain.explained(operation, np.zeros(shape, dtype, order), **options).driver


# (operation, options, shape and driver on one side of a border, those on the other side)
BORDERS = [
    ("softmax", {}, (1, 256), "small", (1, 257), "row batch"),
    ("softmax", {}, (3, 85), "small", (4, 64), "row batch"),
    ("softmax", {"axis": -1, "base": 2}, (4, 24), "lanes", (3, 24), "row batch"),
    ("softmax", {}, (100, 24), "lanes", (100, 25), "row batch"),
    ("log_softmax", {}, (100, 40), "lanes", (100, 41), "row batch"),
    ("logsumexp", {}, (100, 40), "lanes", (100, 41), "row batch"),
    ("logsumexp_vjp", {}, (100, 24), "lanes", (100, 25), "row batch"),
    ("softmax", {}, (5, 32768), "row batch", (5, 32769), "long rows"),
    ("log_softmax", {"base": 2}, (5, 32768), "row batch", (5, 32769), "long rows"),
    ("softmax", {"axis": 0}, (100, 511), "tiles", (100, 512), "strips"),
    ("softmax", {"axis": 0}, (256, 512), "strips", (257, 512), "tiles"),  # of float32, half of L2
    ("softmax", {"axis": 0}, (1023, 512), "tiles", (1024, 512), "strips"),  # 2 MiB
    ("softmax", {"axis": 0, "temperature": 2}, (24, 600), "lanes", (25, 600), "tiles"),
    ("log_softmax", {"axis": 0}, (40, 600), "lanes", (41, 600), "strips"),
    ("logsumexp", {"axis": 0}, (41, 511), "tiles", (41, 512), "strips"),
    ("logsumexp", {"axis": 0}, (15, 40000), "lanes", (16, 40000), "strips"),
    ("softmax_vjp", {}, (100, 24), "lanes", (100, 25), "row batch"),
    ("log_softmax_vjp", {"axis": 0}, (24, 600), "lanes", (25, 600), "tiles"),
    ("square_normalize", {}, (5, 32768), "row batch", (5, 32769), "long rows"),
    ("square_normalize_vjp", {}, (100, 24), "lanes", (100, 25), "row batch"),
    ("cross_entropy", {}, (100, 32), "lanes", (100, 33), "row batch"),
    ("cross_entropy", {"axis": 0}, (33, 600), "lanes of columns", (32769, 600), "long rows"),
    ("cross_entropy_of_targets", {}, (100, 128), "lanes", (100, 129), "long rows"),
    ("cross_entropy_of_targets", {"axis": 0}, (128, 60), "lanes", (129, 60), "lanes of columns"),
    ("cross_entropy_grad_hess", {}, (100, 128), "lanes", (100, 129), "long rows"),
    ("nll_loss_of_targets", {}, (4, 40), "lanes", (3, 40), "long rows"),
    ("kl_divergence", {}, (100, 40), "lanes", (100, 41), "long rows"),
    ("kl_divergence_from_logits", {}, (100, 40), "lanes", (100, 41), "long rows"),
    ("logprobs", {"axis": 0}, (40, 600), "lanes", (41, 600), "lanes of columns"),
    ("top_k_logprobs", {}, (100, 40), "lanes", (100, 41), "long rows"),
    ("hardmax", {}, (100, 40), "lanes", (100, 41), "long rows"),
]


@pytest.mark.parametrize(("operation", "options", "here", "one", "there", "other"), BORDERS)
def test_borders(operation, options, here, one, there, other, active):
    assert driver(operation, here, **options) == one
    assert driver(operation, there, **options) == other


def test_columns_of_a_vector(active):
    """Fewer neighbouring columns than a vector holds are no columns; some are gathered."""
    lanes = VECTOR[active] // 4
    assert driver("softmax", (2, 50, lanes), axis=1) == "tiles"
    assert driver("softmax", (2, 50, lanes - 1), axis=1) == "row batch"
    assert driver("softmax", (2, 50, lanes), np.float64, axis=1) == "tiles"


def test_gathered_tiles(active):
    """What vectors cannot load, or not where it is."""
    assert driver("softmax", (512, 100), np.float16, axis=0) == "gathered tiles"
    assert driver("softmax", (513, 100), np.float16, axis=0) == "row batch"
    assert driver("softmin", (512, 100), axis=0) == "gathered tiles"
    x = np.zeros((60, 100), np.float32)
    assert _explain.explained("softmax", x, axis=0, where=x == 0).driver == "gathered tiles"


@pytest.mark.parametrize("operation", ["softmax", "log_softmax", "logsumexp"])
def test_order_does_not_matter(operation, active):
    """Nor does the axis: only how rows lie in memory."""
    for shape in [(1000, 7), (300, 100), (50, 700), (2, 40000)]:
        along = driver(operation, shape, axis=-1)
        assert driver(operation, shape[::-1], order="F", axis=0) == along
        assert driver(operation, shape, order="F") == driver(operation, shape[::-1], axis=0)


def test_every_driver_runs(active):
    found = {driver(operation, s, **o) for operation, o, a, _, b, _ in BORDERS for s in (a, b)}
    assert found | {driver("softmin", (60, 100), axis=0)} == set(NAMES)


def test_the_table(active):
    """Every line says what it wants and what it is worth, and the last one takes all."""
    lines = _explain.explained("softmax", np.zeros((5, 40000), np.float32)).lines
    assert [line.driver for line in lines] == NAMES
    assert all(line.condition and line.measured for line in lines)
    assert [line.holds for line in lines] == [False] * 7 + [True]


def test_only_watched_calls_are_remembered(active):
    module = _backend.active_module()
    assert _explain.explained("softmax", np.zeros((5, 5))) is not None
    fs.softmax(np.zeros((5, 5)))
    assert module.last_decision() is None


def test_numpy_backend_has_no_drivers():
    with fs.use_backend("numpy"):
        assert _explain.explained("softmax", np.zeros((5, 5))) is None


def explain(capsys, *arguments):
    command_line.main(["explain", *arguments])
    return capsys.readouterr().out.splitlines()


def test_command(capsys, active):
    head, *table = explain(capsys, "softmax", "4096x10", "float32", "--axis", "0")
    assert head.startswith("softmax of 4096x10 float32, C order: ")
    assert f"backend {active}" in head
    assert len(table) == 2 * len(NAMES)
    assert sum(line.startswith(" yes") for line in table) == 1
    head, *table = explain(capsys, "log_softmax", "4096x10", "float64", "--temperature", "2")
    assert "F order: " not in head
    assert [line.split()[:2] for line in table[:6:2]] == [
        ["no", "small"],
        ["no", "strips"],
        ["yes", "lanes"],
    ]
    assert "strips" in explain(capsys, "softmax", "700x100", "--order", "F")[0]


def test_command_of_another_backend(capsys):
    with fs.use_backend("numpy"):
        assert "no drivers" in explain(capsys, "softmax", "4x4")[0]


def test_command_with_bad_arguments():
    refuses(
        lambda: command_line.main(["explain", "logsumexp", "4x4", "--temperature", "2"]),
        SystemExit,
        "temperature",
    )
    refuses(
        lambda: command_line.main(["explain", "softmax", "4x4", "--axis", "5"]), SystemExit, "axis"
    )


# --- every function in every regime ---------------------------------------------------------------


def same(got, expected, about):
    """Equal but for rounding, in units of the largest number or of 1; indices are the same ones."""
    for a, e in zip(arrays_of(got), arrays_of(expected), strict=True):
        assert (a.dtype, a.shape) == (e.dtype, e.shape), about
        if a.dtype.kind in "iu":
            np.testing.assert_array_equal(a, e, err_msg=about)
            continue
        rounding = 64 * 2.0 ** -{"float64": 52, "float32": 23, "float16": 10}.get(a.dtype.name, 7)
        a, e = a.astype(np.float64), e.astype(np.float64)
        size = np.abs(e[np.isfinite(e)]).max(initial=1)
        np.testing.assert_allclose(a, e, rtol=rounding, atol=rounding * size, err_msg=about)


FIRST, *OTHERS = regimes.KINDS
EVERY_KIND = [FIRST, *(pytest.param(kind, marks=exhaustive) for kind in OTHERS)]


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: f"{kind[1]} {np.dtype(kind[0])}")
def test_every_function_in_every_regime_agrees_with_its_twin(kind, chosen):
    """Whatever else the default tests leave to the exhaustive ones, they meet all of these.

    The twins are the reference: they know no regimes, and are held to the exact results elsewhere.
    """
    met = {name: set() for name in chosen}
    with np.errstate(all="ignore"):
        for about, call in itertools.chain(small_calls(kind), regimes.calls(kinds=[kind])):
            with fs.use_backend("numpy"):
                expected = call()
            for name in chosen:
                with fs.use_backend(name):
                    got, driver = call_and_driver(call)
                met[name].add(driver)
                same(got, expected, f"{name}: {about}")
    for drivers in met.values():
        assert drivers - {None} == set(NAMES) or kind != FIRST


def small_calls(kind):
    """Calls without an axis, which may take the shortest way."""
    dtype, layout = kind
    for shape, case in itertools.product([(1, 1), (2, 10), (1, 200)], CASES):
        x = case.typical(shape, dtype, np.random.default_rng(5))
        x = regimes.laid_out(x, layout)
        yield f"{case} of {layout} {shape}", lambda f=case.call, x=x: f(x)


def call_and_driver(call):
    """A result, and which driver of those that are told it comes from."""
    module = _backend.active_module()
    module.watch_decisions(True)
    try:
        module.last_decision()  # of earlier calls
        result, last = call(), module.last_decision()
    finally:
        module.watch_decisions(False)
    return result, last and next(driver for driver, *_, holds in last[1] if holds)
