# Kernels of cross_entropy: see cross_entropy.py for what they compute.

def cross_entropy_rows(const real[:, :, :] x, cnp.ndarray target, real[:, :] loss, real[:, :, :] grad, cnp.ndarray weight,
                       cnp.ndarray sample_weight, const double[:, :] temperature, const unsigned char[:, :, :] where, Py_ssize_t ignored,
                       double label_smoothing, double z_loss, double scale, Py_ssize_t num_threads):
    cdef CrossEntropyArguments[real] a
    cdef double total
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_target(any_view(target), target.descr.kind != c'f')
    if loss is not None:
        a.set_loss(&loss[0, 0], loss.shape, loss.strides)
    if grad is not None:
        a.set_gradient(&grad[0, 0, 0], grad.shape, grad.strides)
    a.set_weights(any_view(weight), any_view(sample_weight))
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    a.set_options(ignored, label_smoothing, z_loss, scale)
    with nogil:
        total = cross_entropy(a, num_threads, execute)
    return total


def cross_entropy_plain(logits, targets, reduction, gradient, out, num_threads):
    return plain_loss(logits, targets, reduction, gradient, out, num_threads, True, plain_cross_entropy[float], plain_cross_entropy[double])


def cross_entropy_grad_hess_rows(const real[:, :, :] x, cnp.ndarray target, real[:, :, :] grad, real[:, :, :] hess,
                                 cnp.ndarray sample_weight, double hess_factor, double hess_floor, Py_ssize_t num_threads):
    cdef GradHessArguments[real] a
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_target(any_view(target), target.descr.kind != c'f')
    a.set_sample_weight(any_view(sample_weight))
    a.set_gradient(&grad[0, 0, 0], grad.shape, grad.strides)
    a.set_hessian(&hess[0, 0, 0], hess.shape, hess.strides)
    a.set_options(hess_factor, hess_floor)
    with nogil:
        cross_entropy_grad_hess(a, num_threads, execute)
