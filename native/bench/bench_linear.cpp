// Speed of the linear kernels of every table, one thread, by the thread's own processor time:
//   bench_linear [outputs inputs [table [format [copies]]]]
// Prints billions of useful multiply-adds a second, and bytes of weights a second. `copies` of the matrix are read in
// turns, as a model's layers are: with enough of them weights come from memory.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "kernels/table.h"
#include "tests/check.h"
#include "weights/packed.h"

using namespace vivace;

namespace {

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

struct Shape {
  int outputs, inputs, copies;
};

// What the rows are read in.
enum class Rows { kFine, kCoarse, kFloat, kBfloat, kTurned };
constexpr const char* kRowNames[] = {"12 bit", "8 bit", "float", "bfloat", "turned"};

QuantizedRows view_rows(std::vector<uint8_t>& bytes, int inputs, int rows, Rows kind) {
  const bool fine = kind == Rows::kFine, bfloat = kind == Rows::kBfloat, turned = kind == Rows::kTurned;
  const size_t row_bytes = bfloat ? bfloat_row_bytes(inputs) : quantized_row_bytes(inputs, fine, turned);
  bytes.resize(row_bytes * rows);
  return {bytes.data(), row_bytes, inputs, fine, bfloat, turned};
}

void measure(const KernelTable& table, const char* format, Shape shape, int rows, Rows kind) {
  const auto [outputs, inputs, copies] = shape;
  test::Random random(1);
  std::vector<uint8_t> raw(source_row_bytes(source_format(format), inputs) * outputs);
  for (uint8_t& byte : raw) byte = random.byte() & 0x3f;  // keeps float16 scales finite
  const auto memory = std::make_shared<ChunkedMemory>();
  std::vector<PackedMatrix> matrices;
  for (int copy = 0; copy < copies; ++copy)
    matrices.emplace_back(format, raw.data(), raw.size(), outputs, inputs, 1, memory, kind == Rows::kTurned);
  const PackedMatrix& matrix = matrices.front();
  const auto x = random.normals(static_cast<size_t>(rows) * inputs);
  std::vector<uint8_t> bytes;
  const QuantizedRows quantized = view_rows(bytes, inputs, rows, kind);
  table.quantize({x.data(), static_cast<size_t>(inputs), quantized}, 0, rows);
  const size_t stride = static_cast<size_t>(matrix.num_panels()) * kLanes;
  std::vector<float> out(stride * rows);
  LinearCall call{matrix.view(), nullptr, x.data(), static_cast<size_t>(inputs), quantized, out.data(), stride};
  double best = 1e9;
  for (int repeat = 0; repeat < 7; ++repeat) {
    const int loops = std::max(copies, static_cast<int>(2e8 / (static_cast<double>(outputs) * inputs * rows)));
    const double start = thread_seconds();
    for (int i = 0; i < loops; ++i) {
      call.weight = matrices[i % copies].view();
      table.linear(call, 0, matrix.num_panels(), 0, rows);
    }
    best = std::min(best, (thread_seconds() - start) / loops);
  }
  const double products = static_cast<double>(outputs) * inputs * rows;
  std::printf("%-7s %-5s %-6s rows %-4d %7.1f G multiply-adds/s  %6.1f GB/s of weights\n", table.name, format,
              kRowNames[static_cast<int>(kind)], rows, products / best / 1e9, matrix.bytes() / best / 1e9);
}

bool reads(const std::string& format, Rows kind) {
  if (kind == Rows::kTurned) return format == "Q4_1";  // whatever the source: it is requantised
  if (is_quantized(panel_format(source_format(format)))) return kind == Rows::kFine || kind == Rows::kCoarse;
  return kind == Rows::kFloat || (format == "BF16" && kind == Rows::kBfloat);
}

}  // namespace

int main(int argc, char** argv) {
  Shape shape{3072, 576, 1};
  if (argc > 2) shape = {std::atoi(argv[1]), std::atoi(argv[2]), argc > 5 ? std::max(1, std::atoi(argv[5])) : 1};
  for (const KernelTable* table : available_tables()) {
    if (std::string(table->name) == "scalar" || (argc > 3 && std::string(argv[3]) != table->name)) continue;
    for (const char* format : {"Q4_1", "Q4_0", "Q8_0", "N8_0", "F16", "BF16"}) {
      if (argc > 4 && std::string(argv[4]) != format) continue;
      for (Rows kind : {Rows::kFine, Rows::kCoarse, Rows::kFloat, Rows::kBfloat, Rows::kTurned}) {
        if (!reads(format, kind) || (kind == Rows::kTurned && shape.inputs % kTurn != 0)) continue;
        for (int rows : {1, 2, 4, 8, 16, 64}) measure(*table, format, shape, rows, kind);
      }
    }
  }
}
