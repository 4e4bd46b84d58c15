// The kernel table for NEON with dot products. Only this region of this file is compiled for it; no flag of the build
// changes.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/table.h"
#include "kernels/tables.h"
#include "vector/half.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=armv8.2-a+dotprod+fp16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod+fp16")
#endif

namespace vivace::neon {
// The order matters: later files use functions of earlier ones.
// clang-format off
#include "vector/neon.inc"
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
}  // namespace vivace::neon

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace vivace {
const KernelTable kNeonTable = {"neon",
                                neon::linear<neon::FusedPairs>,
                                neon::quantize,
                                neon::rms_norm,
                                neon::gated,
                                neon::prepare_heads,
                                neon::store_kv,
                                neon::attention<neon::FusedPairs>,
                                neon::observe,
                                neon::add_arrays,
                                neon::scan_logits,
                                neon::weigh_logits,
                                neon::pack_turned};
}  // namespace vivace
#endif
