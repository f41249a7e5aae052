// What one instruction set offers: plain functions over plain memory, on the calling thread. No torch here.
#pragma once

#include <cstdint>

#include "packed.h"

namespace pio {

enum class DType { f32, bf16, i8, i4 };  // the last two: whole numbers with scales, in caches only

// What a gate's numbers go through before they multiply.
enum class Activation { silu, gelu_tanh, count };

constexpr int kKeysPerTile = 64;    // keys packed at once
constexpr int kKeysPerChunk = 256;  // keys after which a fresh softmax state starts; chunks are folded in order

// Everything that the tiles of one attention call share. Caches are [blocks, kv_heads, block_size, head_dim], of i4 half
// as many bytes.
struct Attention {
  DType dtype;        // of q and out; an f32 cache only with f32
  DType cache_dtype;  // of k and v
  const void* q;      // [tokens, heads, head_dim]
  void* out;          // as q
  const void* k;
  const void* v;
  const uint16_t* scales;  // bfloat16, of whole numbers: [blocks, kv_heads, 2, block_size], those of keys first; else null
  int64_t heads, kv_heads, head_dim, block_size;
  float scale;
  int64_t window;  // keys that a query sees, its own the last of them
  bool reads_all;  // also the keys before the window, of which nothing comes: what leaving them out saves

  // Keys of a sequence that lie before the window of the query at `position`.
  int64_t unseen(int64_t position) const { return position < window ? 0 : position - window + 1; }
};

// `tokens` consecutive queries of one sequence, all heads that share one key/value head.
struct QueryTile {
  const int32_t* blocks;   // the sequence's row of the block table
  int64_t first_row;       // of q
  int64_t tokens;
  int64_t first_position;  // of the first query within its sequence
  int64_t kv_head;
};

// What a thread reads after the keys [.., end) of its tile: keys of another tile from `first` on, or nothing (null).
struct Upcoming {
  int64_t end;
  const QueryTile* tile;
  int64_t first;
};

// The first key that a tile reads, at the border of a tile of keys.
inline int64_t first_key(const Attention& a, const QueryTile& tile) {
  return a.reads_all ? 0 : a.unseen(tile.first_position) / kKeysPerTile * kKeysPerTile;
}

// Softmax state of the rows (token, head) of a tile: running maximum, sum of weights, weighted sum of values. A row that
// has seen no key has the sum 0 and any `acc`.
struct State {
  float* max;
  float* sum;
  float* acc;  // [rows, padded head_dim]
};

// Of x / sqrt(mean(x²) + eps) · (offset + weight).
struct NormNumbers {
  float eps = 0.0f, offset = 0.0f;
};

// One or two groups of a weight's rows, and where their product goes: that of token t to out + t * stride, all rows of
// the groups. `gated`: the groups are of gate and up, and activation(gate) · up goes there, kGroupRows numbers a token.
struct Unit {
  Format format;
  int64_t columns, count;
  const uint8_t* groups[2] = {};
  const uint8_t* upcoming[2] = {};  // this thread's next groups; null: nobody knows
  const float* bias[2] = {};        // of each group, or null
  bool gated = false;
  Activation activation = Activation::silu;
  float* out = nullptr;
  int64_t stride = 0;
};

// One token of one head of the gated delta rule: S = kept · S, then S += k (beta · (v - Sᵀ k))ᵀ, then out = Sᵀ q.
struct DeltaToken {
  const float *q, *k, *v;
  float *state, *out;  // [K, V], [V]
  float kept, beta;
  int64_t K, V;
};

struct Kernels {
  const char* name;
  int64_t lanes;

  // Rows [0, rows) of D values; residual null: y = norm(x); else residual += x and y = norm(residual).
  void (*rms_norm)(DType, void* y, const void* x, void* residual, const void* weight, const NormNumbers&, int64_t rows,
                   int64_t D);
  void (*activate_and_mul)(Activation, DType, void* y, const void* gate, const void* up, int64_t n);
  void (*row_max)(DType, const void* x, int64_t n, float* largest, int64_t* place);
  // One vector of H values turned by the angles whose cosines and sines are given (H / 2 each). From float to either
  // type, from bf16 to bf16; convert does any.
  void (*rope)(DType to, void* y, DType from, const void* x, const float* cos, const float* sin, int64_t H);
  void (*convert)(DType to, void* y, DType from, const void* x, int64_t n);
  // n values, n even, turned in place, to whole numbers (i8, or i4 where 8 divides n) times the bfloat16 *scale.
  void (*quantize_head)(DType type, float* x, int64_t n, void* to, uint16_t* scale);

  void (*quantize_row)(const float* x, int64_t columns, const Quantized& to);
  // The tokens of x times some rows of a weight; `scratch` is unit_scratch_bytes(tokens) of memory, aligned to 64.
  void (*multiply_unit)(const Unit&, const Quantized& x, int64_t tokens, uint8_t* scratch);
  int64_t (*unit_scratch_bytes)(int64_t tokens);
  // out[t * stride + r] = x[t] · w[r], in floats.
  void (*multiply_dense)(const float* x, int64_t tokens, const float* w, int64_t rows, int64_t columns, float* out,
                         int64_t stride);

  // As in mixers.h.
  void (*gated_norm)(DType, void* y, const float* x, const void* gate, const float* weight, float eps, int64_t D);
  void (*sigmoid_gate)(DType, void* y, const void* x, const void* gate, int64_t n);
  void (*add_gated)(DType, void* y, const void* a, const void* b, const void* gate, int64_t n);
  void (*convolve)(DType, void* y, const float* window, const float* taps, int64_t width, int64_t n);
  float (*sum_exp)(const float* x, int64_t n, float top);
  void (*normalise)(float* x, int64_t n, float eps, float scale);
  void (*delta_token)(const DeltaToken&);
  void (*add_rows)(const float* x, const float* w, int64_t rows, int64_t stride, float* out, int64_t n);

  int64_t (*scratch_floats)(int64_t rows, int64_t head_dim);
  // First of a tile, then its chunks, each into a state of its own; `scratch` is scratch_floats() of memory.
  void (*take_queries)(const Attention&, const QueryTile&, float* scratch);
  void (*attend_chunk)(const Attention&, const QueryTile&, int64_t chunk, const Upcoming&, float* scratch, State);
  void (*fold)(State into, State chunk, int64_t rows, int64_t head_dim);
  void (*store)(const Attention&, const QueryTile&, State);
};

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx512, kAvx512Bf16;
#endif

// The best table for this processor, or the one asked for by name; null if it cannot run here.
const Kernels* choose_kernels(const char* name);

inline int64_t padded(int64_t head_dim, int64_t lanes) { return (head_dim + lanes - 1) / lanes * lanes; }

}  // namespace pio
