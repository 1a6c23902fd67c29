# Kernels of logit: see logit.py for what they compute.

cdef extern from "ops/logit.h" namespace "fs" nogil:
    cppclass Logit:
        Logit() noexcept


def logit_flat(cnp.ndarray x, cnp.ndarray out, Py_ssize_t num_threads):
    cdef AnyArray source = any_array(x), to = any_array(out)
    with nogil:
        unary(Logit(), source, to, num_threads)
        settled()


def logit_plain(x, out, num_threads):
    return plain(
        x, None, out, num_threads, False, plain_unary[Logit, float], plain_unary[Logit, double])
