// The router of a mixture: for each token the K experts of the largest softmax(x · routerᵀ).
//
// First the products, in floats: threads share the router's rows. Then each token by itself: a pass over its scores keeps
// the K largest so far in order. Nothing of a token depends on the others.
#include <cmath>
#include <limits>

#include "tensors.h"
#include "work.h"

namespace pio {
namespace {

class TopExperts final : public Work {
 public:
  TopExperts(const float* x, const float* router, int64_t* chosen, float* weights, int64_t T, int64_t D, int64_t E,
             int64_t K, bool normalize)
      : x_(x), router_(router), chosen_(chosen), weights_(weights), T_(T), D_(D), E_(E), K_(K), normalize_(normalize) {}

  void run(const Team& team, uint8_t* scratch) const override {
    float* scores = reinterpret_cast<float*>(scratch);
    const int64_t blocks = (E_ + kRows - 1) / kRows, count = (T_ + kTokens - 1) / kTokens * blocks;
    team.share(count, std::max<int64_t>(1, count / team.size), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t t = i / blocks * kTokens, e = i % blocks * kRows;
        kernels().multiply_dense(x_ + t * D_, std::min(kTokens, T_ - t), router_ + e * D_, std::min(kRows, E_ - e), D_,
                                 scores + t * E_ + e, E_);
      }
    });
    team.wait();
    team.share(T_, std::max<int64_t>(1, T_ / (4 * team.size)), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) choose(scores + t * E_, chosen_ + t * K_, weights_ + t * K_);
    });
  }
  int64_t scratch_bytes() const override { return 4 * T_ * E_; }
  int64_t cost() const override { return T_ * D_ * E_; }
  std::string name() const override { return "top_experts " + std::to_string(K_) + " of " + std::to_string(E_); }
  std::vector<const void**> pointers() override { return {slot(x_), slot(chosen_), slot(weights_)}; }

 private:
  static constexpr int64_t kRows = 16, kTokens = 32;

  // Equal ones in the order of their numbers: a later one has to be larger to go in front.
  void choose(float* scores, int64_t* chosen, float* weights) const {
    float top = -std::numeric_limits<float>::infinity(), sum = 0.0f;
    for (int64_t e = 0; e < E_; ++e) top = scores[e] > top ? scores[e] : top;
    for (int64_t e = 0; e < E_; ++e) sum += scores[e] = std::exp(scores[e] - top);
    const bool usable = std::isfinite(sum);
    int64_t found = 0;
    for (int64_t e = 0; e < E_; ++e) {
      const float score = usable ? scores[e] / sum : std::numeric_limits<float>::quiet_NaN();
      if (found == K_ && !(score > weights[K_ - 1])) continue;
      int64_t at = found < K_ ? found++ : K_ - 1;
      for (; at > 0 && score > weights[at - 1]; --at) weights[at] = weights[at - 1], chosen[at] = chosen[at - 1];
      weights[at] = score, chosen[at] = e;
    }
    if (!normalize_) return;
    float total = 0.0f;
    for (int64_t k = 0; k < K_; ++k) total += weights[k];
    for (int64_t k = 0; k < K_; ++k) weights[k] /= total;
  }

  const float *x_, *router_;
  int64_t* chosen_;
  float* weights_;
  int64_t T_, D_, E_, K_;
  bool normalize_;
};

}  // namespace

std::tuple<Tensor, Tensor> top_experts(const Tensor& x, const Tensor& router, int64_t per_token, bool normalize) {
  for (const auto& [tensor, name] : {std::pair{&x, "x"}, std::pair{&router, "router"}}) {
    check_layout(*tensor, name, 2);
    check_type(*tensor, name, ScalarType::Float);
  }
  const int64_t T = x.size(0), D = x.size(1), E = router.size(0);
  check_size(router, "router", 1, D);
  STD_TORCH_CHECK(per_token > 0 && per_token <= E, "a token cannot go through ", per_token, " of ", E, " experts");
  Tensor chosen = empty_like(x, {T, per_token}, ScalarType::Long), weights = empty_like(x, {T, per_token});
  launch(std::make_shared<TopExperts>(static_cast<const float*>(x.data_ptr()), static_cast<const float*>(router.data_ptr()),
                                      static_cast<int64_t*>(chosen.data_ptr()), static_cast<float*>(weights.data_ptr()), T, D,
                                      E, per_token, normalize));
  return {chosen, weights};
}

}  // namespace pio
