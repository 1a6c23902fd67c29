// Memory to compute in: rooms of threads, and results of pieces.
#pragma once

#include <new>
#include <type_traits>

#include "kernels/simd/vector.h"

namespace {
namespace fs {

// What a thread computes in, beside inputs and results: one room, that the calling thread has
// allocated before the first piece of work began (drivers/task.h). So stacks may be small, no
// kernel can run out of memory, and nothing was written if there is too little. enough for every
// kernel, but for what a Task says (memory())
constexpr Index room_bytes = Index(1) << 20;

struct Room {
    char *next = nullptr;
};

static thread_local Room this_room;

FS_ALWAYS_INLINE inline Index rounded_up(Index bytes) {
    return (bytes + 63) & ~Index(63);
}

// `count` of T until the end of the piece of work; memory alone, without values.
template <class T>
FS_ALWAYS_INLINE inline T *scratch(Index count) {
    Room &room = this_room;
    T *p = reinterpret_cast<T *>(room.next);
    room.next += rounded_up(count * Index(sizeof(T)));
    return p;
}

// The same until the end of a scope: instead of an array on the stack.
template <class T>
class Scratch {
    Room &room;
    T *p;

  public:
    explicit FS_ALWAYS_INLINE Scratch(Index count)
        : room(this_room), p(reinterpret_cast<T *>(room.next)) {
        room.next += rounded_up(count * Index(sizeof(T)));
        if constexpr (!std::is_trivially_default_constructible<T>::value) {
            for (Index k = 0; k < count; ++k) new (p + k) T;
        }
    }
    FS_ALWAYS_INLINE ~Scratch() { room.next = reinterpret_cast<char *>(p); }
    Scratch(const Scratch &) = delete;
    FS_ALWAYS_INLINE operator T *() const { return p; }
};

// There was too little memory: execute() does nothing, and whoever called for it raises the error.
static thread_local bool out_of_memory;

// All results of pieces or chunks together, in their order.
template <class Results>
auto merged(const Results &results) {
    std::decay_t<decltype(*results.begin())> all{};
    for (const auto &one : results) all.add(one);
    return all;
}

// One value of T() for each piece of work.
template <class T>
class PieceResults {
    T *p;
    Index count;

  public:
    explicit PieceResults(std::size_t pieces)
        : p(new (std::nothrow) T[pieces ? pieces : 1]()),
          count(p ? static_cast<Index>(pieces) : 0) {
        if (!p) out_of_memory = true;
    }
    ~PieceResults() { delete[] p; }
    PieceResults(const PieceResults &) = delete;
    T &operator[](std::size_t k) { return p[k]; }
    const T *begin() const { return p; }
    const T *end() const { return p + count; }
};

}  // namespace fs
}  // namespace
