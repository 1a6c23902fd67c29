"""Batched, stable softmax, log-softmax, sigmoid, their gradients and losses,
for NumPy arrays on CPUs.
"""

from ._backend import config, show_config, use_backend
from ._memory import set_buffer_pool
from ._threads import get_num_threads, set_num_threads
from .calibration import fit_temperature
from .ops.binary_cross_entropy import binary_cross_entropy, binary_cross_entropy_value_and_grad
from .ops.binary_cross_entropy_with_logits import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_grad_hess,
    binary_cross_entropy_with_logits_value_and_grad,
)
from .ops.cross_entropy import cross_entropy, cross_entropy_grad_hess, cross_entropy_value_and_grad
from .ops.hardmax import hardmax
from .ops.kl_divergence import kl_divergence, kl_divergence_value_and_grad
from .ops.kl_divergence_from_logits import (
    kl_divergence_from_logits,
    kl_divergence_from_logits_value_and_grad,
)
from .ops.log_sigmoid import log_sigmoid, log_sigmoid_vjp
from .ops.log_softmax import log_softmax, log_softmax_vjp
from .ops.logit import logit
from .ops.logprobs import logprobs
from .ops.logsumexp import logsumexp, logsumexp_vjp
from .ops.nll_loss import nll_loss, nll_loss_value_and_grad
from .ops.sigmoid import sigmoid, sigmoid_vjp
from .ops.softmax import softmax, softmax_vjp, softmin
from .ops.softplus import softplus, softplus_vjp
from .ops.square_normalize import square_normalize, square_normalize_vjp
from .ops.top_k_logprobs import top_k_logprobs

__version__ = "0.1.0"

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_value_and_grad",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_grad_hess",
    "binary_cross_entropy_with_logits_value_and_grad",
    "config",
    "cross_entropy",
    "cross_entropy_grad_hess",
    "cross_entropy_value_and_grad",
    "fit_temperature",
    "get_num_threads",
    "hardmax",
    "kl_divergence",
    "kl_divergence_from_logits",
    "kl_divergence_from_logits_value_and_grad",
    "kl_divergence_value_and_grad",
    "log_sigmoid",
    "log_sigmoid_vjp",
    "log_softmax",
    "log_softmax_vjp",
    "logit",
    "logprobs",
    "logsumexp",
    "logsumexp_vjp",
    "nll_loss",
    "nll_loss_value_and_grad",
    "set_buffer_pool",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "sigmoid_vjp",
    "softmax",
    "softmax_vjp",
    "softmin",
    "softplus",
    "softplus_vjp",
    "square_normalize",
    "square_normalize_vjp",
    "top_k_logprobs",
    "use_backend",
]
