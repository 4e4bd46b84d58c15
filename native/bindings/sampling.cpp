// Program.draw: tokens from rows of logits, with the GIL dropped and the rows shared among the program's threads.
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <stdexcept>

#include "bindings/builder.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace vivace {

namespace {

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using Numbers = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The order of types/drawing.py.
DrawSettings settings_of(const Numbers& numbers) {
  if (numbers.shape(0) != 12) throw std::invalid_argument("the numbers of a row to draw from are 12");
  const double* n = numbers.data();
  const uint64_t seed = (static_cast<uint64_t>(n[9]) << 32) | static_cast<uint64_t>(n[10]);
  return {n[0],
          n[1],
          n[2],
          n[3],
          n[4],
          n[5],
          static_cast<int>(n[6]),
          static_cast<int>(n[7]),
          static_cast<uint64_t>(n[8]),
          seed,
          n[11] != 0.0};
}

void check_ids(const Ids& ids, int vocab_size, const char* what) {
  for (size_t i = 0; i < ids.shape(0); ++i)
    if (ids.data()[i] < 0 || ids.data()[i] >= vocab_size) throw std::invalid_argument(what);
}

void draw_all(Builder& self, int vocab_size, const std::vector<DrawRow>& rows, std::vector<int>& tokens) {
  ThreadPool& pool = self.program.pool();
  if (self.drawers.empty())
    for (int i = 0; i < pool.num_threads(); ++i) self.drawers.emplace_back(self.program.kernels(), vocab_size);
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

std::vector<int> draw(Builder& self, const Logits& logits, const std::vector<Numbers>& numbers,
                      const std::vector<Ids>& histories, const std::vector<Ids>& bias_ids,
                      const std::vector<Values>& bias_values) {
  const size_t count = logits.shape(0);
  const int vocab_size = static_cast<int>(logits.shape(1));
  if (vocab_size != self.program.output().width || (count > 0 && logits.stride(1) != 1))
    throw std::invalid_argument("the logits are not of this program");
  if (numbers.size() != count || histories.size() != count || bias_ids.size() != count || bias_values.size() != count)
    throw std::invalid_argument("each row of logits takes numbers, a history and biases");
  std::vector<DrawSettings> settings;
  std::vector<DrawRow> rows;
  for (size_t i = 0; i < count; ++i) {
    settings.push_back(settings_of(numbers[i]));
    if (bias_ids[i].shape(0) != bias_values[i].shape(0)) throw std::invalid_argument("a bias takes an id and a value");
    check_ids(bias_ids[i], vocab_size, "a bias is outside the vocabulary");
    if (settings.back().adjusted()) check_ids(histories[i], vocab_size, "a token is outside the vocabulary");
  }
  for (size_t i = 0; i < count; ++i)
    rows.push_back({logits.data() + i * logits.stride(0), &settings[i], histories[i].data(),
                    static_cast<int>(histories[i].shape(0)), bias_ids[i].data(), bias_values[i].data(),
                    static_cast<int>(bias_ids[i].shape(0))});
  std::vector<int> tokens(count, kNoToken);
  nb::gil_scoped_release release;
  draw_all(self, vocab_size, rows, tokens);
  return tokens;
}

}  // namespace

void bind_sampling(nb::class_<Builder>& program) {
  program.def("draw", &draw, "logits"_a, "numbers"_a, "histories"_a, "bias_ids"_a, "bias_values"_a);
}

}  // namespace vivace
