// Operations on rows: norm, activation, rotation. Included inside the namespace of an instruction set.

template <class T, class Body>
PIO_INLINE void each_vector(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + L <= n; i += L) body(i, [](const T* p) { return load(p); }, [](T* p, vf x) { put(p, x); });
  if (i < n)
    body(i, [n, i](const T* p) { return load_part(p, n - i); }, [n, i](T* p, vf x) { put_part(p, x, n - i); });
}

template <class T>
static void rms_norm_of(void* y_, const void* x_, void* residual_, const void* weight_, const NormNumbers& numbers,
                        int64_t rows, int64_t D) {
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
    const float inverse = 1.0f / __builtin_sqrtf(sum_of(squares) / static_cast<float>(D) + numbers.eps);
    if (numbers.offset == 0.0f)
      each_vector<T>(D, [&](int64_t i, auto get, auto set) {
        set(y + i, round_to(get(x + i) * inverse, T{}) * get(weight + i));
      });
    else  // zero-centred weights: rounded once
      each_vector<T>(D, [&](int64_t i, auto get, auto set) {
        set(y + i, rounded(get(x + i) * inverse) * (get(weight + i) + numbers.offset));
      });
  }
}

// x σ(z): z is x for silu, and 2 sqrt(2 / π) (x + 0.044715 x³) for GELU's tanh form, since 1 + tanh(u) = 2 σ(2u).
template <class T>
PIO_INLINE vf activate(Activation activation, vf x, T) {
  const vf z = activation == Activation::silu ? x : x * (0.0713548163f * x * x + 1.59576912f);
  return round_to(x / (1.0f + vexp(-z)), T{});
}

template <class T>
static void activate_and_mul_of(Activation activation, void* y_, const void* gate_, const void* up_, int64_t n) {
  T* y = static_cast<T*>(y_);
  const T *gate = static_cast<const T*>(gate_), *up = static_cast<const T*>(up_);
  each_vector<T>(n, [&](int64_t i, auto get, auto set) {
    set(y + i, activate(activation, get(gate + i), T{}) * get(up + i));
  });
}

template <class To, class From>
static void rope_of(void* y_, const void* x_, const float* cos, const float* sin, int64_t H) {
  const int64_t half = H / 2;
  To* y = static_cast<To*>(y_);
  const From* x = static_cast<const From*>(x_);
  int64_t i = 0;
  for (; i + L <= half; i += L) {
    const vf a = load(x + i), b = load(x + half + i), c = load(cos + i), s = load(sin + i);
    put(y + i, a * c - b * s);
    put(y + half + i, b * c + a * s);
  }
  if (const int64_t n = half - i; n > 0) {
    const vf a = load_part(x + i, n), b = load_part(x + half + i, n), c = load_part(cos + i, n), s = load_part(sin + i, n);
    put_part(y + i, a * c - b * s, n);
    put_part(y + half + i, b * c + a * s, n);
  }
}

template <class To, class From>
static void convert_of(void* y, const void* x, int64_t n) {
  int64_t i = 0;
  for (; i + L <= n; i += L) put(static_cast<To*>(y) + i, load(static_cast<const From*>(x) + i));
  if (i < n) put_part(static_cast<To*>(y) + i, load_part(static_cast<const From*>(x) + i, n - i), n - i);
}

// The largest of n values, and where it first stands; a NaN is above all.
template <class T>
static void row_max_of(const void* x_, int64_t n, float* largest, int64_t* place) {
  const T* x = static_cast<const T*>(x_);
  vf best = splat(-__builtin_inff());
  vi at = {}, odd = {};
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    const vf value = load(x + i);
    odd |= value != value;
    at = value > best ? vi{} + static_cast<int32_t>(i) : at;
    best = vmax(value, best);
  }
  float top = x == nullptr || n == 0 ? 0.0f : load_part(x, 1)[0];
  int64_t found = 0;
  const auto offer = [&](float value, int64_t where) {
    const bool nan = value != value;
    if (top == top && (nan || value > top || (value == top && where < found))) top = value, found = where;
  };
  for (int lane = 0; lane < L; ++lane)
    if (best[lane] > -__builtin_inff()) offer(best[lane], at[lane] + lane);
  for (; i < n; ++i) offer(load_part(x + i, 1)[0], i);
  bool any = false;
  for (int lane = 0; lane < L; ++lane) any |= odd[lane] != 0;
  if (any)  // rare: look for the first one
    for (int64_t k = 0; k < n; ++k)
      if (const float value = load_part(x + k, 1)[0]; value != value) {
        top = value, found = k;
        break;
      }
  *largest = top;
  *place = found;
}
static void row_max(DType t, const void* x, int64_t n, float* largest, int64_t* place) {
  (t == DType::f32 ? row_max_of<float> : row_max_of<bf16>)(x, n, largest, place);
}

static void rms_norm(DType t, void* y, const void* x, void* residual, const void* weight, const NormNumbers& numbers,
                     int64_t rows, int64_t D) {
  (t == DType::f32 ? rms_norm_of<float> : rms_norm_of<bf16>)(y, x, residual, weight, numbers, rows, D);
}
static void activate_and_mul(Activation activation, DType t, void* y, const void* gate, const void* up, int64_t n) {
  (t == DType::f32 ? activate_and_mul_of<float> : activate_and_mul_of<bf16>)(activation, y, gate, up, n);
}
static void rope(DType to, void* y, DType from, const void* x, const float* cos, const float* sin, int64_t H) {
  const auto turn = from == DType::bf16 ? rope_of<bf16, bf16> : to == DType::f32 ? rope_of<float, float> : rope_of<bf16, float>;
  turn(y, x, cos, sin, H);
}
static void convert(DType to, void* y, DType from, const void* x, int64_t n) {
  const auto widened = from == DType::bf16 ? convert_of<float, bf16> : convert_of<float, float>;
  const auto narrowed = from == DType::bf16 ? convert_of<bf16, bf16> : convert_of<bf16, float>;
  (to == DType::f32 ? widened : narrowed)(y, x, n);
}
