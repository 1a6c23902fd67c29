# Kernels of softplus: see softplus.py for what they compute.

cdef extern from "ops/softplus.h" namespace "fs" nogil:
    cppclass Softplus:
        Softplus() noexcept
    cppclass SoftplusVjp:
        SoftplusVjp() noexcept


def softplus_flat(cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyArray source = any_array(x), to = any_array(out)
    with nogil:
        unary(Softplus(), source, to, num_threads)
        settled()


def softplus_plain(x, out, num_threads):
    return plain(
        x, None, out, num_threads, False, plain_unary[Softplus, float],
        plain_unary[Softplus, double])


def softplus_vjp_flat(cnp.ndarray g, cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyArray slope = any_array(g), source = any_array(x), to = any_array(out)
    with nogil:
        binary(SoftplusVjp(), slope, source, to, num_threads)
        settled()


def softplus_vjp_plain(g, x, out, num_threads):
    return plain_pair(
        g, x, None, out, num_threads, False, plain_binary[SoftplusVjp, float],
        plain_binary[SoftplusVjp, double])
