// How attention lays out its operands: queries, keys and values as the products read them. Included inside the
// namespace of an instruction set.

// How two operands meet: one float times one float, or two bfloat16 pairs added into a float.
struct Floats {
  static constexpr int pair = 1;
  static constexpr bool scaled = false;
  using word = float;  // what a row offers per step, broadcast to all lanes
  PIO_INLINE vf dot(vf sum, word a, vf b) { return sum + a * b; }
};
#ifdef PIO_BF16_DOT
struct Pairs {
  static constexpr int pair = 2;
  static constexpr bool scaled = false;
  using word = int32_t __attribute__((may_alias));
  PIO_INLINE vf dot(vf sum, word a, vf b) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
  }
};
#endif
// Whole numbers, which either kind of operand holds exactly: a score is multiplied by the scale of its key, a weight by
// that of its value, so that no key and no value has to be.
template <class Dot>
struct Scaled : Dot {
  static constexpr bool scaled = true;
};
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
template <>
struct Operands<int8_t> {
  using type = Scaled<Operands<bf16>::type>;
};
struct nibbles {  // two numbers of 4 bits
  uint8_t bits;
};
template <>
struct Operands<nibbles> {
  using type = Scaled<Operands<bf16>::type>;
};
template <class T>
constexpr int64_t kNumbersIn = 1;
template <>
constexpr int64_t kNumbersIn<nibbles> = 2;

// The memory of one thread, cut out of its scratch.
struct Workspace {
  float *keys, *values, *queries, *scores, *weights, *sums, *nothing, *end;
  int32_t *seen, *unseen;  // keys of its sequence up to each row's own, and those of them before its window
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
  w.unseen = reinterpret_cast<int32_t*>(take(rows));
  w.end = scratch;
  return w;
}
static int64_t scratch_floats(int64_t rows, int64_t head_dim) {
  float origin;
  return carve(&origin, rows, head_dim).end - &origin;
}

// One word of a cached key per step: a float, or the two bfloat16 that `Pairs` takes, as they lie in memory.
template <class T>
PIO_INLINE vf load_words(Floats, const T* p, int64_t n) {
  return n < L ? load_part(p, n) : load(p);
}
#ifdef PIO_BF16_DOT
PIO_INLINE vf load_words(Pairs, const bf16* p, int64_t n) {
  vf words = {};
  if (n >= L) return load_as<vf>(p);
  __builtin_memcpy(&words, p, n * 4);
  return words;
}
#endif

// L words of four whole numbers, of which n numbers are there.
PIO_INLINE vf load_fours(const int8_t* p, int64_t n) {
  vf words = {};
  if (n >= 4 * L) return load_as<vf>(p);
  __builtin_memcpy(&words, p, n);
  return words;
}
// A word's whole numbers, the lowest byte first: put where a float's magnitude makes them one, less that magnitude.
PIO_INLINE void spread_two(vi x, vf& low, vf& high) {
  low = (vf)((x & 0xff) ^ 0x4b000080) - 8388736.0f;    // 2^23 + 128: bytes count from -128 on
  high = (vf)((x & 0xff00) ^ 0x47008000) - 32896.0f;  // 2^15 + 128
}
PIO_INLINE void spread(Floats, vi x, float* to) {
  vf part[4];
  spread_two(x, part[0], part[1]);
  spread_two((vi)((vu)x >> 16), part[2], part[3]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) put(to + i * kKeysPerTile, part[i]);
}
#ifdef PIO_BF16_DOT
PIO_INLINE void spread(Pairs, vi x, float* to) {
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    vf low, high;
    spread_two((vi)((vu)x >> (16 * i)), low, high);
    put(to + i * kKeysPerTile, (vf)((vu)low >> 16 | (vu)high));
  }
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

// Words [d, d + C * L) of the H that the values of one key (Floats), or of two neighbours in turns (Pairs), make.
template <int C, class T>
PIO_INLINE void load_values(Floats, const T* const* key, int64_t d, int64_t H, vf (&to)[C]) {
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c, d += L) to[c] = load_words(Floats{}, key[0] + d, H - d);
}
#ifdef PIO_BF16_DOT
template <int C, class T>
PIO_INLINE void load_values(Pairs, const T* const* key, int64_t d, int64_t H, vf (&to)[C]) {
#pragma GCC unroll 8
  for (int c = 0; c < C; c += 2, d += 2 * L) {
    if constexpr (sizeof(T) == sizeof(bf16))
      if (c + 1 < C && d + 2 * L <= H) {
        const vhh first = load_as<vhh>(key[0] + d), second = load_as<vhh>(key[1] + d);
        to[c] = (vf)interleave<0>(first, second, PairLanes{});
        to[c + 1] = (vf)interleave<L>(first, second, PairLanes{});
        continue;
      }
    const auto some = [&](int64_t at) {
      const vu first = (vu)load_words(Floats{}, key[0] + at, H - at);
      return bits_to_float((first >> 16) | (vu)load_words(Floats{}, key[1] + at, H - at));
    };
    to[c] = some(d);
    if (c + 1 < C) to[c + 1] = some(d + L);
  }
}
#endif

// f(j, n, block, offset): of `count` keys from `first` on, [j, j + n) lie in one block of this head, from `offset` on.
template <class F>
PIO_INLINE void each_block(const Attention& a, const QueryTile& t, int64_t first, int64_t count, const F& f) {
  int64_t block = first / a.block_size, offset = first % a.block_size;
  for (int64_t j = 0; j < count; ++block, offset = 0) {
    const int64_t n = count - j < a.block_size - offset ? count - j : a.block_size - offset;
    f(j, n, t.blocks[block] * a.kv_heads + t.kv_head, offset);
    j += n;
  }
}

// Where the keys and values of a tile lie in the cache, and their scales; rows behind `count` point at zeros.
template <class T>
struct TileRows {
  const T *key[kKeysPerTile], *value[kKeysPerTile];
  float key_scales[kKeysPerTile], value_scales[kKeysPerTile];  // where T has some

  void find(const Attention& a, const QueryTile& t, int64_t first, int64_t count, const float* zeros) {
    each_block(a, t, first, count, [&](int64_t j, int64_t n, int64_t block, int64_t offset) {
      if constexpr (Operands<T>::type::scaled) {
        const bf16* scales = reinterpret_cast<const bf16*>(a.scales) + block * 2 * a.block_size + offset;
        convert_of<float, bf16>(key_scales + j, scales, n);
        convert_of<float, bf16>(value_scales + j, scales + a.block_size, n);
      }
      const int64_t row = a.head_dim / kNumbersIn<T>;
      int64_t at = (block * a.block_size + offset) * row;
      for (const int64_t end = j + n; j < end; ++j, at += row)
        key[j] = static_cast<const T*>(a.k) + at, value[j] = static_cast<const T*>(a.v) + at;
    });
    for (int64_t j = count; j < kKeysPerTile; ++j) {
      key[j] = value[j] = reinterpret_cast<const T*>(zeros);
      if constexpr (Operands<T>::type::scaled) key_scales[j] = value_scales[j] = 0.0f;
    }
  }
};

// The tile that is read after this one: of the same queries, or of those the thread turns to next. Its lines are asked
// for a few at a time while this tile is computed: blocks lie anywhere in memory, so the processor cannot guess where
// they are, and memory that nobody asks for anything stands still.
class Ahead {
 public:
  template <class T>
  void find(const Attention& a, const QueryTile& t, int64_t first, const Upcoming& after) {
    used_ = now_ = left_ = 0;
    if (first < after.end) return add<T>(a, t, first, after.end - first);
    if (after.tile != nullptr)
      add<T>(a, *after.tile, after.first, after.tile->first_position + after.tile->tokens - after.first);
  }
  int64_t left() const { return left_; }
  void ask(int64_t lines) {
    while (lines > 0 && now_ < used_) {
      Run& run = runs_[now_];
      const int64_t n = lines < run.lines ? lines : run.lines;
      for (int64_t i = 0; i < n; ++i) __builtin_prefetch(run.at + 64 * i, 0, 2);
      run.at += 64 * n, run.lines -= n, lines -= n, left_ -= n;
      if (run.lines == 0) ++now_;
    }
  }

 private:
  struct Run {
    const char* at;
    int64_t lines;
  };
  template <class T>
  void add(const Attention& a, const QueryTile& t, int64_t first, int64_t count) {
    const auto run = [&](const void* at, int64_t bytes) {
      const int64_t lines = (bytes + 63) / 64;
      runs_[used_++] = {static_cast<const char*>(at), lines};
      left_ += lines;
    };
    const auto block_of = [&](int64_t, int64_t n, int64_t block, int64_t offset) {
      const int64_t row = a.head_dim / kNumbersIn<T>, at = (block * a.block_size + offset) * row, bytes = n * row * sizeof(T);
      if constexpr (Operands<T>::type::scaled)
        for (int64_t which = 0; which < 2; ++which)
          run(a.scales + (2 * block + which) * a.block_size + offset, n * sizeof(bf16));
      run(static_cast<const T*>(a.k) + at, bytes);
      run(static_cast<const T*>(a.v) + at, bytes);
    };
    each_block(a, t, first, count < kKeysPerTile ? count : kKeysPerTile, block_of);
  }
  Run runs_[4 * kKeysPerTile];
  int64_t used_, now_, left_;
};

// Keys and values as `multiply` takes them: C vectors of words from `column` on, of one step.
struct PackedTile {
  const float* at;
  int64_t stride;

  template <int C>
  void load_columns(int64_t step, int64_t column, vf (&to)[C]) const {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) to[c] = load(at + step * stride + column + c * L);
  }
};
template <class Dot, class T>
struct CachedValues {
  const TileRows<T>& rows;
  int64_t H;
  Ahead& ahead;
  int64_t lines;  // to ask for with every step: many at once would be dropped

  template <int C>
  void load_columns(int64_t step, int64_t column, vf (&to)[C]) const {
    ahead.ask(lines);
    load_values<C>(Dot{}, rows.value + step * Dot::pair, column, H, to);
  }
};

// Up to kKeysPerTile keys, turned so that a vector holds L of them. What lies behind `count` stands as zero.
template <class Dot, class T>
static PackedTile pack_keys(const TileRows<T>& rows, Ahead& ahead, int64_t count, int64_t H, float* to) {
  const int64_t steps = H / Dot::pair, lines = ahead.left() * L / (4 * kKeysPerTile);
  for (int64_t j = 0; j < count; j += L) {
    ahead.ask(lines);
    for (int64_t step = 0; step < steps; step += L) {
      vf square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = load_words(Dot{}, rows.key[j + i] + step * Dot::pair, steps - step);
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) put(to + (step + i) * kKeysPerTile + j, square[i]);
    }
  }
  return {to, kKeysPerTile};
}

// The same keys in whole numbers. A word of four is turned at once, and spread afterwards: half the exchanges that
// turning operands would take.
template <class Dot>
static PackedTile pack_keys(const TileRows<int8_t>& rows, Ahead& ahead, int64_t count, int64_t H, float* to) {
  const int64_t words = (H + 3) / 4, lines = ahead.left() * L / (4 * kKeysPerTile);
  for (int64_t j = 0; j < count; j += L) {
    ahead.ask(lines);
    for (int64_t word = 0; word < words; word += L) {
      vf square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = load_fours(rows.key[j + i] + word * 4, H - word * 4);
      transpose(square);
      float* at = to + word * (4 / Dot::pair) * kKeysPerTile + j;
      const auto put_word = [&](int i) { spread(Dot{}, (vi)square[i], at + i * (4 / Dot::pair) * kKeysPerTile); };
      if (words - word < L) {
        for (int i = 0; i < words - word; ++i) put_word(i);
        continue;
      }
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) put_word(i);
    }
  }
  return {to, kKeysPerTile};
}
template <class Dot, class T>
static PackedTile pack_values(const TileRows<T>& rows, int64_t count, int64_t H, float* to) {
  const int64_t width = padded(H, L), steps = (count + Dot::pair - 1) / Dot::pair;
  for (int64_t step = 0; step < steps; ++step)
    for (int64_t d = 0; d < width;) {
      const auto copy = [&](auto& words) {
        load_values(Dot{}, rows.value + step * Dot::pair, d, H, words);
        for (const vf& word : words) put(to + step * width + d, word), d += L;
      };
      vf two[2], one[1];
      d + 2 * L <= width ? copy(two) : copy(one);
    }
  return {to, width};
}
