// Threads that work through one operation, or through a whole recorded step, together.
//
// They are torch's own threads: a team lives inside one torch parallel region. Threads meet at `wait`, which spins: the
// stretches between two meetings are microseconds. A thread that waits long sleeps: it lets others run, and when it is
// woken the system may find it a processor of its own, should two threads of a team have come to share one.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace pio {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int kSpins = 6000;  // about a tenth of a millisecond

// What the threads of a team share.
class Meeting {
 public:
  // Returns when all `size` threads have come; work that was handed out is complete then.
  void wait(int64_t size) {
    if (size == 1) {
      next_.store(0, std::memory_order_relaxed);
      return;
    }
    const int round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      next_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      round_.notify_all();
      return;
    }
    for (int spins = 0; spins < kSpins; ++spins) {
      if (round_.load(std::memory_order_acquire) != round) return;
      relax();
    }
    round_.wait(round, std::memory_order_acquire);
  }
  int64_t take(int64_t count) { return next_.fetch_add(count, std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int64_t> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
  alignas(64) std::atomic<int64_t> next_{0};
};

// One thread's place in its team.
struct Team {
  int64_t id, size;
  Meeting* meeting;

  void wait() const { meeting->wait(size); }

  // f(begin, end) for pieces of [0, count): the first one, of `first`, is the thread's by its number, then each takes the
  // next when it is free. Two such loops must have a `wait` between them.
  template <class F>
  void share(int64_t count, int64_t first, int64_t piece, const F& f) const {
    if (size == 1) return count > 0 ? f(int64_t{0}, count) : void();
    int64_t begin = id * first, end = begin + first;
    while (begin < count) {
      f(begin, std::min(count, end));
      begin = size * first + meeting->take(piece);
      end = begin + piece;
    }
  }
  template <class F>
  void share(int64_t count, int64_t piece, const F& f) const {
    share(count, piece, piece, f);
  }
};

// Calls body(team) on up to `threads` of torch's threads at once. The team is as large as the threads that torch gives:
// one only where this runs inside another parallel region.
template <class F>
void in_team(int64_t threads, const F& body) {
  Meeting meeting;
  if (threads <= 1) return body(Team{0, 1, &meeting});
  std::atomic<int> covered{0};
  std::atomic<int64_t> members{0};
  const int all = static_cast<int>(threads);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    const int64_t id = members.fetch_add(1);
    if (covered.fetch_add(static_cast<int>(end - begin)) + (end - begin) == all) covered.notify_all();
    for (int seen, spins = 0; (seen = covered.load(std::memory_order_acquire)) < all; ++spins)
      spins < kSpins ? relax() : covered.wait(seen, std::memory_order_acquire);
    body(Team{id, members.load(), &meeting});
  });
}

// One thread's memory, kept between calls and aligned to cache lines. One caller at a time per thread.
template <class Tag>
uint8_t* scratch_of(int64_t bytes) {
  struct Memory {
    std::unique_ptr<uint8_t[]> owned;
    int64_t size = 0;
  };
  thread_local Memory memory;
  if (memory.size < bytes + 64) {
    memory.owned.reset(new uint8_t[bytes + 64]);
    memory.size = bytes + 64;
  }
  const auto at = reinterpret_cast<uintptr_t>(memory.owned.get());
  return reinterpret_cast<uint8_t*>((at + 63) / 64 * 64);
}

}  // namespace pio
