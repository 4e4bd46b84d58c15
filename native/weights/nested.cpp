#include "weights/nested.h"

#include <cstring>

#include "vector/half.h"

namespace vivace {

namespace {

constexpr int kBlockBytes = 34;
constexpr size_t kNibbleBytes = kGroup * kLanes / 2;  // of a group of 16 rows

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Quads of four columns lie 64 bytes apart; this row's four bytes of each at its lane.
void spread(const uint8_t* nibbles, uint8_t* group, int lane) {
  for (int quad = 0; quad < 4; ++quad) std::memcpy(group + 64 * quad + 4 * lane, nibbles + 4 * quad, 4);
}

int nibble(const uint8_t* group, int column, int lane) {
  const int quad = column / 4;
  return (group[64 * (quad % 4) + 4 * lane + column % 4] >> (quad / 4 * 4) & 15) - 8;
}

}  // namespace

void place_nested(PackedView* view) {
  const size_t groups = view->num_inputs / kGroup;
  view->group_bytes = kNibbleBytes + kLanes * sizeof(uint16_t);
  view->panel_bytes = round_up(groups * view->group_bytes);
  view->low_panel_bytes = round_up(groups * kNibbleBytes);
  view->post_scale = 1.0f / 16.0f;
}

void pack_nested_row(const PackedView& view, uint8_t* data, uint8_t* low, const uint8_t* row, int index) {
  const int panel = index / kLanes, lane = index % kLanes;
  for (int group = 0; group < view.num_inputs / kGroup; ++group) {
    uint8_t* high_group = data + panel * view.panel_bytes + group * view.group_bytes;
    const uint8_t* block = row + static_cast<size_t>(group) * kBlockBytes;
    uint16_t half;
    std::memcpy(&half, block, sizeof half);
    half = float_to_half(16.0f * half_to_float(half));
    std::memcpy(high_group + kNibbleBytes + lane * sizeof half, &half, sizeof half);
    spread(block + 2, high_group, lane);
    spread(block + 18, low + panel * view.low_panel_bytes + group * kNibbleBytes, lane);
  }
}

void unpack_nested_row(const PackedView& view, int index, float* out) {
  const int panel = index / kLanes, lane = index % kLanes;
  for (int column = 0; column < view.num_inputs; ++column) {
    const int group = column / kGroup, within = column % kGroup;
    const uint8_t* high_group = view.data + panel * view.panel_bytes + group * view.group_bytes;
    const uint8_t* low_group = view.low + panel * view.low_panel_bytes + group * kNibbleBytes;
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(high_group + kNibbleBytes);
    const int code = 16 * nibble(high_group, within, lane) + nibble(low_group, within, lane);
    out[column] = half_to_float(scales[lane]) * static_cast<float>(code) * view.post_scale;
  }
}

PackedView high_bits(const PackedView& view) {
  PackedView high = view;
  high.format = PanelFormat::kQ4Sym;
  high.post_scale = 1.0f;
  return high;
}

}  // namespace vivace
