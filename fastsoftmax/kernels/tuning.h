// Sizes at which another way is faster. Elements, unless it says otherwise; measured on AVX-512
// (Zen 4: L1 32 kB, L2 1 MB, L3 32 MB); benchmarks/thresholds.py measures them anew. Those that
// decide on threads are in _threads.py.
#pragma once

#include "kernels/simd/vector.h"

namespace {
namespace fs {

// elements of a long row in one piece; shorter rows are one piece (256 kB of float64: fits L2)
constexpr Index chunk = 32768;
// elements of a row whose exponentials are kept apart from the output
constexpr Index kept_in_l1 = 4096;
constexpr Index small_call = 256;       // elements of a call that does without views and batches
constexpr Index batch_elements = 2048;  // of rows whose sums are settled together
// elements of a row that is gathered, up to which it waits for others
constexpr Index gathered_together = 256;
// elements of a strided, masked or converted line handled at a time (fits L1)
constexpr Index gather_block = 2048;
// elements of a run of a strided array from which it is not taken together with others
constexpr Index runs_apart = 512;
constexpr Index longest_run = 16384;  // elements of a run in one piece
// elements of a block along each axis where arrays disagree about the nearest one
constexpr Index shared_extent = 32;
constexpr Index piece_elements = 16384;  // short rows are grouped to about so many elements a piece
constexpr Index short_row = 24;          // rows up to this length run across lanes, many at a time
constexpr Index short_log_row = 40;      // the same where logarithms of sums are taken
// elements of a row up to which, at least, logarithms add each exponential by itself: in trees, up
// to 3.7 ulp
constexpr Index singly_summed = 112;
constexpr Index short_label_row = 32;    // and where these are losses of labels
constexpr Index short_target_row = 128;  // and where they are losses of targets for every class
// rows from which they do: a vector takes the time of two or three
constexpr Index enough_rows = 4;
constexpr Index tile_vectors = 8;               // columns of a tile, in vectors
constexpr Index tile_bytes = Index(512) << 10;  // of a tile of columns in memory: half of L2
// bytes of an array whose columns are done in strips (any, for logarithms of long ones, and where
// strips fit L2)
constexpr Index strips_from = Index(2) << 20;
// elements of a column from which logarithms are: fewer are summed without the maximum anyway
constexpr Index strip_log_row = 16;
constexpr Index strip_columns = 512;  // columns from which they are done in strips
// of a row of a strip; a quarter of it at most where all its rows fit L2
constexpr Index strip_bytes = Index(32) << 10;
constexpr Index tile_elements = 32768;        // elements of a tile that is gathered into scratch
constexpr Index fetch_from = Index(4) << 20;  // bytes of an array whose columns are fetched ahead
// bytes from what is read once to what is fetched meanwhile
constexpr Index fetched_ahead = 4096;
constexpr Index cache_line = 64;                // bytes
constexpr Index stream_from = Index(24) << 20;  // bytes of results that are written past the caches
// elements of a row of an array that large, from which its exponentials are kept in the output
constexpr Index kept_in_output_from = 64;
// elements of as many rows as are kept there together, then scaled: what L1 holds, or L2 (Zen 3,
// rows of 300 to 1000 float32: four in L1 1.05 to 1.14 of what more take)
constexpr Index kept_in_output = FS_VECTOR_BYTES == 64 ? kept_in_l1 : 16384;

}  // namespace fs
}  // namespace
