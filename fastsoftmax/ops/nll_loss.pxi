# Kernels of nll_loss: see nll_loss.py for what they compute.

cdef extern from "ops/nll_loss.h" namespace "fs" nogil:
    cppclass Nll:
        Nll() noexcept
    double nll_labels_loss(PointwiseArguments&, Py_ssize_t, Py_ssize_t) noexcept


def nll_loss_rows(
        cnp.ndarray log_probs, cnp.ndarray target, cnp.ndarray loss, cnp.ndarray grad,
        cnp.ndarray weight, cnp.ndarray sample_weight, Py_ssize_t ignored, double scale,
        Py_ssize_t num_threads):
    cdef PointwiseArguments a
    cdef bint labels = is_integer(number_of(target))
    cdef double total
    a.x = any_view(log_probs)
    a.target = any_view(target)
    a.weight = any_view(weight)
    a.row_weight = any_view(sample_weight)
    a.loss, a.gradient = any_view(loss), any_view(grad)
    a.scale = scale
    with nogil:
        if labels:
            total = nll_labels_loss(a, ignored, num_threads)
        else:
            total = rows_loss(Nll(), a, num_threads)
        settled()
    return total
