// Sizes at which another way is faster. Elements, unless it says otherwise; measured on AVX-512
// (Zen 4: L1 32 kB, L2 1 MB, L3 32 MB); benchmarks/thresholds.py measures them anew. Those that
// decide on threads are in _threads.py.
#pragma once

#include "kernels/simd/vector.h"

namespace {
namespace fs {

// elements of a long row in one piece; shorter rows are one piece (256 kB of float64: fits L2)
constexpr isize chunk = 32768;
// elements of a row whose exponentials are kept apart from the output
constexpr isize kept_in_l1 = 4096;
constexpr isize small_call = 256;       // elements of a call that does without views and batches
constexpr isize batch_elements = 2048;  // of rows whose sums are settled together
// elements of a row that is gathered, up to which it waits for others
constexpr isize gathered_together = 256;
// elements of a strided, masked or converted line handled at a time (fits L1)
constexpr isize gather_block = 2048;
// elements of a run of a strided array from which it is not taken together with others
constexpr isize runs_apart = 512;
constexpr isize longest_run = 16384;  // elements of a run in one piece
// elements of a block along each axis where arrays disagree about the nearest one
constexpr isize shared_extent = 32;
constexpr isize piece_elements = 16384;  // short rows are grouped to about so many elements a piece
constexpr isize short_row = 24;          // rows up to this length run across lanes, many at a time
constexpr isize short_log_row = 40;      // the same where logarithms of sums are taken
// elements of a row up to which, at least, logarithms add each exponential by itself: in trees, up
// to 3.7 ulp
constexpr isize singly_summed = 112;
constexpr isize short_label_row = 32;    // and where these are losses of labels
constexpr isize short_target_row = 128;  // and where they are losses of targets for every class
// rows from which they do: a vector takes the time of two or three
constexpr isize enough_rows = 4;
constexpr isize tile_vectors = 8;               // columns of a tile, in vectors
constexpr isize tile_bytes = isize(512) << 10;  // of a tile of columns in memory: half of L2
// bytes of an array whose columns are done in strips (any, for logarithms of long ones, and where
// strips fit L2)
constexpr isize strips_from = isize(2) << 20;
// elements of a column from which logarithms are: fewer are summed without the maximum anyway
constexpr isize strip_log_row = 16;
constexpr isize strip_columns = 512;  // columns from which they are done in strips
// of a row of a strip; a quarter of it at most where all its rows fit L2
constexpr isize strip_bytes = isize(32) << 10;
constexpr isize tile_elements = 32768;        // elements of a tile that is gathered into scratch
constexpr isize fetch_from = isize(4) << 20;  // bytes of an array whose columns are fetched ahead
// bytes from what is read once to what is fetched meanwhile
constexpr isize fetched_ahead = 4096;
constexpr isize cache_line = 64;                // bytes
constexpr isize stream_from = isize(24) << 20;  // bytes of results that are written past the caches
// elements of a row of an array that large, from which its exponentials are kept in the output
constexpr isize kept_in_output_from = 64;

}  // namespace fs
}  // namespace
