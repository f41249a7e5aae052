// What gates, latents and recurrent states need: rows of floats by rows of floats. Included inside the namespace of an
// instruction set. Each number is computed alike whatever stands beside it.

PIO_INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + vexp(-x)); }

// f(i, count) for every register of n values; the last one may be short.
template <class Body>
PIO_INLINE void each_register(int64_t n, Body body) {
  for (int64_t i = 0; i < n; i += L) body(i, n - i < L ? n - i : L);
}
template <class T>
PIO_INLINE vf take(const T* p, int64_t count) {
  return count == L ? load(p) : load_part(p, count);
}
template <class T>
PIO_INLINE void give(T* p, vf x, int64_t count) {
  count == L ? put(p, x) : put_part(p, x, count);
}

// norm(x) · weight · silu(gate), rounded once.
template <class T>
static void gated_norm_of(void* y, const float* x, const void* gate, const float* weight, float eps, int64_t D) {
  vf squares = {};
  each_register(D, [&](int64_t i, int64_t count) {
    const vf value = take(x + i, count);
    squares += value * value;
  });
  const float inverse = 1.0f / __builtin_sqrtf(sum_of(squares) / static_cast<float>(D) + eps);
  each_register(D, [&](int64_t i, int64_t count) {
    const vf g = take(static_cast<const T*>(gate) + i, count);
    const vf normed = rounded(rounded(take(x + i, count) * inverse) * take(weight + i, count));
    give(static_cast<T*>(y) + i, normed * (g * sigmoid(g)), count);
  });
}
static void gated_norm(DType t, void* y, const float* x, const void* gate, const float* weight, float eps, int64_t D) {
  (t == DType::f32 ? gated_norm_of<float> : gated_norm_of<bf16>)(y, x, gate, weight, eps, D);
}

// x · σ(gate), the sigmoid rounded first.
template <class T>
static void sigmoid_gate_of(void* y, const void* x, const void* gate, int64_t n) {
  each_register(n, [&](int64_t i, int64_t count) {
    const vf open = round_to(sigmoid(take(static_cast<const T*>(gate) + i, count)), T{});
    give(static_cast<T*>(y) + i, take(static_cast<const T*>(x) + i, count) * open, count);
  });
}
static void sigmoid_gate(DType t, void* y, const void* x, const void* gate, int64_t n) {
  (t == DType::f32 ? sigmoid_gate_of<float> : sigmoid_gate_of<bf16>)(y, x, gate, n);
}

// a + σ(*gate) · b, every step rounded; a + b where gate is null.
template <class T>
static void add_gated_of(void* y, const void* a, const void* b, const void* gate, int64_t n) {
  const vf open = gate == nullptr ? splat(1.0f) : round_to(sigmoid(splat(load_part(static_cast<const T*>(gate), 1)[0])), T{});
  each_register(n, [&](int64_t i, int64_t count) {
    const vf added = round_to(rounded(take(static_cast<const T*>(b) + i, count) * open), T{});
    give(static_cast<T*>(y) + i, take(static_cast<const T*>(a) + i, count) + added, count);
  });
}
static void add_gated(DType t, void* y, const void* a, const void* b, const void* gate, int64_t n) {
  (t == DType::f32 ? add_gated_of<float> : add_gated_of<bf16>)(y, a, b, gate, n);
}

// One output of a convolution over n channels: silu(Σ_w taps[c, w] · window[w, c]); rows of window lie n apart.
template <class T>
static void convolve_of(void* y, const float* window, const float* taps, int64_t width, int64_t n) {
  each_register(n, [&](int64_t i, int64_t count) {
    vf total = {};
    for (int64_t w = 0; w < width; ++w) {
      vf tap = {};
      for (int64_t lane = 0; lane < count; ++lane) tap[lane] = taps[(i + lane) * width + w];
      total += rounded(take(window + w * n + i, count) * tap);
    }
    give(static_cast<T*>(y) + i, total * sigmoid(total), count);
  });
}
static void convolve(DType t, void* y, const float* window, const float* taps, int64_t width, int64_t n) {
  (t == DType::f32 ? convolve_of<float> : convolve_of<bf16>)(y, window, taps, width, n);
}

// Σ e^(x - top) of n values.
static float sum_exp(const float* x, int64_t n, float top) {
  vf total = {};
  each_register(n, [&](int64_t i, int64_t count) {
    const vf e = vexp(take(x + i, count) - top);
    total += lane_numbers() < static_cast<int32_t>(count) ? e : vf{};
  });
  return sum_of(total);
}

// x brought to length 1, times `scale`.
static void normalise(float* x, int64_t n, float eps, float scale) {
  vf squares = {};
  each_register(n, [&](int64_t i, int64_t count) {
    const vf value = take(x + i, count);
    squares += value * value;
  });
  const float inverse = scale / __builtin_sqrtf(sum_of(squares) + eps);
  each_register(n, [&](int64_t i, int64_t count) { give(x + i, take(x + i, count) * inverse, count); });
}

// The delta rule for one token of one head, on R registers of columns of the state [K, V].
template <int R>
PIO_INLINE void delta_columns(const DeltaToken& t, int64_t first, int64_t count) {
  vf read[R] = {}, out[R] = {};
  for (int64_t k = 0; k < t.K; ++k)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) read[r] = fma(splat(t.k[k]), take(t.state + k * t.V + first + r * L, count) * t.kept, read[r]);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) read[r] = (take(t.v + first + r * L, count) - read[r]) * t.beta;
  for (int64_t k = 0; k < t.K; ++k) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      float* at = t.state + k * t.V + first + r * L;
      const vf after = fma(splat(t.k[k]), read[r], rounded(take(at, count) * t.kept));
      give(at, after, count);
      out[r] = fma(splat(t.q[k]), after, out[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) give(t.out + first + r * L, out[r], count);
}
static void delta_token(const DeltaToken& t) {
  int64_t v = 0;
  for (; v + 4 * L <= t.V; v += 4 * L) delta_columns<4>(t, v, L);
  for (; v < t.V; v += L) delta_columns<1>(t, v, t.V - v < L ? t.V - v : L);
}

// out[c] += Σ_r x[r] · w[r * stride + c] for n columns c.
template <int R>
static void add_rows_of(const float* x, const float* w, int64_t stride, float* out, int64_t n) {
  each_register(n, [&](int64_t i, int64_t count) {
    vf sum = take(out + i, count);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum = fma(splat(x[r]), take(w + r * stride + i, count), sum);
    give(out + i, sum, count);
  });
}
static void add_rows(const float* x, const float* w, int64_t rows, int64_t stride, float* out, int64_t n) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) add_rows_of<8>(x + r, w + r * stride, stride, out, n);
  for (; r < rows; ++r) add_rows_of<1>(x + r, w + r * stride, stride, out, n);
}
