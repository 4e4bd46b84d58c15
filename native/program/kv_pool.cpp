#include "program/kv_pool.h"

#include <cstring>
#include <stdexcept>

namespace vivace {

namespace {

const KvFormat& find_format(const std::string& name, int head_dim) {
  for (const KvFormat& format : kKvFormats) {
    if (name != format.name) continue;
    const bool halves = format.keys == KvCode::kInt4 || format.values == KvCode::kInt4;
    if (halves && head_dim % (2 * kLanes) != 0)
      throw std::invalid_argument("the KV format " + name + " needs a head size that 32 divides, not " +
                                  std::to_string(head_dim));
    return format;
  }
  throw std::invalid_argument("there is no KV format named '" + name + "'");
}

}  // namespace

KvPool::KvPool(const std::vector<std::string>& formats, int num_blocks, int num_kv_heads, int head_dim)
    : num_blocks_(num_blocks) {
  for (const std::string& name : formats) {
    const KvFormat& format = find_format(name, head_dim);
    const size_t keys = kv_half_bytes(format.keys, head_dim), values = kv_half_bytes(format.values, head_dim);
    layers_.push_back({nullptr, (keys + values) * num_kv_heads, num_kv_heads, head_dim, &format, keys, values});
    bytes_per_block_ += layers_.back().block_bytes;
  }
  memory_ = Memory(bytes_per_block_ * num_blocks);
  uint8_t* data = memory_.data();
  for (KvLayer& layer : layers_) {
    layer.data = data;
    data += layer.block_bytes * num_blocks;
  }
}

void KvPool::copy_block(int source, int target) {
  for (const KvLayer& layer : layers_) std::memcpy(layer.keys(target, 0), layer.keys(source, 0), layer.block_bytes);
}

void KvPool::read_block(int block, uint8_t* out) const {
  for (const KvLayer& layer : layers_) {
    std::memcpy(out, layer.keys(block, 0), layer.block_bytes);
    out += layer.block_bytes;
  }
}

void KvPool::write_block(int block, const uint8_t* bytes) {
  for (const KvLayer& layer : layers_) {
    std::memcpy(layer.keys(block, 0), bytes, layer.block_bytes);
    bytes += layer.block_bytes;
  }
}

}  // namespace vivace
