// Heads and paged attention of every kernel table against plain double arithmetic: MHA, GQA, MQA, windows, shuffled
// blocks, chunks, and rotation in both pairings.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "kernels/table.h"
#include "program/kv_pool.h"
#include "tests/check.h"
#include "vector/half.h"

using namespace vivace;
using namespace vivace::test;

namespace {

struct Shape {
  int num_heads, num_kv_heads, head_dim, window;
  std::string format = "f16";
  int sinks = 0, seen = 0;  // with seen > 0: rows see the first `sinks` keys and the last `seen`
};

struct Layer {
  Shape shape;
  int rows;
  std::vector<float> q, k, v, rope;
  std::vector<int32_t> positions, blocks, exact_blocks, window_starts, sink_ends;
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
        // Blocks of float16 copies are numbered apart, as a model with windows has them.
        pool({shape.format}, static_cast<int>(blocks.size()) + 3, shape.num_kv_heads, shape.head_dim, {0},
             static_cast<int>(blocks.size()) + 3) {
    std::iota(positions.begin(), positions.end(), 0);
    for (int row = 0; row < rows; ++row) {
      window_starts.push_back(shape.seen ? row - shape.seen + 1 : 0);
      sink_ends.push_back(shape.sinks);
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = static_cast<int32_t>(blocks.size() + 2 - i);
      exact_blocks.push_back(static_cast<int32_t>(i + 1));
    }
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
            shape.head_dim,
            pool.layer(0).format->rotates};
  }

  AttentionCall call(float* out, float* scratch) {
    const size_t stride = static_cast<size_t>(shape.num_heads) * shape.head_dim;
    return {q.data(),
            out,
            stride,
            stride,
            pool.layer(0),
            blocks.data(),
            positions.data(),
            shape.seen ? window_starts.data() : nullptr,
            shape.seen ? sink_ends.data() : nullptr,
            shape.num_heads,
            shape.window,
            scratch,
            pool.exact(0),
            exact_blocks.data(),
            positions.data()};
  }

  bool sees(int row, int key) const {
    if (shape.window && key <= row - shape.window) return false;
    return !shape.seen || key < shape.sinks || key >= window_starts[row];
  }
};

// What a format makes of one head of a row, in double: the statement the kernels are held to.
std::vector<double> rounded(KvCode code, const float* x, int head_dim) {
  std::vector<double> out(x, x + head_dim);
  const float highest = *std::max_element(x, x + head_dim), lowest = *std::min_element(x, x + head_dim);
  const bool wide = code == KvCode::kInt8;
  const double low = wide ? 0.0 : half_to_float(float_to_half(lowest));
  const double scale =
      half_to_float(float_to_half(wide ? std::max(highest, -lowest) / 127.0f : (highest - lowest) / 15.0f));
  for (double& value : out) {
    const float single = static_cast<float>(value);
    if (code == KvCode::kF16) value = half_to_float(float_to_half(single));
    if (code == KvCode::kBF16) value = bfloat_to_float(float_to_bfloat(single));
    if (code == KvCode::kInt8) value = scale * std::clamp(std::nearbyint(value / scale), -127.0, 127.0);
    if (code == KvCode::kInt4) value = low + scale * std::clamp(std::nearbyint((value - low) / scale), 0.0, 15.0);
  }
  return out;
}

// H x, twice is nothing; pieces of the largest power of two that divides the head.
std::vector<double> turned(const std::vector<double>& x) {
  const int size = hadamard_size(static_cast<int>(x.size()));
  std::vector<double> out(x.size());
  for (int i = 0; i < static_cast<int>(x.size()); ++i)
    for (int j = 0; j < size; ++j)
      out[i] += (__builtin_parity(i % size & j) ? -1 : 1) * x[i / size * size + j] / std::sqrt(size);
  return out;
}

// Keys and values as a format stores them, [position][kv head][lane].
struct Stored {
  std::vector<double> keys, values;

  Stored(const Layer& layer, const KvFormat& format) {
    const int head_dim = layer.shape.head_dim;
    for (size_t i = 0; i < layer.k.size(); i += head_dim) {
      const auto key = rounded(format.keys, &layer.k[i], head_dim),
                 value = rounded(format.values, &layer.v[i], head_dim);
      keys.insert(keys.end(), key.begin(), key.end());
      values.insert(values.end(), value.begin(), value.end());
    }
  }
};

// Plain attention of one row and head over keys and values as the format stores them. Queries, keys and values are
// turned already where the format turns them.
std::vector<double> exact(const Layer& layer, const Stored& codes, const Stored& halves, int row, int head) {
  const Shape& s = layer.shape;
  const KvFormat& format = *layer.pool.layer(0).format;
  const int kv = head / (s.num_heads / s.num_kv_heads);
  const float* q = &layer.q[(row * s.num_heads + head) * s.head_dim];
  // bfloat16 keys meet bfloat16 queries.
  const auto query =
      format.keys == KvCode::kBF16 ? rounded(KvCode::kBF16, q, s.head_dim) : std::vector<double>(q, q + s.head_dim);
  const int recent = (row / 16 + 1) * 16 - 64;  // what a mixed format keeps in float16: the first 16, and from here on
  auto read = [&](int key) -> const Stored& { return format.mixed && (key < 16 || key >= recent) ? halves : codes; };
  std::vector<double> scores, out(s.head_dim);
  double total = 0, peak = -1e300;
  for (int key = 0; key <= row; ++key) {
    double score = 0;
    for (int d = 0; d < s.head_dim; ++d)
      score += query[d] * read(key).keys[(key * s.num_kv_heads + kv) * s.head_dim + d];
    scores.push_back(layer.sees(row, key) ? score : -1e300);
    peak = std::max(peak, scores.back());
  }
  for (double& score : scores) total += score = std::exp(score - peak);
  for (int key = 0; key <= row; ++key) {
    for (int d = 0; d < s.head_dim; ++d)
      out[d] += scores[key] / total * read(key).values[(key * s.num_kv_heads + kv) * s.head_dim + d];
  }
  return format.rotates ? turned(out) : out;
}

void test_attention(const KernelTable& table, Shape shape) {
  Random random(21);
  const int rows = 200;
  Layer layer(shape, rows, random);
  const HeadsCall heads = layer.heads(false);
  table.prepare_heads(heads, 0, rows);
  table.store_kv(heads, layer.pool.layer(0), layer.blocks.data(), layer.positions.data(), 0, rows);
  if (layer.pool.exact(0).data)
    table.store_kv(heads, layer.pool.exact(0), layer.exact_blocks.data(), layer.positions.data(), 0, rows);
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
  const Stored codes(layer, *layer.pool.layer(0).format), halves(layer, kKvFormats[0]);
  for (int row = 0; row < rows; row += 7)
    for (int head = 0; head < shape.num_heads; ++head) {
      const auto expected = exact(layer, codes, halves, row, head);
      for (int d = 0; d < shape.head_dim; ++d)
        worst = std::max(worst, std::abs(expected[d] - out[row * width + head * shape.head_dim + d]));
    }
  // bfloat16 values meet bfloat16 weights, each within 2^-9 of its size.
  const double allowed = layer.pool.layer(0).format->values == KvCode::kBF16 ? 8e-3 : 2e-5;
  check(worst < allowed, "attention is near the exact one", table.name);
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
    for (const KvFormat& format : kKvFormats)
      for (Shape shape : {Shape{9, 3, 64, 0}, Shape{2, 2, 32, 0}, Shape{4, 1, 96, 50}}) {
        shape.format = format.name;
        test_attention(*table, shape);
        for (auto [sinks, seen] : {std::pair{4, 20}, {0, 33}, {40, 16}, {16, 190}, {1, 1}}) {
          shape.sinks = sinks;
          shape.seen = seen;
          test_attention(*table, shape);
        }
      }
    for (int head_dim : {16, 48, 64})
      for (bool interleaved : {false, true}) test_rotation(*table, interleaved, head_dim);
  }
  return report("attention");
}
