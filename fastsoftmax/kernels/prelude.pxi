# What every room's kernels share. Included once at the head of every module of kernels/.

cimport numpy as cnp
from cython.parallel cimport prange

cnp.import_array()

ctypedef fused in_t:
    float
    double

ctypedef fused out_t:
    float
    double

ctypedef fused real:
    float
    double


cdef extern from "work.h" namespace "fs" nogil:
    cppclass Work:
        Py_ssize_t pieces() noexcept
        void run(Py_ssize_t) noexcept
        bint advance() noexcept
    ctypedef void (*Execute)(Work*, Py_ssize_t) noexcept nogil


cdef extern from "normalize.h" namespace "fs" nogil:
    cppclass Softmax:
        Softmax() noexcept
    cppclass LogSoftmax:
        LogSoftmax() noexcept
    cppclass LogSumExp:
        LogSumExp() noexcept
    cppclass LogSumExpVjp:
        LogSumExpVjp() noexcept
    cppclass NormalizeArguments[In, Out]:
        void set_x(const In*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_out(Out*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_reduced_out(Out*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_gradient(const Out*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_temperature(const double*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_where(const unsigned char*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_ln_base(double, double) noexcept
    void normalize[Kind, In, Out](Kind, NormalizeArguments[In, Out]&, Py_ssize_t, Execute) noexcept
    void normalize_small[Kind, T](const void*, void*, Py_ssize_t, Py_ssize_t, Execute) noexcept


cdef extern from "weighted.h" namespace "fs" nogil:
    void weighted_logsumexp[In, Out](
        NormalizeArguments[In, Out]&, const double*, const Py_ssize_t*, const Py_ssize_t*, Py_ssize_t, Execute) noexcept


cdef extern from "vjp.h" namespace "fs" nogil:
    cppclass SoftmaxVjp:
        SoftmaxVjp() noexcept
    cppclass LogSoftmaxVjp:
        LogSoftmaxVjp() noexcept
    cppclass VjpArguments[T]:
        void set_g(const T*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_y(const T*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_out(T*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_temperature(const double*, const Py_ssize_t*, const Py_ssize_t*) noexcept
    void vjp[Op, T](Op, VjpArguments[T]&, Py_ssize_t, Execute) noexcept


cdef extern from "flat.h" namespace "fs" nogil:
    cppclass Sigmoid:
        Sigmoid() noexcept
    cppclass LogSigmoid:
        LogSigmoid() noexcept
    cppclass Softplus:
        Softplus() noexcept
    cppclass Logit:
        Logit() noexcept
    cppclass SigmoidVjp:
        SigmoidVjp() noexcept
    cppclass LogSigmoidVjp:
        LogSigmoidVjp() noexcept
    cppclass SoftplusVjp:
        SoftplusVjp() noexcept
    void unary[Op, In, Out](
        Op, const In*, const Py_ssize_t*, const Py_ssize_t*, Out*, const Py_ssize_t*, Py_ssize_t, Execute) noexcept
    void binary[Op, T](
        Op, const T*, const Py_ssize_t*, const T*, const Py_ssize_t*, T*, const Py_ssize_t*, const Py_ssize_t*, Py_ssize_t,
        Execute) noexcept
    void unary_small[Op, T](const void*, void*, Py_ssize_t, Execute) noexcept


# All stages of a piece of work. The serial branch stands apart because an OpenMP region costs a microsecond even for one thread.
cdef void execute(Work* work, Py_ssize_t threads) noexcept nogil:
    cdef Py_ssize_t piece, pieces
    cdef int team
    cdef bint more = True
    while more:
        pieces = work.pieces()
        team = <int> min(threads, pieces)
        if team <= 1:
            for piece in range(pieces):
                work.run(piece)
        else:
            for piece in prange(pieces, num_threads=team, schedule="static"):
                work.run(piece)
        more = work.advance()


# The short lane: arrays up to so many elements go straight from the public function to the row routine.
cdef Py_ssize_t SMALL = 4096


# Whether x is a plain array the short lane takes: native float32 or float64, C-contiguous, aligned, small, not 0-d and not empty.
cdef inline bint is_small(object x) noexcept:
    if not cnp.PyArray_CheckExact(x) or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x):
        return False
    if cnp.PyArray_TYPE(<cnp.ndarray> x) != cnp.NPY_FLOAT and cnp.PyArray_TYPE(<cnp.ndarray> x) != cnp.NPY_DOUBLE:
        return False
    return cnp.PyArray_NDIM(<cnp.ndarray> x) > 0 and 0 < cnp.PyArray_SIZE(x) <= SMALL


# A new array of x's dtype and of x's shape without the last `dropped` axes.
cdef inline cnp.ndarray new_like(cnp.ndarray x, int dropped):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x) - dropped, cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)


cdef inline bint is_float(cnp.ndarray x) noexcept:
    return cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT


cdef inline Py_ssize_t last_length(cnp.ndarray x) noexcept:
    return cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
