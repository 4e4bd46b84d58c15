// An op list ready to run: buffers placed in one arena, weights packed, one call a step, nothing allocated in it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "program/joined.h"
#include "program/ops.h"
#include "runtime/thread_pool.h"

namespace vivace {

struct BatchView {
  const int32_t* token_ids;
  const int32_t* positions;
  const int32_t* sequence_starts;
  const int32_t* block_tables;
  const int32_t* logit_rows;
  int num_rows, num_sequences, max_blocks, num_selected;
  const int32_t* slots = nullptr;         // null: the positions
  const int32_t* local_tables = nullptr;  // null: the block tables
  int max_local_blocks = 0;
  const int32_t* observe_rows = nullptr;
  int num_observed = 0;
  const int32_t* window_starts = nullptr;  // with sink_ends, see Step
  const int32_t* sink_ends = nullptr;
  const int8_t* row_levels = nullptr;  // see Step
};

class Program {
 public:
  // Programs of one caller share its threads: helpers that spin for one would take the cores of another's.
  Program(const std::string& isa, std::shared_ptr<ThreadPool> threads, int max_rows, int max_selected,
          size_t arena_bytes, std::shared_ptr<KvPool> kv);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Places a buffer at `offset` bytes and returns its number; throws std::invalid_argument when it leaves the arena.
  int add_buffer(size_t offset, int width, RowKind kind, bool selected, const InputGrid* grid = nullptr);
  // Keeps a padded copy and returns its number.
  int add_vector(const float* values, size_t count);
  const Buffer& buffer(int number) const;  // number -1: an absent buffer
  const float* vector(int number) const;   // number -1: null
  void add_op(std::unique_ptr<Op> op);
  void set_output(int buffer);
  void set_attention_shape(int num_heads, int num_kv_heads, int head_dim, int vocab_size);
  int vocab_size() const { return vocab_size_; }

  // Runs every op; the result (num_selected rows of `output()`) stays valid until the next call. Throws
  // std::invalid_argument before anything is written when the batch does not fit the program.
  void forward(const BatchView& batch);
  // `forward` in two halves: the helpers compute while the caller does something else, and the caller takes part from
  // `finish` on. What the batch points to stays as it is until then, and the threads do nothing else.
  void start(const BatchView& batch);
  void finish();
  // Throws std::invalid_argument when `start` would not take the batch.
  void check(const BatchView& batch) const;

  // From now on each step notes what its ops take, the wait for others included; a few microseconds a step.
  void time_ops();
  // Seconds that each op took since `time_ops`, all steps together, the mean of the threads. Empty when nothing is
  // timed.
  std::vector<double> op_seconds() const;
  const std::vector<std::unique_ptr<Op>>& ops() const { return ops_; }

  // Shares work that is not a step, such as drawing tokens, among the threads.
  ThreadPool& pool() { return *threads_; }
  const KernelTable& kernels() const { return *kernels_; }
  // Attention that observed row `index` of the last call paid to each block of its table, summed over layers that see
  // everything and over heads: max_blocks floats.
  void observed(int index, float* masses) const;
  int num_selected() const { return step_.num_selected; }
  int num_observed() const { return step_.num_observed; }
  int max_blocks() const { return step_.max_blocks; }

  const Buffer& output() const { return buffers_[output_]; }
  KvPool& kv() { return *kv_; }
  const std::vector<AttentionTile>* tiles() const { return &tiles_; }
  const char* isa() const { return kernels_->name; }
  int num_threads() const { return threads_->num_threads(); }
  size_t arena_bytes() const { return arena_.size(); }

 private:
  void check_blocks(const BatchView& batch, int sequence) const;
  void check_local_blocks(const BatchView& batch, int sequence) const;
  void plan_tiles(const BatchView& batch);
  void plan_stages();
  const JoinedOps* joined_at(size_t op) const;
  void run_stages(int thread);
  int claim(size_t stage, int thread);
  void run_task(size_t stage, int task, int thread, float* scratch);

  const KernelTable* kernels_;
  int max_rows_, max_selected_;
  int num_heads_ = 1, num_kv_heads_ = 1, head_dim_ = 16, vocab_size_ = 0;
  std::shared_ptr<KvPool> kv_;
  Memory arena_;
  Memory scratch_;
  std::vector<Buffer> buffers_;
  std::vector<std::unique_ptr<std::vector<float>>> vectors_;
  std::vector<std::unique_ptr<InputGrid>> grids_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<std::unique_ptr<JoinedOps>> joined_;  // as their first ops lie in `ops_`
  std::vector<AttentionTile> tiles_;
  // Ops [begin, end) that threads do together before they go on: one op, those that are joined, or with many rows all
  // row-wise ops up to the next that is not. A task of the latter takes a block of rows through all of them, which
  // stays in its core's cache.
  struct Stage {
    size_t begin, end;
    const JoinedOps* joined;  // null: not such a stage
    int num_tasks;
    bool by_rows;
    int num_shares;  // tasks of one share follow each other; a thread begins with the share of its number
  };
  std::vector<Stage> stages_;
  // How far the threads are with one stage: tasks done, and tasks handed out of each share.
  struct alignas(64) Count {
    std::atomic<int> number{0};
  };
  std::unique_ptr<Count[]> done_, claimed_;
  std::vector<std::vector<double>> op_seconds_;  // by thread, when ops are timed
  std::function<void(int)> job_;
  bool is_started_ = false;
  int output_ = 0;
  Step step_{};
  std::shared_ptr<ThreadPool> threads_;
};

}  // namespace vivace
