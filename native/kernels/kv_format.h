// How keys and values lie in a KV block: the table of formats, and where one layer's memory is.
//
// Every position has its own scales, one for each head and half: what a position is stored as never depends on its
// neighbours, so chunks, batches and prefix hits read the same bits. `src/vivace/numerics/kv_formats.py` is the twin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "kernels/calls.h"

namespace vivace {

// How one half of a block (its keys, or its values) is coded.
//   f16: 16-bit floats, widened to be multiplied.
//   bf16: 16-bit floats that are multiplied in pairs as they are (vdpbf16ps), queries and weights rounded alike. Keys
//   lie in pairs of lanes, [head_dim / 2][16 positions][2]; values in pairs of positions, [8][head_dim][2]. int8: x =
//   scale * code, code in [-127, 127]; one float16 scale a position and head. int4: x = scale * code + low, code in [0,
//   15]; one float16 scale and one float16 low a position and head. The codes of two lanes share a byte: of lanes 2i
//   and 2i + 1 in keys, of lanes i and i + 16 of 32 in values.
enum class KvCode : int { kF16, kBF16, kInt8, kInt4, kCount };

struct KvCodeTraits {
  int bits;    // of one code
  int scales;  // float16 numbers a position and head
};
inline constexpr KvCodeTraits kKvCodeTraits[static_cast<int>(KvCode::kCount)] = {{16, 0}, {16, 0}, {8, 1}, {4, 2}};

// `rotates`: heads are turned by a Hadamard matrix before they are coded, which spreads outliers over all lanes (as in
// QuaRot, Ashkboos et al., 2024); queries are turned alike, and what attention sums up is turned back.
// `mixed`: beside the codes, the first kExactFirst positions and the latest kExactRecent are kept in float16, and read
// there; see exact_from.
struct KvFormat {
  const char* name;
  KvCode keys, values;
  bool rotates, mixed = false;
};
inline constexpr KvFormat kKvFormats[] = {
    {"f16", KvCode::kF16, KvCode::kF16, false},    {"bf16", KvCode::kBF16, KvCode::kBF16, false},
    {"int8", KvCode::kInt8, KvCode::kInt8, false}, {"int8-int4", KvCode::kInt8, KvCode::kInt4, true},
    {"int4", KvCode::kInt4, KvCode::kInt4, true},  {"int4+f16", KvCode::kInt4, KvCode::kInt4, true, true},
};
inline constexpr int kNumKvFormats = static_cast<int>(std::size(kKvFormats));

// Multiples of the block size.
constexpr int kExactFirst = 16, kExactRecent = 64;

// Where the latest positions begin that a row at `position` reads in float16: whole blocks, so it sees 49 to 64 of
// them, its own among them. Nothing but the row's position decides, so chunks, batches and prefix hits read the same
// bits.
inline int exact_from(int position) {
  return (position / kBlockSize + 1) * kBlockSize > kExactFirst + kExactRecent
             ? (position / kBlockSize + 1) * kBlockSize - kExactRecent
             : kExactFirst;
}

// Bytes of the codes of one head's half of a block; its scales follow, [scales][16 positions] float16.
inline size_t kv_code_bytes(KvCode code, int head_dim) {
  return static_cast<size_t>(head_dim) * kBlockSize * kKvCodeTraits[static_cast<int>(code)].bits / 8;
}
inline size_t kv_half_bytes(KvCode code, int head_dim) {
  return kv_code_bytes(code, head_dim) + kKvCodeTraits[static_cast<int>(code)].scales * kBlockSize * sizeof(uint16_t);
}

// The largest power of two that divides the head: the size of the Hadamard matrices that turn its pieces.
inline int hadamard_size(int head_dim) { return head_dim & -head_dim; }

// KV memory of one layer. A block holds, head after head, keys [head_dim][16 positions] with their scales, then values
// [16 positions][head_dim] with theirs.
struct KvLayer {
  uint8_t* data;
  size_t block_bytes;
  int num_kv_heads, head_dim;
  const KvFormat* format;
  size_t key_bytes, value_bytes;  // of one head, scales included

  uint8_t* keys(int block, int head) const {
    return data + block * block_bytes + static_cast<size_t>(head) * (key_bytes + value_bytes);
  }
  // The same memory with heads counted from `head` on.
  KvLayer from_head(int head) const {
    KvLayer rest = *this;
    rest.data = keys(0, head);
    return rest;
  }
  uint8_t* values(int block, int head) const { return keys(block, head) + key_bytes; }
  uint16_t* key_scales(int block, int head) const {
    return reinterpret_cast<uint16_t*>(keys(block, head) + kv_code_bytes(format->keys, head_dim));
  }
  uint16_t* value_scales(int block, int head) const {
    return reinterpret_cast<uint16_t*>(values(block, head) + kv_code_bytes(format->values, head_dim));
  }
};

// One tile of attention: query rows [row_begin, row_end) of one sequence, all heads that share kv head `kv_head`.
// A row at position p sees the keys in [p - window + 1, p], less those between `sink_ends` and `window_starts` of it.
struct AttentionCall {
  const float* q;
  float* out;
  size_t q_stride, out_stride;
  KvLayer kv;
  const int32_t* blocks;         // block table of the sequence; entries of blocks nobody sees are never read
  const int32_t* positions;      // positions of all rows of the batch
  const int32_t* window_starts;  // per row, with sink_ends; both null: nothing is left out
  const int32_t* sink_ends;
  int num_heads;
  int window;                               // 0: everything before
  float* scratch;                           // attention_scratch_floats() floats, private to the thread
  KvLayer exact{};                          // the float16 copies of a mixed format; data null: there are none
  const int32_t* exact_blocks = nullptr;    // their block table
  const int32_t* true_positions = nullptr;  // of all rows; where `positions` differ, blocks were taken out of the table
};

// Where one row's attention masses go: an entry for each block of its table. `peaks` and `sums` are scratch.
struct ObservedRow {
  float *masses, *peaks, *sums;
};

}  // namespace vivace
