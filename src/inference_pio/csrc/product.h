// What the products with packed weights share: parts of a weight, activations in signed bytes, a unit of rows.
#pragma once

#include <algorithm>
#include <vector>

#include "tensors.h"
#include "work.h"

namespace pio {

// A product of so few tokens is as fast as its weight is read, and the processor reads a stretch of this length best by
// itself: it has more lines under way than a program can ask for.
constexpr int64_t kReadingTokens = 2, kLongStretch = 64 << 10;
// A thread first takes a long stretch of its own, its share of all but this part of the units; those go, in so many pieces,
// to whoever is through sooner.
constexpr int64_t kLeftPart = 16, kPieces = 32;
constexpr int64_t kNobodyAsks = -1;

// Rows [first, first + weight.rows) of the result.
struct Segment {
  Packed weight;
  int64_t first;

  int64_t units() const { return (weight.rows + kUnitRows - 1) / kUnitRows; }
  int64_t bytes() const { return weight.groups() * layout_of(weight.format).group_bytes(weight.columns); }
  const uint8_t* group(int64_t index) const {
    return weight.data + index * layout_of(weight.format).group_bytes(weight.columns);
  }
};

// A float32 tensor's rows as the product reads them, in this thread's memory or in memory that the team shares.
//
// A few activations are quantised by each thread for itself: that is sooner done than waited for.
template <class Tag>
Quantized quantized(const Team& team, const float* x, int64_t rows, int64_t columns, int64_t few, uint8_t* shared) {
  const bool alone = rows * columns <= few;
  uint8_t* memory = alone ? scratch_of<Tag>(Quantized::bytes(rows, columns)) : shared;
  const Quantized q = Quantized::at(memory, rows, columns);
  const auto quantize = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) kernels().quantize_row(x + t * columns, columns, q.from(t));
  };
  if (alone) {
    quantize(0, rows);
  } else {
    team.share(rows, std::max<int64_t>(1, rows / (4 * team.size)), quantize);
    team.wait();
  }
  return q;
}

// `rows` of the result from `out` on, tokens `width` apart, are those of the unit; `bias` of each group, or null. `edge`
// [count, kUnitRows] is for a unit that has more rows than the result.
inline void multiply_rows(Unit unit, const Quantized& q, int64_t count, const float* const (&bias)[2], float* out,
                          int64_t width, int64_t rows, uint8_t* scratch, float* edge) {
  if (rows == (unit.gated ? 1 : unit.count) * kGroupRows) {
    unit.bias[0] = bias[0], unit.bias[1] = bias[1], unit.out = out, unit.stride = width;
    return kernels().multiply_unit(unit, q, count, scratch);
  }
  float padded[2][kGroupRows] = {};
  for (int64_t g = 0; g < unit.count && bias[g] != nullptr; ++g) {
    std::copy_n(bias[g], unit.gated ? rows : std::min<int64_t>(kGroupRows, rows - g * kGroupRows), padded[g]);
    unit.bias[g] = padded[g];
  }
  unit.out = edge, unit.stride = kUnitRows;
  kernels().multiply_unit(unit, q, count, scratch);
  for (int64_t t = 0; t < count; ++t) std::copy_n(edge + kUnitRows * t, rows, out + t * width);
}

inline Format checked_format(int64_t format) {
  STD_TORCH_CHECK(format >= 0 && format < static_cast<int64_t>(Format::count), "format ", format, " does not exist");
  return static_cast<Format>(format);
}

// `parts` int64 [segments, 2]: format and rows of each; `memory` holds them one behind the other.
inline std::vector<Segment> segments_at(const uint8_t* memory, const Tensor& parts, int64_t columns) {
  check_layout(parts, "parts", 2);
  check_type(parts, "parts", ScalarType::Long);
  const int64_t* at = static_cast<const int64_t*>(parts.data_ptr());
  std::vector<Segment> segments;
  int64_t row = 0;
  for (int64_t i = 0; i < parts.size(0); ++i, at += 2) {
    segments.push_back({{checked_format(at[0]), memory, at[1], columns}, row});
    row += at[1];
    memory += segments.back().bytes();
  }
  return segments;
}

}  // namespace pio
