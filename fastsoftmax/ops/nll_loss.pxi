# Kernels of nll_loss: see nll_loss.py for what they compute.

def nll_loss_rows(const real[:, :, :] log_probs, cnp.ndarray target, real[:, :] loss, real[:, :, :] grad, cnp.ndarray weight,
                  cnp.ndarray sample_weight, Py_ssize_t ignored, double scale, Py_ssize_t num_threads):
    cdef PointwiseArguments[real] a
    cdef bint labels = target.descr.kind != c'f'
    cdef double total
    a.set_x(&log_probs[0, 0, 0], log_probs.shape, log_probs.strides)
    a.set_target(any_view(target))
    a.set_weights(any_view(weight), any_view(sample_weight))
    if loss is not None:
        a.set_row_loss(&loss[0, 0], loss.shape, loss.strides)
    if grad is not None:
        a.set_gradient(&grad[0, 0, 0], grad.shape, grad.strides)
    a.set_scale(scale)
    with nogil:
        total = nll_labels_loss(a, ignored, num_threads, execute) if labels else rows_loss(Nll(), a, num_threads, execute)
    return total
