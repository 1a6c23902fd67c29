# Kernels of logit: see logit.py for what they compute.

def logit_flat(const in_t[:, :] x, out_t[:, :] out, Py_ssize_t num_threads):
    with nogil:
        unary(Logit(), &x[0, 0], x.shape, x.strides, &out[0, 0], out.strides, num_threads, execute)


def logit_small(x):
    if not is_small(x):
        return None
    cdef cnp.ndarray a = x, y = new_like(a, 0)
    if is_float(a):
        unary_small[Logit, float](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    else:
        unary_small[Logit, double](cnp.PyArray_DATA(a), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(a), execute)
    return y
