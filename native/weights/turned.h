// Turned weights: any format requantised at load to eight bits with one scale a row, every 64 columns turned by a
// Hadamard matrix first, so that one scale serves a whole row. kernels/linear_turned.inc multiplies them.
//
// A panel: for each group of 64 columns 16 quads (16 outputs x 4 codes with 128 added), after the last group 16 float32
// scales. weight = scale * H (code - 128).
#pragma once

#include "kernels/calls.h"

namespace vivace {

void place_turned(PackedView* view);
// `values`: num_inputs floats of row `index`, overwritten. By the best kernel table: all of them give the same codes.
void pack_turned_row(const PackedView& view, uint8_t* data, float* values, int index);
void unpack_turned_row(const PackedView& view, int index, float* out);

}  // namespace vivace
