# Kernels of binary_cross_entropy_with_logits: see binary_cross_entropy_with_logits.py for what they compute.

def binary_cross_entropy_with_logits_flat(const real[:, :] x, cnp.ndarray targets, real[:, :] loss, real[:, :] grad, cnp.ndarray weight,
                                          cnp.ndarray pos_weight, double scale, Py_ssize_t num_threads):
    cdef PointwiseArguments[real] a
    cdef double total
    a.set_line_x(&x[0, 0], x.shape, x.strides)
    a.set_target(any_lines(targets))
    a.set_element_weights(any_lines(weight), any_lines(pos_weight))
    if loss is not None:
        a.set_line_loss(&loss[0, 0], loss.shape, loss.strides)
    if grad is not None:
        a.set_line_gradient(&grad[0, 0], grad.shape, grad.strides)
    a.set_scale(scale)
    with nogil:
        total = binary_logits_loss(a, num_threads, execute)
    return total


def binary_cross_entropy_with_logits_plain(logits, targets, reduction, gradient, out, num_threads):
    return plain_loss(logits, targets, reduction, gradient, out, num_threads, False, plain_binary_logits[float], plain_binary_logits[double])


def binary_cross_entropy_with_logits_grad_hess_flat(const real[:, :] x, cnp.ndarray targets, real[:, :] grad, real[:, :] hess,
                                                    cnp.ndarray sample_weight, double hess_factor, double hess_floor, Py_ssize_t num_threads):
    cdef PointwiseArguments[real] a
    a.set_line_x(&x[0, 0], x.shape, x.strides)
    a.set_target(any_lines(targets))
    a.set_element_weights(any_lines(sample_weight), AnyView())
    a.set_line_gradient(&grad[0, 0], grad.shape, grad.strides)
    a.set_line_loss(&hess[0, 0], hess.shape, hess.strides)
    with nogil:
        binary_grad_hess(a, hess_factor, hess_floor, num_threads, execute)
