// The operators that torch sees.
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

}  // namespace pio

STABLE_TORCH_LIBRARY(inference_pio, m) {
  m.def("use_isa(str name) -> str");
  m.def("rms_norm(Tensor x, Tensor weight, float eps, float offset) -> Tensor");
  m.def("add_rms_norm(Tensor x, Tensor(a!) residual, Tensor weight, float eps, float offset) -> Tensor");
  m.def("silu_and_mul(Tensor x) -> Tensor");
  m.def("gelu_tanh_and_mul(Tensor x) -> Tensor");
  m.def("row_max(Tensor x) -> (Tensor, Tensor)");
  m.def(
      "rope_and_cache(Tensor qkv, Tensor positions, Tensor cos_sin, Tensor(a!) k_cache, Tensor(b!) v_cache, "
      "Tensor slot_mapping, int num_heads, int num_kv_heads, Tensor(c!)? scales, Tensor? q_norm, Tensor? k_norm, "
      "float eps, float offset) -> Tensor");
  m.def(
      "paged_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor block_tables, Tensor query_start, "
      "Tensor seq_lens, float scale, Tensor? scales, int window, bool reads_all) -> Tensor");
  m.def(
      "sparse_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor block_tables, Tensor query_start, "
      "Tensor seq_lens, float scale, Tensor? scales, Tensor(a!)? bounds, Tensor? answered, int[] rule) -> Tensor");
  m.def(
      "attention_mass(Tensor q, Tensor k_cache, Tensor blocks, int seq_len, float scale, Tensor? scales, int window) "
      "-> Tensor");
  m.def("pack_blocks(Tensor blocks, Tensor codebook, int format, int columns, Tensor(a!) to) -> ()");
  m.def("packed_bytes(int format, int rows, int columns) -> int");
  m.def("linear(Tensor x, Tensor packed, Tensor parts, Tensor? bias) -> Tensor");
  m.def("gated_linear(Tensor x, Tensor packed, Tensor parts, Tensor? bias, int activation) -> Tensor");
  m.def("embedding(Tensor token_ids, Tensor packed, Tensor parts, Tensor like, int columns, float scale) -> Tensor");
  m.def("top_experts(Tensor x, Tensor router, int per_token, bool normalize) -> (Tensor, Tensor)");
  m.def(
      "experts(Tensor x, Tensor gate_up, Tensor gate_up_parts, Tensor down, Tensor down_parts, Tensor chosen, "
      "Tensor weights) -> Tensor");
  m.def("gated_rms_norm(Tensor x, Tensor gate, Tensor weight, float eps) -> Tensor");
  m.def("sigmoid_gate(Tensor x, Tensor gate) -> Tensor");
  m.def("add_shared(Tensor routed, Tensor shared, Tensor? gate) -> Tensor");
  m.def("take_columns(Tensor x, int[] runs) -> Tensor");
  m.def(
      "causal_conv(Tensor x, Tensor weight, Tensor(a!) state, Tensor query_start, Tensor positions, Tensor state_slots, "
      "Tensor? num_drafts, int most) -> Tensor");
  m.def(
      "gated_delta_rule(Tensor q, Tensor k, Tensor v, Tensor g, Tensor beta, Tensor(a!) state, Tensor query_start, "
      "Tensor positions, Tensor state_slots, Tensor? num_drafts, int most, float eps) -> Tensor");
  m.def("decay_and_rate(Tensor a, Tensor b, Tensor a_log, Tensor dt_bias) -> (Tensor, Tensor)");
  m.def(
      "store_latents(Tensor kv, Tensor norm, float eps, Tensor positions, Tensor cos_sin, Tensor(a!) cache, "
      "Tensor slot_mapping, bool pairs) -> ()");
  m.def("turn_tails(Tensor x, Tensor positions, Tensor cos_sin, bool pairs) -> Tensor");
  m.def("absorb_keys(Tensor q, Tensor keys) -> Tensor");
  m.def("raise_values(Tensor x, Tensor values) -> Tensor");
  m.def("small_linear(Tensor x, Tensor weight) -> Tensor");
  m.def(
      "top_sigmoid_experts(Tensor x, Tensor router, Tensor bias, int per_token, int groups, int groups_per_token, "
      "bool normalize, float factor) -> (Tensor, Tensor)");
  m.def("begin_recording() -> ()");
  m.def("abandon_recording() -> ()");
  m.def("end_recording(Tensor result) -> int");
  m.def("replay(int step) -> ()");
  m.def("timed_replay(int step) -> str");
  m.def("forget_step(int step) -> ()");
  m.def("pager_chunk() -> int");
  m.def("pager_sums(Tensor data, Tensor(a!) sums) -> ()");
  m.def("pager_open(Tensor memory, Tensor units, Tensor sums, int fd, str path) -> int");
  m.def("pager_enter(int pager, int unit) -> ()");
  m.def("pager_leave(int pager, int unit) -> ()");
  m.def("pager_counts(int pager) -> str");
  m.def("pager_close(int pager) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(inference_pio, CompositeExplicitAutograd, m) {
  m.impl("use_isa", TORCH_BOX(&pio::use_isa));
  m.impl("packed_bytes", TORCH_BOX(&pio::packed_bytes));
  m.impl("begin_recording", TORCH_BOX(&pio::begin_recording));
  m.impl("abandon_recording", TORCH_BOX(&pio::abandon_recording));
  m.impl("end_recording", TORCH_BOX(&pio::end_recording));
  m.impl("replay", TORCH_BOX(&pio::replay));
  m.impl("timed_replay", TORCH_BOX(&pio::timed_replay));
  m.impl("forget_step", TORCH_BOX(&pio::forget_step));
  m.impl("pager_chunk", TORCH_BOX(&pio::pager_chunk));
  m.impl("pager_enter", TORCH_BOX(&pio::pager_enter));
  m.impl("pager_leave", TORCH_BOX(&pio::pager_leave));
  m.impl("pager_counts", TORCH_BOX(&pio::pager_counts));
  m.impl("pager_close", TORCH_BOX(&pio::pager_close));
}

STABLE_TORCH_LIBRARY_IMPL(inference_pio, CPU, m) {
  m.impl("rms_norm", TORCH_BOX(&pio::rms_norm));
  m.impl("add_rms_norm", TORCH_BOX(&pio::add_rms_norm));
  m.impl("row_max", TORCH_BOX(&pio::row_max));
  m.impl("silu_and_mul", TORCH_BOX(&pio::silu_and_mul));
  m.impl("gelu_tanh_and_mul", TORCH_BOX(&pio::gelu_tanh_and_mul));
  m.impl("rope_and_cache", TORCH_BOX(&pio::rope_and_cache));
  m.impl("paged_attention", TORCH_BOX(&pio::paged_attention));
  m.impl("attention_mass", TORCH_BOX(&pio::attention_mass));
  m.impl("sparse_attention", TORCH_BOX(&pio::sparse_attention));
  m.impl("pack_blocks", TORCH_BOX(&pio::pack_blocks));
  m.impl("linear", TORCH_BOX(&pio::linear));
  m.impl("gated_linear", TORCH_BOX(&pio::gated_linear));
  m.impl("embedding", TORCH_BOX(&pio::embedding));
  m.impl("pager_sums", TORCH_BOX(&pio::pager_sums));
  m.impl("pager_open", TORCH_BOX(&pio::pager_open));
  m.impl("top_experts", TORCH_BOX(&pio::top_experts));
  m.impl("experts", TORCH_BOX(&pio::experts));
  m.impl("gated_rms_norm", TORCH_BOX(&pio::gated_rms_norm));
  m.impl("sigmoid_gate", TORCH_BOX(&pio::sigmoid_gate));
  m.impl("add_shared", TORCH_BOX(&pio::add_shared));
  m.impl("take_columns", TORCH_BOX(&pio::take_columns));
  m.impl("causal_conv", TORCH_BOX(&pio::causal_conv));
  m.impl("gated_delta_rule", TORCH_BOX(&pio::gated_delta_rule));
  m.impl("decay_and_rate", TORCH_BOX(&pio::decay_and_rate));
  m.impl("store_latents", TORCH_BOX(&pio::store_latents));
  m.impl("turn_tails", TORCH_BOX(&pio::turn_tails));
  m.impl("absorb_keys", TORCH_BOX(&pio::absorb_keys));
  m.impl("raise_values", TORCH_BOX(&pio::raise_values));
  m.impl("small_linear", TORCH_BOX(&pio::small_linear));
  m.impl("top_sigmoid_experts", TORCH_BOX(&pio::top_sigmoid_experts));
}
