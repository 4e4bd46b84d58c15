#include "runtime/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <sched.h>

#include <stdexcept>

namespace vivace {

namespace {

constexpr int kSpinsBeforeYield = 1000;    // about 15 microseconds
constexpr int kSpinsBeforeParking = 1200;  // 200 yields, 50 microseconds where nobody wants the core
constexpr int kSpinsBeforeSleep = 10000;   // about 150 microseconds between two steps

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

bool Waiter::spin() {
  if (++spins_ > kSpinsBeforeParking) return false;
  if (spins_ < kSpinsBeforeYield) {
    relax();
  } else {
    sched_yield();
  }
  return true;
}

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads) {
  for (int thread = 1; thread < num_threads; ++thread) threads_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(const std::function<void(int)>& job) {
  start(job);
  finish();
}

void ThreadPool::start(const std::function<void(int)>& job) {
  if (job_) throw std::logic_error("the threads are at work on another job");
  job_ = &job;
  if (threads_.empty()) return;
  gate_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
}

void ThreadPool::finish() {
  (*job_)(0);
  if (threads_.empty()) {
    job_ = nullptr;
    return;
  }
  gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
  Waiter waiter;
  for (uint32_t inside; (inside = gate_.load(std::memory_order_acquire)) != 0;) waiter.pause(gate_, inside);
  job_ = nullptr;
}

bool ThreadPool::join() {
  uint32_t gate = gate_.load(std::memory_order_acquire);
  while (gate & kOpen) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    int spins = 0;
    uint32_t epoch;
    while ((epoch = epoch_.load(std::memory_order_acquire)) == seen) {
      if (++spins < kSpinsBeforeSleep) {
        relax();
      } else {
        epoch_.wait(seen, std::memory_order_acquire);
      }
    }
    seen = epoch;
    if (stopping_.load()) return;
    if (!join()) continue;
    (*job_)(thread);
    if (gate_.fetch_sub(1, std::memory_order_release) == 1) Waiter::wake(gate_);
  }
}

}  // namespace vivace
