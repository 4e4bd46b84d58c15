// Nested weights: eight bits of which the high four are a 4-bit matrix of their own. One copy in memory serves both.
//
// A block of 32 weights is 34 bytes: a float16 scale s, 16 bytes of high nibbles h and 16 of low nibbles l (column i in
// the low and column i + 16 in the high half of byte i, 8 added to each). In eight bits a weight is s (16 h + l), in
// four it is 16 s h: l lies in -8 .. 7, so that h is what rounding to nearest gives at the coarser scale.
#pragma once

#include "weights/packed.h"

namespace vivace {

// The panels of a nested matrix lie twice over: first high nibbles with their scales (16 s), laid out as Q4Sym panels,
// then low nibbles alone: four bits read half of the bytes. `view` has format kNested and post_scale 1/16.
void place_nested(PackedView* view);  // fills sizes; `data` and `low` are the caller's
void pack_nested_row(const PackedView& view, uint8_t* data, uint8_t* low, const uint8_t* row, int index);
void unpack_nested_row(const PackedView& view, int index, float* out);

// The same memory as a 4-bit matrix.
PackedView high_bits(const PackedView& view);

}  // namespace vivace
