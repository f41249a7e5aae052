// The operators that torch sees, and those of them that work row by row.
#include <algorithm>
#include <cstring>
#include <string>

#include "tensors.h"

namespace pio {

static const Kernels* chosen = choose_kernels("");

const Kernels& kernels() { return *chosen; }

// Every operator from here on uses this instruction set; an empty name stands for the best one.
static std::string use_isa(std::string name) {
  const Kernels* found = choose_kernels(name.c_str());
  STD_TORCH_CHECK(found != nullptr, "this processor cannot run the instruction set '", name,
                  "': use portable, avx2, avx512 or avx512_bf16 as far as it has them");
  chosen = found;
  return found->name;
}

static Tensor norm(const Tensor& x, const Tensor* residual, const Tensor& weight, double eps) {
  check_layout(x, "x", 2);
  check_layout(weight, "weight", 1);
  check_size(weight, "weight", 0, x.size(1));
  check_type(weight, "weight", x.scalar_type());
  const DType type = dtype_of(x, "x");
  const int64_t rows = x.size(0), D = x.size(1), row_bytes = D * bytes_of(type);
  Tensor y = empty_like(x, {rows, D});
  char* to = static_cast<char*>(y.data_ptr());
  const char* from = static_cast<const char*>(x.data_ptr());
  char* sum = residual == nullptr ? nullptr : static_cast<char*>(residual->data_ptr());
  const void* w = weight.data_ptr();
  parallel_rows(rows, D, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * row_bytes;
    kernels().rms_norm(type, to + at, from + at, sum == nullptr ? nullptr : sum + at, w, static_cast<float>(eps),
                       end - begin, D);
  });
  return y;
}

static Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) { return norm(x, nullptr, weight, eps); }

static Tensor add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps) {
  check_layout(residual, "residual", 2);
  check_type(residual, "residual", x.scalar_type());
  for (int dim : {0, 1}) check_size(residual, "residual", dim, x.size(dim));
  return norm(x, &residual, weight, eps);
}

static Tensor silu_and_mul(const Tensor& x) {
  check_layout(x, "x", 2);
  STD_TORCH_CHECK(x.size(1) % 2 == 0, "x has ", x.size(1), " columns, expected an even number");
  const DType type = dtype_of(x, "x");
  const int64_t rows = x.size(0), I = x.size(1) / 2, row_bytes = I * bytes_of(type);
  Tensor y = empty_like(x, {rows, I});
  char* to = static_cast<char*>(y.data_ptr());
  const char* from = static_cast<const char*>(x.data_ptr());
  parallel_rows(rows, 2 * I, [&](int64_t begin, int64_t end) {
    kernels().silu_and_mul(type, to + begin * row_bytes, from + 2 * begin * row_bytes, end - begin, I);
  });
  return y;
}

static void check_indices(const Tensor& indices, const char* name, int64_t count, int64_t below) {
  check_layout(indices, name, 1);
  check_type(indices, name, ScalarType::Long);
  check_size(indices, name, 0, count);
  const int64_t* at = static_cast<const int64_t*>(indices.data_ptr());
  for (int64_t i = 0; i < count; ++i)
    STD_TORCH_CHECK(at[i] >= 0 && at[i] < below, name, "[", i, "] is ", at[i], ", expected 0 to ", below - 1);
}

static Tensor rope_and_cache(const Tensor& qkv, const Tensor& positions, const Tensor& cos_sin, const Tensor& k_cache,
                             const Tensor& v_cache, const Tensor& slot_mapping, int64_t N, int64_t M) {
  check_layout(qkv, "qkv", 2);
  check_layout(cos_sin, "cos_sin", 2);
  check_type(cos_sin, "cos_sin", ScalarType::Float);
  const DType type = dtype_of(qkv, "qkv");
  const int64_t T = qkv.size(0), H = cos_sin.size(1), size = bytes_of(type);
  STD_TORCH_CHECK(N > 0 && M > 0 && H % 2 == 0, "num_heads and num_kv_heads are positive and head_dim is even");
  check_size(qkv, "qkv", 1, (N + 2 * M) * H);
  for (const Tensor* cache : {&k_cache, &v_cache}) {
    check_layout(*cache, "cache", 4);
    check_type(*cache, "cache", qkv.scalar_type());
    check_size(*cache, "cache", 1, M);
    check_size(*cache, "cache", 3, H);
    for (int dim : {0, 2}) check_size(*cache, "cache", dim, k_cache.size(dim));
  }
  const int64_t block_size = k_cache.size(2);
  check_indices(positions, "positions", T, cos_sin.size(0));
  check_indices(slot_mapping, "slot_mapping", T, k_cache.size(0) * block_size);

  Tensor q = empty_like(qkv, {T, N, H});
  const char* from = static_cast<const char*>(qkv.data_ptr());
  char* q_to = static_cast<char*>(q.data_ptr());
  char *k_to = static_cast<char*>(k_cache.data_ptr()), *v_to = static_cast<char*>(v_cache.data_ptr());
  const float* table = static_cast<const float*>(cos_sin.data_ptr());
  const int64_t* position = static_cast<const int64_t*>(positions.data_ptr());
  const int64_t* slots = static_cast<const int64_t*>(slot_mapping.data_ptr());
  parallel_rows(T, (N + 2 * M) * H, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float *cos = table + position[t] * H, *sin = cos + H / 2;
      const char* row = from + t * (N + 2 * M) * H * size;
      const auto head = [&](int64_t h) { return row + h * H * size; };
      const int64_t block = slots[t] / block_size, offset = slots[t] % block_size;
      for (int64_t h = 0; h < N; ++h) kernels().rope(type, q_to + (t * N + h) * H * size, head(h), cos, sin, H);
      for (int64_t m = 0; m < M; ++m) {
        const int64_t at = ((block * M + m) * block_size + offset) * H * size;
        kernels().rope(type, k_to + at, head(N + m), cos, sin, H);
        std::memcpy(v_to + at, head(N + M + m), H * size);
      }
    }
  });
  return q;
}

}  // namespace pio

STABLE_TORCH_LIBRARY(inference_pio, m) {
  m.def("use_isa(str name) -> str");
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor");
  m.def("add_rms_norm(Tensor x, Tensor(a!) residual, Tensor weight, float eps) -> Tensor");
  m.def("silu_and_mul(Tensor x) -> Tensor");
  m.def(
      "rope_and_cache(Tensor qkv, Tensor positions, Tensor cos_sin, Tensor(a!) k_cache, Tensor(b!) v_cache, "
      "Tensor slot_mapping, int num_heads, int num_kv_heads) -> Tensor");
  m.def(
      "paged_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor block_tables, Tensor query_start, "
      "Tensor seq_lens, float scale) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(inference_pio, CompositeExplicitAutograd, m) { m.impl("use_isa", TORCH_BOX(&pio::use_isa)); }

STABLE_TORCH_LIBRARY_IMPL(inference_pio, CPU, m) {
  m.impl("rms_norm", TORCH_BOX(&pio::rms_norm));
  m.impl("add_rms_norm", TORCH_BOX(&pio::add_rms_norm));
  m.impl("silu_and_mul", TORCH_BOX(&pio::silu_and_mul));
  m.impl("rope_and_cache", TORCH_BOX(&pio::rope_and_cache));
  m.impl("paged_attention", TORCH_BOX(&pio::paged_attention));
}
