# Kernels of logprobs: see logprobs.py for what they compute.

def logprobs_rows(const real[:, :, :] x, cnp.ndarray ids, real[:, :, :] out, const double[:, :] temperature, Py_ssize_t num_threads):
    cdef LogprobsArguments[real] a
    a.set_x(&x[0, 0, 0], x.shape, x.strides)
    a.set_ids(any_view(ids))
    a.set_out(&out[0, 0, 0], out.shape, out.strides)
    a.set_temperature(&temperature[0, 0], temperature.shape, temperature.strides)
    with nogil:
        logprobs(a, num_threads, execute)
