# Kernels of hardmax: see hardmax.py for what they compute.

def hardmax_rows(cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyView source = any_view(x), to = any_view(out)
    with nogil:
        hardmax(source, to, num_threads)
        settled()
