// The product of quantised activations with a packed weight (packed.h), a few vectors of its rows at a time.
// Included inside the namespace of an instruction set.
//
// Per block of 32 columns and per token, 8 byte dot products go into one integer sum; a scale turns it into a float.
// Minima are a second, smaller integer product, with the sums of the activations. Per group of 64 columns the token's own
// scale joins. A token's arithmetic is the same in whatever tile it stands, and whether a block comes out of the weight
// itself or out of a panel that holds it unpacked: results do not depend on batching.
//
// Of the instructions that count (byte dot products and float products share their units; sums and conversions have others
// where a core is wide), dot products are 128 of 152 in the best case (a scale a block, minima in the unit of their row), for two vectors and
// four tokens.

// Tokens that are multiplied together, their sums in registers: with two vectors of rows out of panels, with one vector
// that is unpacked on the way.
constexpr int kTokens = L == 16 ? 4 : 2, kStreamTokens = L == 16 ? 8 : 2;
constexpr int kFewTokens = 4 * kStreamTokens;  // up to here a panel would be written and read for little
constexpr int kPanelColumns = 1024;            // columns that are unpacked at once

PIO_INLINE int32_t word(const void* p) { return load_as<int32_t>(p); }

// Memory that is read next, asked for a few lines at a time while other rows are multiplied: a core waits for what it did
// not ask for, and asks for no more than some lines at once.
struct RowsAhead {
  const uint8_t* ranges[2];
  int64_t left, bytes;  // ranges that are left, bytes of each
  int64_t at, step;

  // `steps` calls of go_on() reach the end.
  PIO_INLINE RowsAhead of(const Unit& unit, int64_t steps) {
    const int64_t bytes = layout_of(unit.format).group_bytes(unit.columns);
    return {{unit.upcoming[0], unit.upcoming[1]}, unit.upcoming[0] == nullptr ? 0 : unit.count, bytes, 0,
            (unit.count * bytes / 64 + steps - 1) / steps * 64};
  }
  inline __attribute__((always_inline)) void go_on() {
    if (left == 0) return;
    for (int64_t until = at + step; at < until; at += 64) __builtin_prefetch(ranges[0] + at, 0, 2);
    if (at >= bytes) {
      ranges[0] = ranges[1];
      at = 0;
      --left;
    }
  }
};

// sum += the minima of two blocks, or of both halves of a block, times the sums that `less` begins with.
template <class K, class Source>
PIO_INLINE void add_minima(vf& sum, const Source& source, const int16_t* less) {
  const vf taken = __builtin_convertvector(madd(source.minima(), splat_int(word(less))), vf);
  if constexpr (K::in_units) sum += taken;
  else sum = fma(taken, source.unit(), sum);
}

// What the format's offset takes from the products of a token with block half / 2, or with that half of it.
template <class K>
PIO_INLINE vi offset(const Quantized& x, int64_t token, int64_t half) {
  const int64_t row = token * x.less_stride;
  if constexpr (K::subs == 1) return splat_int(x.block_offsets[row + half / 2]) * (K::offset / kBlockOffset);
  else if constexpr (K::offset < kHalfOffset) return splat_int(x.half_offsets[2 * row + half]) >> __builtin_ctz(kHalfOffset / K::offset);
  else return splat_int(x.half_offsets[2 * row + half]) * (K::offset / kHalfOffset);
}

// The product of a unit's vectors of rows, from number `vector` on, with some tokens. A row's sum over the first columns
// waits in `part` [tokens, kUnitRows], which is also where a gate waits for its up.
struct Place {
  const Unit& unit;
  int vector;
  int64_t token;  // the first of them
  float* part;

  Place of(int64_t t) const { return {unit, vector, token + t, part}; }
  inline __attribute__((always_inline)) float* part_of(int t, int v) const {
    return part + (token + t) * kUnitRows + (vector + v) * L;
  }
  inline __attribute__((always_inline)) void finish(int t, int v, vf x) const {
    const int group = (vector + v) / kSlices, row = (vector + v) % kSlices * L;
    if (unit.bias[group] != nullptr) x += load(unit.bias[group] + row);
    float* out = unit.out + (token + t) * unit.stride + row;
    if (!unit.gated) put(out + group * kGroupRows, x);
    else if (group == 0) put(part_of(t, v), x);
    else put(out, activate(unit.activation, load(part_of(t, v) - kGroupRows), float{}) * x);
  }
};

// V vectors of rows times tokens [0, N) of x: blocks [first, last) are added to what [0, first) gave. `first` begins an
// activation group; a row has `blocks` of them in all.
template <class Source, int V, int N>
PIO_INLINE void multiply_blocks(Source (&source)[V], const Quantized& x, int64_t first, int64_t last, int64_t blocks,
                                const Place& place, RowsAhead& ahead) {
  using K = typename Source::K;
  constexpr int kGroupBlocks = kActivationGroup / kBlock, kQuads = 8 / K::subs;
  static_assert(kGroupBlocks == 2);
  vf total[V][N] = {};
  if (first != 0)
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) total[v][t] = load(place.part_of(t, v));
  const int8_t* values[N];  // each token's, at the group
#pragma GCC unroll 8
  for (int t = 0; t < N; ++t) values[t] = x.values + t * x.value_stride + first * kBlock;
  for (int64_t group = first; group < last; group += kGroupBlocks) {
    ahead.go_on();
    vf sum[V][N] = {};
    const auto add_block = [&](int64_t block, bool second) __attribute__((always_inline)) {
      if constexpr (Source::reads)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) source[v].read(second);
      const int16_t* halves = x.halves + 2 * block;
#pragma GCC unroll 2
      for (int s = 0; s < K::subs; ++s) {
        vi dots[V][N] = {};
        if constexpr (K::offset != 0) {
#pragma GCC unroll 8
          for (int t = 0; t < N; ++t) {
            const vi taken = offset<K>(x, t, 2 * block + s);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dots[v][t] = taken;
          }
        }
#pragma GCC unroll 8
        for (int j = s * kQuads; j < (s + 1) * kQuads; ++j) {
          vb weights[V];
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) weights[v] = source[v].weights(j);
#pragma GCC unroll 8
          for (int t = 0; t < N; ++t) {
            const int32_t a = word(values[t] + (second ? kBlock : 0) + 4 * j);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dots[v][t] = dot4<K::small>(dots[v][t], weights[v], a);
          }
        }
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v)
            sum[v][t] = fma(__builtin_convertvector(dots[v][t], vf), source[v].scale(s), sum[v][t]);
      }
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) source[v].next();
      if constexpr (K::minima && K::subs == 2)
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) add_minima<K>(sum[v][t], source[v], halves + 2 * t * x.less_stride);
    };
    add_block(group, false);
    if (group + 1 < last) add_block(group + 1, true);
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) values[t] += kActivationGroup;
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) {
      const vf scale = splat(x.scales[t * x.scale_stride + group / kGroupBlocks]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        if constexpr (K::minima && K::subs == 1) add_minima<K>(sum[v][t], source[v], x.less + t * x.less_stride + group);
        total[v][t] = fma(sum[v][t], scale, total[v][t]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < N; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      if (last < blocks) put(place.part_of(t, v), total[v][t]);
      else place.finish(t, v, K::in_units ? rounded(total[v][t] * source[v].unit()) : total[v][t]);
    }
}

template <class K, int V, int N = kTokens>
static void multiply_panels(int64_t tokens, uint8_t* panels, int64_t panel_bytes, const Quantized& x, int64_t first,
                            int64_t last, int64_t blocks, const Place& place, RowsAhead& ahead) {
  if (tokens == N) {
    Panel<K> sources[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sources[v] = Panel<K>{panels + v * panel_bytes};
    return multiply_blocks<Panel<K>, V, N>(sources, x, first, last, blocks, place, ahead);
  }
  if constexpr (N > 1) multiply_panels<K, V, N - 1>(tokens, panels, panel_bytes, x, first, last, blocks, place, ahead);
}

// V vectors of the unit's rows, from number `vector` on, out of panels.
template <Format F, int V>
static void multiply_vectors(const Place& place, int64_t blocks, const Quantized& x, int64_t tokens, uint8_t* panels,
                             RowsAhead& ahead) {
  using K = typename KindOf<F>::type;
  constexpr int64_t kBlocks = kPanelColumns / kBlock, kPanelBytes = kBlocks * Panel<K>::block_bytes;
  for (int64_t first = 0; first < blocks; first += kBlocks) {
    const int64_t last = first + kBlocks < blocks ? first + kBlocks : blocks;
    for (int v = 0; v < V; ++v) {
      const int vector = place.vector + v;
      Stream<F> source = Stream<F>::begin(place.unit.groups[vector / kSlices], vector % kSlices, first);
      Panel<K> to{panels + v * kPanelBytes};
      for (int64_t block = first; block < last; ++block) {
        source.read(block % 2 != 0);
        to.put(source);
      }
    }
    for (int64_t t = 0; t < tokens; t += kTokens)
      multiply_panels<K, V>(tokens - t < kTokens ? tokens - t : kTokens, panels, kPanelBytes, x.from(t), first, last, blocks,
                            place.of(t), ahead);
  }
}

// One vector of rows, unpacked while it is multiplied.
template <Format F, int N = kStreamTokens>
static void multiply_stream(int64_t tokens, const Place& place, int64_t blocks, const Quantized& x, RowsAhead& ahead) {
  if (tokens == N) {
    Stream<F> source[1] = {Stream<F>::begin(place.unit.groups[place.vector / kSlices], place.vector % kSlices, 0)};
    return multiply_blocks<Stream<F>, 1, N>(source, x, 0, blocks, blocks, place, ahead);
  }
  if constexpr (N > 1) multiply_stream<F, N - 1>(tokens, place, blocks, x, ahead);
}

template <Format F>
static void multiply_unit_of(const Unit& unit, const Quantized& x, int64_t tokens, uint8_t* panels, float* part) {
  const int64_t blocks = unit.columns / kBlock, pairs = (blocks + 1) / 2;
  const int vectors = static_cast<int>(unit.count) * kSlices;
  if (tokens <= kFewTokens) {
    RowsAhead ahead = RowsAhead::of(unit, (tokens + kStreamTokens - 1) / kStreamTokens * pairs * vectors);
    for (int v = 0; v < vectors; ++v)
      for (int64_t t = 0; t < tokens; t += kStreamTokens)
        multiply_stream<F>(tokens - t < kStreamTokens ? tokens - t : kStreamTokens, {unit, v, t, part}, blocks, x.from(t),
                           ahead);
    return;
  }
  RowsAhead ahead = RowsAhead::of(unit, (tokens + kTokens - 1) / kTokens * pairs * ((vectors + 1) / 2));
  int v = 0;
  for (; v + 2 <= vectors; v += 2) multiply_vectors<F, 2>({unit, v, 0, part}, blocks, x, tokens, panels, ahead);
  if (v < vectors) multiply_vectors<F, 1>({unit, v, 0, part}, blocks, x, tokens, panels, ahead);
}

constexpr int64_t kPanelsBytes = 2 * kPanelColumns / kBlock * Panel<Kind<2, 0, Minimum::u8, true>>::block_bytes;
static int64_t unit_scratch_bytes(int64_t tokens) { return kPanelsBytes + tokens * kUnitRows * 4; }

static void multiply_unit(const Unit& unit, const Quantized& x, int64_t tokens, uint8_t* scratch) {
  using Multiply = void (*)(const Unit&, const Quantized&, int64_t, uint8_t*, float*);
  static constexpr Multiply of_format[] = {
      multiply_unit_of<Format::Q4_0>,   multiply_unit_of<Format::Q4_1>,   multiply_unit_of<Format::Q5_0>,
      multiply_unit_of<Format::Q5_1>,   multiply_unit_of<Format::Q8_0>,   multiply_unit_of<Format::Q2_K>,
      multiply_unit_of<Format::Q3_K>,   multiply_unit_of<Format::Q4_K>,   multiply_unit_of<Format::Q5_K>,
      multiply_unit_of<Format::Q6_K>,   multiply_unit_of<Format::IQ4_NL>, multiply_unit_of<Format::IQ4_XS>,
      multiply_unit_of<Format::IQ2_XXS>};
  of_format[static_cast<int>(unit.format)](unit, x, tokens, scratch, reinterpret_cast<float*>(scratch + kPanelsBytes));
}
