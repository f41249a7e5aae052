// Attention of a tile of queries over one chunk of keys: online softmax over tiles of keys (Dao 2022, algorithm 1).
// Included inside the namespace of an instruction set.
//
// A row is one (token, query head); all rows of a tile share the key/value head, so a key is read once for all of
// them. A row's arithmetic is the same in whatever tile it stands: that is what makes results independent of batching.

constexpr int kRows = 6;  // rows that are computed together: kRows * kColumns accumulators stay in registers
constexpr int kColumns = L == 16 ? 4 : 2;

#include "attention_operands.h"
#include "attention_nibbles.h"
#include "attention_softmax.h"

// sum[r][c] += rows[r][0 .. steps) times the columns from `column` on, for R rows and C vectors of columns.
template <class Dot, int R, int C, class Columns>
PIO_INLINE void multiply(vf (&sum)[R][C], const float* rows, int64_t row_words, const Columns& columns, int64_t column,
                         int64_t steps) {
  const auto* words = reinterpret_cast<const typename Dot::word*>(rows);
  for (int64_t step = 0; step < steps; ++step) {
    vf b[C];
    columns.load_columns(step, column, b);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename Dot::word a = words[r * row_words + step];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = Dot::dot(sum[r][c], a, b[c]);
    }
  }
}

// Scores of the R rows of a group against `keys` packed keys, kColumns vectors of them at a time.
template <class Dot, int R, int C = kColumns>
PIO_INLINE void score(const Group& g, const PackedTile& packed, int64_t steps, int64_t keys, int64_t from = 0) {
  for (; from + (C - 1) * L < keys; from += C * L) {
    vf sum[R][C] = {};
    multiply<Dot, R, C>(sum, g.queries, steps, packed, from, steps);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        if constexpr (Dot::scaled) sum[r][c] = sum[r][c] * load(g.key_scales + from + c * L);
        put(g.scores + r * kKeysPerTile + from + c * L, sum[r][c]);
      }
  }
  if constexpr (C > 1) score<Dot, R, C - 1>(g, packed, steps, keys, from);
}

// acc += weights * values, or = where acc is fresh, for the R rows of a group.
template <class Dot, int R, int C = kColumns, class Values>
PIO_INLINE void add(const Group& g, const Values& values, int64_t steps, int64_t width, int64_t from = 0) {
  for (; from + C * L <= width; from += C * L) {
    vf sum[R][C] = {};
    if (!g.fresh)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) sum[r][c] = load(g.acc + r * width + from + c * L);
    multiply<Dot, R, C>(sum, g.weights, kKeysPerTile / Dot::pair, values, from, steps);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) put(g.acc + r * width + from + c * L, sum[r][c]);
  }
  if constexpr (C > 1) add<Dot, R, C - 1>(g, values, steps, width, from);
}

// A group of R rows against one tile.
template <class Dot, int R, class Values>
static void attend_group(const Attention& a, const PackedTile& keys, const Values& values, Ahead& ahead, int64_t lines,
                         Group& g) {
  const int64_t width = padded(a.head_dim, L), seen = g.limits[R - 1];
  if (seen <= 0 || g.starts[0] >= kKeysPerTile) return;
  ahead.ask(lines);
  score<Dot, R>(g, keys, a.head_dim / Dot::pair, seen);
  if (g.limits[0] < kKeysPerTile || g.starts[R - 1] > 0) hide<R>(g);
  ahead.ask(lines);
  weigh<Dot, R>(g, a.scale * 1.44269504f, width);  // e^x = 2^(x / ln 2)
  add<Dot, R>(g, values, (seen + Dot::pair - 1) / Dot::pair, width);
}
template <class Dot, int R = kRows, class Values>
PIO_INLINE void attend_some(int64_t rows, const Attention& a, const PackedTile& keys, const Values& values,
                            Ahead& ahead, int64_t lines, Group& g) {
  if (rows >= R) return attend_group<Dot, R>(a, keys, values, ahead, lines, g);
  if constexpr (R > 1) attend_some<Dot, R - 1>(rows, a, keys, values, ahead, lines, g);
}

// All rows against one tile of `count` keys from `first` on; `fresh`: the first tile of a chunk. Where the window of a
// group's first row begins in the tile, it is the group's first of the chunk.
template <class Dot, class T, class Values>
static void attend_tile(const Attention& a, const Workspace& w, const TileRows<T>& tile, const PackedTile& keys,
                        const Values& values, Ahead& ahead, const State& state, int64_t rows, int64_t first,
                        int64_t count, bool fresh) {
  const int64_t width = padded(a.head_dim, L), lines = ahead.left() / ((rows + kRows - 1) / kRows * 4) + 1;
  Group g;
  g.scores = w.scores, g.weights = w.weights;
  g.key_scales = tile.key_scales, g.value_scales = tile.value_scales;
  for (int64_t row = 0; row < rows; row += kRows) {
    g.reference = state.max + row, g.sums = w.sums + row * L, g.acc = state.acc + row * width;
    g.queries = w.queries + row * (a.head_dim / Dot::pair);
    g.fresh = fresh || w.unseen[row] >= first;
    const int64_t n = rows - row < kRows ? rows - row : kRows;
    for (int64_t r = 0; r < n; ++r) {
      g.starts[r] = w.unseen[row + r] - first;
      g.limits[r] = w.seen[row + r] - first < count ? w.seen[row + r] - first : count;
    }
    attend_some<Dot>(n, a, keys, values, ahead, lines, g);
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
      float* words = w.queries + r * (H / Dot::pair);
      if constexpr (Dot::scaled) {
        convert_of<float, Q>(w.nothing, q, H);
        turn(w.nothing, H);
        if (a.cache_dtype == DType::i4) order_query(Dot{}, w.nothing, H);
        pack_query(Dot{}, static_cast<const float*>(w.nothing), words, H);
      } else {
        pack_query(Dot{}, q, words, H);
      }
      w.seen[r] = static_cast<int32_t>(t.first_position + token + 1);
      w.unseen[r] = static_cast<int32_t>(a.unseen(t.first_position + token));
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

  const int64_t known = t.first_position + t.tokens, chunk_end = (chunk + 1) * kKeysPerChunk;
  const int64_t start = first_key(a, t) > chunk * kKeysPerChunk ? first_key(a, t) : chunk * kKeysPerChunk;
  const int64_t end = chunk_end < known ? chunk_end : known;
  TileRows<T> tile;
  Ahead ahead;
  for (int64_t first = start; first < end; first += kKeysPerTile) {
    const int64_t count = end - first < kKeysPerTile ? end - first : kKeysPerTile;
    tile.find(a, t, first, count, w.nothing);
    ahead.find<T>(a, t, first + kKeysPerTile, after);
    const PackedTile keys = pack_keys<Dot>(tile, ahead, count, H, w.keys);
    const auto attend = [&](const auto& values) {
      attend_tile<Dot>(a, w, tile, keys, values, ahead, state, rows, first, count, first == start);
    };
    if (rows <= kRows) {  // packing values pays where several groups use them
      const int64_t steps = (count + Dot::pair - 1) / Dot::pair * ((width / L + kColumns - 1) / kColumns);
      attend(CachedValues<Dot, T>{tile, H, ahead, ahead.left() / (2 * steps) + 1});
    } else {
      attend(pack_values<Dot>(tile, count, H, w.values));
    }
  }
  for (int64_t r = 0; r < rows; ++r) state.sum[r] = sum_of(load(w.sums + r * L));
}

static void fold(State into, State chunk, int64_t rows, int64_t head_dim) {
  const int64_t width = padded(head_dim, L);
  for (int64_t r = 0; r < rows; ++r) {
    if (chunk.sum[r] == 0.0f) continue;  // a row that sees no key of this chunk
    if (into.sum[r] == 0.0f) {  // nor of those before
      into.max[r] = chunk.max[r], into.sum[r] = chunk.sum[r];
      __builtin_memcpy(into.acc + r * width, chunk.acc + r * width, width * sizeof(float));
      continue;
    }
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
    const float share = state.sum[r] == 0.0f ? __builtin_nanf("") : 1.0f / state.sum[r];  // 0: no score was finite
    float* acc = state.acc + r * width;
    if (a.scales == nullptr) {
      each_vector<T>(H, [&](int64_t d, auto, auto set) { set(out + d, load(acc + d) * share); });
      continue;
    }
    for (int64_t d = 0; d < width; d += L) put(acc + d, load(acc + d) * share);
    turn(acc, H);
    convert_of<T, float>(out, acc, H);
  }
}

static void take_queries(const Attention& a, const QueryTile& t, float* scratch) {
  const bool floats = a.dtype == DType::f32;
  const auto take = a.cache_dtype == DType::f32    ? take_queries_of<float, float>
                    : a.cache_dtype == DType::bf16 ? (floats ? take_queries_of<bf16, float> : take_queries_of<bf16, bf16>)
                                                   : (floats ? take_queries_of<int8_t, float> : take_queries_of<int8_t, bf16>);
  take(a, t, scratch);
}
static void attend_chunk(const Attention& a, const QueryTile& t, int64_t chunk, const Upcoming& after, float* scratch,
                         State state) {
  const auto attend = a.cache_dtype == DType::f32    ? attend_chunk_of<float>
                      : a.cache_dtype == DType::bf16 ? attend_chunk_of<bf16>
                      : a.cache_dtype == DType::i8   ? attend_chunk_of<int8_t>
                                                     : attend_chunk_of<nibbles>;
  attend(a, t, chunk, after, scratch, state);
}
static void store(const Attention& a, const QueryTile& t, State state) {
  (a.dtype == DType::f32 ? store_of<float> : store_of<bf16>)(a, t, state);
}
