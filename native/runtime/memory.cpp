#include "runtime/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

namespace vivace {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Memory::Memory(size_t bytes, bool huge_pages) : size_(bytes) {
  if (bytes == 0) return;
  mapped_bytes_ = bytes + (huge_pages ? kHugePage : 0);
  void* p = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  data_ = mapped_ = static_cast<uint8_t*>(p);
  if (!huge_pages) return;
  data_ = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<uintptr_t>(p), kHugePage));
#ifdef MADV_HUGEPAGE
  madvise(data_, bytes, MADV_HUGEPAGE);
#endif
}

Memory::~Memory() {
  if (mapped_) munmap(mapped_, mapped_bytes_);
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(mapped_, other.mapped_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

uint8_t* ChunkedMemory::allocate(size_t bytes) {
  if (chunks_.empty() || used_ + bytes > chunks_.back().size()) {
    chunks_.emplace_back(std::max(bytes, kChunkBytes), true);
    used_ = 0;
  }
  uint8_t* piece = chunks_.back().data() + used_;
  used_ += round_up(bytes, 64);
  return piece;
}

}  // namespace vivace
