// One table of kernels per instruction set; the best one the machine has is chosen on first use.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/calls.h"
#include "kernels/kv_format.h"

namespace vivace {

struct KernelTable {
  const char* name;
  void (*linear)(const LinearCall&, int panel_begin, int panel_end, int row_begin, int row_end);
  void (*quantize)(const QuantizeCall&, int row_begin, int row_end);
  void (*rms_norm)(const NormCall&, int row_begin, int row_end);
  void (*gated)(const GatedCall&, int row_begin, int row_end, int column_begin, int column_end);
  void (*prepare_heads)(const HeadsCall&, int row_begin, int row_end);
  void (*store_kv)(const HeadsCall&, const KvLayer&, const int32_t* blocks, const int32_t* positions, int row_begin,
                   int row_end);
  void (*attention)(const AttentionCall&, int kv_head, int row_begin, int row_end);
  void (*observe)(const AttentionCall&, int kv_head, int row, const ObservedRow&);
  void (*add)(const float* a, const float* b, float* out, size_t count);
  bool (*scan_logits)(const float* row, int count, float* peaks);
  void (*weigh_logits)(const float* row, int count, float largest, float scale, float* weights, float* sums);
  float (*pack_turned)(float* row, int count, uint8_t* out);
};

// Logits that share a peak and a sum of weights.
constexpr int kLogitSegment = 64;

// Largest number of queries, pairs of (row, head), that the registers hold at a time.
constexpr int kMaxQueries = 6;
// Queries that go over the keys together.
constexpr int kBundle = 8 * kMaxQueries;
// Keys scored before a softmax update; tiles start at multiples of this position, whatever the batch looks like.
constexpr int kKeyTile = 64;

// Sums, totals and the rounded query of one query.
inline size_t attention_query_floats(int head_dim) { return static_cast<size_t>(head_dim) + kLanes + head_dim / 2; }
// And the weights of one group, as floats and rounded.
inline size_t attention_scratch_floats(int head_dim) {
  return kBundle * attention_query_floats(head_dim) + kMaxQueries * (kKeyTile + kKeyTile / 2);
}

// Tables this machine can run, best first. Null-free.
const std::vector<const KernelTable*>& available_tables();
// The table named by the environment variable VIVACE_ISA, or the best one. Throws std::invalid_argument when the named
// one is unknown or the machine cannot run it.
const KernelTable& choose_table(const std::string& forced);

}  // namespace vivace
