// What rows of logits are drawn with, as Python hands it over, one entry of each list a row.
#pragma once

#include <nanobind/ndarray.h>

#include <stdexcept>
#include <vector>

#include "sample/draw.h"

namespace vivace {

using Numbers = nanobind::ndarray<const double, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Ids = nanobind::ndarray<const int32_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Values = nanobind::ndarray<const float, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

// The order of types/drawing.py.
inline DrawSettings settings_of(const Numbers& numbers) {
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

inline void check_ids(const Ids& ids, int vocab_size, const char* what) {
  for (size_t i = 0; i < ids.shape(0); ++i)
    if (ids.data()[i] < 0 || ids.data()[i] >= vocab_size) throw std::invalid_argument(what);
}

struct DrawArrays {
  const std::vector<Numbers>& numbers;
  const std::vector<Ids>& histories;
  const std::vector<Ids>& bias_ids;
  const std::vector<Values>& bias_values;
  std::vector<DrawSettings> settings = {};

  // The rows of `count` rows of logits, checked; they point into this and into the arrays.
  std::vector<DrawRow> rows(const float* logits, size_t count, int64_t stride, int vocab_size) {
    if (numbers.size() != count || histories.size() != count || bias_ids.size() != count || bias_values.size() != count)
      throw std::invalid_argument("each row of logits takes numbers, a history and biases");
    for (size_t i = 0; i < count; ++i) {
      settings.push_back(settings_of(numbers[i]));
      if (bias_ids[i].shape(0) != bias_values[i].shape(0))
        throw std::invalid_argument("a bias takes an id and a value");
      check_ids(bias_ids[i], vocab_size, "a bias is outside the vocabulary");
      if (settings.back().adjusted()) check_ids(histories[i], vocab_size, "a token is outside the vocabulary");
    }
    std::vector<DrawRow> rows;
    for (size_t i = 0; i < count; ++i)
      rows.push_back({logits + static_cast<int64_t>(i) * stride, &settings[i], histories[i].data(),
                      static_cast<int>(histories[i].shape(0)), bias_ids[i].data(), bias_values[i].data(),
                      static_cast<int>(bias_ids[i].shape(0))});
    return rows;
  }
};

}  // namespace vivace
