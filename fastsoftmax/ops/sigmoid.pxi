# Kernels of sigmoid: see sigmoid.py for what they compute.

cdef extern from "ops/sigmoid.h" namespace "fs" nogil:
    cppclass Sigmoid:
        Sigmoid() noexcept
    cppclass SigmoidVjp:
        SigmoidVjp() noexcept


def sigmoid_flat(cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyArray source = any_array(x), to = any_array(out)
    with nogil:
        unary(Sigmoid(), source, to, num_threads)
        settled()


def sigmoid_plain(x, out, num_threads):
    return plain(
        x, None, out, num_threads, False, plain_unary[Sigmoid, float], plain_unary[Sigmoid, double])


def sigmoid_vjp_flat(cnp.ndarray g, cnp.ndarray y, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyArray slope = any_array(g), source = any_array(y), to = any_array(out)
    with nogil:
        binary(SigmoidVjp(), slope, source, to, num_threads)
        settled()


def sigmoid_vjp_plain(g, y, out, num_threads):
    return plain_pair(
        g, y, None, out, num_threads, False, plain_binary[SigmoidVjp, float],
        plain_binary[SigmoidVjp, double])
