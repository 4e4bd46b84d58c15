#include "program/joined.h"

#include <algorithm>

namespace vivace {

namespace {

constexpr int kMostRows = 32;          // of a step whose ops are joined
constexpr int kTasksAThread = 2;       // of the linear before a gate: the last to come has little left to wait for
constexpr int kLeastTasksAThread = 4;  // of attention: heads and rounding are not to make uneven shares longer

// Columns of a gate are whole groups of either size of codes, and whole panels.
constexpr int kGateColumns = std::max(kTurn, 2 * kLanes);

// gate and up, then activation(gate) * up and its codes, a piece of the columns at a time.
struct GateUp final : JoinedOps {
  const LinearRows* linear;
  const GateRows* gate;

  bool fits(const Step& step) const override { return step.num_rows <= kMostRows; }
  int num_pieces() const { return gate->gate.width / kGateColumns; }
  int num_tasks(const Step& step) const override { return std::min(num_pieces(), kTasksAThread * step.num_threads); }
  void run(const Step& step, int task, float*) const override {
    const int tasks = num_tasks(step);
    const int begin = num_pieces() * task / tasks * kGateColumns,
              end = num_pieces() * (task + 1) / tasks * kGateColumns;
    for (const LinearRows::Segment& segment : linear->segments) {
      const int first = std::max(begin, segment.column) - segment.column;
      const int last = std::min(end - segment.column, segment.weight->view().num_outputs);
      if (first < last) linear->run_segment(step, segment, first / kLanes, last / kLanes, 0, step.num_rows);
    }
    gate->run_columns(step, 0, step.num_rows, begin, end);
  }
};

// Heads, attention and the codes of what it gives, a row and kv head at a time: where every sequence has one row.
struct AttendOne final : JoinedOps {
  const HeadRows* heads;
  const AttendRows* attend;
  const QuantizeRows* quantize;

  bool fits(const Step& step) const override {
    return step.num_rows <= kMostRows && step.num_rows == step.num_sequences && step.num_observed == 0 &&
           num_tasks(step) >= kLeastTasksAThread * step.num_threads;
  }
  int num_tasks(const Step&) const override { return static_cast<int>(attend->tiles->size()); }
  void run(const Step& step, int task, float* scratch) const override {
    const AttentionTile& tile = (*attend->tiles)[task];
    heads->run_head(step, tile.row_begin, tile.kv_head);
    attend->run_tile(step, tile, scratch);
    const int columns = heads->num_heads / heads->num_kv_heads * heads->head_dim;
    quantize->run_columns(step, tile.row_begin, tile.kv_head * columns, (tile.kv_head + 1) * columns);
  }
};

std::unique_ptr<JoinedOps> join_gate(const GateRows& gate, const LinearRows* linear) {
  if (!linear || gate.gate.selected || gate.quantized.grid) return nullptr;
  if (!linear->writes_only(gate.gate, gate.up)) return nullptr;
  if (gate.gate.width % kGateColumns != 0) return nullptr;
  auto joined = std::make_unique<GateUp>();
  joined->linear = linear;
  joined->gate = &gate;
  joined->count = 2;
  return joined;
}

std::unique_ptr<JoinedOps> join_attention(const QuantizeRows& quantize, const AttendRows* attend,
                                          const HeadRows* heads) {
  if (!attend || !heads || quantize.x.selected || quantize.out.grid) return nullptr;
  if (quantize.x.data != attend->out.data || attend->q.data != heads->q.data) return nullptr;
  const int columns = heads->num_heads / heads->num_kv_heads * heads->head_dim;
  if (columns % (quantize.out.kind == RowKind::kTurned ? kTurn : kGroup) != 0) return nullptr;
  auto joined = std::make_unique<AttendOne>();
  joined->heads = heads;
  joined->attend = attend;
  joined->quantize = &quantize;
  return joined;
}

template <class Kind>
const Kind* as(const std::vector<std::unique_ptr<Op>>& ops, size_t from_end) {
  return ops.size() < from_end ? nullptr : dynamic_cast<const Kind*>(ops[ops.size() - from_end].get());
}

}  // namespace

std::unique_ptr<JoinedOps> join_last(const std::vector<std::unique_ptr<Op>>& ops) {
  std::unique_ptr<JoinedOps> joined;
  if (const auto* gate = as<GateRows>(ops, 1)) joined = join_gate(*gate, as<LinearRows>(ops, 2));
  if (const auto* quantize = as<QuantizeRows>(ops, 1)) {
    const size_t observers = as<ObserveRows>(ops, 2) ? 1 : 0;
    joined = join_attention(*quantize, as<AttendRows>(ops, 2 + observers), as<HeadRows>(ops, 3 + observers));
    if (joined) joined->count = 3 + observers;
    if (joined) joined->told_under = 1;
  }
  if (joined) joined->first = ops.size() - joined->count;
  return joined;
}

}  // namespace vivace
