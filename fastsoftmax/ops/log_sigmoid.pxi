# Kernels of log_sigmoid: see log_sigmoid.py for what they compute.

def log_sigmoid_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(LogSigmoid(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def log_sigmoid_small(x):
    if not is_small(x):
        return None
    cdef cnp.ndarray a = x, y = new_like(a, 0)
    if is_float(a):
        unary_small[LogSigmoid, float](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    else:
        unary_small[LogSigmoid, double](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    return y


def log_sigmoid_vjp_flat(const real[:, :] g, const real[:, :] x, real[:, :] out, Py_ssize_t num_threads):
    with nogil:
        binary(LogSigmoidVjp(), &g[0, 0], g.strides, &x[0, 0], x.strides, &out[0, 0], out.strides, g.shape, num_threads, execute)
