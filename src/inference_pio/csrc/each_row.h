// Operations that do one thing to every row, and what several of them check.
#pragma once

#include "tensors.h"
#include "work.h"

namespace pio {

// Pieces of rows that are worth a thread's while.
inline void share_rows(const Team& team, int64_t rows, const std::function<void(int64_t, int64_t)>& f) {
  team.share(rows, std::max<int64_t>(1, rows / (4 * team.size)), f);
}

inline void check_indices(const int64_t* at, const char* name, int64_t count, int64_t below) {
  for (int64_t i = 0; i < count; ++i)
    STD_TORCH_CHECK(at[i] >= 0 && at[i] < below, name, "[", i, "] is ", at[i], ", expected 0 to ", below - 1);
}

// What the rows of a tensor are: x[t] begins t * stride values behind x[0], and is contiguous in itself.
inline int64_t check_rows(const Tensor& x, const char* name, int64_t dim) {
  STD_TORCH_CHECK(x.dim() == dim, name, " has ", x.dim(), " dimensions, expected ", dim);
  STD_TORCH_CHECK(x.is_cpu(), name, " is not on the CPU");
  int64_t expected = 1;
  for (int64_t i = dim - 1; i > 0; --i) {
    STD_TORCH_CHECK(x.size(i) == 1 || x.stride(i) == expected, name, " has rows that are not contiguous");
    expected *= x.size(i);
  }
  return x.stride(0);
}
inline void check_longs(const Tensor& x, const char* name, int64_t size) {
  check_layout(x, name, 1);
  check_type(x, name, ScalarType::Long);
  check_size(x, name, 0, size);
}
inline void check_floats(const Tensor& x, const char* name, std::initializer_list<int64_t> sizes) {
  check_layout(x, name, static_cast<int64_t>(sizes.size()));
  check_type(x, name, ScalarType::Float);
  int64_t dim = 0;
  for (int64_t size : sizes) check_size(x, name, dim++, size);
}
template <class T = char>
T* data_of(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// Body has `kName`, `prepare()`, `row(t)` and `pointers()`.
template <class Body>
class EachRow final : public Work {
 public:
  EachRow(Body body, int64_t rows, int64_t cost) : body_(std::move(body)), rows_(rows), cost_(cost) {}
  void prepare() override { body_.prepare(); }
  void run(const Team& team, uint8_t*) const override {
    share_rows(team, rows_, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) body_.row(t);
    });
  }
  int64_t cost() const override { return cost_; }
  std::string name() const override { return Body::kName; }
  std::vector<const void**> pointers() override { return body_.pointers(); }

 private:
  Body body_;
  int64_t rows_, cost_;
};
template <class Body>
void launch_rows(Body body, int64_t rows, int64_t cost) {
  launch(std::make_shared<EachRow<Body>>(std::move(body), rows, cost));
}

}  // namespace pio
