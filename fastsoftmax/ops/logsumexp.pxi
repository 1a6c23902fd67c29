# Kernels of logsumexp: see logsumexp.py for what they compute.

def logsumexp_rows(const in_t[:, :, :] x, const double[:, :, :] b, out_t[:, :] out, tuple ln_base,
                   const unsigned char[:, :, :] where, Py_ssize_t num_threads):
    cdef NormalizeArguments[in_t, out_t] a
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_reduced_out(&out[0, 0], out.shape, out.strides)
    a.set_ln_base(ln_base[0], ln_base[1])
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    with nogil:
        if b is None:
            normalize(LogSumExp(), a, num_threads, execute)
        else:
            weighted_logsumexp(a, &b[0, 0, 0], b.shape, b.strides, num_threads, execute)


def logsumexp_plain(x, out, num_threads):
    return plain(x, out, num_threads, True, normalize_plain[LogSumExp, float], normalize_plain[LogSumExp, double])


def logsumexp_vjp_rows(const real[:, :] g, const real[:, :, :] x, real[:, :, :] out, Py_ssize_t num_threads):
    cdef NormalizeArguments[real, real] a
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_gradient(&g[0, 0], g.shape, g.strides)
    a.set_out(&out[0, 0, 0], out.shape, out.strides)
    with nogil:
        normalize(LogSumExpVjp(), a, num_threads, execute)
