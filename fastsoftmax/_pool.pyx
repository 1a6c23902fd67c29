# cython: language_level=3, binding=True, freethreading_compatible=True
"""Memory of large results that is kept for the next ones: _memory.py says when and why."""

cimport numpy as cnp

cnp.import_array()

cdef extern from *:
    r"""
    #include <atomic>
    #include <cstddef>
    #include <cstdlib>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif

    namespace {

    /* blocks are whole huge pages, of which fewer must be touched */
    constexpr std::size_t page = std::size_t(2) << 20;

    void *allocate(std::size_t size) {
        void *p = nullptr;
        if (posix_memalign(&p, page, size)) return nullptr;
    #if defined(MADV_HUGEPAGE)
        madvise(p, size, MADV_HUGEPAGE);
    #endif
        return p;
    }

    /* Blocks that belong to no array. Whoever does not get the lock at once does without the pool:
       another thread has it, or had it when this process was forked. So nothing ever waits here,
       and no child for ever. */
    class Pool {
        static constexpr int slots = 16;
        struct Block {
            void *p;
            std::size_t size;
        };
        Block kept[slots] = {};  /* the oldest first */
        int count = 0;
        std::size_t held = 0;
        std::atomic_flag busy = ATOMIC_FLAG_INIT;

        Block drop(int k) {
            const Block block = kept[k];
            held -= block.size;
            for (--count; k < count; ++k) kept[k] = kept[k + 1];
            return block;
        }
        /* The oldest blocks go until no more than `most` bytes and `places` blocks are held. */
        int make_room(std::size_t most, int places, Block *dropped) {
            int n = 0;
            while (count && (held > most || count > places)) dropped[n++] = drop(0);
            return n;
        }
        static void free_all(const Block *blocks, int n) {
            for (int k = 0; k < n; ++k) std::free(blocks[k].p);
        }

      public:
        std::atomic<std::size_t> limit{0};

        /* A block of at least `size` bytes that wastes no more than a quarter; size becomes what it
           has. */
        void *take(std::size_t &size) {
            size = (size + page - 1) / page * page;
            if (!busy.test_and_set(std::memory_order_acquire)) {
                void *p = nullptr;
                for (int k = 0; k < count && !p; ++k) {
                    if (kept[k].size < size || kept[k].size > size + size / 4) continue;
                    const Block block = drop(k);
                    p = block.p, size = block.size;
                }
                busy.clear(std::memory_order_release);
                if (p) return p;
            }
            return allocate(size);
        }
        /* Newer blocks displace older ones: those of a size that is no longer wanted must not stay
           for ever. */
        void give(void *p, std::size_t size) {
            Block dropped[slots];
            int n = 0;
            bool fits = false;
            if (!busy.test_and_set(std::memory_order_acquire)) {
                const std::size_t most = limit;
                fits = size <= most;
                if (fits) {
                    n = make_room(most - size, slots - 1, dropped);
                    kept[count++] = {p, size}, held += size;
                }
                busy.clear(std::memory_order_release);
            }
            if (!fits) std::free(p);
            free_all(dropped, n);
        }
        /* Frees blocks until no more than the limit are held. */
        void trim() {
            Block dropped[slots];
            if (busy.test_and_set(std::memory_order_acquire)) return;
            const int n = make_room(limit, slots, dropped);
            busy.clear(std::memory_order_release);
            free_all(dropped, n);
        }
        std::size_t bytes() const { return held; }
    };

    Pool pool;

    }
    """
    cppclass Pool:
        void* take(size_t&) noexcept nogil
        void give(void*, size_t) noexcept nogil
        void trim() noexcept nogil
        size_t bytes() noexcept nogil
    Pool pool
    void set_pool_limit "pool.limit.store" (size_t) noexcept nogil


cdef class Block:
    """Memory of one array, its base: alive as long as any view of it."""

    cdef void* p
    cdef size_t size

    def __dealloc__(self):
        if self.p != NULL:
            pool.give(self.p, self.size)


def empty(tuple shape, cnp.dtype dtype, size_t nbytes):
    """A new C-contiguous array of `nbytes`, in the pool's memory if it has some that fits."""
    cdef cnp.npy_intp lengths[64]
    cdef int axis
    cdef Block block = Block.__new__(Block)
    cdef size_t size = nbytes
    with nogil:
        block.p = pool.take(size)
    if block.p == NULL:
        raise MemoryError(f"cannot allocate {nbytes} bytes")
    block.size = size
    for axis in range(len(shape)):
        lengths[axis] = shape[axis]
    cdef cnp.ndarray array = cnp.PyArray_SimpleNewFromData(len(shape), lengths, dtype.num, block.p)
    cnp.set_array_base(array, block)
    return array


def set_limit(size_t nbytes):
    """Let the pool hold so many bytes at most, and free what is more."""
    set_pool_limit(nbytes)
    with nogil:
        pool.trim()


def held():
    """Bytes that the pool holds, and no array uses."""
    return pool.bytes()
