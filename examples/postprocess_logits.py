"""What follows a network's forward pass: post-processing of its float32 logits with NumPy alone.

The arrays stand for the outputs of an inference engine.
"""

import numpy as np

import fastsoftmax as fs

rng = np.random.default_rng(0)

# Classification, (batch, classes): the three most probable classes of each image, and their
# probabilities.
logits = rng.normal(0, 3, (4, 1000)).astype(np.float32)
log_p, top = fs.top_k_logprobs(logits, 3)  # one sweep; no probabilities of the other classes
for classes, p in zip(top.tolist(), np.exp(log_p), strict=True):
    print("classes", classes, "probabilities", p.round(3))

# Segmentation, (batch, classes, height, width): the classes are axis 1; the result replaces the
# logits.
maps = rng.normal(0, 3, (2, 21, 64, 64)).astype(np.float32)
fs.softmax(maps, axis=1, out=maps)
print("sum per pixel", maps.sum(axis=1).min().round(5), "to", maps.sum(axis=1).max().round(5))

# Attention with padding, (batch, heads, queries, keys): masked keys take no part, whatever their
# scores are.
scores = rng.normal(0, 1, (2, 4, 8, 8)).astype(np.float32)
lengths = np.array([8, 5])
present = np.arange(8) < lengths[:, None, None, None]
weights = fs.softmax(scores, temperature=np.sqrt(64), where=present)
print("weight of padding", weights[1, ..., 5:].sum())

# Labels that do not exclude each other: one yes or no each.
tags = np.array([2.0, -1.0, 0.5, -4.0], np.float32)
print("tags", np.flatnonzero(fs.sigmoid(tags) > 0.5), fs.sigmoid(tags).round(3))

# Output:
# classes [219, 270, 247] probabilities [0.234 0.092 0.05 ]
# classes [51, 94, 247] probabilities [0.113 0.105 0.076]
# classes [845, 990, 208] probabilities [0.177 0.072 0.069]
# classes [801, 251, 375] probabilities [0.232 0.067 0.041]
# sum per pixel 1.0 to 1.0
# weight of padding 0.0
# tags [0 2] [0.881 0.269 0.622 0.018]
