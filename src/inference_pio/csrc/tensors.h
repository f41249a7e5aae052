// What the operators ask of their tensors: checks with one line of text, memory, threads. torch's stable ABI only.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "kernels.h"

namespace pio {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_layout(const Tensor& x, const char* name, int64_t dim) {
  STD_TORCH_CHECK(x.dim() == dim, name, " has ", x.dim(), " dimensions, expected ", dim);
  STD_TORCH_CHECK(x.is_contiguous(), name, " is not contiguous");
  STD_TORCH_CHECK(x.is_cpu(), name, " is not on the CPU");
}
inline void check_type(const Tensor& x, const char* name, ScalarType type) {
  STD_TORCH_CHECK(x.scalar_type() == type, name, " has dtype ", torch::headeronly::toString(x.scalar_type()),
                  ", expected ", torch::headeronly::toString(type));
}
inline void check_size(const Tensor& x, const char* name, int64_t dim, int64_t size) {
  STD_TORCH_CHECK(x.size(dim) == size, name, " has size ", x.size(dim), " in dimension ", dim, ", expected ", size);
}

inline DType dtype_of(const Tensor& x, const char* name) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, name, " has dtype ",
                  torch::headeronly::toString(type), ", expected Float or BFloat16");
  return type == ScalarType::Float ? DType::f32 : DType::bf16;
}
inline int64_t bytes_of(DType type) { return type == DType::f32 ? 4 : 2; }

// A fresh contiguous tensor of x's dtype.
template <int N>
Tensor empty_like(const Tensor& x, const int64_t (&sizes)[N]) {
  int64_t strides[N], stride = 1;
  for (int i = N - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= sizes[i];
  }
  int32_t type, device;
  aoti_torch_get_dtype(x.get(), &type);
  aoti_torch_get_device_type(x.get(), &device);
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(N, sizes, strides, type, device, 0, &made));
  return Tensor(made);
}

// Rows in parallel where they are worth waking a thread for.
template <class F>
void parallel_rows(int64_t rows, int64_t values_per_row, const F& f) {
  constexpr int64_t kWorthAThread = 16384;
  const int64_t grain = std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(1, values_per_row));
  if (rows <= grain)
    f(int64_t{0}, rows);
  else
    torch::stable::parallel_for(0, rows, grain, f);
}

const Kernels& kernels();

Tensor paged_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_tables,
                       const Tensor& query_start, const Tensor& seq_lens, double scale);

}  // namespace pio
