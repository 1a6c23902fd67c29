"""Numbers that others have published about what softmax and sigmoid outputs mean,
and real scores.
"""

import math

import mpmath
import numpy as np
import pytest
import sklearn
from cases import BY_NAME, check
from scipy.optimize import minimize
from scipy.special import entr, expit
from sklearn.calibration import CalibratedClassifierCV
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
    """Softmax shares out 1 among the classes;
    sigmoids answer one question per class and share nothing.
    """
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
    np.testing.assert_allclose(
        fs.softmax([2, 4, 2, 1]), [0.1025, 0.7573, 0.1025, 0.0377], atol=5e-5
    )
    np.testing.assert_array_equal(fs.hardmax([2, 4, 2, 1]), [0, 1, 0, 0])


def test_softmax_between_hardmax_and_uniform(dtype):
    """Cold, it tends to the hardmax: n - 1 others have at most exp(-gap / T) each.
    Hot, to equal shares.
    """
    x = np.array([2, 4, 2, 1], dtype)
    for temperature in (1.0, 0.5, 0.2, 0.1, 0.02):
        rest = 1 - fs.softmax(x, temperature=temperature).astype(np.float64)[1]
        assert rest <= 3 * np.exp(-2 / temperature) + np.finfo(dtype).eps
    np.testing.assert_array_equal(fs.softmax(x, temperature=1e-3), fs.hardmax(x))
    # Shares of x / T differ from equal ones by at most the spread of the scores, 3 / T, of
    # themselves.
    np.testing.assert_allclose(
        fs.softmax(x, temperature=1e9), 0.25, rtol=3e-9 + 4 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("scores", [[1000.0, -1000.0, 998.0], [-1000.0, -1001.0, 1000.0]])
def test_any_base(scores, dtype):
    """Base 1 does not distinguish; base 100 nearly picks the maximum
    (and overflows in naive code).
    """
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


def test_maximum_entropy():
    """Of all distributions with its mean score, softmax has the largest entropy (Jaynes), by KL(q
    || p).

    For the surprise at softmax, -sum q log p, depends on nothing but that mean; beta is one over
    temperature.
    """
    scores, temperature = np.array([0.3, -1.2, 2.5, 0.0, 1.0]), 1.7
    p = fs.softmax(scores, temperature=temperature)
    # steps along these change the sum or the mean
    kept = np.linalg.qr(np.stack([np.ones(5), scores], 1))[0]
    steps = np.random.default_rng(5).normal(0, 0.04, (2000, 5))
    q = p + steps - steps @ kept @ kept.T
    q = q[np.all(q > 0, 1)]
    assert len(q) > 1000
    np.testing.assert_allclose(q @ scores, p @ scores, rtol=1e-13)
    every = np.broadcast_to(scores, q.shape)
    surprise = fs.cross_entropy(every, q, temperature=temperature, reduction="none")
    np.testing.assert_allclose(surprise, entr(p).sum(), rtol=1e-14)
    log_p = np.broadcast_to(fs.log_softmax(scores, temperature=temperature), q.shape)
    missing = fs.kl_divergence(log_p, q, reduction="none")
    assert np.all(missing > 0)
    np.testing.assert_allclose(entr(p).sum() - entr(q).sum(1), missing, rtol=0, atol=4e-15)


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


# --- losses that are one another ------------------------------------------------------------------


def rows_and_targets(dtype, rows=200, classes=7, seed=6):
    """Logits, labels, and distributions, in every second of which some classes are impossible."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 4, (rows, classes)).astype(dtype)
    masses = 0.01 + rng.exponential(size=x.shape)
    masses[::2, 1:] *= rng.random((rows // 2, classes - 1)) < 0.7
    soft = masses / masses.sum(1, keepdims=True)
    return x, rng.integers(0, classes, rows), soft.astype(dtype)


@pytest.mark.parametrize(
    "options", [(), ("weight",), ("sample_weight",), ("ignore_index", "weight")], ids=repr
)
def test_nll_of_log_softmax(options, dtype):
    """nll_loss(log_softmax(z), y) = cross_entropy(z, y):
    what takes logarithms, and what takes logits.
    """
    x, labels, soft = rows_and_targets(dtype)
    rng = np.random.default_rng(7)
    made = {
        "weight": rng.uniform(0.5, 2, 7),
        "sample_weight": rng.uniform(0.5, 2, 200),
        "ignore_index": 3,
    }
    chosen = {name: made[name] for name in options}
    eps = float(np.finfo(dtype).eps)
    log_p = fs.log_softmax(x)
    for targets in (labels, soft):
        if "ignore_index" in options and targets is soft:
            continue
        for reduction in ("none", "sum", "mean", "batchmean"):
            expected, gradient = fs.cross_entropy_value_and_grad(
                x, targets, reduction=reduction, **chosen
            )
            loss, pull = fs.nll_loss_value_and_grad(log_p, targets, reduction=reduction, **chosen)
            np.testing.assert_allclose(
                loss, expected, rtol=10 * eps
            )  # 3 ulp of log_softmax, 4 and 2 of losses
            back = fs.log_softmax_vjp(pull, log_p)
            # p - 1 of a label is a difference there: its errors count against the weight, at most 4
            # here.
            np.testing.assert_allclose(back, gradient, rtol=0, atol=40 * eps)


def test_binary_cross_entropy_of_sigmoid(dtype):
    """What takes probabilities is what takes logits, as long as the probabilities tell as much."""
    z, t = np.meshgrid(np.linspace(-12, 12, 401), [0.0, 0.25, 1.0])
    z, t = z.astype(dtype), t.astype(dtype)
    from_p = fs.binary_cross_entropy(fs.sigmoid(z), t, reduction="none")
    from_z = fs.binary_cross_entropy_with_logits(z, t, reduction="none")
    # A p that is rounded by 4 ulp changes log(1 - p) by 4 eps p / (1 - p), and that is exp(z).
    eps = float(np.finfo(dtype).eps)
    assert np.all(
        np.abs(from_p - from_z) <= eps * (4 * np.exp(np.maximum(z, 0)) + 8 * np.abs(from_z) + 4)
    )
    sure = np.array([120.0], dtype)  # where p is 1
    assert fs.binary_cross_entropy(fs.sigmoid(sure), [0.0]) == np.inf
    assert fs.binary_cross_entropy(fs.sigmoid(sure), [0.0], clamp=100) == 100
    assert fs.binary_cross_entropy_with_logits(sure, [0.0]) == 120


def test_two_classes_of_cross_entropy(dtype):
    """Yes or no is a choice of two: the losses of z, and of [z, 0], are equal,
    and so are derivatives.
    """
    z, t = np.meshgrid(np.linspace(-30, 30, 301), [0.0, 0.125, 0.5, 1.0])
    z, t = z.ravel().astype(dtype), t.ravel().astype(dtype)
    binary, slope = fs.binary_cross_entropy_with_logits_value_and_grad(z, t, reduction="none")
    pair = np.stack([z, np.zeros_like(z)], 1)
    loss, grad = fs.cross_entropy_value_and_grad(pair, np.stack([t, 1 - t], 1), reduction="none")
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(loss, binary, rtol=8 * eps)
    np.testing.assert_allclose(grad, np.stack([slope, -slope], 1), rtol=0, atol=8 * eps)
    hard = np.isin(t, [0, 1])
    labels = np.where(t == 1, 0, 1)[hard]
    np.testing.assert_allclose(
        fs.cross_entropy(pair[hard], labels, reduction="none"), binary[hard], rtol=8 * eps
    )


def test_divergence_is_cross_entropy_less_a_constant(dtype):
    """KL - CE is minus the entropy of the targets, whatever the logits, and so has no gradient."""
    _, _, t = rows_and_targets(dtype)
    entropy = entr(t.astype(np.float64)).sum(1)
    eps = float(np.finfo(dtype).eps)
    for seed in range(3):
        x = rows_and_targets(dtype, seed=seed)[0]
        log_q = fs.log_softmax(x)
        surprise, gradient = fs.cross_entropy_value_and_grad(x, t, reduction="none")
        divergence, pull = fs.kl_divergence_value_and_grad(log_q, t, reduction="none")
        # Both losses have 4 ulp of the sizes of their terms; t is rounded, its sum 1 but for an ulp
        # or two.
        bound = 8 * eps * (surprise.astype(np.float64) + entropy + 1)
        assert np.all(np.abs(surprise - divergence.astype(np.float64) - entropy) <= bound)
        np.testing.assert_allclose(fs.log_softmax_vjp(pull, log_q), gradient, rtol=0, atol=8 * eps)


@pytest.mark.parametrize("impossible", [False, True])
def test_divergence_from_logits(impossible, dtype):
    """KL(softmax(b) || softmax(a)) is that of the distributions,
    also where b = -inf (no such class).
    """
    x, _, t = rows_and_targets(dtype)
    x, t = (x[::2], t[::2]) if impossible else (x[1::2], t[1::2])
    assert np.any(t == 0) == impossible
    with np.errstate(divide="ignore"):
        log_t = np.log(t)
    eps = float(np.finfo(dtype).eps)
    expected, pull = fs.kl_divergence_value_and_grad(fs.log_softmax(x), t, reduction="none")
    got, slope = fs.kl_divergence_from_logits_value_and_grad(x, log_t, reduction="none")
    # log_t is rounded, and so are terms of kl_divergence, none of them larger than 30.
    np.testing.assert_allclose(got, expected, rtol=0, atol=30 * eps)
    np.testing.assert_allclose(
        slope, fs.log_softmax_vjp(pull, fs.log_softmax(x)), rtol=0, atol=8 * eps
    )


def test_divergence_from_a_certain_class(dtype):
    """Cold targets tend to the hardmax,
    from which the divergence is the surprise at their class.
    """
    x, target = np.array([0.0, 1.0, 3.0], dtype), np.array([0.0, 4.0, 1.0], dtype)
    for temperature in (0.05, 0.02, 0.005, 1e-3):
        expected = fs.cross_entropy(x, 1, temperature=temperature)
        got = fs.kl_divergence_from_logits(x, target, temperature=temperature)
        # What is missing: classes of exp(-3 / T) each, times their own surprise.
        bound = 4 * math.exp(-3 / temperature) + 8 * float(np.finfo(dtype).eps)
        assert got == pytest.approx(expected, rel=bound)


def test_a_posterior_minimises_the_surprise():
    """-t log f - (1 - t) log(1 - f) exceeds its least value, at f = t,
    by the divergence of f from t.
    """
    rng = np.random.default_rng(8)
    t, z = rng.uniform(0.01, 0.99, 500), rng.normal(0, 3, 500)
    least, slope = fs.binary_cross_entropy_with_logits_value_and_grad(
        fs.logit(t), t, reduction="none"
    )
    np.testing.assert_allclose(least, entr(t) + entr(1 - t), rtol=1e-14)
    np.testing.assert_allclose(slope, 0, atol=4e-15)  # logits of up to 5 are rounded by 4e-16
    surprise = fs.binary_cross_entropy_with_logits(z, t, reduction="none")
    log_f = np.stack([fs.log_sigmoid(z), fs.log_sigmoid(-z)], 1)
    divergence = fs.kl_divergence(log_f, np.stack([t, 1 - t], 1), reduction="none")
    np.testing.assert_allclose(surprise - least, divergence, rtol=0, atol=1e-14)


def test_loss_of_a_discriminator():
    """-mean log g(real) - mean log(1 - g(generated)) is the surprise at both,
    the generator's at one.
    """
    real, generated = np.random.default_rng(9).normal(0, 3, (2, 500))
    halves = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(generated)).mean()
    g, is_real = np.concatenate([real, generated]), np.repeat([1.0, 0.0], 500)
    assert 2 * fs.binary_cross_entropy_with_logits(g, is_real) == pytest.approx(halves, rel=1e-14)
    assert 2 * fs.binary_cross_entropy(fs.sigmoid(g), is_real) == pytest.approx(halves, rel=1e-12)
    two = -fs.log_sigmoid(real).mean() - fs.log_sigmoid(-generated).mean()
    assert two == pytest.approx(halves, rel=1e-14)
    fooled = fs.binary_cross_entropy_with_logits(generated, np.ones(500))
    assert fooled == pytest.approx(np.log1p(np.exp(-generated)).mean(), rel=1e-14)


def test_best_discriminator():
    """Goodfellow et al. 2014, theorem 1:
    log p / q is the best score, its loss log 4 - 2 JSD(p, q).
    """
    p, q = np.random.default_rng(10).dirichlet(np.ones(20), 2)
    score, weight, is_p = np.log(p / q), np.concatenate([p, q]), np.repeat([1.0, 0.0], 20)

    def loss(score):
        scores = np.concatenate([score, score])
        return fs.binary_cross_entropy_with_logits(scores, is_p, weight=weight, reduction="sum")

    log_middle = np.log([(p + q) / 2] * 2)
    divergence = fs.kl_divergence(log_middle, np.stack([p, q]), reduction="sum")
    assert loss(score) == pytest.approx(np.log(4) - divergence, rel=1e-14)
    assert loss(np.zeros(20)) == pytest.approx(np.log(4), rel=1e-15)
    for step in np.random.default_rng(11).normal(0, 0.1, (50, 20)):
        assert loss(score + step) > loss(score)


# --- scores that were fitted ----------------------------------------------------------------------

MEAN = np.array([0.8, -0.5])  # one class lies around it, the other around its opposite


def gaussians(n_a, n_b):
    """Points of two normal distributions, whose log-odds are 2 MEAN.x, with a constant;
    and which it is.
    """
    rng = np.random.default_rng(12)
    x = np.concatenate([rng.normal(MEAN, 1, (n_a, 2)), rng.normal(-MEAN, 1, (n_b, 2))])
    return np.column_stack([x, np.ones(n_a + n_b)]), np.repeat([1.0, 0.0], [n_a, n_b])


def fitted(x, t, weight):
    """The linear score with the least mean surprise."""

    def surprise(w):
        loss, grad = fs.binary_cross_entropy_with_logits_value_and_grad(x @ w, t, weight=weight)
        return loss, grad @ x

    options = {"gtol": 1e-9, "ftol": 1e-15}
    return minimize(surprise, np.zeros(3), jac=True, method="L-BFGS-B", options=options).x


def deviations(found, truth, x, t, weight):
    """How far a fit is from the truth, in standard deviations of the fits to other samples.

    Their covariance is H^-1 G H^-1, with the curvature H of the loss and the covariance G of its
    gradient.
    """
    p = expit(x @ found)
    gradients = (weight * (p - t))[:, None] * x
    step = (x.T * (weight * p * (1 - p))) @ x @ (found - truth)
    return np.sqrt(step @ np.linalg.solve(gradients.T @ gradients, step))


@pytest.mark.parametrize(("n_a", "n_b"), [(20_000, 20_000), (40_000, 5000)])
def test_a_fitted_sigmoid_is_the_posterior(n_a, n_b):
    """The log-odds of two Gaussians, within the error of sampling; weights 1 / N_c make the priors
    equal.

    In three dimensions 4 standard deviations are exceeded once in a thousand samples; this sample
    is fixed.
    """
    x, t = gaussians(n_a, n_b)
    prior = np.log(n_a / n_b)
    of_counts, of_equals = np.append(2 * MEAN, prior), np.append(2 * MEAN, 0.0)
    plain = fitted(x, t, None)
    assert deviations(plain, of_counts, x, t, np.ones(len(t))) < 4
    weight = np.where(t == 1, 1 / n_a, 1 / n_b) * len(t) / 2
    weighted = fitted(x, t, weight)
    assert deviations(weighted, of_equals, x, t, weight) < 4
    if n_a != n_b:  # and far from what the other would be
        assert deviations(plain, of_equals, x, t, np.ones(len(t))) > 40
        assert deviations(weighted, of_counts, x, t, weight) > 40
        # The constants have a standard deviation of 0.02 each, of which they share the most.
        assert plain[2] - weighted[2] == pytest.approx(prior, abs=0.03)


PENALTY = 10.0  # times half the sum of the squared weights


@pytest.fixture(scope="module")
def softmax_regression():
    """Six hundred handwritten digits, and scikit-learn's
    multinomial logistic regression of them.
    """
    images, digits = load_digits(return_X_y=True)
    x, y = images[:600] / 16, digits[:600]
    model = LogisticRegression(C=1 / PENALTY, tol=1e-8, max_iter=5000).fit(x, y)
    return x, y, np.vstack([model.coef_.T, model.intercept_])


def test_softmax_regression_reaches_the_optimum(softmax_regression):
    """Softmax on top of a linear model is multinomial logistic regression.

    The penalty curves the mean loss by at least c = 10 / N along the weights. So where the gradient
    is g, weights are within |g| / c of the best ones and the objective within |g|^2 / 2c of the
    least.
    """
    x, y, theirs = softmax_regression
    design = np.column_stack([x, np.ones(len(y))])
    penalised = np.full((65, 1), PENALTY / len(y))
    penalised[-1] = 0

    def objective(w):
        table = w.reshape(65, 10)
        loss, grad = fs.cross_entropy_value_and_grad(design @ table, y)
        return loss + np.sum(penalised * table**2) / 2, (
            design.T @ grad + penalised * table
        ).ravel()

    options = {"maxiter": 5000, "maxcor": 30, "gtol": 1e-8, "ftol": 0}
    with np.errstate(under="ignore"):
        ours = minimize(objective, np.zeros(650), jac=True, method="L-BFGS-B", options=options).x
        value, slope = objective(ours)
        least, their_slope = objective(theirs.ravel())
    assert np.abs(slope).max() <= 1e-8
    assert np.abs(their_slope).max() <= 1e-7  # scikit-learn has no better
    lengths = np.linalg.norm([slope, their_slope], axis=1)
    assert abs(value - least) <= np.sum(lengths**2) * len(y) / (2 * PENALTY) + 1e-14
    table = ours.reshape(65, 10)
    assert np.linalg.norm(table[:-1] - theirs[:-1]) <= lengths.sum() * len(y) / PENALTY
    expected = fs.softmax(design @ theirs)
    np.testing.assert_allclose(fs.softmax(design @ table), expected, rtol=0, atol=1e-5)


# --- calibration ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sure_scores():
    """A model of few images with hardly a penalty, images held out for its temperature,
    and others.
    """
    images, digits = load_digits(return_X_y=True)
    model = LogisticRegression(C=1e3, tol=1e-6, max_iter=5000).fit(images[:300] / 16, digits[:300])
    return model, images[300:1000] / 16, digits[300:1000], images[1000:] / 16, digits[1000:]


def calibration_error(p, labels, edges=15):
    """The mean over images of |confidence - accuracy| in their bin of confidence (Guo et al.
    2017).
    """
    surest, right = p.max(1), p.argmax(1) == labels
    of_bin = np.digitize(surest, np.linspace(0, 1, edges + 1)[1:-1])
    bins = [of_bin == b for b in range(edges)]
    return sum(b.mean() * abs(surest[b].mean() - right[b].mean()) for b in bins if b.any())


def test_a_temperature_calibrates(sure_scores):
    """Fitted on held-out images, it lowers surprise and calibration error on others;
    decisions stay.
    """
    model, held_out, held_out_digits, images, digits = sure_scores
    temperature = fs.fit_temperature(model.decision_function(held_out), held_out_digits)
    assert temperature > 1.5  # over-confident
    scores = model.decision_function(images)
    before, after = fs.softmax(scores), fs.softmax(scores, temperature=temperature)
    np.testing.assert_array_equal(before.argmax(1), after.argmax(1))
    accuracy = np.mean(after.argmax(1) == digits)
    assert before.max(1).mean() - accuracy > 2 * abs(after.max(1).mean() - accuracy)
    assert calibration_error(after, digits) < 0.75 * calibration_error(before, digits)
    loss = fs.cross_entropy(scores, digits, temperature=temperature)
    assert loss < 0.9 * fs.cross_entropy(scores, digits)


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8),
    reason="scikit-learn 1.8 calibrates so, too",
)
def test_temperature_of_scikit_learn(sure_scores):
    """Its calibration finds the same number, from values of the loss alone:
    to the root of its rounding.
    """
    from sklearn.frozen import FrozenEstimator

    model, images, digits, *_ = sure_scores
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(
        images, digits
    )
    (classifier,) = calibrated.calibrated_classifiers_
    found = fs.fit_temperature(model.decision_function(images), digits)
    assert found == pytest.approx(1 / classifier.calibrators[0].beta_, rel=2e-7)
