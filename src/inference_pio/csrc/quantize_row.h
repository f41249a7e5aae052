// Activations to signed bytes (Quantized in packed.h). Included inside the namespace of an instruction set.

template <int S, int... I>
PIO_INLINE vi swapped(vi x, Lanes<I...>) {
  return __builtin_shufflevector(x, x, (I ^ S)...);
}
PIO_INLINE vi larger(vi a, vi b) {
#if defined(PIO_AVX512)
  return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
  return a > b ? a : b;
#endif
}
template <class F>
PIO_INLINE int32_t reduce(vi x, F join) {
  if constexpr (L > 8) x = join(x, swapped<8>(x, AllLanes{}));
  if constexpr (L > 4) x = join(x, swapped<4>(x, AllLanes{}));
  x = join(x, swapped<2>(x, AllLanes{}));
  return join(x, swapped<1>(x, AllLanes{}))[0];
}

// Whole numbers of a group, in order, as bytes; and what the product wants to know of their sums. Numbers that a row does
// not have are zeros in its padding.
constexpr int kGroupVectors = kActivationGroup / L;
PIO_INLINE void put_group(const vi (&q)[kGroupVectors], int32_t whole, const Quantized& to, int64_t group) {
  int8_t* values = to.values + group * kActivationGroup;
  int16_t *halves = to.halves + 4 * group, *less = to.less + 2 * group;
  int32_t *half_offsets = to.half_offsets + 4 * group, *block_offsets = to.block_offsets + 2 * group;
#if defined(PIO_AVX512)  // narrowing leaves four columns of each vector side by side, which is a good place to add them
  const __m512i ab = _mm512_packs_epi32((__m512i)q[0], (__m512i)q[1]), cd = _mm512_packs_epi32((__m512i)q[2], (__m512i)q[3]);
  const __m512i bytes = _mm512_and_si512(_mm512_packs_epi16(ab, cd), _mm512_set1_epi32(whole));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(values, _mm512_permutexvar_epi32(order, bytes));
  const __m512i fours = _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_set1_epi8(1), bytes), _mm512_set1_epi16(-1));
  const __m256i eights = _mm256_add_epi32(_mm512_castsi512_si256(fours), _mm512_extracti64x4_epi64(fours, 1));
  const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(eights), _mm256_extracti128_si256(eights, 1));
  const __m128i pairs = _mm_hadd_epi32(sums, sums);
  _mm_storel_epi64((__m128i*)halves, _mm_packs_epi32(sums, sums));
  _mm_storeu_si128((__m128i*)half_offsets, _mm_slli_epi32(sums, __builtin_ctz(kHalfOffset)));
  store_as(less, _mm_cvtsi128_si32(_mm_packs_epi32(pairs, pairs)));
  _mm_storel_epi64((__m128i*)block_offsets, _mm_slli_epi32(pairs, __builtin_ctz(kBlockOffset)));
#else
  for (int i = 0; i < 4; ++i) {
    vi sum = {};
    for (int part = 0; part < 16 / L; ++part) {
      const vi x = q[i * (16 / L) + part] & whole;
      store_as(values + i * 16 + part * L, __builtin_convertvector(x, lane_bytes));
      sum += x;
    }
    const int32_t less_half = -reduce(sum, [](vi x, vi y) { return x + y; });
    halves[i] = static_cast<int16_t>(less_half);
    half_offsets[i] = less_half * kHalfOffset;
  }
  for (int i = 0; i < 2; ++i) {
    less[i] = static_cast<int16_t>(halves[2 * i] + halves[2 * i + 1]);
    block_offsets[i] = less[i] * kBlockOffset;
  }
#endif
}

// One row of activations: per group of columns, the largest magnitude becomes 127.
static void quantize_row(const float* x, int64_t columns, const Quantized& to) {
  for (int64_t group = 0; group * kActivationGroup < columns; ++group) {
    const float* from = x + group * kActivationGroup;
    const int64_t n = columns - group * kActivationGroup < kActivationGroup ? columns % kActivationGroup : kActivationGroup;
    vi top = {};  // magnitudes compare like their bits, and a NaN is above all numbers: it makes the scale NaN
    for (int64_t i = 0; i < n; i += L) top = larger(top, (vi)load(from + i) & 0x7fffffff);
    const int32_t bits = reduce(top, [](vi a, vi b) { return larger(a, b); });
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    to.scales[group] = largest / 127.0f;
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    // What is not finite, or too small to divide by, has no whole numbers: they are zero, and the scale says the rest.
    const int32_t whole = largest <= __FLT_MAX__ && inverse <= __FLT_MAX__ ? -1 : 0;
    vi q[kGroupVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kGroupVectors; ++i) {
      const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
      q[i] = i * L < n ? (vi)(rounded(load(from + i * L) * inverse) + magic) - (vi)magic : vi{};
    }
    put_group(q, whole, to, group);
  }
}
