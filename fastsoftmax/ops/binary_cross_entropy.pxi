# Kernels of binary_cross_entropy: see binary_cross_entropy.py for what they compute.

def binary_cross_entropy_flat(const real[:, :] probs, cnp.ndarray targets, real[:, :] loss, real[:, :] grad, cnp.ndarray weight, double clamp,
                              double scale, Py_ssize_t num_threads):
    cdef PointwiseArguments[real] a
    cdef double total
    a.set_line_x(&probs[0, 0], probs.shape, probs.strides)
    a.set_target(any_lines(targets))
    a.set_element_weights(any_lines(weight), AnyView())
    if loss is not None:
        a.set_line_loss(&loss[0, 0], loss.shape, loss.strides)
    if grad is not None:
        a.set_line_gradient(&grad[0, 0], grad.shape, grad.strides)
    a.set_scale(scale)
    cdef BinaryProbabilities op
    op.clamp = clamp
    with nogil:
        total = elements_loss(op, a, num_threads, execute)
    return total
