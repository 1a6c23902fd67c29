"""Handwritten digits: from a classifier's scores to calibrated probabilities.

A linear support vector machine gives scores, not probabilities. A temperature, fitted on held-out
images, turns them into probabilities that can be taken at their word. Requires scikit-learn.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

import fastsoftmax as fs

images, digits = load_digits(return_X_y=True)
images = images / 16
train, held_out, test = slice(0, 900), slice(900, 1350), slice(1350, None)

classifier = LinearSVC(C=1.0, random_state=0).fit(images[train], digits[train])
scores = classifier.decision_function(images[held_out])
best = fs.fit_temperature(scores, digits[held_out])

scores = classifier.decision_function(images[test])
print(f"temperature {best:.2f}")
for name, temperature in ("scores as they are", 1.0), ("with temperature", best):
    p = fs.softmax(scores, temperature=temperature)
    right = np.mean(p.argmax(-1) == digits[test])
    print(f"{name:>18}: {right:.1%} right, says {p.max(-1).mean():.1%}, ", end="")
    print(f"surprise {fs.cross_entropy(scores, digits[test], temperature=temperature):.2f}")

# Output:
# temperature 0.41
# scores as they are: 91.1% right, says 71.0%, surprise 0.51
#   with temperature: 91.1% right, says 92.7%, surprise 0.39
