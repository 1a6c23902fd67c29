# Kernels of log_sigmoid: see log_sigmoid.py for what they compute.

cdef extern from "ops/log_sigmoid.h" namespace "fs" nogil:
    cppclass LogSigmoid:
        LogSigmoid() noexcept
    cppclass LogSigmoidVjp:
        LogSigmoidVjp() noexcept


def log_sigmoid_flat(cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyArray source = any_array(x), to = any_array(out)
    with nogil:
        unary(LogSigmoid(), source, to, num_threads)
        settled()


def log_sigmoid_plain(x, out, num_threads):
    return plain(
        x, None, out, num_threads, False, plain_unary[LogSigmoid, float],
        plain_unary[LogSigmoid, double])


def log_sigmoid_vjp_flat(cnp.ndarray g, cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyArray slope = any_array(g), source = any_array(x), to = any_array(out)
    with nogil:
        binary(LogSigmoidVjp(), slope, source, to, num_threads)
        settled()


def log_sigmoid_vjp_plain(g, x, out, num_threads):
    return plain_pair(
        g, x, None, out, num_threads, False, plain_binary[LogSigmoidVjp, float],
        plain_binary[LogSigmoidVjp, double])
