// Picks the kernels for the processor at hand.
#include <cstring>

#include "kernels.h"

namespace pio {

const Kernels* choose_kernels(const char* name) {
  struct Candidate {
    const Kernels* kernels;
    bool runs;
  };
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  const Candidate best_first[] = {{&kAvx512Bf16, bf16}, {&kAvx512, avx512}, {&kAvx2, avx2}, {&kPortable, true}};
#else
  const Candidate best_first[] = {{&kPortable, true}};
#endif
  for (const Candidate& one : best_first)
    if (one.runs && (*name == '\0' || std::strcmp(name, one.kernels->name) == 0)) return one.kernels;
  return nullptr;
}

}  // namespace pio
