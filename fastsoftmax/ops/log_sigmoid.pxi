# Kernels of log_sigmoid: see log_sigmoid.py for what they compute.

def log_sigmoid_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(LogSigmoid(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def log_sigmoid_plain(x, out, num_threads):
    return plain(x, out, num_threads, False, unary_plain[LogSigmoid, float], unary_plain[LogSigmoid, double])


def log_sigmoid_vjp_flat(const real[:, :] g, const real[:, :] x, real[:, :] out, Py_ssize_t num_threads):
    with nogil:
        binary(LogSigmoidVjp(), &g[0, 0], g.strides, &x[0, 0], x.strides, &out[0, 0], out.strides, g.shape, num_threads, execute)
