#include "sample/draw.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace vivace {

namespace {

constexpr size_t kNucleusTries[] = {128, 2048};  // likeliest tokens to look for the nucleus in, as vivace.sample does

uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
  return value ^ (value >> 31);
}

}  // namespace

double uniform_number(uint64_t seed, uint64_t choice, uint64_t position) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;
  uint64_t state = mix(seed + kGolden);
  state = mix(state ^ mix((choice + 1) * kGolden));
  return static_cast<double>(mix(state + (position + 1) * kGolden) >> 11) * 0x1p-53;
}

RowDrawer::RowDrawer(const KernelTable& kernels, int vocab_size)
    : kernels_(kernels),
      vocab_size_(vocab_size),
      num_segments_((vocab_size + kLogitSegment - 1) / kLogitSegment),
      peaks_(num_segments_),
      sums_(num_segments_) {}

int RowDrawer::draw(const DrawRow& row) {
  const DrawSettings& settings = *row.settings;
  row_ = row.logits;
  if (!kernels_.scan_logits(row_, vocab_size_, peaks_.data())) return kNoToken;
  if (settings.adjusted() || row.num_biases > 0) {
    adjust(row);
    kernels_.scan_logits(row_, vocab_size_, peaks_.data());
  }
  largest_ = *std::max_element(peaks_.begin(), peaks_.end());
  if (!std::isfinite(largest_)) return kNoToken;
  if (settings.greedy) return first_of(largest_);
  const double number = uniform_number(settings.seed, settings.choice, row.num_tokens);
  if (settings.top_k > 0 && settings.top_k < vocab_size_) return draw_top_k(settings, number);
  weights_.resize(static_cast<size_t>(num_segments_) * kLogitSegment);
  kernels_.weigh_logits(row_, vocab_size_, largest_, static_cast<float>(1.0 / settings.temperature), weights_.data(),
                        sums_.data());
  if (settings.top_p < 1.0) return draw_nucleus(settings, number);
  return settings.min_p > 0.0 ? draw_above(settings.min_p, number) : locate(number);
}

// Penalties and biases, see vivace.sample.penalties: each step in the precision that numpy does it in.
void RowDrawer::adjust(const DrawRow& row) {
  const DrawSettings& settings = *row.settings;
  adjusted_.assign(row.logits, row.logits + vocab_size_);
  counts_.resize(vocab_size_);
  if (settings.repetition_penalty != 1.0) {
    const float penalty = static_cast<float>(settings.repetition_penalty);
    for (int i = 0; i < row.num_tokens; ++i) {
      if (counts_[row.tokens[i]]++) continue;
      float& logit = adjusted_[row.tokens[i]];
      logit = logit > 0.0f ? logit / penalty : logit * penalty;
    }
    for (int i = 0; i < row.num_tokens; ++i) counts_[row.tokens[i]] = 0;
  }
  if (settings.presence_penalty != 0.0 || settings.frequency_penalty != 0.0) {
    for (int i = settings.num_prompt; i < row.num_tokens; ++i) ++counts_[row.tokens[i]];
    for (int i = settings.num_prompt; i < row.num_tokens; ++i) {
      int32_t& count = counts_[row.tokens[i]];
      if (count == 0) continue;
      adjusted_[row.tokens[i]] -= static_cast<float>(count * settings.frequency_penalty + settings.presence_penalty);
      count = 0;
    }
  }
  for (int i = 0; i < row.num_biases; ++i) adjusted_[row.bias_ids[i]] += row.bias_values[i];
  row_ = adjusted_.data();
}

int RowDrawer::first_of(float value) const {
  for (int segment = 0; segment < num_segments_; ++segment) {
    if (peaks_[segment] != value) continue;
    const int begin = segment * kLogitSegment, end = std::min(begin + kLogitSegment, vocab_size_);
    for (int i = begin; i < end; ++i)
      if (row_[i] == value) return i;
  }
  return kNoToken;
}

double RowDrawer::weight_of(float logit, const DrawSettings& settings) const {
  return std::exp((static_cast<double>(logit) - largest_) / settings.temperature);
}

// Fills candidates_ with the `count` largest entries in falling order, equal entries by lower id. The count-th largest
// peak of a segment is a floor that at least `count` entries reach, and few others do.
void RowDrawer::collect_top(size_t count) {
  count = std::min(count, static_cast<size_t>(vocab_size_));
  const bool by_peaks = count <= peaks_.size();
  const float* from = by_peaks ? peaks_.data() : row_;
  order_.assign(from, from + (by_peaks ? num_segments_ : vocab_size_));
  std::nth_element(order_.begin(), order_.begin() + (count - 1), order_.end(), std::greater<float>());
  const float floor = order_[count - 1];
  candidates_.clear();
  for (int segment = 0; segment < num_segments_; ++segment) {
    if (peaks_[segment] < floor) continue;
    const int begin = segment * kLogitSegment, end = std::min(begin + kLogitSegment, vocab_size_);
    for (int i = begin; i < end; ++i)
      if (row_[i] >= floor) candidates_.push_back({row_[i], i, 0.0});
  }
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  });
  candidates_.resize(count);
}

int RowDrawer::draw_top_k(const DrawSettings& settings, double number) {
  collect_top(settings.top_k);
  double total = 0.0;
  for (Candidate& candidate : candidates_) total += candidate.weight = weight_of(candidate.logit, settings);
  return draw_candidates(settings, total, number);
}

int RowDrawer::draw_nucleus(const DrawSettings& settings, double number) {
  double total = 0.0;
  for (float sum : sums_) total += sum;
  const double mass = settings.top_p * total;
  for (size_t count : kNucleusTries) {
    collect_top(count);
    double sum = 0.0;
    for (Candidate& candidate : candidates_) sum += candidate.weight = weights_[candidate.id];
    if (sum >= mass) return draw_candidates(settings, total, number);
  }
  keep_nucleus(mass);
  return draw_above(settings.min_p, number);
}

// Sets to 0 all but the largest weights that reach `mass` together, the first of equal ones. A selection like
// nth_element's that counts weight instead of places.
void RowDrawer::keep_nucleus(double mass) {
  order_.assign(weights_.begin(), weights_.begin() + vocab_size_);
  auto begin = order_.begin(), end = order_.end();
  double above = 0.0;  // weight of those that are surely larger than the threshold
  float threshold = 0.0f;
  int64_t num_equal = vocab_size_;
  while (begin != end) {
    const float pivot = *(begin + (end - begin) / 2);
    const auto larger = std::partition(begin, end, [pivot](float weight) { return weight > pivot; });
    const auto equal = std::partition(larger, end, [pivot](float weight) { return weight == pivot; });
    double sum = 0.0;
    for (auto it = begin; it != larger; ++it) sum += *it;
    if (above + sum >= mass) {
      end = larger;
      continue;
    }
    above += sum;
    const double equals = static_cast<double>(pivot) * (equal - larger);
    if (above + equals >= mass || equal == end) {
      threshold = pivot;
      if (pivot > 0.0f) num_equal = static_cast<int64_t>(std::ceil((mass - above) / pivot));
      break;
    }
    above += equals;
    begin = equal;
  }
  for (int i = 0; i < vocab_size_; ++i) {
    if (weights_[i] < threshold || (weights_[i] == threshold && num_equal-- <= 0)) weights_[i] = 0.0f;
  }
}

// From candidates in falling order, cut by top-p of `total` and by min-p of the largest weight, which is 1.
int RowDrawer::draw_candidates(const DrawSettings& settings, double total, double number) const {
  size_t count = 0;
  double kept = 0.0;
  for (; count < candidates_.size(); ++count) {
    if (settings.min_p > 0.0 && candidates_[count].weight < settings.min_p) break;
    if (settings.top_p < 1.0 && count > 0 && kept >= settings.top_p * total) break;
    kept += candidates_[count].weight;
  }
  const double target = number * kept;
  double sum = 0.0;
  size_t last = 0;  // the last that has a weight: for a target that was rounded up to the sum
  for (size_t i = 0; i < count; ++i) {
    if (candidates_[i].weight <= 0.0) continue;
    last = i;
    sum += candidates_[i].weight;
    if (sum > target) break;
  }
  return candidates_[last].id;
}

// From all tokens of at least `min_weight`, in the order of their ids.
int RowDrawer::draw_above(double min_weight, double number) {
  const float floor = static_cast<float>(std::max(min_weight, 1e-37));
  candidates_.clear();
  double total = 0.0;
  for (int segment = 0; segment < num_segments_; ++segment) {
    if (sums_[segment] < floor) continue;  // a sum is at least its largest part
    const int begin = segment * kLogitSegment, end = std::min(begin + kLogitSegment, vocab_size_);
    for (int i = begin; i < end; ++i) {
      if (weights_[i] < floor) continue;
      candidates_.push_back({row_[i], i, weights_[i]});
      total += weights_[i];
    }
  }
  double sum = 0.0;
  for (const Candidate& candidate : candidates_) {
    sum += candidate.weight;
    if (sum > number * total) return candidate.id;
  }
  return candidates_.back().id;
}

// The index whose interval of the cumulative sum holds `number` x the total; one of weight 0 never is.
int RowDrawer::locate(double number) const {
  double total = 0.0;
  for (float sum : sums_) total += sum;
  const double target = number * total;
  double passed = 0.0, before = 0.0;
  int segment = 0;
  for (int i = 0; i < num_segments_; ++i) {
    if (sums_[i] <= 0.0f) continue;
    segment = i;
    before = passed;
    passed += sums_[i];
    if (passed > target) break;
  }
  const int begin = segment * kLogitSegment, end = std::min(begin + kLogitSegment, vocab_size_);
  int last = begin;
  for (int i = begin; i < end; ++i) {
    if (weights_[i] <= 0.0f) continue;
    last = i;
    before += weights_[i];
    if (before > target) break;
  }
  return last;
}

}  // namespace vivace
