// Program.draw: tokens from rows of logits, with the GIL dropped and the rows shared among the program's threads.
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <stdexcept>

#include "bindings/builder.h"
#include "bindings/draw_arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace vivace {

void draw_all(Builder& self, const std::vector<DrawRow>& rows, std::vector<int>& tokens) {
  ThreadPool& pool = self.program.pool();
  if (self.drawers.empty())
    for (int i = 0; i < pool.num_threads(); ++i)
      self.drawers.emplace_back(self.program.kernels(), self.program.output().width);
  std::atomic<size_t> next{0};
  auto job = [&](int thread) {
    for (size_t i; (i = next.fetch_add(1)) < rows.size();) tokens[i] = self.drawers[thread].draw(rows[i]);
  };
  if (rows.size() == 1) {
    job(0);
  } else {
    pool.run(job);
  }
}

namespace {

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;

std::vector<int> draw(Builder& self, const Logits& logits, const std::vector<Numbers>& numbers,
                      const std::vector<Ids>& histories, const std::vector<Ids>& bias_ids,
                      const std::vector<Values>& bias_values) {
  const size_t count = logits.shape(0);
  const int vocab_size = static_cast<int>(logits.shape(1));
  if (vocab_size != self.program.output().width || (count > 0 && logits.stride(1) != 1))
    throw std::invalid_argument("the logits are not of this program");
  DrawArrays arrays{numbers, histories, bias_ids, bias_values};
  const std::vector<DrawRow> rows = arrays.rows(logits.data(), count, logits.stride(0), vocab_size);
  std::vector<int> tokens(count, kNoToken);
  nb::gil_scoped_release release;
  draw_all(self, rows, tokens);
  return tokens;
}

}  // namespace

void bind_sampling(nb::class_<Builder>& program) {
  program.def("draw", &draw, "logits"_a, "numbers"_a, "histories"_a, "bias_ids"_a, "bias_values"_a);
}

}  // namespace vivace
