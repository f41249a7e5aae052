// Latent attention around the scores: rows for the cache, rotary parts of queries, and the up-projections of keys and
// values carried over to the queries and behind the weighted sum.
#include "each_row.h"

namespace pio {
namespace {

struct LatentMemory {};

// A part of R values turned by its position: its halves together, or neighbours, which come out ordered by halves.
struct Turning {
  DType type;
  const float* cos_sin;
  const int64_t* positions;
  int64_t R, table;
  bool pairs;

  void check(int64_t T) const { check_indices(positions, "positions", T, table); }
  // `memory` is R values of room.
  void turn(char* y, const char* x, int64_t t, char* memory) const {
    const float* cos = cos_sin + positions[t] * R;
    if (pairs) {
      type == DType::f32 ? apart(reinterpret_cast<const float*>(x), reinterpret_cast<float*>(memory))
                         : apart(reinterpret_cast<const uint16_t*>(x), reinterpret_cast<uint16_t*>(memory));
      x = memory;
    }
    kernels().rope(type, y, type, x, cos, cos + R / 2, R);
  }
  template <class T>
  void apart(const T* x, T* y) const {
    for (int64_t i = 0; i < R / 2; ++i) y[i] = x[2 * i], y[R / 2 + i] = x[2 * i + 1];
  }
  static Turning of(DType type, const Tensor& cos_sin, const Tensor& positions, int64_t T, bool pairs) {
    check_layout(cos_sin, "cos_sin", 2);
    check_type(cos_sin, "cos_sin", ScalarType::Float);
    check_longs(positions, "positions", T);
    STD_TORCH_CHECK(cos_sin.size(1) % 2 == 0, "cos_sin has ", cos_sin.size(1), " columns, expected an even number");
    return {type, data_of<const float>(cos_sin), data_of<const int64_t>(positions), cos_sin.size(1), cos_sin.size(0), pairs};
  }
};

struct StoreLatents {
  static constexpr const char* kName = "store_latents";
  DType type, cache_type;
  const char* kv;
  const void* norm;
  NormNumbers numbers;
  Turning turning;
  char* cache;
  const int64_t* slots;
  int64_t T, C, stride, rows;

  void prepare() const {
    turning.check(T);
    check_indices(slots, "slot_mapping", T, rows);
  }
  void row(int64_t t) const {
    const int64_t size = bytes_of(type), R = turning.R, cached = bytes_of(cache_type);
    char* memory = reinterpret_cast<char*>(scratch_of<LatentMemory>((C + 2 * R) * sizeof(float)));
    char *turned = memory + C * size, *to = cache + slots[t] * (C + R) * cached;
    const char* from = kv + t * stride * size;
    kernels().rms_norm(type, memory, from, nullptr, norm, numbers, 1, C);
    turning.turn(turned, from + C * size, t, turned + R * size);
    kernels().convert(cache_type, to, type, memory, C + R);
  }
  std::vector<const void**> pointers() { return {slot(kv), slot(turning.positions), slot(slots)}; }
};

struct TurnTails {
  static constexpr const char* kName = "turn_tails";
  char* y;
  const char* x;
  Turning turning;
  int64_t T, N, H, stride;

  void prepare() const { turning.check(T); }
  void row(int64_t t) const {
    const int64_t size = bytes_of(turning.type), R = turning.R, P = H - R;
    char* memory = reinterpret_cast<char*>(scratch_of<LatentMemory>(R * sizeof(float)));
    for (int64_t n = 0; n < N; ++n) {
      const char* from = x + (t * stride + n * H) * size;
      char* to = y + (t * N + n) * H * size;
      std::copy_n(from, P * size, to);
      turning.turn(to + P * size, from + P * size, t, memory);
    }
  }
  std::vector<const void**> pointers() { return {slot(y), slot(x), slot(turning.positions)}; }
};

// Queries of P + R values become queries of C + R: of each head its first P times the matrix [P, C] that makes its keys.
class AbsorbKeys final : public Work {
 public:
  AbsorbKeys(float* y, const float* q, const float* keys, int64_t T, int64_t N, int64_t P, int64_t C, int64_t R)
      : y_(y), q_(q), keys_(keys), T_(T), N_(N), P_(P), C_(C), R_(R) {}
  void run(const Team& team, uint8_t*) const override {
    team.share(N_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) head(n);
    });
  }
  int64_t cost() const override { return T_ * N_ * P_ * C_; }
  std::string name() const override { return "absorb_keys"; }
  std::vector<const void**> pointers() override { return {slot(y_), slot(q_)}; }

 private:
  static constexpr int64_t kRows = 8;  // of the matrix that stay near while all tokens meet them

  void head(int64_t n) const {
    const auto from = [&](int64_t t) { return q_ + (t * N_ + n) * (P_ + R_); };
    const auto to = [&](int64_t t) { return y_ + (t * N_ + n) * (C_ + R_); };
    for (int64_t t = 0; t < T_; ++t) {
      std::fill_n(to(t), C_, 0.0f);
      std::copy_n(from(t) + P_, R_, to(t) + C_);
    }
    for (int64_t p = 0; p < P_; p += kRows)
      for (int64_t t = 0; t < T_; ++t)
        kernels().add_rows(from(t) + p, keys_ + (n * P_ + p) * C_, std::min(kRows, P_ - p), C_, to(t), C_);
  }
  float* y_;
  const float *q_, *keys_;
  int64_t T_, N_, P_, C_, R_;
};

// Of each head the first C of W values times the matrix [V, C] that makes its values.
class RaiseValues final : public Work {
 public:
  RaiseValues(float* y, const float* x, const float* values, int64_t T, int64_t N, int64_t W, int64_t C, int64_t V)
      : y_(y), x_(x), values_(values), T_(T), N_(N), W_(W), C_(C), V_(V) {}
  void run(const Team& team, uint8_t*) const override {
    const int64_t blocks = (V_ + kRows - 1) / kRows;
    team.share(N_ * blocks, std::max<int64_t>(1, N_ * blocks / (4 * team.size)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks, v = i % blocks * kRows;
        for (int64_t t = 0; t < T_; ++t)
          kernels().multiply_dense(x_ + (t * N_ + n) * W_, 1, values_ + (n * V_ + v) * C_, std::min(kRows, V_ - v), C_,
                                   y_ + (t * N_ + n) * V_ + v, 0);
      }
    });
  }
  int64_t cost() const override { return T_ * N_ * V_ * C_; }
  std::string name() const override { return "raise_values"; }
  std::vector<const void**> pointers() override { return {slot(y_), slot(x_)}; }

 private:
  static constexpr int64_t kRows = 16;

  float* y_;
  const float *x_, *values_;
  int64_t T_, N_, W_, C_, V_;
};

}  // namespace

void store_latents(const Tensor& kv, const Tensor& norm, double eps, const Tensor& positions, const Tensor& cos_sin,
                   const Tensor& cache, const Tensor& slot_mapping, bool pairs) {
  const int64_t stride = check_rows(kv, "kv", 2), T = kv.size(0), C = norm.size(0);
  check_layout(norm, "norm", 1);
  check_type(norm, "norm", kv.scalar_type());
  check_layout(cache, "cache", 3);
  check_size(cache, "cache", 2, kv.size(1));
  check_longs(slot_mapping, "slot_mapping", T);
  const DType type = dtype_of(kv, "kv");
  const Turning turning = Turning::of(type, cos_sin, positions, T, pairs);
  check_size(kv, "kv", 1, C + turning.R);
  launch_rows(StoreLatents{type, dtype_of(cache, "cache"), data_of(kv), norm.data_ptr(), {static_cast<float>(eps), 0.0f},
                           turning, data_of(cache), data_of<const int64_t>(slot_mapping), T, C, stride,
                           cache.size(0) * cache.size(1)},
              T, 4 * T * (C + turning.R));
}

Tensor turn_tails(const Tensor& x, const Tensor& positions, const Tensor& cos_sin, bool pairs) {
  const int64_t stride = check_rows(x, "x", 3), T = x.size(0), N = x.size(1), H = x.size(2);
  const Turning turning = Turning::of(dtype_of(x, "x"), cos_sin, positions, T, pairs);
  STD_TORCH_CHECK(turning.R <= H, "cos_sin has ", turning.R, " columns, expected up to ", H);
  Tensor y = empty_like(x, {T, N, H});
  launch_rows(TurnTails{data_of(y), data_of(x), turning, T, N, H, stride}, T, 2 * T * N * H);
  return y;
}

Tensor absorb_keys(const Tensor& q, const Tensor& keys) {
  check_layout(q, "q", 3);
  check_layout(keys, "keys", 3);
  const int64_t T = q.size(0), N = q.size(1), P = keys.size(1), C = keys.size(2), R = q.size(2) - P;
  check_floats(q, "q", {T, N, P + R});
  check_floats(keys, "keys", {N, P, C});
  STD_TORCH_CHECK(R >= 0, "q has ", q.size(2), " values a head, expected at least ", P);
  Tensor y = empty_like(q, {T, N, C + R});
  launch(std::make_shared<AbsorbKeys>(data_of<float>(y), data_of<const float>(q), data_of<const float>(keys), T, N, P, C, R));
  return y;
}

Tensor raise_values(const Tensor& x, const Tensor& values) {
  check_layout(x, "x", 3);
  check_layout(values, "values", 3);
  const int64_t T = x.size(0), N = x.size(1), W = x.size(2), V = values.size(1), C = values.size(2);
  check_floats(x, "x", {T, N, W});
  check_floats(values, "values", {N, V, C});
  STD_TORCH_CHECK(C <= W, "values takes ", C, " values, x has ", W);
  Tensor y = empty_like(x, {T, N, V});
  launch(std::make_shared<RaiseValues>(data_of<float>(y), data_of<const float>(x), data_of<const float>(values), T, N, W, C, V));
  return y;
}

}  // namespace pio
