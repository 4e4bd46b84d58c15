#include "weights/turned.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace vivace {

namespace {

// x becomes sqrt(64) * H x, 64 columns at a time.
void turn_columns(float* x, int count) {
  for (float* group = x; group < x + count; group += kTurn) {
    for (int stride = 1; stride < kTurn; stride *= 2) {
      for (int begin = 0; begin < kTurn; begin += 2 * stride) {
        for (int i = begin; i < begin + stride; ++i) {
          const float a = group[i], b = group[i + stride];
          group[i] = a + b;
          group[i + stride] = a - b;
        }
      }
    }
  }
}

float* scales_of(uint8_t* panel, int num_inputs) {
  return reinterpret_cast<float*>(panel + static_cast<size_t>(num_inputs) * kLanes);
}

}  // namespace

void place_turned(PackedView* view) {
  view->group_bytes = kTurn * kLanes;
  view->panel_bytes = static_cast<size_t>(view->num_inputs) * kLanes + kLanes * sizeof(float);
  view->post_scale = 1.0f;
}

void pack_turned_row(const PackedView& view, uint8_t* data, float* values, int index) {
  const int columns = view.num_inputs, lane = index % kLanes;
  uint8_t* panel = data + index / kLanes * view.panel_bytes;
  turn_columns(values, columns);
  float largest = 0.0f;
  for (int i = 0; i < columns; ++i) largest = std::max(largest, std::fabs(values[i]));
  const float inverse = largest > 0.0f ? kTurnedTop / largest : 0.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23 pushes the fraction out: nearest, ties to even
  uint8_t* at = panel + 4 * lane;
  for (int i = 0; i < columns; i += 4, at += 64) {
    uint8_t quad[4];
    for (int j = 0; j < 4; ++j)
      quad[j] = static_cast<uint8_t>(static_cast<int>((values[i + j] * inverse + kRound) - kRound) + 128);
    std::memcpy(at, quad, sizeof quad);
  }
  scales_of(panel, columns)[lane] = largest / (8.0f * kTurnedTop);
}

void unpack_turned_row(const PackedView& view, int index, float* out) {
  const int columns = view.num_inputs, lane = index % kLanes;
  const uint8_t* panel = view.data + index / kLanes * view.panel_bytes;
  float scale;
  std::memcpy(&scale, panel + static_cast<size_t>(columns) * kLanes + sizeof scale * lane, sizeof scale);
  for (int i = 0; i < columns; ++i)
    out[i] = static_cast<float>(panel[64 * (i / 4) + 4 * lane + i % 4] - 128) * (scale / 8.0f);
  turn_columns(out, columns);
}

}  // namespace vivace
