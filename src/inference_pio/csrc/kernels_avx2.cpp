// The kernels for AVX2 with FMA.
#if defined(__x86_64__)
#include "kernels.h"
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define PIO_LANES 8
#define PIO_NAME "avx2"
#define PIO_TABLE kAvx2
#define PIO_NAMESPACE on_avx2
#include "kernels_here.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
