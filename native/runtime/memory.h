// Zeroed memory that costs nothing until it is touched; page-aligned, to 2 MiB where huge pages are wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vivace {

class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes, bool huge_pages = false);  // throws std::bad_alloc
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Memory that many owners' pieces lie in side by side, so that huge pages serve pieces smaller than themselves. Pieces
// are freed all together, with this object.
class ChunkedMemory {
 public:
  ChunkedMemory() = default;
  ChunkedMemory(const ChunkedMemory&) = delete;
  ChunkedMemory& operator=(const ChunkedMemory&) = delete;
  // `bytes` zeroed bytes at a multiple of 64. Throws std::bad_alloc.
  uint8_t* allocate(size_t bytes);

 private:
  static constexpr size_t kChunkBytes = size_t{256} << 20;  // address space only: pages come when they are touched
  std::vector<Memory> chunks_;
  size_t used_ = 0;
};

}  // namespace vivace
