// The product of quantised activations with a packed weight (packed.h), a few vectors of its rows at a time.
// Included inside the namespace of an instruction set.
//
// Per block of 32 columns and per token, 8 byte dot products go into one integer sum; a scale turns it into a float.
// Minima are a second, sixteen times smaller integer product, with the sums of the activations. Per group of 64
// columns the token's own scale joins and the result is added to the output. A token's arithmetic is the same in
// whatever tile it stands, and whether a block comes out of the weight itself or out of a panel that holds it
// unpacked: results do not depend on batching.

constexpr int kTokens = L == 16 ? 4 : 2;  // tokens that are multiplied together: their sums stay in registers
constexpr int kFewTokens = 8;     // up to here blocks are unpacked again for every kTokens of them: the rows are in L1 then
constexpr int kPanelColumns = 1024;  // columns that are unpacked at once: with their activations they stay in L1

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
struct RowsAhead {
  const uint8_t* const* groups;  // as many as are multiplied now; null: nothing
  int64_t count, bytes, done, step;

  PIO_INLINE RowsAhead of(const uint8_t* const* groups, int64_t count, int64_t bytes, int64_t steps) {
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
                             uint8_t* panels, float* out, int64_t stride, RowsAhead& ahead) {
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
  RowsAhead ahead = RowsAhead::of(upcoming, count, layout_of(F).group_bytes(columns), steps);
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
