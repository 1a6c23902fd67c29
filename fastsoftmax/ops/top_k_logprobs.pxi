# Kernels of top_k_logprobs: see top_k_logprobs.py for what they compute.

def top_k_logprobs_rows(const real[:, :, :] x, real[:, :, :] values, Py_ssize_t[:, :, :] indices, const double[:, :] temperature,
                        Py_ssize_t num_threads):
    cdef LogprobsArguments[real] a
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_out(&values[0, 0, 0], values.shape, values.strides)
    a.set_indices(&indices[0, 0, 0], indices.shape, indices.strides)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    with nogil:
        logprobs(a, num_threads, execute)
