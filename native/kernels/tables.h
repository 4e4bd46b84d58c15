// The tables that exist in this build; `dispatch.cpp` alone decides which of them the machine can run.
#pragma once

#include "kernels/table.h"

namespace vivace {

extern const KernelTable kScalarTable;
#if defined(__x86_64__)
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kAvx512Bf16Table;
#elif defined(__aarch64__)
extern const KernelTable kNeonTable;
#endif

}  // namespace vivace
