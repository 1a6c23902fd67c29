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


def softmax_plain(x, out, num_threads):
    return plain(x, out, num_threads, False, normalize_plain[Softmax, float], normalize_plain[Softmax, double])


def softmax_vjp_rows(const real[:, :, :] g, const real[:, :, :] y, real[:, :, :] out, const double[:, :] temperature,
                     Py_ssize_t num_threads):
    cdef VjpArguments[real] a
    a.set_g(&g[0, 0, 0], g.shape, g.strides)
    a.set_y(&y[0, 0, 0], y.shape, y.strides)
    a.set_out(&out[0, 0, 0], out.shape, out.strides)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    with nogil:
        vjp(SoftmaxVjp(), a, num_threads, execute)
