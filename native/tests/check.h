// The little a kernel test needs: checks that count failures, a seeded generator, and nearness.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

namespace vivace::test {

inline int failures = 0;
inline int checks = 0;

inline void check(bool ok, const char* what, const char* table) {
  ++checks;
  if (ok) return;
  ++failures;
  std::printf("FAILED [%s] %s\n", table, what);
}

inline int report(const char* name) {
  std::printf("%s: %d checks, %d failed\n", name, checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float normal() { return normal_(engine_); }
  uint8_t byte() { return static_cast<uint8_t>(engine_() & 255u); }
  std::vector<float> normals(size_t count, float scale = 1.0f) {
    std::vector<float> values(count);
    for (float& value : values) value = scale * normal();
    return values;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

inline bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance; }

}  // namespace vivace::test
