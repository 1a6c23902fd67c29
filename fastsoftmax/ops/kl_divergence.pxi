# Kernels of kl_divergence: see kl_divergence.py for what they compute.

def kl_divergence_rows(const real[:, :, :] log_q, cnp.ndarray p, real[:, :] loss, real[:, :, :] grad, bint log_target, double scale,
                       Py_ssize_t num_threads):
    cdef PointwiseArguments[real] a
    cdef double total
    a.set_x(&log_q[0, 0, 0], log_q.shape, log_q.strides)
    a.set_target(any_view(p))
    if loss is not None:
        a.set_row_loss(&loss[0, 0], loss.shape, loss.strides)
    if grad is not None:
        a.set_gradient(&grad[0, 0, 0], grad.shape, grad.strides)
    a.set_scale(scale)
    with nogil:
        if log_target:
            total = rows_loss(DivergenceOfLogs(), a, num_threads, execute)
        else:
            total = rows_loss(Divergence(), a, num_threads, execute)
    return total
