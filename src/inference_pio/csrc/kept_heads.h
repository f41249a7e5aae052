// A head's key or value in whole numbers of 8 or 4 bits, as ops/kept_heads.py has it. Included inside the namespace of an
// instruction set, behind integers.h.

constexpr int64_t kNibbleGroup = 32;  // lower halves of 16 bytes hold the first 16 numbers, upper halves the others

// Sums and differences of lanes whose numbers differ in bit S, then in the bits above.
template <int S, int... I>
PIO_INLINE vi upper_lanes(Lanes<I...>) {
  return vi{((I & S) ? -1 : 0)...};
}
template <int S = 1>
PIO_INLINE vf turn_lanes(vf x) {
  if constexpr (S < L) {
    const vf other = swap_halves<S>(x, AllLanes{});
    return turn_lanes<2 * S>(upper_lanes<S>(AllLanes{}) ? other - x : x + other);
  }
  return x;
}

// n values times Hadamard's matrix of +1 and -1, in place, in parts as wide as the largest power of two that divides n.
static void turn(float* x, int64_t n) {
  const int64_t width = n & -n;
  int64_t step = 1;
  if (width >= L) {
    for (int64_t i = 0; i < n; i += L) put(x + i, turn_lanes(load(x + i)));
    for (step = L; step < width; step *= 2)
      for (int64_t part = 0; part < n; part += 2 * step)
        for (int64_t i = part; i < part + step; i += L) {
          const vf low = load(x + i), high = load(x + i + step);
          put(x + i, low + high);
          put(x + i + step, low - high);
        }
    return;
  }
  for (; step < width; step *= 2)
    for (int64_t part = 0; part < n; part += 2 * step)
      for (int64_t i = part; i < part + step; ++i) {
        const float low = x[i], high = x[i + step];
        x[i] = low + high;
        x[i + step] = low - high;
      }
}

// The bfloat16 that is the next one to a positive number, or NaN.
PIO_INLINE uint16_t rounded_up(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>(x <= __FLT_MAX__ ? (bits + 0xffff) >> 16 : 0x7fc0);
}
PIO_INLINE float float_of(uint16_t upper) {
  const uint32_t bits = static_cast<uint32_t>(upper) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// Two numbers a byte: `whole` has one a byte, n of them.
PIO_INLINE void put_nibbles(const int8_t* whole, int64_t n, uint8_t* to) {
  for (int64_t group = 0; group < n; group += kNibbleGroup) {
    const int64_t half = (n - group < kNibbleGroup ? n - group : kNibbleGroup) / 2;
    for (int64_t i = 0; i < half; ++i)
      to[group / 2 + i] = static_cast<uint8_t>((whole[group + i] & 15) | whole[group + half + i] << 4);
  }
}

// x, which is turned in place, as whole numbers times one scale. What is not finite, or too small to divide by, has no
// whole numbers: they are the middle one, and the scale, NaN or next to nothing, says the rest.
static void quantize_head(DType type, float* x, int64_t n, void* to, uint16_t* scale) {
  const float part = 1.0f / static_cast<float>(n & -n);
  each_vector<float>(n, [&](int64_t i, auto get, auto set) { set(x + i, rounded(get(x + i) * part)); });
  turn(x, n);
  vf top = {}, odd = {};
  each_vector<float>(n, [&](int64_t i, auto get, auto) {
    const vf value = get(x + i);
    top = vmax((vf)((vi)value & 0x7fffffff), top);
    odd += value * 0.0f;  // NaN where a value is not finite
  });
  const float largest = max_of(top) + sum_of(odd);
  *scale = rounded_up(largest / (type == DType::i8 ? 127.0f : 8.0f));
  const float inverse = 1.0f / float_of(*scale);
  const int32_t usable = inverse <= __FLT_MAX__ ? -1 : 0;
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const auto whole = [&](vf scaled) { return ((vi)(scaled + magic) - (vi)magic) & usable; };
  if (type == DType::i8) {
    each_vector<float>(n, [&](int64_t i, auto get, auto) {
      put_bytes(static_cast<int8_t*>(to) + i, whole(rounded(get(x + i) * inverse)), n - i);
    });
    return;
  }
  int8_t* numbers = reinterpret_cast<int8_t*>(x);  // a byte of a number that has been read
  each_vector<float>(n, [&](int64_t i, auto get, auto) {
    const vi level = whole(rounded(rounded(get(x + i) * inverse) - 0.5f));
    put_bytes(numbers + i, (level > 7 ? vi{} + 7 : level < -8 ? vi{} - 8 : level) + 8, n - i);
  });
  put_nibbles(numbers, n, static_cast<uint8_t*>(to));
}
