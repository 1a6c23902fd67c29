# Kernels of kl_divergence: see kl_divergence.py for what they compute.

cdef extern from "ops/kl_divergence.h" namespace "fs" nogil:
    cppclass Divergence:
        Divergence() noexcept
    cppclass DivergenceOfLogs:
        DivergenceOfLogs() noexcept


def kl_divergence_rows(
        cnp.ndarray log_q, cnp.ndarray p, cnp.ndarray loss, cnp.ndarray grad, bint log_target,
        double scale, Py_ssize_t num_threads):
    cdef PointwiseArguments a
    cdef double total
    a.x, a.target = any_view(log_q), any_view(p)
    a.loss, a.gradient = any_view(loss), any_view(grad)
    a.scale = scale
    with nogil:
        if log_target:
            total = rows_loss(DivergenceOfLogs(), a, num_threads)
            settled()
        else:
            total = rows_loss(Divergence(), a, num_threads)
            settled()
    return total
