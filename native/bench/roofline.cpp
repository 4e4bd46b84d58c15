#include "bench/roofline.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/table.h"
#include "runtime/memory.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace vivace {

namespace {

using Clock = std::chrono::steady_clock;

// Where results go, so that no loop can be dropped.
volatile float float_sink;
volatile uint64_t integer_sink;

constexpr int kChains = 16;       // independent sums: more than latency times issue width of any machine we know
constexpr int kFewerChains = 12;  // in the sixteen registers of AVX2
constexpr int kLoops = 4000000;
constexpr size_t kBytesAtLeast = size_t{256} << 20;  // read a thread and measurement

// Runs job(thread) on every thread at the same moment; returns seconds from the first start to the last end.
double run_together(int num_threads, const std::function<void(int)>& job) {
  std::vector<Clock::time_point> starts(num_threads), ends(num_threads);
  std::barrier gate(num_threads);
  const auto work = [&](int thread) {
    gate.arrive_and_wait();
    starts[thread] = Clock::now();
    job(thread);
    ends[thread] = Clock::now();
  };
  std::vector<std::thread> threads;
  for (int thread = 1; thread < num_threads; ++thread) threads.emplace_back(work, thread);
  work(0);
  for (std::thread& thread : threads) thread.join();
  const auto first = *std::min_element(starts.begin(), starts.end());
  const auto last = *std::max_element(ends.begin(), ends.end());
  return std::chrono::duration<double>(last - first).count();
}

double best_rate(double amount, int num_threads, int repeats, const std::function<void(int)>& job) {
  double best = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) best = std::max(best, amount / run_together(num_threads, job));
  return best;
}

void read_plain(const uint8_t* data, size_t bytes) {
  uint64_t sums[8] = {};
  for (size_t at = 0; at + 64 <= bytes; at += 64) {
    uint64_t words[8];
    std::memcpy(words, data + at, 64);
    for (int i = 0; i < 8; ++i) sums[i] ^= words[i];
  }
  for (const uint64_t sum : sums) integer_sink = sum;
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) void read_avx2(const uint8_t* data, size_t bytes) {
  __m256i sums[8] = {};
  for (size_t at = 0; at + 256 <= bytes; at += 256)
    for (int i = 0; i < 8; ++i)
      sums[i] = _mm256_xor_si256(sums[i], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + at) + i));
  for (const __m256i sum : sums) integer_sink = _mm256_extract_epi64(sum, 0);
}

// Every chain below starts from a value of its own that the compiler cannot know: of equal chains it would keep one.

__attribute__((target("avx512f,avx512vnni"))) void int8_avx512(int loops) {
  __m512i sums[kChains];
  for (__m512i& sum : sums) sum = _mm512_set1_epi32(static_cast<int>(integer_sink));
  const __m512i a = _mm512_set1_epi32(static_cast<int>(integer_sink)), b = _mm512_set1_epi32(loops);
  for (int loop = 0; loop < loops; ++loop)
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
  for (const __m512i& sum : sums) integer_sink = _mm512_cvtsi512_si32(sum);
}

__attribute__((target("avx512f,avx512bf16"))) void bf16_avx512(int loops) {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_set1_ps(float_sink);
  const __m512i bits = _mm512_set1_epi32(loops);
  __m512bh a;
  std::memcpy(&a, &bits, sizeof(a));
  for (int loop = 0; loop < loops; ++loop)
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
  for (const __m512& sum : sums) float_sink = _mm512_cvtss_f32(sum);
}

__attribute__((target("avx512f"))) void f32_avx512(int loops) {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_set1_ps(float_sink);
  const __m512 a = _mm512_set1_ps(float_sink), b = _mm512_set1_ps(static_cast<float>(loops));
  for (int loop = 0; loop < loops; ++loop)
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, a, b);
  for (const __m512& sum : sums) float_sink = _mm512_cvtss_f32(sum);
}

// Without VNNI a dot product of bytes is three instructions; all three belong to the peak of the table. The sum itself
// is the one factor, so that no product can be taken out of the loop.
__attribute__((target("avx2"))) void int8_avx2(int loops) {
  __m256i sums[kFewerChains];
  for (__m256i& sum : sums) sum = _mm256_set1_epi32(static_cast<int>(integer_sink));
  const __m256i ones = _mm256_set1_epi16(1), b = _mm256_set1_epi32(loops);
  for (int loop = 0; loop < loops; ++loop)
    for (__m256i& sum : sums) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(sum, b), ones));
  for (const __m256i& sum : sums) integer_sink = _mm256_extract_epi64(sum, 0);
}

__attribute__((target("avx2,fma"))) void f32_avx2(int loops) {
  __m256 sums[kFewerChains];
  for (__m256& sum : sums) sum = _mm256_set1_ps(float_sink);
  const __m256 a = _mm256_set1_ps(float_sink), b = _mm256_set1_ps(static_cast<float>(loops));
  for (int loop = 0; loop < loops; ++loop)
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, a, b);
  for (const __m256& sum : sums) float_sink = _mm256_cvtss_f32(sum);
}

#elif defined(__aarch64__)

__attribute__((target("arch=armv8.2-a+dotprod"))) void int8_neon(int loops) {
  int32x4_t sums[kChains];
  for (int32x4_t& sum : sums) sum = vdupq_n_s32(static_cast<int>(integer_sink));
  const int8x16_t a = vdupq_n_s8(static_cast<int8_t>(integer_sink)), b = vdupq_n_s8(static_cast<int8_t>(loops));
  for (int loop = 0; loop < loops; ++loop)
    for (int32x4_t& sum : sums) sum = vdotq_s32(sum, a, b);
  for (const int32x4_t& sum : sums) integer_sink = vaddvq_s32(sum);
}

void f32_neon(int loops) {
  float32x4_t sums[kChains];
  for (float32x4_t& sum : sums) sum = vdupq_n_f32(float_sink);
  const float32x4_t a = vdupq_n_f32(float_sink), b = vdupq_n_f32(static_cast<float>(loops));
  for (int loop = 0; loop < loops; ++loop)
    for (float32x4_t& sum : sums) sum = vfmaq_f32(b, sum, a);
  for (const float32x4_t& sum : sums) float_sink = vaddvq_f32(sum);
}

#endif

// One row: the instruction a table uses for a kind of number, a loop of it, and operations a turn of the loop.
struct Peak {
  const char* table;
  const char* kind;
  void (*run)(int loops);
  double operations_a_loop;
  bool (*runs_here)();
};

bool always() { return true; }

#if defined(__x86_64__)
bool has_bf16() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
}
#endif

const Peak kPeaks[] = {
#if defined(__x86_64__)
    {"avx512", "int8", int8_avx512, 128.0 * kChains, always},
    {"avx512", "bf16", bf16_avx512, 64.0 * kChains, has_bf16},
    {"avx512", "f32", f32_avx512, 32.0 * kChains, always},
    {"avx512bf16", "int8", int8_avx512, 128.0 * kChains, always},
    {"avx512bf16", "bf16", bf16_avx512, 64.0 * kChains, has_bf16},
    {"avx512bf16", "f32", f32_avx512, 32.0 * kChains, always},
    {"avx2", "int8", int8_avx2, 64.0 * kFewerChains, always},
    {"avx2", "f32", f32_avx2, 16.0 * kFewerChains, always},
#elif defined(__aarch64__)
    {"neon", "int8", int8_neon, 32.0 * kChains, always},
    {"neon", "f32", f32_neon, 8.0 * kChains, always},
#endif
    {"", "", nullptr, 0, always},
};

}  // namespace

double measure_read_bandwidth(size_t num_bytes, int num_threads, int repeats) {
  void (*read)(const uint8_t*, size_t) = read_plain;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) read = read_avx2;
#endif
  const size_t part = std::max<size_t>(num_bytes / num_threads, 4096) / 256 * 256;
  Memory memory(part * num_threads, true);
  run_together(num_threads, [&](int thread) { std::memset(memory.data() + thread * part, thread + 1, part); });
  const size_t passes = std::max<size_t>(1, kBytesAtLeast / part);
  const double amount = static_cast<double>(part) * passes * num_threads;
  return best_rate(amount, num_threads, repeats, [&](int thread) {
    for (size_t pass = 0; pass < passes; ++pass) read(memory.data() + thread * part, part);
  });
}

double measure_peak(const std::string& table, const std::string& kind, int num_threads, int repeats) {
  const auto& tables = available_tables();
  const bool runs =
      std::any_of(tables.begin(), tables.end(), [&](const KernelTable* one) { return table == one->name; });
  for (const Peak& peak : kPeaks) {
    if (!runs || table != peak.table || kind != peak.kind || !peak.runs_here()) continue;
    const double amount = peak.operations_a_loop * kLoops * num_threads;
    return best_rate(amount, num_threads, repeats, [&](int) { peak.run(kLoops); });
  }
  return 0;
}

}  // namespace vivace
