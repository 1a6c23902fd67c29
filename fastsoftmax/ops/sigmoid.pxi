# Kernels of sigmoid: see sigmoid.py for what they compute.

def sigmoid_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(Sigmoid(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def sigmoid_small(x):
    if not is_small(x):
        return None
    cdef cnp.ndarray a = x, y = new_like(a, 0)
    if is_float(a):
        unary_small[Sigmoid, float](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    else:
        unary_small[Sigmoid, double](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    return y


def sigmoid_vjp_flat(const real[:, :] g, const real[:, :] y, real[:, :] out, Py_ssize_t num_threads):
    with nogil:
        binary(SigmoidVjp(), &g[0, 0], g.strides, &y[0, 0], y.strides, &out[0, 0], out.strides, g.shape, num_threads, execute)
