// Which blocks of its sequence a tile of queries reads: the first, the last, and between them those whose keys can have
// the largest products with the queries (Tang et al. 2024, "Quest": page selection by query; without it the first and
// the last alone, Xiao et al. 2023, "StreamingLLM").
//
// How many blocks a tile reads follows from lengths, which are inputs of a step; which ones follows from queries, which
// are not. So tiles are cut and shared among threads beforehand, over tables that are filled when the step runs. Keys
// carry their rotary positions: a tile over some blocks in order is a tile over a shorter sequence.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "read_head.h"
#include "tensors.h"
#include "work.h"

namespace pio {

// Which tokens attend to what: the integer inputs of a call.
struct Where {
  const int32_t *blocks, *start, *length;  // [S, B], [S + 1], [S]
  int64_t S, B, tokens, num_blocks;
};

// In tokens, rounded up to blocks. A sequence with up to `few_queries` queries in a call decodes if every one of them is
// to be answered: of a prompt's last piece only the last one is. A
// tile reads `few` or `many` keys, the first and the last among them, and the blocks of its own later queries on top.
struct ChoiceRule {
  int64_t sinks, recent, few, many, few_queries;
};

class BlockChoice {
 public:
  // bounds: largest and smallest value of each number of a block's keys, [blocks, kv_heads, 2, head_dim] of type
  // `bounds_type`, kept up to date here; null: no block is read but the first and the last.
  // answered: rows of q whose results become logits, ascending; null: all of them.
  BlockChoice(ChoiceRule rule, void* bounds, DType bounds_type, const int64_t* answered, int64_t num_answered)
      : rule_(rule), bounds_(bounds), type_(bounds_type), answered_(answered), num_answered_(num_answered) {}

  // Cuts down what the tiles read, and plans what `run` does. `tiles` in the order of sequences and tokens.
  void prepare(const Attention& a, const Where& w, std::vector<QueryTile>& tiles) {
    a_ = a;
    take_written(w);
    cut(w, tiles);
  }

  // Brings the bounds of the blocks that the call's tokens lie in up to date, and fills the tables of the tiles.
  void run(const Team& team) const {
    const int64_t bounded = static_cast<int64_t>(written_.size()), all = bounded + static_cast<int64_t>(jobs_.size());
    const auto work = [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) i < bounded ? bound(written_[i]) : choose(jobs_[i - bounded]);
    };
    if (!ordered_) {
      team.share(all, 1, work);
    } else {
      team.share(bounded, 1, work);
      team.wait();
      team.share(all - bounded, 1, [&](int64_t from, int64_t to) { work(bounded + from, bounded + to); });
    }
    team.wait();
  }
  int64_t cost() const {
    int64_t cost = static_cast<int64_t>(written_.size()) * a_.block_size * a_.head_dim;
    for (const Job& job : jobs_) cost += (job.tile.tokens * a_.heads / a_.kv_heads + 1) * job.end * 2 * a_.head_dim;
    return cost;
  }

 private:
  struct Written {
    int64_t block, keys;  // a head's block in the cache, and how many keys it has
  };
  // Blocks [0, sinks) and [end, used) of a tile's sequence are read, and of those between them so many.
  struct Job {
    QueryTile tile;
    int64_t sinks, end, used, kept;
    int32_t* to;

    int64_t left_out() const { return end - sinks - kept; }
    int64_t places() const { return used - left_out(); }
  };
  struct Memory {};

  int64_t blocks_of(int64_t tokens) const { return (tokens + a_.block_size - 1) / a_.block_size; }

  void take_written(const Where& w) {
    written_.clear();
    ordered_ = false;
    if (bounds_ == nullptr) return;
    for (int64_t s = 0; s < w.S; ++s) {
      const int64_t queries = w.start[s + 1] - w.start[s], length = w.length[s];
      if (queries == 0) continue;
      for (int64_t i = (length - queries) / a_.block_size; i * a_.block_size < length; ++i)
        for (int64_t head = 0; head < a_.kv_heads; ++head)
          written_.push_back({w.blocks[s * w.B + i] * a_.kv_heads + head,
                              std::min(a_.block_size, length - i * a_.block_size)});
    }
  }

  // Blocks that the tile reads whose first query stands at `first`, beside those of its later queries.
  Job job_of(const QueryTile& tile, int64_t first, bool decodes) const {
    Job job{tile, 0, 0, blocks_of(tile.first_position + tile.tokens), 0, nullptr};
    job.end = std::max<int64_t>(0, first + 1 - rule_.recent) / a_.block_size;
    job.sinks = std::min(blocks_of(rule_.sinks), job.end);
    const int64_t forced = job.sinks + first / a_.block_size + 1 - job.end;
    const int64_t budget = blocks_of(decodes ? rule_.few : rule_.many);
    job.kept = std::min(std::max<int64_t>(0, budget - forced), job.end - job.sinks);
    return job;
  }

  bool all_answered(int64_t begin, int64_t end) const {
    if (answered_ == nullptr) return true;
    const int64_t* last = answered_ + num_answered_;
    return std::lower_bound(answered_, last, end) - std::lower_bound(answered_, last, begin) == end - begin;
  }

  void cut(const Where& w, std::vector<QueryTile>& tiles) {
    jobs_.clear();
    std::vector<QueryTile> made;
    int64_t places = 0;
    const auto add = [&](QueryTile tile, bool decodes, int64_t first_written) {
      Job job = job_of(tile, tile.first_position, decodes);
      if (job.left_out() > 0) {
        ordered_ |= bounds_ != nullptr && job.end > first_written;
        places += job.places();
        tile.first_position -= job.left_out() * a_.block_size;
        tile.blocks = nullptr;  // the table of the next job
        jobs_.push_back(job);
      }
      made.push_back(tile);
    };
    int64_t s = 0;
    for (const QueryTile& tile : tiles) {
      while (w.start[s + 1] <= tile.first_row) ++s;
      const int64_t queries = w.start[s + 1] - w.start[s], first_written = (w.length[s] - queries) / a_.block_size;
      const bool decodes = queries <= rule_.few_queries && all_answered(w.start[s], w.start[s + 1]);
      if (!decodes || job_of(tile, tile.first_position + tile.tokens - 1, true).left_out() == 0) {
        add(tile, decodes, first_written);
        continue;
      }
      // What is guessed ahead reads what it would if it were computed alone, so that guessing changes no result.
      QueryTile one = tile;
      one.tokens = 1;
      for (int64_t i = 0; i < tile.tokens; ++i, ++one.first_row, ++one.first_position) add(one, true, first_written);
    }
    tables_.resize(places);
    int32_t* to = tables_.data();
    auto job = jobs_.begin();
    for (QueryTile& tile : made) {
      if (tile.blocks != nullptr) continue;
      tile.blocks = job->to = to;
      to += job->places();
      ++job;
    }
    tiles = std::move(made);
  }

  void bound(const Written& written) const {
    const int64_t H = a_.head_dim, n = written.keys * H;
    float* keys = reinterpret_cast<float*>(scratch_of<Memory>((n + 2 * H) * sizeof(float)));
    float *most = keys + n, *least = most + H;
    const uint16_t* scales = a_.scales == nullptr ? nullptr : a_.scales + written.block * 2 * a_.block_size;
    for (int64_t j = 0; j < written.keys; ++j)
      read_head(a_.cache_dtype, a_.k, written.block * a_.block_size + j, H, scales + (scales ? j : 0), keys + j * H);
    std::memcpy(most, keys, H * sizeof(float));
    std::memcpy(least, keys, H * sizeof(float));
    for (const float* key = keys + H; key < keys + n; key += H)
      for (int64_t d = 0; d < H; ++d) {
        most[d] = key[d] > most[d] ? key[d] : most[d];
        least[d] = key[d] < least[d] ? key[d] : least[d];
      }
    kernels().convert(type_, static_cast<char*>(bounds_) + written.block * 2 * H * bytes_of(type_), DType::f32, most, 2 * H);
  }

  void choose(const Job& job) const {
    const int32_t* blocks = job.tile.blocks;
    const int64_t between = job.end - job.sinks;
    int32_t* to = std::copy(blocks, blocks + job.sinks, job.to);
    if (job.kept > 0) {
      const int64_t rows = job.tile.tokens * (a_.heads / a_.kv_heads), width = 2 * a_.head_dim;
      float* queries = reinterpret_cast<float*>(scratch_of<Memory>(
          sizeof(float) * (rows * width + kStrip * width + rows * job.end + 2 * job.end)));
      float *strip = queries + rows * width, *scores = strip + kStrip * width, *best = scores + rows * job.end;
      auto* order = reinterpret_cast<int32_t*>(best + job.end);
      take_queries(job.tile, rows, queries);
      for (int64_t first = 0; first < job.end; first += kStrip) {
        const int64_t n = std::min(kStrip, job.end - first);
        for (int64_t i = 0; i < n; ++i) {
          const int64_t block = blocks[first + i] * a_.kv_heads + job.tile.kv_head;
          kernels().convert(DType::f32, strip + i * width, type_,
                            static_cast<const char*>(bounds_) + block * width * bytes_of(type_), width);
        }
        kernels().multiply_dense(queries, rows, strip, n, width, scores + first, job.end);
      }
      rank(scores, rows, job.end, best);
      for (int64_t i = 0; i < between; ++i) order[i] = static_cast<int32_t>(job.sinks + i);
      const auto ahead = [&](int32_t x, int32_t y) { return best[x] > best[y] || (best[x] == best[y] && x < y); };
      std::nth_element(order, order + job.kept, order + between, ahead);
      std::sort(order, order + job.kept);
      for (int64_t i = 0; i < job.kept; ++i) *to++ = blocks[order[i]];
    }
    std::copy(blocks + job.end, blocks + job.used, to);
  }

  // What is above zero of each query, then what is below: times the largest and the smallest values of a block's keys
  // it gives the most that the query's product with any of them can be.
  void take_queries(const QueryTile& tile, int64_t rows, float* to) const {
    const int64_t H = a_.head_dim, group = a_.heads / a_.kv_heads;
    for (int64_t r = 0; r < rows; ++r, to += 2 * H) {
      const int64_t at = ((tile.first_row + r / group) * a_.heads + tile.kv_head * group + r % group) * H;
      kernels().convert(DType::f32, to, a_.dtype, static_cast<const char*>(a_.q) + at * bytes_of(a_.dtype), H);
      for (int64_t d = 0; d < H; ++d) {
        to[H + d] = to[d] < 0.0f ? to[d] : 0.0f;
        to[d] = to[d] < 0.0f ? 0.0f : to[d];
      }
    }
  }

  // Of each block the least that any row finds it below the row's best block: scores of different heads lie on
  // different levels. What is no number comes first.
  static void rank(const float* scores, int64_t rows, int64_t count, float* best) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    std::fill(best, best + count, -kInfinity);
    for (int64_t r = 0; r < rows; ++r, scores += count) {
      float top = -kInfinity;
      for (int64_t i = 0; i < count; ++i) top = scores[i] > top ? scores[i] : top;
      for (int64_t i = 0; i < count; ++i) {
        const float below = scores[i] - top;
        best[i] = below <= best[i] ? best[i] : below == below ? below : kInfinity;
      }
    }
  }

  static constexpr int64_t kStrip = 64;  // blocks whose bounds are multiplied at once

  ChoiceRule rule_;
  void* bounds_;
  DType type_;
  const int64_t* answered_;
  int64_t num_answered_;
  Attention a_{};
  bool ordered_ = false;  // whether what is written must be bounded before blocks are chosen
  std::vector<Written> written_;
  std::vector<Job> jobs_;
  std::vector<int32_t> tables_;
};

}  // namespace pio
