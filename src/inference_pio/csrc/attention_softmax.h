// Scores to weights: the online softmax of Milakov and Gimelshein (2018, algorithm 3), in powers of two. Included
// inside the namespace of an instruction set.
//
// A weight is 2^(score - reference). The reference is a row's maximum when it was last moved; it moves once a score
// exceeds it by more than kSlack, so that sums seldom have to be scaled again, and no weight exceeds 2^kSlack.

constexpr float kSlack = 8.0f;
constexpr int kTogether = 4;  // vectors of a row

// The polynomial of 2^x on [-1/2, 1/2], least relative error with p(0) = 1: 1.1e-7 for floats, 1.0e-4 where the
// weight is then rounded to bfloat16 (2.0e-3).
template <class Dot>
struct Polynomial {
  static constexpr float factors[] = {1.3264652807e-3f, 9.6715111285e-3f, 5.5507339537e-2f,
                                      2.4022242427e-1f, 6.9314700365e-1f, 1.0f};
};
#ifdef PIO_BF16_DOT
template <>
struct Polynomial<Pairs> {
  static constexpr float factors[] = {5.5008932948e-2f, 2.4221095443e-1f, 6.9328290224e-1f, 1.0f};
};
#endif
template <class Dot>
struct Polynomial<Scaled<Dot>> : Polynomial<Dot> {};

// 2^x for the weights, zero below -127, NaN for NaN. N vectors step by step side by side: one alone would wait for each
// of its results.
template <class Dot, int N>
PIO_INLINE void powers_of_two(vf (&x)[N]) {
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  vf shifted[N], p[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = vmax(splat(-127.0f), x[i]);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) shifted[i] = x[i] + magic;
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) p[i] = shifted[i] - magic;
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = x[i] - p[i], p[i] = splat(Polynomial<Dot>::factors[0]);
#pragma GCC unroll 8
  for (int k = 1; k < static_cast<int>(sizeof Polynomial<Dot>::factors / sizeof(float)); ++k)
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) p[i] = p[i] * x[i] + Polynomial<Dot>::factors[k];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) x[i] = p[i] * (vf)(((vu)shifted[i] << 23) + (127u << 23));
}
PIO_INLINE vf power_of_two(vf x) {
  vf alone[1] = {x};
  powers_of_two<Floats>(alone);
  return alone[0];
}

// N weights of neighbouring keys.
template <int N>
PIO_INLINE void put_weights(Floats, float* at, const vf* p) {
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) put(at + i * L, p[i]);
}
#ifdef PIO_BF16_DOT
template <int N>
PIO_INLINE void put_weights(Pairs, float* at, const vf* p) {
#pragma GCC unroll 8
  for (int i = 0; i + 1 < N; i += 2)
    store_as(at + i * L / 2, _mm512_cvtne2ps_pbh((__m512)p[i + 1], (__m512)p[i]));
  if (N % 2 == 1) store_as(at + (N - 1) * L / 2, narrow(p[N - 1]));
}
#endif

// Largest lane of each of N vectors: lane i of v[j] becomes that of vector j * L + i.
template <int N, int S = 1>
PIO_INLINE void maxima(vf* v) {
  if constexpr (S < L) {
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) {
      vf a = v[2 * i], b = v[2 * i + 1];
      exchange<S>(a, b, AllLanes{});
      v[i] = vmax(a, b);
    }
    if constexpr (N % 2 == 1) v[N / 2] = vmax(v[N - 1], swap_halves<S>(v[N - 1], AllLanes{}));
    maxima<(N + 1) / 2, 2 * S>(v);
  }
}

// A group of rows against one tile of keys: what the rows have seen before, and what the tile adds.
struct Group {
  float *reference, *sums, *acc;  // [R]; sums of weights [R, L]; weighted sums of values [R, width]
  const float* queries;
  float *scores, *weights;  // [R, kKeysPerTile]
  const float *key_scales, *value_scales;  // of the tile, where operands are Scaled
  int64_t starts[kRows], limits[kRows];  // of the keys each row sees those from start up to limit, both growing
  bool fresh;               // nothing has been added to acc yet
};
constexpr float kNothingSeen = -3e38f;  // the reference of such a row

// Hides the keys that a row does not see.
template <int R>
static void hide(const Group& g) {
  for (int r = 0; r < R; ++r)
    for (int64_t c = 0; c < kKeysPerTile; c += L) {
      if (g.starts[r] <= c && c + L <= g.limits[r]) continue;
      float* at = g.scores + r * kKeysPerTile + c;
      const auto start = static_cast<int32_t>(g.starts[r] - c), limit = static_cast<int32_t>(g.limits[r] - c);
      const vi sees = (lane_numbers() >= start) & (lane_numbers() < limit);
      put(at, sees ? load(at) : splat(-__builtin_inff()));
    }
}

// Moves the references of rows whose scores exceed them by more than kSlack, and scales their sums to them.
template <int R>
PIO_INLINE void move_references(Group& g, const vf (&top)[R], float scale, int64_t width) {
  bool moves = false;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) moves |= any_above(rounded(top[r] * scale), splat(g.reference[r] + kSlack));
  if (!moves) return;
  vf found[R];
  for (int r = 0; r < R; ++r) found[r] = top[r];
  maxima<R>(found);
  float moved[16], shrink[16];
  for (int r = 0; r < R; r += L) {
    const vf max = rounded(found[r / L] * scale), before = load(g.reference + r);
    const vf after = max > before + kSlack ? max : before;
    put(moved + r, after);
    put(shrink + r, power_of_two(before - after));
  }
  for (int r = 0; r < R; ++r) {
    g.reference[r] = moved[r];
    if (shrink[r] == 1.0f || g.fresh) continue;
    put(g.sums + r * L, load(g.sums + r * L) * shrink[r]);
    for (int64_t d = 0; d < width; d += L) put(g.acc + r * width + d, load(g.acc + r * width + d) * shrink[r]);
  }
}

// Scores of R rows become weights.
template <class Dot, int R>
PIO_INLINE void weigh(Group& g, float scale, int64_t width) {
  constexpr int vectors = kKeysPerTile / L;
  vf top[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    top[r] = load(g.scores + r * kKeysPerTile);
#pragma GCC unroll 16
    for (int c = 1; c < vectors; ++c) top[r] = vmax(top[r], load(g.scores + r * kKeysPerTile + c * L));
  }
  move_references<R>(g, top, scale, width);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    vf sum = load(g.sums + r * L);
#pragma GCC unroll 8
    for (int c = 0; c < vectors; c += kTogether) {
      vf p[kTogether];
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i)
        p[i] = load(g.scores + r * kKeysPerTile + (c + i) * L) * scale - g.reference[r];
      powers_of_two<Dot>(p);
#pragma GCC unroll 8
      for (int i = 0; i < kTogether; ++i) sum += p[i];
      if constexpr (Dot::scaled)
#pragma GCC unroll 8
        for (int i = 0; i < kTogether; ++i) p[i] = p[i] * load(g.value_scales + (c + i) * L);
      put_weights<kTogether>(Dot{}, g.weights + (r * kKeysPerTile + c * L) / Dot::pair, p);
    }
    put(g.sums + r * L, sum);
  }
}
