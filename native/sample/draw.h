// One row of logits to one token: penalties, temperature, top-k, top-p, min-p and the draw. The twin of vivace.sample:
// the same order of filters, the same ties, the same random numbers; weights may differ in the last bit.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.h"

namespace vivace {

// What stays fixed over an answer.
struct DrawSettings {
  double temperature, top_p, min_p;
  double repetition_penalty, presence_penalty, frequency_penalty;
  int top_k;
  int num_prompt;
  uint64_t choice, seed;
  bool greedy;
  bool adjusted() const { return repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0; }
};

struct DrawRow {
  const float* logits;
  const DrawSettings* settings;
  const int32_t* tokens;  // all known tokens; the new one gets position num_tokens
  int num_tokens;
  const int32_t* bias_ids;
  const float* bias_values;
  int num_biases;
};

constexpr int kNoToken = -1;

// A number in [0, 1) with 53 random bits, a pure function of its arguments; vivace.sample.randomness says how.
double uniform_number(uint64_t seed, uint64_t choice, uint64_t position);

// Draws from rows of one vocabulary. Holds scratch memory: one for each thread.
class RowDrawer {
 public:
  RowDrawer(const KernelTable& kernels, int vocab_size);
  // The token, or kNoToken for a row with a NaN, a +inf, or nothing above -inf.
  int draw(const DrawRow& row);

 private:
  struct Candidate {
    float logit;
    int32_t id;
    double weight;
  };

  void adjust(const DrawRow& row);
  int first_of(float value) const;
  void collect_top(size_t count);
  int draw_top_k(const DrawSettings& settings, double number);
  int draw_nucleus(const DrawSettings& settings, double number);
  void keep_nucleus(double mass);
  int draw_candidates(const DrawSettings& settings, double total, double number) const;
  int draw_above(double min_weight, double number);
  int locate(double number) const;
  double weight_of(float logit, const DrawSettings& settings) const;

  const KernelTable& kernels_;
  const int vocab_size_, num_segments_;
  const float* row_ = nullptr;
  float largest_ = 0.0f;
  std::vector<float> peaks_, order_, weights_, sums_, adjusted_;
  std::vector<int32_t> counts_;
  std::vector<Candidate> candidates_;
};

}  // namespace vivace
