// The router of a mixture: for each token the K experts of the largest scores.
//
// First the products, in floats: threads share the router's rows. Then each token by itself: a pass over its scores keeps
// the K largest so far in order. Nothing of a token depends on the others.
#include <cmath>
#include <limits>

#include "each_row.h"

namespace pio {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// x [T, D] times w [E, D], in floats.
struct Small {
  const float *x, *w;
  int64_t T, D, E;

  void multiply(const Team& team, float* out) const {
    const int64_t blocks = (E + kRows - 1) / kRows, count = (T + kTokens - 1) / kTokens * blocks;
    team.share(count, std::max<int64_t>(1, count / team.size), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t t = i / blocks * kTokens, e = i % blocks * kRows;
        kernels().multiply_dense(x + t * D, std::min(kTokens, T - t), w + e * D, std::min(kRows, E - e), D, out + t * E + e, E);
      }
    });
  }
  static Small of(const Tensor& x, const Tensor& w, const char* name) {
    check_floats(x, "x", {x.size(0), x.size(1)});
    check_floats(w, name, {w.size(0), x.size(1)});
    return {data_of<const float>(x), data_of<const float>(w), x.size(0), x.size(1), w.size(0)};
  }

 private:
  static constexpr int64_t kRows = 16, kTokens = 32;
};

class SmallLinear final : public Work {
 public:
  SmallLinear(const Small& small, float* y) : small_(small), y_(y) {}
  void run(const Team& team, uint8_t*) const override { small_.multiply(team, y_); }
  int64_t cost() const override { return small_.T * small_.D * small_.E; }
  std::string name() const override { return "small_linear " + std::to_string(small_.D) + " -> " + std::to_string(small_.E); }
  std::vector<const void**> pointers() override { return {slot(small_.x), slot(y_)}; }

 private:
  Small small_;
  float* y_;
};

// The K largest of E keys in order, and their numbers. Equal ones in the order of their numbers: a later one has to be
// larger to go in front.
void find_largest(const float* keys, int64_t E, int64_t K, float* found, int64_t* numbers) {
  int64_t count = 0;
  for (int64_t e = 0; e < E; ++e) {
    const float key = keys[e];
    if (count == K && !(key > found[K - 1])) continue;
    int64_t at = count < K ? count++ : K - 1;
    for (; at > 0 && key > found[at - 1]; --at) found[at] = found[at - 1], numbers[at] = numbers[at - 1];
    found[at] = key, numbers[at] = e;
  }
}

// By softmax over all scores.
struct Softmax {
  bool normalize;

  static std::string name() { return "top_experts "; }
  void choose(float* scores, int64_t E, int64_t K, int64_t* chosen, float* weights, float*) const {
    float top = -kInfinity, sum = 0.0f;
    for (int64_t e = 0; e < E; ++e) top = scores[e] > top ? scores[e] : top;
    for (int64_t e = 0; e < E; ++e) sum += scores[e] = std::exp(scores[e] - top);
    const bool usable = std::isfinite(sum);
    for (int64_t e = 0; e < E; ++e) scores[e] = usable ? scores[e] / sum : kNaN;
    find_largest(scores, E, K, weights, chosen);
    if (!normalize) return;
    float total = 0.0f;
    for (int64_t k = 0; k < K; ++k) total += weights[k];
    for (int64_t k = 0; k < K; ++k) weights[k] /= total;
  }
};

// By sigmoid of each, with a bias for the choice alone, in the best of some groups.
struct Sigmoid {
  const float* bias;
  int64_t groups, per_token;
  bool normalize;
  float factor;

  static std::string name() { return "top_sigmoid_experts "; }
  // `keys` has room for 3 E: one for each expert, then the groups' worths.
  void choose(float* scores, int64_t E, int64_t K, int64_t* chosen, float* weights, float* keys) const {
    bool usable = true;
    for (int64_t e = 0; e < E; ++e) {
      scores[e] = 1.0f / (1.0f + std::exp(-scores[e]));
      keys[e] = scores[e] + bias[e];
      usable = usable && std::isfinite(keys[e]);
    }
    if (!usable) std::fill_n(keys, E, kNaN), std::fill_n(scores, E, kNaN);
    if (usable && groups > 1) leave_out(keys, E);
    find_largest(keys, E, K, weights, chosen);
    float total = normalize ? 1e-20f : 1.0f;
    for (int64_t k = 0; k < K; ++k) {
      weights[k] = scores[chosen[k]];
      if (normalize) total += weights[k];
    }
    for (int64_t k = 0; k < K; ++k) weights[k] = weights[k] / total * factor;
  }

 private:
  // A group is worth the sum of its two best; those that are not among the best ones leave.
  void leave_out(float* keys, int64_t E) const {
    const int64_t width = E / groups;
    float *worth = keys + E, *best = worth + groups;
    int64_t* numbers = reinterpret_cast<int64_t*>(scratch_of<Sigmoid>(groups * sizeof(int64_t)));
    for (int64_t g = 0; g < groups; ++g) {
      float two[2];
      int64_t where[2];
      find_largest(keys + g * width, width, 2, two, where);
      worth[g] = two[0] + two[1];
    }
    find_largest(worth, groups, per_token, best, numbers);
    for (int64_t g = 0; g < groups; ++g)
      if (std::find(numbers, numbers + per_token, g) == numbers + per_token) std::fill_n(keys + g * width, width, -kInfinity);
  }
};

template <class Score>
class TopExperts final : public Work {
 public:
  TopExperts(const Small& small, const Score& score, int64_t* chosen, float* weights, int64_t K)
      : small_(small), score_(score), chosen_(chosen), weights_(weights), K_(K) {}

  void run(const Team& team, uint8_t* scratch) const override {
    const int64_t T = small_.T, E = small_.E;
    float* scores = reinterpret_cast<float*>(scratch);
    small_.multiply(team, scores);
    team.wait();
    share_rows(team, T, [&](int64_t begin, int64_t end) {
      float* memory = reinterpret_cast<float*>(scratch_of<TopExperts>(3 * E * sizeof(float)));
      for (int64_t t = begin; t < end; ++t) score_.choose(scores + t * E, E, K_, chosen_ + t * K_, weights_ + t * K_, memory);
    });
  }
  int64_t scratch_bytes() const override { return 4 * small_.T * small_.E; }
  int64_t cost() const override { return small_.T * small_.D * small_.E; }
  std::string name() const override { return Score::name() + std::to_string(K_) + " of " + std::to_string(small_.E); }
  std::vector<const void**> pointers() override { return {slot(small_.x), slot(chosen_), slot(weights_)}; }

 private:
  Small small_;
  Score score_;
  int64_t* chosen_;
  float* weights_;
  int64_t K_;
};

template <class Score>
std::tuple<Tensor, Tensor> choose(const Tensor& x, const Tensor& router, int64_t per_token, const Score& score) {
  const Small small = Small::of(x, router, "router");
  STD_TORCH_CHECK(per_token > 0 && per_token <= small.E, "a token cannot go through ", per_token, " of ", small.E, " experts");
  Tensor chosen = empty_like(x, {small.T, per_token}, ScalarType::Long), weights = empty_like(x, {small.T, per_token});
  launch(std::make_shared<TopExperts<Score>>(small, score, data_of<int64_t>(chosen), data_of<float>(weights), per_token));
  return {chosen, weights};
}

}  // namespace

Tensor small_linear(const Tensor& x, const Tensor& weight) {
  check_layout(x, "x", 2);
  check_layout(weight, "weight", 2);
  const Small small = Small::of(x, weight, "weight");
  Tensor y = empty_like(x, {small.T, small.E});
  launch(std::make_shared<SmallLinear>(small, data_of<float>(y)));
  return y;
}

std::tuple<Tensor, Tensor> top_experts(const Tensor& x, const Tensor& router, int64_t per_token, bool normalize) {
  check_layout(x, "x", 2);
  check_layout(router, "router", 2);
  return choose(x, router, per_token, Softmax{normalize});
}

std::tuple<Tensor, Tensor> top_sigmoid_experts(const Tensor& x, const Tensor& router, const Tensor& bias, int64_t per_token,
                                               int64_t groups, int64_t groups_per_token, bool normalize, double factor) {
  check_layout(x, "x", 2);
  check_layout(router, "router", 2);
  const int64_t E = router.size(0);
  check_floats(bias, "bias", {E});
  STD_TORCH_CHECK(groups == 1 || (groups > 1 && E % groups == 0 && E / groups >= 2), E, " experts cannot be ", groups,
                  " groups of at least two");
  STD_TORCH_CHECK(groups_per_token > 0 && groups_per_token <= groups && per_token <= E / groups * groups_per_token,
                  "a token cannot go through ", per_token, " experts in ", groups_per_token, " of ", groups, " groups");
  return choose(x, router, per_token,
                Sigmoid{data_of<const float>(bias), groups, groups_per_token, normalize, static_cast<float>(factor)});
}

}  // namespace pio
