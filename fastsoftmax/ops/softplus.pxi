# Kernels of softplus: see softplus.py for what they compute.

def softplus_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(Softplus(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def softplus_small(x):
    if not is_small(x):
        return None
    cdef cnp.ndarray a = x, y = new_like(a, 0)
    if is_float(a):
        unary_small[Softplus, float](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    else:
        unary_small[Softplus, double](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    return y


def softplus_vjp_flat(const real[:, :] g, const real[:, :] x, real[:, :] out, Py_ssize_t num_threads):
    with nogil:
        binary(SoftplusVjp(), &g[0, 0], g.strides, &x[0, 0], x.strides, &out[0, 0], out.strides, g.shape, num_threads, execute)
