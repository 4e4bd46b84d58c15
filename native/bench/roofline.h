// What this machine can do at most: bytes a second out of memory, operations a second of each kernel table's
// instructions. Nothing here is used by a step.
#pragma once

#include <cstddef>
#include <string>

namespace vivace {

// Bytes a second that `num_threads` threads read together from a buffer of `num_bytes`, each thread its own part, again
// and again; the best of `repeats` measurements.
double measure_read_bandwidth(size_t num_bytes, int num_threads, int repeats);

// Operations a second (a multiply and an add count as two) of the instruction that a kernel table of that name uses for
// `kind` ("int8", "bf16" or "f32") on `num_threads` threads together; 0 where it has no such instruction or this
// machine cannot run it.
double measure_peak(const std::string& table, const std::string& kind, int num_threads, int repeats);

}  // namespace vivace
