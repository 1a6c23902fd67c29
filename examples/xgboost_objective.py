"""XGBoost with a multiclass objective of one's own: the gradient and Hessian of the cross-entropy.

The objective below is that of XGBoost's own, so that both models can be compared: a start for those
that XGBoost lacks. Requires XGBoost and scikit-learn.
"""

import sys
import time

import numpy as np
import xgboost as xgb
from sklearn.datasets import load_digits

import fastsoftmax as fs

images, digits = load_digits(return_X_y=True)
train, test = slice(0, 1200), slice(1200, None)
classes, rounds, turns = 10, 30, 3


def cross_entropy(scores, data):
    """Called by XGBoost in each round, with float32 scores in C order, (rows, classes)."""
    labels = data.get_label().astype(np.int32)  # XGBoost holds labels as float32
    return fs.cross_entropy_grad_hess(scores, labels, hess_factor=2.0, hess_floor=1e-16)


def fit(objective=None):
    """The scores of the test images, and the seconds that training took."""
    # the same constant score for all classes to begin with: XGBoost may estimate it for its own
    # objectives
    parameters = {
        "objective": "multi:softprob",
        "num_class": classes,
        "base_score": 0.5,
        "nthread": 1,
    }
    data = xgb.DMatrix(images[train], digits[train])
    begin = time.perf_counter()
    model = xgb.train(parameters, data, num_boost_round=rounds, obj=objective)
    seconds = time.perf_counter() - begin
    return model.predict(xgb.DMatrix(images[test]), output_margin=True), seconds


results = {"built-in": [], "custom": []}
for _ in range(turns):
    results["built-in"].append(fit())
    results["custom"].append(fit(cross_entropy))
for name, fits in results.items():
    scores, seconds = min(fits, key=lambda fit: fit[1])
    loss, right = (
        fs.cross_entropy(scores, digits[test]),
        np.mean(scores.argmax(axis=-1) == digits[test]),
    )
    print(f"{name:>8}: loss {loss:.4f}, {right:.2%} right, trained in {seconds:.2f} s")

expected, scores = (fits[0][0] for fits in results.values())
difference = abs(fs.softmax(scores) - fs.softmax(expected)).max()
print("probabilities agree within 0.001:", difference <= 1e-3)
if difference > 1e-3:
    sys.exit(f"the largest difference is {difference}")

# Output:
# built-in: loss 0.4098, 87.60% right, trained in 0.09 s
#   custom: loss 0.4098, 87.60% right, trained in 0.13 s
# probabilities agree within 0.001: True
