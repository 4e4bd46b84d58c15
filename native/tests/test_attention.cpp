// Heads and paged attention of every kernel table against plain double arithmetic: MHA, GQA, MQA, windows, shuffled
// blocks, chunks, and rotation in both pairings.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/table.h"
#include "program/kv_pool.h"
#include "tests/check.h"
#include "vector/half.h"

using namespace vivace;
using namespace vivace::test;

namespace {

struct Shape {
  int num_heads, num_kv_heads, head_dim, window;
};

struct Layer {
  Shape shape;
  int rows;
  std::vector<float> q, k, v, rope;
  std::vector<int32_t> positions, blocks;
  KvPool pool;

  Layer(Shape shape, int rows, Random& random)
      : shape(shape),
        rows(rows),
        q(random.normals(static_cast<size_t>(rows) * shape.num_heads * shape.head_dim)),
        k(random.normals(static_cast<size_t>(rows) * shape.num_kv_heads * shape.head_dim)),
        v(random.normals(static_cast<size_t>(rows) * shape.num_kv_heads * shape.head_dim)),
        rope(static_cast<size_t>(rows) * shape.head_dim),
        positions(rows),
        blocks((rows + 15) / 16),
        pool(1, static_cast<int>(blocks.size()) + 3, shape.num_kv_heads, shape.head_dim) {
    std::iota(positions.begin(), positions.end(), 0);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(blocks.size() + 2 - i);
    for (int row = 0; row < rows; ++row)
      for (int i = 0; i < shape.head_dim / 2; ++i) {
        rope[row * shape.head_dim + i] = std::cos(row * std::pow(100.0, -2.0 * i / shape.head_dim));
        rope[row * shape.head_dim + shape.head_dim / 2 + i] =
            std::sin(row * std::pow(100.0, -2.0 * i / shape.head_dim));
      }
  }

  HeadsCall heads(bool interleaved) {
    const size_t q_stride = static_cast<size_t>(shape.num_heads) * shape.head_dim;
    const size_t k_stride = static_cast<size_t>(shape.num_kv_heads) * shape.head_dim;
    return {q.data(),
            k.data(),
            v.data(),
            q_stride,
            k_stride,
            k_stride,
            nullptr,
            nullptr,
            1e-6f,
            rope.data(),
            static_cast<size_t>(shape.head_dim),
            shape.head_dim,
            interleaved,
            0.25f,
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim};
  }

  AttentionCall call(float* out, float* scratch) {
    const size_t stride = static_cast<size_t>(shape.num_heads) * shape.head_dim;
    return {q.data(),        out,          stride, stride, pool.layer(0), blocks.data(), positions.data(),
            shape.num_heads, shape.window, scratch};
  }
};

double rounded(float value) { return half_to_float(float_to_half(value)); }

// Plain attention of one row and head over keys and values rounded to float16.
std::vector<double> exact(const Layer& layer, int row, int head) {
  const Shape& s = layer.shape;
  const int kv = head / (s.num_heads / s.num_kv_heads);
  const int first = s.window ? std::max(0, row - s.window + 1) : 0;
  std::vector<double> scores, out(s.head_dim);
  for (int key = first; key <= row; ++key) {
    double score = 0;
    for (int d = 0; d < s.head_dim; ++d)
      score += static_cast<double>(layer.q[(row * s.num_heads + head) * s.head_dim + d]) *
               rounded(layer.k[(key * s.num_kv_heads + kv) * s.head_dim + d]);
    scores.push_back(score);
  }
  const double peak = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - peak);
  for (int key = first; key <= row; ++key)
    for (int d = 0; d < s.head_dim; ++d)
      out[d] += scores[key - first] / total * rounded(layer.v[(key * s.num_kv_heads + kv) * s.head_dim + d]);
  return out;
}

void test_attention(const KernelTable& table, Shape shape) {
  Random random(21);
  const int rows = 200;
  Layer layer(shape, rows, random);
  const HeadsCall heads = layer.heads(false);
  table.prepare_heads(heads, 0, rows);
  table.store_kv(heads, layer.pool.layer(0), layer.blocks.data(), layer.positions.data(), 0, rows);
  const size_t width = static_cast<size_t>(shape.num_heads) * shape.head_dim;
  std::vector<float> scratch(attention_scratch_floats(shape.head_dim), NAN), out(width * rows), chunked(width * rows);
  const AttentionCall whole = layer.call(out.data(), scratch.data()),
                      pieces = layer.call(chunked.data(), scratch.data());
  for (int head = 0; head < shape.num_kv_heads; ++head) {
    table.attention(whole, head, 0, rows);
    for (int row = 0, step = 1; row < rows; row += step, step = step % 7 + 1)
      table.attention(pieces, head, row, std::min(rows, row + step));
  }
  check(std::memcmp(out.data(), chunked.data(), out.size() * sizeof(float)) == 0, "attention: chunks equal the whole",
        table.name);
  double worst = 0;
  for (int row = 0; row < rows; row += 3)
    for (int head = 0; head < shape.num_heads; ++head) {
      const auto expected = exact(layer, row, head);
      for (int d = 0; d < shape.head_dim; ++d)
        worst = std::max(worst, std::abs(expected[d] - out[row * width + head * shape.head_dim + d]));
    }
  check(worst < 2e-5, "attention is near the exact one", table.name);
}

void test_rotation(const KernelTable& table, bool interleaved, int head_dim) {
  Random random(22);
  const int rows = 5;
  Layer layer({2, 1, head_dim, 0}, rows, random);
  const std::vector<float> before = layer.q;
  table.prepare_heads(layer.heads(interleaved), 0, rows);
  double worst = 0;
  const int half = head_dim / 2;
  for (int row = 0; row < rows; ++row)
    for (int head = 0; head < 2; ++head)
      for (int i = 0; i < half; ++i) {
        const int base = (row * 2 + head) * head_dim;
        const int a = base + (interleaved ? 2 * i : i), b = base + (interleaved ? 2 * i + 1 : i + half);
        const double c = layer.rope[row * head_dim + i], s = layer.rope[row * head_dim + half + i];
        worst = std::max(worst, std::abs(0.25 * (before[a] * c - before[b] * s) - layer.q[a]));
        worst = std::max(worst, std::abs(0.25 * (before[b] * c + before[a] * s) - layer.q[b]));
      }
  check(worst < 1e-6, "heads are rotated and scaled", table.name);
}

}  // namespace

int main() {
  for (const KernelTable* table : available_tables()) {
    for (Shape shape : {Shape{9, 3, 64, 0}, Shape{4, 1, 32, 0}, Shape{2, 2, 80, 0}, Shape{8, 1, 16, 0},
                        Shape{4, 2, 64, 37}, Shape{4, 1, 256, 16}})
      test_attention(*table, shape);
    for (int head_dim : {16, 48, 64})
      for (bool interleaved : {false, true}) test_rotation(*table, interleaved, head_dim);
  }
  return report("attention");
}
