// How quantised weights lie in memory for the matrix product: an order in which one pass from front to back feeds
// every lane of a vector, whatever its width.
//
// A weight is [rows, K]. 16 rows form a group; a group is one stream of blocks of 32 columns (K is a multiple of 32).
// A value is an unsigned number q of 2 to 8 bits, and
//
//   weight = scale * (value - offset) - minimum        value = q, or table[q] where the format has a table
//
// with a scale (and minimum) per 32 or per 16 columns. Within a block, columns form 8 quads (j = 0 … 7) of 4: a
// "plane" of 64 bytes holds 4 neighbouring columns of 16 rows, row r at bytes 4r … 4r + 3. A byte dot product
// (vpdpbusd and its kin) then multiplies a plane by 4 activations and adds into one 32-bit sum per row. Bits are cut
// so that unpacking is a shift and a mask:
//
//   8 bits  8 planes, plane j is quad j
//   4 bits  4 planes, plane i has quad i in its low and quad i + 4 in its high halves of bytes
//   2 bits  2 planes, plane i has quads 4i … 4i + 3, two bits each from the lowest
//   1 bit   1 plane,  bit j is quad j
//
// 5, 6 and 3 bits are 4 + 1, 4 + 2 and 2 + 1: the low bits' planes come first.
//
//   group  = [16 × float: unit of the minima, if they are 16-bit] then supers
//   super  = 8 blocks (the last may have fewer); formats with a scale of scales begin it with
//            [16 × half: d] [16 × half: dmin, if there are minima]
//   block  = planes, then scales: 16 × half, or 16 (32) × byte to be multiplied by d; then minima: 16 × int16, or
//            16 (32) × byte to be multiplied by dmin
//
// Rows that are missing in the last group are zero.
#pragma once

#include <cstdint>
#include <cstring>

namespace pio {

constexpr int kGroupRows = 16;
constexpr int kUnitRows = 32;    // rows of two groups, which the product takes together
constexpr int kBlock = 32;       // columns per block
constexpr int kSuperBlocks = 8;  // blocks per super
constexpr int kPlane = 64;       // bytes

enum class Format : int32_t {
  Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, IQ2_XXS, count
};
enum class Minimum { none, i16, u8 };

struct Layout {
  int planes8, planes4, planes2, planes1;
  int subs;  // scales per block: 1 (of 32 columns) or 2 (of 16)
  bool super_scales, signed_scales;
  Minimum minimum;
  int offset;
  const uint8_t* table;  // 16 values, or null
  int block_bytes_in_file, columns_in_file;
  float unit = 1.0f;  // what d is multiplied by

  constexpr int planes() const { return planes8 + planes4 + planes2 + planes1; }
  constexpr int scale_bytes() const { return super_scales ? kGroupRows * subs : 2 * kGroupRows; }
  constexpr int minimum_bytes() const {
    return minimum == Minimum::none ? 0 : minimum == Minimum::i16 ? 2 * kGroupRows : kGroupRows * subs;
  }
  constexpr int64_t block_bytes() const { return kPlane * planes() + scale_bytes() + minimum_bytes(); }
  constexpr int64_t super_head() const {
    return super_scales ? 2 * kGroupRows * (minimum == Minimum::u8 ? 2 : 1) : 0;
  }
  constexpr int64_t group_head() const { return minimum == Minimum::i16 ? 4 * kGroupRows : 0; }
  constexpr int64_t group_bytes(int64_t columns) const {
    const int64_t blocks = columns / kBlock;
    return group_head() + blocks * block_bytes() + (blocks + kSuperBlocks - 1) / kSuperBlocks * super_head();
  }
};

// ggml's 4-bit codebook (kvalues_iq4nl in ggml-common.h) plus 128.
constexpr uint8_t kIq4Values[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
// The magnitudes of ggml's iq2_xxs grid with both signs, plus 64: index = magnitude number + 4 * sign.
constexpr uint8_t kIq2Values[16] = {72, 89, 107, 64, 56, 39, 21, 64, 64, 64, 64, 64, 64, 64, 64, 64};

constexpr Layout layout_of(Format format) {
  constexpr Minimum none = Minimum::none, i16 = Minimum::i16, u8 = Minimum::u8;
  switch (format) {
    case Format::Q4_0: return {0, 4, 0, 0, 1, false, false, none, 8, nullptr, 18, 32};
    case Format::Q4_1: return {0, 4, 0, 0, 1, false, false, i16, 0, nullptr, 20, 32};
    case Format::Q5_0: return {0, 4, 0, 1, 1, false, false, none, 16, nullptr, 22, 32};
    case Format::Q5_1: return {0, 4, 0, 1, 1, false, false, i16, 0, nullptr, 24, 32};
    case Format::Q8_0: return {8, 0, 0, 0, 1, false, false, none, 128, nullptr, 34, 32};
    case Format::Q2_K: return {0, 0, 2, 0, 2, true, false, u8, 0, nullptr, 84, 256};
    case Format::Q3_K: return {0, 0, 2, 1, 2, true, true, none, 4, nullptr, 110, 256};
    case Format::Q4_K: return {0, 4, 0, 0, 1, true, false, u8, 0, nullptr, 144, 256};
    case Format::Q5_K: return {0, 4, 0, 1, 1, true, false, u8, 0, nullptr, 176, 256};
    case Format::Q6_K: return {0, 4, 2, 0, 2, true, true, none, 32, nullptr, 210, 256};
    case Format::IQ4_NL: return {0, 4, 0, 0, 1, false, false, none, 128, kIq4Values, 18, 32};
    case Format::IQ4_XS: return {0, 4, 0, 0, 1, true, true, none, 128, kIq4Values, 136, 256};
    case Format::IQ2_XXS: return {0, 0, 2, 1, 1, true, false, none, 64, kIq2Values, 66, 256, 0.125f};
    default: return {};
  }
}

// A packed weight in memory.
struct Packed {
  Format format;
  const uint8_t* data;
  int64_t rows, columns;

  int64_t groups() const { return (rows + kGroupRows - 1) / kGroupRows; }
};

// Activations as the product reads them: signed bytes with one scale per kActivationGroup columns. Minima and offsets
// are the same for all columns of a block, so that they are multiplied with the block's sum: it stands here with its
// sign turned, of each 16 columns and of each 32; for minima in 16 bits, that two go into a lane, for offsets in 32 and
// times the offset that needs no more work. Rows begin at multiples of 64 bytes.
constexpr int kActivationGroup = 64;
constexpr int kBlockOffset = 8, kHalfOffset = 32;
struct Quantized {
  int8_t* values;          // [tokens, value_stride]
  int16_t *less, *halves;  // [tokens, less_stride], one per block; [tokens, 2 * less_stride], one per 16 columns
  int32_t *block_offsets, *half_offsets;  // the same, times kBlockOffset and kHalfOffset
  float* scales;                          // [tokens, scale_stride]
  int64_t value_stride, less_stride, scale_stride;

  static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
  static int64_t bytes(int64_t tokens, int64_t columns) {
    return tokens * (up(columns, 64) + up(columns / kBlock, 32) * 18 +
                     up(up(columns, kActivationGroup) / kActivationGroup, 16) * 4);
  }
  static Quantized at(uint8_t* memory, int64_t tokens, int64_t columns) {
    Quantized x;
    x.value_stride = up(columns, 64);
    x.less_stride = up(columns / kBlock, 32);
    x.scale_stride = up(up(columns, kActivationGroup) / kActivationGroup, 16);
    x.values = reinterpret_cast<int8_t*>(memory);
    x.less = reinterpret_cast<int16_t*>(memory + tokens * x.value_stride);
    x.halves = x.less + tokens * x.less_stride;
    x.block_offsets = reinterpret_cast<int32_t*>(x.halves + 2 * tokens * x.less_stride);
    x.half_offsets = x.block_offsets + tokens * x.less_stride;
    x.scales = reinterpret_cast<float*>(x.half_offsets + 2 * tokens * x.less_stride);
    return x;
  }
  Quantized from(int64_t token) const {
    Quantized x = *this;
    x.values += token * value_stride;
    x.less += token * less_stride;
    x.halves += token * 2 * less_stride;
    x.block_offsets += token * less_stride;
    x.half_offsets += token * 2 * less_stride;
    x.scales += token * scale_stride;
    return x;
  }
};

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, exponent = (half >> 10) & 31, mantissa = half & 1023;
  uint32_t bits;
  if (exponent == 31) bits = sign | 0x7f800000 | mantissa << 13;
  else if (exponent != 0) bits = sign | (exponent + 112) << 23 | mantissa << 13;
  else {  // subnormal or zero: the mantissa in units of 2^-24
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    std::memcpy(&bits, &value, 4);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace pio
