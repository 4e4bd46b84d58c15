// A few threads that run one job together and meet at barriers inside it. Waiting spins for some microseconds, since
// the next op is usually that near, then gives the core away: a thread must not burn what its partner needs to arrive.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace vivace {

// Sense-reversing barrier for a fixed number of threads.
class Barrier {
 public:
  explicit Barrier(int num_threads) : num_threads_(num_threads) {}
  void wait();

 private:
  const int num_threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
};

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }
  Barrier& barrier() { return barrier_; }
  // Runs job(thread) on every thread, the caller being thread 0, and returns when all are done.
  void run(const std::function<void(int)>& job);

 private:
  void work(int thread);

  const int num_threads_;
  Barrier barrier_;
  const std::function<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<int> running_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace vivace
