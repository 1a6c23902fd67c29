# Kernels of binary_cross_entropy_with_logits: see binary_cross_entropy_with_logits.py for what they compute.

def binary_cross_entropy_with_logits_flat(cnp.ndarray x, cnp.ndarray targets, cnp.ndarray loss, cnp.ndarray grad, cnp.ndarray weight,
                                          cnp.ndarray pos_weight, double scale, Py_ssize_t num_threads):
    cdef PointwiseArguments a
    cdef double total
    a.x, a.target, a.weight, a.positive = any_lines(x), any_lines(targets), any_lines(weight), any_lines(pos_weight)
    a.loss, a.gradient = any_lines(loss), any_lines(grad)
    a.scale = scale
    with nogil:
        total = binary_logits_loss(a, num_threads, execute)
        settled()
    return total


def binary_cross_entropy_with_logits_plain(logits, targets, reduction, gradient, out, num_threads):
    return plain_loss(logits, targets, reduction, gradient, out, num_threads, False, plain_binary_logits[float], plain_binary_logits[double])


def binary_cross_entropy_with_logits_grad_hess_flat(cnp.ndarray x, cnp.ndarray targets, cnp.ndarray grad, cnp.ndarray hess,
                                                    cnp.ndarray sample_weight, double hess_factor, double hess_floor, Py_ssize_t num_threads):
    cdef PointwiseArguments a
    a.x, a.target, a.weight = any_lines(x), any_lines(targets), any_lines(sample_weight)
    a.loss, a.gradient = any_lines(hess), any_lines(grad)
    with nogil:
        binary_grad_hess(a, hess_factor, hess_floor, num_threads, execute)
        settled()
