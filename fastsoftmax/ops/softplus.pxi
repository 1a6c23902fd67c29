# Kernels of softplus: see softplus.py for what they compute.

def softplus_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(Softplus(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def softplus_plain(x, out, num_threads):
    return plain(x, out, num_threads, False, unary_plain[Softplus, float], unary_plain[Softplus, double])


def softplus_vjp_flat(const real[:, :] g, const real[:, :] x, real[:, :] out, Py_ssize_t num_threads):
    with nogil:
        binary(SoftplusVjp(), &g[0, 0], g.strides, &x[0, 0], x.strides, &out[0, 0], out.strides, g.shape, num_threads, execute)
