// Activations to signed bytes (Quantized in packed.h). Included inside the namespace of an instruction set.

typedef int8_t narrow_bytes __attribute__((vector_size(L)));

template <int S, int... I>
PIO_INLINE vi swapped(vi x, Lanes<I...>) {
  return __builtin_shufflevector(x, x, (I ^ S)...);
}
template <class F>
PIO_INLINE int32_t reduce(vi x, F join) {
  if constexpr (L > 8) x = join(x, swapped<8>(x, AllLanes{}));
  if constexpr (L > 4) x = join(x, swapped<4>(x, AllLanes{}));
  x = join(x, swapped<2>(x, AllLanes{}));
  return join(x, swapped<1>(x, AllLanes{}))[0];
}

// The four vectors' sums with their sign turned, and those of two neighbours together. Sums of groups that a row does
// not have go into its padding.
PIO_INLINE void put_sums(const vi (&sum)[4], int16_t* halves, int16_t* less) {
#if defined(PIO_AVX512)  // transposed while they are added: 12 instructions in place of 40
  const __m512i a = (__m512i)sum[0], b = (__m512i)sum[1], c = (__m512i)sum[2], d = (__m512i)sum[3];
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  const __m128i four = _mm_sub_epi32(_mm_setzero_si128(), _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
  _mm_storel_epi64((__m128i*)halves, _mm_packs_epi32(four, four));
  const __m128i two = _mm_hadd_epi32(four, four);
  store_as(less, _mm_cvtsi128_si32(_mm_packs_epi32(two, two)));
#else
  for (int i = 0; i < 4; ++i)
    halves[i] = static_cast<int16_t>(-reduce(sum[i], [](vi x, vi y) { return x + y; }));
  for (int i = 0; i < 2; ++i) less[i] = static_cast<int16_t>(halves[2 * i] + halves[2 * i + 1]);
#endif
}

// One row of activations: per group of columns, the largest magnitude becomes 127.
static void quantize_row(const float* x, int64_t columns, const Quantized& to) {
  for (int64_t group = 0; group * kActivationGroup < columns; ++group) {
    const float* from = x + group * kActivationGroup;
    int8_t* values = to.values + group * kActivationGroup;
    const int64_t n = columns - group * kActivationGroup < kActivationGroup ? columns % kActivationGroup : kActivationGroup;
    vi top = {};  // magnitudes compare like their bits, and a NaN is above all numbers: it makes the scale NaN
    for (int64_t i = 0; i < n; i += L) {
      const vi magnitude = (vi)load(from + i) & 0x7fffffff;
      top = magnitude > top ? magnitude : top;
    }
    const int32_t bits = reduce(top, [](vi a, vi b) { return a > b ? a : b; });
    float largest;
    __builtin_memcpy(&largest, &bits, 4);
    to.scales[group] = largest / 127.0f;
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    // What is not finite, or too small to divide by, has no whole numbers: they are zero, and the scale says the rest.
    const int32_t whole = largest <= __FLT_MAX__ && inverse <= __FLT_MAX__ ? -1 : 0;
    vi sum[kActivationGroup / 16] = {};
    for (int64_t i = 0; i < n; i += 16)
#pragma GCC unroll 4
      for (int part = 0; part < 16; part += L) {
        const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
        const vi q = ((vi)(rounded(load(from + i + part) * inverse) + magic) - (vi)magic) & whole;
        sum[i / 16] += q;
        store_as(values + i + part, __builtin_convertvector(q, narrow_bytes));
      }
    put_sums(sum, to.halves + group * (kActivationGroup / 16), to.less + group * (kActivationGroup / kBlock));
  }
}
