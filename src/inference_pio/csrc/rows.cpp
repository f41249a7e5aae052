// Operations that work row by row: norms, activation, rotary positions with the cache write.
#include <cstring>

#include "each_row.h"

namespace pio {
namespace {

class Norm final : public Work {
 public:
  Norm(DType type, void* y, const void* x, void* residual, const void* weight, NormNumbers numbers, int64_t T, int64_t D,
       int64_t stride)
      : type_(type), y_(y), x_(x), residual_(residual), weight_(weight), numbers_(numbers), T_(T), D_(D), stride_(stride) {}
  void run(const Team& team, uint8_t*) const override {
    share_rows(team, T_, [&](int64_t begin, int64_t end) {
      const int64_t size = bytes_of(type_), rows = stride_ == D_ ? end - begin : 1;
      char* residual = static_cast<char*>(residual_);
      for (int64_t t = begin; t < end; t += rows)
        kernels().rms_norm(type_, static_cast<char*>(y_) + t * D_ * size, static_cast<const char*>(x_) + t * stride_ * size,
                           residual == nullptr ? nullptr : residual + t * D_ * size, weight_, numbers_, rows, D_);
    });
  }
  int64_t cost() const override { return 2 * T_ * D_; }
  std::string name() const override { return std::string(residual_ == nullptr ? "rms_norm" : "add_rms_norm"); }
  std::vector<const void**> pointers() override { return {slot(y_), slot(x_), slot(residual_)}; }

 private:
  DType type_;
  void* y_;
  const void* x_;
  void* residual_;
  const void* weight_;
  NormNumbers numbers_;
  int64_t T_, D_, stride_;  // of x's rows
};

class ActivateAndMul final : public Work {
 public:
  ActivateAndMul(Activation activation, DType type, void* y, const void* x, int64_t T, int64_t I)
      : activation_(activation), type_(type), y_(y), x_(x), T_(T), I_(I) {}
  void run(const Team& team, uint8_t*) const override {
    if (T_ == 1) {  // the one row is long: each thread takes a part of it
      const int64_t piece = (I_ / team.size + 63) / 64 * 64;
      return team.share(I_, piece, [&](int64_t begin, int64_t end) { part(0, begin, end); });
    }
    share_rows(team, T_, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) part(t, 0, I_);
    });
  }
  int64_t cost() const override { return 8 * T_ * I_; }
  std::string name() const override { return activation_ == Activation::silu ? "silu_and_mul" : "gelu_tanh_and_mul"; }
  std::vector<const void**> pointers() override { return {slot(y_), slot(x_)}; }

 private:
  void part(int64_t t, int64_t begin, int64_t end) const {
    const int64_t size = bytes_of(type_);
    const char* row = static_cast<const char*>(x_) + 2 * t * I_ * size;
    kernels().activate_and_mul(activation_, type_, static_cast<char*>(y_) + (t * I_ + begin) * size, row + begin * size,
                               row + (I_ + begin) * size, end - begin);
  }
  Activation activation_;
  DType type_;
  void* y_;
  const void* x_;
  int64_t T_, I_;
};

class RowMax final : public Work {
 public:
  RowMax(DType type, const void* x, void* largest, int64_t* places, int64_t T, int64_t V)
      : type_(type), x_(x), largest_(largest), places_(places), T_(T), V_(V) {}
  void run(const Team& team, uint8_t*) const override {
    team.share(T_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        float largest;
        kernels().row_max(type_, static_cast<const char*>(x_) + t * V_ * bytes_of(type_), V_, &largest, places_ + t);
        kernels().convert(type_, static_cast<char*>(largest_) + t * bytes_of(type_), DType::f32, &largest, 1);
      }
    });
  }
  int64_t cost() const override { return T_ * V_ / 4; }
  std::string name() const override { return "row_max"; }
  std::vector<const void**> pointers() override { return {slot(x_), slot(largest_), slot(places_)}; }

 private:
  DType type_;
  const void* x_;
  void* largest_;
  int64_t* places_;
  int64_t T_, V_;
};

struct RopeMemory {};

class RopeAndCache final : public Work {
 public:
  DType type, cache_type;
  int64_t T, N, M, H, R, positions_in_table, blocks, block_size;  // R of a head's H values are turned
  void* q;
  const void* qkv;
  void *k, *v;
  uint16_t* scales;  // of a cache of whole numbers: [blocks, M, 2, block_size]
  const float* cos_sin;
  const void *q_norm, *k_norm;  // weights [H], or null
  NormNumbers norm_numbers;
  const int64_t *positions, *slots;

  void prepare() override {
    check_indices(positions, "positions", T, positions_in_table);
    check_indices(slots, "slot_mapping", T, blocks * block_size);
  }
  void run(const Team& team, uint8_t*) const override {
    share_rows(team, T, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) token(t);
    });
  }
  int64_t cost() const override { return 2 * T * (N + 2 * M) * H; }
  std::string name() const override { return "rope_and_cache"; }
  std::vector<const void**> pointers() override { return {slot(q), slot(qkv), slot(positions), slot(slots)}; }

 private:
  void token(int64_t t) const {
    const int64_t size = bytes_of(type);
    const float *cos = cos_sin + positions[t] * R, *sin = cos + R / 2;
    uint8_t* scratch = scratch_of<RopeMemory>(2 * H * sizeof(float));
    void* normed = scratch + H * sizeof(float);
    const auto turn = [&](DType to, void* y, const void* x, const void* weight) {
      if (weight != nullptr) kernels().rms_norm(type, normed, x, nullptr, weight, norm_numbers, 1, H), x = normed;
      kernels().rope(to, y, type, x, cos, sin, R);
      if (R < H)
        kernels().convert(to, static_cast<char*>(y) + R * bytes_of(to), type, static_cast<const char*>(x) + R * size, H - R);
    };
    const char* row = static_cast<const char*>(qkv) + t * (N + 2 * M) * H * size;
    const auto head = [&](int64_t h) { return row + h * H * size; };
    const int64_t block = slots[t] / block_size, offset = slots[t] % block_size;
    for (int64_t h = 0; h < N; ++h)
      turn(type, static_cast<char*>(q) + (t * N + h) * H * size, head(h), q_norm);
    const int64_t width = head_bytes(cache_type, H);
    for (int64_t m = 0; m < M; ++m) {
      const int64_t at = ((block * M + m) * block_size + offset) * width;
      char *key = static_cast<char*>(k) + at, *value = static_cast<char*>(v) + at;
      if (scales != nullptr) {
        uint16_t* scale = scales + (block * M + m) * 2 * block_size + offset;
        float* turned = reinterpret_cast<float*>(scratch);
        turn(type, normed, head(N + m), k_norm);  // rounded to the activations' type, as queries are
        keep(turned, normed, key, scale);
        keep(turned, head(N + M + m), value, scale + block_size);
        continue;
      }
      turn(cache_type, key, head(N + m), k_norm);
      kernels().convert(cache_type, value, type, head(N + M + m), H);
    }
  }
  void keep(float* floats, const void* x, char* to, uint16_t* scale) const {
    kernels().convert(DType::f32, floats, type, x, H);
    kernels().quantize_head(cache_type, floats, H, to, scale);
  }
};

NormNumbers numbers_of(double eps, double offset) { return {static_cast<float>(eps), static_cast<float>(offset)}; }

Tensor norm(const Tensor& x, const Tensor* residual, const Tensor& weight, NormNumbers numbers) {
  const int64_t stride = check_rows(x, "x", 2);
  check_layout(weight, "weight", 1);
  check_size(weight, "weight", 0, x.size(1));
  check_type(weight, "weight", x.scalar_type());
  const DType type = dtype_of(x, "x");
  Tensor y = empty_like(x, {x.size(0), x.size(1)});
  launch(std::make_shared<Norm>(type, y.data_ptr(), x.data_ptr(), residual == nullptr ? nullptr : residual->data_ptr(),
                                weight.data_ptr(), numbers, x.size(0), x.size(1), stride));
  return y;
}

Tensor activate_and_mul(const Tensor& x, Activation activation) {
  check_layout(x, "x", 2);
  STD_TORCH_CHECK(x.size(1) % 2 == 0, "x has ", x.size(1), " columns, expected an even number");
  const int64_t T = x.size(0), I = x.size(1) / 2;
  Tensor y = empty_like(x, {T, I});
  launch(std::make_shared<ActivateAndMul>(activation, dtype_of(x, "x"), y.data_ptr(), x.data_ptr(), T, I));
  return y;
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, double offset) {
  return norm(x, nullptr, weight, numbers_of(eps, offset));
}

Tensor add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps, double offset) {
  check_layout(residual, "residual", 2);
  check_type(residual, "residual", x.scalar_type());
  for (int dim : {0, 1}) check_size(residual, "residual", dim, x.size(dim));
  return norm(x, &residual, weight, numbers_of(eps, offset));
}

Tensor silu_and_mul(const Tensor& x) { return activate_and_mul(x, Activation::silu); }

Tensor gelu_tanh_and_mul(const Tensor& x) { return activate_and_mul(x, Activation::gelu_tanh); }

std::tuple<Tensor, Tensor> row_max(const Tensor& x) {
  check_layout(x, "x", 2);
  STD_TORCH_CHECK(x.size(1) > 0, "x has no columns");
  const int64_t T = x.size(0);
  Tensor largest = empty_like(x, {T}), places = empty_like(x, {T}, ScalarType::Long);
  launch(std::make_shared<RowMax>(dtype_of(x, "x"), x.data_ptr(), largest.data_ptr(),
                                  static_cast<int64_t*>(places.data_ptr()), T, x.size(1)));
  return {largest, places};
}

Tensor rope_and_cache(const Tensor& qkv, const Tensor& positions, const Tensor& cos_sin, const Tensor& k_cache,
                      const Tensor& v_cache, const Tensor& slot_mapping, int64_t N, int64_t M,
                      std::optional<Tensor> scales, std::optional<Tensor> q_norm, std::optional<Tensor> k_norm,
                      double eps, double offset) {
  check_layout(qkv, "qkv", 2);
  check_layout(cos_sin, "cos_sin", 2);
  check_type(cos_sin, "cos_sin", ScalarType::Float);
  check_layout(k_cache, "cache", 4);
  const int64_t T = qkv.size(0), R = cos_sin.size(1);
  const int64_t H = k_cache.size(3) * (k_cache.scalar_type() == ScalarType::Byte ? 2 : 1);
  STD_TORCH_CHECK(N > 0 && M > 0 && H % 2 == 0, "num_heads and num_kv_heads are positive and head_dim is even");
  STD_TORCH_CHECK(R % 2 == 0 && R <= H, "cos_sin has ", R, " columns, expected an even number up to head_dim ", H);
  check_size(qkv, "qkv", 1, (N + 2 * M) * H);
  const DType type = dtype_of(qkv, "qkv"), cache_type = check_caches(k_cache, v_cache, scales, type, H);
  check_size(k_cache, "cache", 1, M);
  for (const auto& [indices, name] : {std::pair{&positions, "positions"}, std::pair{&slot_mapping, "slot_mapping"}}) {
    check_layout(*indices, name, 1);
    check_type(*indices, name, ScalarType::Long);
    check_size(*indices, name, 0, T);
  }
  STD_TORCH_CHECK(q_norm.has_value() == k_norm.has_value(), "norms of queries and keys come together");
  for (const auto& [weight, name] : {std::pair{&q_norm, "q_norm"}, std::pair{&k_norm, "k_norm"}}) {
    if (!weight->has_value()) continue;
    check_layout(**weight, name, 1);
    check_type(**weight, name, qkv.scalar_type());
    check_size(**weight, name, 0, H);
  }
  Tensor q = empty_like(qkv, {T, N, H});
  auto work = std::make_shared<RopeAndCache>();
  work->type = type, work->cache_type = cache_type;
  work->T = T, work->N = N, work->M = M, work->H = H, work->R = R;
  work->positions_in_table = cos_sin.size(0), work->blocks = k_cache.size(0), work->block_size = k_cache.size(2);
  work->q = q.data_ptr(), work->qkv = qkv.data_ptr();
  work->k = k_cache.data_ptr(), work->v = v_cache.data_ptr(), work->scales = scales_or_null(scales);
  work->cos_sin = static_cast<const float*>(cos_sin.data_ptr());
  work->q_norm = q_norm.has_value() ? q_norm->data_ptr() : nullptr;
  work->k_norm = k_norm.has_value() ? k_norm->data_ptr() : nullptr;
  work->norm_numbers = numbers_of(eps, offset);
  work->positions = static_cast<const int64_t*>(positions.data_ptr());
  work->slots = static_cast<const int64_t*>(slot_mapping.data_ptr());
  launch(std::move(work));
  return q;
}

}  // namespace pio
