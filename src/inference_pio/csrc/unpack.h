// Blocks of a packed weight (packed.h) as operands of the product: out of the weight (Stream), or out of memory that
// holds them unpacked (Panel). Included inside the namespace of an instruction set.

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
