// Paged attention: cuts a call into pieces of work, spreads them over torch's threads, folds what was cut.
#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "tensors.h"

namespace pio {
namespace {

constexpr int64_t kRowsPerTile = 192;    // (token, head) rows that share one packing of a tile of keys
constexpr int64_t kRowsWorthSplit = 64;  // with fewer rows than this, a long context is split over the threads
constexpr int64_t kWorkPerThread = 1 << 20;  // multiply-adds below which a second thread costs more than it gives

// A tile of queries over chunks [begin, end) of its keys. Of a split tile every chunk is a piece of its own, and
// leaves its state at `partial` in units of one chunk's state; -1 where the piece does the whole tile.
struct Piece {
  QueryTile tile;
  int64_t begin, end, partial, cost;
};

// One thread's memory, kept between calls.
float* scratch_of(int64_t floats) {
  struct Memory {
    std::unique_ptr<float[]> owned;
    int64_t size = 0;
  };
  thread_local Memory memory;
  if (memory.size < floats + 16) {
    memory.owned.reset(new float[floats + 16]);
    memory.size = floats + 16;
  }
  const auto at = reinterpret_cast<uintptr_t>(memory.owned.get());
  return reinterpret_cast<float*>((at + 63) / 64 * 64);
}

int64_t chunks_of(const QueryTile& tile) {
  return (tile.first_position + tile.tokens + kKeysPerChunk - 1) / kKeysPerChunk;
}

// The tiles of all sequences; every index that the kernels follow is checked here.
std::vector<QueryTile> tiles_of(const Attention& a, const Tensor& block_tables, const Tensor& query_start,
                                const Tensor& seq_lens, int64_t tokens, int64_t num_blocks) {
  const int64_t S = seq_lens.size(0), B = block_tables.size(1);
  const int32_t* blocks = static_cast<const int32_t*>(block_tables.data_ptr());
  const int32_t* start = static_cast<const int32_t*>(query_start.data_ptr());
  const int32_t* length = static_cast<const int32_t*>(seq_lens.data_ptr());
  STD_TORCH_CHECK(start[0] == 0 && start[S] == tokens, "query_start runs from ", start[0], " to ", start[S],
                  ", expected 0 to ", tokens);
  const int64_t per_tile = std::max<int64_t>(1, kRowsPerTile / (a.heads / a.kv_heads));
  std::vector<QueryTile> tiles;
  for (int64_t s = 0; s < S; ++s) {
    const int64_t queries = start[s + 1] - start[s], used = (length[s] + a.block_size - 1) / a.block_size;
    STD_TORCH_CHECK(queries >= 0 && length[s] >= queries && used <= B, "sequence ", s, " has ", length[s], " tokens, ",
                    queries, " of them queries, and room for ", B * a.block_size);
    for (int64_t i = 0; i < used; ++i)
      STD_TORCH_CHECK(blocks[s * B + i] >= 0 && blocks[s * B + i] < num_blocks, "block_tables[", s, ", ", i, "] is ",
                      blocks[s * B + i], ", expected 0 to ", num_blocks - 1);
    for (int64_t first = 0; first < queries; first += per_tile)
      for (int64_t head = 0; head < a.kv_heads; ++head)
        tiles.push_back({blocks + s * B, start[s] + first, std::min(per_tile, queries - first),
                         length[s] - queries + first, head});
  }
  return tiles;
}

// Longest first, so that no thread is left with a long piece at the end.
std::vector<Piece> pieces_of(const Attention& a, const std::vector<QueryTile>& tiles, int64_t& partials) {
  std::vector<Piece> pieces;
  partials = 0;
  for (const QueryTile& tile : tiles) {
    const int64_t chunks = chunks_of(tile), rows = tile.tokens * (a.heads / a.kv_heads);
    const int64_t row_cost = (rows + 8) * a.head_dim;  // packing a key costs about as much as 8 rows of it
    if (chunks == 1 || rows > kRowsWorthSplit) {
      pieces.push_back({tile, 0, chunks, -1, row_cost * (tile.first_position + tile.tokens)});
      continue;
    }
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t keys = std::min<int64_t>(kKeysPerChunk, tile.first_position + tile.tokens - c * kKeysPerChunk);
      pieces.push_back({tile, c, c + 1, partials++, row_cost * keys});
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& x, const Piece& y) { return x.cost > y.cost; });
  return pieces;
}

// Calls work(i) for i in [0, count), each thread taking the next one when it is free.
template <class F>
void in_parallel(int64_t count, int64_t cost, const F& work) {
  const int64_t threads = std::min<int64_t>({torch::stable::get_num_threads(), count, cost / kWorkPerThread + 1});
  std::atomic<int64_t> next{0};
  const auto worker = [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
  };
  if (threads <= 1)
    worker(0, 1);
  else
    torch::stable::parallel_for(0, threads, 1, worker);
}

class Call {
 public:
  Call(const Attention& a, std::vector<QueryTile> tiles) : a_(a), tiles_(std::move(tiles)) {
    pieces_ = pieces_of(a_, tiles_, partials_);
    most_rows_ = 1;
    for (const QueryTile& tile : tiles_) most_rows_ = std::max(most_rows_, rows(tile));
    width_ = padded(a_.head_dim, kernels().lanes);
    split_floats_ = state_floats(std::min(most_rows_, kRowsWorthSplit));
    states_.reset(new float[partials_ * split_floats_ + 1]);
  }

  void run() {
    int64_t cost = 0;
    for (const Piece& piece : pieces_) cost += piece.cost;
    const int64_t count = static_cast<int64_t>(pieces_.size()), threads = torch::stable::get_num_threads();
    in_parallel(count, cost, [&](int64_t i) {
      attend(pieces_[i], i + threads < count ? &pieces_[i + threads] : nullptr);  // the likely next one of this thread
    });
    if (partials_ > 0) fold_partials();
  }

 private:
  int64_t rows(const QueryTile& tile) const { return tile.tokens * (a_.heads / a_.kv_heads); }
  int64_t state_floats(int64_t rows) const { return padded(2 * rows, 16) + rows * width_; }
  State state_at(float* at, int64_t rows) const { return {at, at + rows, at + padded(2 * rows, 16)}; }
  State partial(int64_t index, int64_t rows) const { return state_at(states_.get() + index * split_floats_, rows); }

  void attend(const Piece& piece, const Piece* next) const {
    const Kernels& k = kernels();
    const int64_t n = rows(piece.tile), state = padded(state_floats(n), 16);
    float* memory = scratch_of(k.scratch_floats(n, a_.head_dim) + 2 * state);
    float* scratch = memory + 2 * state;
    const int64_t known = piece.tile.first_position + piece.tile.tokens;
    const Upcoming after{std::min<int64_t>(piece.end * kKeysPerChunk, known), next ? &next->tile : nullptr,
                         next ? next->begin * kKeysPerChunk : 0};
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
  void fold_partials() const {
    const Kernels& k = kernels();
    int64_t next = 0;
    for (const QueryTile& tile : tiles_) {
      const int64_t chunks = chunks_of(tile), n = rows(tile);
      if (chunks == 1 || n > kRowsWorthSplit) continue;
      for (int64_t c = 1; c < chunks; ++c) k.fold(partial(next, n), partial(next + c, n), n, a_.head_dim);
      k.store(a_, tile, partial(next, n));
      next += chunks;
    }
  }

  const Attention& a_;
  std::vector<QueryTile> tiles_;
  std::vector<Piece> pieces_;
  std::unique_ptr<float[]> states_;
  int64_t partials_, most_rows_, width_, split_floats_;
};

}  // namespace

Tensor paged_attention(const Tensor& q, const Tensor& k_cache, const Tensor& v_cache, const Tensor& block_tables,
                       const Tensor& query_start, const Tensor& seq_lens, double scale) {
  check_layout(q, "q", 3);
  const DType type = dtype_of(q, "q");
  const int64_t T = q.size(0), N = q.size(1), H = q.size(2);
  for (const Tensor* cache : {&k_cache, &v_cache}) {
    check_layout(*cache, "cache", 4);
    check_type(*cache, "cache", q.scalar_type());
    check_size(*cache, "cache", 3, H);
    for (int dim : {0, 1, 2}) check_size(*cache, "cache", dim, k_cache.size(dim));
  }
  const int64_t M = k_cache.size(1);
  STD_TORCH_CHECK(H % 2 == 0 && M > 0 && N % M == 0, "head_dim is even and num_heads a multiple of num_kv_heads, not ",
                  H, ", ", N, ", ", M);
  check_layout(block_tables, "block_tables", 2);
  check_layout(query_start, "query_start", 1);
  check_layout(seq_lens, "seq_lens", 1);
  check_size(block_tables, "block_tables", 0, seq_lens.size(0));
  check_size(query_start, "query_start", 0, seq_lens.size(0) + 1);
  for (const Tensor* x : {&block_tables, &query_start, &seq_lens})
    check_type(*x, "block_tables, query_start and seq_lens", ScalarType::Int);

  Tensor out = empty_like(q, {T, N, H});
  const Attention a{type,
                    q.data_ptr(),
                    out.data_ptr(),
                    k_cache.data_ptr(),
                    v_cache.data_ptr(),
                    N,
                    M,
                    H,
                    k_cache.size(2),
                    static_cast<float>(scale)};
  Call(a, tiles_of(a, block_tables, query_start, seq_lens, T, k_cache.size(0))).run();
  return out;
}

}  // namespace pio
