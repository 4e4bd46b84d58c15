// GGML's block formats read as plain numbers: 32 columns as codes with a scale and a minimum each.
#pragma once

#include <cstdint>

#include "weights/packed.h"

namespace vivace {

// 32 columns of one row: weight = scale[part] * (code - zero) + minimum. Formats with two scales use part = column
// / 16.
struct Group {
  uint8_t codes[32];
  float scale[2];
  float minimum;
};

// Group number `group` of a row that starts at `row`. Codes are unsigned; 8-bit panel formats have 128 added.
using ReadGroup = void (*)(const uint8_t* row, int group, Group* out);

ReadGroup group_reader(SourceFormat format);

}  // namespace vivace
