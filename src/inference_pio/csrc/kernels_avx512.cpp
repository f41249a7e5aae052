// The kernels for AVX-512.
#if defined(__x86_64__)
#include "kernels.h"
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")
#endif

#define PIO_LANES 16
#define PIO_AVX512
#define PIO_NAME "avx512"
#define PIO_TABLE kAvx512
#define PIO_NAMESPACE on_avx512
#include "kernels_here.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
