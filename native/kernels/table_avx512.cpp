// The kernel tables for AVX-512 with VNNI, without and with BF16. Only this region of this file is compiled for them;
// no flag of the build changes. BF16 is used by the kernels of the second table alone: no compiler reaches for it by
// itself.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/table.h"
#include "kernels/tables.h"
#include "vector/half.h"

#if defined(__clang__)
#pragma clang attribute push(                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
#endif

namespace vivace::avx512 {
// The order matters: later files use functions of earlier ones.
// clang-format off
#include "vector/avx512.inc"
#include "kernels/rows.inc"
#include "kernels/logits.inc"
#include "kernels/linear.inc"
#include "kernels/kv_codes.inc"
#include "kernels/heads.inc"
#include "kernels/attention_sight.inc"
#include "kernels/attention_codes.inc"
#include "kernels/attention_pairs.inc"
#include "kernels/attention.inc"
#include "kernels/observe.inc"
// clang-format on
}  // namespace vivace::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace vivace {
namespace {

// Dots: how pairs of bfloat16 numbers are multiplied.
template <class Dots>
constexpr KernelTable make_table(const char* name) {
  return {name,
          avx512::linear<Dots>,
          avx512::quantize,
          avx512::rms_norm,
          avx512::gated,
          avx512::prepare_heads,
          avx512::store_kv,
          avx512::attention<Dots>,
          avx512::observe,
          avx512::add_arrays,
          avx512::scan_logits,
          avx512::weigh_logits,
          avx512::pack_turned};
}

}  // namespace

const KernelTable kAvx512Table = make_table<avx512::FusedPairs>("avx512");
const KernelTable kAvx512Bf16Table = make_table<avx512::DotPairs>("avx512bf16");
}  // namespace vivace
#endif
