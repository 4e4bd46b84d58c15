// The logits kernels of every table against plain arithmetic, and draws whose answer is known.
#include <algorithm>
#include <cmath>

#include "kernels/table.h"
#include "sample/draw.h"
#include "tests/check.h"

using namespace vivace;
using namespace vivace::test;

namespace {

constexpr int kSizes[] = {1, 15, 64, 65, 1003};

void test_peaks(const KernelTable& table, Random& random) {
  for (int size : kSizes) {
    std::vector<float> row = random.normals(size);
    std::vector<float> peaks(size / kLogitSegment + 1);
    check(table.scan_logits(row.data(), size, peaks.data()), "a finite row is sound", table.name);
    for (int begin = 0; begin < size; begin += kLogitSegment) {
      const float peak = *std::max_element(&row[begin], &row[0] + std::min(begin + kLogitSegment, size));
      check(peaks[begin / kLogitSegment] == peak, "the peak of a segment", table.name);
    }
    row[size - 1] = -INFINITY;
    check(table.scan_logits(row.data(), size, peaks.data()), "-inf is sound", table.name);
    for (float bad : {NAN, INFINITY}) {
      row[size / 2] = bad;
      check(!table.scan_logits(row.data(), size, peaks.data()), "NaN and +inf are told", table.name);
    }
  }
}

void test_weights(const KernelTable& table, Random& random) {
  for (int size : kSizes) {
    std::vector<float> row = random.normals(size, 5.0f);
    row[0] = size > 1 ? -INFINITY : row[0];
    const float largest = *std::max_element(row.begin(), row.end());
    std::vector<float> weights(size + 64), sums(size / kLogitSegment + 1);
    table.weigh_logits(row.data(), size, largest, 0.8f, weights.data(), sums.data());
    double total = 0.0, summed = 0.0;
    for (int i = 0; i < size; ++i) {
      const double expected = std::exp((static_cast<double>(row[i]) - largest) * 0.8);
      check(near(weights[i], expected, 1e-6), "the weight of a logit", table.name);
      total += expected;
    }
    check(size == 1 || weights[0] == 0.0f, "-inf weighs nothing", table.name);
    for (int i = 0; i * kLogitSegment < size; ++i) summed += sums[i];
    check(near(summed, total, 1e-4 * total), "the sums of the segments", table.name);
  }
}

void test_draws(const KernelTable& table, Random& random) {
  constexpr int kVocab = 1003;
  RowDrawer drawer(table, kVocab);
  std::vector<float> row = random.normals(kVocab);
  row[700] = 50.0f;
  const DrawSettings kinds[] = {{0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0, 0, 0, 1, true},
                                {1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0, 0, 0, 1, false},
                                {1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 40, 0, 0, 1, false},
                                {1.0, 0.9, 0.0, 1.0, 0.0, 0.0, 0, 0, 0, 1, false},
                                {1.0, 1.0, 0.1, 1.0, 0.0, 0.0, 0, 0, 0, 1, false}};
  for (const DrawSettings& settings : kinds) {
    check(drawer.draw({row.data(), &settings, nullptr, 0, nullptr, nullptr, 0}) == 700, "a sure token", table.name);
    const int32_t id = 3;
    const float bias = 100.0f;
    check(drawer.draw({row.data(), &settings, nullptr, 0, &id, &bias, 1}) == 3, "a bias decides", table.name);
  }
}

}  // namespace

int main() {
  for (const KernelTable* table : available_tables()) {
    Random random(11);
    test_peaks(*table, random);
    test_weights(*table, random);
    test_draws(*table, random);
  }
  return report("draw");
}
