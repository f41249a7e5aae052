// Packing weights, and reading single rows of packed ones.
#pragma once

#include "packed.h"

namespace pio {

// 16 rows of a file's tensor (rows in order, blocks in order within a row) into the group's place.
void pack_group(const Packed&, const uint8_t* file, const uint8_t* codebook, int64_t group, uint8_t* to);

// One row as floats: scale * (value - offset) - minimum.
void unpack_row(const Packed&, int64_t row, float* to);

}  // namespace pio
