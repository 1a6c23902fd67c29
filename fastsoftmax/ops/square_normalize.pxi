# Kernels of square_normalize: see square_normalize.py for what they compute.

cdef extern from "ops/square_normalize.h" namespace "fs" nogil:
    cppclass SquareNormalize:
        SquareNormalize() noexcept
    cppclass SquareNormalizeVjp:
        SquareNormalizeVjp() noexcept


def square_normalize_rows(
        cnp.ndarray x, cnp.ndarray out, const unsigned char[:, :, :] where, Py_ssize_t num_threads):
    cdef RowMapArguments a
    a.input[0], a.out = any_view(x), any_view(out)
    if where is not None:
        a.set_where(&where[0, 0, 0], where.shape, where.strides)
    with nogil:
        row_map(SquareNormalize(), a, num_threads)
        settled()


def square_normalize_plain(x, axis, out, num_threads):
    return plain(
        x, axis, out, num_threads, False, plain_row_map[SquareNormalize, float],
        plain_row_map[SquareNormalize, double])


def square_normalize_vjp_rows(
        cnp.ndarray g, cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef RowMapArguments a
    a.input[0], a.input[1], a.out = any_view(g), any_view(x), any_view(out)
    with nogil:
        row_map(SquareNormalizeVjp(), a, num_threads)
        settled()


def square_normalize_vjp_plain(g, x, axis, out, num_threads):
    return plain_pair(
        g, x, axis, out, num_threads, False, plain_row_map_pair[SquareNormalizeVjp, float],
        plain_row_map_pair[SquareNormalizeVjp, double])
