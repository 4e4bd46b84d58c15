// Every kernel table against plain double arithmetic: formats, odd row counts, unaligned rows, and one result a row
// whatever rows share the call.
#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/table.h"
#include "tests/check.h"
#include "vector/half.h"
#include "weights/nested.h"
#include "weights/packed.h"

using namespace vivace;
using namespace vivace::test;

namespace {

constexpr const char* kFormats[] = {"F32",  "F16",  "BF16",  "Q4_0", "Q4_1", "Q5_0",  "Q5_1",  "Q8_0", "Q4_K",
                                    "Q5_K", "Q6_K", "Q8_64", "Q6_0", "Q8_M", "Q6_64", "Q5_64", "Q4_64"};

void put_half(std::vector<uint8_t>& raw, size_t at, float value) {
  const uint16_t half = float_to_half(value);
  std::memcpy(raw.data() + at, &half, sizeof half);
}

// Random bytes with sane scales where the format keeps its float16 numbers.
std::vector<uint8_t> random_matrix(const std::string& format, int outputs, int inputs, Random& random) {
  const SourceFormat source = source_format(format);
  const size_t row_bytes = source_row_bytes(source, inputs);
  std::vector<uint8_t> raw(row_bytes * outputs);
  for (uint8_t& byte : raw) byte = random.byte();
  struct Halves {
    const char* format;
    size_t block_bytes;
    std::vector<size_t> at;
  };
  const Halves table[] = {{"Q4_0", 18, {0}},  {"Q4_1", 20, {0, 2}},  {"Q5_0", 22, {0}},     {"Q5_1", 24, {0, 2}},
                          {"Q8_0", 34, {0}},  {"Q4_K", 144, {0, 2}}, {"Q5_K", 176, {0, 2}}, {"Q6_K", 210, {208}},
                          {"Q8_64", 66, {0}}, {"Q6_0", 26, {0}},     {"Q8_M", 36, {0, 2}},  {"Q6_64", 50, {0}},
                          {"Q5_64", 42, {0}}, {"Q4_64", 34, {0}}};
  for (const Halves& row : table) {
    if (format != row.format) continue;
    for (size_t block = 0; block < raw.size(); block += row.block_bytes)
      for (size_t at : row.at) put_half(raw, block + at, 0.02f * random.normal());
  }
  for (size_t i = 0; format == "F32" && i < raw.size(); i += 4) {
    const float value = random.normal();
    std::memcpy(raw.data() + i, &value, sizeof value);
  }
  for (size_t i = 0; (format == "F16" || format == "BF16") && i < raw.size(); i += 2) {
    const float value = random.normal();
    if (format == "F16") put_half(raw, i, value);
    const uint16_t high = static_cast<uint16_t>(bits_from_float(value) >> 16);
    if (format == "BF16") std::memcpy(raw.data() + i, &high, sizeof high);
  }
  return raw;
}

struct QuantizedBatch {
  std::vector<uint8_t> bytes;
  QuantizedRows rows;
  QuantizedBatch(int count, int columns, bool fine)
      : bytes(quantized_row_bytes(columns, fine) * count + 64),
        rows{bytes.data(), quantized_row_bytes(columns, fine), columns, fine} {
    rows.data += 64 - reinterpret_cast<uintptr_t>(rows.data) % 64;
  }
};

void test_linear(const KernelTable& table, const std::string& format, bool fine) {
  Random random(11);
  const int outputs = 45,
            inputs = format.find("_K") != std::string::npos    ? 512
                     : format.find("_64") != std::string::npos ? 128
                                                               : 96,
            rows = 13;
  const auto raw = random_matrix(format, outputs, inputs, random);
  const PackedMatrix matrix(format, raw.data(), raw.size(), outputs, inputs, 2);
  const bool quantized = is_quantized(matrix.view().format);
  const size_t stride = inputs + 3;  // rows start off any alignment
  std::vector<float> x = random.normals(stride * rows), bias = random.normals(48);
  x[5] = 40.0f;                                     // an outlier
  std::fill(x.begin() + 32, x.begin() + 64, 0.0f);  // a group of zeros
  QuantizedBatch batch(rows, inputs, fine);
  if (quantized) table.quantize({x.data(), stride, batch.rows}, 0, rows);
  std::vector<float> out(48 * rows), alone(48 * rows);
  LinearCall call{matrix.view(), bias.data(), x.data(), stride, quantized ? batch.rows : QuantizedRows{},
                  out.data(),    48};
  table.linear(call, 0, matrix.num_panels(), 0, rows);
  call.out = alone.data();
  for (int row = 0; row < rows; ++row)
    for (int panel = 0; panel < matrix.num_panels(); ++panel) table.linear(call, panel, panel + 1, row, row + 1);
  check(std::memcmp(out.data(), alone.data(), out.size() * sizeof(float)) == 0,
        (format + ": a row alone equals the row in a batch").c_str(), table.name);
  // A quantised input is off by at most half a step (8 of a fine row), and float sums round: nothing else may add to
  // the error.
  std::vector<float> weight(inputs);
  double worst = 0;
  for (int n = 0; n < outputs; ++n) {
    matrix.unpack_row(n, weight.data());
    for (int row = 0; row < rows; ++row) {
      double sum = bias[n], bound = 1e-5;
      for (int k = 0; k < inputs; ++k) {
        const double product = static_cast<double>(weight[k]) * x[row * stride + k];
        const double step = quantized ? batch.rows.scales(row)[k / kGroup] : 0.0;
        sum += product;
        bound +=
            std::abs(weight[k]) * step * (fine ? 8.5 : 0.51) + 4e-6 * std::abs(product) + 1e-6 * std::abs(weight[k]);
      }
      worst = std::max(worst, std::abs(sum - out[row * 48 + n]) / bound);
    }
  }
  check(worst <= 1.0, (format + ": linear is as near the exact product as its inputs' steps allow").c_str(),
        table.name);
}

// BF16 weights times rows rounded to bfloat16: exact products of the rounded numbers, but for the sums' own rounding.
void test_bfloat_rows(const KernelTable& table) {
  Random random(19);
  const int outputs = 150, inputs = 96, rows = 13;
  const size_t stride = 160;
  const auto raw = random_matrix("BF16", outputs, inputs, random);
  const PackedMatrix matrix("BF16", raw.data(), raw.size(), outputs, inputs, 2);
  const std::vector<float> x = random.normals(inputs * rows);
  std::vector<uint8_t> bytes(bfloat_row_bytes(inputs) * rows);
  const QuantizedRows rounded{bytes.data(), bfloat_row_bytes(inputs), inputs, false, true};
  table.quantize({x.data(), static_cast<size_t>(inputs), rounded}, 0, rows);
  std::vector<float> out(stride * rows), other(stride * rows), weight(inputs);
  LinearCall call{matrix.view(), nullptr, nullptr, 0, rounded, out.data(), stride};
  table.linear(call, 0, matrix.num_panels(), 0, rows);
  call.out = other.data();
  for (int count = 1; count <= 5; ++count) {
    std::fill(other.begin(), other.end(), 0.0f);
    for (int row = 0; row < rows; row += count)
      table.linear(call, 0, matrix.num_panels(), row, std::min(row + count, rows));
    check(std::memcmp(out.data(), other.data(), out.size() * sizeof(float)) == 0,
          "bfloat rows: a row in small company equals the row in a batch", table.name);
  }
  double worst = 0, nearest = 0;
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < inputs; ++k) {
      const float exact = x[row * inputs + k];
      nearest =
          std::max(nearest, std::abs(bfloat_to_float(rounded.bfloats(row)[k]) - exact) / (1e-9 + std::abs(exact)));
    }
  check(nearest <= 1.0 / 256, "bfloat rows are the nearest bfloat16 numbers", table.name);
  for (int n = 0; n < outputs; ++n) {
    matrix.unpack_row(n, weight.data());
    for (int row = 0; row < rows; ++row) {
      double sum = 0, bound = 1e-6;
      for (int k = 0; k < inputs; ++k) {
        const double product = static_cast<double>(weight[k]) * bfloat_to_float(rounded.bfloats(row)[k]);
        sum += product;
        bound += 4e-6 * std::abs(product);
      }
      worst = std::max(worst, std::abs(sum - out[row * stride + n]) / bound);
    }
  }
  check(worst <= 1.0, "bfloat rows: linear is near the exact sum of what was rounded", table.name);
}

// Rows of floats with a last column that has no partner.
void test_odd_columns(const KernelTable& table, const std::string& format) {
  Random random(23);
  const int outputs = 70, inputs = 97, rows = 5;
  const auto raw = random_matrix(format, outputs, inputs, random);
  const PackedMatrix matrix(format, raw.data(), raw.size(), outputs, inputs, 2);
  const std::vector<float> x = random.normals(inputs * rows);
  std::vector<float> out(80 * rows), weight(inputs);
  const LinearCall call{matrix.view(), nullptr, x.data(), static_cast<size_t>(inputs), {}, out.data(), 80};
  for (int row = 0; row < rows; row += 3) table.linear(call, 0, matrix.num_panels(), row, std::min(row + 3, rows));
  double worst = 0;
  for (int n = 0; n < outputs; ++n) {
    matrix.unpack_row(n, weight.data());
    for (int row = 0; row < rows; ++row) {
      double sum = 0, bound = 1e-6;
      for (int k = 0; k < inputs; ++k) {
        sum += static_cast<double>(weight[k]) * x[row * inputs + k];
        bound += 4e-6 * std::abs(weight[k] * x[row * inputs + k]);
      }
      worst = std::max(worst, std::abs(sum - out[row * 80 + n]) / bound);
    }
  }
  check(worst <= 1.0, (format + ": an odd number of columns is summed to the last").c_str(), table.name);
}

// Nested weights: all bits against their own numbers, the high bits against the Q4_0 matrix they are.
void test_nested(const KernelTable& table, bool fine) {
  Random random(17);
  const int outputs = 45, inputs = 96, rows = 13;
  std::vector<uint8_t> raw(outputs * inputs / 32 * 34), coarse;
  for (uint8_t& byte : raw) byte = random.byte();
  for (size_t block = 0; block < raw.size(); block += 34) {
    for (size_t i = block + 2; i < block + 18;
         ++i)  // codes start at -128: a lowest high nibble has no negative low one
      for (int shift : {0, 4})
        if ((raw[i] >> shift & 15) == 0) raw[i + 16] |= static_cast<uint8_t>(8 << shift);
    const float scale = half_to_float(float_to_half(0.02f * random.normal()));
    put_half(raw, block, scale);
    const size_t at = coarse.size();
    coarse.resize(at + 18);
    put_half(coarse, at, 16.0f * scale);
    std::memcpy(coarse.data() + at + 2, raw.data() + block + 2, 16);
  }
  const PackedMatrix nested("N8_0", raw.data(), raw.size(), outputs, inputs, 2);
  const PackedMatrix four("Q4_0", coarse.data(), coarse.size(), outputs, inputs, 2);
  const std::vector<float> x = random.normals(inputs * rows);
  QuantizedBatch batch(rows, inputs, fine);
  table.quantize({x.data(), static_cast<size_t>(inputs), batch.rows}, 0, rows);
  std::vector<float> out(48 * rows), other(48 * rows), weight(inputs);
  LinearCall call{nested.view(), nullptr, nullptr, 0, batch.rows, out.data(), 48};
  table.linear(call, 0, nested.num_panels(), 0, rows);
  call.out = other.data();
  for (int row = 0; row < rows; ++row) table.linear(call, 0, nested.num_panels(), row, row + 1);
  check(std::memcmp(out.data(), other.data(), out.size() * sizeof(float)) == 0,
        "nested: a row alone equals the row in a batch", table.name);
  double worst = 0;
  for (int n = 0; n < outputs; ++n) {
    nested.unpack_row(n, weight.data());
    for (int row = 0; row < rows; ++row) {
      double sum = 0, bound = 1e-5;
      for (int k = 0; k < inputs; ++k) {
        sum += static_cast<double>(weight[k]) * x[row * inputs + k];
        bound += std::abs(weight[k]) * batch.rows.scales(row)[k / kGroup] * (fine ? 8.5 : 0.51) +
                 4e-6 * std::abs(weight[k] * x[row * inputs + k]);
      }
      worst = std::max(worst, std::abs(sum - out[row * 48 + n]) / bound);
    }
  }
  check(worst <= 1.0, "nested: linear is as near the exact product as its inputs' steps allow", table.name);
  LinearCall slice{high_bits(nested.view()), nullptr, nullptr, 0, batch.rows, out.data(), 48};
  table.linear(slice, 0, nested.num_panels(), 0, rows);
  LinearCall plain{four.view(), nullptr, nullptr, 0, batch.rows, other.data(), 48};
  table.linear(plain, 0, four.num_panels(), 0, rows);
  check(std::memcmp(out.data(), other.data(), out.size() * sizeof(float)) == 0,
        "nested: the high bits are the Q4_0 matrix", table.name);
}

void test_norm(const KernelTable& table) {
  Random random(12);
  const int width = 96, rows = 9;
  auto a = random.normals(width * rows), b = random.normals(width * rows), weight = random.normals(width);
  std::vector<float> total(width * rows), out(width * rows), plain(width * rows);
  QuantizedBatch batch(rows, width, true);
  NormCall call{a.data(), b.data(), total.data(), out.data(), weight.data(), 1e-5f, width, 96, 96, 96, 96, batch.rows};
  table.rms_norm(call, 0, rows);
  call.quantized = {};
  call.out = plain.data();
  table.rms_norm(call, 3, rows);
  table.rms_norm(call, 0, 3);
  check(plain == out, "norm does not depend on what else it writes", table.name);
  double worst = 0, quantized_worst = 0;
  for (int row = 0; row < rows; ++row) {
    double squares = 0;
    for (int i = 0; i < width; ++i)
      squares += std::pow(static_cast<double>(a[row * width + i]) + b[row * width + i], 2);
    const double factor = 1.0 / std::sqrt(squares / width + 1e-5);
    for (int i = 0; i < width; ++i) {
      const double exact = (static_cast<double>(a[row * width + i]) + b[row * width + i]) * factor * weight[i];
      worst = std::max(worst, std::abs(exact - out[row * width + i]));
      const int low = batch.rows.low(row)[i / 32 * 16 + i % 16] * (i % 32 < 16 ? 1 : 16);
      const double q = batch.rows.scales(row)[i / 32] * (256 * batch.rows.high(row)[i] + low);
      quantized_worst = std::max(quantized_worst, std::abs(q - exact));
    }
  }
  check(worst < 1e-5, "norm is near the exact one", table.name);
  check(quantized_worst < 2e-3, "the quantised norm is near the exact one", table.name);
}

void test_gated(const KernelTable& table) {
  Random random(13);
  const int width = 64, rows = 3;
  auto gate = random.normals(width * rows, 6.0f), up = random.normals(width * rows);
  gate[0] = 100.0f;
  gate[1] = -100.0f;
  std::vector<float> out(width * rows);
  for (Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    table.gated({gate.data(), up.data(), out.data(), width, 64, 64, 64, activation, {}}, 0, rows, 0, width);
    double worst = 0;
    for (int i = 0; i < width * rows; ++i) {
      const double x = gate[i];
      const double inner = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
      const double y = activation == Activation::kSilu ? x / (1 + std::exp(-x)) : 0.5 * x * (1 + std::tanh(inner));
      worst = std::max(worst, std::abs(y * up[i] - out[i]) / (1 + std::abs(y * up[i])));
    }
    check(worst < 1e-5, "gate is near the exact activation", table.name);
  }
}

void test_half() {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = half_to_float(half);
    if (std::isnan(value) ? (float_to_half(value) & 0x7c00) != 0x7c00 : float_to_half(value) != half) ++wrong;
  }
  check(wrong == 0, "every float16 survives the way through float32", "half.h");
  check(half_to_float(float_to_half(65519.0f)) == 65504.0f, "65519 rounds down", "half.h");
  check(std::isinf(half_to_float(float_to_half(65520.0f))), "65520 rounds to infinity", "half.h");
}

void test_sizes_refused() {
  const uint8_t raw[64] = {};
  bool refused = false;
  try {
    PackedMatrix matrix("Q4_0", raw, sizeof raw, 1, 33, 1);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  check(refused, "a row that blocks do not fill is refused", "packed");
}

}  // namespace

int main() {
  test_half();
  test_sizes_refused();
  for (const KernelTable* table : available_tables()) {
    for (const char* format : kFormats)
      for (bool fine : {false, true}) test_linear(*table, format, fine);
    for (bool fine : {false, true}) test_nested(*table, fine);
    for (const char* format : {"F32", "F16", "BF16"}) test_odd_columns(*table, format);
    test_bfloat_rows(*table);
    test_norm(*table);
    test_gated(*table);
  }
  return report("kernels");
}
