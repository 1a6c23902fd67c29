# Kernels of sigmoid: see sigmoid.py for what they compute.

def sigmoid_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(Sigmoid(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def sigmoid_plain(x, out, num_threads):
    return plain(x, out, num_threads, False, unary_plain[Sigmoid, float], unary_plain[Sigmoid, double])


def sigmoid_vjp_flat(const real[:, :] g, const real[:, :] y, real[:, :] out, Py_ssize_t num_threads):
    with nogil:
        binary(SigmoidVjp(), &g[0, 0], g.strides, &y[0, 0], y.strides, &out[0, 0], out.strides, g.shape, num_threads, execute)
