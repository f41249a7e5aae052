// Keys and values in 4 bits, as the products of attention read them. Included inside the namespace of an instruction set,
// behind attention_operands.h.

// Where eight numbers of 4 bits stand that a word of a head holds: four neighbours in the lower halves of its bytes, four
// in the upper halves.
struct Eight {
  int64_t low, high;
};
PIO_INLINE Eight eight_of(int64_t word, int64_t H) {
  const int64_t group = word / 4 * kNibbleGroup, rest = H - group;
  const int64_t low = group + word % 4 * 4;
  return {low, low + (rest < kNibbleGroup ? rest : kNibbleGroup) / 2};
}
// Numbers n from 0 to 15 as floats n - 7.5; bits above the lowest four are not looked at.
#ifdef PIO_AVX512
PIO_INLINE vf levels(vi x) {
  const __m512 table = _mm512_setr_ps(-7.5f, -6.5f, -5.5f, -4.5f, -3.5f, -2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f, 3.5f, 4.5f,
                                      5.5f, 6.5f, 7.5f);
  return (vf)_mm512_permutexvar_ps((__m512i)x, table);
}
#else
PIO_INLINE vf levels(vi x) { return __builtin_convertvector(x & 15, vf) - 7.5f; }
#endif
#ifdef PIO_BF16_DOT
// Both halves of every lane, as bfloat16; bits above the lowest four of a half are not looked at.
PIO_INLINE vf level_pairs(vi x) {
  const __m512i eight = _mm512_setr_epi32(0xc0d0c0f0, 0xc090c0b0, 0xc020c060, 0xbf00bfc0, 0x3fc03f00, 0x40604020, 0x40b04090,
                                          0x40f040d0, 0xc0d0c0f0, 0xc090c0b0, 0xc020c060, 0xbf00bfc0, 0x3fc03f00, 0x40604020,
                                          0x40b04090, 0x40f040d0);
  return (vf)_mm512_permutexvar_epi16((__m512i)x, eight);
}
#endif
// A word's eight numbers, of L keys, to where the product with queries takes them. Pairs are of every other number of
// four, which one shift makes: queries come in that order too.
PIO_INLINE void spread(Floats, vu x, const Eight& at, float* to) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    put(to + (at.low + i) * kKeysPerTile, levels((vi)(x >> (8 * i))));
    put(to + (at.high + i) * kKeysPerTile, levels((vi)(x >> (8 * i + 4))));
  }
}
#ifdef PIO_BF16_DOT
PIO_INLINE void spread(Pairs, vu x, const Eight& at, float* to) {
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    put(to + (at.low / 2 + i) * kKeysPerTile, level_pairs((vi)(x >> (8 * i))));
    put(to + (at.high / 2 + i) * kKeysPerTile, level_pairs((vi)(x >> (8 * i + 4))));
  }
}
#endif
PIO_INLINE void order_query(Floats, float*, int64_t) {}
#ifdef PIO_BF16_DOT
PIO_INLINE void order_query(Pairs, float* q, int64_t H) {
  for (int64_t d = 0; d < H; d += 4) {
    const float second = q[d + 1];
    q[d + 1] = q[d + 2], q[d + 2] = second;
  }
}
#endif

// Numbers [d, d + L) of a head in 4 bits, one a lane, in its lowest four bits; what lies behind H is any.
PIO_INLINE vi load_numbers(const nibbles* row, int64_t d, int64_t H) {
  const int64_t group = d / kNibbleGroup * kNibbleGroup, within = d % kNibbleGroup;
  const uint8_t* at = reinterpret_cast<const uint8_t*>(row) + group / 2;
  if (group + kNibbleGroup <= H) return bytes_to_ints(at + within % 16, false) >> (within < 16 ? 0 : 4);
  vi x = {};
  for (int64_t i = 0, half = (H - group) / 2; i < L && d + i < H; ++i) {
    const int64_t one = within + i;
    x[i] = one < half ? at[one] & 15 : at[one - half] >> 4;
  }
  return x;
}

template <int C>
PIO_INLINE void load_values(Floats, const nibbles* const* key, int64_t d, int64_t H, vf (&to)[C]) {
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c, d += L) to[c] = levels(load_numbers(key[0], d, H));
}
#ifdef PIO_BF16_DOT
template <int C>
PIO_INLINE void load_values(Pairs, const nibbles* const* key, int64_t d, int64_t H, vf (&to)[C]) {
#pragma GCC unroll 8
  for (int c = 0; c < C; c += 2, d += 2 * L) {
    if (c + 1 < C && d % kNibbleGroup == 0 && d + kNibbleGroup <= H) {
      const vi first = bytes_to_ints(&key[0][d / 2].bits, false), second = bytes_to_ints(&key[1][d / 2].bits, false);
      const vi both = first | second << 16;
      to[c] = level_pairs(both);
      to[c + 1] = level_pairs(both >> 4);
      continue;
    }
    const auto some = [&](int64_t at) {
      return level_pairs(load_numbers(key[0], at, H) | load_numbers(key[1], at, H) << 16);
    };
    to[c] = some(d);
    if (c + 1 < C) to[c + 1] = some(d + L);
  }
}
#endif

// Keys in 4 bits, as `pack_keys` of the others: a word of eight is turned at once.
template <class Dot>
static PackedTile pack_keys(const TileRows<nibbles>& rows, Ahead& ahead, int64_t count, int64_t H, float* to) {
  const int64_t words = H / 8, lines = ahead.left() * L / (4 * kKeysPerTile);
  for (int64_t j = 0; j < count; j += L) {
    ahead.ask(lines);
    for (int64_t word = 0; word < words; word += L) {
      vf square[L];
#ifdef PIO_AVX512
      if (words - word == L / 2) {
        const auto half = [&](int64_t key) { return _mm256_loadu_si256((const __m256i*)(rows.key[j + key] + word * 4)); };
#pragma GCC unroll 8
        for (int i = 0; i < L / 2; ++i)
          square[i] = (vf)_mm512_inserti64x4(_mm512_castsi256_si512(half(i)), half(L / 2 + i), 1);
        transpose_halves(square, AllLanes{});
#pragma GCC unroll 8
        for (int i = 0; i < L / 2; ++i) spread(Dot{}, (vu)square[i], eight_of(word + i, H), to + j);
        continue;
      }
#endif
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i)
        square[i] = load_fours(reinterpret_cast<const int8_t*>(rows.key[j + i] + word * 4), (words - word) * 4);
      transpose(square);
      for (int i = 0; i < L && word + i < words; ++i) spread(Dot{}, (vu)square[i], eight_of(word + i, H), to + j);
    }
  }
  return {to, kKeysPerTile};
}
