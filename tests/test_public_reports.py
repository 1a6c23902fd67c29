"""Bugs that users of other libraries reported, as calls of ours:
each names the report it comes from.
"""

import mpmath
import numpy as np
import pytest

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")


def test_logsumexp_of_a_negative_weight():
    """scipy/scipy#22903: NaN where the total is positive, since the largest term is negative."""
    x, b = [3.06409428, 0.37251854, 3.87471931], [1.88190708, 2.84174795, -0.85016884]
    with mpmath.workdps(50):
        exact = mpmath.log(
            mpmath.fsum(
                mpmath.mpf(w) * mpmath.exp(mpmath.mpf(v)) for v, w in zip(x, b, strict=True)
            )
        )
    assert abs(fs.logsumexp(x, b=b) - exact) <= 3 * np.spacing(float(exact))


def test_logsumexp_where_the_largest_has_weight_zero():
    """jax-ml/jax#5370: -inf for [-1000, -2] with weights [1, 0]."""
    assert fs.logsumexp([-1000.0, -2.0], b=[1.0, 0.0]) == -1000
    assert fs.logsumexp(np.float32([-1000, -2]), b=np.float32([1, 0])) == -1000
    assert fs.logsumexp([-1000.0, np.inf], b=[1.0, 0.0]) == -1000


def test_logsumexp_next_to_zero():
    """scipy/scipy#18295: 0 for [0, -40]."""
    assert fs.logsumexp([0.0, -40.0]) == 4.248354255291589e-18
    assert fs.logsumexp([0.0, -40.0], b=[1.0, 1.0]) == 4.248354255291589e-18


def test_softmax_of_numbers_that_are_infinite_once_parsed():
    """scipy/scipy#23225 wants all mass on one +inf, which is NaN here;
    the largest finite number is fine.
    """
    assert np.array_equal(fs.softmax([1.0, 1.0, 1e100]), [0, 0, 1])
    assert np.array_equal(fs.softmax([1.0, 1.0, np.finfo(float).max]), [0, 0, 1])
    assert np.array_equal(fs.softmax(np.float32([-3e38, 1, 3e38])), [0, 0, 1])
    assert np.all(np.isnan(fs.softmax([1.0, 1.0, np.inf])))


@pytest.mark.parametrize("ignored", [-100, -1, 7])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_labels_with_weights_and_smoothing(ignored, reduction, dtype):
    """pytorch/pytorch#69339, #91383, #73205:
    an index error, or ignored rows in the smoothed part.
    """
    x = np.array([[1, 2], [3, 0.4], [0.5, -0.5]], dtype)
    labels, weight = np.array([ignored, 1, 0]), np.array([0.2, 0.3], dtype)
    options = {"weight": weight, "label_smoothing": 0.1, "reduction": reduction}
    loss, grad = fs.cross_entropy_value_and_grad(x, labels, ignore_index=ignored, **options)
    rest, rest_grad = fs.cross_entropy_value_and_grad(x[1:], labels[1:], **options)
    np.testing.assert_array_equal(loss if reduction != "none" else loss[1:], rest)
    np.testing.assert_array_equal(grad[1:], rest_grad)
    assert np.all(grad[0] == 0)
    assert reduction != "none" or loss[0] == 0


def test_all_labels_ignored(dtype):
    """pytorch/pytorch#116349: NaN for the mean over nothing, as documented here;
    the gradient is 0.
    """
    loss, grad = fs.cross_entropy_value_and_grad(
        np.ones((5, 10), dtype), np.full(5, -100), ignore_index=-100
    )
    assert np.isnan(loss)
    assert np.all(grad == 0)


def test_positive_weight_of_one(dtype):
    """pytorch/pytorch#13773: NaN for a logit of -120 once pos_weight=1 is given."""
    x, t = np.array([0, -120], dtype), np.array([0, 1], dtype)
    plain = fs.binary_cross_entropy_with_logits(x, t, reduction="none")
    weighted = fs.binary_cross_entropy_with_logits(
        x, t, pos_weight=np.ones(2, dtype), reduction="none"
    )
    np.testing.assert_array_equal(plain, weighted)
    assert plain[1] == 120


def test_binary_losses_of_infinite_logits(dtype):
    """pytorch/pytorch#135359, pyro-ppl/numpyro#2240: NaN where the formula gives 0 or infinity."""
    x = np.array([-np.inf, np.inf, -np.inf, np.inf, -np.inf], dtype)
    t = np.array([0, 0, 1, 1, 0.9], dtype)
    loss = fs.binary_cross_entropy_with_logits(x, t, reduction="none")
    np.testing.assert_array_equal(loss, [0, np.inf, np.inf, 0, np.inf])


def test_gradient_of_a_tiny_probability(dtype):
    """pytorch/pytorch#103316: the derivative of -log p at p = sigmoid(-50) is -1/p,
    however large.
    """
    p = fs.sigmoid(np.array([-50], dtype))
    _, grad = fs.binary_cross_entropy_value_and_grad(p, np.ones(1, dtype), reduction="sum")
    np.testing.assert_allclose(grad, -1 / p, rtol=1e-6)
    back = fs.sigmoid_vjp(grad, p)
    np.testing.assert_allclose(back, -1, rtol=1e-6)


def test_gradient_of_many_float16():
    """jax-ml/jax#40409: NaN for 2^16 and more float16 numbers, though every derivative is small."""
    x = np.random.default_rng(0).normal(0, 1, 70_000).round(2).astype(np.float16)
    grad = fs.log_softmax_vjp(np.ones_like(x), fs.log_softmax(x))
    exact = 1 - len(x) * fs.softmax(x.astype(float))
    np.testing.assert_allclose(grad.astype(float), exact, rtol=0.01, atol=0.01)


def test_float16_is_computed_in_float32():
    """pytorch/pytorch#123911: half precision in, the same digits as float32 rounded once,
    for all lengths.
    """
    for n in (3, 40, 1000, 40_000):
        x = np.random.default_rng(n).normal(0, 3, (2, n)).round(2).astype(np.float16)
        with np.errstate(under="ignore"):
            rounded = fs.softmax(x, dtype=np.float32).astype(np.float16)
        step = np.maximum(np.spacing(rounded), np.finfo(np.float16).smallest_subnormal)
        assert np.all(np.abs(rounded - fs.softmax(x)) <= step)


def test_logits_below_a_sentinel(dtype):
    """flashinfer-ai/flashinfer#4401: a row of valid logits below -5e4 came out as masked."""
    x = np.array([[-6e4, -6e4 - 1, -np.inf], [-1e30, -np.inf, -np.inf]], dtype)
    np.testing.assert_allclose(fs.softmax(x)[0], [0.7310586, 0.2689414, 0], rtol=1e-6)
    np.testing.assert_array_equal(fs.softmax(x)[1], [1, 0, 0])


def test_fully_masked_rows(dtype):
    """allenai/allennlp#890, tracel-ai/burn#4697:
    no NaN where a mask leaves nothing, and none next to it.
    """
    x, mask = np.zeros((2, 6), dtype), np.array([[True] * 6, [False] * 6])
    x[1] = np.nan
    np.testing.assert_allclose(fs.softmax(x, where=mask), [[1 / 6] * 6, [0] * 6], rtol=1e-6)
    assert np.all(fs.log_softmax(x, where=mask)[1] == -np.inf)
    assert np.array_equal(fs.logsumexp(x, where=mask) == -np.inf, [False, True])


def test_softplus_of_float16():
    """sbryngelson/ANEForge#113: 0 from 11 on, where exp overflows in float16."""
    x = np.float16([5, 10, 11, 12, 88, 1000, 30000])
    assert np.array_equal(fs.softplus(x), np.float16([5.0067, 10.00005, 11, 12, 88, 1000, 30000]))


def test_large_negative_rows(dtype):
    """tenstorrent/tt-metal#4173: 0/0 where all logits are about -200."""
    x = np.random.default_rng(1).random((8, 32)).astype(dtype) - dtype.type(200)
    np.testing.assert_allclose(fs.softmax(x).sum(-1), 1, rtol=1e-6)


def test_huge_binary_logits(dtype):
    """huggingface/candle#2561: NaN once the sigmoid rounds to 1."""
    x = np.array([20, 100, 1e4, 1e30], dtype)
    loss, grad = fs.binary_cross_entropy_with_logits_value_and_grad(
        x, np.zeros(4, dtype), reduction="sum"
    )
    assert np.isfinite(loss)
    np.testing.assert_allclose(grad, 1)
