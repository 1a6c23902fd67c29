# What every room's kernels share. Included once at the head of every module of kernels/.

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from cython.parallel cimport prange, threadid

cnp.import_array()

# Paths are those of the package: `kernels/` holds machinery, which every room may use; what an
# operation declares of its own header stands in its room.
cdef extern from "kernels/drivers/task.h" namespace "fs" nogil:
    cppclass Task:
        void begin() noexcept
        Py_ssize_t pieces() noexcept
        void run(Py_ssize_t) noexcept
        bint next_stage() noexcept
    cppclass Rooms:
        char* first
        void enter(Py_ssize_t) noexcept
    int affordable(int) noexcept
    Rooms rooms_for(const Task&, int&) noexcept
    void run_piece(Task*, Py_ssize_t, const Rooms&, int) noexcept
    void leave(const Rooms&) noexcept
    bint was_out_of_memory() noexcept
    void (*loop_over_pieces)(Task*, Py_ssize_t) noexcept nogil


cdef extern from "kernels/memory/view.h" namespace "fs" nogil:
    cppclass Number:
        pass
    cppclass Bytes:
        pass
    cppclass AnyView:
        Bytes bytes
        AnyView() noexcept
        AnyView(const void*, Number, const Py_ssize_t*, const Py_ssize_t*) noexcept
        @staticmethod
        AnyView per_row(const void*, Number, const Py_ssize_t*, const Py_ssize_t*) noexcept
    bint is_integer(Number) noexcept
    bint are_classes(const void*, Number, Py_ssize_t, Py_ssize_t) noexcept


cdef extern from "kernels/memory/number.h" namespace "fs::Number" nogil:
    Number float16, bfloat16, float32, float64, boolean
    Number int8, int16, int32, int64, uint8, uint16, uint32, uint64


cdef extern from "kernels/memory/number.h" namespace "fs::Bytes" nogil:
    Bytes native, misaligned, swapped


cdef extern from "kernels/memory/boxes.h" namespace "fs" nogil:
    cppclass AnyArray:
        AnyArray() noexcept
        AnyArray(const void*, Number, Bytes, int, const Py_ssize_t*, const Py_ssize_t*) noexcept


cdef extern from "kernels/drivers/regime.h" namespace "fs" nogil:
    cppclass RegimeLine:
        const char* name
        const char* condition
        const char* measured
    cppclass Decision:
        const char* operation() noexcept
        bint holds(const RegimeLine&) noexcept
    const RegimeLine[8] regime_table
    Decision forget_decision() noexcept
    void watch(bint) noexcept


cdef extern from "kernels/drivers/rows.h" namespace "fs" nogil:
    cppclass Rows:
        AnyView x
        void set_temperature(const double*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_where(const unsigned char*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_ln_base(double, double) noexcept


cdef extern from "kernels/drivers/row_map.h" namespace "fs" nogil:
    cppclass RowMapArguments:
        AnyView input[2]
        AnyView out
        void set_temperature(const double*, const Py_ssize_t*, const Py_ssize_t*) noexcept
        void set_where(const unsigned char*, const Py_ssize_t*, const Py_ssize_t*) noexcept
    void row_map[Op](Op, RowMapArguments&, Py_ssize_t) noexcept
    void plain_row_map[Op, T](const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept
    void plain_row_map_pair[Op, T](
        const void*, const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept


cdef extern from "kernels/drivers/elementwise.h" namespace "fs" nogil:
    void unary[Op](Op, const AnyArray&, const AnyArray&, Py_ssize_t) noexcept
    void binary[Op](Op, const AnyArray&, const AnyArray&, const AnyArray&, Py_ssize_t) noexcept
    void plain_unary[Op, T](const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept
    void plain_binary[Op, T](
        const void*, const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept


cdef extern from "kernels/drivers/element_losses.h" namespace "fs" nogil:
    cppclass ElementArguments:
        AnyArray x, target, weight, positive, loss, gradient
        double scale
    double elements_loss[Op](Op, ElementArguments&, Py_ssize_t) noexcept


cdef extern from "kernels/drivers/row_losses.h" namespace "fs" nogil:
    cppclass PointwiseArguments:
        AnyView x, target, weight, row_weight, loss, gradient
        double scale
    double rows_loss[Op](Op, PointwiseArguments&, Py_ssize_t) noexcept


# All stages of a piece of work, or nothing if there is too little memory: see settled(). The serial
# branch stands apart because an OpenMP region costs a microsecond even for one thread.
cdef void run_all(Task* work, Py_ssize_t threads) noexcept nogil:
    cdef Py_ssize_t piece, pieces = work.pieces()
    cdef int team = affordable(<int> max(1, min(threads, pieces)))
    cdef Rooms rooms = rooms_for(work[0], team)
    cdef bint more = rooms.first != NULL
    if more:
        rooms.enter(team)
        work.begin()
    while more:
        if team == 1:
            for piece in range(pieces):
                run_piece(work, piece, rooms, 0)
        else:
            for piece in prange(pieces, num_threads=team, schedule="static"):
                run_piece(work, piece, rooms, threadid())
        rooms.enter(0)
        more = work.next_stage()
    leave(rooms)


loop_over_pieces = run_all


# Must follow the call of every kernel: the error, if there was too little memory for it to begin.
cdef inline int settled() except -1 nogil:
    if was_out_of_memory():
        with gil:
            raise MemoryError("cannot allocate the memory to compute in")
    return 0


# Whether the drivers that run are remembered.
def watch_decisions(bint on):
    watch(on)


# Which driver ran last in this thread, by the table of regime.h: the operation, and for each line
# its name, condition, figure, and whether it holds. The first that does decides. None if nothing
# ran since it was asked last, or nobody watched.
def last_decision():
    cdef Decision last = forget_decision()
    cdef const RegimeLine* line
    cdef int k
    if last.operation() is NULL:
        return None
    lines = []
    for k in range(8):
        line = &regime_table[k]
        holds = bool(last.holds(line[0]))
        lines.append((line.name.decode(), line.condition.decode(), line.measured.decode(), holds))
    return last.operation().decode(), lines


# Arrays of any real dtype, or None. Typed memoryviews know no 16-bit floats, and would want every
# kernel once for each pair of dtypes; arrays that have one dtype only (temperatures, masks) are
# memoryviews. What is not native or not aligned is for kernels that read it through readers alone.
# (outer, n, inner), or (outer, inner): one value for each row.
cdef AnyView any_view(cnp.ndarray a) noexcept:
    if a is None:
        return AnyView()
    cdef AnyView view
    if cnp.PyArray_NDIM(a) == 2:
        view = AnyView.per_row(
            cnp.PyArray_DATA(a), number_of(a), <Py_ssize_t*> cnp.PyArray_DIMS(a),
            <Py_ssize_t*> cnp.PyArray_STRIDES(a))
    else:
        view = AnyView(
            cnp.PyArray_DATA(a), number_of(a), <Py_ssize_t*> cnp.PyArray_DIMS(a),
            <Py_ssize_t*> cnp.PyArray_STRIDES(a))
    view.bytes = bytes_of(a)
    return view


# Of any number of axes, for work element by element; the array must outlive it.
cdef AnyArray any_array(cnp.ndarray a) noexcept:
    if a is None:
        return AnyArray()
    return AnyArray(
        cnp.PyArray_DATA(a), number_of(a), bytes_of(a), cnp.PyArray_NDIM(a),
        <Py_ssize_t*> cnp.PyArray_DIMS(a), <Py_ssize_t*> cnp.PyArray_STRIDES(a))


cdef Bytes bytes_of(cnp.ndarray a) noexcept:
    if not cnp.PyArray_ISNOTSWAPPED(a):
        return swapped
    return native if cnp.PyArray_ISALIGNED(a) else misaligned


cdef Number number_of(cnp.ndarray a) noexcept:
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    if a.descr.kind == c'f':
        return float32 if size == 4 else float64 if size == 8 else float16
    if a.descr.kind == c'i':
        return int8 if size == 1 else int16 if size == 2 else int32 if size == 4 else int64
    if a.descr.kind == c'b':
        return boolean
    if a.descr.kind == c'V':
        return bfloat16
    return uint8 if size == 1 else uint16 if size == 2 else uint32 if size == 4 else uint64


# The short lane. Plain arrays with default options go straight from the public function to the row
# routines: no views, no memoryviews.
ctypedef void (*Plain)(
    const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef Py_ssize_t TINY = 4096  # elements below which it does not pay to let other Python threads run
cdef Py_ssize_t POOLED = 1 << 22  # bytes from which _memory may have kept an array
# elements below which nobody need be asked for a number of threads; _threads would say 1
cdef Py_ssize_t SERIAL = 16384


# PyArray_SIZE without a call.
cdef inline Py_ssize_t size_of(cnp.ndarray a) noexcept:
    cdef Py_ssize_t size = 1
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(a)):
        size *= cnp.PyArray_DIM(a, axis)
    return size


# Whether x is plain: native float32 or float64, C-contiguous, aligned, not 0-d and not empty.
cdef inline bint is_plain(object x) noexcept:
    if not cnp.PyArray_CheckExact(x) or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x):
        return False
    cdef int number = cnp.PyArray_TYPE(<cnp.ndarray> x)
    if number != cnp.NPY_FLOAT and number != cnp.NPY_DOUBLE:
        return False
    return cnp.PyArray_NDIM(<cnp.ndarray> x) > 0 and size_of(<cnp.ndarray> x) > 0


# Whether results of x may go to `out`: plain, writeable, of x's dtype and shape, and x itself or
# apart from it.
cdef inline bint is_plain_out(object out, cnp.ndarray x) noexcept:
    if not is_plain(out) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out):
        return False
    if cnp.PyArray_TYPE(<cnp.ndarray> out) != cnp.PyArray_TYPE(x):
        return False
    if cnp.PyArray_NDIM(<cnp.ndarray> out) != cnp.PyArray_NDIM(x) or not begins_with_shape(x, out):
        return False
    return cnp.PyArray_DATA(x) == cnp.PyArray_DATA(<cnp.ndarray> out) or are_apart(x, out)


# Whether the first axes of x have the lengths of those of `a`, which has no more axes.
cdef inline bint begins_with_shape(cnp.ndarray x, cnp.ndarray a) noexcept:
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(x, axis):
            return False
    return True


cdef inline bint are_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef char* p = <char*> cnp.PyArray_DATA(a)
    cdef char* q = <char*> cnp.PyArray_DATA(b)
    return p + cnp.PyArray_NBYTES(a) <= q or q + cnp.PyArray_NBYTES(b) <= p


cdef Py_ssize_t threads_for(object num_threads, Py_ssize_t size) except 0:
    if num_threads is None and size < SERIAL:
        return 1
    from fastsoftmax._threads import resolve
    return resolve(num_threads, size)


# A new array of the dtype and shape of a plain one, but for the last axes if those are to be
# reduced.
cdef cnp.ndarray new_like(cnp.ndarray x, int reduced):
    if not reduced and cnp.PyArray_NBYTES(x) >= POOLED:
        from fastsoftmax._memory import empty
        return empty((<object> x).shape, x.dtype)
    return cnp.PyArray_EMPTY(
        cnp.PyArray_NDIM(x) - reduced, cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)


# Whether an argument is one that no code of its own runs for. (What such code did to arrays, it
# must have done before they are looked at.)
cdef inline bint is_settled_count(object num_threads) noexcept:
    return num_threads is None or PyLong_CheckExact(num_threads)


# Whether a plain array is as it was. Other threads may have run while Python code did, and have
# resized it in place, or given it another dtype.
cdef inline bint is_still(
        cnp.ndarray x, int number, Py_ssize_t size, int ndim, Py_ssize_t last) noexcept:
    if cnp.PyArray_TYPE(x) != number or not cnp.PyArray_ISCARRAY_RO(x):
        return False
    if cnp.PyArray_NDIM(x) != ndim or cnp.PyArray_DIM(x, ndim - 1) != last:
        return False
    return size_of(x) == size


# What `axis` is by default, known by identity. (Where -1 is not one object, calls take longer, but
# give the same.)
cdef object LAST = -1


# The length of the rows of a plain array along an axis, if they lie one after another, else 0: the
# last axis, or None, of which the whole array is a row.
cdef inline Py_ssize_t row_length(object axis, cnp.ndarray x, Py_ssize_t size) noexcept:
    cdef int last = cnp.PyArray_NDIM(x) - 1
    if axis is LAST or names_last(axis, last):
        return cnp.PyArray_DIM(x, last)
    return size if axis is None else 0


# Whether an axis that is not LAST means the last one, nevertheless.
cdef bint names_last(object axis, int last) noexcept:
    cdef int overflow = 0
    cdef long place
    if not PyLong_CheckExact(axis):
        return False
    place = PyLong_AsLongAndOverflow(axis, &overflow)
    return not overflow and (place == last or place == -1)


# The result of a plain call, or None if it is not one; `reduced` says whether results lack the
# axis.
cdef object plain(
        object x, object axis, object out, object num_threads, bint reduced, Plain for_float,
        Plain for_double):
    cdef cnp.ndarray a, y
    cdef int ndim, number
    cdef Py_ssize_t last, n, rows, size, threads
    cdef const void* source
    cdef void* target
    cdef Plain run
    if not is_plain(x) or not is_settled_count(num_threads):
        return None
    a = <cnp.ndarray> x
    size = size_of(a)
    ndim, number = cnp.PyArray_NDIM(a), cnp.PyArray_TYPE(a)
    last, n = cnp.PyArray_DIM(a, ndim - 1), row_length(axis, a, size)
    if n == 0:
        return None
    rows = size // n
    threads = threads_for(num_threads, size)
    if out is None:
        y = new_like(a, 0 if not reduced else cnp.PyArray_NDIM(a) if axis is None else 1)
    elif not reduced and is_plain_out(out, a):
        y = <cnp.ndarray> out
    else:
        return None
    if not is_still(a, number, size, ndim, last) or size_of(y) != (rows if reduced else size):
        return None
    source, target = cnp.PyArray_DATA(a), cnp.PyArray_DATA(y)
    run = for_float if number == cnp.NPY_FLOAT else for_double
    if size <= TINY:
        run(source, target, rows, n, threads)
    else:
        with nogil:
            run(source, target, rows, n, threads)
    settled()
    return y[()] if reduced and cnp.PyArray_NDIM(y) == 0 else y


# The short lane of gradients, which are given for each element of x or, `per_row`, for each row.
ctypedef void (*PlainPair)(
    const void*, const void*, void*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil


# Whether a gradient is plain, and one of a plain x.
cdef inline bint is_plain_gradient(object g, cnp.ndarray x, bint per_row) noexcept:
    if not is_plain(g) or cnp.PyArray_TYPE(<cnp.ndarray> g) != cnp.PyArray_TYPE(x):
        return False
    if cnp.PyArray_NDIM(<cnp.ndarray> g) != cnp.PyArray_NDIM(x) - per_row:
        return False
    return begins_with_shape(x, <cnp.ndarray> g)


# The result of a plain call, or None if it is not one.
cdef object plain_pair(
        object g, object x, object axis, object out, object num_threads, bint per_row,
        PlainPair for_float, PlainPair for_double):
    cdef cnp.ndarray a, y = None
    cdef int ndim, number
    cdef Py_ssize_t last, n, size, threads
    cdef const void* slope
    cdef const void* source
    cdef void* target
    cdef PlainPair run
    if not is_plain(x) or not is_settled_count(num_threads):
        return None
    a = <cnp.ndarray> x
    size = size_of(a)
    ndim, number = cnp.PyArray_NDIM(a), cnp.PyArray_TYPE(a)
    last, n = cnp.PyArray_DIM(a, ndim - 1), row_length(axis, a, size)
    if n == 0 or (per_row and axis is None) or not is_plain_gradient(g, a, per_row):
        return None
    threads = threads_for(num_threads, size)
    if out is None:
        y = new_like(a, 0)
    if not is_still(a, number, size, ndim, last) or not is_plain_gradient(g, a, per_row):
        return None
    if out is not None:
        if not is_plain_out(out, a):
            return None
        y = <cnp.ndarray> out
        if not (g is out and not per_row) and not are_apart(y, <cnp.ndarray> g):
            return None
    elif size_of(y) != size:
        return None
    slope, source = cnp.PyArray_DATA(<cnp.ndarray> g), cnp.PyArray_DATA(a)
    target = cnp.PyArray_DATA(y)
    run = for_float if number == cnp.NPY_FLOAT else for_double
    if size <= TINY:
        run(slope, source, target, size // n, n, threads)
    else:
        with nogil:
            run(slope, source, target, size // n, n, threads)
    settled()
    return y


# The short lane of losses: logits, their targets (labels of rows or, like the other targets, as
# many as logits), and the gradient if that is wanted.
ctypedef double (*PlainLoss)(
    const void*, const void*, Number, void*, Py_ssize_t, Py_ssize_t, double, Py_ssize_t
    ) noexcept nogil


# Whether targets are plain and fit x; `labels` says whether they are one integer for each row,
# every one of which is a class.
cdef inline bint is_plain_target(object target, cnp.ndarray x, bint labels) noexcept:
    cdef cnp.ndarray t
    cdef char kind
    cdef Py_ssize_t n = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
    if not cnp.PyArray_CheckExact(target) or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> target):
        return False
    t, kind = target, (<cnp.ndarray> target).descr.kind
    if cnp.PyArray_NDIM(t) != cnp.PyArray_NDIM(x) - labels or not begins_with_shape(x, t):
        return False
    if labels:
        return (kind == c'i' or kind == c'u') and are_classes(
            cnp.PyArray_DATA(t), number_of(t), size_of(t), n)
    return kind == c'f' and (cnp.PyArray_ITEMSIZE(t) == 4 or cnp.PyArray_ITEMSIZE(t) == 8)


# The loss of a plain call, with the gradient if that is wanted, or None if it is not one.
cdef object plain_loss(
        object x, object target, object axis, object reduction, bint gradient, object out,
        object num_threads, bint of_rows, PlainLoss for_float, PlainLoss for_double):
    cdef cnp.ndarray a, t, g = None, value
    cdef int ndim, dtype
    cdef Py_ssize_t n, rows, size, threads
    cdef double divisor = 1, total
    cdef void* to = NULL
    cdef PlainLoss run
    cdef Number number
    cdef bint labels
    if not is_plain(x) or not PyUnicode_CheckExact(reduction) or not is_settled_count(num_threads):
        return None
    a = <cnp.ndarray> x
    size = size_of(a)
    ndim, dtype, n = cnp.PyArray_NDIM(a), cnp.PyArray_TYPE(a), row_length(axis, a, size)
    if n == 0 or axis is None:
        return None
    rows = size // n
    threads = threads_for(num_threads, size)
    if gradient and out is None:
        g = new_like(a, 0)
    if not is_still(a, dtype, size, ndim, n):
        return None
    labels = of_rows and cnp.PyArray_CheckExact(target)
    labels = labels and cnp.PyArray_NDIM(<cnp.ndarray> target) == cnp.PyArray_NDIM(a) - 1
    if not is_plain_target(target, a, labels):
        return None
    t = <cnp.ndarray> target
    if reduction == "mean":
        divisor = rows if of_rows else size
    elif reduction != "sum":
        return None
    if gradient:
        if out is not None:
            if not is_plain_out(out, a) or not are_apart(out, t):
                return None
            g = <cnp.ndarray> out
        elif size_of(g) != size:
            return None
        to = cnp.PyArray_DATA(g)
    run = for_float if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT else for_double
    number = number_of(t)
    with nogil:
        total = run(
            cnp.PyArray_DATA(a), cnp.PyArray_DATA(t), number, to, rows, n, 1 / divisor, threads)
        settled()
    value = cnp.PyArray_EMPTY(0, cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a), 0)
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT:
        (<float*> cnp.PyArray_DATA(value))[0] = <float> (total / divisor)
    else:
        (<double*> cnp.PyArray_DATA(value))[0] = total / divisor
    return (value[()], g) if gradient else value[()]
