# Kernels of logprobs: see logprobs.py for what they compute.

cdef extern from "ops/logprobs.h" namespace "fs" nogil:
    cppclass LogprobsArguments(Rows):
        AnyView ids, out
    void logprobs(LogprobsArguments&, Py_ssize_t) noexcept


def logprobs_rows(
        cnp.ndarray x, cnp.ndarray ids, cnp.ndarray out, const double[:, :] temperature,
        Py_ssize_t num_threads):
    cdef LogprobsArguments a
    a.x, a.ids, a.out = any_view(x), any_view(ids), any_view(out)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    with nogil:
        logprobs(a, num_threads)
        settled()
