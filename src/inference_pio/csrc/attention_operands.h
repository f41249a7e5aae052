// How attention lays out its operands: queries, keys and values as the products read them. Included inside the
// namespace of an instruction set.

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

// The memory of one thread, cut out of its scratch.
struct Workspace {
  float *keys, *values, *queries, *scores, *weights, *sums, *nothing, *end;
  int32_t* seen;  // how many keys of its sequence each row sees
};
PIO_INLINE Workspace carve(float* scratch, int64_t rows, int64_t head_dim) {
  const int64_t width = padded(head_dim, L);
  Workspace w;
  const auto take = [&](int64_t n) {
    float* piece = scratch;
    scratch += padded(n, 16);
    return piece;
  };
  w.keys = take(width * kKeysPerTile);
  w.values = take(width * kKeysPerTile);
  w.queries = take(rows * width);
  w.scores = take(kRows * kKeysPerTile);
  w.weights = take(kRows * kKeysPerTile);
  w.sums = take(rows * L);
  w.nothing = take(width);
  w.seen = reinterpret_cast<int32_t*>(take(rows));
  w.end = scratch;
  return w;
}
static int64_t scratch_floats(int64_t rows, int64_t head_dim) {
  float origin;
  return carve(&origin, rows, head_dim).end - &origin;
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

// A row's query as words: H / pair of them.
template <class Q>
PIO_INLINE void pack_query(Floats, const Q* q, float* to, int64_t H) {
  each_vector<float>(H, [&](int64_t d, auto, auto set) { set(to + d, load_words(Floats{}, q + d, H - d)); });
}
#ifdef PIO_BF16_DOT
PIO_INLINE void pack_query(Pairs, const bf16* q, float* to, int64_t H) { __builtin_memcpy(to, q, H * sizeof(bf16)); }
PIO_INLINE void pack_query(Pairs, const float* q, float* to, int64_t H) {
  convert_of<bf16, float>(to, q, H);
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

// Where the keys and values of a tile lie in the cache, keys first; rows behind `count` point at zeros.
template <class T>
struct TileRows {
  const T* at[2 * kKeysPerTile];

  const T* const* keys() const { return at; }
  const T* const* values() const { return at + kKeysPerTile; }

  void find(const Attention& a, const QueryTile& t, int64_t first, int64_t count, const float* zeros) {
    const int64_t H = a.head_dim;
    int64_t block = first / a.block_size, offset = first % a.block_size, j = 0;
    count = count < kKeysPerTile ? count : kKeysPerTile;
    for (; j < count; ++block, offset = 0) {
      const int64_t base = (t.blocks[block] * a.kv_heads + t.kv_head) * a.block_size;
      const int64_t in_block = a.block_size - offset, until = count - j < in_block ? count : j + in_block;
      for (int64_t row = (base + offset) * H; j < until; ++j, row += H) {
        at[j] = static_cast<const T*>(a.k) + row;
        at[kKeysPerTile + j] = static_cast<const T*>(a.v) + row;
      }
    }
    for (; j < kKeysPerTile; ++j) at[j] = at[kKeysPerTile + j] = reinterpret_cast<const T*>(zeros);
  }
};

// The tile that is read after this one: of the same queries, or of those the thread turns to next. Its rows are asked
// for a few at a time while this tile is computed: blocks lie anywhere in memory, so the processor cannot guess where
// they are, and memory that nobody asks for anything stands still.
template <class T>
struct Ahead {
  TileRows<T> rows;
  int64_t bytes;  // of a row
  int64_t next = 2 * kKeysPerTile;

  void find(const Attention& a, const QueryTile& t, int64_t first, const Upcoming& after, const float* zeros) {
    bytes = a.head_dim * sizeof(T);
    next = 0;
    if (first < after.end) return rows.find(a, t, first, after.end - first, zeros);
    if (after.tile == nullptr) {
      next = 2 * kKeysPerTile;
      return;
    }
    rows.find(a, *after.tile, after.first, after.tile->first_position + after.tile->tokens - after.first, zeros);
  }
  void ask(int64_t count) {
    const int64_t end = next + count < 2 * kKeysPerTile ? next + count : 2 * kKeysPerTile;
    for (; next < end; ++next) {
      const char* row = reinterpret_cast<const char*>(rows.at[next]);
      for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte, 0, 2);
    }
  }
  int64_t left() const { return 2 * kKeysPerTile - next; }
};

// A tile of up to kKeysPerTile keys and values: keys turned so that a vector holds L keys, values as rows. What lies
// behind `count` is never read from the cache and stands as zero.
template <class T, class Dot>
static void pack(const TileRows<T>& rows, Ahead<T>& ahead, int64_t count, int64_t H, const Workspace& w) {
  const int64_t width = padded(H, L), steps = H / Dot::pair;
  for (int64_t j = 0; j < count; j += L) {
    ahead.ask(L / 2);
    for (int64_t step = 0; step < steps; step += L) {
      vf square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = load_words(Dot{}, rows.keys()[j + i] + step * Dot::pair, steps - step);
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) put(w.keys + (step + i) * kKeysPerTile + j, square[i]);
    }
  }
  for (int64_t j = 0; j < count; j += Dot::pair) {
    if (j % 4 == 0) ahead.ask(1);
    pack_values(Dot{}, rows.values() + j, w.values + j / Dot::pair * width, H);
  }
}
