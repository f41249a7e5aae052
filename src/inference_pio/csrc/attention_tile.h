// Attention of a tile of queries over one chunk of keys: online softmax (Milakov and Gimelshein 2018) over tiles of
// keys (Dao 2022, algorithm 1). Included inside the namespace of an instruction set.
//
// A row is one (token, query head); all rows of a tile share the key/value head, so a key is read once for all of
// them. A row's arithmetic is the same in whatever tile it stands: that is what makes results independent of batching.

constexpr int kRows = 6;  // rows that are computed together: kRows * kColumns accumulators stay in registers
constexpr int kColumns = L == 16 ? 4 : 2;

// How two operands meet: one float times one float, or two bfloat16 pairs added into a float.
struct Floats {
  static constexpr int pair = 1;
  using word = float;  // what a row offers per step, broadcast to all lanes
  PIO_INLINE vf dot(vf sum, word a, vf b) { return sum + a * b; }
};
#ifdef PIO_BF16_DOT
struct Pairs {
  static constexpr int pair = 2;
  using word = int32_t __attribute__((may_alias));
  PIO_INLINE vf dot(vf sum, word a, vf b) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
  }
};
#endif
template <class T>
struct Operands {
  using type = Floats;
};
#ifdef PIO_BF16_DOT
template <>
struct Operands<bf16> {
  using type = Pairs;
};
#endif

// sum[r][c] += rows[r][0 .. steps) times columns [steps, stride] for R rows and C vectors of columns.
template <class Dot, int R, int C>
PIO_INLINE void multiply(vf (&sum)[R][C], const typename Dot::word* const* rows, const float* columns, int64_t stride,
                         int64_t steps) {
  for (int64_t step = 0; step < steps; ++step) {
    vf b[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) b[c] = load(columns + step * stride + c * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename Dot::word a = rows[r][step];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = Dot::dot(sum[r][c], a, b[c]);
    }
  }
}

// Scores of R rows against `vectors` vectors of packed keys, kColumns of them at a time.
template <class Dot, int R, int C = kColumns>
PIO_INLINE void score_keys(float* scores, const typename Dot::word* const* rows, const float* keys, int64_t steps,
                           int64_t vectors) {
  for (; vectors >= C; vectors -= C, scores += C * L, keys += C * L) {
    vf sum[R][C] = {};
    multiply<Dot, R, C>(sum, rows, keys, kKeysPerTile, steps);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) put(scores + r * kKeysPerTile + c * L, sum[r][c]);
  }
  if constexpr (C > 1) score_keys<Dot, R, C - 1>(scores, rows, keys, steps, vectors);
}

// acc = acc * shrink + weights * packed values, for R rows and `vectors` vectors of head_dim.
template <class Dot, int R, int C = kColumns>
PIO_INLINE void add_values(float* acc, int64_t stride, const float* shrink, const typename Dot::word* const* weights,
                           const float* values, int64_t steps, int64_t vectors) {
  for (; vectors >= C; vectors -= C, acc += C * L, values += C * L) {
    vf sum[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = rounded(load(acc + r * stride + c * L) * shrink[r]);
    multiply<Dot, R, C>(sum, weights, values, stride, steps);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) put(acc + r * stride + c * L, sum[r][c]);
  }
  if constexpr (C > 1) add_values<Dot, R, C - 1>(acc, stride, shrink, weights, values, steps, vectors);
}

PIO_INLINE void put_weights(Floats, float* at, vf p) { put(at, p); }
#ifdef PIO_BF16_DOT
PIO_INLINE void put_weights(Pairs, float* at, vf p) { store_as(at, narrow(p)); }
#endif

// Scores become weights e^(scale * score - maximum) of the first `limit` keys and 0 behind them. Returns their sum.
template <class Dot>
static float weigh(const float* scores, float* weights, int64_t limit, int64_t vectors, float scale, float& max) {
  const float lowest = -__builtin_inff();
  vf top = splat(lowest), score[kKeysPerTile / L];
  for (int64_t c = 0; c < vectors; ++c) {
    vf s = rounded(load(scores + c * L) * scale);
    if (limit < (c + 1) * L) s = lane_numbers() < static_cast<int32_t>(limit - c * L) ? s : splat(lowest);
    score[c] = s;
    top = vmax(top, s);
  }
  const float found = max_of(top);
  max = found > max ? found : max;
  vf sum = {};
  for (int64_t c = 0; c < vectors; ++c) {
    const vf p = vexp(score[c] - max);
    sum += p;
    put_weights(Dot{}, weights + c * L / Dot::pair, p);
  }
  return sum_of(sum);
}

// The memory of one thread, cut out of its scratch.
struct Workspace {
  float *keys, *values, *queries, *scores, *weights, *nothing;
};
PIO_INLINE int64_t carve(float* scratch, int64_t rows, int64_t head_dim, Workspace& w) {
  const int64_t width = padded(head_dim, L);
  float* at = scratch;
  const auto take = [&at](int64_t n) {
    float* piece = at;
    at += padded(n, 16);
    return piece;
  };
  w.keys = take(width * kKeysPerTile);
  w.values = take(width * kKeysPerTile);
  w.queries = take(rows * width);
  w.scores = take(kRows * kKeysPerTile);
  w.weights = take(kRows * kKeysPerTile);
  w.nothing = take(width);
  return at - scratch;
}
static int64_t scratch_floats(int64_t rows, int64_t head_dim) {
  Workspace w;
  float origin;
  return carve(&origin, rows, head_dim, w);
}

// One word of a cached key per step: a float, or the two bfloat16 that `Pairs` takes, as they lie in memory.
PIO_INLINE vf load_words(Floats, const float* p, int64_t n) { return n < L ? load_part(p, n) : load(p); }
PIO_INLINE vf load_words(Floats, const bf16* p, int64_t n) { return n < L ? load_part(p, n) : load(p); }
#ifdef PIO_BF16_DOT
PIO_INLINE vf load_words(Pairs, const bf16* p, int64_t n) {
  vf words = {};
  if (n >= L) return load_as<vf>(p);
  __builtin_memcpy(&words, p, n * 4);
  return words;
}
#endif

// Values of one key (Floats) or of two neighbouring keys, interleaved (Pairs): H words.
template <class T>
PIO_INLINE void pack_values(Floats, const T* const* key, float* to, int64_t H) {
  for (int64_t d = 0; d < H; d += L) put(to + d, load_words(Floats{}, key[0] + d, H - d));
}
#ifdef PIO_BF16_DOT
PIO_INLINE void pack_values(Pairs, const bf16* const* key, float* to, int64_t H) {
  int64_t d = 0;
  for (; d + 2 * L <= H; d += 2 * L) {
    const vhh first = load_as<vhh>(key[0] + d), second = load_as<vhh>(key[1] + d);
    store_as(to + d, interleave<0>(first, second, PairLanes{}));
    store_as(to + d + L, interleave<L>(first, second, PairLanes{}));
  }
  for (; d < H; d += L) {
    const vu first = (vu)load_words(Floats{}, key[0] + d, H - d), second = (vu)load_words(Floats{}, key[1] + d, H - d);
    put(to + d, bits_to_float((first >> 16) | second));
  }
}
#endif

// Where the keys and values of a tile lie in the cache; rows behind `count` point at zeros.
template <class T>
struct TileRows {
  const T *key[kKeysPerTile], *value[kKeysPerTile];

  void find(const Attention& a, const QueryTile& t, int64_t first, int64_t count, const float* zeros) {
    const int64_t H = a.head_dim;
    int64_t block = first / a.block_size, offset = first % a.block_size, j = 0;
    count = count < kKeysPerTile ? count : kKeysPerTile;
    for (; j < count; ++block, offset = 0) {
      const int64_t base = (t.blocks[block] * a.kv_heads + t.kv_head) * a.block_size;
      const int64_t in_block = a.block_size - offset, until = count - j < in_block ? count : j + in_block;
      for (int64_t at = (base + offset) * H; j < until; ++j, at += H) {
        key[j] = static_cast<const T*>(a.k) + at;
        value[j] = static_cast<const T*>(a.v) + at;
      }
    }
    for (; j < kKeysPerTile; ++j) key[j] = value[j] = reinterpret_cast<const T*>(zeros);
  }
};

// The tile that is read `kTilesAhead` tiles after this one: of the same queries, or of those the thread turns to next.
constexpr int64_t kTilesAhead = 1;
template <class T>
static void find_ahead(const Attention& a, const QueryTile& t, int64_t first, const Upcoming& after, const float* zeros,
                       TileRows<T>& rows) {
  if (first < after.end) return rows.find(a, t, first, after.end - first, zeros);
  if (after.tile == nullptr) return rows.find(a, t, 0, 0, zeros);
  const int64_t there = after.first + (first - after.end) / kKeysPerTile * kKeysPerTile;
  rows.find(a, *after.tile, there, after.tile->first_position + after.tile->tokens - there, zeros);
}

// A tile of up to kKeysPerTile keys and values: keys turned so that a vector holds L keys, values as rows. What lies
// behind `count` is never read from the cache and stands as zero.
//
// Meanwhile the rows of a later tile are asked for, a few at a time: blocks lie anywhere in memory, so the processor
// cannot guess where they are, and it waits if it is asked for many at once.
template <class T, class Dot>
static void pack(const TileRows<T>& rows, const TileRows<T>& ahead, int64_t count, int64_t H, const Workspace& w) {
  const int64_t width = padded(H, L), steps = H / Dot::pair;
  for (int64_t j = 0; j < count; j += L)
    for (int64_t step = 0; step < steps; step += L) {
      vf square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        __builtin_prefetch(ahead.key[j + i] + step * Dot::pair, 0, 2);
        square[i] = load_words(Dot{}, rows.key[j + i] + step * Dot::pair, steps - step);
      }
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) put(w.keys + (step + i) * kKeysPerTile + j, square[i]);
    }
  for (int64_t j = 0; j < count; j += Dot::pair) {
    for (int64_t d = 0; d < H; d += L)
      __builtin_prefetch(ahead.value[j + d / L % Dot::pair] + d / L / Dot::pair * Dot::pair * L, 0, 2);
    pack_values(Dot{}, rows.value + j, w.values + j / Dot::pair * width, H);
  }
}

// R rows against one packed tile; `limits[r]` of its keys are visible to row r, growing with r.
template <class Dot, int R>
static void attend_rows(const Attention& a, const Workspace& w, const typename Dot::word* const* queries,
                        const int64_t* limits, float* max, float* sum, float* acc) {
  using Word = typename Dot::word;
  const int64_t width = padded(a.head_dim, L), seen = limits[R - 1];
  if (seen <= 0) return;
  const int64_t vectors = (seen + L - 1) / L;
  score_keys<Dot, R>(w.scores, queries, w.keys, a.head_dim / Dot::pair, vectors);
  float shrink[16] = {}, found[R];
  const Word* weights[R];
  for (int r = 0; r < R; ++r) {
    const float before = max[r];
    float* row = w.weights + r * kKeysPerTile;
    weights[r] = reinterpret_cast<const Word*>(row);
    if (limits[r] > 0) {
      found[r] = weigh<Dot>(w.scores + r * kKeysPerTile, row, limits[r], vectors, a.scale, max[r]);
      shrink[r] = before - max[r];
    } else {
      found[r] = 0.0f;
      for (int64_t c = 0; c < vectors; ++c) put(row + c * L, vf{});
    }
  }
  for (int r = 0; r < R; r += L) put(shrink + r, vexp(load(shrink + r)));
  for (int r = 0; r < R; ++r) sum[r] = rounded(sum[r] * shrink[r]) + found[r];
  add_values<Dot, R>(acc, width, shrink, weights, w.values, (seen + Dot::pair - 1) / Dot::pair, width / L);
}

template <class Dot, int R = kRows>
PIO_INLINE void attend_some_rows(int64_t rows, const Attention& a, const Workspace& w,
                                 const typename Dot::word* const* queries, const int64_t* limits, float* max,
                                 float* sum, float* acc) {
  if (rows >= R) return attend_rows<Dot, R>(a, w, queries, limits, max, sum, acc);
  if constexpr (R > 1) attend_some_rows<Dot, R - 1>(rows, a, w, queries, limits, max, sum, acc);
}

// Where each row's query lies, in the form that Dot reads: as it is, or in `copy`.
PIO_INLINE const float* query_words(Floats, const float* q, float*, int64_t) { return q; }
PIO_INLINE const float* query_words(Floats, const bf16* q, float* copy, int64_t H) {
  for (int64_t d = 0; d < H; d += L) put(copy + d, load_words(Floats{}, q + d, H - d));
  return copy;
}
#ifdef PIO_BF16_DOT
PIO_INLINE const Pairs::word* query_words(Pairs, const bf16* q, float*, int64_t) {
  return reinterpret_cast<const Pairs::word*>(q);
}
PIO_INLINE const Pairs::word* query_words(Pairs, const float* q, float* copy, int64_t H) {
  bf16* to = reinterpret_cast<bf16*>(copy);
  each_vector<float>(H, [&](int64_t d, auto get, auto) { put(to + d, get(q + d)); });
  return reinterpret_cast<const Pairs::word*>(copy);
}
#endif

// T is the cache's type, Q that of queries and results.
template <class T, class Q>
static void attend_chunk_of(const Attention& a, const QueryTile& t, int64_t chunk, const Upcoming& after, float* scratch,
                            State state) {
  using Dot = typename Operands<T>::type;
  const int64_t group = a.heads / a.kv_heads, rows = t.tokens * group, H = a.head_dim, width = padded(H, L);
  Workspace w;
  carve(scratch, rows, H, w);
  __builtin_memset(w.nothing, 0, width * sizeof(float));
  __builtin_memset(state.acc, 0, rows * width * sizeof(float));
  __builtin_memset(state.sum, 0, rows * sizeof(float));
  for (int64_t r = 0; r < rows; ++r) state.max[r] = -__builtin_inff();

  const int64_t known = t.first_position + t.tokens, start = chunk * kKeysPerChunk;
  const int64_t end = start + kKeysPerChunk < known ? start + kKeysPerChunk : known;
  TileRows<T> tile, ahead;
  for (int64_t first = start; first < end; first += kKeysPerTile) {
    const int64_t count = end - first < kKeysPerTile ? end - first : kKeysPerTile;
    tile.find(a, t, first, count, w.nothing);
    find_ahead(a, t, first + kTilesAhead * kKeysPerTile, after, w.nothing, ahead);
    pack<T, Dot>(tile, ahead, count, H, w);
    for (int64_t row = 0; row < rows; row += kRows) {
      const int64_t n = rows - row < kRows ? rows - row : kRows;
      const typename Dot::word* queries[kRows];
      int64_t limits[kRows];
      for (int64_t r = 0; r < n; ++r) {
        const int64_t token = (row + r) / group, head = t.kv_head * group + (row + r) % group;
        const Q* q = static_cast<const Q*>(a.q) + ((t.first_row + token) * a.heads + head) * H;
        queries[r] = query_words(Dot{}, q, w.queries + r * width, H);
        const int64_t visible = t.first_position + token + 1 - first;
        limits[r] = visible < count ? visible : count;
      }
      attend_some_rows<Dot>(n, a, w, queries, limits, state.max + row, state.sum + row, state.acc + row * width);
    }
  }
}

static void fold(State into, State chunk, int64_t rows, int64_t head_dim) {
  const int64_t width = padded(head_dim, L);
  for (int64_t r = 0; r < rows; ++r) {
    if (chunk.sum[r] == 0.0f) continue;  // a row that sees no key of this chunk
    const float max = into.max[r] > chunk.max[r] ? into.max[r] : chunk.max[r];
    const float keep = vexp(splat(into.max[r] - max))[0], add = vexp(splat(chunk.max[r] - max))[0];
    into.max[r] = max;
    into.sum[r] = rounded(into.sum[r] * keep) + rounded(chunk.sum[r] * add);
    float* acc = into.acc + r * width;
    for (int64_t d = 0; d < width; d += L)
      put(acc + d, rounded(load(acc + d) * keep) + rounded(load(chunk.acc + r * width + d) * add));
  }
}

template <class T>
static void store_of(const Attention& a, const QueryTile& t, State state) {
  const int64_t group = a.heads / a.kv_heads, H = a.head_dim, width = padded(H, L);
  for (int64_t r = 0; r < t.tokens * group; ++r) {
    T* out = static_cast<T*>(a.out) + ((t.first_row + r / group) * a.heads + t.kv_head * group + r % group) * H;
    const float share = 1.0f / state.sum[r];
    each_vector<T>(H, [&](int64_t d, auto, auto set) { set(out + d, load(state.acc + r * width + d) * share); });
  }
}

static void attend_chunk(const Attention& a, const QueryTile& t, int64_t chunk, const Upcoming& after, float* scratch,
                         State state) {
  const auto attend = a.cache_dtype == DType::f32 ? attend_chunk_of<float, float>
                      : a.dtype == DType::f32     ? attend_chunk_of<bf16, float>
                                                  : attend_chunk_of<bf16, bf16>;
  attend(a, t, chunk, after, scratch, state);
}
static void store(const Attention& a, const QueryTile& t, State state) {
  (a.dtype == DType::f32 ? store_of<float> : store_of<bf16>)(a, t, state);
}
