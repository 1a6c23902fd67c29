"""Batched, stable softmax, log-softmax, log-sum-exp, sigmoid and their gradients for NumPy arrays on CPUs."""

from ._backend import config, show_config, use_backend
from ._threads import get_num_threads, set_num_threads
from .ops.log_sigmoid import log_sigmoid, log_sigmoid_vjp
from .ops.log_softmax import log_softmax, log_softmax_vjp
from .ops.logit import logit
from .ops.logsumexp import logsumexp, logsumexp_vjp
from .ops.sigmoid import sigmoid, sigmoid_vjp
from .ops.softmax import softmax, softmax_vjp, softmin
from .ops.softplus import softplus, softplus_vjp

__version__ = "0.1.0"

__all__ = [
    "config",
    "get_num_threads",
    "log_sigmoid",
    "log_sigmoid_vjp",
    "log_softmax",
    "log_softmax_vjp",
    "logit",
    "logsumexp",
    "logsumexp_vjp",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "sigmoid_vjp",
    "softmax",
    "softmax_vjp",
    "softmin",
    "softplus",
    "softplus_vjp",
    "use_backend",
]
