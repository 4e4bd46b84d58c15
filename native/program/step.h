// What ops see of one step: the batch, where buffers lie, and the kernels to call.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.h"

namespace vivace {

// Query rows [row_begin, row_end) of sequence `sequence` against one kv head.
struct AttentionTile {
  int sequence, kv_head, row_begin, row_end;
};

struct Step {
  int num_rows;       // R
  int num_selected;   // L
  int num_sequences;  // S
  int max_blocks;
  const int32_t* token_ids;
  const int32_t* positions;
  const int32_t* sequence_starts;
  const int32_t* block_tables;
  const int32_t* logit_rows;
  const int32_t* slots;         // per row: its place in the sequence's table, the position where nothing was taken out
  const int32_t* local_tables;  // as block_tables, for layers with a window of their own
  int max_local_blocks;
  const int32_t* window_starts;  // per row, with sink_ends; both null: every row sees all before it
  const int32_t* sink_ends;
  const int32_t* observe_rows;  // rows whose attention is observed, num_observed of them
  int num_observed;
  mutable std::vector<float> observed;  // [row][kv head][masses, peaks, sums][max_blocks]
  std::vector<int32_t> row_sequences;   // which sequence a row belongs to
  const int8_t* row_levels;             // per row, or null: how much of nested weights a row reads, see PackedMatrix
  const KernelTable* kernels;
  int num_threads;

  const int32_t* blocks_of(int sequence) const { return block_tables + static_cast<size_t>(sequence) * max_blocks; }
  const int32_t* local_blocks_of(int sequence) const {
    return local_tables + static_cast<size_t>(sequence) * max_local_blocks;
  }
};

enum class RowKind : int { kFloat, kCoarse, kFine, kBfloat, kTurned };

// A buffer of float rows, or of quantised rows, in the program's arena.
struct Buffer {
  uint8_t* data = nullptr;
  int width = 0;  // columns
  RowKind kind = RowKind::kFloat;
  bool selected = false;
  const InputGrid* grid = nullptr;  // coarse and fine rows alone

  size_t stride() const { return (static_cast<size_t>(width) + 15) / 16 * 16; }
  float* floats() const { return reinterpret_cast<float*>(data); }
  QuantizedRows quantized() const {
    if (kind == RowKind::kBfloat) return {data, bfloat_row_bytes(width), width, false, true};
    const bool fine = kind == RowKind::kFine, turned = kind == RowKind::kTurned;
    const size_t shift_bytes = grid && grid->shifted ? kShiftBytes : 0;
    return {data, quantized_row_bytes(width, fine, turned) + shift_bytes, width, fine, false, turned, grid};
  }
  int rows(const Step& step) const { return selected ? step.num_selected : step.num_rows; }
};

}  // namespace vivace
