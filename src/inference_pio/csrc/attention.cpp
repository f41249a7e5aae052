// Paged attention: cuts a call into pieces of work, shares them among the threads, folds what was cut.
#include <algorithm>
#include <memory>
#include <vector>

#include "block_choice.h"

namespace pio {
namespace {

constexpr int64_t kRowsPerTile = 192;    // (token, head) rows that share one packing of a tile of keys
constexpr int64_t kRowsWorthSplit = 64;  // with fewer rows than this, a long context may be split over the threads
constexpr int64_t kNoWindow = int64_t{1} << 62;
constexpr int64_t kPiecesPerThread = 4;  // a tile that is more than such a piece of the whole is split

// A tile of queries over chunks [begin, end) of its keys. Of a split tile every chunk is a piece of its own, and
// leaves its state at `partial` in units of one chunk's state; -1 where the piece does the whole tile.
struct Piece {
  QueryTile tile;
  int64_t begin, end, partial, cost;
};
struct SplitTile {
  QueryTile tile;
  int64_t chunks, partial;  // the first of its states
};

struct AttentionMemory {};

// Keys [first_key, known) are read, of chunks [first_chunk, end_of_chunks).
int64_t known(const QueryTile& tile) { return tile.first_position + tile.tokens; }
int64_t first_chunk(const Attention& a, const QueryTile& tile) { return first_key(a, tile) / kKeysPerChunk; }
int64_t end_of_chunks(const QueryTile& tile) { return (known(tile) + kKeysPerChunk - 1) / kKeysPerChunk; }

// The tiles of all sequences; every index that the kernels follow is checked here.
std::vector<QueryTile> tiles_of(const Attention& a, const Where& w) {
  STD_TORCH_CHECK(w.start[0] == 0 && w.start[w.S] == w.tokens, "query_start runs from ", w.start[0], " to ",
                  w.start[w.S], ", expected 0 to ", w.tokens);
  const int64_t per_tile = std::max<int64_t>(1, kRowsPerTile / (a.heads / a.kv_heads));
  std::vector<QueryTile> tiles;
  for (int64_t s = 0; s < w.S; ++s) {
    const int64_t queries = w.start[s + 1] - w.start[s], length = w.length[s];
    const int64_t used = (length + a.block_size - 1) / a.block_size;
    STD_TORCH_CHECK(queries >= 0 && length >= queries && used <= w.B, "sequence ", s, " has ", length, " tokens, ",
                    queries, " of them queries, and room for ", w.B * a.block_size);
    const int32_t* blocks = w.blocks + s * w.B;
    const int64_t first_read = a.reads_all ? 0 : a.unseen(length - queries) / kKeysPerTile * kKeysPerTile;
    for (int64_t i = first_read / a.block_size; i < used; ++i)
      STD_TORCH_CHECK(blocks[i] >= 0 && blocks[i] < w.num_blocks, "block_tables[", s, ", ", i, "] is ", blocks[i],
                      ", expected 0 to ", w.num_blocks - 1);
    for (int64_t first = 0; first < queries; first += per_tile)
      for (int64_t head = 0; head < a.kv_heads; ++head)
        tiles.push_back({blocks, w.start[s] + first, std::min(per_tile, queries - first), length - queries + first, head});
  }
  return tiles;
}

// What the threads share: pieces, longest first, so that no thread is left with a long one at the end.
struct Plan {
  std::vector<Piece> pieces;
  std::vector<SplitTile> split;
  int64_t partials = 0, partial_rows = 0, cost = 0;
};

Plan plan_of(const Attention& a, const std::vector<QueryTile>& tiles) {
  const int64_t group = a.heads / a.kv_heads;
  // Packing a key costs about as much as 8 rows of it.
  const auto cost = [&](const QueryTile& tile, int64_t keys) { return (tile.tokens * group + 8) * a.head_dim * keys; };
  const auto cost_of = [&](const QueryTile& tile) { return cost(tile, known(tile) - first_key(a, tile)); };
  Plan plan;
  for (const QueryTile& tile : tiles) plan.cost += cost_of(tile);
  const int64_t most = plan.cost / (kPiecesPerThread * torch::stable::get_num_threads());
  for (const QueryTile& tile : tiles) {
    const int64_t first = first_chunk(a, tile), end = end_of_chunks(tile), rows = tile.tokens * group;
    const int64_t whole = cost_of(tile);
    if (end - first == 1 || rows > kRowsWorthSplit || whole <= most) {
      plan.pieces.push_back({tile, first, end, -1, whole});
      continue;
    }
    plan.split.push_back({tile, end - first, plan.partials});
    plan.partial_rows = std::max(plan.partial_rows, rows);
    for (int64_t c = first; c < end; ++c) {
      const int64_t keys = std::min<int64_t>((c + 1) * kKeysPerChunk, known(tile)) -
                           std::max<int64_t>(c * kKeysPerChunk, first_key(a, tile));
      plan.pieces.push_back({tile, c, c + 1, plan.partials++, cost(tile, keys)});
    }
  }
  std::stable_sort(plan.pieces.begin(), plan.pieces.end(),
                   [](const Piece& x, const Piece& y) { return x.cost > y.cost; });
  return plan;
}

class PagedAttention final : public Work {
 public:
  PagedAttention(const Attention& a, const Where& where, std::optional<BlockChoice> choice)
      : a_(a), where_(where), choice_(std::move(choice)), width_(padded(a.head_dim, kernels().lanes)) {}

  void prepare() override {
    std::vector<QueryTile> tiles = tiles_of(a_, where_);
    if (choice_) choice_->prepare(a_, where_, tiles);
    plan_ = plan_of(a_, tiles);
    partial_floats_ = state_floats(plan_.partial_rows);
    if (plan_.partials * partial_floats_ > states_size_) {
      states_size_ = plan_.partials * partial_floats_;
      states_.reset(new float[states_size_]);
    }
  }
  void run(const Team& team, uint8_t*) const override {
    if (choice_) choice_->run(team);
    const std::vector<Piece>& pieces = plan_.pieces;
    const int64_t count = static_cast<int64_t>(pieces.size());
    team.share(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)  // i + size: the likely next one of this thread
        attend(pieces[i], i + team.size < count ? &pieces[i + team.size] : nullptr);
    });
    if (plan_.split.empty()) return;
    team.wait();
    team.share(static_cast<int64_t>(plan_.split.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fold_partials(plan_.split[i]);
    });
  }
  int64_t cost() const override { return plan_.cost + (choice_ ? choice_->cost() : 0); }
  std::string name() const override { return choice_ ? "sparse_attention" : "paged_attention"; }
  std::vector<const void**> pointers() override {
    return {slot(a_.q), slot(a_.out), slot(where_.blocks), slot(where_.start), slot(where_.length)};
  }

 private:
  int64_t rows(const QueryTile& tile) const { return tile.tokens * (a_.heads / a_.kv_heads); }
  int64_t state_floats(int64_t rows) const { return padded(2 * rows, 16) + rows * width_; }
  State state_at(float* at, int64_t rows) const { return {at, at + rows, at + padded(2 * rows, 16)}; }
  State partial(int64_t index, int64_t rows) const { return state_at(states_.get() + index * partial_floats_, rows); }

  void attend(const Piece& piece, const Piece* next) const {
    const Kernels& k = kernels();
    const int64_t n = rows(piece.tile), state = padded(state_floats(n), 16);
    float* memory = reinterpret_cast<float*>(
        scratch_of<AttentionMemory>(sizeof(float) * (k.scratch_floats(n, a_.head_dim) + 2 * state)));
    float* scratch = memory + 2 * state;
    k.take_queries(a_, piece.tile, scratch);
    const Upcoming after{std::min<int64_t>(piece.end * kKeysPerChunk, known(piece.tile)), next ? &next->tile : nullptr,
                         next ? std::max<int64_t>(next->begin * kKeysPerChunk, first_key(a_, next->tile)) : 0};
    if (piece.partial >= 0)
      return k.attend_chunk(a_, piece.tile, piece.begin, after, scratch, partial(piece.partial, n));
    const State whole = state_at(memory, n), chunk = state_at(memory + state, n);
    k.attend_chunk(a_, piece.tile, piece.begin, after, scratch, whole);
    for (int64_t c = piece.begin + 1; c < piece.end; ++c) {
      k.attend_chunk(a_, piece.tile, c, after, scratch, chunk);
      k.fold(whole, chunk, n, a_.head_dim);
    }
    k.store(a_, piece.tile, whole);
  }

  // In the order of the chunks, whichever thread finished first.
  void fold_partials(const SplitTile& split) const {
    const Kernels& k = kernels();
    const int64_t n = rows(split.tile);
    for (int64_t c = 1; c < split.chunks; ++c)
      k.fold(partial(split.partial, n), partial(split.partial + c, n), n, a_.head_dim);
    k.store(a_, split.tile, partial(split.partial, n));
  }

  Attention a_;
  Where where_;
  std::optional<BlockChoice> choice_;
  int64_t width_;
  Plan plan_;
  std::unique_ptr<float[]> states_;
  int64_t states_size_ = 0, partial_floats_ = 0;
};

struct Inputs {
  const Tensor &q, &k_cache, &v_cache, &block_tables, &query_start, &seq_lens;
  const std::optional<Tensor>& scales;
};

Tensor attention(const Inputs& in, double scale, int64_t window, bool reads_all, std::optional<BlockChoice> choice) {
  check_layout(in.q, "q", 3);
  const DType type = dtype_of(in.q, "q");
  const int64_t T = in.q.size(0), N = in.q.size(1), H = in.q.size(2);
  const DType cache_type = check_caches(in.k_cache, in.v_cache, in.scales, type, H);
  const int64_t M = in.k_cache.size(1), S = in.seq_lens.size(0);
  STD_TORCH_CHECK(H % 2 == 0 && M > 0 && N % M == 0, "head_dim is even and num_heads a multiple of num_kv_heads, not ",
                  H, ", ", N, ", ", M);
  STD_TORCH_CHECK(scale > 0, "scale is ", scale, ", expected a positive number");
  STD_TORCH_CHECK(window > 0, "window is ", window, ", expected a positive number");
  check_layout(in.block_tables, "block_tables", 2);
  check_layout(in.query_start, "query_start", 1);
  check_layout(in.seq_lens, "seq_lens", 1);
  check_size(in.block_tables, "block_tables", 0, S);
  check_size(in.query_start, "query_start", 0, S + 1);
  for (const Tensor* x : {&in.block_tables, &in.query_start, &in.seq_lens})
    check_type(*x, "block_tables, query_start and seq_lens", ScalarType::Int);

  Tensor out = empty_like(in.q, {T, N, H});
  const Attention a{type, cache_type, in.q.data_ptr(), out.data_ptr(), in.k_cache.data_ptr(), in.v_cache.data_ptr(),
                    scales_or_null(in.scales), N, M, H, in.k_cache.size(2), static_cast<float>(scale), window, reads_all};
  const auto ints = [](const Tensor& x) { return static_cast<const int32_t*>(x.data_ptr()); };
  const Where where{ints(in.block_tables), ints(in.query_start), ints(in.seq_lens), S, in.block_tables.size(1), T,
                    in.k_cache.size(0)};
  launch(std::make_shared<PagedAttention>(a, where, std::move(choice)));
  return out;
}

}  // namespace

Tensor paged_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_tables,
                       const Tensor& query_start, const Tensor& seq_lens, double scale, std::optional<Tensor> scales,
                       int64_t window, bool reads_all) {
  return attention({q, k_cache, v_cache, block_tables, query_start, seq_lens, scales}, scale, window, reads_all, {});
}

Tensor sparse_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_tables,
                        const Tensor& query_start, const Tensor& seq_lens, double scale, std::optional<Tensor> scales,
                        std::optional<Tensor> bounds, std::optional<Tensor> answered, std::vector<int64_t> rule) {
  STD_TORCH_CHECK(rule.size() == 5, "rule has ", rule.size(), " numbers, expected 5");
  STD_TORCH_CHECK(rule[0] >= 0 && rule[1] > 0 && rule[2] >= 0 && rule[3] >= 0,
                  "sinks and budgets are not below 0 and the last tokens are more than none");
  void* kept = nullptr;
  DType type = DType::f32;
  if (bounds.has_value()) {
    check_layout(*bounds, "bounds", 4);
    type = dtype_of(*bounds, "bounds");
    for (int dim : {0, 1}) check_size(*bounds, "bounds", dim, k_cache.size(dim));
    check_size(*bounds, "bounds", 2, 2);
    check_size(*bounds, "bounds", 3, q.size(2));
    kept = bounds->data_ptr();
  }
  STD_TORCH_CHECK(kept != nullptr || (rule[2] == 0 && rule[3] == 0), "blocks are chosen by bounds: there are none");
  const int64_t* rows = nullptr;
  if (answered.has_value()) {
    check_layout(*answered, "answered", 1);
    check_type(*answered, "answered", ScalarType::Long);
    rows = static_cast<const int64_t*>(answered->data_ptr());
  }
  const ChoiceRule choice{rule[0], rule[1], rule[2], rule[3], rule[4]};
  return attention({q, k_cache, v_cache, block_tables, query_start, seq_lens, scales}, scale, kNoWindow, false,
                   BlockChoice(choice, kept, type, rows, answered.has_value() ? answered->size(0) : 0));
}

}  // namespace pio
