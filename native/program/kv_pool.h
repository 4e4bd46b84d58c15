// The memory of all KV blocks of one model. Who owns which block is decided in Python (`cache/`).
//
// Layers with a window of their own (local layers) have blocks of their own, numbered apart: a sequence keeps those of
// its window only. A model whose layers are all of one kind has one kind of block.
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
  // `formats` names a row of kKvFormats for each layer, `windows` says how far each one sees (0: everything; empty: all
  // do; with windows, float16 copies are local too). Throws std::invalid_argument when a format is unknown or cannot
  // hold heads of this size.
  KvPool(const std::vector<std::string>& formats, int num_blocks, int num_kv_heads, int head_dim,
         const std::vector<int>& windows = {}, int num_local_blocks = 0);

  int num_layers() const { return num_layers_; }
  int num_blocks() const { return num_blocks_; }
  int num_local_blocks() const { return num_local_blocks_; }
  int local_window() const { return local_window_; }  // 0: there are no local layers
  size_t bytes_per_block() const { return bytes_per_block_; }
  size_t bytes_per_local_block() const { return bytes_per_local_block_; }
  KvLayer layer(int index) const { return layers_.at(index); }
  bool is_local(int index) const { return is_local_.at(index); }
  // The float16 copies of a layer in a mixed format; data null where the format is not. They lie in local blocks where
  // there are such.
  KvLayer exact(int index) const { return exact_.at(index) < 0 ? KvLayer{} : layers_[exact_[index]]; }
  bool exact_is_local() const { return exact_is_local_; }
  bool has_exact() const { return num_layers() < static_cast<int>(layers_.size()); }
  // Copies one block in every layer of its kind.
  void copy_block(int source, int target) { copy(source, target, false); }
  void copy_local_block(int source, int target) { copy(source, target, true); }
  // One block of every layer that is local, or of every other, layer after layer, to and from bytes_per_local_block()
  // or bytes_per_block() bytes outside the pool.
  void read_block(int block, uint8_t* out, bool local) const;
  void write_block(int block, const uint8_t* bytes, bool local);

 private:
  void copy(int source, int target, bool local);

  void add_layer(const KvFormat& format, int num_kv_heads, int head_dim, bool local);

  int num_blocks_, num_local_blocks_, num_layers_;
  bool exact_is_local_;
  int local_window_ = 0;
  size_t bytes_per_block_ = 0, bytes_per_local_block_ = 0;  // over all layers of the kind
  std::vector<KvLayer> layers_;                             // those of the model, then the float16 copies of some
  std::vector<bool> is_local_;
  std::vector<int> exact_;  // where in `layers_` the copies of a layer are; -1: nowhere
  Memory memory_;
};

}  // namespace vivace
