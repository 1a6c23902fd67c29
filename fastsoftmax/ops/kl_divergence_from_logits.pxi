# Kernels of kl_divergence_from_logits: see kl_divergence_from_logits.py for what they compute.

def kl_divergence_from_logits_rows(const real[:, :, :] x, cnp.ndarray target, real[:, :] loss, real[:, :, :] grad, const double[:, :] temperature,
                                   double scale, Py_ssize_t num_threads):
    cdef LogitsDivergenceArguments[real] a
    cdef double total
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_target(any_view(target))
    if loss is not None:
        a.set_loss(&loss[0, 0], loss.shape, loss.strides)
    if grad is not None:
        a.set_gradient(&grad[0, 0, 0], grad.shape, grad.strides)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    a.set_scale(scale)
    with nogil:
        total = logits_divergence(a, num_threads, execute)
    return total
