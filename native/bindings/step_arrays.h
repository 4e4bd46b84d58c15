// The arrays of a step as Python hands them over, and what the program sees of them.
#pragma once

#include <nanobind/ndarray.h>

#include <optional>
#include <stdexcept>

#include "program/program.h"

namespace vivace {

using IntVector = nanobind::ndarray<const int32_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using IntTable = nanobind::ndarray<const int32_t, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;
using LevelVector = nanobind::ndarray<const int8_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

template <class Array>
inline int length(const Array& array) {
  return static_cast<int>(array.shape(0));
}

// The arrays of a step. Those that are optional come as in types/step.py.
struct StepArrays {
  IntVector token_ids, positions, sequence_starts;
  IntTable block_tables;
  IntVector logit_rows;
  std::optional<IntVector> window_starts, sink_ends, slots;
  std::optional<IntTable> local_tables;
  std::optional<IntVector> observe_rows;
  std::optional<LevelVector> row_levels;

  BatchView view() const {
    BatchView batch{
        token_ids.data(),  positions.data(),  sequence_starts.data(),      block_tables.data(),
        logit_rows.data(), length(token_ids), length(sequence_starts) - 1, static_cast<int>(block_tables.shape(1)),
        length(logit_rows)};
    if (length(positions) != batch.num_rows || length(block_tables) != batch.num_sequences || batch.num_sequences < 1)
      throw std::invalid_argument("the arrays of the batch do not fit together");
    add_optional(batch);
    return batch;
  }

  void add_optional(BatchView& batch) const {
    if (window_starts.has_value() != sink_ends.has_value())
      throw std::invalid_argument("window_starts and sink_ends come together");
    if (window_starts) {
      if (length(*window_starts) != batch.num_rows || length(*sink_ends) != batch.num_rows)
        throw std::invalid_argument("window_starts and sink_ends must have one entry a row");
      batch.window_starts = window_starts->data();
      batch.sink_ends = sink_ends->data();
    }
    if ((slots && length(*slots) != batch.num_rows) || (local_tables && length(*local_tables) != batch.num_sequences))
      throw std::invalid_argument("there must be a slot for every row and a local table for every sequence");
    if (slots) batch.slots = slots->data();
    if (local_tables) {
      batch.local_tables = local_tables->data();
      batch.max_local_blocks = static_cast<int>(local_tables->shape(1));
    }
    if (observe_rows) {
      batch.observe_rows = observe_rows->data();
      batch.num_observed = length(*observe_rows);
    }
    if (row_levels) {
      if (length(*row_levels) != batch.num_rows) throw std::invalid_argument("row_levels must have one entry a row");
      batch.row_levels = row_levels->data();
    }
  }
};

}  // namespace vivace
