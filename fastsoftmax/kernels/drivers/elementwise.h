// Elementwise work on arrays of one shape, of any number of axes, strides and dtypes: numbers reach
// the vector routines in blocks.
// Operations of one input, and their gradients.
#pragma once

#include "kernels/drivers/task.h"
#include "kernels/math/logistic.h"
#include "kernels/memory/boxes.h"
#include "kernels/simd/loops.h"

namespace {
namespace fs {

// Pieces are groups of boxes.
struct ElementsWork : Task {
    Boxes boxes;

    explicit ElementsWork(std::initializer_list<const AnyArray *> arrays) : boxes(arrays) {}
    Index pieces() const override { return boxes.pieces(); }

  protected:
    template <class Body>
    FS_ALWAYS_INLINE void each_box(Index piece, Body body) const {
        const Index first = piece * boxes.group,
                    end = first + boxes.group < boxes.total ? first + boxes.group : boxes.total;
        Box box;
        for (Index index = first; index < end; ++index) {
            boxes.place(index, box);
            body(box);
        }
    }
    // body(block) for the blocks of at most gather_block elements of a box, or for all of it if it
    // is_direct(). The box is used up.
    template <class IsDirect, class Body>
    static FS_ALWAYS_INLINE void each_block(Box &box, IsDirect is_direct, Body body) {
        if (box.count <= gather_block || is_direct()) return body(box);
        const int last = box.axes - 1;  // along which it has all its elements
        const Index end = box.start[last] + box.count;
        for (box.count = box.length[last] = gather_block; box.start[last] < end;
             box.start[last] += gather_block) {
            if (end - box.start[last] < gather_block)
                box.count = box.length[last] = end - box.start[last], box.whole = false;
            body(box);
        }
    }
};

template <class Op, class C>
struct UnaryWork final : ElementsWork {
    AnyArray x, out;
    UnaryWork(const AnyArray &x_, const AnyArray &out_)
        : ElementsWork({&x_, &out_}), x(x_), out(out_) {}
    void run(Index piece) override {
        using X = Vec<C>;
        Source<C> from(x);
        const Sink<C> to(out);
        each_box(piece, [&](Box &box) {
            const auto direct = [&] {
                return from.is_direct(box) && to.is_direct(box);
            };
            each_block(box, direct, [&](const Box &block) {
                const C *xs = from.load_block(block);
                C *ys = to.block_for(block);
                map_vectors<X>(
                    block.count,
                    [&](Index i, auto lanes)
                        FS_ALWAYS_INLINE { return Op::template apply<X>(lanes.load(xs + i, 0)); },
                    [&](Index i, auto lanes, auto y) FS_ALWAYS_INLINE { lanes.store(ys + i, y); });
                to.store_block(block, ys);
            });
        });
    }
};

// Operations of two inputs have a `sigmoid_sign`: that of the argument of a sigmoid, 0 where there
// is none.
template <class Op, class C>
struct BinaryWork final : ElementsWork {
    AnyArray g, y, out;
    BinaryWork(const AnyArray &g_, const AnyArray &y_, const AnyArray &out_)
        : ElementsWork({&g_, &y_, &out_}), g(g_), y(y_), out(out_) {}
    void run(Index piece) override {
        Source<C> gs(g), ys(y);
        const Sink<C> to(out);
        each_box(piece, [&](Box &box) {
            const auto direct = [&] {
                return gs.is_direct(box) && ys.is_direct(box) && to.is_direct(box);
            };
            each_block(box, direct, [&](const Box &block) {
                C *results = to.block_for(block);
                compute(gs.load_block(block), ys.load_block(block), results, block.count);
                to.store_block(block, results);
            });
        });
    }

  private:
    static FS_ALWAYS_INLINE void compute(const C *g, const C *y, C *out, Index n) {
        using X = Vec<C>;
        const auto value = [&](Index i, auto lanes) FS_ALWAYS_INLINE {
            return Op::template apply<X>(lanes.load(g + i, 0), lanes.load(y + i, 0));
        };
        const auto store = [&](Index i, auto lanes, typename X::V v) FS_ALWAYS_INLINE {
            lanes.store(out + i, v);
        };
        if constexpr (Op::sigmoid_sign && has_tails<X>) {
            for (Index i = 0; i < n; i += tails_block<X>) {
                const Index count = n - i < tails_block<X> ? n - i : tails_block<X>;
                if (any_tail<X, Op::sigmoid_sign>(y + i, count))
                    times_sigmoid_with_tails<X, Op::sigmoid_sign>(g + i, y + i, out + i, count);
                else
                    map_vectors<X>(
                        count,
                        [&](Index j, auto lanes) FS_ALWAYS_INLINE { return value(i + j, lanes); },
                        [&](Index j, auto lanes, typename X::V v)
                            FS_ALWAYS_INLINE { store(i + j, lanes, v); });
            }
        } else {
            map_vectors<X, Op::sigmoid_sign != 0>(n, value, store);
        }
    }
};

template <class Op>
void unary(Op, const AnyArray &x, const AnyArray &out, Index threads) {
    with_compute({x.number, out.number}, [&](auto zero) {
        UnaryWork<Op, decltype(zero)> work(x, out);
        execute(work, threads);
    });
}

template <class Op>
void binary(Op, const AnyArray &g, const AnyArray &y, const AnyArray &out, Index threads) {
    with_compute({g.number, y.number, out.number}, [&](auto zero) {
        BinaryWork<Op, decltype(zero)> work(g, y, out);
        execute(work, threads);
    });
}

// Contiguous arrays.
template <class Op, class C>
void plain_unary(const void *x, void *out, Index rows, Index row, Index threads) {
    const Contiguous line(rows * row, number_of<C>);
    UnaryWork<Op, C> work(line.array(x), line.array(out));
    execute(work, threads);
}

template <class Op, class C>
void plain_binary(const void *g, const void *y, void *out, Index rows, Index row, Index threads) {
    const Contiguous line(rows * row, number_of<C>);
    BinaryWork<Op, C> work(line.array(g), line.array(y), line.array(out));
    execute(work, threads);
}

}  // namespace fs
}  // namespace
