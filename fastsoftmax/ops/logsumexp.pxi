# Kernels of logsumexp: see logsumexp.py for what they compute.

cdef extern from "ops/logsumexp.h" namespace "fs" nogil:
    cppclass LogSumExpArguments(Rows):
        AnyView out, gradient
    void logsumexp(LogSumExpArguments&, Py_ssize_t) noexcept
    void weighted_logsumexp(LogSumExpArguments&, const AnyView&, Py_ssize_t) noexcept
    void logsumexp_vjp(LogSumExpArguments&, Py_ssize_t) noexcept
    void plain_logsumexp[T](const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept
    void plain_logsumexp_vjp[T](
        const void*, const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept


def logsumexp_rows(cnp.ndarray x, cnp.ndarray b, cnp.ndarray out, tuple ln_base,
                   const unsigned char[:, :, :] where, Py_ssize_t num_threads):
    cdef LogSumExpArguments a
    cdef AnyView weights = any_view(b)
    a.x, a.out = any_view(x), any_view(out)
    a.set_ln_base(ln_base[0], ln_base[1])
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    cdef bint weighted = b is not None
    with nogil:
        if weighted:
            weighted_logsumexp(a, weights, num_threads)
        else:
            logsumexp(a, num_threads)
        settled()


def logsumexp_plain(x, axis, out, num_threads):
    return plain(x, axis, out, num_threads, True, plain_logsumexp[float], plain_logsumexp[double])


def logsumexp_vjp_rows(cnp.ndarray g, cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef LogSumExpArguments a
    a.x, a.gradient, a.out = any_view(x), any_view(g), any_view(out)
    with nogil:
        logsumexp_vjp(a, num_threads)
        settled()


def logsumexp_vjp_plain(g, x, axis, out, num_threads):
    return plain_pair(
        g, x, axis, out, num_threads, True, plain_logsumexp_vjp[float],
        plain_logsumexp_vjp[double])
