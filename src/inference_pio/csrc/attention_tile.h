// Attention of a tile of queries over one chunk of keys: online softmax over tiles of keys (Dao 2022, algorithm 1).
// Included inside the namespace of an instruction set.
//
// A row is one (token, query head); all rows of a tile share the key/value head, so a key is read once for all of
// them. A row's arithmetic is the same in whatever tile it stands: that is what makes results independent of batching.

constexpr int kRows = 6;  // rows that are computed together: kRows * kColumns accumulators stay in registers
constexpr int kColumns = L == 16 ? 4 : 2;

#include "attention_operands.h"
#include "attention_softmax.h"

// sum[r][c] += rows[r][0 .. steps) times columns [steps, stride] for R rows and C vectors of columns.
template <class Dot, int R, int C>
PIO_INLINE void multiply(vf (&sum)[R][C], const float* rows, int64_t row_words, const float* columns, int64_t stride,
                         int64_t steps) {
  const auto* words = reinterpret_cast<const typename Dot::word*>(rows);
  for (int64_t step = 0; step < steps; ++step) {
    vf b[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) b[c] = load(columns + step * stride + c * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename Dot::word a = words[r * row_words + step];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = Dot::dot(sum[r][c], a, b[c]);
    }
  }
}

// Scores of R rows against `vectors` vectors of packed keys, kColumns of them at a time.
template <class Dot, int R, int C = kColumns>
PIO_INLINE void score_keys(float* scores, const float* queries, const float* keys, int64_t steps, int64_t vectors) {
  for (; vectors >= C; vectors -= C, scores += C * L, keys += C * L) {
    vf sum[R][C] = {};
    multiply<Dot, R, C>(sum, queries, steps, keys, kKeysPerTile, steps);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) put(scores + r * kKeysPerTile + c * L, sum[r][c]);
  }
  if constexpr (C > 1) score_keys<Dot, R, C - 1>(scores, queries, keys, steps, vectors);
}

// acc += weights * packed values, or = where acc is fresh, for R rows and `vectors` vectors of head_dim.
template <class Dot, int R, int C = kColumns>
PIO_INLINE void add_values(float* acc, int64_t stride, bool fresh, const float* weights, const float* values,
                           int64_t steps, int64_t vectors) {
  for (; vectors >= C; vectors -= C, acc += C * L, values += C * L) {
    vf sum[R][C] = {};
    if (!fresh)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) sum[r][c] = load(acc + r * stride + c * L);
    multiply<Dot, R, C>(sum, weights, kKeysPerTile / Dot::pair, values, stride, steps);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) put(acc + r * stride + c * L, sum[r][c]);
  }
  if constexpr (C > 1) add_values<Dot, R, C - 1>(acc, stride, fresh, weights, values, steps, vectors);
}

// A group of R rows against one packed tile.
template <class Dot, int R>
static void attend_group(const Attention& a, const Workspace& w, Ahead& ahead, int64_t share, Group& g) {
  const int64_t width = padded(a.head_dim, L), seen = g.limits[R - 1];
  if (seen <= 0) return;
  ahead.ask(share);
  score_keys<Dot, R>(g.scores, g.queries, w.keys, a.head_dim / Dot::pair, (seen + L - 1) / L);
  if (g.limits[0] < kKeysPerTile) hide<R>(g);
  ahead.ask(share);
  weigh<Dot, R>(g, a.scale * 1.44269504f, width);  // e^x = 2^(x / ln 2)
  ahead.ask(share);
  add_values<Dot, R>(g.acc, width, g.fresh, g.weights, w.values, (seen + Dot::pair - 1) / Dot::pair, width / L);
}
template <class Dot, int R = kRows>
PIO_INLINE void attend_some(int64_t rows, const Attention& a, const Workspace& w, Ahead& ahead, int64_t share,
                            Group& g) {
  if (rows >= R) return attend_group<Dot, R>(a, w, ahead, share, g);
  if constexpr (R > 1) attend_some<Dot, R - 1>(rows, a, w, ahead, share, g);
}

// All rows against one packed tile of `count` keys from `first` on.
template <class Dot>
static void attend_tile(const Attention& a, const Workspace& w, Ahead& ahead, const State& state, int64_t rows,
                        int64_t first, int64_t count, bool fresh) {
  const int64_t width = padded(a.head_dim, L), share = ahead.left() / ((rows + kRows - 1) / kRows * 3) + 1;
  Group g;
  g.scores = w.scores, g.weights = w.weights, g.fresh = fresh;
  for (int64_t row = 0; row < rows; row += kRows) {
    g.reference = state.max + row, g.sums = w.sums + row * L, g.acc = state.acc + row * width;
    g.queries = w.queries + row * (a.head_dim / Dot::pair);
    const int64_t n = rows - row < kRows ? rows - row : kRows;
    for (int64_t r = 0; r < n; ++r) g.limits[r] = w.seen[row + r] - first < count ? w.seen[row + r] - first : count;
    attend_some<Dot>(n, a, w, ahead, share, g);
  }
}

// Queries as the products read them, for every chunk of the tile's keys.
template <class T, class Q>
static void take_queries_of(const Attention& a, const QueryTile& t, float* scratch) {
  using Dot = typename Operands<T>::type;
  const int64_t group = a.heads / a.kv_heads, H = a.head_dim;
  const Workspace w = carve(scratch, t.tokens * group, H);
  for (int64_t token = 0, r = 0; token < t.tokens; ++token)
    for (int64_t head = 0; head < group; ++head, ++r) {
      const Q* q = static_cast<const Q*>(a.q) + ((t.first_row + token) * a.heads + t.kv_head * group + head) * H;
      pack_query(Dot{}, q, w.queries + r * (H / Dot::pair), H);
      w.seen[r] = static_cast<int32_t>(t.first_position + token + 1);
    }
}

template <class T>
static void attend_chunk_of(const Attention& a, const QueryTile& t, int64_t chunk, const Upcoming& after, float* scratch,
                            State state) {
  using Dot = typename Operands<T>::type;
  const int64_t rows = t.tokens * (a.heads / a.kv_heads), H = a.head_dim, width = padded(H, L);
  const Workspace w = carve(scratch, rows, H);
  __builtin_memset(w.nothing, 0, width * sizeof(float));
  __builtin_memset(w.sums, 0, rows * L * sizeof(float));
  for (int64_t r = 0; r < rows; ++r) state.max[r] = kNothingSeen;

  const int64_t known = t.first_position + t.tokens, start = chunk * kKeysPerChunk;
  const int64_t end = start + kKeysPerChunk < known ? start + kKeysPerChunk : known;
  TileRows<T> tile;
  Ahead ahead;
  for (int64_t first = start; first < end; first += kKeysPerTile) {
    const int64_t count = end - first < kKeysPerTile ? end - first : kKeysPerTile;
    tile.find(a, t, first, count, w.nothing);
    ahead.find<T>(a, t, first + kKeysPerTile, after);
    pack<T, Dot>(tile, ahead, count, H, w);
    attend_tile<Dot>(a, w, ahead, state, rows, first, count, first == start);
  }
  for (int64_t r = 0; r < rows; ++r) state.sum[r] = sum_of(load(w.sums + r * L));
}

static void fold(State into, State chunk, int64_t rows, int64_t head_dim) {
  const int64_t width = padded(head_dim, L);
  for (int64_t r = 0; r < rows; ++r) {
    if (chunk.sum[r] == 0.0f) continue;  // a row that sees no key of this chunk
    const float max = into.max[r] > chunk.max[r] ? into.max[r] : chunk.max[r];
    const float keep = power_of_two(splat(into.max[r] - max))[0];
    const float add = power_of_two(splat(chunk.max[r] - max))[0];
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

static void take_queries(const Attention& a, const QueryTile& t, float* scratch) {
  const auto take = a.cache_dtype == DType::f32 ? take_queries_of<float, float>
                    : a.dtype == DType::f32     ? take_queries_of<bf16, float>
                                                : take_queries_of<bf16, bf16>;
  take(a, t, scratch);
}
static void attend_chunk(const Attention& a, const QueryTile& t, int64_t chunk, const Upcoming& after, float* scratch,
                         State state) {
  (a.cache_dtype == DType::f32 ? attend_chunk_of<float> : attend_chunk_of<bf16>)(a, t, chunk, after, scratch, state);
}
static void store(const Attention& a, const QueryTile& t, State state) {
  (a.dtype == DType::f32 ? store_of<float> : store_of<bf16>)(a, t, state);
}
