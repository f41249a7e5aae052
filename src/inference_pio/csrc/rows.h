// Operations on rows: norm, activation, rotation. Included inside the namespace of an instruction set.

template <class T, class Body>
PIO_INLINE void each_vector(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + L <= n; i += L) body(i, [](const T* p) { return load(p); }, [](T* p, vf x) { put(p, x); });
  if (i < n)
    body(i, [n, i](const T* p) { return load_part(p, n - i); }, [n, i](T* p, vf x) { put_part(p, x, n - i); });
}

template <class T>
static void rms_norm_of(void* y_, const void* x_, void* residual_, const void* weight_, float eps, int64_t rows,
                        int64_t D) {
  const T* weight = static_cast<const T*>(weight_);
  for (int64_t r = 0; r < rows; ++r) {
    T* y = static_cast<T*>(y_) + r * D;
    const T* x = static_cast<const T*>(x_) + r * D;
    vf squares = {};
    if (residual_ != nullptr) {
      T* residual = static_cast<T*>(residual_) + r * D;
      each_vector<T>(D, [&](int64_t i, auto get, auto set) {
        const vf sum = round_to(get(residual + i) + get(x + i), T{});
        set(residual + i, sum);
        squares += sum * sum;
      });
      x = residual;
    } else {
      each_vector<T>(D, [&](int64_t i, auto get, auto) {
        const vf value = get(x + i);
        squares += value * value;
      });
    }
    const float inverse = 1.0f / __builtin_sqrtf(sum_of(squares) / static_cast<float>(D) + eps);
    each_vector<T>(D, [&](int64_t i, auto get, auto set) {
      set(y + i, round_to(get(x + i) * inverse, T{}) * get(weight + i));
    });
  }
}

template <class T>
static void silu_and_mul_of(void* y_, const void* x_, int64_t rows, int64_t I) {
  for (int64_t r = 0; r < rows; ++r) {
    T* y = static_cast<T*>(y_) + r * I;
    const T* gate = static_cast<const T*>(x_) + r * 2 * I;
    const T* up = gate + I;
    each_vector<T>(I, [&](int64_t i, auto get, auto set) {
      const vf g = get(gate + i);
      set(y + i, round_to(g / (1.0f + vexp(-g)), T{}) * get(up + i));
    });
  }
}

template <class T>
static void rope_of(void* y_, const void* x_, const float* cos, const float* sin, int64_t H) {
  const int64_t half = H / 2;
  T* y = static_cast<T*>(y_);
  const T* x = static_cast<const T*>(x_);
  const auto turn = [&](int64_t i, auto get, auto set, auto get_angle) {
    const vf a = get(x + i), b = get(x + half + i), c = get_angle(cos + i), s = get_angle(sin + i);
    set(y + i, a * c - b * s);
    set(y + half + i, b * c + a * s);
  };
  each_vector<T>(half, [&](int64_t i, auto get, auto set) {
    const int64_t n = half - i;
    turn(i, get, set, [n](const float* p) { return n < L ? load_part(p, n) : load(p); });
  });
}

static void rms_norm(DType t, void* y, const void* x, void* residual, const void* weight, float eps, int64_t rows,
                     int64_t D) {
  (t == DType::f32 ? rms_norm_of<float> : rms_norm_of<bf16>)(y, x, residual, weight, eps, rows, D);
}
static void silu_and_mul(DType t, void* y, const void* x, int64_t rows, int64_t I) {
  (t == DType::f32 ? silu_and_mul_of<float> : silu_and_mul_of<bf16>)(y, x, rows, I);
}
static void rope(DType t, void* y, const void* x, const float* cos, const float* sin, int64_t H) {
  (t == DType::f32 ? rope_of<float> : rope_of<bf16>)(y, x, cos, sin, H);
}
