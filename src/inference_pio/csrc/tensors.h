// What the operators ask of their tensors: checks with one line of text, memory, threads. torch's stable ABI only.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

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
inline int64_t bytes_of(DType type) { return type == DType::f32 ? 4 : type == DType::bf16 ? 2 : 1; }
// Of a head's key or value in a cache.
inline int64_t head_bytes(DType cache, int64_t head_dim) { return cache == DType::i4 ? head_dim / 2 : head_dim * bytes_of(cache); }

// Tells a step that is being recorded of a tensor that an operation has made.
void keep_while_recording(const Tensor& tensor, int64_t bytes);

// A fresh contiguous tensor beside x, of its dtype or of another one.
template <int N>
Tensor empty_like(const Tensor& x, const int64_t (&sizes)[N], ScalarType type) {
  int64_t strides[N], stride = 1;
  for (int i = N - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= sizes[i];
  }
  int32_t device;
  aoti_torch_get_device_type(x.get(), &device);
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(N, sizes, strides, torch::stable::detail::from(type), device, 0, &made));
  Tensor fresh(made);
  keep_while_recording(fresh, stride * static_cast<int64_t>(fresh.element_size()));
  return fresh;
}
template <int N>
Tensor empty_like(const Tensor& x, const int64_t (&sizes)[N]) {
  return empty_like(x, sizes, x.scalar_type());
}

// Keys and values alike: of floats, bfloat16 where the activations are; or of whole numbers with scales, int8, or two of
// 4 bits in each byte. Returns which.
inline DType check_caches(const Tensor& k, const Tensor& v, const std::optional<Tensor>& scales, DType activations,
                          int64_t head_dim) {
  const ScalarType kept = k.scalar_type();
  const bool whole = kept == ScalarType::Char || kept == ScalarType::Byte;
  const DType type = kept == ScalarType::Char ? DType::i8 : kept == ScalarType::Byte ? DType::i4 : dtype_of(k, "cache");
  STD_TORCH_CHECK(type != DType::i4 || head_dim % 8 == 0, "head_dim is ", head_dim, ", expected a multiple of 8 for 4 bits");
  for (const Tensor* cache : {&k, &v}) {
    check_layout(*cache, "cache", 4);
    check_type(*cache, "cache", kept);
    check_size(*cache, "cache", 3, type == DType::i4 ? head_dim / 2 : head_dim);
    for (int dim : {0, 1, 2}) check_size(*cache, "cache", dim, k.size(dim));
  }
  STD_TORCH_CHECK(type != DType::f32 || activations == DType::f32, "cache has dtype ", torch::headeronly::toString(kept),
                  ", expected BFloat16 like the activations");
  STD_TORCH_CHECK(whole == scales.has_value(), "scales belong to a cache of dtype Char or Byte, not ",
                  torch::headeronly::toString(kept), whole ? ": it has none" : "");
  if (whole) {
    check_layout(*scales, "scales", 4);
    check_type(*scales, "scales", ScalarType::BFloat16);
    for (int dim : {0, 1}) check_size(*scales, "scales", dim, k.size(dim));
    check_size(*scales, "scales", 2, 2);
    check_size(*scales, "scales", 3, k.size(2));
  }
  return type;
}
inline uint16_t* scales_or_null(const std::optional<Tensor>& x) {
  return x.has_value() ? static_cast<uint16_t*>(x->data_ptr()) : nullptr;
}

const Kernels& kernels();

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, double offset);
Tensor add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps, double offset);
Tensor silu_and_mul(const Tensor& x);
Tensor gelu_tanh_and_mul(const Tensor& x);
std::tuple<Tensor, Tensor> row_max(const Tensor& x);
Tensor rope_and_cache(const Tensor& qkv, const Tensor& positions, const Tensor& cos_sin, const Tensor& k_cache,
                      const Tensor& v_cache, const Tensor& slot_mapping, int64_t num_heads, int64_t num_kv_heads,
                      std::optional<Tensor> scales, std::optional<Tensor> q_norm, std::optional<Tensor> k_norm,
                      double eps, double offset);
Tensor paged_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_tables,
                       const Tensor& query_start, const Tensor& seq_lens, double scale, std::optional<Tensor> scales,
                       int64_t window, bool reads_all);
Tensor sparse_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_tables,
                        const Tensor& query_start, const Tensor& seq_lens, double scale, std::optional<Tensor> scales,
                        std::optional<Tensor> bounds, std::optional<Tensor> answered, std::vector<int64_t> rule);
Tensor attention_mass(const Tensor& q, const Tensor& k_cache, const Tensor& blocks, int64_t seq_len, double scale,
                      std::optional<Tensor> scales, int64_t window);
void pack_blocks(const Tensor& blocks, const Tensor& codebook, int64_t format, int64_t columns, const Tensor& to);
int64_t packed_bytes(int64_t format, int64_t rows, int64_t columns);
Tensor linear(const Tensor& x, const Tensor& data, const Tensor& parts, std::optional<Tensor> bias);
Tensor gated_linear(const Tensor& x, const Tensor& data, const Tensor& parts, std::optional<Tensor> bias,
                    int64_t activation);
Tensor gated_rms_norm(const Tensor& x, const Tensor& gate, const Tensor& weight, double eps);
Tensor sigmoid_gate(const Tensor& x, const Tensor& gate);
Tensor add_shared(const Tensor& routed, const Tensor& shared, std::optional<Tensor> gate);
Tensor take_columns(const Tensor& x, std::vector<int64_t> runs);
Tensor causal_conv(const Tensor& x, const Tensor& taps, const Tensor& state, const Tensor& query_start,
                   const Tensor& positions, const Tensor& state_slots, std::optional<Tensor> num_drafts, int64_t most);
Tensor gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& beta,
                        const Tensor& state, const Tensor& query_start, const Tensor& positions, const Tensor& state_slots,
                        std::optional<Tensor> num_drafts, int64_t most, double eps);
std::tuple<Tensor, Tensor> decay_and_rate(const Tensor& a, const Tensor& b, const Tensor& a_log, const Tensor& dt_bias);
void store_latents(const Tensor& kv, const Tensor& norm, double eps, const Tensor& positions, const Tensor& cos_sin,
                   const Tensor& cache, const Tensor& slot_mapping, bool pairs);
Tensor turn_tails(const Tensor& x, const Tensor& positions, const Tensor& cos_sin, bool pairs);
Tensor absorb_keys(const Tensor& q, const Tensor& keys);
Tensor raise_values(const Tensor& x, const Tensor& values);
Tensor small_linear(const Tensor& x, const Tensor& weight);
std::tuple<Tensor, Tensor> top_sigmoid_experts(const Tensor& x, const Tensor& router, const Tensor& bias, int64_t per_token,
                                               int64_t groups, int64_t groups_per_token, bool normalize, double factor);
std::tuple<Tensor, Tensor> top_experts(const Tensor& x, const Tensor& router, int64_t per_token, bool normalize);
Tensor experts(const Tensor& x, const Tensor& gate_up, const Tensor& gate_up_parts, const Tensor& down,
               const Tensor& down_parts, const Tensor& chosen, const Tensor& weights);
void begin_recording();
void abandon_recording();
int64_t end_recording(const Tensor& result);
void replay(int64_t step);
std::string timed_replay(int64_t step);
void forget_step(int64_t step);
int64_t pager_chunk();
void pager_sums(const Tensor& data, const Tensor& sums);
int64_t pager_open(const Tensor& memory, const Tensor& units, const Tensor& sums, int64_t fd, std::string path);
void pager_enter(int64_t pager, int64_t unit);
void pager_leave(int64_t pager, int64_t unit);
std::string pager_counts(int64_t pager);
void pager_close(int64_t pager);
Tensor embedding(const Tensor& token_ids, const Tensor& data, const Tensor& parts, const Tensor& like, int64_t columns,
                 double scale);

}  // namespace pio
