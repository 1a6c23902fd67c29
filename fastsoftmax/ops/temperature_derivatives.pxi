# Kernels of temperature_derivatives: see temperature_derivatives.py for what they compute.

cdef extern from "ops/temperature_derivatives.h" namespace "fs" nogil:
    void temperature_derivatives(
        const AnyView&, const AnyView&, const AnyView&, double, double*, Py_ssize_t) noexcept


def temperature_derivatives_rows(
        cnp.ndarray x, cnp.ndarray labels, cnp.ndarray sample_weight, double inverse_temperature,
        Py_ssize_t num_threads):
    cdef AnyView scores = any_view(x), y = any_view(labels), w = any_view(sample_weight)
    cdef double results[3]
    with nogil:
        temperature_derivatives(scores, y, w, inverse_temperature, results, num_threads)
        settled()
    return results[0], results[1], results[2]
