# Kernels of softmax: see softmax.py for what they compute.

def softmax_rows(const in_t[:, :, :] x, out_t[:, :, :] out, const double[:, :] temperature, tuple ln_base,
                 const unsigned char[:, :, :] where, Py_ssize_t num_threads):
    cdef NormalizeArguments[in_t, out_t] a
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_out(&out[0, 0, 0], out.shape, out.strides)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    a.set_ln_base(ln_base[0], ln_base[1])
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    with nogil:
        normalize(Softmax(), a, num_threads, execute)


def softmax_small(x):
    if not is_small(x):
        return None
    cdef cnp.ndarray a = x, y = new_like(a, 0)
    cdef Py_ssize_t n = last_length(a), rows = cnp.PyArray_SIZE(a) // n
    if is_float(a):
        normalize_small[Softmax, float](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), rows, n, execute)
    else:
        normalize_small[Softmax, double](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), rows, n, execute)
    return y


def softmax_vjp_rows(const real[:, :, :] g, const real[:, :, :] y, real[:, :, :] out, const double[:, :] temperature,
                     Py_ssize_t num_threads):
    cdef VjpArguments[real] a
    a.set_g(&g[0, 0, 0], g.shape, g.strides)
    a.set_y(&y[0, 0, 0], y.shape, y.strides)
    a.set_out(&out[0, 0, 0], out.shape, out.strides)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    with nogil:
        vjp(SoftmaxVjp(), a, num_threads, execute)
