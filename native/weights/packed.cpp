#include "weights/packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "vector/half.h"
#include "weights/blocks.h"
#include "weights/nested.h"
#include "weights/turned.h"

namespace vivace {

namespace {

struct SourceRow {
  const char* name;
  int block_columns;
  int block_bytes;
  PanelFormat panel;
  bool exact_scales;  // stored as float16 already
};

// In the order of SourceFormat.
constexpr SourceRow kSources[] = {
    {"F32", 1, 4, PanelFormat::kF32, true},           {"F16", 1, 2, PanelFormat::kF16, true},
    {"BF16", 1, 2, PanelFormat::kBF16, true},         {"Q4_0", 32, 18, PanelFormat::kQ4Sym, true},
    {"Q4_1", 32, 20, PanelFormat::kQ4Min, true},      {"Q5_0", 32, 22, PanelFormat::kQ8Sym, true},
    {"Q5_1", 32, 24, PanelFormat::kQ8Min, true},      {"Q8_0", 32, 34, PanelFormat::kQ8Sym, true},
    {"Q4_K", 256, 144, PanelFormat::kQ4Min, false},   {"Q5_K", 256, 176, PanelFormat::kQ8Min, false},
    {"Q6_K", 256, 210, PanelFormat::kQ8Sym16, false}, {"N8_0", 32, 34, PanelFormat::kNested, true},
    {"Q8_64", 64, 66, PanelFormat::kQ8Sym, true},     {"Q6_0", 32, 26, PanelFormat::kQ8Sym, true},
    {"Q8_M", 32, 36, PanelFormat::kQ8Min, true},      {"Q6_64", 64, 50, PanelFormat::kQ8Sym, true},
    {"Q5_64", 64, 42, PanelFormat::kQ8Sym, true},     {"Q4_64", 64, 34, PanelFormat::kQ4Sym, true},
};

struct PanelRow {
  int code_bits;  // per weight
  int scales;     // per group of 32 columns
  bool has_min;
  int zero;
};

// In the order of PanelFormat.
constexpr PanelRow kPanels[] = {{4, 1, true, 0},    {4, 1, false, 8},  {8, 1, false, 128}, {8, 1, true, 128},
                                {8, 2, false, 128}, {32, 0, false, 0}, {16, 0, false, 0},  {16, 0, false, 0},
                                {8, 1, false, 128}, {8, 1, false, 128}};

const SourceRow& row_of(SourceFormat format) { return kSources[static_cast<int>(format)]; }
const PanelRow& row_of(PanelFormat format) { return kPanels[static_cast<int>(format)]; }

// Bytes of a group's codes in a panel.
size_t code_bytes(const PanelRow& row) { return static_cast<size_t>(kGroup) * kLanes * row.code_bits / 8; }

PackedView layout(PanelFormat format, int num_outputs, int num_inputs) {
  const PanelRow& row = row_of(format);
  const size_t groups = is_quantized(format) ? num_inputs / kGroup : 0;
  PackedView view{};
  view.format = format;
  view.num_outputs = num_outputs;
  view.num_inputs = num_inputs;
  if (format == PanelFormat::kNested) {
    place_nested(&view);
    return view;
  }
  if (format == PanelFormat::kTurned) {
    place_turned(&view);
    return view;
  }
  view.group_bytes = is_quantized(format) ? code_bytes(row) + (row.scales + (row.has_min ? 1 : 0)) * kLanes * 2 : 0;
  const size_t columns = static_cast<size_t>(num_inputs) + (format == PanelFormat::kBF16 ? num_inputs % 2 : 0);
  const size_t float_bytes = columns * kLanes * row.code_bits / 8;
  const size_t bytes = is_quantized(format) ? groups * view.group_bytes : float_bytes;
  view.panel_bytes = (bytes + 63) / 64 * 64;
  view.post_scale = 1.0f;
  return view;
}

// Where a column of one of a panel's rows lies in a float format, counted in numbers.
size_t float_at(PanelFormat format, int column, int lane) {
  if (format != PanelFormat::kBF16) return static_cast<size_t>(column) * kLanes + lane;
  return (static_cast<size_t>(column / 2) * kLanes + lane) * 2 + column % 2;
}

struct Packer {
  PackedView view;
  uint8_t* data;
  const uint8_t* raw;
  size_t row_bytes;
  SourceFormat source;
  ReadGroup read;
  float normalizer;  // multiplies scales and minima before they become float16

  int num_panels() const { return (view.num_outputs + kLanes - 1) / kLanes; }

  void store_group(const Group& group, uint8_t* panel, int number, int lane) const {
    const PanelRow& row = row_of(view.format);
    uint8_t* start = panel + number * view.group_bytes;
    uint16_t* scales = reinterpret_cast<uint16_t*>(start + code_bytes(row));
    for (int part = 0; part < row.scales; ++part)
      scales[part * kLanes + lane] = float_to_half(group.scale[part] * normalizer);
    if (row.has_min) scales[row.scales * kLanes + lane] = float_to_half(group.minimum * normalizer);
    // Quads of the panel are 64 bytes apart; this row's four bytes of each lie at its lane.
    uint8_t* codes = start + 4 * lane;
    for (int quad = 0; quad < row.code_bits; ++quad) std::memcpy(codes + 64 * quad, group.codes + 4 * quad, 4);
  }

  void pack_quantized(int panel_index, int lane, const uint8_t* row) const {
    uint8_t* panel = data + panel_index * view.panel_bytes;
    Group group;
    for (int number = 0; number < view.num_inputs / kGroup; ++number) {
      read(row, number, &group);
      store_group(group, panel, number, lane);
    }
  }

  void pack_floats(int panel_index, int lane, const uint8_t* row) const {
    const size_t width = row_of(view.format).code_bits / 8;
    uint8_t* panel = data + panel_index * view.panel_bytes;
    for (int column = 0; column < view.num_inputs; ++column)
      std::memcpy(panel + float_at(view.format, column, lane) * width, row + column * width, width);
  }

  // A row of the source as floats.
  void read_row(const uint8_t* row, float* out) const {
    const PanelRow& stored = row_of(panel_format(source));
    Group group;
    for (int number = 0; read && number < view.num_inputs / kGroup; ++number, out += kGroup) {
      read(row, number, &group);
      const float zero = static_cast<float>(stored.zero);
      for (int half = 0; half < 2; ++half) {
        const float scale = group.scale[stored.scales == 2 ? half : 0];
        const float minimum = group.minimum - scale * zero;
        float* values = out + half * kGroup / 2;
        const uint8_t* codes = group.codes + (stored.code_bits == 8 ? half * kGroup / 2 : 0);
        const int shift = stored.code_bits == 4 ? 4 * half : 0, mask = stored.code_bits == 4 ? 15 : 255;
        for (int i = 0; i < kGroup / 2; ++i) values[i] = scale * static_cast<float>(codes[i] >> shift & mask) + minimum;
      }
    }
    for (int column = 0; !read && column < view.num_inputs; ++column) {
      if (source == SourceFormat::kF32) {
        std::memcpy(out + column, row + 4 * static_cast<size_t>(column), 4);
        continue;
      }
      uint16_t half;
      std::memcpy(&half, row + 2 * static_cast<size_t>(column), 2);
      out[column] = source == SourceFormat::kF16 ? half_to_float(half) : bfloat_to_float(half);
    }
  }

  void pack_panels(int begin, int end) const {
    std::vector<float> values(view.format == PanelFormat::kTurned ? view.num_inputs : 0);
    for (int panel = begin; panel < end; ++panel) {
      for (int lane = 0; lane < kLanes && panel * kLanes + lane < view.num_outputs; ++lane) {
        const uint8_t* row = raw + (static_cast<size_t>(panel) * kLanes + lane) * row_bytes;
        if (view.format == PanelFormat::kNested) {
          pack_nested_row(view, data, data + view.panel_bytes * num_panels(), row, panel * kLanes + lane);
        } else if (view.format == PanelFormat::kTurned) {
          read_row(row, values.data());
          pack_turned_row(view, data, values.data(), panel * kLanes + lane);
        } else if (read) {
          pack_quantized(panel, lane, row);
        } else {
          pack_floats(panel, lane, row);
        }
      }
    }
  }

  // Largest magnitude that will be stored as float16.
  float largest_scale() const {
    float largest = 0.0f;
    Group group;
    for (int row = 0; row < view.num_outputs; ++row) {
      for (int number = 0; number < view.num_inputs / kGroup; ++number) {
        read(raw + row * row_bytes, number, &group);
        largest = std::max({largest, std::fabs(group.scale[0]), std::fabs(group.scale[1]), std::fabs(group.minimum)});
      }
    }
    return largest;
  }
};

void run_parallel(int count, int num_threads, const auto& work) {
  std::vector<std::thread> threads;
  for (int t = 1; t < num_threads; ++t)
    threads.emplace_back([&, t] { work(count * t / num_threads, count * (t + 1) / num_threads); });
  work(0, count / num_threads);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

SourceFormat source_format(const std::string& name) {
  int index = 0;
  for (const SourceRow& row : kSources) {
    if (name == row.name) return static_cast<SourceFormat>(index);
    ++index;
  }
  throw std::invalid_argument("unknown tensor format '" + name + "'");
}

size_t source_row_bytes(SourceFormat format, int num_inputs) {
  const SourceRow& row = row_of(format);
  if (num_inputs % row.block_columns != 0)
    throw std::invalid_argument(std::string(row.name) + " needs a multiple of " + std::to_string(row.block_columns) +
                                " columns, not " + std::to_string(num_inputs));
  return static_cast<size_t>(num_inputs) / row.block_columns * row.block_bytes;
}

PanelFormat panel_format(SourceFormat format) { return row_of(format).panel; }

bool is_quantized(PanelFormat format) { return row_of(format).scales > 0; }

PackedMatrix::PackedMatrix(const std::string& format, const uint8_t* raw, size_t raw_bytes, int num_outputs,
                           int num_inputs, int num_threads, std::shared_ptr<ChunkedMemory> memory, bool turned)
    : memory_(std::move(memory)) {
  if (num_outputs <= 0 || num_inputs <= 0) throw std::invalid_argument("a matrix needs at least one row and column");
  const SourceFormat source = source_format(format);
  const size_t row_bytes = source_row_bytes(source, num_inputs);
  if (raw_bytes != row_bytes * num_outputs)
    throw std::invalid_argument("the matrix should take " + std::to_string(row_bytes * num_outputs) + " bytes, not " +
                                std::to_string(raw_bytes));
  if (turned && (num_inputs % kTurn != 0 || source == SourceFormat::kN8_0))
    throw std::invalid_argument("turned weights need a multiple of 64 columns and may not be nested");
  view_ = layout(turned ? PanelFormat::kTurned : panel_format(source), num_outputs, num_inputs);
  num_panels_ = (num_outputs + kLanes - 1) / kLanes;
  uint8_t* data = memory_->allocate(bytes());
  view_.data = data;
  if (view_.format == PanelFormat::kNested) view_.low = data + view_.panel_bytes * num_panels_;
  Packer packer{view_, data, raw, row_bytes, source, group_reader(source), 1.0f};
  if (!turned && !row_of(source).exact_scales) {
    // Products of a float16 and a six- or eight-bit scale need not be float16 numbers: a power of two moves the largest
    // to 2^14, so that rounding costs at most 2^-12 of any scale that matters.
    float largest = packer.largest_scale();
    int exponent = 0;
    if (largest > 0.0f && std::isfinite(largest)) std::frexp(largest, &exponent);
    packer.normalizer = std::ldexp(1.0f, 14 - exponent);
    view_.post_scale = std::ldexp(1.0f, exponent - 14);
  }
  run_parallel(num_panels_, std::max(1, std::min(num_threads, num_panels_)),
               [&](int begin, int end) { packer.pack_panels(begin, end); });
}

void PackedMatrix::unpack_row(int index, float* out) const {
  if (view_.format == PanelFormat::kNested) return unpack_nested_row(view_, index, out);
  if (view_.format == PanelFormat::kTurned) return unpack_turned_row(view_, index, out);
  const PanelRow& row = row_of(view_.format);
  const uint8_t* panel = view_.data + index / kLanes * view_.panel_bytes;
  const int lane = index % kLanes;
  if (!is_quantized(view_.format)) {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(panel);
    for (int column = 0; column < view_.num_inputs; ++column) {
      const size_t at = float_at(view_.format, column, lane);
      out[column] = view_.format == PanelFormat::kF32   ? reinterpret_cast<const float*>(panel)[at]
                    : view_.format == PanelFormat::kF16 ? half_to_float(halves[at])
                                                        : bfloat_to_float(halves[at]);
    }
    return;
  }
  for (int column = 0; column < view_.num_inputs; ++column) {
    const int group = column / kGroup, quad = column % kGroup / 4;
    const uint8_t* start = panel + group * view_.group_bytes;
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(start + code_bytes(row));
    const uint8_t* codes = start + 4 * lane;
    const int code = row.code_bits == 8 ? codes[64 * quad + column % 4]
                                        : (codes[64 * (quad % 4) + column % 4] >> (quad / 4 * 4)) & 15;
    const int part = row.scales == 2 ? column % kGroup / 16 : 0;
    const float scale = half_to_float(scales[part * kLanes + lane]);
    const float minimum = row.has_min ? half_to_float(scales[row.scales * kLanes + lane]) : 0.0f;
    out[column] = (scale * static_cast<float>(code - row.zero) + minimum) * view_.post_scale;
  }
}

}  // namespace vivace
