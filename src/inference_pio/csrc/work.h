// An operation between its checks and its result: what runs now, and again when a recorded step is replayed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "team.h"

namespace pio {

// Everything an operation needs, as plain pointers and sizes. `prepare` reads only tensors that are inputs of the step
// (token ids, block tables, …) and may throw; `run` computes, on every thread of the team, and may not.
class Work {
 public:
  virtual ~Work() = default;
  virtual void prepare() {}
  virtual void run(const Team& team, uint8_t* scratch) const = 0;
  virtual int64_t scratch_bytes() const { return 0; }
  // What went wrong in the last `run`, once all threads are through with it; a step ends there. "" for nothing.
  virtual const std::string& problem() const {
    static const std::string none;
    return none;
  }
  // Multiply-adds or bytes, whichever is more: decides how many threads are worth waking.
  virtual int64_t cost() const = 0;
  // For people: what it is, and of which size.
  virtual std::string name() const = 0;
  // Where it keeps pointers into tensors, for moving them.
  virtual std::vector<const void**> pointers() = 0;
};

constexpr int64_t kCostPerThread = 1 << 15;

// Runs it now; while this thread records a step, also keeps it.
void launch(std::shared_ptr<Work> work);

// The address of a member pointer, whatever it points to.
template <class P>
const void** slot(P*& pointer) {
  return (const void**)(&pointer);
}

}  // namespace pio
