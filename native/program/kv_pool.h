// The memory of all KV blocks of one model. Who owns which block is decided in Python (`cache/`).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/calls.h"
#include "runtime/memory.h"

namespace vivace {

class KvPool {
 public:
  KvPool(int num_layers, int num_blocks, int num_kv_heads, int head_dim)
      : num_layers_(num_layers),
        num_blocks_(num_blocks),
        num_kv_heads_(num_kv_heads),
        head_dim_(head_dim),
        block_elements_(2 * static_cast<size_t>(num_kv_heads) * head_dim * kBlockSize),
        memory_(block_elements_ * sizeof(uint16_t) * num_blocks * num_layers) {}

  int num_layers() const { return num_layers_; }
  int num_blocks() const { return num_blocks_; }
  size_t bytes_per_block() const { return block_elements_ * sizeof(uint16_t) * num_layers_; }
  KvLayer layer(int index) const {
    uint16_t* data = reinterpret_cast<uint16_t*>(memory_.data()) + block_elements_ * num_blocks_ * index;
    return {data, block_elements_, num_kv_heads_, head_dim_};
  }
  // Copies one block in every layer.
  void copy_block(int source, int target);

 private:
  int num_layers_, num_blocks_, num_kv_heads_, head_dim_;
  size_t block_elements_;
  Memory memory_;
};

}  // namespace vivace
