// The kernels for AVX-512 with products of bfloat16 pairs.
#if defined(__x86_64__)
#include "kernels.h"
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,fma,f16c")
#endif

#define PIO_LANES 16
#define PIO_AVX512
#define PIO_VNNI
#define PIO_BF16_DOT
#define PIO_NAME "avx512_bf16"
#define PIO_TABLE kAvx512Bf16
#define PIO_NAMESPACE on_avx512_bf16
#include "kernels_here.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
