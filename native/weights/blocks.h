// GGML's block formats read as plain numbers: 32 columns as codes with a scale and a minimum each.
#pragma once

#include <cstdint>

#include "weights/packed.h"

namespace vivace {

// 32 columns of one row: weight = scale[part] * (code - zero) + minimum. Formats with two scales use part = column
// / 16.
struct Group {
  // 4-bit formats: 16 bytes, column i in the low and column i + 16 in the high nibble of byte i, as panels want them.
  // 8-bit formats: 32 unsigned codes with 128 added.
  uint8_t codes[32];
  float scale[2];
  float minimum;
};

// Group number `group` of a row that starts at `row`.
using ReadGroup = void (*)(const uint8_t* row, int group, Group* out);

ReadGroup group_reader(SourceFormat format);

}  // namespace vivace
