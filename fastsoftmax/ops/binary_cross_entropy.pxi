# Kernels of binary_cross_entropy: see binary_cross_entropy.py for what they compute.

cdef extern from "ops/binary_cross_entropy.h" namespace "fs" nogil:
    cppclass BinaryProbabilities:
        BinaryProbabilities() noexcept
        double clamp


def binary_cross_entropy_flat(
        cnp.ndarray probs, cnp.ndarray targets, cnp.ndarray loss, cnp.ndarray grad,
        cnp.ndarray weight, double clamp, double scale, Py_ssize_t num_threads):
    cdef ElementArguments a
    cdef double total
    a.x, a.target, a.weight = any_array(probs), any_array(targets), any_array(weight)
    a.loss, a.gradient = any_array(loss), any_array(grad)
    a.scale = scale
    cdef BinaryProbabilities op
    op.clamp = clamp
    with nogil:
        total = elements_loss(op, a, num_threads)
        settled()
    return total
