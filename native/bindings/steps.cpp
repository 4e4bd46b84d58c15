// Program.forward, or start and finish: a step of the program with the GIL dropped while threads compute.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <utility>

#include "bindings/builder.h"
#include "bindings/step_arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace vivace {

namespace {

using FloatTable = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

// Whoever called keeps the arrays alive and as they are until `finish`.
void start(Builder& self, IntVector token_ids, IntVector positions, IntVector sequence_starts, IntTable block_tables,
           IntVector logit_rows, std::optional<IntVector> window_starts, std::optional<IntVector> sink_ends,
           std::optional<IntVector> slots, std::optional<IntTable> local_tables, std::optional<IntVector> observe_rows,
           std::optional<LevelVector> row_levels) {
  const StepArrays arrays{token_ids, positions, sequence_starts, block_tables, logit_rows, window_starts,
                          sink_ends, slots,     local_tables,    observe_rows, row_levels};
  self.program.start(arrays.view());
}

FloatTable logits(Builder& self) {
  const Buffer& output = self.program.output();
  return FloatTable(output.floats(),
                    {static_cast<size_t>(self.program.num_selected()), static_cast<size_t>(output.width)},
                    nb::find(self), {static_cast<int64_t>(output.stride()), 1});
}

FloatTable finish(Builder& self) {
  {
    nb::gil_scoped_release release;
    self.program.finish();
  }
  return logits(self);
}

// float32 (observed rows of the last call, blocks of its tables), a fresh array.
nb::ndarray<nb::numpy, float, nb::ndim<2>> observed(const Builder& self) {
  const size_t rows = self.program.num_observed(), blocks = self.program.max_blocks();
  auto* masses = new std::vector<float>(rows * blocks);
  for (size_t row = 0; row < rows; ++row) self.program.observed(static_cast<int>(row), masses->data() + row * blocks);
  nb::capsule owner(masses, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return {masses->data(), {rows, blocks}, owner};
}

// Kind and seconds of each op since `time_ops`.
std::vector<std::pair<std::string, double>> op_seconds(const Builder& self) {
  std::vector<std::pair<std::string, double>> told;
  const std::vector<double> seconds = self.program.op_seconds();
  for (size_t i = 0; i < seconds.size(); ++i) told.emplace_back(self.program.ops()[i]->name(), seconds[i]);
  return told;
}

}  // namespace

void bind_steps(nb::class_<Builder>& program) {
  program
      .def("start", &start, "token_ids"_a, "positions"_a, "sequence_starts"_a, "block_tables"_a, "logit_rows"_a,
           "window_starts"_a.none() = nb::none(), "sink_ends"_a.none() = nb::none(), "slots"_a.none() = nb::none(),
           "local_tables"_a.none() = nb::none(), "observe_rows"_a.none() = nb::none(),
           "row_levels"_a.none() = nb::none())
      .def("finish", &finish)
      .def("logits", &logits)
      .def("observed", &observed)
      .def("time_ops", [](Builder& self) { self.program.time_ops(); })
      .def("op_seconds", &op_seconds);
}

}  // namespace vivace
