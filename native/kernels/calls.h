// The arguments of every kernel: plain views of memory that somebody else owns. Strides of float rows are in floats,
// strides of byte rows in bytes. Nothing here allocates or computes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vivace {

constexpr int kLanes = 16;       // float lanes of the vector type every kernel is written in
constexpr int kGroup = 32;       // activations are quantised in groups of this many columns
constexpr int kTurn = 64;        // turned rows: columns that are turned together and share a scale
constexpr int kTurnedTop = 127;  // turned weights: the code of the largest magnitude of a row
constexpr int kBlockSize = 16;   // positions in one KV block (BLOCK_SIZE in types/step.py)

// How a packed matrix stores its panels. A panel is 16 output rows; see weights/packed.h.
enum class PanelFormat : int { kQ4Min, kQ4Sym, kQ8Sym, kQ8Min, kQ8Sym16, kF32, kF16, kBF16, kNested, kTurned, kCount };

// A matrix packed into panels, group after group: 32 columns of codes, their float16 scales, their float16 minima. One
// row of a batch then reads the matrix as one stream, which is what memory delivers fastest.
struct PackedView {
  PanelFormat format;
  int num_outputs;      // rows of the matrix, without padding
  int num_inputs;       // columns; a multiple of kGroup for quantised formats
  const uint8_t* data;  // panel p starts at data + p * panel_bytes
  size_t panel_bytes;   // multiple of 64
  size_t group_bytes;   // codes, scales and minima of 32 columns; 0 for float formats
  float post_scale;     // power of two that undoes the normalisation of the float16 scales
  // Nested weights only (weights/nested.h): the low nibbles of panel p start at low + p * low_panel_bytes.
  const uint8_t* low = nullptr;
  size_t low_panel_bytes = 0;
};

constexpr size_t kShiftBytes = 64;  // what a row on a shifted grid has besides

// Which values the codes of a row span, where that is not all of each group of 32 by itself (numerics/input_grids.py).
// Every group has a scale of its own all the same, so that products know nothing of grids.
struct InputGrid {
  float top;      // the largest code of coarse rows, at most 127
  float clip;     // the share of a dynamic range that is kept
  bool by_row;    // one scale a row; otherwise one a group
  bool is_fixed;  // low and high are the range, whatever the values; otherwise it is found in them
  bool shifted;   // x = scale * v + shift: a range that is not as far on both sides; coarse rows, one scale a row
  float low, high;
};

// Rows quantised in groups of 32 columns: x = scale * v, v an integer.
//
// Coarse rows keep v in 8 bits (|v| <= 127). Fine rows keep it in 12: v = 256 * high + low for the first 16 columns of
// a group and v = 256 * high + 16 * low for the last 16, where columns i and i + 16 share one 8-bit `low`. That is no
// loss: 16 values of `low` that differ by 16 serve the second column equally, and the first picks among them, so both
// are within 8 of what was asked. The gain: a byte of 4-bit weights holds columns i and i + 16 as well, so one dot
// product of the packed bytes with `low` adds both corrections, and 12 bits cost half as much again as 8, not twice.
//
// Bfloat rows hold the nearest bfloat16 of every x and nothing else; BF16 weights are multiplied with them in pairs.
struct QuantizedRows {
  uint8_t* data;
  size_t row_bytes;
  int num_columns;
  bool fine;
  bool bfloat = false;
  bool turned = false;  // another layout, see kernels/turn.inc; the functions below are of the other one
  const InputGrid* grid = nullptr;

  int num_groups() const { return num_columns / kGroup; }
  int num_code_bytes() const { return fine ? num_columns + num_columns / 2 : num_columns; }
  int8_t* high(int row) const { return reinterpret_cast<int8_t*>(data + row * row_bytes); }
  uint16_t* bfloats(int row) const { return reinterpret_cast<uint16_t*>(data + row * row_bytes); }
  int8_t* low(int row) const { return high(row) + num_columns; }  // 16 for each group, fine rows only
  // float32 per group: scale, then scale * sum(v); int32 per half group: sum(v).
  float* scales(int row) const { return reinterpret_cast<float*>(data + row * row_bytes + num_code_bytes()); }
  float* sums(int row) const { return scales(row) + num_groups(); }
  int32_t* code_sums(int row) const { return reinterpret_cast<int32_t*>(sums(row) + num_groups()); }
  // Of rows on a shifted grid alone: a cache line behind all else.
  float* shift(int row) const { return reinterpret_cast<float*>(data + (row + 1) * row_bytes - kShiftBytes); }
};

// Bytes one quantised row takes, rounded up to a cache line.
inline size_t quantized_row_bytes(int num_columns, bool fine, bool turned = false) {
  if (turned) return (num_columns + static_cast<size_t>(num_columns) / kTurn * 8 + 63) / 64 * 64;
  size_t groups = static_cast<size_t>(num_columns) / kGroup;
  size_t code_bytes = static_cast<size_t>(num_columns) + (fine ? num_columns / 2 : 0);
  size_t bytes = code_bytes + groups * (2 * sizeof(float) + 2 * sizeof(int32_t));
  return (bytes + 63) / 64 * 64;
}

// Bytes of a row of bfloat16 numbers.
inline size_t bfloat_row_bytes(int num_columns) { return (static_cast<size_t>(num_columns) * 2 + 63) / 64 * 64; }

struct LinearCall {
  PackedView weight;
  const float* bias;  // one per padded output, or null
  const float* x;     // read by float formats
  size_t x_stride;
  QuantizedRows quantized_x;  // read by quantised formats; bfloat rows: by BF16, instead of x
  float* out;                 // rows padded to a multiple of 16 floats
  size_t out_stride;
};

struct QuantizeCall {
  const float* x;
  size_t x_stride;
  QuantizedRows out;
  int column_begin = 0, column_end = 0;  // whole groups; end 0: the whole row
};

// total = a + b (when b is given), out = total / rms(total) * weight; out and quantized are both optional.
struct NormCall {
  const float* a;
  const float* b;
  float* total;
  float* out;
  const float* weight;
  float eps;
  int width;
  size_t a_stride, b_stride, total_stride, out_stride;
  QuantizedRows quantized;  // data null: not wanted
};

enum class Activation : int { kSilu, kGeluTanh };

// out = activation(gate) * up; out and quantized are both optional.
struct GatedCall {
  const float* gate;
  const float* up;
  float* out;
  int width;
  size_t gate_stride, up_stride, out_stride;
  Activation activation;
  QuantizedRows quantized;
  int first_column = 0;  // that rows of gate and up begin with
};

// Norm (optional) and rotate the heads of one attention layer, ready to be stored.
struct HeadsCall {
  float* q;  // rotated and scaled in place
  float* k;
  float* v;
  size_t q_stride, k_stride, v_stride;
  const float* q_norm;  // per-head norm weights, or null
  const float* k_norm;
  float norm_eps;
  const float* rope;  // per row: rope_dim / 2 cosines, then as many sines
  size_t rope_stride;
  int rope_dim;
  bool interleaved;
  float scale;
  int num_heads, num_kv_heads, head_dim;
  bool hadamard;  // turn queries, keys and values as the KV format wants them (kernels/kv_format.h)
};

}  // namespace vivace
