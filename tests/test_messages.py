"""Whoever passes something wrong is told which argument it was, what it was, and what is allowed.

A table of one wrong argument each, and the words that its message must hold.
"""

import inspect

import numpy as np
import pytest
from arrays import refuses
from cases import CASES, ELEMENTWISE, ROWWISE, WITH_VJP, supporting
from losses import SIGNATURES

import fastsoftmax as fs

X = np.linspace(-2, 2, 12).reshape(3, 4)
P = np.linspace(0.1, 0.9, 12).reshape(3, 4)
Y = np.array([0, 1, 3])
ONE_HOT = np.eye(4, dtype=int)[Y]
HUGE = 10**400  # beyond every float
AXIS_ERROR = np.exceptions.AxisError

ROWS = [case.name for case in ROWWISE] + ["hardmax"]
OF_LABELS = "cross_entropy", "nll_loss", "cross_entropy_value_and_grad", "nll_loss_value_and_grad"
BINARY = "binary_cross_entropy", "binary_cross_entropy_with_logits"
BINARY += "binary_cross_entropy_with_logits_grad_hess", "binary_cross_entropy_value_and_grad"


def table():
    """(function, arguments, options, error, words of the message)."""
    for name in ROWS:
        yield name, (X, 2), {}, AXIS_ERROR, ["axis", "2", "dimension 2"]
        yield name, (X, 0.5), {}, TypeError, ["axis", "int", "tuple", "None", "0.5"]
        yield name, (X, (0, 0)), {}, ValueError, ["axis", "twice", "(0, 0)"]
        yield name, (X,), {"dtype": int}, TypeError, ["dtype", "floating", "int64"]
        yield name, (X,), {"num_threads": 0}, ValueError, ["num_threads", "at least 1", "0"]
        yield name, (X,), {"num_threads": 1.5}, TypeError, ["num_threads", "integer", "float"]
        yield name, (X,), {"out": np.zeros(5)}, ValueError, ["out", "shape", "(5,)"]
        yield name, (X,), {"out": [0.0]}, TypeError, ["out", "numpy.ndarray", "list"]
    for case in ELEMENTWISE:
        out = np.zeros((3, 4), "f4")
        yield case.name, (P,), {"out": out}, TypeError, ["out", "float64", "float32"]
    arguments = dict.fromkeys(ROWS, "x") | {case.name: case.argument for case in CASES}
    for name, x in arguments.items():
        yield name, (X * 1j,), {}, TypeError, [x, "real", "complex128"]
        yield name, (np.array(["a"]),), {}, TypeError, [x, "real", "<U1"]
        yield name, ({"a": 1},), {}, TypeError, [x, "real", "object"]
        yield name, ([[1.0], [1.0, 2.0]],), {}, ValueError, [x, "inhomogeneous"]
        yield name, (np.array([1.0, None]),), {}, TypeError, [x, "object", f"{x}.astype(float)"]
        yield (
            name,
            (np.ma.array([1.0, 2.0], mask=[0, 1]),),
            {},
            TypeError,
            [x, "masked", "where=~mask"],
        )
        yield name, (X.view(np.matrix),), {}, TypeError, [x, "matrix", "(3, 4)", f"np.asarray({x})"]
    for name in map(str, supporting("temperature")):
        yield name, (X,), {"temperature": 0}, ValueError, ["temperature", "greater than 0", "0"]
        yield name, (X,), {"temperature": "hot"}, TypeError, ["temperature", "real", "<U3"]
        yield name, (X,), {"temperature": HUGE}, TypeError, ["temperature", "real", "object"]
        yield name, (X,), {"temperature": [1.0, 2.0]}, ValueError, ["temperature", "(3, 1)", "(2,)"]
    for name in map(str, supporting("base")):
        yield name, (X,), {"base": 0.5}, ValueError, ["base", "1", "0.5"]
        yield name, (X,), {"base": HUGE}, ValueError, ["base", "finite"]
        for wrong in ("2", [2.0], [[1.0], [1.0, 2.0]], 2j, np.complex128(2), np.array([2.0])):
            yield (
                name,
                (X,),
                {"base": wrong},
                TypeError,
                ["base", "real number or None", repr(wrong)],
            )
    for name in map(str, supporting("where")):
        yield name, (X,), {"where": 1}, TypeError, ["where", "bool", "int64"]
        yield (
            name,
            (X,),
            {"where": X},
            TypeError,
            ["where", "bool", "float64", "where.astype(bool)"],
        )
        yield name, (X,), {"where": [True] * 3}, ValueError, ["where", "(3, 4)", "(3,)"]
    for wrong in (2, "yes", None, np.array([True, False]), [True], 1.0):
        yield (
            "logsumexp",
            (X,),
            {"keepdims": wrong},
            TypeError,
            ["keepdims", "True or False", repr(wrong)],
        )
        yield (
            "kl_divergence",
            (X, P),
            {"log_target": wrong},
            TypeError,
            ["log_target", "True or False"],
        )
    for case in WITH_VJP:
        name, other = case.vjp, case.vjp_from
        g = X[:, 0] if case.reduced else X
        yield name, (g, X * 1j), {}, TypeError, [other, "real", "complex128"]
        yield name, (g * 1j, X), {}, TypeError, ["g", "real", "complex128"]
        yield name, (g, np.ma.array(X, mask=X > 0)), {}, TypeError, [other, "masked"]
        shape = f"logsumexp({other})" if case.reduced else f"the shape of {other},"
        yield (
            name,
            (X[:2], X),
            {},
            ValueError,
            ["g", shape, "(2, 4)", "(3,)" if case.reduced else "(3, 4)"],
        )
    for name in OF_LABELS:
        yield name, (X, [0, 1, 4]), {}, IndexError, ["targets[2]", "4", "0 to 3"]
        yield name, (X, Y[:2]), {}, ValueError, ["targets", "(3,)", "(2,)"]
        yield (
            name,
            (X, Y == 0),
            {},
            TypeError,
            ["targets", "integer", "bool", "targets.astype(int)"],
        )
        one_hot = ["targets", "(3,)", "(3, 4)", "targets.astype(float)", "targets.argmax(1)"]
        yield name, (X, ONE_HOT), {}, ValueError, [*one_hot, "int64"]
        yield name, (X, ONE_HOT == 1), {}, TypeError, [*one_hot, "bool"]
        yield (
            name,
            (X, ONE_HOT.tolist()),
            {},
            ValueError,
            ["np.asarray(targets, float)", "(targets).argmax(1)"],
        )
        yield name, (X.T, ONE_HOT.T, 0), {}, ValueError, ["targets.argmax(0)", "(3,)", "(4, 3)"]
        yield (
            name,
            (X, Y.astype(float)),
            {},
            ValueError,
            ["(3, 4)", "(3,)", "float64", "targets.astype(int)"],
        )
        yield (
            name,
            (X, Y.astype(object)),
            {},
            TypeError,
            ["targets", "object", "targets.astype(int)"],
        )
        yield name, (X, X[:2]), {}, ValueError, ["targets", "(3, 4)", "(3,)", "integer", "(2, 4)"]
        yield name, (X, P), {"ignore_index": 1}, ValueError, ["ignore_index", "labels", "float64"]
        soft = {"ignore_index": -1}
        yield (
            name,
            (X, Y * 1.0),
            soft,
            ValueError,
            ["ignore_index", "integer", "targets.astype(int)"],
        )
        yield (
            name,
            (X, Y),
            {"ignore_index": 1.0},
            TypeError,
            ["ignore_index", "integer or None", "1.0"],
        )
        yield name, (X, Y), {"weight": [1.0]}, ValueError, ["weight", "(4,)", "(1,)"]
        yield name, (X, Y), {"sample_weight": X}, ValueError, ["sample_weight", "(3,)", "(3, 4)"]
        yield (
            name,
            (X, Y),
            {"reduction": "avg"},
            ValueError,
            ["reduction", "'none'", "'mean'", "'avg'"],
        )
        yield name, (X, Y, None), {}, TypeError, ["axis", "int", "None"]
    yield (
        "cross_entropy",
        (X, Y),
        {"label_smoothing": 2},
        ValueError,
        ["label_smoothing", "0 to 1", "2"],
    )
    for option in ("label_smoothing", "z_loss"):
        for wrong in ("0", None, [0.1], [[1.0], [1.0, 2.0]], 1j, np.complex64(1)):
            yield (
                "cross_entropy",
                (X, Y),
                {option: wrong},
                TypeError,
                [option, "real number", repr(wrong)],
            )
    yield (
        "cross_entropy",
        (X, Y),
        {"label_smoothing": HUGE},
        ValueError,
        ["label_smoothing", "0 to 1"],
    )
    for name in BINARY:
        yield name, (P, P[:2]), {}, ValueError, ["targets", "(3, 4)", "(2, 4)"]
        yield name, (P, P * 1j), {}, TypeError, ["targets", "real", "complex128"]
        yield (
            name,
            (P, P.astype(object)),
            {},
            TypeError,
            ["targets", "object", "targets.astype(float)"],
        )
    yield "binary_cross_entropy", (P, P), {"clamp": -1}, ValueError, ["clamp", "at least 0", "-1"]
    yield (
        "binary_cross_entropy",
        (P, P),
        {"weight": P[:2]},
        ValueError,
        ["weight", "(3, 4)", "(2, 4)"],
    )
    yield "kl_divergence", (X, P[:2]), {}, ValueError, ["p", "log_q", "(3, 4)", "(2, 4)"]
    yield (
        "kl_divergence_from_logits",
        (X, P[:2]),
        {},
        ValueError,
        ["target_logits", "logits", "(3, 4)"],
    )
    yield (
        "logprobs",
        (X, [0.0, 1.0, 2.0]),
        {},
        TypeError,
        ["ids", "integer", "float64", "np.asarray(ids, int)"],
    )
    yield "logprobs", (X, [0, 1]), {}, ValueError, ["ids", "(3,)", "(2,)"]
    yield "logprobs", (X, [0, 1, -1]), {}, IndexError, ["ids[2]", "-1", "0 to 3"]
    yield "top_k_logprobs", (X, 5), {}, ValueError, ["k", "0", "4", "5"]
    yield "top_k_logprobs", (X, 1.5), {}, TypeError, ["k", "integer", "1.5"]
    yield (
        "fit_temperature",
        (X, Y * 1.0),
        {},
        TypeError,
        ["labels", "integer", "labels.astype(int)"],
    )
    yield "fit_temperature", (X, [0, 1, 4]), {}, IndexError, ["labels[2]", "4", "0 to 3"]
    for wrong in (1, (1,), "ab", (1, 2, 3), (1j, 2), ([1], [2]), None):
        yield (
            "fit_temperature",
            (X, Y),
            {"bounds": wrong},
            TypeError,
            ["bounds", "two numbers", repr(wrong)],
        )
    for wrong in ((2, 1), (0, 1), (1, HUGE), (np.nan, 1)):
        yield (
            "fit_temperature",
            (X, Y),
            {"bounds": wrong},
            ValueError,
            ["bounds", "finite", "ascending"],
        )


TABLE = list(table())


@pytest.mark.parametrize("name", dict.fromkeys(row[0] for row in TABLE))
def test_every_message(name):
    for function, arguments, options, error, words in TABLE:
        if function == name:
            call = getattr(fs, name)
            refuses(lambda a=arguments, o=options, f=call: f(*a, **o), error, *words)


def test_names_are_those_of_parameters():
    """What the first word of a message names is a parameter of the function that was called."""
    for name, arguments, options, error, _ in TABLE:
        function = getattr(fs, name)
        with pytest.raises(error) as caught:
            function(*arguments, **options)
        first = str(caught.value).replace("[", " ").replace(":", " ").replace(",", " ").split()[0]
        assert first in inspect.signature(function).parameters, f"{name}: {caught.value}"


def test_every_loss_is_in_the_table():
    public = {
        name.removesuffix("_value_and_grad").removesuffix("_grad_hess") for name in SIGNATURES
    }
    assert public <= {row[0] for row in TABLE}
