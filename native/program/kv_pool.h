// The memory of all KV blocks of one model. Who owns which block is decided in Python (`cache/`).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kv_format.h"
#include "runtime/memory.h"

namespace vivace {

class KvPool {
 public:
  // `formats` names a row of kKvFormats for each layer. Throws std::invalid_argument when one is unknown or cannot hold
  // heads of this size.
  KvPool(const std::vector<std::string>& formats, int num_blocks, int num_kv_heads, int head_dim);

  int num_layers() const { return static_cast<int>(layers_.size()); }
  int num_blocks() const { return num_blocks_; }
  size_t bytes_per_block() const { return bytes_per_block_; }
  KvLayer layer(int index) const { return layers_.at(index); }
  // Copies one block in every layer.
  void copy_block(int source, int target);
  // One block of every layer, layer after layer, to and from bytes_per_block() bytes outside the pool.
  void read_block(int block, uint8_t* out) const;
  void write_block(int block, const uint8_t* bytes);

 private:
  int num_blocks_;
  size_t bytes_per_block_ = 0;  // over all layers
  std::vector<KvLayer> layers_;
  Memory memory_;
};

}  // namespace vivace
