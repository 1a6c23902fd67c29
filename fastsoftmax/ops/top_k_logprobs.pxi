# Kernels of top_k_logprobs: see top_k_logprobs.py for what they compute.

cdef extern from "ops/top_k_logprobs.h" namespace "fs" nogil:
    cppclass TopKArguments(Rows):
        AnyView out
        void set_indices(Py_ssize_t*, const Py_ssize_t*, const Py_ssize_t*) noexcept
    void top_k_logprobs(TopKArguments&, Py_ssize_t) noexcept


def top_k_logprobs_rows(
        cnp.ndarray x, cnp.ndarray values, Py_ssize_t[:, :, :] indices,
        const double[:, :] temperature, Py_ssize_t num_threads):
    cdef TopKArguments a
    a.x, a.out = any_view(x), any_view(values)
    a.set_indices(&indices[0, 0, 0], indices.shape, indices.strides)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    with nogil:
        top_k_logprobs(a, num_threads)
        settled()
