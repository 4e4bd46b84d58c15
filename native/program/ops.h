// The ops a program is made of. An op splits its work into tasks that any thread may run in any order; tasks of one op
// never touch what another task of it writes.
#pragma once

#include <memory>
#include <vector>

#include "program/kv_pool.h"
#include "program/step.h"
#include "weights/packed.h"

namespace vivace {

// Rows and columns of gate and up that are multiplied and gated together: they stay in the first-level cache.
constexpr int kPairRows = 64, kPairColumns = 64;
constexpr int kPairScratchFloats = 2 * kPairRows * kPairColumns;

class Op {
 public:
  virtual ~Op() = default;
  virtual const char* name() const = 0;  // of the kind, as `execute/lowering.py` calls it
  virtual int num_tasks(const Step& step) const = 0;
  virtual void run(const Step& step, int task, float* scratch) const = 0;
  // Whether a row of what it writes depends on the same row of what it reads and on nothing else, for every row of the
  // step. Ops of that kind that follow each other can pass rows on without waiting for one another.
  virtual bool is_row_wise() const { return false; }
  // Whether tasks that follow each other read memory that follows: a thread then takes its own run of them first, so
  // that what it asked for ahead is what it reads next.
  virtual bool is_stream(const Step&) const { return false; }
  // All that a row-wise op does to the rows [begin, end).
  virtual void run_rows(const Step&, int /*begin*/, int /*end*/) const {}
  // The same for this op and for `next`, where both together are quicker and nobody else reads what this one writes.
  // False: nothing was done. `scratch`: kPairScratchFloats of it.
  virtual bool run_pair(const Step&, const Op& /*next*/, int /*begin*/, int /*end*/, float* /*scratch*/) const {
    return false;
  }
};

// Cosines and sines of the batch's positions for one rope.
struct RopeTable final : Op {
  std::vector<double> frequencies;
  double factor;
  bool interleaved;
  Buffer out;  // width: rope dim
  const char* name() const override { return "rope"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
};

struct EmbedRows final : Op {
  std::vector<std::shared_ptr<const PackedMatrix>> bands;  // rows of the matrix, those of one after those of another
  float scale;
  Buffer out;
  const char* name() const override { return "embed"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
};

struct NormRows final : Op {
  Buffer a, b, total, out, quantized;  // b, total, out and quantized may be absent (data null)
  const float* weight;
  float eps;
  const char* name() const override { return "norm"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
  bool is_row_wise() const override { return !a.selected; }
  void run_rows(const Step& step, int begin, int end) const override;
};

struct QuantizeRows final : Op {
  Buffer x, out;
  const char* name() const override { return "quantize"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
  bool is_row_wise() const override { return !x.selected; }
  void run_rows(const Step& step, int begin, int end) const override;
  void run_columns(const Step& step, int row, int column_begin, int column_end) const;
};

struct LinearRows final : Op {
  struct Segment {
    std::shared_ptr<const PackedMatrix> weight;
    const float* bias;
    Buffer out;
    int column = 0;  // of `out`, where the weight's outputs begin: a matrix may be in bands of rows, each a segment
    std::vector<float> row_sums = {};  // of the weight's rows, padded; where the rows it reads are shifted
  };
  Buffer x, quantized;  // either may be absent, as the segments' formats need
  std::vector<Segment> segments;
  const char* name() const override { return "linear"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
  bool is_row_wise() const override { return !segments.front().out.selected; }
  bool is_stream(const Step& step) const override;
  void run_rows(const Step& step, int begin, int end) const override;
  bool run_pair(const Step& step, const Op& next, int begin, int end, float* scratch) const override;
  // Whether its segments write `gate` and `up` and nothing else.
  bool writes_only(const Buffer& gate, const Buffer& up) const;
  // The segment that writes a column of a buffer, which one of them does.
  const Segment& segment_at(const Buffer& out, int column) const;
  void run_segment(const Step& step, const Segment& segment, int panel_begin, int panel_end, int row_begin,
                   int row_end) const;

 private:
  struct Split {
    int panels, panels_per_task, panel_tasks, rows, rows_per_task;
  };
  Split split(const Step& step) const;
  void add_shifts(const Segment& segment, int panel_begin, int panel_end, int row_begin, int row_end) const;
  void run_nested(const Step& step, const Segment& segment, LinearCall call, int panel_begin, int panel_end,
                  int row_begin, int row_end) const;
  void run_piece(const Step& step, const Segment& segment, int panel, int num_panels, int row, int num_rows,
                 float* out) const;
};

// Norm, rotate and store heads. Local layers lie in blocks of their own, see KvPool.
struct HeadRows final : Op {
  Buffer q, k, v;
  const RopeTable* rope;
  const float* q_norm;
  const float* k_norm;
  float norm_eps, scale;
  int num_heads, num_kv_heads, head_dim;
  KvLayer kv, exact;  // data of `exact` null: the format keeps no float16 copies
  bool is_local, exact_is_local;
  const char* name() const override { return "heads"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
  bool is_row_wise() const override { return true; }
  void run_rows(const Step& step, int begin, int end) const override;
  // One row's heads that share a kv head.
  void run_head(const Step& step, int row, int kv_head) const;

 private:
  HeadsCall heads_call() const;
};

struct AttendRows final : Op {
  Buffer q, out;
  KvLayer kv, exact;
  bool is_local, exact_is_local;
  int num_heads, window;
  const std::vector<AttentionTile>* tiles;
  const char* name() const override { return "attention"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
  void run_tile(const Step& step, const AttentionTile& tile, float* scratch) const;
};

// Adds the attention of the step's observed rows to `Step::observed`; runs after the attention of its layer.
struct ObserveRows final : Op {
  Buffer q;
  KvLayer kv;
  int num_heads;
  const char* name() const override { return "observe"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
};

struct GateRows final : Op {
  Buffer gate, up, out, quantized;
  Activation activation;
  bool is_only_reader;  // of gate and up
  const char* name() const override { return "gated"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
  bool is_row_wise() const override { return !gate.selected; }
  void run_rows(const Step& step, int begin, int end) const override;
  // Rows and columns of them from pieces of kPairColumns floats a row.
  void run_piece(const Step& step, const float* gates, const float* ups, int row, int num_rows, int column,
                 int num_columns) const;
  void run_columns(const Step& step, int row_begin, int row_end, int column_begin, int column_end) const;

 private:
  int columns_per_task(const Step& step) const;
};

struct AddRows final : Op {
  Buffer a, b, out;
  const char* name() const override { return "add"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
  bool is_row_wise() const override { return !a.selected; }
  void run_rows(const Step& step, int begin, int end) const override;
};

struct PickRows final : Op {
  Buffer x, out;
  const char* name() const override { return "pick"; }
  int num_tasks(const Step& step) const override;
  void run(const Step& step, int task, float* scratch) const override;
};

}  // namespace vivace
