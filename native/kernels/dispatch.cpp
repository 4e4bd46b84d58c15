// Which kernel tables this machine can run.
#include <cstring>
#include <stdexcept>

#include "kernels/table.h"
#include "kernels/tables.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace vivace {

namespace {

std::vector<const KernelTable*> detect_tables() {
  std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) tables.push_back(&kAvx512Bf16Table);
  if (avx512) tables.push_back(&kAvx512Table);
  if (avx2) tables.push_back(&kAvx2Table);
#elif defined(__aarch64__)
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) tables.push_back(&kNeonTable);
#else
  tables.push_back(&kNeonTable);
#endif
#endif
  tables.push_back(&kScalarTable);
  return tables;
}

}  // namespace

const std::vector<const KernelTable*>& available_tables() {
  static const std::vector<const KernelTable*> tables = detect_tables();
  return tables;
}

const KernelTable& choose_table(const std::string& forced) {
  const auto& tables = available_tables();
  if (forced.empty()) return *tables.front();
  std::string names;
  for (const KernelTable* table : tables) {
    if (forced == table->name) return *table;
    names += names.empty() ? table->name : std::string(", ") + table->name;
  }
  throw std::invalid_argument("this machine has no kernel table named '" + forced + "'; it has: " + names);
}

}  // namespace vivace
