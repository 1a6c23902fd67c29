# Kernels of kl_divergence_from_logits: see kl_divergence_from_logits.py for what they compute.

cdef extern from "ops/kl_divergence_from_logits.h" namespace "fs" nogil:
    cppclass LogitsDivergenceArguments(Rows):
        AnyView target, loss, gradient
        double scale
    double logits_divergence(LogitsDivergenceArguments&, Py_ssize_t) noexcept


def kl_divergence_from_logits_rows(
        cnp.ndarray x, cnp.ndarray target, cnp.ndarray loss, cnp.ndarray grad,
        const double[:, :] temperature, double scale, Py_ssize_t num_threads):
    cdef LogitsDivergenceArguments a
    cdef double total
    a.x, a.target = any_view(x), any_view(target)
    a.loss, a.gradient = any_view(loss), any_view(grad)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    a.scale = scale
    with nogil:
        total = logits_divergence(a, num_threads)
        settled()
    return total
