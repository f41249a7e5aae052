// The product of plain floats with a small weight of plain floats, a router's. Included inside the namespace of an
// instruction set. A sum runs alike whatever rows and tokens stand beside it.

constexpr int kDenseRows = 4, kDenseTokens = L == 16 ? 4 : 2;

template <int R, int N>
PIO_INLINE void dense_block(const float* x, const float* w, int64_t columns, float* out, int64_t stride) {
  vf sum[R][N] = {};
  const auto add = [&](int64_t i, auto get) __attribute__((always_inline)) {
    vf weight[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) weight[r] = get(w + r * columns + i);
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t) {
      const vf value = get(x + t * columns + i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][t] = fma(weight[r], value, sum[r][t]);
    }
  };
  int64_t i = 0;
  for (; i + L <= columns; i += L) add(i, [](const float* p) { return load(p); });
  if (i < columns) add(i, [n = columns - i](const float* p) { return load_part(p, n); });
  for (int t = 0; t < N; ++t)
    for (int r = 0; r < R; ++r) out[t * stride + r] = sum_of(sum[r][t]);
}

template <int R>
static void dense_tokens(const float* x, int64_t tokens, const float* w, int64_t columns, float* out, int64_t stride) {
  int64_t t = 0;
  for (; t + kDenseTokens <= tokens; t += kDenseTokens)
    dense_block<R, kDenseTokens>(x + t * columns, w, columns, out + t * stride, stride);
  for (; t < tokens; ++t) dense_block<R, 1>(x + t * columns, w, columns, out + t * stride, stride);
}

static void multiply_dense(const float* x, int64_t tokens, const float* w, int64_t rows, int64_t columns, float* out,
                           int64_t stride) {
  int64_t r = 0;
  for (; r + kDenseRows <= rows; r += kDenseRows) dense_tokens<kDenseRows>(x, tokens, w + r * columns, columns, out + r, stride);
  for (; r < rows; ++r) dense_tokens<1>(x, tokens, w + r * columns, columns, out + r, stride);
}
