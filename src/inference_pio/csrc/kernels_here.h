// All kernels for the instruction set that the including file has chosen.

namespace pio {
namespace PIO_NAMESPACE {

#include "vec.h"
#include "integers.h"
#include "rows.h"
#include "kept_heads.h"

#include "attention_tile.h"
#include "unpack.h"
#include "matmul_tile.h"
#include "quantize_row.h"
#include "dense_tile.h"
#include "mixers.h"

}  // namespace PIO_NAMESPACE

const Kernels PIO_TABLE = {
    PIO_NAME,
    PIO_LANES,
    PIO_NAMESPACE::rms_norm,
    PIO_NAMESPACE::activate_and_mul,
    PIO_NAMESPACE::row_max,
    PIO_NAMESPACE::rope,
    PIO_NAMESPACE::convert,
    PIO_NAMESPACE::quantize_head,
    PIO_NAMESPACE::quantize_row,
    PIO_NAMESPACE::multiply_unit,
    PIO_NAMESPACE::unit_scratch_bytes,
    PIO_NAMESPACE::multiply_dense,
    PIO_NAMESPACE::gated_norm,
    PIO_NAMESPACE::sigmoid_gate,
    PIO_NAMESPACE::add_gated,
    PIO_NAMESPACE::convolve,
    PIO_NAMESPACE::sum_exp,
    PIO_NAMESPACE::normalise,
    PIO_NAMESPACE::delta_token,
    PIO_NAMESPACE::add_rows,
    PIO_NAMESPACE::scratch_floats,
    PIO_NAMESPACE::take_queries,
    PIO_NAMESPACE::attend_chunk,
    PIO_NAMESPACE::fold,
    PIO_NAMESPACE::store,
};

}  // namespace pio
