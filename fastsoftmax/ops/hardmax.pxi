# Kernels of hardmax: see hardmax.py for what they compute.

def hardmax_rows(const in_t[:, :, :] x, out_t[:, :, :] out, Py_ssize_t num_threads):
    with nogil:
        hardmax(&x[0, 0, 0], x.shape, x.strides, &out[0, 0, 0], out.strides, num_threads, execute)
