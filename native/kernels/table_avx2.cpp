// The kernel table for AVX2 with FMA and F16C. Only this region of this file is compiled for it; no flag of the build
// changes.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/table.h"
#include "kernels/tables.h"
#include "vector/half.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace vivace::avx2 {
// The order matters: later files use functions of earlier ones.
// clang-format off
#include "vector/avx2.inc"
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
}  // namespace vivace::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace vivace {
const KernelTable kAvx2Table = {"avx2",
                                avx2::linear<avx2::FusedPairs>,
                                avx2::quantize,
                                avx2::rms_norm,
                                avx2::gated,
                                avx2::prepare_heads,
                                avx2::store_kv,
                                avx2::attention<avx2::FusedPairs>,
                                avx2::observe,
                                avx2::add_arrays,
                                avx2::scan_logits,
                                avx2::weigh_logits,
                                avx2::pack_turned};
}  // namespace vivace
#endif
