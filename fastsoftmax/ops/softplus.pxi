# Kernels of softplus: see softplus.py for what they compute.

def softplus_flat(cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyView source = any_lines(x), to = any_lines(out)
    with nogil:
        unary(Softplus(), source, to, num_threads, execute)
        settled()


def softplus_plain(x, out, num_threads):
    return plain(x, out, num_threads, False, unary_plain[Softplus, float], unary_plain[Softplus, double])


def softplus_vjp_flat(cnp.ndarray g, cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyView slope = any_lines(g), source = any_lines(x), to = any_lines(out)
    with nogil:
        binary(SoftplusVjp(), slope, source, to, num_threads, execute)
        settled()
