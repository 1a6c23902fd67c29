# Kernels of hardmax: see hardmax.py for what they compute.

cdef extern from "ops/hardmax.h" namespace "fs" nogil:
    void hardmax(const AnyView&, const AnyView&, Py_ssize_t) noexcept


def hardmax_rows(cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyView source = any_view(x), to = any_view(out)
    with nogil:
        hardmax(source, to, num_threads)
        settled()
