# Kernels of cross_entropy: see cross_entropy.py for what they compute.

cdef extern from "ops/cross_entropy.h" namespace "fs" nogil:
    cppclass CrossEntropyArguments(Rows):
        AnyView target, loss, gradient, weight, sample_weight
        Py_ssize_t ignored
        double smoothing, z_loss, scale
    double cross_entropy(CrossEntropyArguments&, Py_ssize_t) noexcept
    double plain_cross_entropy[C](
        const void*, const void*, Number, void*, Py_ssize_t, Py_ssize_t, double,
        Py_ssize_t) noexcept


cdef extern from "ops/cross_entropy_grad_hess.h" namespace "fs" nogil:
    cppclass GradHessArguments:
        AnyView x, target, sample_weight, gradient, hessian
        double factor, floor
    void cross_entropy_grad_hess(GradHessArguments&, Py_ssize_t) noexcept


def cross_entropy_rows(
        cnp.ndarray x, cnp.ndarray target, cnp.ndarray loss, cnp.ndarray grad, cnp.ndarray weight,
        cnp.ndarray sample_weight, const double[:, :] temperature,
        const unsigned char[:, :, :] where, Py_ssize_t ignored, double label_smoothing,
        double z_loss, double scale, Py_ssize_t num_threads):
    cdef CrossEntropyArguments a
    cdef double total
    a.x = any_view(x)
    a.target = any_view(target)
    a.weight = any_view(weight)
    a.sample_weight = any_view(sample_weight)
    a.loss, a.gradient = any_view(loss), any_view(grad)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    a.ignored, a.smoothing, a.z_loss, a.scale = ignored, label_smoothing, z_loss, scale
    with nogil:
        total = cross_entropy(a, num_threads)
        settled()
    return total


def cross_entropy_plain(logits, targets, axis, reduction, gradient, out, num_threads):
    return plain_loss(
        logits, targets, axis, reduction, gradient, out, num_threads, True,
        plain_cross_entropy[float], plain_cross_entropy[double])


def cross_entropy_grad_hess_rows(
        cnp.ndarray x, cnp.ndarray target, cnp.ndarray grad, cnp.ndarray hess,
        cnp.ndarray sample_weight, double hess_factor, double hess_floor, Py_ssize_t num_threads):
    cdef GradHessArguments a
    a.x, a.target, a.sample_weight = any_view(x), any_view(target), any_view(sample_weight)
    a.gradient, a.hessian = any_view(grad), any_view(hess)
    a.factor, a.floor = hess_factor, hess_floor
    with nogil:
        cross_entropy_grad_hess(a, num_threads)
        settled()
