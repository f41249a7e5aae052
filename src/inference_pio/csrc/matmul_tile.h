// The product of quantised activations with a packed weight (packed.h), a few vectors of its rows at a time.
// Included inside the namespace of an instruction set.
//
// Per block of 32 columns and per token, 8 byte dot products go into one integer sum; a scale turns it into a float.
// Minima are a second, sixteen times smaller integer product, with the sums of the activations. Per group of 64
// columns the token's own scale joins and the result is added to the output. A token's arithmetic is the same in
// whatever tile it stands, and whether a block comes out of the weight itself or out of a panel that holds it
// unpacked: results do not depend on batching.

typedef uint8_t vb __attribute__((vector_size(4 * L)));

constexpr int kTokens = L == 16 ? 4 : 2;  // tokens that are multiplied together: their sums stay in registers
constexpr int kSlices = 16 / L;   // a register holds L of the 16 rows
constexpr int kFewTokens = 8;     // up to here blocks are unpacked again for every kTokens of them: the rows are in L1 then
constexpr int kPanelColumns = 1024;  // columns that are unpacked at once: with their activations they stay in L1

PIO_INLINE vi splat_int(int32_t x) { return x - vi{}; }

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

// What the product of one block needs to know of its format at compile time.
template <int Subs, int Offset, bool Minima, bool Small>
struct Kind {
  static constexpr int subs = Subs, offset = Offset;
  static constexpr bool minima = Minima, small = Small;
};
template <Format F>
struct KindOf {
  static constexpr Layout layout = layout_of(F);
  using type = Kind<layout.subs, layout.offset, layout.minimum != Minimum::none, layout.offset != 128>;
};

template <Format F>
PIO_INLINE void unpack_planes(const uint8_t* at, vb (&w)[8]) {
  constexpr Layout layout = layout_of(F);
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const uint8_t* plane = at;
    int shift = 0;
    vb q = {};
    if constexpr (layout.planes8 != 0) q = load_as<vb>(plane + kPlane * j);
    if constexpr (layout.planes4 != 0) {
      q = load_as<vb>(plane + kPlane * (j % 4));
      q = j < 4 ? q & 15 : q >> 4;
      plane += 4 * kPlane;
      shift = 4;
    }
    if constexpr (layout.planes2 != 0) {
      const vb two = load_as<vb>(plane + kPlane * (j / 4));
      q |= (two >> (j % 4 * 2) & 3) << shift;
      plane += 2 * kPlane;
      shift += 2;
    }
    if constexpr (layout.planes1 != 0) q |= (load_as<vb>(plane) >> j & 1) << shift;
    if constexpr (layout.table != nullptr) q = look_up(q, layout.table);
    w[j] = q;
  }
}

// A weight's blocks one after the other, for one slice of a group's rows. Minima are two 16-bit numbers a lane, for the
// first and the last 16 columns.
template <Format F>
struct Stream {
  using K = typename KindOf<F>::type;
  static constexpr Layout layout = layout_of(F);
  static constexpr bool reads = true;

  const uint8_t* at;
  int slice;
  int64_t block;
  vf d, unit_;  // of the scales, of the minima
  vb w[8];
  vf scale_[K::subs];
  vi minima_;

  // Stands at `first_block`, which begins a super.
  PIO_INLINE Stream begin(const uint8_t* group, int slice, int64_t first_block) {
    Stream s;
    s.slice = slice;
    s.block = first_block - 1;
    s.unit_ = s.d = vf{};
    if constexpr (layout.minimum == Minimum::i16) s.unit_ = -load_as<vf>(group + 4 * L * slice);
    const int64_t supers = first_block / kSuperBlocks;
    s.at = group + layout.group_head() + supers * (layout.super_head() + kSuperBlocks * layout.block_bytes());
    return s;
  }

  inline __attribute__((always_inline)) vb weights(int j) const { return w[j]; }
  inline __attribute__((always_inline)) vf scale(int s) const { return scale_[s]; }
  inline __attribute__((always_inline)) vi minima() const { return minima_; }
  inline __attribute__((always_inline)) vf unit() const { return unit_; }

  // Reads the block it stands at, and steps behind it.
  inline __attribute__((always_inline)) void read() {
    ++block;
    if constexpr (layout.super_scales)
      if (block % kSuperBlocks == 0) {
        d = halves(at + 2 * L * slice);
        if constexpr (layout.unit != 1.0f) d *= layout.unit;
        if constexpr (layout.minimum == Minimum::u8) unit_ = -halves(at + 2 * kGroupRows + 2 * L * slice);
        at += layout.super_head();
      }
    unpack_planes<F>(at + 4 * L * slice, w);
    const uint8_t* scales = at + kPlane * layout.planes();
    const uint8_t* minima = scales + layout.scale_bytes();
    if constexpr (layout.super_scales) {
#pragma GCC unroll 2
      for (int s = 0; s < K::subs; ++s)
        scale_[s] = d * __builtin_convertvector(
                            bytes_to_ints(scales + kGroupRows * s + L * slice, layout.signed_scales), vf);
    } else {
      scale_[0] = halves(scales + 2 * L * slice);
    }
    if constexpr (layout.minimum == Minimum::i16) minima_ = pair(shorts_to_ints(minima + 2 * L * slice));
    if constexpr (layout.minimum == Minimum::u8) {
      const vi first = bytes_to_ints(minima + L * slice, false);
      minima_ = K::subs == 1 ? pair(first)
                             : first | bytes_to_ints(minima + kGroupRows * (K::subs - 1) + L * slice, false) << 16;
    }
    at += layout.block_bytes();
  }
  inline __attribute__((always_inline)) void next() {}
  PIO_INLINE vi pair(vi x) { return (vi)((vu)x << 16 | ((vu)x & 0xffff)); }
};

// Blocks that were unpacked before, in the order in which they are used; each part is loaded where it is needed.
template <class K_>
struct Panel {
  using K = K_;
  static constexpr bool reads = false;
  static constexpr int64_t block_bytes = 32 * L + 4 * L * K::subs + (K::minima ? 8 * L : 0);
  static constexpr int64_t scale_at = 32 * L, minima_at = scale_at + 4 * L * K::subs, unit_at = minima_at + 4 * L;

  uint8_t* at;

  inline __attribute__((always_inline)) void next() { at += block_bytes; }
  inline __attribute__((always_inline)) vb weights(int j) const { return load_as<vb>(at + 4 * L * j); }
  inline __attribute__((always_inline)) vf scale(int s) const { return load_as<vf>(at + scale_at + 4 * L * s); }
  inline __attribute__((always_inline)) vi minima() const { return load_as<vi>(at + minima_at); }
  // Of the block before: all blocks of an activation group share it.
  inline __attribute__((always_inline)) vf unit() const { return load_as<vf>(at - block_bytes + unit_at); }

  template <class S>
  inline __attribute__((always_inline)) void put(const S& block) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) store_as(at + 4 * L * j, block.weights(j));
#pragma GCC unroll 2
    for (int s = 0; s < K::subs; ++s) store_as(at + scale_at + 4 * L * s, block.scale(s));
    if constexpr (K::minima) {
      store_as(at + minima_at, block.minima());
      store_as(at + unit_at, block.unit());
    }
    at += block_bytes;
  }
};

PIO_INLINE int32_t word(const void* p) { return load_as<int32_t>(p); }

// out[t][v] (vectors of L floats; tokens are `stride` floats apart) += the product of blocks [first, last) of V vectors
// of rows with tokens [0, N) of x. `first` begins an activation group.
template <class Source, int V, int N>
PIO_INLINE void multiply_blocks(Source (&source)[V], const Quantized& x, int64_t first, int64_t last, float* out,
                                int64_t stride) {
  using K = typename Source::K;
  constexpr int kGroupBlocks = kActivationGroup / kBlock, kQuads = 8 / K::subs;
  constexpr int32_t kFirst = -K::offset & 0xffff, kSecond = static_cast<int32_t>(static_cast<uint32_t>(-K::offset) << 16);
  for (int64_t group = first; group < last; group += kGroupBlocks) {
    const int64_t end = group + kGroupBlocks < last ? group + kGroupBlocks : last;
    vf sum[V][N] = {};
    vi minima[V][N] = {};
    for (int64_t block = group; block < end; ++block) {
      if constexpr (Source::reads) source[0].read();
      const int8_t* values = x.values + block * kBlock;
      const int16_t* sums = x.sums + block * (kBlock / 16);
#pragma GCC unroll 2
      for (int s = 0; s < K::subs; ++s) {
        vi dots[V][N] = {};
        if constexpr (K::offset != 0) {
          const vi offsets = splat_int(K::subs == 1 ? (kFirst | kSecond) : s == 0 ? kFirst : kSecond);
#pragma GCC unroll 8
          for (int t = 0; t < N; ++t) {
            const vi taken = madd(offsets, splat_int(word(sums + t * x.sum_stride)));
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dots[v][t] = taken;
          }
        }
#pragma GCC unroll 8
        for (int j = s * kQuads; j < (s + 1) * kQuads; ++j)
#pragma GCC unroll 8
          for (int t = 0; t < N; ++t) {
            const int32_t a = word(values + t * x.value_stride + 4 * j);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dots[v][t] = dot4<K::small>(dots[v][t], source[v].weights(j), a);
          }
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v)
            sum[v][t] = fma(__builtin_convertvector(dots[v][t], vf), source[v].scale(s), sum[v][t]);
      }
      if constexpr (K::minima) {
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t) {
          const vi both = splat_int(word(sums + t * x.sum_stride));
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) minima[v][t] += madd(source[v].minima(), both);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) source[v].next();
    }
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) {
      const vf scale = splat(x.scales[t * x.scale_stride + group / kGroupBlocks]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        if constexpr (K::minima) sum[v][t] = fma(__builtin_convertvector(minima[v][t], vf), source[v].unit(), sum[v][t]);
        float* to = out + t * stride + v * L;
        put(to, fma(sum[v][t], scale, load(to)));
      }
    }
  }
}

template <class K, int V, int N = kTokens>
static void multiply_panels(int64_t tokens, uint8_t* panels, int64_t panel_bytes, const Quantized& x, int64_t first,
                            int64_t last, float* out, int64_t stride) {
  if (tokens == N) {
    Panel<K> sources[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sources[v] = Panel<K>{panels + v * panel_bytes};
    return multiply_blocks<Panel<K>, V, N>(sources, x, first, last, out, stride);
  }
  if constexpr (N > 1) multiply_panels<K, V, N - 1>(tokens, panels, panel_bytes, x, first, last, out, stride);
}

// Groups that are read next, asked for a few lines at a time while others are multiplied: unpacking reads them faster
// than memory gives them, and multiplying does not read at all.
struct Ahead {
  const uint8_t* const* groups;  // as many as are multiplied now; null: nothing
  int64_t count, bytes, done, step;

  PIO_INLINE Ahead of(const uint8_t* const* groups, int64_t count, int64_t bytes, int64_t steps) {
    return {groups, groups == nullptr ? 0 : count, bytes, 0, (bytes / 64 + steps) / steps * 64};
  }
  inline __attribute__((always_inline)) void go_on() {
    const int64_t until = done + step < bytes ? done + step : bytes;
    for (int64_t g = 0; g < count; ++g)
      for (int64_t at = done; at < until; at += 64) __builtin_prefetch(groups[g] + at, 0, 2);
    done = until;
  }
};

// V vectors of the rows of `groups`, from number `vector` on.
template <Format F, int V>
static void multiply_vectors(const uint8_t* const* groups, int vector, int64_t blocks, const Quantized& x, int64_t tokens,
                             uint8_t* panels, float* out, int64_t stride, Ahead& ahead) {
  using K = typename KindOf<F>::type;
  constexpr int64_t kBlocks = kPanelColumns / kBlock, kPanelBytes = kBlocks * Panel<K>::block_bytes;
  for (int64_t first = 0; first < blocks; first += kBlocks) {
    const int64_t last = first + kBlocks < blocks ? first + kBlocks : blocks;
    for (int v = 0; v < V; ++v) {
      Stream<F> source = Stream<F>::begin(groups[(vector + v) / kSlices], (vector + v) % kSlices, first);
      Panel<K> to{panels + v * kPanelBytes};
      for (int64_t block = first; block < last; ++block) {
        source.read();
        to.put(source);
      }
    }
    for (int64_t t = 0; t < tokens; t += kTokens) {
      ahead.go_on();
      multiply_panels<K, V>(tokens - t < kTokens ? tokens - t : kTokens, panels, kPanelBytes, x.from(t), first, last,
                            out + t * stride, stride);
    }
  }
}

// One vector of rows, unpacked while it is multiplied.
template <Format F, int N = kTokens>
static void multiply_stream(int64_t tokens, const uint8_t* group, int slice, int64_t blocks, const Quantized& x,
                            float* out) {
  if (tokens == N) {
    Stream<F> source[1] = {Stream<F>::begin(group, slice, 0)};
    return multiply_blocks<Stream<F>, 1, N>(source, x, 0, blocks, out, kUnitRows);
  }
  if constexpr (N > 1) multiply_stream<F, N - 1>(tokens, group, slice, blocks, x, out);
}

// out [tokens, 32] = x · the rows of one or two groups of a weight.
template <Format F>
static void multiply_groups_of(const uint8_t* const* groups, const uint8_t* const* upcoming, int64_t count,
                               int64_t columns, const Quantized& x, int64_t tokens, uint8_t* panels,
                               float* out) {
  const int64_t blocks = columns / kBlock;
  const int vectors = static_cast<int>(count) * kSlices;
  __builtin_memset(out, 0, tokens * kUnitRows * sizeof(float));
  if (tokens <= kFewTokens) {  // out of the weight as it is: a panel would be written and read for little
    for (int v = 0; v < vectors; ++v)
      for (int64_t t = 0; t < tokens; t += kTokens)
        multiply_stream<F>(tokens - t < kTokens ? tokens - t : kTokens, groups[v / kSlices], v % kSlices, blocks,
                           x.from(t), out + t * kUnitRows + L * v);
    return;
  }
  constexpr int64_t kBlocks = kPanelColumns / kBlock;
  const int64_t steps = (tokens + kTokens - 1) / kTokens * ((blocks + kBlocks - 1) / kBlocks) * ((vectors + 1) / 2);
  Ahead ahead = Ahead::of(upcoming, count, layout_of(F).group_bytes(columns), steps);
  int v = 0;
  for (; v + 2 <= vectors; v += 2) multiply_vectors<F, 2>(groups, v, blocks, x, tokens, panels, out + L * v, kUnitRows, ahead);
  if (v < vectors) multiply_vectors<F, 1>(groups, v, blocks, x, tokens, panels, out + L * v, kUnitRows, ahead);
}

static void multiply_groups(Format format, const uint8_t* const* groups, const uint8_t* const* upcoming, int64_t count,
                            int64_t columns, const Quantized& x, int64_t tokens, uint8_t* panels, float* out) {
  using Multiply = void (*)(const uint8_t* const*, const uint8_t* const*, int64_t, int64_t, const Quantized&, int64_t, uint8_t*, float*);
  static constexpr Multiply of_format[] = {
      multiply_groups_of<Format::Q4_0>,   multiply_groups_of<Format::Q4_1>,   multiply_groups_of<Format::Q5_0>,
      multiply_groups_of<Format::Q5_1>,   multiply_groups_of<Format::Q8_0>,   multiply_groups_of<Format::Q2_K>,
      multiply_groups_of<Format::Q3_K>,   multiply_groups_of<Format::Q4_K>,   multiply_groups_of<Format::Q5_K>,
      multiply_groups_of<Format::Q6_K>,   multiply_groups_of<Format::IQ4_NL>, multiply_groups_of<Format::IQ4_XS>,
      multiply_groups_of<Format::IQ2_XXS>};
  of_format[static_cast<int>(format)](groups, upcoming, count, columns, x, tokens, panels, out);
}
static int64_t panel_bytes() { return 2 * kPanelColumns / kBlock * Panel<Kind<2, 0, true, true>>::block_bytes; }

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

// The four vectors' sums, as 16-bit numbers. Sums of groups that a row does not have go into its padding.
PIO_INLINE void put_sums(const vi (&sum)[4], int16_t* to) {
  typedef int16_t four_shorts __attribute__((vector_size(8)));
#if defined(PIO_AVX512)  // transposed while they are added: 12 instructions in place of 40
  const __m512i a = (__m512i)sum[0], b = (__m512i)sum[1], c = (__m512i)sum[2], d = (__m512i)sum[3];
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  _mm_storel_epi64((__m128i*)to, _mm_packs_epi32(four, four));
#else
  for (int i = 0; i < 4; ++i) to[i] = static_cast<int16_t>(reduce(sum[i], [](vi x, vi y) { return x + y; }));
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
    vi sum[kActivationGroup / 16] = {};
    for (int64_t i = 0; i < n; i += 16)
#pragma GCC unroll 4
      for (int part = 0; part < 16; part += L) {
        const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
        const vi q = (vi)(rounded(load(from + i + part) * inverse) + magic) - (vi)magic;
        sum[i / 16] += q;
        store_as(values + i + part, __builtin_convertvector(q, narrow_bytes));
      }
    put_sums(sum, to.sums + group * (kActivationGroup / 16));
  }
}
