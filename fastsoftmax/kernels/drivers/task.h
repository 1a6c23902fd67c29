// How an operation is cut into pieces that threads may run in any order.
#pragma once

#include <cstdlib>
#include <initializer_list>
#include <new>

#if defined(_OPENMP) && !defined(_WIN32)
#    include <pthread.h>
#endif

#include "kernels/memory/scratch.h"

namespace {
namespace fs {

// Independent pieces, in stages: run every piece of a stage, then advance(); repeat while it says
// so. The pieces and the order in which their results are combined depend on shapes alone, hence
// the same bits for any number of threads.
struct Task {
    // bytes that a piece, and begin(), want beside room_bytes
    virtual Index memory() const { return 0; }
    // before the first piece; what scratch() gives here stays
    virtual void begin() {}
    virtual Index pieces() const = 0;
    virtual void run(Index piece) = 0;
    virtual bool next_stage() { return false; }
    virtual ~Task() = default;
};

// Runs all stages of a work. The loop over pieces is the prange of prelude.pxi, which registers it
// when the module is imported.
using Loop = void (*)(Task *, Index threads);
static Loop loop_over_pieces = nullptr;

inline void execute(Task &work, Index threads) {
    loop_over_pieces(&work, threads);
}

// The rooms of a team: one for each thread, and one for what all of them share. They are one block
// of the calling thread, which keeps it for its next call.
struct Rooms {
    char *first = nullptr;
    Index size = 0;

    FS_ALWAYS_INLINE void enter(Index room) const { this_room.next = first + room * size; }
};

// bytes; more is given back when the work is done
constexpr Index most_kept_for_a_piece = Index(4) << 20;

class RoomBlock {
    char *p = nullptr;
    Index size = 0;

  public:
    ~RoomBlock() { release(); }
    void release() { std::free(p), p = nullptr, size = 0; }
    // The first address that is a multiple of 64; none if there is too little memory.
    char *get(Index bytes) {
        if (size < bytes) {
            release();
            p = static_cast<char *>(std::malloc(static_cast<std::size_t>(bytes) + 63));
            if (!p) return nullptr;
            size = bytes;
        }
        return reinterpret_cast<char *>((reinterpret_cast<std::uintptr_t>(p) + 63) &
                                        ~std::uintptr_t(63));
    }
};

static thread_local RoomBlock rooms_of_thread;

// Rooms for a team, which gets smaller where there is no memory for all of it. None: there is not
// enough for one thread.
inline Rooms rooms_for(const Task &work, int &team) {
    Rooms rooms;
    rooms.size = room_bytes + rounded_up(work.memory());
    const Index shared = rooms.size - room_bytes;
    for (; !out_of_memory && !rooms.first; team /= 2) {
        rooms.first = rooms_of_thread.get(team * rooms.size + shared);
        if (rooms.first) break;
        if (team == 1) out_of_memory = true;
    }
    return rooms;
}

inline void leave(const Rooms &rooms) {
    if (rooms.size > most_kept_for_a_piece) rooms_of_thread.release();
}

// Whether memory was short since it was last asked.
inline bool was_out_of_memory() {
    const bool was = out_of_memory;
    if (was) out_of_memory = false;
    return was;
}

FS_ALWAYS_INLINE inline void run_piece(Task *work, Index piece, const Rooms &rooms, int thread) {
    rooms.enter(thread);
    work->run(piece);
}

// How many threads a team may have. Runtimes of OpenMP end the process when a thread cannot be
// started (limits of processes, of memory, of a container), so as many as are new to the calling
// thread are started, and end, before the first region of so many.
#if defined(_OPENMP) && !defined(_WIN32)
struct Trial {
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

    static void *wait(void *trial) {
        pthread_mutex_t *gate = &static_cast<Trial *>(trial)->gate;
        pthread_mutex_lock(gate);
        pthread_mutex_unlock(gate);
        return nullptr;
    }
    // Bytes of a stack as the runtime makes them; 0: as the system does.
    static std::size_t stack_size() {
        for (const char *name : {"OMP_STACKSIZE", "GOMP_STACKSIZE"}) {
            const char *text = std::getenv(name);
            if (!text) continue;
            char *unit;
            const double number = std::strtod(text, &unit);
            while (*unit == ' ') ++unit;
            const int c = *unit | 0x20;
            return static_cast<std::size_t>(number * (c == 'b'   ? 1
                                                      : c == 'm' ? 0x1p20
                                                      : c == 'g' ? 0x1p30
                                                                 : 0x1p10));
        }
        return 0;
    }
    // How many of `wanted` threads there can be at once.
    int start(int wanted) {
        pthread_attr_t attributes;
        // and for the team itself
        pthread_t *threads = static_cast<pthread_t *>(
            std::malloc(static_cast<std::size_t>(wanted) * (sizeof(pthread_t) + 1024)));
        if (!threads || pthread_attr_init(&attributes)) return std::free(threads), 0;
        if (const std::size_t size = stack_size()) pthread_attr_setstacksize(&attributes, size);
        int count = 0;
        pthread_mutex_lock(&gate);
        while (count < wanted && !pthread_create(threads + count, &attributes, &Trial::wait, this))
            ++count;
        pthread_mutex_unlock(&gate);
        for (int k = 0; k < count; ++k) pthread_join(threads[k], nullptr);
        pthread_attr_destroy(&attributes);
        std::free(threads);
        return count;
    }
};

inline int affordable(int team) {
    static thread_local int had = 1, calls_to_wait = 0;
    if (team <= had) return team;
    if (calls_to_wait > 0) return --calls_to_wait, had;
    const int started = Trial().start(team - 1) + 1;
    if (started < team) calls_to_wait = 64;
    if (started > had) had = started;
    return had;
}
#else
inline int affordable(int team) {
    return team;
}
#endif

}  // namespace fs
}  // namespace
