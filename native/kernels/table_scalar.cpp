// The kernel table for plain C++. Only this region of this file is compiled for it; no flag of the build changes.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/table.h"
#include "kernels/tables.h"
#include "vector/half.h"

namespace vivace::scalar {
// The order matters: later files use functions of earlier ones.
// clang-format off
#include "vector/scalar.inc"
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
}  // namespace vivace::scalar

namespace vivace {
const KernelTable kScalarTable = {"scalar",
                                  scalar::linear<scalar::FusedPairs>,
                                  scalar::quantize,
                                  scalar::rms_norm,
                                  scalar::gated,
                                  scalar::prepare_heads,
                                  scalar::store_kv,
                                  scalar::attention<scalar::FusedPairs>,
                                  scalar::observe,
                                  scalar::add_arrays,
                                  scalar::scan_logits,
                                  scalar::weigh_logits,
                                  scalar::pack_turned};
}  // namespace vivace
