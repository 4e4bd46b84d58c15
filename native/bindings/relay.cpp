// Program.prepare and Program.relay: one step after another without Python in between. While a step computes, the next
// one is prepared but for its tokens; what the step draws goes straight into it.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "bindings/builder.h"
#include "bindings/draw_arrays.h"
#include "bindings/step_arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace vivace {

// A step of one row a sequence, whose tokens are still to be drawn.
struct NextStep {
  StepArrays arrays;
  std::vector<int32_t> tokens;

  BatchView view() const {
    BatchView batch = arrays.view();
    batch.token_ids = tokens.data();
    return batch;
  }
};

namespace {

// Keeps the arrays alive until another step is prepared after the one they are for. Lets go of an earlier hold.
void prepare(Builder& self, IntVector positions, IntVector sequence_starts, IntTable block_tables, IntVector logit_rows,
             std::optional<IntVector> window_starts, std::optional<IntVector> sink_ends, std::optional<IntVector> slots,
             std::optional<IntTable> local_tables, std::optional<LevelVector> row_levels) {
  auto next = std::make_shared<NextStep>(
      NextStep{StepArrays{positions, positions, sequence_starts, block_tables, logit_rows, window_starts, sink_ends,
                          slots, local_tables, std::nullopt, row_levels},
               std::vector<int32_t>(positions.shape(0), 0)});
  const BatchView batch = next->view();
  if (batch.num_rows != batch.num_sequences || batch.num_selected != batch.num_rows)
    throw std::invalid_argument("a step that is prepared has one row a sequence and wants the logits of all");
  self.program.check(batch);
  self.is_held.store(false, std::memory_order_relaxed);
  self.next = std::move(next);
}

bool has(const Ids& ids, int token) {
  const int32_t* end = ids.data() + ids.shape(0);
  return std::find(ids.data(), end, token) != end;
}

// Whether what was drawn is all that the prepared step waits for.
bool may_go_on(const Builder& self, const std::vector<int>& tokens, const std::vector<Ids>& stops) {
  if (self.is_held.load(std::memory_order_acquire)) return false;
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] == kNoToken || has(stops[i], tokens[i])) return false;
  return true;
}

// Finishes the step under way, draws a token from each of its rows and starts the prepared step with them, unless one
// of them ends its sequence or somebody holds it back. Tokens, and whether the prepared step is under way.
std::pair<std::vector<int>, bool> relay(Builder& self, const std::vector<Numbers>& numbers,
                                        const std::vector<Ids>& histories, const std::vector<Ids>& bias_ids,
                                        const std::vector<Values>& bias_values, const std::vector<Ids>& stops) {
  if (!self.next) throw std::invalid_argument("no step was prepared");
  const size_t count = self.next->tokens.size();
  if (stops.size() != count || static_cast<size_t>(self.program.num_selected()) != count)
    throw std::invalid_argument("the prepared step has other sequences than the one under way");
  const Buffer& output = self.program.output();
  DrawArrays arrays{numbers, histories, bias_ids, bias_values};
  const std::vector<DrawRow> rows =
      arrays.rows(output.floats(), count, static_cast<int64_t>(output.stride()), output.width);
  std::vector<int> tokens(count, kNoToken);
  bool goes_on = false;
  {
    nb::gil_scoped_release release;
    self.program.finish();
    draw_all(self, rows, tokens);
    goes_on = may_go_on(self, tokens, stops);
    if (goes_on) {
      std::copy(tokens.begin(), tokens.end(), self.next->tokens.begin());
      self.program.start(self.next->view());
    }
  }
  if (goes_on) self.current = std::move(self.next);
  self.next = nullptr;
  return {tokens, goes_on};
}

}  // namespace

void bind_relay(nb::class_<Builder>& program) {
  program
      .def("prepare", &prepare, "positions"_a, "sequence_starts"_a, "block_tables"_a, "logit_rows"_a,
           "window_starts"_a.none() = nb::none(), "sink_ends"_a.none() = nb::none(), "slots"_a.none() = nb::none(),
           "local_tables"_a.none() = nb::none(), "row_levels"_a.none() = nb::none())
      .def("relay", &relay, "numbers"_a, "histories"_a, "bias_ids"_a, "bias_values"_a, "stops"_a)
      .def("hold", [](Builder& self) { self.is_held.store(true, std::memory_order_release); });
}

}  // namespace vivace
