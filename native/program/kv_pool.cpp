#include "program/kv_pool.h"

#include <cstring>

namespace vivace {

void KvPool::copy_block(int source, int target) {
  for (int index = 0; index < num_layers_; ++index) {
    const KvLayer kv = layer(index);
    std::memcpy(kv.keys(target, 0), kv.keys(source, 0), block_elements_ * sizeof(uint16_t));
  }
}

}  // namespace vivace
