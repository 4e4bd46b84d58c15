#include "program/program.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

namespace vivace {

namespace {

constexpr int kTileRows = 16;        // query rows of one attention task, at most
constexpr int kLeastStageRows = 24;  // rows a thread must have for ops to be done block by block
constexpr int kStageRows = 64;       // rows of such a block: what ops pass on stays in the second-level cache
constexpr int kRowGroup = 8;         // rows that the linear kernels take at a time
constexpr double kUneven = 1.125;    // with fewer rows: how much longer than an even share a thread's may be

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Seconds since it was made or last asked.
class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Whether threads take rows of their own through the row-wise ops. It spares them most waits, and what one has written
// need not travel to the other's cache; but rows go in whole groups, and of few rows the shares must be about as long.
bool goes_by_rows(int num_rows, int num_threads) {
  if (num_rows >= kLeastStageRows * num_threads) return true;
  const int groups = ceil_div(num_rows, kRowGroup);
  return groups >= num_threads && ceil_div(groups, num_threads) * kRowGroup * num_threads <= kUneven * num_rows;
}

// Of one thread: for attention, or for a pair of ops.
size_t scratch_floats(int head_dim) {
  return (std::max<size_t>(attention_scratch_floats(head_dim), kPairScratchFloats) + 15) / 16 * 16;
}

}  // namespace

Program::Program(const std::string& isa, std::shared_ptr<ThreadPool> threads, int max_rows, int max_selected,
                 size_t arena_bytes, std::shared_ptr<KvPool> kv)
    : kernels_(&choose_table(isa)),
      max_rows_(max_rows),
      max_selected_(max_selected),
      kv_(std::move(kv)),
      arena_(arena_bytes),
      threads_(std::move(threads)) {}

Program::~Program() {
  if (is_started_) finish();
}

int Program::add_buffer(size_t offset, int width, RowKind kind, bool selected, const InputGrid* grid) {
  Buffer buffer{arena_.data() + offset, width, kind, selected};
  if (grid) buffer.grid = grids_.emplace_back(std::make_unique<InputGrid>(*grid)).get();
  const size_t row_bytes = kind == RowKind::kFloat ? buffer.stride() * sizeof(float) : buffer.quantized().row_bytes;
  const size_t rows = selected ? max_selected_ : max_rows_;
  if (offset % 64 != 0 || offset + rows * row_bytes > arena_.size())
    throw std::invalid_argument("a buffer is misaligned or leaves the arena");
  buffers_.push_back(buffer);
  return static_cast<int>(buffers_.size()) - 1;
}

int Program::add_vector(const float* values, size_t count) {
  auto padded = std::make_unique<std::vector<float>>((count + 15) / 16 * 16, 0.0f);
  std::copy(values, values + count, padded->begin());
  vectors_.push_back(std::move(padded));
  return static_cast<int>(vectors_.size()) - 1;
}

const Buffer& Program::buffer(int number) const {
  static const Buffer absent{};
  return number < 0 ? absent : buffers_.at(number);
}

const float* Program::vector(int number) const { return number < 0 ? nullptr : vectors_.at(number)->data(); }

void Program::add_op(std::unique_ptr<Op> op) {
  ops_.push_back(std::move(op));
  if (auto joined = join_last(ops_)) joined_.push_back(std::move(joined));
  done_ = std::make_unique<Count[]>(ops_.size());
  claimed_ = std::make_unique<Count[]>(ops_.size() * threads_->num_threads());
}

void Program::set_output(int buffer) {
  buffers_.at(buffer);
  output_ = buffer;
}

void Program::set_attention_shape(int num_heads, int num_kv_heads, int head_dim, int vocab_size) {
  num_heads_ = num_heads;
  num_kv_heads_ = num_kv_heads;
  head_dim_ = head_dim;
  vocab_size_ = vocab_size;
  scratch_ = Memory(scratch_floats(head_dim) * sizeof(float) * threads_->num_threads());
}

void Program::check(const BatchView& batch) const {
  if (batch.num_rows < 1 || batch.num_rows > max_rows_)
    throw std::invalid_argument("a step takes 1 to " + std::to_string(max_rows_) + " rows, not " +
                                std::to_string(batch.num_rows));
  if (batch.num_selected > max_selected_)
    throw std::invalid_argument("a step gives logits for at most " + std::to_string(max_selected_) + " rows");
  if (batch.sequence_starts[0] != 0 || batch.sequence_starts[batch.num_sequences] != batch.num_rows)
    throw std::invalid_argument("sequence_starts must run from 0 to the number of rows");
  for (int i = 0; i < batch.num_selected; ++i) {
    if (batch.logit_rows[i] < 0 || batch.logit_rows[i] >= batch.num_rows)
      throw std::invalid_argument("a logit row lies outside the batch");
  }
  for (int s = 0; s < batch.num_sequences; ++s) {
    if (batch.sequence_starts[s] > batch.sequence_starts[s + 1])
      throw std::invalid_argument("sequence_starts must ascend");
    int last = -1;
    for (int row = batch.sequence_starts[s]; row < batch.sequence_starts[s + 1]; ++row) {
      if (batch.token_ids[row] < 0 || batch.token_ids[row] >= vocab_size_)
        throw std::invalid_argument("token id " + std::to_string(batch.token_ids[row]) + " is outside the vocabulary");
      if (batch.positions[row] < 0 || (last >= 0 && batch.positions[row] != last + 1))
        throw std::invalid_argument("positions of a sequence must be consecutive and not negative");
      last = batch.positions[row];
    }
    if (last >= 0) check_blocks(batch, s);
    if (last >= 0 && kv_->local_window() > 0) check_local_blocks(batch, s);
  }
  for (int i = 0; i < batch.num_observed; ++i) {
    if (batch.observe_rows[i] < 0 || batch.observe_rows[i] >= batch.num_rows)
      throw std::invalid_argument("an observed row lies outside the batch");
  }
}

// Layers that keep their window only: its blocks must be there.
void Program::check_local_blocks(const BatchView& batch, int sequence) const {
  const int first = batch.positions[batch.sequence_starts[sequence]];
  const int last = batch.positions[batch.sequence_starts[sequence + 1] - 1];
  const int max_blocks = batch.local_tables ? batch.max_local_blocks : batch.max_blocks;
  const int32_t* blocks =
      (batch.local_tables ? batch.local_tables : batch.block_tables) + static_cast<size_t>(sequence) * max_blocks;
  if (last >= max_blocks * kBlockSize) throw std::invalid_argument("a local block table is shorter than its sequence");
  const int begin = std::max(0, first - kv_->local_window() + 1) / kBlockSize;
  const int num_first = kv_->has_exact() && kv_->exact_is_local() ? kExactFirst / kBlockSize : 0;
  for (int b = 0; b <= last / kBlockSize; ++b) {
    if (b >= num_first && b < begin) continue;
    if (blocks[b] < 0 || blocks[b] >= kv_->num_local_blocks())
      throw std::invalid_argument("a local block number lies outside the pool");
  }
}

// Blocks that some row of the sequence sees must be there. Those between its sinks and its window may be gone.
void Program::check_blocks(const BatchView& batch, int sequence) const {
  const int first = batch.sequence_starts[sequence], last = batch.sequence_starts[sequence + 1] - 1;
  const int32_t* slots = batch.slots ? batch.slots : batch.positions;
  if (slots[first] < 0 || slots[last] - slots[first] != last - first || slots[last] > batch.positions[last])
    throw std::invalid_argument("slots of a sequence must be consecutive and no further than its positions");
  if (slots[last] >= batch.max_blocks * kBlockSize)
    throw std::invalid_argument("a block table is shorter than its sequence");
  int sinks = 0, window = batch.window_starts ? slots[first] : 0;
  for (int row = first; batch.window_starts && row <= last; ++row) {
    sinks = std::max(sinks, batch.sink_ends[row]);
    window = std::min(window, batch.window_starts[row]);
  }
  for (int b = 0; b <= slots[last] / kBlockSize; ++b) {
    if (b * kBlockSize >= sinks && b < window / kBlockSize) continue;
    const int block = batch.block_tables[static_cast<size_t>(sequence) * batch.max_blocks + b];
    if (block < 0 || block >= kv_->num_blocks()) throw std::invalid_argument("a block number lies outside the pool");
  }
}

void Program::plan_tiles(const BatchView& batch) {
  tiles_.clear();
  for (int s = 0; s < batch.num_sequences; ++s) {
    const int begin = batch.sequence_starts[s], end = batch.sequence_starts[s + 1];
    for (int row = begin; row < end; ++row) step_.row_sequences[row] = s;
    for (int row = begin; row < end; row += kTileRows) {
      for (int head = 0; head < num_kv_heads_; ++head) tiles_.push_back({s, head, row, std::min(row + kTileRows, end)});
    }
  }
}

// Ops from `op` on that this step does in the same tasks; null: it stands alone.
const JoinedOps* Program::joined_at(size_t op) const {
  const auto at = std::lower_bound(joined_.begin(), joined_.end(), op,
                                   [](const auto& joined, size_t first) { return joined->first < first; });
  return at != joined_.end() && (*at)->first == op && (*at)->fits(step_) ? at->get() : nullptr;
}

void Program::plan_stages() {
  stages_.clear();
  const bool by_rows = goes_by_rows(step_.num_rows, step_.num_threads);
  const int num_blocks = step_.num_threads * ceil_div(step_.num_rows, step_.num_threads * kStageRows);
  for (size_t i = 0; i < ops_.size();) {
    size_t end = i + 1;
    if (by_rows && ops_[i]->is_row_wise()) {
      while (end < ops_.size() && ops_[end]->is_row_wise()) ++end;
      stages_.push_back({i, end, nullptr, num_blocks, true, 1});
    } else if (const JoinedOps* joined = joined_at(i)) {
      end = i + joined->count;
      stages_.push_back({i, end, joined, joined->num_tasks(step_), false, step_.num_threads});
    } else {
      const int num_shares = ops_[i]->is_stream(step_) ? step_.num_threads : 1;
      stages_.push_back({i, end, nullptr, ops_[i]->num_tasks(step_), false, num_shares});
    }
    i = end;
  }
  for (size_t i = 0; i < stages_.size(); ++i) {
    done_[i].number.store(0, std::memory_order_relaxed);
    for (int share = 0; share < stages_[i].num_shares; ++share)
      claimed_[i * step_.num_threads + share].number.store(0, std::memory_order_relaxed);
  }
}

// The next task of a stage for a thread, -1 when all are taken. It helps the others with their shares after its own.
int Program::claim(size_t number, int thread) {
  const Stage& stage = stages_[number];
  for (int turn = 0; turn < stage.num_shares; ++turn) {
    const int share = (thread + turn) % stage.num_shares;
    const int begin = stage.num_tasks * share / stage.num_shares;
    const int count = stage.num_tasks * (share + 1) / stage.num_shares - begin;
    std::atomic<int>& claimed = claimed_[number * step_.num_threads + share].number;
    if (claimed.load(std::memory_order_relaxed) >= count) continue;
    const int task = claimed.fetch_add(1, std::memory_order_relaxed);
    if (task < count) return begin + task;
  }
  return -1;
}

void Program::run_task(size_t number, int task, int thread, float* scratch) {
  const Stage& stage = stages_[number];
  if (stage.joined) return stage.joined->run(step_, task, scratch);
  if (!stage.by_rows) return ops_[stage.begin]->run(step_, task, scratch);
  // Blocks of whole groups of rows that the kernels take at a time, all of them about as long.
  const int groups = ceil_div(step_.num_rows, kRowGroup);
  const int begin = groups * task / stage.num_tasks * kRowGroup;
  const int end = std::min(groups * (task + 1) / stage.num_tasks * kRowGroup, step_.num_rows);
  Stopwatch watch;
  for (size_t i = stage.begin; i < stage.end; ++i) {
    const bool both = i + 1 < stage.end && ops_[i]->run_pair(step_, *ops_[i + 1], begin, end, scratch);
    if (!both) ops_[i]->run_rows(step_, begin, end);
    if (!op_seconds_.empty()) op_seconds_[thread][i] += watch.lap();
    if (both) ++i;
  }
}

void Program::run_stages(int thread) {
  float* scratch = reinterpret_cast<float*>(scratch_.data()) + thread * scratch_floats(head_dim_);
  for (size_t i = 0; i < stages_.size(); ++i) {
    const int tasks = stages_[i].num_tasks;
    std::atomic<int>& num_done = done_[i].number;
    Stopwatch watch;
    for (int task; (task = claim(i, thread)) >= 0;) {
      run_task(i, task, thread, scratch);
      if (num_done.fetch_add(1, std::memory_order_acq_rel) + 1 == tasks) Waiter::wake(num_done);
    }
    if (stages_[i].by_rows) watch.lap();
    Waiter waiter;
    for (int done; (done = num_done.load(std::memory_order_acquire)) < tasks;) waiter.pause(num_done, done);
    const Stage& stage = stages_[i];
    const size_t told = stage.joined ? stage.begin + stage.joined->told_under : stage.end - 1;
    if (!op_seconds_.empty()) op_seconds_[thread][told] += watch.lap();
  }
}

void Program::time_ops() { op_seconds_.assign(threads_->num_threads(), std::vector<double>(ops_.size(), 0.0)); }

std::vector<double> Program::op_seconds() const {
  std::vector<double> mean(op_seconds_.empty() ? 0 : ops_.size(), 0.0);
  for (const std::vector<double>& mine : op_seconds_)
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += mine[i] / op_seconds_.size();
  return mean;
}

void Program::forward(const BatchView& batch) {
  start(batch);
  finish();
}

void Program::finish() {
  if (!is_started_) throw std::invalid_argument("no step was started");
  threads_->finish();
  is_started_ = false;
}

void Program::start(const BatchView& batch) {
  if (is_started_) throw std::invalid_argument("the last step is not finished");
  check(batch);
  step_.num_rows = batch.num_rows;
  step_.num_selected = batch.num_selected;
  step_.num_sequences = batch.num_sequences;
  step_.max_blocks = batch.max_blocks;
  step_.token_ids = batch.token_ids;
  step_.positions = batch.positions;
  step_.sequence_starts = batch.sequence_starts;
  step_.block_tables = batch.block_tables;
  step_.logit_rows = batch.logit_rows;
  step_.slots = batch.slots ? batch.slots : batch.positions;
  step_.local_tables = batch.local_tables ? batch.local_tables : batch.block_tables;
  step_.max_local_blocks = batch.local_tables ? batch.max_local_blocks : batch.max_blocks;
  step_.observe_rows = batch.observe_rows;
  step_.num_observed = batch.num_observed;
  step_.observed.assign(static_cast<size_t>(batch.num_observed) * num_kv_heads_ * 3 * batch.max_blocks, 0.0f);
  step_.window_starts = batch.window_starts;
  step_.sink_ends = batch.sink_ends;
  step_.row_levels = batch.row_levels;
  step_.row_sequences.resize(max_rows_);
  step_.kernels = kernels_;
  step_.num_threads = threads_->num_threads();
  plan_tiles(batch);
  plan_stages();
  job_ = [this](int thread) { run_stages(thread); };
  is_started_ = true;
  threads_->start(job_);
}

void Program::observed(int index, float* masses) const {
  std::fill(masses, masses + step_.max_blocks, 0.0f);
  for (int head = 0; head < num_kv_heads_; ++head) {
    const size_t task = static_cast<size_t>(index) * num_kv_heads_ + head;
    const float* mine = step_.observed.data() + task * 3 * step_.max_blocks;
    for (int b = 0; b < step_.max_blocks; ++b) masses[b] += mine[b];
  }
}

}  // namespace vivace
