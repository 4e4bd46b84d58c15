// The pool and the checks a program makes before it touches anything.
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "program/program.h"
#include "tests/check.h"

using namespace vivace;
using namespace vivace::test;

namespace {

void test_pool(int num_threads) {
  ThreadPool pool(num_threads);
  bool complete = true, inside = true;
  for (int round = 0; round < 2000; ++round) {
    std::atomic<int> claimed{0}, done{0}, running{0};
    pool.run([&](int thread) {
      running.fetch_add(1);
      if (thread < 0 || thread >= num_threads) inside = false;
      while (claimed.fetch_add(1) < 50) done.fetch_add(1);
      running.fetch_sub(1);
    });
    complete = complete && done == 50 && running == 0;
  }
  check(complete, "all tasks are done and nobody is left inside when run returns", "pool");
  check(inside, "threads are numbered below their count", "pool");
}

#if defined(__linux__)
// What the system says a thread of this process does: 'R' runs, 'S' sleeps.
char state_of(long thread) {
  std::ifstream stat("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(stat, text);
  return text[text.rfind(')') + 2];
}

// A caller whose helper is held up does not burn its core: it sleeps until the helper is done. Hangs where it spins.
void test_parking() {
  ThreadPool pool(2);
  const long caller = syscall(SYS_gettid);
  std::atomic<bool> has_come{false}, may_go{false};
  std::thread watch([&] {
    for (int asleep = 0; asleep < 3;) {
      std::this_thread::yield();
      asleep = has_come && state_of(caller) == 'S' ? asleep + 1 : 0;
    }
    may_go = true;
  });
  bool is_done = false;
  pool.run([&](int thread) {
    if (thread == 0) {
      while (!has_come) std::this_thread::yield();
      return;
    }
    has_come = true;
    while (!may_go) std::this_thread::yield();
    is_done = true;
  });
  watch.join();
  check(is_done, "a caller sleeps while a helper is held up, and wakes when it is done", "pool");
}
#endif

// One embedding, one logits linear: enough to run.
struct Tiny {
  std::shared_ptr<KvPool> kv = std::make_shared<KvPool>(std::vector<std::string>{"f16"}, 4, 1, 16);
  Program program{"", std::make_shared<ThreadPool>(2), 8, 8, 1 << 16, kv};
  int out;
  Tiny() {
    program.set_attention_shape(1, 1, 16, 32);
    std::vector<float> table(32 * 16);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i);
    auto matrix = std::make_shared<PackedMatrix>("F32", reinterpret_cast<const uint8_t*>(table.data()),
                                                 table.size() * 4, 32, 16, 1);
    out = program.add_buffer(0, 16, RowKind::kFloat, false);
    auto embed = std::make_unique<EmbedRows>();
    embed->bands = {matrix};
    embed->scale = 2.0f;
    embed->out = program.buffer(out);
    program.add_op(std::move(embed));
    program.set_output(out);
  }
  bool refuses(std::vector<int32_t> tokens, std::vector<int32_t> positions, std::vector<int32_t> blocks,
               std::vector<int32_t> logits) {
    const int32_t starts[2] = {0, static_cast<int32_t>(tokens.size())};
    try {
      program.forward({tokens.data(), positions.data(), starts, blocks.data(), logits.data(),
                       static_cast<int>(tokens.size()), 1, static_cast<int>(blocks.size()),
                       static_cast<int>(logits.size())});
      return false;
    } catch (const std::invalid_argument&) {
      return true;
    }
  }
};

void test_checks() {
  Tiny tiny;
  check(!tiny.refuses({3, 4}, {0, 1}, {2}, {1}), "a sound batch runs", "program");
  check(tiny.program.buffer(tiny.out).floats()[16] == 2.0f * 4 * 16, "rows are embedded and scaled", "program");
  check(tiny.refuses({32}, {0}, {0}, {0}), "a token outside the vocabulary is refused", "program");
  check(tiny.refuses({-1}, {0}, {0}, {0}), "a negative token is refused", "program");
  check(tiny.refuses({1}, {16}, {0}, {0}), "a position past the block table is refused", "program");
  check(tiny.refuses({1, 1}, {3, 5}, {0}, {0}), "a gap in positions is refused", "program");
  check(tiny.refuses({1}, {0}, {4}, {0}), "a block outside the pool is refused", "program");
  check(tiny.refuses({1}, {0}, {0}, {1}), "a logit row outside the batch is refused", "program");
  check(tiny.refuses(std::vector<int32_t>(9, 1), {0, 1, 2, 3, 4, 5, 6, 7, 8}, {0}, {0}), "too many rows are refused",
        "program");
}

void test_buffers() {
  Tiny tiny;
  for (auto [offset, width] : {std::pair<size_t, int>{32, 16}, {1 << 16, 16}, {0, 1 << 14}}) {
    bool refused = false;
    try {
      tiny.program.add_buffer(offset, width, RowKind::kFloat, false);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    check(refused, "a buffer outside the arena is refused", "program");
  }
}

}  // namespace

int main() {
  for (int threads : {1, 2, 3}) test_pool(threads);
#if defined(__linux__)
  test_parking();
#endif
  test_checks();
  test_buffers();
  return report("program");
}
