// Blocks of a packed weight (packed.h) as operands of the product: out of the weight (Stream), or out of memory that
// holds them unpacked (Panel). Included inside the namespace of an instruction set.

// What the product of one block needs to know of its format at compile time.
template <int Subs, int Offset, Minimum M, bool Small>
struct Kind {
  static constexpr int subs = Subs, offset = Offset;
  static constexpr bool minima = M != Minimum::none, small = Small;
  // Minima have one unit in the whole row: the product is computed in it, and multiplied by it in the end.
  static constexpr bool in_units = M == Minimum::i16;
};
template <Format F>
struct KindOf {
  static constexpr Layout layout = layout_of(F);
  using type = Kind<layout.subs, layout.offset, layout.minimum, layout.offset != 128>;
};

// Bits [from, from + bits) of every byte, moved to bit `to`: shifted with the whole lane, what comes in from the
// neighbour byte is masked.
PIO_INLINE vu field(vb x, int from, int bits, int to) {
  const vu lanes = (vu)x, moved = from > to ? lanes >> (from - to) : lanes << (to - from);
  return moved & (((1u << bits) - 1) << to) * 0x01010101u;
}

// Quad j of the block whose planes begin at `plane`.
template <Format F>
PIO_INLINE vb unpack_quad(const uint8_t* plane, int j) {
  constexpr Layout layout = layout_of(F);
  if constexpr (layout.planes8 != 0) return load_as<vb>(plane + kPlane * j);
  vu q = {};
  int bit = 0;
  if constexpr (layout.planes4 != 0) {
    q = field(load_as<vb>(plane + kPlane * (j % 4)), j / 4 * 4, 4, 0);
    plane += 4 * kPlane;
    bit = 4;
  }
  if constexpr (layout.planes2 != 0) {
    q |= field(load_as<vb>(plane + kPlane * (j / 4)), j % 4 * 2, 2, bit);
    plane += 2 * kPlane;
    bit += 2;
  }
  if constexpr (layout.planes1 != 0) q |= field(load_as<vb>(plane), j, 1, bit);
  if constexpr (layout.table != nullptr) return look_up((vb)q, layout.table);
  return (vb)q;
}

// A weight's blocks one after the other, for one slice of a group's rows. Minima are two 16-bit numbers a lane: of two
// blocks, the second of which is zero until it is read, or of a block's halves where those differ.
template <Format F>
struct Stream {
  using K = typename KindOf<F>::type;
  static constexpr Layout layout = layout_of(F);
  static constexpr bool reads = true;

  const uint8_t* at;
  int slice;
  int64_t block;
  vf d, unit_;  // of the scales (of all the row's scales where the product is in units), of the minima
  const uint8_t* planes;  // of the block that was read last: quads are unpacked where they are used
  vf scale_[K::subs];
  vi minima_;

  // Stands at `first_block`, which begins a super.
  PIO_INLINE Stream begin(const uint8_t* group, int slice, int64_t first_block) {
    Stream s;
    s.slice = slice;
    s.block = first_block - 1;
    s.unit_ = s.d = vf{};
    if constexpr (K::in_units) {
      const vf unit = load_as<vf>(group + 4 * L * slice);
      s.unit_ = unit == 0.0f ? splat(1.0f) : unit;
      s.d = 1.0f / s.unit_;
    }
    const int64_t supers = first_block / kSuperBlocks;
    s.at = group + layout.group_head() + supers * (layout.super_head() + kSuperBlocks * layout.block_bytes());
    return s;
  }

  inline __attribute__((always_inline)) vb weights(int j) const { return unpack_quad<F>(planes, j); }
  inline __attribute__((always_inline)) vf scale(int s) const { return scale_[s]; }
  inline __attribute__((always_inline)) vi minima() const { return minima_; }
  inline __attribute__((always_inline)) vf unit() const { return unit_; }

  // Reads the block it stands at, the first or `second` of a pair, and steps behind it.
  inline __attribute__((always_inline)) void read(bool second) {
    ++block;
    if constexpr (layout.super_scales)
      if (block % kSuperBlocks == 0) {
        d = halves(at + 2 * L * slice);
        if constexpr (layout.unit != 1.0f) d *= layout.unit;
        if constexpr (layout.minimum == Minimum::u8) unit_ = halves(at + 2 * kGroupRows + 2 * L * slice);
        at += layout.super_head();
      }
    planes = at + 4 * L * slice;
    const uint8_t* scales = at + kPlane * layout.planes();
    const uint8_t* minima = scales + layout.scale_bytes();
    if constexpr (layout.super_scales) {
#pragma GCC unroll 2
      for (int s = 0; s < K::subs; ++s)
        scale_[s] = d * __builtin_convertvector(
                            bytes_to_ints(scales + kGroupRows * s + L * slice, layout.signed_scales), vf);
    } else {
      scale_[0] = halves(scales + 2 * L * slice);
      if constexpr (K::in_units) scale_[0] *= d;
    }
    if constexpr (layout.minimum == Minimum::i16) take_minima(shorts_to_ints(minima + 2 * L * slice), second);
    if constexpr (layout.minimum == Minimum::u8 && K::subs == 1) take_minima(bytes_to_ints(minima + L * slice, false), second);
    if constexpr (layout.minimum == Minimum::u8 && K::subs == 2)
      minima_ = bytes_to_ints(minima + L * slice, false) | bytes_to_ints(minima + kGroupRows + L * slice, false) << 16;
    at += layout.block_bytes();
  }
  inline __attribute__((always_inline)) void take_minima(vi x, bool second) {
    minima_ = second ? minima_ | x << 16 : x & 0xffff;
  }
  inline __attribute__((always_inline)) void next() {}
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
  // Of the block before: a pair of blocks has both minima at the second, and all blocks of a pair share the unit.
  inline __attribute__((always_inline)) vi minima() const { return load_as<vi>(at - block_bytes + minima_at); }
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
