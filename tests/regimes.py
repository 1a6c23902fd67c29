"""Calls of every public function in every regime of the kernels,
for what a process must survive.
"""

import itertools

import numpy as np

import fastsoftmax as fs

try:
    import ml_dtypes
except ImportError:
    BFLOAT16 = np.float16
else:
    BFLOAT16 = ml_dtypes.bfloat16

# Single elements; short rows, few and many; rows in batches; longer ones; rows of several chunks.
SHAPES = [
    (1, 1),
    (2, 10),
    (300, 10),
    (65, 31),
    (70, 40),
    (70, 150),
    (9, 3000),
    (3, 20000),
    (3, 33000),
]
# With axis 0: short columns, tiles of a few rows and of many, strips that fit the cache and that do
# not.
COLUMNS = [(10, 300), (10, 700), (60, 200), (300, 130), (50, 700)]
# The same with work for two threads.
LARGE = [(7000, 10), (2000, 35), (1100, 65), (500, 150), (25, 3000), (3, 33000), (1, 70000)]
LARGE_COLUMNS = [(10, 7000), (60, 1200), (300, 250), (1100, 600)]
KINDS = [
    (np.float32, "contiguous"),
    (np.float64, "contiguous"),
    (np.float16, "contiguous"),
    (np.float64, "strided"),
    (BFLOAT16, "strided"),
]


def of_logits(x, axis, n, rows):
    """Functions of a matrix of logits, `rows` being the number of these."""
    labels = np.arange(rows) % n
    several = np.expand_dims(labels, axis)
    t = np.where(np.arange(rows) % 2, 1.0, 2.0).reshape(several.shape)
    where = np.ones(x.shape, bool)
    p = fs.softmax(x, axis)
    b = np.ones(x.shape, np.float64)
    g = np.ones(rows, x.dtype)
    wide = p.astype(np.float64)
    yield "softmax", lambda: fs.softmax(x, axis)
    yield "softmax, temperatures", lambda: fs.softmax(x, axis, temperature=t)
    yield "softmax, where", lambda: fs.softmax(x, axis, where=where)
    yield "softmin", lambda: fs.softmin(x, axis)
    yield "log_softmax", lambda: fs.log_softmax(x, axis)
    yield "log_softmax, temperatures", lambda: fs.log_softmax(x, axis, temperature=t)
    yield "log_softmax, base", lambda: fs.log_softmax(x, axis, base=2.0, where=where)
    yield "logsumexp", lambda: fs.logsumexp(x, axis)
    yield "logsumexp, where", lambda: fs.logsumexp(x, axis, where=where, base=2.0)
    yield "logsumexp, b", lambda: fs.logsumexp(x, axis, b=b)
    yield "softmax_vjp", lambda: fs.softmax_vjp(p, p, axis)
    yield "log_softmax_vjp", lambda: fs.log_softmax_vjp(p, p, axis, temperature=t)
    yield "logsumexp_vjp", lambda: fs.logsumexp_vjp(g, x, axis)
    yield "square_normalize", lambda: fs.square_normalize(x, axis)
    yield "square_normalize, where", lambda: fs.square_normalize(x, axis, where=where)
    yield "square_normalize_vjp", lambda: fs.square_normalize_vjp(p, x, axis)
    yield "hardmax", lambda: fs.hardmax(x, axis)
    yield "logprobs", lambda: fs.logprobs(x, labels, axis)
    yield "logprobs, several", lambda: fs.logprobs(x, several, axis, temperature=t)
    yield "top_k_logprobs", lambda: fs.top_k_logprobs(x, min(n, 5), axis)
    yield "fit_temperature", lambda: fs.fit_temperature(x, np.argmax(x, axis), axis)
    yield "cross_entropy", lambda: fs.cross_entropy(x, labels, axis)
    yield (
        "cross_entropy, none",
        lambda: fs.cross_entropy(x, labels, axis, reduction="none", where=where),
    )
    yield "cross_entropy, gradient", lambda: fs.cross_entropy_value_and_grad(x, labels, axis)
    yield (
        "cross_entropy, options",
        lambda: fs.cross_entropy_value_and_grad(
            x, labels, axis, temperature=t, z_loss=0.1, label_smoothing=0.1, weight=np.ones(n)
        ),
    )
    yield (
        "cross_entropy, z_loss",
        lambda: fs.cross_entropy_value_and_grad(x, labels, axis, z_loss=0.1),
    )
    yield (
        "cross_entropy, targets",
        lambda: fs.cross_entropy_value_and_grad(x, wide, axis, weight=np.ones(n)),
    )
    yield "cross_entropy_grad_hess", lambda: fs.cross_entropy_grad_hess(x, labels, axis)
    yield "nll_loss", lambda: fs.nll_loss_value_and_grad(x, labels, axis)
    yield "nll_loss, targets", lambda: fs.nll_loss_value_and_grad(x, wide, axis)
    yield "kl_divergence", lambda: fs.kl_divergence_value_and_grad(x, wide, axis)
    yield "kl_divergence, log_target", lambda: fs.kl_divergence(x, x, axis, log_target=True)
    yield (
        "kl_divergence_from_logits",
        lambda: fs.kl_divergence_from_logits_value_and_grad(x, x[::-1], axis, temperature=t),
    )


def of_elements(x):
    p = fs.sigmoid(x)
    w = np.full(x.shape, 2.0)
    for function in (fs.sigmoid, fs.log_sigmoid, fs.softplus):
        yield function.__name__, lambda f=function: f(x)
    for function in (fs.sigmoid_vjp, fs.log_sigmoid_vjp, fs.softplus_vjp):
        yield function.__name__, lambda f=function: f(p, p)
    yield "logit", lambda: fs.logit(p)
    yield "binary_cross_entropy", lambda: fs.binary_cross_entropy_value_and_grad(p, p, weight=w)
    with_logits = fs.binary_cross_entropy_with_logits_value_and_grad
    yield "binary_cross_entropy_with_logits", lambda: with_logits(x, p)
    yield (
        "binary_cross_entropy_with_logits, options",
        lambda: with_logits(x, p, weight=w, pos_weight=w),
    )
    grad_hess = fs.binary_cross_entropy_with_logits_grad_hess
    yield "binary_cross_entropy_with_logits_grad_hess", lambda: grad_hess(x, p, sample_weight=w)


def laid_out(x, layout):
    """The numbers of a matrix, in a layout of `KINDS`."""
    if layout == "strided":
        return np.repeat(x, 2, axis=-1)[:, ::2]
    return np.asfortranarray(x) if layout == "Fortran" else x


def calls_of(x, axis):
    """(name, function without arguments) of every call on a matrix;
    of elementwise functions for one axis.
    """
    yield from of_logits(x, axis, x.shape[axis], x.shape[1 - axis])
    if axis:
        yield from of_elements(x)


def calls(shapes=SHAPES, columns=COLUMNS, kinds=KINDS):
    """(name, function without arguments) of every call."""
    rng = np.random.default_rng(7)
    places = [(shape, 1) for shape in shapes] + [(shape, 0) for shape in columns]
    for (shape, axis), (dtype, layout) in itertools.product(places, kinds):
        x = laid_out(rng.normal(0, 3, shape).astype(dtype), layout)
        for name, call in calls_of(x, axis):
            yield f"{name} of {layout} {shape} {np.dtype(dtype).name}, axis {axis}", call


def make_all(kinds, large=False):
    with np.errstate(all="ignore"):
        for name, call in calls(LARGE, LARGE_COLUMNS, kinds) if large else calls(kinds=kinds):
            print(name, flush=True)  # the last one is the one that crashed
            call()
    print("done")
