// How much of the attention of a sequence's last queries falls on each of its blocks.
#include <cmath>

#include "read_head.h"
#include "tensors.h"
#include "work.h"

namespace pio {
namespace {

constexpr int64_t kRowsPerUnit = 64;  // (token, head) rows whose scores against all keys lie in memory at once

struct MassMemory {};

// Queries are the last W of a sequence of `length` tokens, rows of all heads; one unit of work is some of them, those
// heads that share one key/value head. A row's numbers do not depend on what stands beside it.
struct MassOf {
  DType dtype, cache_dtype;  // of q, and of k
  const void *q, *k;         // [W, N, H], [blocks, M, block_size, H]
  const uint16_t* scales;    // of whole numbers, as attention has them; else null
  const int32_t* blocks;     // [B]
  float* out;                // [W, N, B]
  int64_t W, N, M, H, B, block_size, num_blocks, length;
  float scale;
  int64_t window;
};

class AttentionMass final : public Work {
 public:
  explicit AttentionMass(const MassOf& m)
      : m_(m), group_(m.N / m.M), tokens_(std::max<int64_t>(1, kRowsPerUnit / group_)) {}

  void prepare() override {
    for (int64_t b = 0; b < m_.B; ++b)
      STD_TORCH_CHECK(m_.blocks[b] >= 0 && m_.blocks[b] < m_.num_blocks, "blocks[", b, "] is ", m_.blocks[b],
                      ", expected 0 to ", m_.num_blocks - 1);
  }
  void run(const Team& team, uint8_t*) const override {
    const int64_t cuts = (m_.W + tokens_ - 1) / tokens_;
    team.share(m_.M * cuts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) unit(i % m_.M, i / m_.M * tokens_);
    });
  }
  int64_t cost() const override { return m_.W * m_.N * m_.length * m_.H; }
  std::string name() const override { return "attention_mass"; }
  std::vector<const void**> pointers() override { return {slot(m_.q), slot(m_.blocks), slot(m_.out)}; }

 private:
  void unit(int64_t kv_head, int64_t first) const {
    const int64_t tokens = std::min(tokens_, m_.W - first), rows = tokens * group_, stride = m_.B * m_.block_size;
    float* q = reinterpret_cast<float*>(
        scratch_of<MassMemory>(sizeof(float) * (rows * (m_.H + stride) + m_.block_size * m_.H)));
    float *keys = q + rows * m_.H, *scores = keys + m_.block_size * m_.H;
    for (int64_t r = 0; r < rows; ++r)
      take_query(row_of(kv_head, first, r), q + r * m_.H);
    for (int64_t b = 0; b < m_.B; ++b) {
      const int64_t count = std::min(m_.block_size, m_.length - b * m_.block_size);
      const int64_t block = m_.blocks[b] * m_.M + kv_head;
      for (int64_t i = 0; i < count; ++i) {
        const uint16_t* scale = m_.scales == nullptr ? nullptr : m_.scales + 2 * block * m_.block_size + i;
        read_head(m_.cache_dtype, m_.k, block * m_.block_size + i, m_.H, scale, keys + i * m_.H);
      }
      kernels().multiply_dense(q, rows, keys, count, m_.H, scores + b * m_.block_size, stride);
    }
    for (int64_t r = 0; r < rows; ++r)
      share_out(scores + r * stride, m_.length - m_.W + first + r / group_, m_.out + row_of(kv_head, first, r) * m_.B);
  }
  void take_query(int64_t row, float* to) const {
    read_head(m_.dtype, m_.q, row, m_.H, nullptr, to);
    for (int64_t i = 0; i < m_.H; ++i) to[i] *= m_.scale;
  }
  int64_t row_of(int64_t kv_head, int64_t first, int64_t r) const {
    return (first + r / group_) * m_.N + kv_head * group_ + r % group_;
  }
  // The softmax of one row's scores, added up by blocks.
  void share_out(const float* scores, int64_t position, float* out) const {
    const int64_t start = position < m_.window ? 0 : position - m_.window + 1;
    const auto of_block = [&](int64_t b, const auto& f) {
      const int64_t from = std::max(start, b * m_.block_size), to = std::min(position + 1, (b + 1) * m_.block_size);
      if (from < to) f(scores + from, to - from);
    };
    float top = -INFINITY, total = 0.0f;
    for (int64_t b = 0; b < m_.B; ++b)
      of_block(b, [&](const float* x, int64_t n) {
        float largest;
        int64_t place;
        kernels().row_max(DType::f32, x, n, &largest, &place);
        top = largest > top || largest != largest ? largest : top;
      });
    for (int64_t b = 0; b < m_.B; ++b) {
      out[b] = 0.0f;
      of_block(b, [&](const float* x, int64_t n) { out[b] = kernels().sum_exp(x, n, top); });
      total += out[b];
    }
    for (int64_t b = 0; b < m_.B; ++b) out[b] /= total;
  }

  MassOf m_;
  int64_t group_, tokens_;
};

}  // namespace

Tensor attention_mass(const Tensor& q, const Tensor& k_cache, const Tensor& blocks, int64_t seq_len, double scale,
                      std::optional<Tensor> scales, int64_t window) {
  check_layout(q, "q", 3);
  check_layout(blocks, "blocks", 1);
  check_type(blocks, "blocks", ScalarType::Int);
  const DType type = dtype_of(q, "q");
  const int64_t W = q.size(0), N = q.size(1), H = q.size(2), B = blocks.size(0);
  const DType cache_type = check_caches(k_cache, k_cache, scales, type, H);
  const int64_t M = k_cache.size(1), size = k_cache.size(2);
  STD_TORCH_CHECK(M > 0 && N % M == 0, "num_heads is a multiple of num_kv_heads, not ", N, ", ", M);
  STD_TORCH_CHECK(scale > 0, "scale is ", scale, ", expected a positive number");
  STD_TORCH_CHECK(window > 0, "window is ", window, ", expected a positive number");
  STD_TORCH_CHECK(W <= seq_len && (seq_len + size - 1) / size == B, "seq_len is ", seq_len, " of ", W,
                  " queries and ", B, " blocks of ", size, " tokens");
  Tensor out = empty_like(q, {W, N, B}, ScalarType::Float);
  launch(std::make_shared<AttentionMass>(MassOf{
      type, cache_type, q.data_ptr(), k_cache.data_ptr(), scales_or_null(scales),
      static_cast<const int32_t*>(blocks.data_ptr()), static_cast<float*>(out.data_ptr()), W, N, M, H, B, size,
      k_cache.size(0), seq_len, static_cast<float>(scale), window}));
  return out;
}

}  // namespace pio
