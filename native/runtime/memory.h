// Zeroed, page-aligned memory that costs nothing until it is touched.
#pragma once

#include <cstddef>
#include <cstdint>

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
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace vivace
