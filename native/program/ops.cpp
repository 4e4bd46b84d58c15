#include "program/ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "weights/nested.h"

namespace vivace {

namespace {

constexpr int kRowsPerTask = 8;
constexpr int kLinearRows = 64;    // rows a linear task works on: their codes stay in the second-level cache
constexpr int kLinearPanels = 16;  // panels a linear task works on when there are many rows

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Few rows are shared out one by one, so that no thread looks on.
int rows_per_task(const Buffer& buffer, const Step& step) {
  return std::clamp(ceil_div(buffer.rows(step), step.num_threads), 1, kRowsPerTask);
}

int row_tasks(const Buffer& buffer, const Step& step) {
  return ceil_div(buffer.rows(step), rows_per_task(buffer, step));
}

struct Range {
  int begin, end;
};

Range rows_of(const Buffer& buffer, const Step& step, int task) {
  const int count = rows_per_task(buffer, step);
  return {task * count, std::min((task + 1) * count, buffer.rows(step))};
}

}  // namespace

int RopeTable::num_tasks(const Step& step) const { return row_tasks(out, step); }

void RopeTable::run(const Step& step, int task, float*) const {
  const Range rows = rows_of(out, step, task);
  const size_t half = frequencies.size();
  for (int row = rows.begin; row < rows.end; ++row) {
    float* cosines = out.floats() + row * out.stride();
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(step.positions[row]) * frequencies[i];
      cosines[i] = static_cast<float>(std::cos(angle) * factor);
      cosines[half + i] = static_cast<float>(std::sin(angle) * factor);
    }
  }
}

int EmbedRows::num_tasks(const Step& step) const { return row_tasks(out, step); }

void EmbedRows::run(const Step& step, int task, float*) const {
  const Range rows = rows_of(out, step, task);
  for (int row = rows.begin; row < rows.end; ++row) {
    float* target = out.floats() + row * out.stride();
    int token = step.token_ids[row];
    size_t band = 0;
    while (token >= bands[band]->view().num_outputs) token -= bands[band++]->view().num_outputs;
    bands[band]->unpack_row(token, target);
    if (scale != 1.0f)
      for (int i = 0; i < out.width; ++i) target[i] *= scale;
  }
}

int NormRows::num_tasks(const Step& step) const { return row_tasks(a, step); }

void NormRows::run(const Step& step, int task, float*) const {
  const Range rows = rows_of(a, step, task);
  run_rows(step, rows.begin, rows.end);
}

void NormRows::run_rows(const Step& step, int begin, int end) const {
  const NormCall call{a.floats(), b.floats(), total.floats(), out.floats(),   weight,       eps,
                      a.width,    a.stride(), b.stride(),     total.stride(), out.stride(), quantized.quantized()};
  step.kernels->rms_norm(call, begin, end);
}

int QuantizeRows::num_tasks(const Step& step) const { return row_tasks(x, step); }

void QuantizeRows::run(const Step& step, int task, float*) const {
  const Range rows = rows_of(x, step, task);
  run_rows(step, rows.begin, rows.end);
}

void QuantizeRows::run_rows(const Step& step, int begin, int end) const {
  step.kernels->quantize({x.floats(), x.stride(), out.quantized()}, begin, end);
}

void QuantizeRows::run_columns(const Step& step, int row, int column_begin, int column_end) const {
  step.kernels->quantize({x.floats(), x.stride(), out.quantized(), column_begin, column_end}, row, row + 1);
}

LinearRows::Split LinearRows::split(const Step& step) const {
  Split split{};
  for (const Segment& segment : segments) split.panels += segment.weight->num_panels();
  split.rows = segments.front().out.rows(step);
  split.rows_per_task = kLinearRows;
  const bool few_rows = split.rows <= kLinearRows / 2;
  split.panels_per_task = few_rows ? std::max(1, ceil_div(split.panels, step.num_threads * 2)) : kLinearPanels;
  split.panel_tasks = ceil_div(split.panels, split.panels_per_task);
  return split;
}

int LinearRows::num_tasks(const Step& step) const {
  const Split parts = split(step);
  return parts.panel_tasks * ceil_div(parts.rows, parts.rows_per_task);
}

bool LinearRows::is_stream(const Step& step) const { return segments.front().out.rows(step) <= kLinearRows; }

void LinearRows::run(const Step& step, int task, float*) const {
  const Split parts = split(step);
  const int row_begin = task / parts.panel_tasks * parts.rows_per_task;
  const int row_end = std::min(row_begin + parts.rows_per_task, parts.rows);
  int begin = task % parts.panel_tasks * parts.panels_per_task;
  const int end = std::min(begin + parts.panels_per_task, parts.panels);
  int first = 0;
  for (const Segment& segment : segments) {
    const int last = first + segment.weight->num_panels();
    const int stop = std::min(end, last);
    if (begin < stop) run_segment(step, segment, begin - first, stop - first, row_begin, row_end);
    begin = std::max(begin, stop);
    first = last;
  }
}

void LinearRows::run_rows(const Step& step, int begin, int end) const {
  for (const Segment& segment : segments) run_segment(step, segment, 0, segment.weight->num_panels(), begin, end);
}

// Gate and up a few columns at a time, gated before they leave the cache: their floats are never written out.
bool LinearRows::run_pair(const Step& step, const Op& next, int begin, int end, float* scratch) const {
  const auto* gated = dynamic_cast<const GateRows*>(&next);
  if (end - begin < kPairRows / 2 || !gated || !gated->is_only_reader) return false;
  if (gated->quantized.grid) return false;  // which may want a whole row first
  if (!writes_only(gated->gate, gated->up)) return false;
  for (const Segment& segment : segments) {
    if (segment.weight->view().format == PanelFormat::kNested || !segment.row_sums.empty()) return false;
    if (segment.column % kPairColumns != 0) return false;
  }
  const Buffer targets[2] = {gated->gate, gated->up};
  float* parts[2] = {scratch, scratch + kPairRows * kPairColumns};
  const int width = gated->gate.width;
  for (int row = begin; row < end; row += kPairRows) {
    const int num_rows = std::min(kPairRows, end - row);
    for (int column = 0; column < width; column += kPairColumns) {
      const int num_columns = std::min(kPairColumns, width - column);
      for (int i = 0; i < 2; ++i) {
        const Segment& segment = segment_at(targets[i], column);
        const int panel = (column - segment.column) / kLanes;
        run_piece(step, segment, panel, ceil_div(num_columns, kLanes), row, num_rows, parts[i]);
      }
      gated->run_piece(step, parts[0], parts[1], row, num_rows, column, num_columns);
    }
  }
  return true;
}

bool LinearRows::writes_only(const Buffer& gate, const Buffer& up) const {
  int gates = 0, ups = 0;
  for (const Segment& segment : segments) {
    if (segment.out.data != gate.data && segment.out.data != up.data) return false;
    (segment.out.data == gate.data ? gates : ups) += segment.weight->view().num_outputs;
  }
  return gates == gate.width && ups == up.width;
}

const LinearRows::Segment& LinearRows::segment_at(const Buffer& out, int column) const {
  const auto writes = [&](const Segment& segment) {
    const int end = segment.column + segment.weight->view().num_outputs;
    return segment.out.data == out.data && segment.column <= column && column < end;
  };
  return *std::find_if(segments.begin(), segments.end(), writes);
}

// Rows of a few panels, to `out` with kPairColumns floats a row.
void LinearRows::run_piece(const Step& step, const Segment& segment, int panel, int num_panels, int row, int num_rows,
                           float* out) const {
  LinearCall call{segment.weight->view(),
                  segment.bias ? segment.bias + panel * kLanes : nullptr,
                  nullptr,
                  x.stride(),
                  quantized.quantized(),
                  out,
                  kPairColumns};
  call.weight.data += panel * call.weight.panel_bytes;
  if (x.data) call.x = x.floats() + row * x.stride();
  if (quantized.data) call.quantized_x.data += row * call.quantized_x.row_bytes;
  step.kernels->linear(call, 0, num_panels, 0, num_rows);
}

void LinearRows::run_segment(const Step& step, const Segment& segment, int panel_begin, int panel_end, int row_begin,
                             int row_end) const {
  LinearCall call{segment.weight->view(),
                  segment.bias,
                  x.floats(),
                  x.stride(),
                  quantized.quantized(),
                  segment.out.floats() + segment.column,
                  segment.out.stride()};
  if (call.weight.format == PanelFormat::kNested)
    return run_nested(step, segment, call, panel_begin, panel_end, row_begin, row_end);
  step.kernels->linear(call, panel_begin, panel_end, row_begin, row_end);
  if (!segment.row_sums.empty()) add_shifts(segment, panel_begin, panel_end, row_begin, row_end);
}

// W (scale * v + shift) = W (scale * v) + shift * (sums of W's rows).
void LinearRows::add_shifts(const Segment& segment, int panel_begin, int panel_end, int row_begin, int row_end) const {
  const QuantizedRows rows = quantized.quantized();
  const int first = panel_begin * kLanes, last = std::min<int>(panel_end * kLanes, segment.row_sums.size());
  for (int row = row_begin; row < row_end; ++row) {
    const float shift = *rows.shift(row);
    float* out = segment.out.floats() + segment.column + row * segment.out.stride();
    for (int i = first; i < last; ++i) out[i] += shift * segment.row_sums[i];
  }
}

// Rows that follow each other and read as many bits go together.
void LinearRows::run_nested(const Step& step, const Segment& segment, LinearCall call, int panel_begin, int panel_end,
                            int row_begin, int row_end) const {
  const auto reads_all = [&](int row) {
    if (!step.row_levels) return true;
    return step.row_levels[segment.out.selected ? step.logit_rows[row] : row] >= segment.weight->full_level;
  };
  const PackedView nested = call.weight, high = high_bits(nested);
  for (int begin = row_begin; begin < row_end;) {
    const bool all = reads_all(begin);
    int end = begin + 1;
    while (end < row_end && reads_all(end) == all) ++end;
    call.weight = all ? nested : high;
    step.kernels->linear(call, panel_begin, panel_end, begin, end);
    begin = end;
  }
}

int HeadRows::num_tasks(const Step& step) const { return row_tasks(q, step); }

void HeadRows::run(const Step& step, int task, float*) const {
  const Range rows = rows_of(q, step, task);
  run_rows(step, rows.begin, rows.end);
}

HeadsCall HeadRows::heads_call() const {
  return {q.floats(), k.floats(),   v.floats(),         q.stride(),         k.stride(),      v.stride(),        q_norm,
          k_norm,     norm_eps,     rope->out.floats(), rope->out.stride(), rope->out.width, rope->interleaved, scale,
          num_heads,  num_kv_heads, head_dim,           kv.format->rotates};
}

namespace {

// Stores what `call` has made of one row, from the first head of `kv` and `exact` on.
void store_row(const HeadRows& op, const Step& step, const HeadsCall& call, const KvLayer& kv, const KvLayer& exact,
               int row) {
  const int sequence = step.row_sequences[row];
  const int32_t* blocks = op.is_local ? step.local_blocks_of(sequence) : step.blocks_of(sequence);
  step.kernels->store_kv(call, kv, blocks, op.is_local ? step.positions : step.slots, row, row + 1);
  if (!exact.data) return;
  const int32_t* others = op.exact_is_local ? step.local_blocks_of(sequence) : blocks;
  step.kernels->store_kv(call, exact, others, op.exact_is_local ? step.positions : step.slots, row, row + 1);
}

}  // namespace

void HeadRows::run_rows(const Step& step, int begin, int end) const {
  const HeadsCall call = heads_call();
  step.kernels->prepare_heads(call, begin, end);
  for (int row = begin; row < end; ++row) store_row(*this, step, call, kv, exact, row);
}

void HeadRows::run_head(const Step& step, int row, int kv_head) const {
  HeadsCall call = heads_call();
  call.num_heads = num_heads / num_kv_heads;
  call.num_kv_heads = 1;
  call.q += static_cast<size_t>(kv_head) * call.num_heads * head_dim;
  call.k += static_cast<size_t>(kv_head) * head_dim;
  call.v += static_cast<size_t>(kv_head) * head_dim;
  step.kernels->prepare_heads(call, row, row + 1);
  store_row(*this, step, call, kv.from_head(kv_head), exact.data ? exact.from_head(kv_head) : exact, row);
}

int AttendRows::num_tasks(const Step&) const { return static_cast<int>(tiles->size()); }

void AttendRows::run(const Step& step, int task, float* scratch) const {
  run_tile(step, (*tiles)[tiles->size() - 1 - task], scratch);  // later rows have more to do: they go first
}

void AttendRows::run_tile(const Step& step, const AttentionTile& tile, float* scratch) const {
  // What a step leaves out of sight is a matter of layers that see everything: local ones keep their window as it is.
  const AttentionCall call{q.floats(),
                           out.floats(),
                           q.stride(),
                           out.stride(),
                           kv,
                           is_local ? step.local_blocks_of(tile.sequence) : step.blocks_of(tile.sequence),
                           is_local ? step.positions : step.slots,
                           is_local ? nullptr : step.window_starts,
                           is_local ? nullptr : step.sink_ends,
                           num_heads,
                           window,
                           scratch,
                           exact,
                           exact_is_local ? step.local_blocks_of(tile.sequence) : step.blocks_of(tile.sequence),
                           step.positions};
  step.kernels->attention(call, tile.kv_head, tile.row_begin, tile.row_end);
}

int ObserveRows::num_tasks(const Step& step) const { return step.num_observed * kv.num_kv_heads; }

void ObserveRows::run(const Step& step, int task, float* scratch) const {
  const int row = step.observe_rows[task / kv.num_kv_heads];
  const AttentionCall call{
      q.floats(),         nullptr,        q.stride(), 0, kv,     step.blocks_of(step.row_sequences[row]), step.slots,
      step.window_starts, step.sink_ends, num_heads,  0, scratch};
  float* masses = step.observed.data() + static_cast<size_t>(task) * 3 * step.max_blocks;
  const ObservedRow out{masses, masses + step.max_blocks, masses + 2 * step.max_blocks};
  step.kernels->observe(call, task % kv.num_kv_heads, row, out);
}

// One row is split by columns, since it may be wide; several rows are split by rows, and so is one that is looked
// through for its scale first.
int GateRows::columns_per_task(const Step& step) const {
  const bool one_scale = quantized.grid && quantized.grid->by_row && !quantized.grid->is_fixed;
  if (one_scale || gate.rows(step) >= step.num_threads) return gate.width;
  return std::max(kTurn, ceil_div(gate.width, step.num_threads * kTurn) * kTurn);  // whole groups of either size
}

int GateRows::num_tasks(const Step& step) const {
  const int columns = columns_per_task(step);
  if (columns >= gate.width) return row_tasks(gate, step);
  return gate.rows(step) * ceil_div(gate.width, columns);
}

void GateRows::run(const Step& step, int task, float*) const {
  const int columns = columns_per_task(step);
  if (columns >= gate.width) {
    const Range rows = rows_of(gate, step, task);
    return run_rows(step, rows.begin, rows.end);
  }
  const int pieces = ceil_div(gate.width, columns), row = task / pieces, begin = task % pieces * columns;
  run_columns(step, row, row + 1, begin, std::min(begin + columns, gate.width));
}

void GateRows::run_rows(const Step& step, int begin, int end) const { run_columns(step, begin, end, 0, gate.width); }

void GateRows::run_columns(const Step& step, int row_begin, int row_end, int column_begin, int column_end) const {
  const GatedCall call{gate.floats(), up.floats(),  out.floats(), gate.width,           gate.stride(),
                       up.stride(),   out.stride(), activation,   quantized.quantized()};
  step.kernels->gated(call, row_begin, row_end, column_begin, column_end);
}

void GateRows::run_piece(const Step& step, const float* gates, const float* ups, int row, int num_rows, int column,
                         int num_columns) const {
  GatedCall call{gates,        ups,          out.data ? out.floats() + row * out.stride() : nullptr,
                 gate.width,   kPairColumns, kPairColumns,
                 out.stride(), activation,   quantized.quantized(),
                 column};
  if (quantized.data) call.quantized.data += row * call.quantized.row_bytes;
  step.kernels->gated(call, 0, num_rows, column, column + num_columns);
}

int AddRows::num_tasks(const Step& step) const { return row_tasks(a, step); }

void AddRows::run(const Step& step, int task, float*) const {
  const Range rows = rows_of(a, step, task);
  run_rows(step, rows.begin, rows.end);
}

void AddRows::run_rows(const Step& step, int begin, int end) const {
  const size_t first = begin * a.stride(), count = (end - begin) * a.stride();
  step.kernels->add(a.floats() + first, b.floats() + first, out.floats() + first, count);
}

int PickRows::num_tasks(const Step& step) const { return row_tasks(out, step); }

void PickRows::run(const Step& step, int task, float*) const {
  const Range rows = rows_of(out, step, task);
  for (int row = rows.begin; row < rows.end; ++row) {
    std::memcpy(out.floats() + row * out.stride(), x.floats() + step.logit_rows[row] * x.stride(),
                x.width * sizeof(float));
  }
}

}  // namespace vivace
