// Steps that are recorded once and replayed as one call.
//
// A model's step is a few hundred small operations; calling each from Python costs more than a small model's weights
// take to read. While a thread records, every operation runs as usual and is kept. A replay runs them again on the
// same addresses, in one parallel region: inputs are tensors that the caller overwrites between replays, results lie
// where they lay. What lies between is moved into one arena, in which buffers that are not needed at the same time
// share memory.
#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <stdexcept>

#include "tensors.h"
#include "work.h"

namespace pio {
namespace {

struct Buffer {
  Tensor tensor;
  uintptr_t begin, end;
  int64_t first = -1, last = -1;  // operations that use it
  int64_t offset = -1;            // in the arena
};

class Step {
 public:
  void keep(std::shared_ptr<Work> work) { works_.push_back(std::move(work)); }
  void keep(const Tensor& tensor, int64_t bytes) {
    const auto begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
    buffers_.push_back({tensor, begin, begin + bytes});
  }

  // The end of recording: `result` stays where it is, other buffers move into the arena. False if no operation made it.
  bool finish(const Tensor& result) {
    std::sort(buffers_.begin(), buffers_.end(), [](const Buffer& a, const Buffer& b) { return a.begin < b.begin; });
    const Buffer* pinned = find(result.data_ptr());
    if (pinned == nullptr) return false;
    for (size_t i = 0; i < works_.size(); ++i)
      for (const void** pointer : works_[i]->pointers())
        if (Buffer* buffer = find(*pointer)) {
          if (buffer->first < 0) buffer->first = static_cast<int64_t>(i);
          buffer->last = static_cast<int64_t>(i);
        }
    int64_t size = 0, scratch = 0;
    for (Buffer& buffer : buffers_)
      if (&buffer != pinned && buffer.first >= 0) size = std::max(size, place(buffer));
    for (const auto& work : works_) scratch = std::max(scratch, work->scratch_bytes());
    memory_.reset(new uint8_t[size + scratch + 128]);
    arena_ = aligned(reinterpret_cast<uintptr_t>(memory_.get()));
    scratch_ = aligned(arena_ + size);
    for (const auto& work : works_)
      for (const void** pointer : work->pointers()) {
        const Buffer* buffer = find(*pointer);
        if (buffer != nullptr && buffer != pinned)
          *pointer = reinterpret_cast<const void*>(arena_ + buffer->offset + (reinterpret_cast<uintptr_t>(*pointer) - buffer->begin));
      }
    const Tensor kept = pinned->tensor;
    buffers_.clear();
    result_ = std::make_unique<Tensor>(kept);
    return true;
  }

  void replay() {
    for (const auto& work : works_) work->prepare();
    const Work* stopped = nullptr;
    in_team(torch::stable::get_num_threads(), [&](const Team& team) {
      for (const auto& work : works_) {
        work->run(team, reinterpret_cast<uint8_t*>(scratch_));
        team.wait();
        if (work->problem().empty()) continue;
        if (team.id == 0) stopped = work.get();
        return;
      }
    });
    if (stopped != nullptr) STD_TORCH_CHECK(false, stopped->problem());
  }
  // The same, with the seconds from each operation's beginning until all threads were through with it.
  std::string timed_replay() {
    using Clock = std::chrono::steady_clock;
    for (const auto& work : works_) work->prepare();
    std::vector<double> seconds(works_.size());
    in_team(torch::stable::get_num_threads(), [&](const Team& team) {
      auto begin = Clock::now();
      for (size_t i = 0; i < works_.size(); ++i) {
        works_[i]->run(team, reinterpret_cast<uint8_t*>(scratch_));
        team.wait();
        const auto end = Clock::now();
        if (team.id == 0) seconds[i] = std::chrono::duration<double>(end - begin).count();
        begin = end;
      }
    });
    std::string lines;
    for (size_t i = 0; i < works_.size(); ++i) lines += works_[i]->name() + "\t" + std::to_string(seconds[i] * 1e6) + "\n";
    return lines;
  }

 private:
  static uintptr_t aligned(uintptr_t at) { return (at + 63) / 64 * 64; }
  Buffer* find(const void* pointer) {
    const auto at = reinterpret_cast<uintptr_t>(pointer);
    auto after = std::upper_bound(buffers_.begin(), buffers_.end(), at,
                                  [](uintptr_t value, const Buffer& buffer) { return value < buffer.begin; });
    return after == buffers_.begin() || at >= (after - 1)->end ? nullptr : &*(after - 1);
  }
  // The lowest place that no buffer with an overlapping life has; returns the end of it.
  int64_t place(Buffer& buffer) {
    const int64_t bytes = static_cast<int64_t>(aligned(buffer.end - buffer.begin));
    std::vector<const Buffer*> beside;
    for (const Buffer& other : buffers_)
      if (other.offset >= 0 && other.first <= buffer.last && buffer.first <= other.last) beside.push_back(&other);
    std::sort(beside.begin(), beside.end(), [](const Buffer* a, const Buffer* b) { return a->offset < b->offset; });
    int64_t at = 0;
    for (const Buffer* other : beside) {
      if (at + bytes <= other->offset) break;
      at = std::max(at, other->offset + static_cast<int64_t>(aligned(other->end - other->begin)));
    }
    buffer.offset = at;
    return at + bytes;
  }

  std::vector<std::shared_ptr<Work>> works_;
  std::vector<Buffer> buffers_;
  std::unique_ptr<Tensor> result_;
  std::unique_ptr<uint8_t[]> memory_;
  uintptr_t arena_ = 0, scratch_ = 0;
};

thread_local std::shared_ptr<Step> recording;
struct LaunchMemory {};

std::mutex steps_lock;
std::map<int64_t, std::shared_ptr<Step>> steps;
int64_t next_step = 1;

std::shared_ptr<Step> step_of(int64_t number) {
  const std::lock_guard<std::mutex> guard(steps_lock);
  const auto found = steps.find(number);
  STD_TORCH_CHECK(found != steps.end(), "there is no recorded step ", number);
  return found->second;
}

}  // namespace

void launch(std::shared_ptr<Work> work) {
  work->prepare();
  const int64_t wanted = work->cost() / kCostPerThread + 1;
  uint8_t* scratch = scratch_of<LaunchMemory>(work->scratch_bytes());
  in_team(std::min<int64_t>(wanted, torch::stable::get_num_threads()),
          [&](const Team& team) { work->run(team, scratch); });
  if (!work->problem().empty()) throw std::runtime_error(work->problem());
  if (recording != nullptr) recording->keep(std::move(work));
}

void keep_while_recording(const Tensor& tensor, int64_t bytes) {
  if (recording != nullptr) recording->keep(tensor, bytes);
}

void begin_recording() {
  STD_TORCH_CHECK(recording == nullptr, "this thread records a step already");
  recording = std::make_shared<Step>();
}

void abandon_recording() { recording = nullptr; }

// The step's number; 0 if `result` was not made by a recorded operation.
int64_t end_recording(const Tensor& result) {
  STD_TORCH_CHECK(recording != nullptr, "this thread records no step");
  const std::shared_ptr<Step> step = std::move(recording);
  recording = nullptr;
  if (!step->finish(result)) return 0;
  const std::lock_guard<std::mutex> guard(steps_lock);
  steps[next_step] = step;
  return next_step++;
}

void replay(int64_t number) { step_of(number)->replay(); }

std::string timed_replay(int64_t number) { return step_of(number)->timed_replay(); }

void forget_step(int64_t number) {
  const std::lock_guard<std::mutex> guard(steps_lock);
  steps.erase(number);
}

}  // namespace pio
