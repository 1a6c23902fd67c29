# Kernels of softmax: see softmax.py for what they compute.

cdef extern from "ops/softmax.h" namespace "fs" nogil:
    cppclass SoftmaxArguments(Rows):
        AnyView out
    void softmax(SoftmaxArguments&, Py_ssize_t) noexcept
    void plain_softmax[T](const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept
    cppclass SoftmaxVjp:
        SoftmaxVjp() noexcept


def softmax_rows(cnp.ndarray x, cnp.ndarray out, const double[:, :] temperature, tuple ln_base,
                 const unsigned char[:, :, :] where, Py_ssize_t num_threads):
    cdef SoftmaxArguments a
    a.x, a.out = any_view(x), any_view(out)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    a.set_ln_base(ln_base[0], ln_base[1])
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    with nogil:
        softmax(a, num_threads)
        settled()


def softmax_plain(x, axis, out, num_threads):
    return plain(x, axis, out, num_threads, False, plain_softmax[float], plain_softmax[double])


def softmax_vjp_rows(cnp.ndarray g, cnp.ndarray y, cnp.ndarray out, const double[:, :] temperature,
                     Py_ssize_t num_threads):
    cdef RowMapArguments a
    a.input[0], a.input[1], a.out = any_view(g), any_view(y), any_view(out)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    with nogil:
        row_map(SoftmaxVjp(), a, num_threads)
        settled()


def softmax_vjp_plain(g, y, axis, out, num_threads):
    return plain_pair(
        g, y, axis, out, num_threads, False, plain_row_map_pair[SoftmaxVjp, float],
        plain_row_map_pair[SoftmaxVjp, double])
