// The feed-forward maps of a mixture's experts.
//
// With e = chosen[t, k], the K experts of token t, the result is
//
//   y[t] = Σ_k weights[t, k] · down_e(h[t, k]),    h[t, k] = silu(gate_e(x[t])) · up_e(x[t])
//
// Reading weights is what costs: a token of a mixture meets few of them, and each only once. So the T·K pairs (t, k) are
// sorted by expert, and the pairs of one expert form a *run*: while a stretch of the expert's rows passes by it is
// multiplied with every token of the run. An expert that anybody chose is read once for each kRunTokens of its tokens, any
// other not at all. Four stages, between which the team meets:
//
//   1  x becomes signed bytes, each token once, however many experts it has; a run of several tokens gathers its own
//   2  h, a row for each pair, in the order of the runs
//   3  h becomes signed bytes
//   4  the rows of down_e(h), in the same order; then each token adds up its own, in the order of its k
//
// All experts are of one size: unit i of a stage is row unit i % n of run i / n, so that a thread that takes neighbouring
// units reads neighbouring rows. A row's arithmetic never depends on its run, and a token's sum not on the sorting: the
// result is the same, bit for bit, alone and in company, for any number of threads.
//
// What is chosen is the result of an earlier operation of the same step. A recorded step has other choices each time, so
// nothing about them is decided before `run`; there every thread sorts for itself, which takes less time than meeting.
#include <limits>

#include "product.h"

namespace pio {
namespace {

constexpr int64_t kRunTokens = 256;
constexpr int64_t kOwnNumbers = 8192;  // that each thread quantises for itself
// Up to here all runs are short and cost alike, their weights: threads take long stretches. Above, small pieces.
constexpr int64_t kEvenTokens = 8, kPiecesOfRun = 4;
struct Sorting {};
struct Tokens {};
struct Hidden {};
struct Gathering {};
struct Panels {};

// Pairs [first, first + count) of the sorted ones, all of one expert.
struct Run {
  int32_t expert, first, count;
};

// The pairs (t, k), number t * K + k, sorted by expert; within one as they come.
struct Sorted {
  int32_t *starts, *tokens, *places;  // [E + 1]; [pairs], the token of each sorted one; [pairs], where each pair went or -1
  Run* runs;
  int64_t num_runs;

  static int64_t up(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  static int64_t bytes(int64_t pairs, int64_t E) {
    return up(4 * (E + 1)) + 2 * up(4 * pairs) + static_cast<int64_t>(sizeof(Run)) * (E + pairs / kRunTokens + 1);
  }
  static Sorted of(const int64_t* chosen, int64_t pairs, int64_t K, int64_t E) {
    uint8_t* memory = scratch_of<Sorting>(bytes(pairs, E));
    Sorted s;
    s.starts = reinterpret_cast<int32_t*>(memory);
    s.tokens = reinterpret_cast<int32_t*>(memory + up(4 * (E + 1)));
    s.places = s.tokens + up(4 * pairs) / 4;
    s.runs = reinterpret_cast<Run*>(s.places + up(4 * pairs) / 4);
    std::fill_n(s.starts, E + 1, 0);
    for (int64_t i = 0; i < pairs; ++i)
      if (exists(chosen[i], E)) ++s.starts[chosen[i] + 1];
    for (int64_t e = 0; e < E; ++e) s.starts[e + 1] += s.starts[e];
    s.num_runs = 0;
    for (int64_t e = 0; e < E; ++e)
      for (int32_t first = s.starts[e], end = s.starts[e + 1]; first < end; first += kRunTokens)
        s.runs[s.num_runs++] = {static_cast<int32_t>(e), first, std::min<int32_t>(kRunTokens, end - first)};
    for (int64_t i = 0; i < pairs; ++i) {
      s.places[i] = exists(chosen[i], E) ? s.starts[chosen[i]]++ : -1;
      if (s.places[i] >= 0) s.tokens[s.places[i]] = static_cast<int32_t>(i / K);
    }
    return s;
  }
  // The operator has refused any other number; a step that is replayed is not asked again, and must not leave its memory.
  static bool exists(int64_t expert, int64_t E) { return expert >= 0 && expert < E; }
};

void copy_row(const Quantized& from, const Quantized& to) {
  std::copy_n(from.values, from.value_stride, to.values);
  std::copy_n(from.less, from.less_stride, to.less);
  std::copy_n(from.halves, 2 * from.less_stride, to.halves);
  std::copy_n(from.block_offsets, from.less_stride, to.block_offsets);
  std::copy_n(from.half_offsets, 2 * from.less_stride, to.half_offsets);
  std::copy_n(from.scales, from.scale_stride, to.scales);
}

// Weights of all experts: parts of the first one; the others follow it at equal distances.
struct Stack {
  std::vector<Segment> parts;
  int64_t step;

  Segment part(int64_t i, int64_t expert) const {
    Segment segment = parts[i];
    segment.weight.data += expert * step;
    return segment;
  }
};

class Experts final : public Work {
 public:
  Experts(const float* x, const int64_t* chosen, const float* weights, float* out, Stack gate_up, Stack down, int64_t T,
          int64_t K, int64_t E)
      : x_(x), chosen_(chosen), weights_(weights), out_(out), gate_up_(std::move(gate_up)), down_(std::move(down)), T_(T),
        K_(K), E_(E), pairs_(T * K), D_(down_.parts[0].weight.rows), I_(gate_up_.parts[0].weight.rows),
        groups_(gate_up_.parts[0].weight.groups()), units_(down_.parts[0].units()),
        one_pass_(gate_up_.parts[0].weight.format == gate_up_.parts[1].weight.format) {}

  void run(const Team& team, uint8_t* scratch) const override {
    const Sorted sorted = Sorted::of(chosen_, pairs_, K_, E_);
    const Places at = places();
    float *hidden = reinterpret_cast<float*>(scratch + at.h), *made = reinterpret_cast<float*>(scratch + at.made);
    const Quantized x = quantized<Tokens>(team, x_, T_, D_, kOwnNumbers, scratch + at.x);
    const int64_t most = std::min(T_, kRunTokens), edge = Sorted::up(4 * kUnitRows * most);
    uint8_t* panels = scratch_of<Panels>(edge + kernels().unit_scratch_bytes(most));
    const Quantized own = Quantized::at(scratch_of<Gathering>(Quantized::bytes(most, D_)), most, D_);
    int64_t gathered = -1;  // the run whose tokens are in `own`
    share_units(team, sorted, groups_, gate_up_.step / groups_, [&](int64_t number, int64_t group, int64_t next) {
      const Run& run = sorted.runs[number];
      if (run.count > 1 && gathered != number) {
        for (int32_t i = 0; i < run.count; ++i) copy_row(x.from(sorted.tokens[run.first + i]), own.from(i));
        gathered = number;
      }
      const Quantized& tokens = run.count > 1 ? own : x.from(sorted.tokens[run.first]);
      gated(run, group, next, tokens, hidden + run.first * I_, panels + edge, reinterpret_cast<float*>(panels));
    });
    team.wait();
    const Quantized h = quantized<Hidden>(team, hidden, pairs_, I_, kOwnNumbers, scratch + at.q);
    share_units(team, sorted, units_, down_.step / units_, [&](int64_t number, int64_t unit, int64_t next) {
      const Run& run = sorted.runs[number];
      down(run, unit, next, h.from(run.first), made + run.first * D_, panels + edge, reinterpret_cast<float*>(panels));
    });
    team.wait();
    const int64_t pieces = (D_ + kPiece - 1) / kPiece;
    team.share(T_ * pieces, std::max<int64_t>(1, T_ * pieces / (4 * team.size)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) add_up(i / pieces, i % pieces * kPiece, sorted, made);
    });
  }
  int64_t scratch_bytes() const override { return places().bytes; }
  int64_t cost() const override { return 3 * pairs_ * D_ * I_; }
  std::string name() const override {
    return "experts " + std::to_string(K_) + " of " + std::to_string(E_) + ", " + std::to_string(D_) + " -> 2 * " +
           std::to_string(I_) + " -> " + std::to_string(D_);
  }
  std::vector<const void**> pointers() override { return {slot(x_), slot(chosen_), slot(weights_), slot(out_)}; }

 private:
  static constexpr int64_t kPiece = 512;  // numbers of a token that one thread adds up

  // What the stages leave for each other, in the memory that the team shares: x and h in signed bytes, h, the rows of down.
  // Rows of h that no pair has (there is none, unless a choice does not exist) are quantised too: they are only numbers.
  struct Places {
    int64_t x, q, h, made, bytes;
  };
  Places places() const {
    Places at;
    at.x = 0;
    at.q = at.x + Sorted::up(Quantized::bytes(T_, D_));
    at.h = at.q + Sorted::up(Quantized::bytes(pairs_, I_));
    at.made = at.h + Sorted::up(4 * pairs_ * I_);
    at.bytes = at.made + Sorted::up(4 * pairs_ * D_);
    return at;
  }

  // f(run, unit, the unit that is probably this thread's next one or kNobodyAsks), `units` of each run.
  template <class F>
  void share_units(const Team& team, const Sorted& sorted, int64_t units, int64_t unit_bytes, const F& f) const {
    const int64_t count = sorted.num_runs * units;
    const bool even = T_ <= kEvenTokens;
    const int64_t piece = std::max<int64_t>(1, even ? count / (kLeftPart * kPieces) : units / kPiecesOfRun);
    const int64_t stretch = even ? std::max<int64_t>(1, (count - count / kLeftPart) / team.size) : piece;
    team.share(count, stretch, piece, [&](int64_t begin, int64_t end) {
      const bool asks = T_ > kReadingTokens || (end - begin) * unit_bytes < kLongStretch;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t unit = i % units;
        f(i / units, unit, asks ? std::min(unit + 1, units - 1) : kNobodyAsks);
      }
    });
  }

  // One group of rows of gate and up for all tokens of a run, to `out` [count, I].
  void gated(const Run& run, int64_t group, int64_t next, const Quantized& x, float* out, uint8_t* scratch,
             float* edge) const {
    const Segment gate = gate_up_.part(0, run.expert), up = gate_up_.part(1, run.expert);
    const int64_t row = group * kGroupRows, rows = std::min<int64_t>(kGroupRows, I_ - row);
    if (one_pass_) {
      Unit unit{gate.weight.format, D_, 2, {gate.group(group), up.group(group)}};
      if (next >= 0) unit.upcoming[0] = gate.group(next), unit.upcoming[1] = up.group(next);
      unit.gated = true;
      return multiply_rows(unit, x, run.count, {nullptr, nullptr}, out + row, I_, rows, scratch, edge);
    }
    for (const Segment* segment : {&gate, &up}) {  // of two kinds: side by side first
      Unit unit{segment->weight.format, D_, 1, {segment->group(group)}};
      if (next >= 0) unit.upcoming[0] = segment->group(next);
      unit.out = edge + (segment == &up ? kGroupRows : 0), unit.stride = kUnitRows;
      kernels().multiply_unit(unit, x, run.count, scratch);
    }
    for (int64_t i = 0; i < run.count; ++i) {
      const float* both = edge + i * kUnitRows;
      kernels().activate_and_mul(Activation::silu, DType::f32, out + i * I_ + row, both, both + kGroupRows, rows);
    }
  }

  // Two groups of rows of down, to `out` [count, D].
  void down(const Run& run, int64_t index, int64_t next, const Quantized& h, float* out, uint8_t* scratch,
            float* edge) const {
    const Segment segment = down_.part(0, run.expert);
    const int64_t row = index * kUnitRows, rows = std::min<int64_t>(kUnitRows, D_ - row);
    Unit unit{segment.weight.format, I_, rows > kGroupRows ? 2 : 1};
    for (int64_t g = 0; g < unit.count; ++g) {
      unit.groups[g] = segment.group(2 * index + g);
      if (next >= 0 && 2 * next + 2 <= segment.weight.groups()) unit.upcoming[g] = segment.group(2 * next + g);
    }
    multiply_rows(unit, h, run.count, {nullptr, nullptr}, out + row, D_, rows, scratch, edge);
  }

  void add_up(int64_t t, int64_t first, const Sorted& sorted, const float* made) const {
    const int64_t n = std::min(kPiece, D_ - first);
    float sum[kPiece] = {};
    for (int64_t k = 0; k < K_; ++k) {
      const int32_t place = sorted.places[t * K_ + k];
      const float weight = place < 0 ? std::numeric_limits<float>::quiet_NaN() : weights_[t * K_ + k];
      const float* row = made + std::max(place, 0) * D_ + first;
      for (int64_t d = 0; d < n; ++d) sum[d] += weight * row[d];
    }
    std::copy_n(sum, n, out_ + t * D_ + first);
  }

  const float* x_;
  const int64_t* chosen_;
  const float* weights_;
  float* out_;
  Stack gate_up_, down_;
  int64_t T_, K_, E_, pairs_, D_, I_, groups_, units_;
  bool one_pass_;
};

Stack stack_of(const Tensor& data, const Tensor& parts, const char* name, int64_t columns, int64_t experts) {
  check_layout(data, name, 2);
  check_type(data, name, ScalarType::Byte);
  check_size(data, name, 0, experts);
  STD_TORCH_CHECK(columns > 0 && columns % kBlock == 0, name, " has ", columns, " columns, expected a multiple of ", kBlock);
  Stack stack{segments_at(static_cast<const uint8_t*>(data.data_ptr()), parts, columns), data.size(1)};
  int64_t bytes = 0;
  for (const Segment& part : stack.parts) bytes += part.bytes();
  STD_TORCH_CHECK(bytes == data.size(1), name, " has ", data.size(1), " bytes an expert, expected ", bytes);
  return stack;
}

}  // namespace

Tensor experts(const Tensor& x, const Tensor& gate_up, const Tensor& gate_up_parts, const Tensor& down,
               const Tensor& down_parts, const Tensor& chosen, const Tensor& weights) {
  check_layout(x, "x", 2);
  check_type(x, "x", ScalarType::Float);
  check_layout(chosen, "chosen", 2);
  check_type(chosen, "chosen", ScalarType::Long);
  check_layout(weights, "weights", 2);
  check_type(weights, "weights", ScalarType::Float);
  const int64_t T = x.size(0), D = x.size(1), K = chosen.size(1), E = gate_up.size(0);
  for (const auto& [tensor, name] : {std::pair{&chosen, "chosen"}, std::pair{&weights, "weights"}}) {
    check_size(*tensor, name, 0, T);
    check_size(*tensor, name, 1, K);
  }
  Stack both = stack_of(gate_up, gate_up_parts, "gate_up", D, E);
  STD_TORCH_CHECK(both.parts.size() == 2 && both.parts[0].weight.rows == both.parts[1].weight.rows,
                  "gate and up are two parts of one size");
  Stack back = stack_of(down, down_parts, "down", both.parts[0].weight.rows, E);
  STD_TORCH_CHECK(back.parts.size() == 1 && back.parts[0].weight.rows == D, "down is one part of ", D, " rows");
  const int64_t* numbers = static_cast<const int64_t*>(chosen.data_ptr());
  for (int64_t i = 0; i < T * K; ++i)
    STD_TORCH_CHECK(Sorted::exists(numbers[i], E), "chosen has ", numbers[i], ", expected 0 to ", E - 1);
  Tensor out = empty_like(x, {T, D});
  launch(std::make_shared<Experts>(static_cast<const float*>(x.data_ptr()), numbers,
                                   static_cast<const float*>(weights.data_ptr()), static_cast<float*>(out.data_ptr()),
                                   std::move(both), std::move(back), T, K, E));
  return out;
}

}  // namespace pio
