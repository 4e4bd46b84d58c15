#include "program/kv_pool.h"

#include <algorithm>
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

KvPool::KvPool(const std::vector<std::string>& formats, int num_blocks, int num_kv_heads, int head_dim,
               const std::vector<int>& windows, int num_local_blocks)
    : num_blocks_(num_blocks),
      num_local_blocks_(num_local_blocks),
      num_layers_(static_cast<int>(formats.size())),
      exact_is_local_(!windows.empty()) {
  if (!windows.empty() && windows.size() != formats.size())
    throw std::invalid_argument("there must be a window for every layer, or none at all");
  const bool differ = std::find(windows.begin(), windows.end(), 0) != windows.end();
  if (differ) local_window_ = *std::max_element(windows.begin(), windows.end());
  for (size_t i = 0; i < formats.size(); ++i)
    add_layer(find_format(formats[i], head_dim), num_kv_heads, head_dim, differ && windows[i] > 0);
  for (int i = 0; i < num_layers_; ++i) {
    exact_.push_back(layers_[i].format->mixed ? static_cast<int>(layers_.size()) : -1);
    if (layers_[i].format->mixed) add_layer(find_format("f16", head_dim), num_kv_heads, head_dim, exact_is_local_);
  }
  if (has_exact() && exact_is_local_) local_window_ = std::max(local_window_, kExactRecent);
  memory_ = Memory(bytes_per_block_ * num_blocks + bytes_per_local_block_ * num_local_blocks);
  uint8_t* data = memory_.data();
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].data = data;
    data += layers_[i].block_bytes * (is_local_[i] ? num_local_blocks : num_blocks);
  }
}

void KvPool::add_layer(const KvFormat& format, int num_kv_heads, int head_dim, bool local) {
  const size_t keys = kv_half_bytes(format.keys, head_dim), values = kv_half_bytes(format.values, head_dim);
  layers_.push_back({nullptr, (keys + values) * num_kv_heads, num_kv_heads, head_dim, &format, keys, values});
  is_local_.push_back(local);
  (local ? bytes_per_local_block_ : bytes_per_block_) += layers_.back().block_bytes;
}

void KvPool::copy(int source, int target, bool local) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const KvLayer& layer = layers_[i];
    if (is_local_[i] == local) std::memcpy(layer.keys(target, 0), layer.keys(source, 0), layer.block_bytes);
  }
}

void KvPool::read_block(int block, uint8_t* out, bool local) const {
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (is_local_[i] != local) continue;
    std::memcpy(out, layers_[i].keys(block, 0), layers_[i].block_bytes);
    out += layers_[i].block_bytes;
  }
}

void KvPool::write_block(int block, const uint8_t* bytes, bool local) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (is_local_[i] != local) continue;
    std::memcpy(layers_[i].keys(block, 0), bytes, layers_[i].block_bytes);
    bytes += layers_[i].block_bytes;
  }
}

}  // namespace vivace
