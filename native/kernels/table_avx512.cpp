// The kernel table for AVX-512 with VNNI. Only this region of this file is compiled for it; no flag of the build
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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
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
const KernelTable kAvx512Table = {"avx512",        avx512::linear,        avx512::quantize,    avx512::rms_norm,
                                  avx512::gated,   avx512::prepare_heads, avx512::store_kv,    avx512::attention,
                                  avx512::observe, avx512::add_arrays,    avx512::scan_logits, avx512::weigh_logits};
}  // namespace vivace
#endif
