// Gates, and columns that change places: what stands between the products of gated attention, gated delta rules and
// shared experts.
#include "each_row.h"

namespace pio {
namespace {

struct GatedNorm {
  static constexpr const char* kName = "gated_rms_norm";
  DType type;
  char* y;
  const float* x;
  const char* gate;
  const float* weight;
  float eps;
  int64_t heads, D, gate_stride;

  void prepare() const {}
  void row(int64_t r) const {
    const int64_t size = bytes_of(type), t = r / heads, head = r % heads;
    kernels().gated_norm(type, y + r * D * size, x + r * D, gate + (t * gate_stride + head * D) * size, weight, eps, D);
  }
  std::vector<const void**> pointers() { return {slot(y), slot(x), slot(gate)}; }
};

struct SigmoidGate {
  static constexpr const char* kName = "sigmoid_gate";
  DType type;
  char* y;
  const char *x, *gate;
  int64_t n, x_stride, gate_stride;

  void prepare() const {}
  void row(int64_t t) const {
    const int64_t size = bytes_of(type);
    kernels().sigmoid_gate(type, y + t * n * size, x + t * x_stride * size, gate + t * gate_stride * size, n);
  }
  std::vector<const void**> pointers() { return {slot(y), slot(x), slot(gate)}; }
};

struct AddShared {
  static constexpr const char* kName = "add_shared";
  DType type;
  char* y;
  const char *routed, *shared, *gate;  // gate may be null
  int64_t D;

  void prepare() const {}
  void row(int64_t t) const {
    const int64_t size = bytes_of(type), at = t * D * size;
    kernels().add_gated(type, y + at, routed + at, shared + at, gate == nullptr ? nullptr : gate + t * size, D);
  }
  std::vector<const void**> pointers() { return {slot(y), slot(routed), slot(shared), slot(gate)}; }
};

struct TakeColumns {
  static constexpr const char* kName = "take_columns";
  char* y;
  const char* x;
  std::vector<int64_t> runs;  // first column and number of columns, in turns
  int64_t size, columns, stride;

  void prepare() const {}
  void row(int64_t t) const {
    char* to = y + t * columns * size;
    for (size_t i = 0; i < runs.size(); i += 2) {
      std::copy_n(x + (t * stride + runs[i]) * size, runs[i + 1] * size, to);
      to += runs[i + 1] * size;
    }
  }
  std::vector<const void**> pointers() { return {slot(y), slot(x)}; }
};

}  // namespace

Tensor gated_rms_norm(const Tensor& x, const Tensor& gate, const Tensor& weight, double eps) {
  const int64_t T = gate.size(0), N = gate.size(1), D = gate.size(2), stride = check_rows(gate, "gate", 3);
  check_floats(x, "x", {T, N, D});
  check_floats(weight, "weight", {D});
  const DType type = dtype_of(gate, "gate");
  Tensor y = empty_like(gate, {T, N, D});
  launch_rows(GatedNorm{type, data_of(y), data_of<const float>(x), data_of(gate), data_of<const float>(weight),
                        static_cast<float>(eps), N, D, stride},
              T * N, 8 * T * N * D);
  return y;
}

Tensor sigmoid_gate(const Tensor& x, const Tensor& gate) {
  const int64_t T = x.size(0), n = x.size(1), stride = check_rows(x, "x", 2), gate_stride = check_rows(gate, "gate", 2);
  const DType type = dtype_of(x, "x");
  check_type(gate, "gate", x.scalar_type());
  for (int dim : {0, 1}) check_size(gate, "gate", dim, x.size(dim));
  Tensor y = empty_like(x, {T, n});
  launch_rows(SigmoidGate{type, data_of(y), data_of(x), data_of(gate), n, stride, gate_stride}, T, 8 * T * n);
  return y;
}

Tensor add_shared(const Tensor& routed, const Tensor& shared, std::optional<Tensor> gate) {
  check_layout(routed, "routed", 2);
  check_layout(shared, "shared", 2);
  const int64_t T = routed.size(0), D = routed.size(1);
  const DType type = dtype_of(routed, "routed");
  check_type(shared, "shared", routed.scalar_type());
  for (int dim : {0, 1}) check_size(shared, "shared", dim, routed.size(dim));
  if (gate.has_value()) {
    check_layout(*gate, "gate", 2);
    check_type(*gate, "gate", routed.scalar_type());
    check_size(*gate, "gate", 0, T);
    check_size(*gate, "gate", 1, 1);
  }
  Tensor y = empty_like(routed, {T, D});
  launch_rows(AddShared{type, data_of(y), data_of(routed), data_of(shared), gate.has_value() ? data_of(*gate) : nullptr, D},
              T, 2 * T * D);
  return y;
}

Tensor take_columns(const Tensor& x, std::vector<int64_t> runs) {
  const int64_t stride = check_rows(x, "x", 2), T = x.size(0);
  STD_TORCH_CHECK(runs.size() % 2 == 0, "runs are pairs of a column and a number of columns");
  int64_t columns = 0;
  for (size_t i = 0; i < runs.size(); i += 2) {
    STD_TORCH_CHECK(runs[i] >= 0 && runs[i + 1] >= 0 && runs[i] <= x.size(1) - runs[i + 1], "runs has columns ", runs[i],
                    " and ", runs[i + 1], " of them, x has ", x.size(1));
    columns += runs[i + 1];
  }
  Tensor y = empty_like(x, {T, columns});
  launch_rows(TakeColumns{data_of(y), data_of(x), std::move(runs), bytes_of(dtype_of(x, "x")), columns, stride}, T,
              T * columns / 4);
  return y;
}

}  // namespace pio
