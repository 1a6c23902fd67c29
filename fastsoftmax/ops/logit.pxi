# Kernels of logit: see logit.py for what they compute.

def logit_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(Logit(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def logit_plain(x, out, num_threads):
    return plain(x, out, num_threads, False, unary_plain[Logit, float], unary_plain[Logit, double])
