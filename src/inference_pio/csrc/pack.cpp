// From the blocks of a GGUF file to the layout of packed.h, and back to floats.
//
// Each file format is read by one function into `Block`: up to 256 numbers with their scales. What follows is the same
// for all of them.
#include <algorithm>
#include <cmath>

#include "pack.h"

namespace pio {
namespace {

// Numbers of one block of the file, and its scales as the file has them.
struct Block {
  alignas(64) uint8_t q[256];
  uint8_t scales[16], minima[16];  // byte formats; a signed scale is stored as its byte
  uint16_t d, dmin;                // halves; of the other formats d is the scale and dmin the minimum, to be added
};

uint16_t half_at(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
uint32_t word_at(const uint8_t* p) {
  uint32_t w;
  std::memcpy(&w, p, 4);
  return w;
}

// 2n numbers out of n bytes: all low halves, then all high halves.
void nibbles(const uint8_t* p, int n, uint8_t* q) {
  for (int i = 0; i < n; ++i) {
    q[i] = p[i] & 15;
    q[i + n] = p[i] >> 4;
  }
}
// Bit i of a little-endian number is the fifth bit of q[i].
void fifth_bits(uint32_t bits, uint8_t* q) {
  for (int i = 0; i < 32; ++i) q[i] |= (bits >> i & 1) << 4;
}

void read_q4_0(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  nibbles(p + 2, 16, b.q);
}
void read_q4_1(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  b.dmin = half_at(p + 2);
  nibbles(p + 4, 16, b.q);
}
void read_q5_0(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  nibbles(p + 6, 16, b.q);
  fifth_bits(word_at(p + 2), b.q);
}
void read_q5_1(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  b.dmin = half_at(p + 2);
  nibbles(p + 8, 16, b.q);
  fifth_bits(word_at(p + 4), b.q);
}
void read_q8_0(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  for (int i = 0; i < 32; ++i) b.q[i] = p[2 + i] ^ 0x80;  // a signed byte plus 128
}
void read_q2_k(const uint8_t* p, Block& b) {
  b.d = half_at(p + 80);
  b.dmin = half_at(p + 82);
  for (int i = 0; i < 16; ++i) {
    b.scales[i] = p[i] & 15;
    b.minima[i] = p[i] >> 4;
  }
  for (int i = 0; i < 256; ++i) b.q[i] = p[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}
void read_q3_k(const uint8_t* p, Block& b) {
  const uint8_t *high = p, *low = p + 32, *scales = p + 96;
  b.d = half_at(p + 108);
  for (int i = 0; i < 16; ++i) {  // 4 low bits in the first 8 bytes, 2 high bits in the last 4
    const int lower = scales[i % 8] >> i / 8 * 4 & 15, upper = scales[8 + i % 4] >> i / 4 * 2 & 3;
    b.scales[i] = static_cast<uint8_t>((lower | upper << 4) - 32);
  }
  for (int i = 0; i < 256; ++i)
    b.q[i] = (low[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) | (high[i % 32] >> i / 32 & 1) << 2;
}
// Eight 6-bit scales and minima in 12 bytes.
void k_scales(const uint8_t* p, Block& b) {
  for (int i = 0; i < 4; ++i) {
    b.scales[i] = p[i] & 63;
    b.minima[i] = p[i + 4] & 63;
    b.scales[i + 4] = (p[i + 8] & 15) | (p[i] >> 6) << 4;
    b.minima[i + 4] = p[i + 8] >> 4 | (p[i + 4] >> 6) << 4;
  }
}
void read_q4_k(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  b.dmin = half_at(p + 2);
  k_scales(p + 4, b);
  for (int i = 0; i < 4; ++i) nibbles(p + 16 + 32 * i, 32, b.q + 64 * i);
}
void read_q5_k(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  b.dmin = half_at(p + 2);
  k_scales(p + 4, b);
  for (int i = 0; i < 4; ++i) nibbles(p + 48 + 32 * i, 32, b.q + 64 * i);
  for (int i = 0; i < 256; ++i) b.q[i] |= (p[16 + i % 32] >> i / 32 & 1) << 4;
}
void read_q6_k(const uint8_t* p, Block& b) {
  b.d = half_at(p + 208);
  for (int i = 0; i < 16; ++i) b.scales[i] = p[192 + i];
  for (int i = 0; i < 2; ++i) nibbles(p + 64 * i, 64, b.q + 128 * i);
  for (int i = 0; i < 256; ++i) b.q[i] |= (p[128 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) << 4;
}
void read_iq4_xs(const uint8_t* p, Block& b) {
  b.d = half_at(p);
  const int high = half_at(p + 2);
  for (int i = 0; i < 8; ++i)
    b.scales[i] = static_cast<uint8_t>(((p[4 + i / 2] >> i % 2 * 4 & 15) | (high >> 2 * i & 3) << 4) - 32);
  for (int i = 0; i < 8; ++i) nibbles(p + 8 + 16 * i, 16, b.q + 32 * i);
}
// `codebook` [256, 8]: for each grid point the numbers (0, 1, 2) of its magnitudes.
void read_iq2_xxs(const uint8_t* p, Block& b, const uint8_t* codebook) {
  b.d = half_at(p);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* at = p + 2 + 8 * group;
    const uint32_t word = word_at(at + 4);
    b.scales[group] = 2 * (word >> 28) + 1;
    for (int i = 0; i < 4; ++i) {
      const uint32_t pattern = word >> 7 * i & 127;
      const uint32_t signs = pattern | (__builtin_popcount(pattern) & 1) << 7;
      for (int k = 0; k < 8; ++k)
        b.q[32 * group + 8 * i + k] = codebook[8 * at[i] + k] | (signs >> k & 1) << 2;
    }
  }
}

void read_block(Format format, const uint8_t* p, const uint8_t* codebook, Block& b) {
  switch (format) {
    case Format::Q4_0: case Format::IQ4_NL: return read_q4_0(p, b);
    case Format::Q4_1: return read_q4_1(p, b);
    case Format::Q5_0: return read_q5_0(p, b);
    case Format::Q5_1: return read_q5_1(p, b);
    case Format::Q8_0: return read_q8_0(p, b);
    case Format::Q2_K: return read_q2_k(p, b);
    case Format::Q3_K: return read_q3_k(p, b);
    case Format::Q4_K: return read_q4_k(p, b);
    case Format::Q5_K: return read_q5_k(p, b);
    case Format::Q6_K: return read_q6_k(p, b);
    case Format::IQ4_XS: return read_iq4_xs(p, b);
    case Format::IQ2_XXS: return read_iq2_xxs(p, b, codebook);
    default: return;
  }
}

void or_word(uint8_t* at, uint32_t word) {
  const uint32_t sum = word_at(at) | word;
  std::memcpy(at, &sum, 4);
}

// The 32 numbers of one row into the planes of its block.
void put_planes(const Layout& layout, const uint8_t* q, uint8_t* planes, int row) {
  uint8_t* at = planes + 4 * row;
  int shift = 0;  // bits that earlier planes have taken
  if (layout.planes8)
    for (int j = 0; j < 8; ++j) std::memcpy(at + kPlane * j, q + 4 * j, 4);
  if (layout.planes4) {
    for (int j = 0; j < 8; ++j) or_word(at + kPlane * (j % 4), (word_at(q + 4 * j) & 0x0f0f0f0fu) << j / 4 * 4);
    at += 4 * kPlane;
    shift = 4;
  }
  if (layout.planes2) {
    for (int j = 0; j < 8; ++j)
      or_word(at + kPlane * (j / 4), (word_at(q + 4 * j) >> shift & 0x03030303u) << j % 4 * 2);
    at += 2 * kPlane;
    shift += 2;
  }
  if (layout.planes1)
    for (int j = 0; j < 8; ++j) or_word(at, (word_at(q + 4 * j) >> shift & 0x01010101u) << j);
}

// Where a block of a group lies, and the super that it belongs to.
struct Place {
  int64_t super, block;
};
Place place_of(const Layout& layout, int64_t block) {
  const int64_t supers = block / kSuperBlocks;
  const int64_t super =
      layout.group_head() + supers * (layout.super_head() + kSuperBlocks * layout.block_bytes());
  return {super, super + layout.super_head() + block % kSuperBlocks * layout.block_bytes()};
}

void put_half(uint8_t* at, int index, uint16_t value) { std::memcpy(at + 2 * index, &value, 2); }

// Row `row` of a group out of one row of the file.
void pack_row(const Packed& w, const uint8_t* file_row, const uint8_t* codebook, uint8_t* group, int row) {
  const Layout layout = layout_of(w.format);
  const int64_t file_blocks = w.columns / layout.columns_in_file;
  const int per_file_block = layout.columns_in_file / kBlock;
  Block b;
  float unit = 0.0f;  // of the 16-bit minima: the largest one is 32767 units; not finite if one of them is not
  if (layout.minimum == Minimum::i16) {
    for (int64_t i = 0; i < file_blocks; ++i) {
      const float size = std::fabs(half_to_float(half_at(file_row + i * layout.block_bytes_in_file + 2)));
      unit = size > unit || std::isnan(size) ? size : unit;
    }
    unit /= 32767.0f;
    std::memcpy(group + 4 * row, &unit, 4);
  }
  for (int64_t i = 0; i < file_blocks; ++i) {
    read_block(w.format, file_row + i * layout.block_bytes_in_file, codebook, b);
    for (int part = 0; part < per_file_block; ++part) {
      const Place place = place_of(layout, i * per_file_block + part);
      uint8_t* at = group + place.block;
      put_planes(layout, b.q + kBlock * part, at, row);
      at += kPlane * layout.planes();
      if (layout.super_scales) {
        if (part == 0) put_half(group + place.super, row, b.d);
        if (part == 0 && layout.minimum == Minimum::u8) put_half(group + place.super, kGroupRows + row, b.dmin);
        for (int s = 0; s < layout.subs; ++s) {
          at[kGroupRows * s + row] = b.scales[layout.subs * part + s];
          if (layout.minimum == Minimum::u8)
            at[layout.scale_bytes() + kGroupRows * s + row] = b.minima[layout.subs * part + s];
        }
      } else {
        put_half(at, row, b.d);
        if (layout.minimum == Minimum::i16) {  // the file adds it, the product takes it away
          const bool countable = unit > 0.0f && std::isfinite(unit);
          const float units = countable ? std::nearbyint(-half_to_float(b.dmin) / unit) : 0.0f;
          put_half(at + layout.scale_bytes(), row, static_cast<uint16_t>(static_cast<int16_t>(units)));
        }
      }
    }
  }
}

int number_at(const Layout& layout, const uint8_t* planes, int row, int column) {
  const int quad = column / 4;
  const uint8_t* at = planes + 4 * row + column % 4;
  int q = 0, shift = 0;
  if (layout.planes8) q = at[kPlane * quad];
  if (layout.planes4) {
    q = at[kPlane * (quad % 4)] >> quad / 4 * 4 & 15;
    at += 4 * kPlane;
    shift = 4;
  }
  if (layout.planes2) {
    q |= (at[kPlane * (quad / 4)] >> quad % 4 * 2 & 3) << shift;
    at += 2 * kPlane;
    shift += 2;
  }
  if (layout.planes1) q |= (at[0] >> quad & 1) << shift;
  return layout.table ? layout.table[q] : q;
}

}  // namespace

void pack_group(const Packed& w, const uint8_t* file, const uint8_t* codebook, int64_t group, uint8_t* to) {
  const Layout layout = layout_of(w.format);
  const int64_t row_bytes = w.columns / layout.columns_in_file * layout.block_bytes_in_file;
  std::memset(to, 0, layout.group_bytes(w.columns));
  const int64_t first = group * kGroupRows, rows = std::min<int64_t>(kGroupRows, w.rows - first);
  for (int row = 0; row < rows; ++row) pack_row(w, file + (first + row) * row_bytes, codebook, to, row);
}

void unpack_row(const Packed& w, int64_t index, float* to) {
  const Layout layout = layout_of(w.format);
  const uint8_t* group = w.data + index / kGroupRows * layout.group_bytes(w.columns);
  const int row = static_cast<int>(index % kGroupRows);
  const auto half = [](const uint8_t* at, int i) { return half_to_float(half_at(at + 2 * i)); };
  for (int64_t block = 0; block < w.columns / kBlock; ++block) {
    const Place place = place_of(layout, block);
    const uint8_t *planes = group + place.block, *scales = planes + kPlane * layout.planes();
    const uint8_t* minima = scales + layout.scale_bytes();
    for (int column = 0; column < kBlock; ++column) {
      const int at = kGroupRows * (column * layout.subs / kBlock) + row;
      float scale, minimum = 0.0f;
      if (layout.super_scales) {
        const int units = layout.signed_scales ? static_cast<int8_t>(scales[at]) : scales[at];
        scale = half(group + place.super, row) * layout.unit * static_cast<float>(units);
        if (layout.minimum == Minimum::u8) minimum = half(group + place.super, kGroupRows + row) * minima[at];
      } else {
        scale = half(scales, row);
        float unit;
        std::memcpy(&unit, group + 4 * row, 4);
        if (layout.minimum == Minimum::i16) minimum = unit * static_cast<int16_t>(half_at(minima + 2 * row));
      }
      *to++ = scale * static_cast<float>(number_at(layout, planes, row, column) - layout.offset) - minimum;
    }
  }
}

}  // namespace pio
