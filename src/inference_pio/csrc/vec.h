// One register of floats, written with the compiler's vector types, so that the same text serves every instruction
// set. Included inside the namespace of an instruction set; PIO_LANES floats fill a register.

constexpr int L = PIO_LANES;
typedef float vf __attribute__((vector_size(4 * L)));
typedef int32_t vi __attribute__((vector_size(4 * L)));
typedef uint32_t vu __attribute__((vector_size(4 * L)));
typedef uint16_t vh __attribute__((vector_size(2 * L)));

template <int... I>
struct Lanes {};
#if PIO_LANES == 16
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif PIO_LANES == 8
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using AllLanes = Lanes<0, 1, 2, 3>;
#endif

#define PIO_INLINE static inline __attribute__((always_inline))

template <class V>
PIO_INLINE V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
PIO_INLINE void store_as(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

PIO_INLINE vf splat(float x) { return x - vf{}; }
PIO_INLINE vf bits_to_float(vu x) { return (vf)x; }

// bfloat16 is the upper half of a float.
struct bf16 {
  uint16_t bits;
};
PIO_INLINE vf widen(vh x) { return bits_to_float(__builtin_convertvector(x, vu) << 16); }
#ifdef PIO_BF16_DOT
PIO_INLINE vh narrow(vf x) { return (vh)_mm512_cvtneps_pbh((__m512)x); }
#else
PIO_INLINE vh narrow(vf x) {  // to nearest, ties to even; a NaN stays one
  const vu u = (vu)x;
  const vu rounded = u + 0x7fff + ((u >> 16) & 1);
  return __builtin_convertvector((x == x ? rounded : (u | 0x400000)) >> 16, vh);
}
#endif
PIO_INLINE vf round_to(vf x, bf16) { return widen(narrow(x)); }
PIO_INLINE vf round_to(vf x, float) { return x; }

// A product that is rounded before it is used. Compilers may fuse a product with a later sum, in one copy of a loop and
// not in another; a row's bits would then depend on how many rows stand beside it.
template <class F>  // a vector or a float
PIO_INLINE F rounded(F x) {
#if defined(__x86_64__)
  asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#endif
  return x;
}

PIO_INLINE vf load(const float* p) { return load_as<vf>(p); }
PIO_INLINE vf load(const bf16* p) { return widen(load_as<vh>(p)); }
PIO_INLINE vf load(const int8_t* p);  // in integers.h
PIO_INLINE void put(float* p, vf x) { store_as(p, x); }
PIO_INLINE void put(bf16* p, vf x) { store_as(p, narrow(x)); }

// The last n < L values of a row; what is missing reads as zero.
template <class T>
PIO_INLINE vf load_part(const T* p, int64_t n) {
  T part[L] = {};
  __builtin_memcpy(part, p, n * sizeof(T));
  return load(part);
}
template <class T>
PIO_INLINE void put_part(T* p, vf x, int64_t n) {
  T part[L];
  put(part, x);
  __builtin_memcpy(p, part, n * sizeof(T));
}

template <int... I>
PIO_INLINE vi numbers(Lanes<I...>) {
  return vi{I...};
}
PIO_INLINE vi lane_numbers() { return numbers(AllLanes{}); }

// a where a > b, else b: also where either is not a number.
#ifdef PIO_AVX512
PIO_INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
#else
PIO_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
#endif

// Whether any lane of a is above that of b.
PIO_INLINE bool any_above(vf a, vf b) {
#ifdef PIO_AVX512
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
#else
  const vi above = a > b;
  int32_t any = 0;
  for (int i = 0; i < L; ++i) any |= above[i];
  return any != 0;
#endif
}

template <int S, int... I>
PIO_INLINE vf swap_halves(vf x, Lanes<I...>) {
  return __builtin_shufflevector(x, x, (I ^ S)...);
}
PIO_INLINE float sum_of(vf x) {
  if constexpr (L > 8) x += swap_halves<8>(x, AllLanes{});
  if constexpr (L > 4) x += swap_halves<4>(x, AllLanes{});
  x += swap_halves<2>(x, AllLanes{});
  x += swap_halves<1>(x, AllLanes{});
  return x[0];
}
PIO_INLINE float max_of(vf x) {
  if constexpr (L > 8) x = vmax(x, swap_halves<8>(x, AllLanes{}));
  if constexpr (L > 4) x = vmax(x, swap_halves<4>(x, AllLanes{}));
  x = vmax(x, swap_halves<2>(x, AllLanes{}));
  x = vmax(x, swap_halves<1>(x, AllLanes{}));
  return x[0];
}

// e^x to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (coefficients of Cephes' expf).
// Zero below -87.3, no more than e^88; a NaN stays one.
PIO_INLINE vf vexp(vf x) {
  const vf top = splat(88.0f);
  const vf capped = x > top ? top : x;
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vf shifted = capped * 1.44269504f + magic;
  const vf n = shifted - magic;
  const vf r = (capped - n * 0.693359375f) + n * 2.12194440e-4f;
  vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  const vf power = (vf)((((vu)shifted - (vu)magic) + 127u) << 23);  // unsigned: what is far below wraps, and is zero
  const vf e = p * power;
  return x < -87.3f ? vf{} : e;
}

// Lanes of a whose number has not bit S beside those of b, and the others: a square of S lanes changes places.
template <int S, int... I>
PIO_INLINE void exchange(vf& a, vf& b, Lanes<I...>) {
  const vf low = __builtin_shufflevector(a, b, ((I & S) ? L + I - S : I)...);
  const vf high = __builtin_shufflevector(a, b, ((I & S) ? L + I : I + S)...);
  a = low;
  b = high;
}

// Elements of a and b in turns, one or two at a time, from the lower or upper half of every four lanes.
template <int Upper, int... I>
PIO_INLINE vf unpack(vf a, vf b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + Upper * 2 + I % 4 / 2 + I % 2 * L)...);
}
template <int Upper, int... I>
PIO_INLINE vf unpack_twos(vf a, vf b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + Upper * 2 + I % 2 + I % 4 / 2 * L)...);
}
// Every other four lanes of a, then of b.
template <int Odd, int... I>
PIO_INLINE vf deal(vf a, vf b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (I / (L / 2) * L + I % (L / 2) / 4 * 8 + Odd * 4 + I % 4)...);
}
PIO_INLINE void transpose_fours(vf* r) {
  const AllLanes all;
  const vf a = unpack<0>(r[0], r[1], all), b = unpack<1>(r[0], r[1], all);
  const vf c = unpack<0>(r[2], r[3], all), d = unpack<1>(r[2], r[3], all);
  r[0] = unpack_twos<0>(a, c, all), r[1] = unpack_twos<1>(a, c, all);
  r[2] = unpack_twos<0>(b, d, all), r[3] = unpack_twos<1>(b, d, all);
}
// L vectors of L 32-bit values, turned over: squares of four first, then the squares.
PIO_INLINE void transpose(vf* row) {
  const AllLanes all;
#pragma GCC unroll 4
  for (vf* r = row; r < row + L; r += 4) transpose_fours(r);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if constexpr (L == 8) {
      const vf a = row[i], b = row[4 + i];
      row[i] = deal<0>(a, b, all), row[4 + i] = deal<1>(a, b, all);
    }
    if constexpr (L == 16) {
      const vf a = deal<0>(row[i], row[4 + i], all), b = deal<1>(row[i], row[4 + i], all);
      const vf c = deal<0>(row[8 + i], row[12 + i], all), d = deal<1>(row[8 + i], row[12 + i], all);
      row[i] = deal<0>(a, c, all), row[8 + i] = deal<1>(a, c, all);
      row[4 + i] = deal<0>(b, d, all), row[12 + i] = deal<1>(b, d, all);
    }
  }
}

#ifdef PIO_AVX512
// Eight vectors, of which each half is a row of eight: vector i becomes the i-th values of all sixteen rows.
template <int... I>
PIO_INLINE void transpose_halves(vf* row, Lanes<I...>) {
  transpose_fours(row);
  transpose_fours(row + 4);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const vf a = row[i], b = row[4 + i];
    row[i] = __builtin_shufflevector(a, b, (I / 8 * 8 + I % 4 + I % 8 / 4 * L)...);
    row[4 + i] = __builtin_shufflevector(a, b, (I / 8 * 8 + I % 4 + 4 + I % 8 / 4 * L)...);
  }
}
#endif

#ifdef PIO_BF16_DOT
// Halves of two registers in turns: a0 b0 a1 b1 …, from element `Start` of each on.
typedef uint16_t vhh __attribute__((vector_size(4 * L)));
template <int Start, int... I>
PIO_INLINE vhh interleave(vhh a, vhh b, Lanes<I...>) {
  return __builtin_shufflevector(a, b, (Start + I / 2 + (I & 1) * 2 * L)...);
}
using PairLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
                        27, 28, 29, 30, 31>;
#endif
