// Vectors of bytes and whole numbers, and the byte dot product, on each instruction set. Included inside the namespace
// of an instruction set, behind vec.h.

typedef uint8_t vb __attribute__((vector_size(4 * L)));

constexpr int kSlices = 16 / L;   // a register holds L of the 16 rows

PIO_INLINE vi splat_int(int32_t x) { return x - vi{}; }
// The lowest byte of each lane, n at most.
typedef int8_t lane_bytes __attribute__((vector_size(L)));
PIO_INLINE void put_bytes(int8_t* to, vi x, int64_t n) {
  const lane_bytes bytes = __builtin_convertvector(x, lane_bytes);
  n < L ? (void)__builtin_memcpy(to, &bytes, n) : store_as(to, bytes);
}

#if defined(PIO_AVX512)
PIO_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
PIO_INLINE vi madd(vi a, vi b) { return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
PIO_INLINE vf halves(const uint8_t* p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
PIO_INLINE vi bytes_to_ints(const uint8_t* p, bool is_signed) {
  const __m128i b = _mm_loadu_si128((const __m128i*)p);
  return (vi)(is_signed ? _mm512_cvtepi8_epi32(b) : _mm512_cvtepu8_epi32(b));
}
PIO_INLINE vi shorts_to_ints(const uint8_t* p) { return (vi)_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
PIO_INLINE vb look_up(vb index, const uint8_t* table) {
  return (vb)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), (__m512i)index);
}
#elif PIO_LANES == 8
PIO_INLINE vf fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
PIO_INLINE vi madd(vi a, vi b) { return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
PIO_INLINE vf halves(const uint8_t* p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
PIO_INLINE vi bytes_to_ints(const uint8_t* p, bool is_signed) {
  const __m128i b = _mm_loadl_epi64((const __m128i*)p);
  return (vi)(is_signed ? _mm256_cvtepi8_epi32(b) : _mm256_cvtepu8_epi32(b));
}
PIO_INLINE vi shorts_to_ints(const uint8_t* p) { return (vi)_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i*)p)); }
PIO_INLINE vb look_up(vb index, const uint8_t* table) {
  return (vb)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table)), (__m256i)index);
}
#else
PIO_INLINE vf fma(vf a, vf b, vf c) { return rounded(a * b) + c; }
PIO_INLINE vi madd(vi a, vi b) { return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16); }
PIO_INLINE vf halves(const uint8_t* p) {
  vf x;
  for (int i = 0; i < L; ++i) x[i] = half_to_float(load_as<uint16_t>(p + 2 * i));
  return x;
}
PIO_INLINE vi bytes_to_ints(const uint8_t* p, bool is_signed) {
  vi x;
  for (int i = 0; i < L; ++i) x[i] = is_signed ? static_cast<int8_t>(p[i]) : p[i];
  return x;
}
PIO_INLINE vi shorts_to_ints(const uint8_t* p) {
  vi x;
  for (int i = 0; i < L; ++i) x[i] = load_as<int16_t>(p + 2 * i);
  return x;
}
PIO_INLINE vb look_up(vb index, const uint8_t* table) {
  vb x;
  for (int i = 0; i < 4 * L; ++i) x[i] = table[index[i]];
  return x;
}
#endif

PIO_INLINE vf load(const int8_t* p) {
  return __builtin_convertvector(bytes_to_ints(reinterpret_cast<const uint8_t*>(p), true), vf);
}

// sum += four unsigned bytes of each lane times the four signed bytes of `a`. `Small`: no byte of w is above 127.
template <bool Small>
PIO_INLINE vi dot4(vi sum, vb w, int32_t a) {
#if defined(PIO_VNNI)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(a));
#elif defined(PIO_AVX512)
  const __m512i b = _mm512_set1_epi32(a);
  if constexpr (Small)  // two products of 7 bits with 8 fit 16
    return sum + (vi)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)w, b), _mm512_set1_epi16(1));
  const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8), odd = _mm512_srai_epi16(b, 8);
  return sum + (vi)_mm512_madd_epi16(_mm512_and_si512((__m512i)w, _mm512_set1_epi16(255)), even) +
         (vi)_mm512_madd_epi16(_mm512_srli_epi16((__m512i)w, 8), odd);
#elif PIO_LANES == 8
  const __m256i b = _mm256_set1_epi32(a);
  if constexpr (Small)
    return sum + (vi)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)w, b), _mm256_set1_epi16(1));
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), odd = _mm256_srai_epi16(b, 8);
  return sum + (vi)_mm256_madd_epi16(_mm256_and_si256((__m256i)w, _mm256_set1_epi16(255)), even) +
         (vi)_mm256_madd_epi16(_mm256_srli_epi16((__m256i)w, 8), odd);
#else
  const vu x = (vu)w;
  sum += (vi)(x & 255) * static_cast<int8_t>(a) + (vi)(x >> 8 & 255) * static_cast<int8_t>(a >> 8);
  return sum + (vi)(x >> 16 & 255) * static_cast<int8_t>(a >> 16) + (vi)(x >> 24) * (a >> 24);
#endif
}
