// How an operation is cut into pieces that threads may run in any order.
#pragma once

#include <cstdlib>
#include <new>

#if defined(_OPENMP) && !defined(_WIN32)
#    include <pthread.h>
#endif

#include "transpose.h"

namespace {
namespace fs {

// Independent pieces, in stages: run every piece of a stage, then advance(); repeat while it says
// so. The pieces and the order in which their results are combined depend on shapes alone, hence
// the same bits for any number of threads.
struct Work {
    // bytes that a piece, and begin(), want beside room_bytes
    virtual isize memory() const { return 0; }
    // before the first piece; what scratch() gives here stays
    virtual void begin() {}
    virtual isize pieces() const = 0;
    virtual void run(isize piece) = 0;
    virtual bool advance() { return false; }
    virtual ~Work() = default;
};

// Runs all stages of a work. The loop over pieces is the prange of prelude.pxi, which registers it
// when the module is imported.
using Loop = void (*)(Work *, isize threads);
static Loop loop_over_pieces = nullptr;

inline void execute(Work &work, isize threads) {
    loop_over_pieces(&work, threads);
}

// The rooms of a team: one for each thread, and one for what all of them share. They are one block
// of the calling thread, which keeps it for its next call.
struct Rooms {
    char *first = nullptr;
    isize size = 0;

    FS_INLINE void enter(isize room) const { this_room.next = first + room * size; }
};
// bytes; more is given back when the work is done
constexpr isize most_kept_for_a_piece = isize(4) << 20;

class RoomBlock {
    char *p = nullptr;
    isize size = 0;

  public:
    ~RoomBlock() { release(); }
    void release() { std::free(p), p = nullptr, size = 0; }
    // The first address that is a multiple of 64; none if there is too little memory.
    char *get(isize bytes) {
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
inline Rooms rooms_for(const Work &work, int &team) {
    Rooms rooms;
    rooms.size = room_bytes + rounded_up(work.memory());
    const isize shared = rooms.size - room_bytes;
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

FS_INLINE void run_piece(Work *work, isize piece, const Rooms &rooms, int thread) {
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

// Rows are grouped into pieces of about as many elements.
FS_INLINE isize rows_per_piece(isize n) {
    return n < piece_elements ? piece_elements / n : 1;
}

// body(outer, inner, count) for the rows of a piece, those of one outer index together.
template <class Body>
FS_INLINE void each_run(isize piece, isize outer, isize inner, isize n, Body body) {
    const isize group = rows_per_piece(n), first = piece * group,
                end = first + group < outer * inner ? first + group : outer * inner;
    isize o = first / inner, i = first % inner;
    for (isize r = first, count; r < end; r += count, i = 0, ++o) {
        count = inner - i < end - r ? inner - i : end - r;
        body(o, i, count);
    }
}

// Rows that are done in one go: rows(outer, inner, count) for each run of them, between
// begin(piece) and end().
template <class Row>
struct WholeRowsWork final : Work {
    Row row;
    isize outer, inner, n;

    WholeRowsWork(const Row &prototype, isize outer_, isize inner_, isize n_)
        : row(prototype), outer(outer_), inner(inner_), n(n_) {}
    isize pieces() const override {
        return (outer * inner + rows_per_piece(n) - 1) / rows_per_piece(n);
    }
    void run(isize piece) override {
        Row mine(row);
        mine.begin(piece);
        each_run(piece, outer, inner, n,
                 [&](isize o, isize i, isize count) { mine.rows(o, i, count); });
        mine.end();
    }
};

template <class Row>
void do_row(Row &row, isize o, isize i) {
    row.start(o, i);
    do {
        for (isize k = 0; k < row.chunks(); ++k) row.sweep(k);
    } while (row.next());
}

// Bytes that a row wants beside room_bytes and the results of its chunks, or a tile beside
// room_bytes.
template <class Row>
isize further_memory(const Row &) {
    return 0;
}

// Rows one after another, or one long row at a time with its chunks as pieces. A row is begun by
// start(outer, inner); then come rounds of sweep(chunk) for every chunk and next(), which combines
// the chunks' results and says whether another round follows.
template <class Row>
struct RowsWork final : Work {
    Row row;
    isize outer, inner, n, current = 0;
    bool split;

    // Long rows are split only where there are fewer of them than threads; the result is the same
    // either way.
    RowsWork(const Row &prototype, isize outer_, isize inner_, isize n_, isize threads)
        : row(prototype),
          outer(outer_),
          inner(inner_),
          n(n_),
          split(n > chunk && outer_ * inner_ < threads) {}
    isize memory() const override {
        return row.chunks() * chunk_bytes + further_memory(row) + 4 * 64;
    }
    void begin() override {
        if (split) row.start(0, 0);
    }
    isize rows() const { return outer * inner; }
    isize pieces() const override {
        return split ? row.chunks() : (rows() + rows_per_piece(n) - 1) / rows_per_piece(n);
    }
    void run(isize piece) override {
        if (split) return row.sweep(piece);
        Row mine(row);
        each_run(piece, outer, inner, n, [&](isize o, isize i, isize count) {
            for (const isize end = i + count; i < end; ++i) do_row(mine, o, i);
        });
    }
    bool advance() override {
        if (!split) return false;
        if (row.next()) return true;
        if (++current == rows()) return false;
        row.start(current / inner, current % inner);
        return true;
    }
};

// Columns (the inner axis) in tiles. Tile has run(outer, first, width).
template <class Tile>
struct TilesWork final : Work {
    Tile tile;
    isize outer, inner, width;

    TilesWork(const Tile &tile_, isize outer_, isize inner_, isize width_)
        : tile(tile_), outer(outer_), inner(inner_), width(width_) {}
    isize memory() const override { return further_memory(tile); }
    isize per_outer() const { return (inner + width - 1) / width; }
    isize pieces() const override { return outer * per_outer(); }
    void run(isize piece) override {
        const isize first = piece % per_outer() * width;
        tile.run(piece / per_outer(), first, inner - first < width ? inner - first : width);
    }
};

// A tile of columns (first .. first + count) of one outer index as rows of `width`; the memory
// itself where it is not staged.
template <class C>
const C *gather_columns(const AnyView &v, bool staged, isize outer, isize first, isize count,
                        isize width, C *tile, const Mask &where = Mask(), bool negate = false,
                        C absent = -std::numeric_limits<C>::infinity()) {
    if (!staged) return reinterpret_cast<const C *>(v.at(outer, first));
    Reader<C> line(v, outer, first);
    line.stride = v.inner_stride, line.negate = negate, line.absent = absent;
    if (where.data) line.mask = where.at(outer, first), line.mask_stride = where.inner_stride;
    for (isize i = 0; i < v.n; ++i) {
        C *row = tile + i * width;
        const C *got = line.get(0, count, row);
        if (got != row) std::memcpy(row, got, static_cast<std::size_t>(count) * sizeof(C));
        line.p += v.n_stride;
        if (line.mask) line.mask += where.n_stride;
    }
    return tile;
}

template <class C>
void scatter_columns(const AnyView &v, isize outer, isize first, isize count, isize width, C *tile,
                     const Mask &where, C absent) {
    Writer<C> line(v, outer, first);
    line.stride = v.inner_stride, line.absent = absent;
    if (where.data) line.mask = where.at(outer, first), line.mask_stride = where.inner_stride;
    for (isize i = 0; i < v.n; ++i) {
        line.copy(0, count, tile + i * width);
        line.p += v.n_stride;
        if (line.mask) line.mask += where.n_stride;
    }
}

// The columns of an (outer, n, inner) array are lanes of vectors, directly in memory ...
template <class C>
bool columns_direct(const AnyView &v) {
    return v.number == number_of<C> && v.bytes == Bytes::native &&
           v.inner_stride == isize(sizeof(C)) && v.n_stride % isize(sizeof(C)) == 0 &&
           v.inner * isize(sizeof(C)) >= FS_VECTOR_BYTES;
}

// ... or after a tile of them was gathered, which pays where neighbouring columns share cache
// lines.
inline bool columns_staged(const AnyView &v) {
    const isize size = size_of(v.number);
    return v.inner >= FS_VECTOR_BYTES / 4 && v.n <= tile_elements / 64 && v.inner_stride == size &&
           v.n_stride != size;
}

// The columns of a tile, vector by vector: in memory where they are whole vectors there
// (columns_direct, and nothing is masked); else gathered, all of them at once where lines of the
// inner axis are contiguous and not too many, or by the vector; once for all where they are the
// same.
template <class X>
struct TileColumns {
    using C = typename X::Scalar;
    static constexpr isize width = tile_vectors * X::lanes;

    AnyView v;
    Mask where;
    isize outer, first, count;
    C absent;
    bool direct, same, together;
    Scratch<C> room;

    TileColumns(const AnyView &view, isize outer_, isize first_, isize count_,
                const Mask &where_ = Mask(), C absent_ = -std::numeric_limits<C>::infinity())
        : v(view),
          where(where_),
          outer(outer_),
          first(first_),
          count(count_),
          absent(absent_),
          direct(view.data && columns_direct<C>(view) && !where_.data),
          same(view.inner_stride == 0 && !where_.data),
          together(!direct && !same && view.inner_stride == size_of(view.number) &&
                   view.n * width <= tile_elements),
          room(!view.data || (direct && count % X::lanes == 0)
                   ? 0
                   : view.n * (together ? width : X::lanes)) {}

    void gather() {
        for (isize j = 0; same && j < v.n; ++j)
            X::store(room + j * X::lanes, X::set(static_cast<C>(v.value(outer, j, first))));
        if (!together) return;
        gather_columns<C>(v, true, outer, first, count, width, room, where, false, absent);
        for (isize j = 0, end = (count + X::lanes - 1) / X::lanes * X::lanes; j < v.n; ++j)
            std::fill(room + j * width + count, room + j * width + end, C(0));
    }
    // Those from the `at`-th of the tile on.
    Columns<X> from(isize at) const {
        if (direct && at + X::lanes <= count)
            return {reinterpret_cast<const C *>(v.at(outer, first + at)),
                    v.n_stride / isize(sizeof(C))};
        if (together) return {room + at, width};
        if (same) return {room, X::lanes};
        gather_rows<X, C>(v, outer, first + at, at + X::lanes <= count ? X::lanes : count - at,
                          room, where, false, absent);
        return {room, X::lanes};
    }
};

// The same for results: they are written to place(), and put() where they belong, those of a vector
// and in the end those of the tile.
template <class X>
struct TileResults : TileColumns<X> {
    using Base = TileColumns<X>;
    using C = typename X::Scalar;
    using Base::Base, Base::v, Base::where, Base::outer, Base::first, Base::count, Base::direct,
        Base::together, Base::room;
    struct Place {
        C *p;
        isize step;
        FS_INLINE void store(isize j, typename X::V value) const { X::store(p + j * step, value); }
    };

    Place place(isize at) const {
        if (direct && at + X::lanes <= count)
            return {reinterpret_cast<C *>(v.at(outer, first + at)), v.n_stride / isize(sizeof(C))};
        return together ? Place{room + at, Base::width} : Place{room, X::lanes};
    }
    void put(isize at) const {
        if (together || (direct && at + X::lanes <= count)) return;
        scatter_rows<X, C>(v, outer, first + at, at + X::lanes <= count ? X::lanes : count - at,
                           room, where);
    }
    void put() const {
        if (together) scatter_columns<C>(v, outer, first, count, Base::width, room, where, 0);
    }
};
// Bytes that `arrays` of them want, and `vectors` for each class beside.
inline isize tile_memory(isize n, isize arrays, isize vectors) {
    const isize tile = n * tile_vectors * FS_VECTOR_BYTES,
                most = tile_elements * isize(sizeof(double));
    return arrays * (tile < most ? tile : most) + (arrays + vectors + 1) * n * FS_VECTOR_BYTES;
}

// Short rows run across lanes: those of the inner axis if it fills a vector, else of the longer
// one, if there are a few. That depends on shapes alone, and so do results.
enum { along_inner = 1, along_outer = 2 };
inline int short_rows_run(const AnyView &v, isize limit) {
    return v.n > limit || v.outer * v.inner < enough_rows         ? 0
           : v.inner >= FS_VECTOR_BYTES / 4 || v.inner >= v.outer ? along_inner
                                                                  : along_outer;
}

// Whether columns fill vectors, and are next to each other in memory.
inline bool columns_near(const AnyView &v) {
    return v.inner >= FS_VECTOR_BYTES / 4 && v.inner_stride == size_of(v.number) &&
           v.n_stride != v.inner_stride;
}

// Which axis the rows are next to each other along, if they are done in lanes; else 0.
inline int lanes_along(const AnyView &x, isize longest) {
    if (x.n > std::numeric_limits<std::int32_t>::max()) return 0;  // classes are counted in lanes
    if (const int lanes_run = short_rows_run(x, longest)) return lanes_run;
    return columns_near(x) ? along_inner : columns_near(x.swapped()) ? along_outer : 0;
}

}  // namespace fs
}  // namespace
