// Matrices repacked at load into panels of 16 outputs, in the order the dot-product instructions want.
//
// Quantised panel: for each group of 32 columns, quads of 4 columns; a quad is 16 outputs x 4 unsigned codes = 64
// bytes. 4-bit panels hold quad j in the low and quad j + 4 in the high nibbles of the same 64 bytes. The group's
// float16 scales [16 outputs] follow and, for formats that have them, its float16 minima: a panel is read front to
// back. weight = scale * (code - zero) + minimum. Float panel: [column][16 outputs]; in bfloat16
// [column / 2][16 outputs][2], as dot products of pairs want them. Outputs past the last row of the matrix are zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/calls.h"
#include "runtime/memory.h"

namespace vivace {

// GGML block formats and plain floats that can be packed.
enum class SourceFormat {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kN8_0,
  kQ8_64,
  kQ6_0,
  kQ8_M,
  kQ6_64,
  kQ5_64,
  kQ4_64
};

SourceFormat source_format(const std::string& name);           // throws std::invalid_argument
size_t source_row_bytes(SourceFormat format, int num_inputs);  // throws when blocks do not fit the row
PanelFormat panel_format(SourceFormat format);
bool is_quantized(PanelFormat format);

class PackedMatrix {
 public:
  // Repacks `num_outputs` rows of `raw` into a piece of `memory`; `turned`: requantised, see weights/turned.h. Throws
  // std::invalid_argument when sizes do not fit together.
  PackedMatrix(const std::string& format, const uint8_t* raw, size_t raw_bytes, int num_outputs, int num_inputs,
               int num_threads, std::shared_ptr<ChunkedMemory> memory = std::make_shared<ChunkedMemory>(),
               bool turned = false);

  const PackedView& view() const { return view_; }
  int num_panels() const { return num_panels_; }
  size_t bytes() const { return (view_.panel_bytes + view_.low_panel_bytes) * num_panels_; }
  // Writes row `index` as float32 (num_inputs of them).
  void unpack_row(int index, float* out) const;
  // Nested weights: rows of at least this level read all eight bits, others the high four. See Step::row_levels.
  int full_level = 0;

 private:
  PackedView view_{};
  int num_panels_ = 0;
  std::shared_ptr<ChunkedMemory> memory_;
};

}  // namespace vivace
