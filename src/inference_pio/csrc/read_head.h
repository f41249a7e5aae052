// A head's key or value out of a cache of any type, as floats: for what looks at caches outside of attention itself.
#pragma once

#include <cstring>

#include "kernels.h"

namespace pio {

inline float float_of_bf16(uint16_t upper) {
  const uint32_t bits = static_cast<uint32_t>(upper) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// As ops/kept_heads.py turns, in its order of additions.
inline void turn_head(float* x, int64_t n) {
  const int64_t width = n & -n;
  for (int64_t step = 1; step < width; step *= 2)
    for (int64_t part = 0; part < n; part += 2 * step)
      for (int64_t i = part; i < part + step; ++i) {
        const float low = x[i], high = x[i + step];
        x[i] = low + high;
        x[i + step] = low - high;
      }
}

// Row `row` of a cache [rows, H numbers]; whole numbers are turned back, and have a scale of their own.
inline void read_head(DType type, const void* cache, int64_t row, int64_t H, const uint16_t* scale, float* to) {
  if (type == DType::f32) {
    std::memcpy(to, static_cast<const float*>(cache) + row * H, H * sizeof(float));
  } else if (type == DType::bf16) {
    const uint16_t* x = static_cast<const uint16_t*>(cache) + row * H;
    for (int64_t i = 0; i < H; ++i) to[i] = float_of_bf16(x[i]);
  } else {
    const float unit = float_of_bf16(*scale);
    if (type == DType::i8) {
      const int8_t* x = static_cast<const int8_t*>(cache) + row * H;
      for (int64_t i = 0; i < H; ++i) to[i] = x[i] * unit;
    } else {
      const uint8_t* x = static_cast<const uint8_t*>(cache) + row * H / 2;
      constexpr int64_t kGroup = 32;  // lower halves of 16 bytes hold the first 16 numbers, upper halves the others
      for (int64_t group = 0; group < H; group += kGroup) {
        const int64_t half = (H - group < kGroup ? H - group : kGroup) / 2;
        for (int64_t i = 0; i < half; ++i) {
          const uint8_t both = x[group / 2 + i];
          to[group + i] = ((both & 15) - 7.5f) * unit;
          to[group + half + i] = ((both >> 4) - 7.5f) * unit;
        }
      }
    }
    turn_head(to, H);
  }
}

}  // namespace pio
