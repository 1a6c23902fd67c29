// Times one operation of kernels/: thresholds.py compiles this with other values in
// kernels/tuning.h.
//
//     thresholds OPERATION TYPE ROWS N AXIS     prints nanoseconds per element, the least of many
//     repetitions
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "ops/cross_entropy.h"
#include "ops/normalize.h"

using namespace fs;

// run_all() of kernels/prelude.pxi for one thread.
static void serially(Task *work, Index) {
    int team = 1;
    const Rooms rooms = rooms_for(*work, team);
    if (!rooms.first) std::abort();
    rooms.enter(team);
    work->begin();
    do {
        for (Index piece = 0; piece < work->pieces(); ++piece) run_piece(work, piece, rooms, 0);
        rooms.enter(0);
    } while (work->next_stage());
    leave(rooms);
}

// Rows along the last axis, or columns along the first, of a contiguous array.
template <class C>
AnyView view(C *p, Index rows, Index n, bool columns, bool reduced) {
    const Index size = sizeof(C), length = reduced ? 1 : n;
    const Index shape[] = {columns ? 1 : rows, length, columns ? rows : 1};
    const Index strides[] = {columns ? size : length * size, columns ? rows * size : size, size};
    return AnyView(p, number_of<C>, shape, strides);
}

template <class C>
std::vector<C> scores(Index count) {
    std::vector<C> x(static_cast<std::size_t>(count));
    std::mt19937 random(1);
    std::normal_distribution<double> normal(0, 3);
    for (C &v : x) v = static_cast<C>(normal(random));
    return x;
}

// Nanoseconds per element.
template <class Body>
double least_time(Body body, Index elements) {
    using Clock = std::chrono::steady_clock;
    double least = 1e9;
    const auto end = Clock::now() + std::chrono::milliseconds(400);
    for (int turn = 0; turn < 4 || Clock::now() < end; ++turn) {
        const auto start = Clock::now();
        body();
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (turn && seconds < least) least = seconds;
    }
    return least * 1e9 / static_cast<double>(elements);
}

template <Result result, class C>
double time(Index rows, Index n, bool columns) {
    std::vector<C> x = scores<C>(rows * n), y(x.size());
    NormalizeArguments a;
    a.x = view(x.data(), rows, n, columns, false);
    a.out = view(y.data(), rows, n, columns, result == Result::logsumexp);
    return least_time([&] { normalize<result>(a, 1); }, rows * n);
}

// The loss of labels, and its gradient.
template <class C>
double time_labels(Index rows, Index n) {
    std::vector<C> x = scores<C>(rows * n), gradient(x.size());
    std::vector<std::int64_t> labels(static_cast<std::size_t>(rows));
    for (Index r = 0; r < rows; ++r) labels[static_cast<std::size_t>(r)] = r * 7919 % n;
    const double scale = 1 / static_cast<double>(rows);
    return least_time(
        [&] {
            plain_cross_entropy<C>(x.data(), labels.data(), Number::int64, gradient.data(), rows, n,
                                   scale, 1);
        },
        rows * n);
}

template <class C>
double time_targets(Index rows, Index n) {
    std::vector<C> x = scores<C>(rows * n), targets(x.size(), C(1) / static_cast<C>(n)),
                   gradient(x.size());
    const double scale = 1 / static_cast<double>(rows);
    return least_time(
        [&] {
            plain_cross_entropy<C>(x.data(), targets.data(), number_of<C>, gradient.data(), rows, n,
                                   scale, 1);
        },
        rows * n);
}

template <class C>
double time(char operation, Index rows, Index n, bool columns) {
    if (operation == 't') return time_targets<C>(rows, n);
    if (operation == 's') return time<Result::softmax, C>(rows, n, columns);
    if (operation == 'c') return time_labels<C>(rows, n);
    if (operation == 'l') return time<Result::log_softmax, C>(rows, n, columns);
    return time<Result::logsumexp, C>(rows, n, columns);
}

int main(int, char **argument) {
    loop_over_pieces = serially;
    const char operation = argument[1][0], type = argument[2][0];
    const Index rows = std::atol(argument[3]), n = std::atol(argument[4]);
    const bool columns = argument[5][0] == '0';
    std::printf("%.4f\n", type == 'f' ? time<float>(operation, rows, n, columns)
                                      : time<double>(operation, rows, n, columns));
}
