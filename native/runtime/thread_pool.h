// Threads that help one caller with a job when they can. Nobody waits for a thread that has not started: the operating
// system may have given its core to somebody else, and the job is written so that those who came can finish it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace vivace {

// Waits for a number to change: spins for some microseconds, since what one waits for is usually that near, then gives
// the core away at every turn, and sleeps in the end. A core that sleeps takes over whom the other one keeps waiting:
// the partner may have lost its core to another thread, and spinning would keep it from this one. Who brings the number
// to where it was waited for calls `wake`.
class Waiter {
 public:
  template <class T>
  static void wake(std::atomic<T>& number) {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // the number first, then whether somebody sleeps
    number.notify_all();
  }
  template <class T>
  void pause(const std::atomic<T>& number, T seen) {
    if (!spin()) number.wait(seen, std::memory_order_acquire);
  }

 private:
  bool spin();

  int spins_ = 0;
};

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }
  // Runs job(0) on the caller and job(thread) on each helper that wakes before job(0) returns; returns when all that
  // started are done.
  void run(const std::function<void(int)>& job);
  // `run` in two halves: helpers begin at once, the caller has its hands free until `finish`, where it takes part. The
  // job lives until then; a second one before it throws std::logic_error.
  void start(const std::function<void(int)>& job);
  void finish();

 private:
  void work(int thread);
  bool join();

  static constexpr uint32_t kOpen = 1u << 31;

  const int num_threads_;
  const std::function<void(int)>* job_ = nullptr;  // null between jobs
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<uint32_t> gate_{0};  // kOpen while helpers may join, plus how many are inside
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace vivace
