// Turned rows and weights on every kernel table: the same bits alone, in a batch and on every table whose floats agree,
// and as near the exact product as their steps allow.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/table.h"
#include "tests/check.h"
#include "weights/packed.h"

using namespace vivace;
using namespace vivace::test;

namespace {

struct TurnedRows {
  std::vector<uint8_t> bytes;
  QuantizedRows rows;
  TurnedRows(int count, int columns)
      : bytes(quantized_row_bytes(columns, false, true) * count + 64),
        rows{bytes.data(), quantized_row_bytes(columns, false, true), columns, false, false, true} {
    rows.data += 64 - reinterpret_cast<uintptr_t>(rows.data) % 64;
  }
  size_t num_bytes(int count) const { return rows.row_bytes * count; }
};

PackedMatrix pack(const std::vector<float>& weight, int outputs, int inputs) {
  const auto* raw = reinterpret_cast<const uint8_t*>(weight.data());
  return PackedMatrix("F32", raw, weight.size() * sizeof(float), outputs, inputs, 2, std::make_shared<ChunkedMemory>(),
                      true);
}

std::vector<float> outliers(int rows, int columns, Random& random) {
  std::vector<float> x = random.normals(static_cast<size_t>(rows) * columns);
  x[5] = 90.0f;
  std::fill(x.begin() + 64, x.begin() + 128, 0.0f);  // a group of zeros
  return x;
}

void test_linear(const KernelTable& table, int inputs, int rows) {
  Random random(31);
  const int outputs = 45;
  const std::vector<float> weight = random.normals(static_cast<size_t>(outputs) * inputs);
  const std::vector<float> bias = random.normals(48), x = outliers(rows, inputs, random);
  const PackedMatrix matrix = pack(weight, outputs, inputs);
  TurnedRows batch(rows, inputs);
  table.quantize({x.data(), static_cast<size_t>(inputs), batch.rows}, 0, rows);
  std::vector<float> out(48 * rows), alone(48 * rows), unpacked(inputs);
  LinearCall call{matrix.view(), bias.data(), nullptr, 0, batch.rows, out.data(), 48};
  table.linear(call, 0, matrix.num_panels(), 0, rows);
  call.out = alone.data();
  for (int row = 0; row < rows; ++row)
    for (int panel = 0; panel < matrix.num_panels(); ++panel) table.linear(call, panel, panel + 1, row, row + 1);
  check(std::memcmp(out.data(), alone.data(), out.size() * sizeof(float)) == 0,
        "turned: a row alone equals the row in a batch", table.name);
  double worst = 0, off = 0;
  for (int n = 0; n < outputs; ++n) {
    matrix.unpack_row(n, unpacked.data());
    for (int k = 0; k < inputs; ++k)
      off = std::max(off, std::abs(static_cast<double>(unpacked[k]) - weight[n * inputs + k]));
    for (int row = 0; row < rows; ++row) {
      double sum = bias[n], bound = 1e-4;
      for (int group = 0; group < inputs / kTurn; ++group) {
        double largest = 0, length = 0;
        for (int k = group * kTurn; k < (group + 1) * kTurn; ++k) {
          sum += static_cast<double>(unpacked[k]) * x[row * inputs + k];
          length += static_cast<double>(unpacked[k]) * unpacked[k];
          largest += static_cast<double>(x[row * inputs + k]) * x[row * inputs + k];
        }
        // Half a step in each of 64 turned columns, a step being at most the group's length / 127: Cauchy and Schwarz.
        bound += std::sqrt(length) * 0.51 * 8 * std::sqrt(largest) / 127;
      }
      worst = std::max(worst, std::abs(sum - out[row * 48 + n]) / bound);
    }
  }
  check(worst <= 1.0, "turned: linear is as near the exact product as its inputs' steps allow", table.name);
  check(off < 0.2, "turned: a row unpacked is near the row that was packed", table.name);
}

// Every table turns and rounds by the same sums and differences; integer products are exact.
void test_same_codes(const KernelTable& table) {
  Random random(32);
  const int columns = 192, rows = 3;
  const std::vector<float> x = outliers(rows, columns, random);
  TurnedRows ours(rows, columns), plain(rows, columns);
  table.quantize({x.data(), static_cast<size_t>(columns), ours.rows}, 0, rows);
  available_tables().back()->quantize({x.data(), static_cast<size_t>(columns), plain.rows}, 0, rows);
  check(std::memcmp(ours.rows.data, plain.rows.data, ours.num_bytes(rows)) == 0,
        "turned: every table makes the same codes", table.name);
}

// Weights are packed by whichever table is the best one, so a file's codes may not depend on it.
void test_same_weights(const KernelTable& table) {
  Random random(34);
  const int columns = 576;
  std::vector<float> ours = outliers(1, columns, random), plain = ours;
  std::vector<uint8_t> codes(16 * columns), expected(16 * columns);
  const float largest = table.pack_turned(ours.data(), columns, codes.data());
  check(largest == available_tables().back()->pack_turned(plain.data(), columns, expected.data()) && ours == plain &&
            codes == expected,
        "turned: every table packs the same codes", table.name);
  std::fill(ours.begin(), ours.end(), 0.0f);
  check(table.pack_turned(ours.data(), columns, codes.data()) == 0.0f && codes[0] == 128 && codes[1] == 128,
        "turned: a row of zeros has the code of zero", table.name);
}

// All codes at their largest: the sum of a group is as far from 0 as it can be.
void test_extremes(const KernelTable& table) {
  const int inputs = 16384, rows = 9;
  std::vector<float> weight(16 * static_cast<size_t>(inputs)), x(static_cast<size_t>(rows) * inputs);
  for (int n = 0; n < 16; ++n)
    for (int k = 0; k < inputs; k += kTurn) weight[n * static_cast<size_t>(inputs) + k] = n % 2 ? -1.0f : 1.0f;
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < inputs; k += kTurn) x[row * static_cast<size_t>(inputs) + k] = 1.0f;
  const PackedMatrix matrix = pack(weight, 16, inputs);
  TurnedRows batch(rows, inputs);
  table.quantize({x.data(), static_cast<size_t>(inputs), batch.rows}, 0, rows);
  std::vector<float> out(16 * rows);
  table.linear({matrix.view(), nullptr, nullptr, 0, batch.rows, out.data(), 16}, 0, 1, 0, rows);
  double worst = 0;
  for (int i = 0; i < 16 * rows; ++i) worst = std::max(worst, std::abs(out[i] - (i % 2 ? -1.0 : 1.0) * inputs / kTurn));
  check(worst < 1e-2, "turned: 16384 columns at the ends of the scale do not overflow", table.name);
}

void test_fused(const KernelTable& table) {
  Random random(33);
  const int width = 128, rows = 5;
  auto a = random.normals(width * rows), weight = random.normals(width), up = random.normals(width * rows);
  std::vector<float> out(width * rows);
  TurnedRows fused(rows, width), apart(rows, width);
  table.rms_norm({a.data(), nullptr, nullptr, out.data(), weight.data(), 1e-5f, width, 128, 0, 0, 128, fused.rows}, 0,
                 rows);
  table.quantize({out.data(), 128, apart.rows}, 0, rows);
  check(std::memcmp(fused.rows.data, apart.rows.data, fused.num_bytes(rows)) == 0,
        "turned: a norm quantises as quantise does", table.name);
  table.gated({a.data(), up.data(), out.data(), width, 128, 128, 128, Activation::kSilu, fused.rows}, 0, rows, 0, 64);
  table.gated({a.data(), up.data(), out.data(), width, 128, 128, 128, Activation::kSilu, fused.rows}, 0, rows, 64, 128);
  table.quantize({out.data(), 128, apart.rows}, 0, rows);
  check(std::memcmp(fused.rows.data, apart.rows.data, fused.num_bytes(rows)) == 0,
        "turned: a gate quantises as quantise does, in pieces as well", table.name);
  // The last 64 columns from pieces that hold no others.
  std::vector<float> gates, ups;
  for (int row = 0; row < rows; ++row) {
    gates.insert(gates.end(), a.begin() + row * width + 64, a.begin() + (row + 1) * width);
    ups.insert(ups.end(), up.begin() + row * width + 64, up.begin() + (row + 1) * width);
  }
  std::vector<float> whole = out;
  for (int row = 0; row < rows; ++row) std::fill_n(out.begin() + row * width + 64, 64, 0.0f);
  TurnedRows cut(rows, width);
  table.gated({a.data(), up.data(), nullptr, width, 128, 128, 128, Activation::kSilu, cut.rows}, 0, rows, 0, 64);
  table.gated({gates.data(), ups.data(), out.data(), width, 64, 64, 128, Activation::kSilu, cut.rows, 64}, 0, rows, 64,
              128);
  check(whole == out && std::memcmp(cut.rows.data, fused.rows.data, cut.num_bytes(rows)) == 0,
        "turned: gate and up may come as pieces of their columns", table.name);
}

void test_refused() {
  const std::vector<float> weight(96);
  bool refused = false;
  try {
    pack(weight, 1, 96);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  check(refused, "turned: rows that 64 does not divide are refused", "packed");
}

}  // namespace

int main() {
  test_refused();
  for (const KernelTable* table : available_tables()) {
    for (int inputs : {128, 192, 576})
      for (int rows : {13, 30, 61}) test_linear(*table, inputs, rows);
    test_same_codes(*table);
    test_same_weights(*table);
    test_extremes(*table);
    test_fused(*table);
  }
  return report("turned");
}
