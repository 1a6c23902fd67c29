# Kernels of binary_cross_entropy_with_logits: see binary_cross_entropy_with_logits.py for what they
# compute.

cdef extern from "ops/binary_cross_entropy_with_logits.h" namespace "fs" nogil:
    cppclass BinaryGradHessArguments:
        AnyArray x, target, weight, gradient, hessian
        double factor, floor
    double binary_logits_loss(ElementArguments&, Py_ssize_t) noexcept
    double plain_binary_logits[C](
        const void*, const void*, Number, void*, Py_ssize_t, Py_ssize_t, double,
        Py_ssize_t) noexcept
    void binary_grad_hess(BinaryGradHessArguments&, Py_ssize_t) noexcept


def binary_cross_entropy_with_logits_flat(
        cnp.ndarray x, cnp.ndarray targets, cnp.ndarray loss, cnp.ndarray grad, cnp.ndarray weight,
        cnp.ndarray pos_weight, double scale, Py_ssize_t num_threads):
    cdef ElementArguments a
    cdef double total
    a.x = any_array(x)
    a.target = any_array(targets)
    a.weight = any_array(weight)
    a.positive = any_array(pos_weight)
    a.loss, a.gradient = any_array(loss), any_array(grad)
    a.scale = scale
    with nogil:
        total = binary_logits_loss(a, num_threads)
        settled()
    return total


def binary_cross_entropy_with_logits_plain(logits, targets, reduction, gradient, out, num_threads):
    return plain_loss(
        logits, targets, -1, reduction, gradient, out, num_threads, False,
        plain_binary_logits[float], plain_binary_logits[double])


def binary_cross_entropy_with_logits_grad_hess_flat(
        cnp.ndarray x, cnp.ndarray targets, cnp.ndarray grad, cnp.ndarray hess,
        cnp.ndarray sample_weight, double hess_factor, double hess_floor, Py_ssize_t num_threads):
    cdef BinaryGradHessArguments a
    a.x, a.target, a.weight = any_array(x), any_array(targets), any_array(sample_weight)
    a.gradient, a.hessian = any_array(grad), any_array(hess)
    a.factor, a.floor = hess_factor, hess_floor
    with nogil:
        binary_grad_hess(a, num_threads)
        settled()
