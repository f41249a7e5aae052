// Layers that remember in a state of one size: a short convolution and the gated delta rule, token by token.
//
// A sequence's state is read and written at its slot. One whose first row has position 0 begins from zeros. All of this
// is read while the operation runs, so that a recorded step may be replayed with other sequences, slots and positions.
// The last rows of a sequence may be drafts: they are computed behind the others, and change nothing that is kept.
#include <cmath>
#include <limits>

#include "each_row.h"

namespace pio {
namespace {

struct ConvMemory {};
struct DeltaMemory {};
struct DraftMemory {};

// Which rows belong to which state. Sequences with more than `most` rows are left out.
struct Spans {
  const int32_t* starts;
  const int64_t *positions, *slots;
  const int32_t* drafts;  // null where there are none
  int64_t S, T, num_slots, most;

  static Spans of(const Tensor& starts, const Tensor& positions, const Tensor& slots, const std::optional<Tensor>& drafts,
                  int64_t T, int64_t num_slots, int64_t most) {
    const int64_t S = slots.size(0);
    check_layout(starts, "query_start", 1);
    check_type(starts, "query_start", ScalarType::Int);
    check_size(starts, "query_start", 0, S + 1);
    check_longs(positions, "positions", T);
    check_longs(slots, "state_slots", S);
    if (drafts.has_value()) {
      check_layout(*drafts, "num_drafts", 1);
      check_type(*drafts, "num_drafts", ScalarType::Int);
      check_size(*drafts, "num_drafts", 0, S);
    }
    return {data_of<const int32_t>(starts), data_of<const int64_t>(positions), data_of<const int64_t>(slots),
            drafts.has_value() ? data_of<const int32_t>(*drafts) : nullptr, S, T, num_slots, most};
  }
  void check() const {
    STD_TORCH_CHECK(starts[0] == 0 && starts[S] == T, "query_start runs from ", starts[0], " to ", starts[S],
                    ", expected 0 to ", T);
    for (int64_t s = 0; s < S; ++s) STD_TORCH_CHECK(starts[s] <= starts[s + 1], "query_start falls at sequence ", s);
    check_indices(slots, "state_slots", S, num_slots);
    for (int64_t s = 0; drafts != nullptr && s < S; ++s)
      STD_TORCH_CHECK(drafts[s] == 0 || (0 < drafts[s] && drafts[s] < starts[s + 1] - starts[s]), "num_drafts is ", drafts[s],
                      " of ", starts[s + 1] - starts[s], " rows");
  }
  int64_t rows(int64_t s) const {
    const int64_t count = starts[s + 1] - starts[s];
    return count > most ? 0 : count;
  }
  // Of `rows`, those that are no drafts.
  int64_t kept(int64_t s) const { return rows(s) - (drafts == nullptr ? 0 : drafts[s]); }
  bool begins(int64_t s) const { return positions[starts[s]] == 0; }
  std::vector<const void**> pointers() { return {slot(starts), slot(positions), slot(slots), slot(drafts)}; }
};

std::vector<const void**> with(std::vector<const void**> some, const std::vector<const void**>& others) {
  some.insert(some.end(), others.begin(), others.end());
  return some;
}

class CausalConv final : public Work {
 public:
  DType type;
  char* y;
  const char* x;
  const float* taps;
  float* state;
  Spans spans;
  int64_t C, W, stride;

  void prepare() override { spans.check(); }
  void run(const Team& team, uint8_t*) const override {
    const int64_t pieces = (C + kPiece - 1) / kPiece;
    team.share(spans.S * pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) channels(i / pieces, i % pieces * kPiece);
    });
  }
  int64_t cost() const override { return spans.T * C * (W + 8); }
  std::string name() const override { return "causal_conv"; }
  std::vector<const void**> pointers() override { return with({slot(y), slot(x)}, spans.pointers()); }

 private:
  static constexpr int64_t kPiece = 512;

  void channels(int64_t s, int64_t first) const {
    const int64_t count = spans.rows(s), n = std::min(kPiece, C - first), size = bytes_of(type);
    if (count == 0) return;
    float* window = reinterpret_cast<float*>(scratch_of<ConvMemory>((W - 1 + count) * n * sizeof(float)));
    float* kept = state + spans.slots[s] * (W - 1) * C + first;
    for (int64_t w = 0; w < W - 1; ++w) {
      if (spans.begins(s))
        std::fill_n(window + w * n, n, 0.0f);
      else
        std::copy_n(kept + w * C, n, window + w * n);
    }
    for (int64_t t = 0; t < count; ++t)
      kernels().convert(DType::f32, window + (W - 1 + t) * n, type, x + ((spans.starts[s] + t) * stride + first) * size, n);
    for (int64_t t = 0; t < count; ++t)
      kernels().convolve(type, y + ((spans.starts[s] + t) * C + first) * size, window + t * n, taps + first * W, W, n);
    for (int64_t w = 0; w < W - 1; ++w) std::copy_n(window + (spans.kept(s) + w) * n, n, kept + w * C);
  }
};

class GatedDeltaRule final : public Work {
 public:
  DType type;
  float* out;
  const char *q, *k, *v;
  const float *g, *beta;
  float* state;
  Spans spans;
  int64_t M, N, K, V, q_stride, k_stride, v_stride;
  float eps;

  void prepare() override { spans.check(); }
  void run(const Team& team, uint8_t*) const override {
    team.share(spans.S * N, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) head(i / N, i % N);
    });
  }
  int64_t cost() const override { return 3 * spans.T * N * K * V; }
  std::string name() const override { return "gated_delta_rule"; }
  std::vector<const void**> pointers() override {
    return with({slot(out), slot(q), slot(k), slot(v), slot(g), slot(beta)}, spans.pointers());
  }

 private:
  void head(int64_t s, int64_t n) const {
    const int64_t count = spans.rows(s), size = bytes_of(type), m = n / (N / M);
    if (count == 0) return;
    float* memory = reinterpret_cast<float*>(scratch_of<DeltaMemory>((2 * K + V) * sizeof(float)));
    float *query = memory, *key = memory + K, *value = memory + 2 * K;
    float* matrix = state + (spans.slots[s] * N + n) * K * V;
    if (spans.begins(s)) std::fill_n(matrix, K * V, 0.0f);
    for (int64_t t = spans.starts[s], end = t + count, kept = t + spans.kept(s); t < end; ++t) {
      if (t == kept) {  // from here on the state is a draft too
        float* copy = reinterpret_cast<float*>(scratch_of<DraftMemory>(K * V * sizeof(float)));
        matrix = std::copy_n(matrix, K * V, copy) - K * V;
      }
      kernels().convert(DType::f32, query, type, q + (t * q_stride + m * K) * size, K);
      kernels().convert(DType::f32, key, type, k + (t * k_stride + m * K) * size, K);
      kernels().convert(DType::f32, value, type, v + (t * v_stride + n * V) * size, V);
      kernels().normalise(query, K, eps, 1.0f / std::sqrt(static_cast<float>(K)));
      kernels().normalise(key, K, eps, 1.0f);
      kernels().delta_token({query, key, value, matrix, out + (t * N + n) * V, std::exp(g[t * N + n]), beta[t * N + n], K, V});
    }
  }
};

struct DecayAndRate {
  static constexpr const char* kName = "decay_and_rate";
  DType type;
  float *g, *beta;
  const char *a, *b;
  const float *a_log, *dt_bias;
  int64_t N, a_stride, b_stride;

  void prepare() const {}
  void row(int64_t t) const {
    const int64_t size = bytes_of(type);
    float *decay = g + t * N, *rate = beta + t * N;
    kernels().convert(DType::f32, decay, type, a + t * a_stride * size, N);
    kernels().convert(DType::f32, rate, type, b + t * b_stride * size, N);
    for (int64_t n = 0; n < N; ++n) {
      const float x = decay[n] + dt_bias[n];
      decay[n] = -std::exp(a_log[n]) * (x > 20.0f ? x : std::log1p(std::exp(x)));
      rate[n] = 1.0f / (1.0f + std::exp(-rate[n]));
    }
  }
  std::vector<const void**> pointers() { return {slot(g), slot(beta), slot(a), slot(b)}; }
};

}  // namespace

Tensor causal_conv(const Tensor& x, const Tensor& taps, const Tensor& state, const Tensor& query_start,
                   const Tensor& positions, const Tensor& state_slots, std::optional<Tensor> num_drafts,
                   int64_t most) {
  auto work = std::make_shared<CausalConv>();
  work->stride = check_rows(x, "x", 2);
  const int64_t T = x.size(0), C = x.size(1), W = taps.dim() == 2 ? taps.size(1) : 0;
  check_floats(taps, "weight", {C, W});
  STD_TORCH_CHECK(W > 0, "weight has no taps");
  check_floats(state, "state", {state.size(0), W - 1, C});
  Tensor y = empty_like(x, {T, C});
  work->type = dtype_of(x, "x"), work->C = C, work->W = W;
  work->y = data_of(y), work->x = data_of(x), work->taps = data_of<const float>(taps), work->state = data_of<float>(state);
  work->spans = Spans::of(query_start, positions, state_slots, num_drafts, T, state.size(0), most);
  launch(std::move(work));
  return y;
}

Tensor gated_delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& beta,
                        const Tensor& state, const Tensor& query_start, const Tensor& positions, const Tensor& state_slots,
                        std::optional<Tensor> num_drafts, int64_t most, double eps) {
  auto work = std::make_shared<GatedDeltaRule>();
  work->q_stride = check_rows(q, "q", 3), work->k_stride = check_rows(k, "k", 3), work->v_stride = check_rows(v, "v", 3);
  const int64_t T = q.size(0), M = q.size(1), K = q.size(2), N = v.size(1), V = v.size(2);
  for (const auto& [tensor, name] : {std::pair{&k, "k"}, std::pair{&v, "v"}}) {
    check_type(*tensor, name, q.scalar_type());
    check_size(*tensor, name, 0, T);
  }
  for (int dim : {1, 2}) check_size(k, "k", dim, q.size(dim));
  STD_TORCH_CHECK(M > 0 && K > 0 && N % M == 0, "value heads are a multiple of key heads, not ", N, " and ", M);
  check_floats(g, "g", {T, N});
  check_floats(beta, "beta", {T, N});
  check_floats(state, "state", {state.size(0), N, K, V});
  Tensor out = empty_like(v, {T, N, V}, ScalarType::Float);
  work->type = dtype_of(q, "q"), work->M = M, work->N = N, work->K = K, work->V = V, work->eps = static_cast<float>(eps);
  work->out = data_of<float>(out), work->state = data_of<float>(state);
  work->q = data_of(q), work->k = data_of(k), work->v = data_of(v);
  work->g = data_of<const float>(g), work->beta = data_of<const float>(beta);
  work->spans = Spans::of(query_start, positions, state_slots, num_drafts, T, state.size(0), most);
  launch(std::move(work));
  return out;
}

std::tuple<Tensor, Tensor> decay_and_rate(const Tensor& a, const Tensor& b, const Tensor& a_log, const Tensor& dt_bias) {
  const int64_t T = a.size(0), N = a.size(1), a_stride = check_rows(a, "a", 2), b_stride = check_rows(b, "b", 2);
  check_type(b, "b", a.scalar_type());
  for (int dim : {0, 1}) check_size(b, "b", dim, a.size(dim));
  check_floats(a_log, "a_log", {N});
  check_floats(dt_bias, "dt_bias", {N});
  Tensor g = empty_like(a, {T, N}, ScalarType::Float), beta = empty_like(a, {T, N}, ScalarType::Float);
  launch_rows(DecayAndRate{dtype_of(a, "a"), data_of<float>(g), data_of<float>(beta), data_of(a), data_of(b),
                           data_of<const float>(a_log), data_of<const float>(dt_bias), N, a_stride, b_stride},
              T, 60 * T * N);
  return {g, beta};
}

}  // namespace pio
