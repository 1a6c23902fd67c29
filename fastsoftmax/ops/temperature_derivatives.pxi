# Kernels of temperature_derivatives: see temperature_derivatives.py for what they compute.

def temperature_derivatives_rows(const real[:, :, :] x, cnp.ndarray labels, cnp.ndarray sample_weight, double inverse_temperature,
                                 Py_ssize_t num_threads):
    cdef AnyView y = any_view(labels)
    cdef AnyView w = any_view(sample_weight)
    cdef double results[3]
    with nogil:
        temperature_derivatives(&x[0, 0, 0], x.shape, x.strides, y, w, inverse_temperature, results, num_threads, execute)
    return results[0], results[1], results[2]
