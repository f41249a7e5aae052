// Linear maps with packed weights: quantises the activations, shares the weight's groups of rows among the threads.
#include <algorithm>
#include <cstring>
#include <optional>

#include "pack.h"
#include "product.h"

namespace pio {
namespace {

constexpr int64_t kActivationBytes = 2400 << 10;  // activations of a block of tokens: they are read again for each unit
constexpr int64_t kOwnActivations = 4096;           // numbers that each thread quantises for itself
struct Panels {};
struct Activations {};

// What all linear maps share: tokens are quantised, then cut into blocks; a thread takes some units of the weight's rows
// for a block of tokens.
class Product : public Work {
 public:
  Product(const float* x, int64_t T, int64_t K, int64_t units, int64_t unit_bytes)
      : x_(x), T_(T), K_(K), units_(units), unit_bytes_(unit_bytes) {
    const int64_t fitting = std::max<int64_t>(8, kActivationBytes / K_ / 8 * 8);
    tokens_ = std::clamp<int64_t>(T_, 1, std::min<int64_t>(fitting, 256));
  }

  void run(const Team& team, uint8_t* scratch) const override {
    const Quantized q = quantized<Activations>(team, x_, T_, K_, kOwnActivations, scratch);
    const int64_t count = (T_ + tokens_ - 1) / tokens_ * units_;  // of units, for each block of tokens
    const int64_t stretch = std::max<int64_t>(1, (count - count / kLeftPart) / team.size);
    const int64_t edge = 4 * kUnitRows * tokens_;
    uint8_t* memory = scratch_of<Panels>(edge + kernels().unit_scratch_bytes(tokens_));
    team.share(count, stretch, std::max<int64_t>(1, count / (kLeftPart * kPieces)), [&](int64_t begin, int64_t end) {
      const bool asks = T_ > kReadingTokens || (end - begin) * unit_bytes_ < kLongStretch;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i / units_ * tokens_, unit = i % units_;
        multiply(unit, asks ? std::min(unit + 1, units_ - 1) : kNobodyAsks, first, std::min(tokens_, T_ - first),
                 q.from(first), memory + edge, reinterpret_cast<float*>(memory));
      }
    });
  }
  int64_t scratch_bytes() const override { return Quantized::bytes(T_, K_); }
  int64_t cost() const override { return T_ * K_ * units_ * kUnitRows; }

 protected:
  // Unit `unit` of the result for `count` tokens from `first` on; `next` is probably this thread's next one, or
  // kNobodyAsks. `edge` [count, kUnitRows] is for a unit that has more rows than the result.
  virtual void multiply(int64_t unit, int64_t next, int64_t first, int64_t count, const Quantized& q, uint8_t* scratch,
                        float* edge) const = 0;

  const float* x_;
  int64_t T_, K_;

 private:
  int64_t units_, unit_bytes_, tokens_;
};

class Linear final : public Product {
 public:
  Linear(const float* x, float* out, const float* bias, std::vector<Segment> segments, int64_t T, int64_t K, int64_t O)
      : Product(x, T, K, units_of(segments), 2 * layout_of(segments[0].weight.format).group_bytes(K)),
        out_(out), bias_(bias), segments_(std::move(segments)), O_(O) {}
  std::string name() const override { return "linear " + std::to_string(K_) + " -> " + std::to_string(O_); }
  std::vector<const void**> pointers() override { return {slot(x_), slot(out_)}; }

 private:
  static int64_t units_of(const std::vector<Segment>& segments) {
    int64_t units = 0;
    for (const Segment& segment : segments) units += segment.units();
    return units;
  }
  void multiply(int64_t index, int64_t next, int64_t first, int64_t count, const Quantized& q, uint8_t* scratch,
                float* edge) const override {
    const Segment* segment = &segments_[0];
    int64_t skipped = 0;
    while (index - skipped >= segment->units()) skipped += (segment++)->units();
    index -= skipped;
    next -= skipped;  // asked for where it is in the same segment, and whole
    const int64_t rows = std::min<int64_t>(kUnitRows, segment->weight.rows - index * kUnitRows);
    const int64_t row = segment->first + index * kUnitRows;
    Unit unit{segment->weight.format, K_, rows > kGroupRows ? 2 : 1};
    for (int64_t g = 0; g < unit.count; ++g) {
      unit.groups[g] = segment->group(2 * index + g);
      if (next >= 0 && 2 * next + 2 <= segment->weight.groups()) unit.upcoming[g] = segment->group(2 * next + g);
    }
    const float* bias = bias_ == nullptr ? nullptr : bias_ + row;
    multiply_rows(unit, q, count, {bias, bias == nullptr ? nullptr : bias + kGroupRows}, out_ + first * O_ + row, O_, rows,
                  scratch, edge);
  }

  float* out_;
  const float* bias_;
  std::vector<Segment> segments_;
  int64_t O_;
};

// activation(gate) · up: a unit is one group of the gate's rows beside the same group of up's, so that the activation is
// computed where both are at hand.
class GatedLinear final : public Product {
 public:
  GatedLinear(Activation activation, const float* x, float* out, const float* bias, const Segment& gate, const Segment& up,
              int64_t T, int64_t K)
      : Product(x, T, K, gate.weight.groups(), 2 * layout_of(gate.weight.format).group_bytes(K)),
        activation_(activation), out_(out), bias_(bias), gate_(gate), up_(up) {}
  std::string name() const override {
    return "gated_linear " + std::to_string(K_) + " -> 2 * " + std::to_string(gate_.weight.rows);
  }
  std::vector<const void**> pointers() override { return {slot(x_), slot(out_)}; }

 private:
  void multiply(int64_t group, int64_t next, int64_t first, int64_t count, const Quantized& q, uint8_t* scratch,
                float* edge) const override {
    const int64_t I = gate_.weight.rows, row = group * kGroupRows, rows = std::min<int64_t>(kGroupRows, I - row);
    Unit unit{gate_.weight.format, K_, 2, {gate_.group(group), up_.group(group)}};
    if (next >= 0) unit.upcoming[0] = gate_.group(next), unit.upcoming[1] = up_.group(next);
    unit.gated = true, unit.activation = activation_;
    const float* bias = bias_ == nullptr ? nullptr : bias_ + row;
    multiply_rows(unit, q, count, {bias, bias == nullptr ? nullptr : bias + I}, out_ + first * I + row, I, rows, scratch, edge);
  }

  Activation activation_;
  float* out_;
  const float* bias_;
  Segment gate_, up_;
};

class Embedding final : public Work {
 public:
  Embedding(const int64_t* ids, float* out, Packed weight, int64_t T, float scale)
      : ids_(ids), out_(out), weight_(weight), T_(T), scale_(scale) {}
  void prepare() override {
    for (int64_t t = 0; t < T_; ++t)
      STD_TORCH_CHECK(ids_[t] >= 0 && ids_[t] < weight_.rows, "token_ids[", t, "] is ", ids_[t], ", expected 0 to ",
                      weight_.rows - 1);
  }
  void run(const Team& team, uint8_t*) const override {
    team.share(T_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        float* row = out_ + t * weight_.columns;
        unpack_row(weight_, ids_[t], row);
        if (scale_ != 1.0f) std::transform(row, row + weight_.columns, row, [this](float x) { return x * scale_; });
      }
    });
  }
  int64_t cost() const override { return T_ * weight_.columns * 16; }
  std::string name() const override { return "embedding"; }
  std::vector<const void**> pointers() override { return {slot(ids_), slot(out_)}; }

 private:
  const int64_t* ids_;
  float* out_;
  Packed weight_;
  int64_t T_;
  float scale_;
};

std::vector<Segment> segments_of(const Tensor& data, const Tensor& parts, int64_t columns) {
  check_layout(data, "packed", 1);
  check_type(data, "packed", ScalarType::Byte);
  std::vector<Segment> segments = segments_at(static_cast<const uint8_t*>(data.data_ptr()), parts, columns);
  int64_t bytes = 0;
  for (const Segment& segment : segments) bytes += segment.bytes();
  STD_TORCH_CHECK(!segments.empty() && bytes == data.size(0), "packed has ", data.size(0), " bytes, expected ", bytes);
  return segments;
}

}  // namespace

// Rows of a GGUF tensor, uint8 [rows, bytes of a row], packed into `to`.
void pack_blocks(const Tensor& blocks, const Tensor& codebook, int64_t format, int64_t columns, const Tensor& to) {
  check_layout(blocks, "blocks", 2);
  check_type(blocks, "blocks", ScalarType::Byte);
  check_layout(codebook, "codebook", 2);
  check_layout(to, "to", 1);
  check_type(to, "to", ScalarType::Byte);
  const Format kind = checked_format(format);
  const Layout layout = layout_of(kind);
  STD_TORCH_CHECK(kind != Format::IQ2_XXS || (codebook.size(0) == 256 && codebook.size(1) == 8),
                  "codebook is [256, 8] for IQ2_XXS");
  STD_TORCH_CHECK(columns > 0 && columns % layout.columns_in_file == 0, columns, " columns are not a multiple of ",
                  layout.columns_in_file);
  check_size(blocks, "blocks", 1, columns / layout.columns_in_file * layout.block_bytes_in_file);
  Packed weight{kind, nullptr, blocks.size(0), columns};
  const int64_t bytes = layout.group_bytes(columns);
  check_size(to, "to", 0, weight.groups() * bytes);
  const uint8_t* from = static_cast<const uint8_t*>(blocks.data_ptr());
  const uint8_t* points = static_cast<const uint8_t*>(codebook.data_ptr());
  uint8_t* at = static_cast<uint8_t*>(to.data_ptr());
  torch::stable::parallel_for(0, weight.groups(), 4, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) pack_group(weight, from, points, g, at + g * bytes);
  });
}

int64_t packed_bytes(int64_t format, int64_t rows, int64_t columns) {
  const Packed weight{checked_format(format), nullptr, rows, columns};
  return weight.groups() * layout_of(weight.format).group_bytes(columns);
}

namespace {

// The checked inputs of a linear map.
struct Inputs {
  const float *x, *bias;
  int64_t T, K, O;
  std::vector<Segment> segments;
};
Inputs inputs_of(const Tensor& x, const Tensor& data, const Tensor& parts, const std::optional<Tensor>& bias) {
  check_layout(x, "x", 2);
  check_type(x, "x", ScalarType::Float);
  const int64_t T = x.size(0), K = x.size(1);
  STD_TORCH_CHECK(K > 0 && K % kBlock == 0, "x has ", K, " columns, expected a multiple of ", kBlock);
  std::vector<Segment> segments = segments_of(data, parts, K);
  const int64_t O = segments.back().first + segments.back().weight.rows;
  if (bias.has_value()) {
    check_layout(*bias, "bias", 1);
    check_type(*bias, "bias", ScalarType::Float);
    check_size(*bias, "bias", 0, O);
  }
  const float* added = bias.has_value() ? static_cast<const float*>(bias->data_ptr()) : nullptr;
  return {static_cast<const float*>(x.data_ptr()), added, T, K, O, std::move(segments)};
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& data, const Tensor& parts, std::optional<Tensor> bias) {
  Inputs in = inputs_of(x, data, parts, bias);
  Tensor out = empty_like(x, {in.T, in.O});
  launch(std::make_shared<Linear>(in.x, static_cast<float*>(out.data_ptr()), in.bias, std::move(in.segments), in.T, in.K,
                                  in.O));
  return out;
}

Tensor gated_linear(const Tensor& x, const Tensor& data, const Tensor& parts, std::optional<Tensor> bias,
                    int64_t activation) {
  STD_TORCH_CHECK(activation >= 0 && activation < static_cast<int64_t>(Activation::count), "activation ", activation,
                  " does not exist");
  const Inputs in = inputs_of(x, data, parts, bias);
  STD_TORCH_CHECK(in.segments.size() == 2 && in.segments[0].weight.rows == in.segments[1].weight.rows &&
                      in.segments[0].weight.format == in.segments[1].weight.format,
                  "gate and up are two parts of one kind and size");
  Tensor out = empty_like(x, {in.T, in.O / 2});
  launch(std::make_shared<GatedLinear>(static_cast<Activation>(activation), in.x, static_cast<float*>(out.data_ptr()),
                                       in.bias, in.segments[0], in.segments[1], in.T, in.K));
  return out;
}

Tensor embedding(const Tensor& token_ids, const Tensor& data, const Tensor& parts, const Tensor& like, int64_t columns,
                 double scale) {
  check_layout(token_ids, "token_ids", 1);
  check_type(token_ids, "token_ids", ScalarType::Long);
  check_type(like, "like", ScalarType::Float);
  const std::vector<Segment> segments = segments_of(data, parts, columns);
  STD_TORCH_CHECK(segments.size() == 1, "an embedding has one part, not ", segments.size());
  const int64_t T = token_ids.size(0);
  Tensor out = empty_like(like, {T, columns});
  launch(std::make_shared<Embedding>(static_cast<const int64_t*>(token_ids.data_ptr()),
                                     static_cast<float*>(out.data_ptr()), segments[0].weight, T,
                                     static_cast<float>(scale)));
  return out;
}

}  // namespace pio
