// Speed of the attention kernels of every table, one thread, by the thread's own processor time:
//   bench_attention [heads kv_heads head_dim [table [format]]]
// Reads a prompt of so many tokens, all causal; prints billions of operations a second (a multiply-add counts two) over
// what the mask leaves, and milliseconds of a layer.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <vector>

#include "kernels/table.h"
#include "program/kv_pool.h"
#include "tests/check.h"

using namespace vivace;

namespace {

constexpr int kTileRows = 16;  // as in program/program.cpp

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

struct Shape {
  int num_heads, num_kv_heads, head_dim;
};

void measure(const KernelTable& table, const char* format, Shape shape, int rows) {
  test::Random random(1);
  const size_t width = static_cast<size_t>(shape.num_heads) * shape.head_dim;
  const size_t kv_width = static_cast<size_t>(shape.num_kv_heads) * shape.head_dim;
  auto q = random.normals(width * rows), k = random.normals(kv_width * rows), v = random.normals(kv_width * rows);
  std::vector<float> out(width * rows), scratch(attention_scratch_floats(shape.head_dim));
  std::vector<int32_t> positions(rows), blocks((rows + kBlockSize - 1) / kBlockSize);
  std::iota(positions.begin(), positions.end(), 0);
  std::iota(blocks.begin(), blocks.end(), 0);
  KvPool pool({format}, static_cast<int>(blocks.size()), shape.num_kv_heads, shape.head_dim);
  HeadsCall heads{};
  heads.k = k.data();
  heads.v = v.data();
  heads.k_stride = heads.v_stride = kv_width;
  heads.num_kv_heads = shape.num_kv_heads;
  heads.head_dim = shape.head_dim;
  table.store_kv(heads, pool.layer(0), blocks.data(), positions.data(), 0, rows);
  const AttentionCall call{q.data(), out.data(), width,           width, pool.layer(0), blocks.data(), positions.data(),
                           nullptr,  nullptr,    shape.num_heads, 0,     scratch.data()};
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const int loops = std::max(1, (1 << 21) / rows / rows);
    const double start = thread_seconds();
    for (int i = 0; i < loops; ++i)
      for (int row = 0; row < rows; row += kTileRows)
        for (int head = 0; head < shape.num_kv_heads; ++head)
          table.attention(call, head, row, std::min(rows, row + kTileRows));
    best = std::min(best, (thread_seconds() - start) / loops);
  }
  const double operations = 4.0 * static_cast<double>(width) * rows * (rows + 1) / 2;
  std::printf("%-10s %-9s rows %-5d %7.1f G operations/s  %8.3f ms\n", table.name, format, rows,
              operations / best / 1e9, best * 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  Shape shape{9, 3, 64};
  if (argc > 3) shape = {std::atoi(argv[1]), std::atoi(argv[2]), std::atoi(argv[3])};
  for (const KernelTable* table : available_tables()) {
    if (std::string(table->name) == "scalar" || (argc > 4 && std::string(argv[4]) != table->name)) continue;
    for (const char* format : {"f16", "bf16", "int8", "int4"}) {
      if (argc > 5 && std::string(argv[5]) != format) continue;
      for (int rows : {128, 512, 2048}) measure(*table, format, shape, rows);
    }
  }
}
