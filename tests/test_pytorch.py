"""Losses and gradients agree with PyTorch's, wherever PyTorch has the option."""

import numpy as np
import pytest
from losses import BY_NAME, long, typical_scores
from sizes import exhaustive

import fastsoftmax as fs

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = pytest.mark.usefixtures("backend")

REDUCTIONS = ("none", "sum", "mean")
SHAPES = [((7, 5), -1), ((6, 4, 9), 1)]
SHAPES += [pytest.param(*place, marks=exhaustive) for place in (((5, 30), 0), ((3, 2000), -1))]
LABEL_OPTIONS = [(), ("weight",), ("ignore_index",), ("label_smoothing",)]
LABEL_OPTIONS += [("weight", "ignore_index"), ("weight", "ignore_index", "label_smoothing")]
SOFT_OPTIONS = [(), ("weight",), ("label_smoothing",), ("weight", "label_smoothing")]


def tensor(a, gradient=False):
    """Of float64 (or of integers), in memory of its own."""
    a = np.asarray(a)
    made = torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a.astype(np.int64))
    return made.requires_grad_() if gradient else made


def classes_second(a, axis):
    """As PyTorch wants it: the classes along axis 1."""
    return np.moveaxis(a, axis, min(1, a.ndim - 1))


def check(ours, make, x, axis=None):
    """Hold our loss and gradient to those of ``make``,
    a function of the scores as a tensor of float64.
    """
    scores = tensor(x if axis is None else classes_second(x, axis), gradient=True)
    loss = make(scores)
    loss.sum().backward()
    value, grad = ours
    expected = scores.grad.numpy()
    if axis is not None:
        expected = np.moveaxis(expected, min(1, x.ndim - 1), axis)
    for got, right in ((value, loss.detach().numpy()), (grad, expected)):
        assert np.shape(got) == right.shape
        tolerance = 1e-12 if x.dtype == np.float64 else 4e-6
        largest = np.abs(right[np.isfinite(right)]).max(initial=0.0)
        with np.errstate(under="ignore"):
            np.testing.assert_allclose(got, right, rtol=tolerance, atol=tolerance * largest)


def with_weight(options):
    """Options for PyTorch: weights as tensors."""
    return {
        name: tensor(a) if name in ("weight", "pos_weight") else a for name, a in options.items()
    }


def of_rows(name, shape, axis, dtype, options, kind="labels"):
    """A typical problem with its classes along ``axis``: scores, targets, options."""
    inner = [*np.delete(shape, axis), shape[axis]]
    given = BY_NAME[name].problem(
        tuple(inner), dtype, np.random.default_rng(len(options)), kind, options
    )
    x = np.ascontiguousarray(np.moveaxis(given.x, -1, axis))
    targets = (
        given.targets
        if kind == "labels"
        else np.ascontiguousarray(np.moveaxis(given.targets, -1, axis))
    )
    return x, targets, given.options


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("options", LABEL_OPTIONS, ids=" ".join)
def test_cross_entropy_of_labels(options, shape, axis, reduction, dtype):
    x, y, given = of_rows("cross_entropy", shape, axis, dtype, options)
    ours = fs.cross_entropy_value_and_grad(x, y, axis, reduction=reduction, **given)
    check(
        ours,
        lambda z: functional.cross_entropy(z, tensor(y), reduction=reduction, **with_weight(given)),
        x,
        axis,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("options", SOFT_OPTIONS, ids=" ".join)
def test_cross_entropy_of_probabilities(options, shape, axis, reduction, dtype):
    x, t, given = of_rows("cross_entropy", shape, axis, dtype, options, "soft")
    ours = fs.cross_entropy_value_and_grad(x, t, axis, reduction=reduction, **given)
    targets = tensor(classes_second(t, axis))
    check(
        ours,
        lambda z: functional.cross_entropy(z, targets, reduction=reduction, **with_weight(given)),
        x,
        axis,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_temperature_and_z_loss(reduction, dtype):
    """PyTorch has neither, but all they are made of."""
    x, y, _ = of_rows("cross_entropy", (6, 11), -1, dtype, ())
    ours = fs.cross_entropy_value_and_grad(x, y, temperature=2.5, z_loss=0.01, reduction=reduction)

    def theirs(z):
        z = z / 2.5
        losses = (
            functional.cross_entropy(z, tensor(y), reduction="none") + 0.01 * z.logsumexp(-1) ** 2
        )
        return losses if reduction == "none" else getattr(losses, reduction)()

    check(ours, theirs, x)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_nothing_but_ignored_labels(name, dtype):
    """The mean is NaN, as in PyTorch; the gradient is 0, where that of PyTorch's nll_loss is,
    too.
    """
    x, y = np.full((3, 4), -0.5, dtype), np.full(3, -100)
    value, grad = getattr(fs, f"{name}_value_and_grad")(x, y, ignore_index=-100)
    scores = tensor(x, gradient=True)
    loss = getattr(functional, name)(scores, tensor(y))
    loss.backward()
    assert np.isnan(value)
    assert torch.isnan(loss)
    np.testing.assert_array_equal(grad, np.zeros_like(x))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize(
    "options", [(), ("weight",), ("ignore_index",), ("weight", "ignore_index")], ids=" ".join
)
def test_nll_loss(options, shape, axis, reduction, dtype):
    x, y, given = of_rows("nll_loss", shape, axis, dtype, options)
    ours = fs.nll_loss_value_and_grad(x, y, axis, reduction=reduction, **given)
    check(
        ours,
        lambda z: functional.nll_loss(z, tensor(y), reduction=reduction, **with_weight(given)),
        x,
        axis,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", [(), ("weight",)], ids=" ".join)
def test_binary_cross_entropy(options, reduction, dtype):
    given = BY_NAME["binary_cross_entropy"].problem(
        (6, 30), dtype, np.random.default_rng(1), options=options
    )
    x = given.x.clip(1e-3, 1 - 1e-3)
    ours = fs.binary_cross_entropy_value_and_grad(
        x, given.targets, reduction=reduction, **given.options
    )
    weight = with_weight(given.options)
    check(
        ours,
        lambda p: functional.binary_cross_entropy(
            p, tensor(given.targets), reduction=reduction, **weight
        ),
        x,
    )


def test_clamp_is_that_of_pytorch(dtype):
    p, t = np.array([0, 1, 0, 1, 1e-30, 0.5], dtype), np.array([0, 1, 1, 0, 1, 0.5])
    got = fs.binary_cross_entropy(p, t, clamp=100, reduction="none")
    expected = functional.binary_cross_entropy(tensor(p), tensor(t), reduction="none")
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "options", [(), ("weight",), ("pos_weight",), ("weight", "pos_weight")], ids=" ".join
)
def test_binary_cross_entropy_with_logits(options, reduction, dtype):
    loss = BY_NAME["binary_cross_entropy_with_logits"]
    given = loss.problem((6, 30), dtype, np.random.default_rng(2), options=options)
    ours = given.value_and_grad(reduction=reduction)
    theirs, weights = functional.binary_cross_entropy_with_logits, with_weight(given.options)
    check(ours, lambda z: theirs(z, tensor(given.targets), reduction=reduction, **weights), given.x)


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean"])
def test_kl_divergence(reduction, log_target, dtype):
    rng = np.random.default_rng(3)
    log_q, p = (fs.log_softmax(rng.normal(0, 3, (6, 20))).astype(dtype) for _ in range(2))
    p = p if log_target else np.exp(p)
    ours = fs.kl_divergence_value_and_grad(log_q, p, reduction=reduction, log_target=log_target)

    def theirs(z):
        mode = "none" if reduction == "none" else reduction
        elements = functional.kl_div(z, tensor(p), reduction=mode, log_target=log_target)
        return (
            elements.sum(-1) if reduction == "none" else elements
        )  # there, 'none' is one number for each class

    check(ours, theirs, log_q)


def test_mean_of_divergences_is_over_rows(dtype):
    """PyTorch's 'mean' divides by the number of elements, which is no divergence."""
    rng = np.random.default_rng(4)
    log_q, p = (
        fs.log_softmax(rng.normal(0, 3, (6, 20))).astype(dtype),
        fs.softmax(rng.normal(0, 3, (6, 20))),
    )
    with pytest.warns(UserWarning, match="batchmean"):
        per_element = functional.kl_div(tensor(log_q), tensor(p), reduction="mean")
    assert float(fs.kl_divergence(log_q, p, reduction="mean")) == pytest.approx(
        20 * float(per_element), rel=1e-6
    )


@pytest.mark.parametrize("reduction", ["none", "sum", "batchmean"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_divergence_from_logits(temperature, reduction, dtype):
    rng = np.random.default_rng(5)
    x, teacher = (typical_scores((6, 20), dtype, rng) for _ in range(2))
    ours = fs.kl_divergence_from_logits_value_and_grad(
        x, teacher, temperature=temperature, reduction=reduction
    )

    def theirs(z):
        log_q, log_p = ((a / temperature).log_softmax(-1) for a in (z, tensor(teacher)))
        losses = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        return (
            losses
            if reduction == "none"
            else losses.sum() / (len(x) if reduction == "batchmean" else 1)
        )

    check(ours, theirs, x)


@pytest.mark.parametrize("loss", BY_NAME.values(), ids=str)
def test_tensors_are_taken_as_they_are(loss, dtype):
    """Without a copy, and without a gradient to be kept for them."""
    for kind in loss.kinds:
        given = loss.problem((5, 12), dtype, np.random.default_rng(6), kind)
        got = loss.call_with_grad(torch.from_numpy(given.x), torch.from_numpy(given.targets))
        for a, b in zip(got, given.value_and_grad(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_log_softmax_is_more_exact_than_in_single_precision():
    """What both are measured against: in float32 the loss of a confident row is right here,
    and 0 there.
    """
    x = np.array([[20.0, 0.0]], np.float32)
    theirs = functional.cross_entropy(torch.from_numpy(x), torch.tensor([0]))
    exact = float(np.log1p(np.exp(-long(20.0))))
    assert float(fs.cross_entropy(x, [0])) == pytest.approx(exact, rel=1e-6)
    assert abs(float(theirs) - exact) > 0.1 * exact
