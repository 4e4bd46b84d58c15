#include "weights/turned.h"

#include <cstring>

#include "kernels/table.h"

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
  const float largest = available_tables().front()->pack_turned(values, columns, panel + 4 * lane);
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
