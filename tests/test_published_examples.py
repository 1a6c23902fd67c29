"""Numbers that others have published about what softmax and sigmoid outputs mean, and real scores."""

import mpmath
import numpy as np
import pytest
from cases import BY_NAME, check
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import fastsoftmax as fs

pytestmark = pytest.mark.usefixtures("backend")

# PyTorch's documentation of sigmoid and softmax layers: two samples, three classes
PRINTED = 2e-4  # logits are printed to 4 decimals, results to 5 digits
LOGITS = [[-10.6383, -3.3302, 10.4895], [-7.0935, 10.9497, -24.0366]]


def test_shift_invariance():
    """Scores (-1, 1, 3, 5) and (9, 11, 13, 15) mean the same: bit for bit."""
    np.testing.assert_array_equal(fs.softmax([-1, 1, 3, 5]), fs.softmax([9, 11, 13, 15]))


def test_independence_of_irrelevant_alternatives():
    """The odds of the first two do not depend on whether the third scores 1 or 10."""
    low, high = fs.softmax([5, 7, 1]), fs.softmax([5, 7, 10])
    assert low[0] / low[1] == pytest.approx(np.exp(-2), rel=1e-15)
    assert high[0] / high[1] == pytest.approx(np.exp(-2), rel=1e-15)


def test_two_classes(dtype):
    """softmax([z, 0]) is [sigmoid(z), 1 - sigmoid(z)] within one unit in the last place of 1."""
    z = np.linspace(-30, 30, 10_001).astype(dtype)
    pair = fs.softmax(np.stack([z, np.zeros_like(z)], -1))
    sigmoid = fs.sigmoid(z)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(pair[:, 0], sigmoid, rtol=0, atol=eps)
    np.testing.assert_allclose(pair[:, 1], 1 - sigmoid, rtol=0, atol=eps)


def test_exclusive_and_independent_classes(dtype):
    """Softmax shares out 1 among the classes; sigmoids answer one question per class and share nothing."""
    x = np.array(LOGITS, dtype)
    np.testing.assert_allclose(fs.softmax(x).sum(1), [1, 1], rtol=1e-6)
    assert np.all((fs.softmax(x) > 0.5).sum(1) == 1)
    both = np.array([3.0, 2.0, -4.0], dtype)
    assert fs.sigmoid(both).sum() > 1.5
    np.testing.assert_array_equal(fs.sigmoid(both) > 0.5, [True, True, False])


def test_printed_sigmoid(dtype):
    expected = [[2.3979e-05, 3.4550e-02, 9.9997e-01], [8.2977e-04, 9.9998e-01, 3.6393e-11]]
    np.testing.assert_allclose(fs.sigmoid(np.array(LOGITS, dtype)), expected, rtol=PRINTED)


def test_printed_softmax_over_samples(dtype):
    expected = [[2.8065e-02, 6.2851e-07, 1.0000], [9.7194e-01, 1.0000, 1.0127e-15]]
    got = fs.softmax(np.array(LOGITS, dtype), axis=0)
    np.testing.assert_allclose(got, expected, rtol=PRINTED)
    np.testing.assert_allclose(got.sum(0), np.ones(3), rtol=1e-6)


def test_printed_softmax_over_classes(dtype):
    expected = [[6.6729e-10, 9.9584e-07, 1.0000], [1.4585e-08, 1.0000, 6.3917e-16]]
    got = fs.softmax(np.array(LOGITS, dtype), axis=1)
    np.testing.assert_allclose(got, expected, rtol=PRINTED)
    np.testing.assert_allclose(got.sum(1), np.ones(2), rtol=1e-6)


def test_softmax_between_maximum_and_proportions():
    np.testing.assert_allclose(fs.softmax([2, 4, 2, 1]), [0.1025, 0.7573, 0.1025, 0.0377], atol=5e-5)


@pytest.mark.parametrize("scores", [[1000.0, -1000.0, 998.0], [-1000.0, -1001.0, 1000.0]])
def test_any_base(scores, dtype):
    """Base 1 does not distinguish; base 100 nearly picks the maximum (and overflows in naive code)."""
    x = np.array(scores, dtype)
    np.testing.assert_allclose(fs.softmax(x, base=1), np.full(3, 1 / 3), rtol=1e-6)
    got = fs.softmax(x, base=100)
    check(BY_NAME["softmax"], got, x, base=100)
    assert got.argmax() == x.argmax()
    assert got.max() > 0.999
    assert fs.logsumexp(x, base=100) == pytest.approx(1000.0, rel=1e-6)


def test_exponential_family():
    """p_k = e^(beta E_k) / sum, and beta is one over the temperature."""
    energies, beta = np.array([0.3, -1.2, 2.5, 0.0]), 1.7
    expected = np.exp(beta * energies) / np.exp(beta * energies).sum()
    np.testing.assert_allclose(fs.softmax(energies, temperature=1 / beta), expected, rtol=1e-14)


def test_gradient_in_terms_of_the_output():
    """d softmax = y (g - g.y) and d sigmoid = g y (1 - y): no logits needed."""
    y, g = np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(fs.softmax_vjp(g, y), [0.25, -0.15, -0.1], rtol=1e-15)
    np.testing.assert_allclose(fs.sigmoid_vjp(g, y), [0.25, 0.0, 0.0], rtol=1e-15)


@pytest.fixture(scope="module")
def digit_scores():
    """Ten-class scores of a logistic regression fitted on handwritten digits."""
    images, digits = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=30, tol=1e-3).fit(images[:1000] / 16, digits[:1000])
    return model.decision_function(images / 16), digits, model


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_scores_of_handwritten_digits(name, dtype, digit_scores):
    """Real logits, against mpmath."""
    case = BY_NAME[name]
    x = digit_scores[0][::30].astype(dtype)
    got = case.call(x)
    check(case, got, x)
    with mpmath.workdps(50):
        truth = [case.definition([float(score) for score in row]) for row in x]
        truth = truth if case.reduced else [value for row in truth for value in row]
        error = [
            abs(mpmath.mpf(float(a)) - b) / mpmath.mpf(float(np.spacing(abs(dtype.type(float(b))))))
            for a, b in zip(got.ravel(), truth, strict=True)
        ]
    assert max(error) <= case.ulp


def test_probabilities_of_handwritten_digits(digit_scores):
    """Scikit-learn's own probabilities, and most digits recognised."""
    scores, digits, model = digit_scores
    images = load_digits().data / 16
    got = fs.softmax(scores)
    np.testing.assert_allclose(got, model.predict_proba(images), rtol=1e-11)
    assert np.mean(got.argmax(1)[1000:] == digits[1000:]) > 0.85
