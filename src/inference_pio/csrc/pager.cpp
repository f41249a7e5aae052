// Weights on the disk that are read ahead of their use, into memory that several of them share.
//
// A model's weights come in units, one per layer. Each has a place in memory, always the same, so that recorded steps
// may keep its address; units of one place, a "slot", take turns. `enter` waits until a unit is there, `leave` lets
// its slot go. Units that share slots are read in the order of their numbers and from the beginning again: that is how
// a model uses them, step after step. One that is wanted out of turn is read next, and order goes on from it.
//
// Several threads read one chunk each, since a disk is fast only when it has more than one thing to do. Every chunk is
// held against its checksum, each time that it is read.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "tensors.h"
#include "work.h"

namespace pio {
namespace {

constexpr int64_t kChunk = 1 << 20;  // bytes of one reading and one checksum
constexpr int64_t kPage = 4096;      // what reading past the system's cache asks of addresses, offsets and lengths
constexpr int kReaders = 4;

int64_t chunks_of(int64_t nbytes) { return (nbytes + kChunk - 1) / kChunk; }

// Eight sums side by side, so that none waits for another's multiplication. Each step can be undone: two chunks that
// differ in one word never have the same sums.
uint64_t checksum_of(const uint8_t* data, int64_t nbytes) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15u;
  const auto mixed = [](uint64_t sum, uint64_t word) {
    sum = (sum ^ word) * kOdd;
    return sum << 31 | sum >> 33;
  };
  uint64_t sums[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (int64_t at = 0; at + 64 <= nbytes; at += 64) {
    uint64_t words[8];
    std::memcpy(words, data + at, 64);
    for (int i = 0; i < 8; ++i) sums[i] = mixed(sums[i], words[i]);
  }
  uint64_t sum = static_cast<uint64_t>(nbytes);
  for (const uint64_t each : sums) sum = mixed(mixed(sum, each), each >> 32);
  return sum;
}

struct Extent {
  int64_t offset, nbytes;  // in the file
  uint8_t* place;
  int64_t slot, first_sum;
  bool shares;  // its slot with other units
};

struct Slot {
  int64_t holds = -1, loading = -1;  // units
  int64_t taken = 0, left = 0;       // chunks of the one that is loading: handed to a reader, not there yet
  bool fresh = false;                // what it holds was not used yet
  bool used = false;
  std::string problem;
};

class Pager {
 public:
  Pager(int fd, std::string path, const Tensor& memory, std::vector<Extent> units, std::vector<int64_t> sums, int64_t slots)
      : fd_(fd), path_(std::move(path)), memory_(memory), units_(std::move(units)), sums_(std::move(sums)), slots_(slots),
        problems_(units_.size()) {
    for (size_t unit = 0; unit < units_.size(); ++unit)
      if (units_[unit].shares) order_.push_back(static_cast<int64_t>(unit));
    for (int i = 0; i < kReaders; ++i) readers_.emplace_back([this] { read_ahead(); });
  }
  ~Pager() {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      ends_ = true;
    }
    wanted_.notify_all();
    for (std::thread& reader : readers_) reader.join();
    close(fd_);
  }

  // Returns when the unit is in its place; what went wrong with it, else "". Lets the others go.
  std::string enter(int64_t number) {
    std::unique_lock<std::mutex> guard(lock_);
    Slot& slot = slots_[units_[number].slot];
    for (Slot& other : slots_)
      if (other.used && other.holds != number) {
        other.used = false;
        wanted_.notify_all();
      }
    problems_[number].clear();  // what went wrong ahead of time is tried again
    if (slot.holds != number) {
      const auto begin = std::chrono::steady_clock::now();
      while (slot.holds != number && problems_[number].empty()) {
        if (slot.loading < 0) {
          turn_to(number);
          slot.fresh = false;
          wanted_.notify_all();
        }
        arrived_.wait(guard);
      }
      waited_ += std::chrono::steady_clock::now() - begin;
    }
    std::string problem;
    std::swap(problem, problems_[number]);
    if (!problem.empty()) return problem;
    slot.used = true;
    slot.fresh = false;
    if (units_[number].shares) wanted_.notify_all();
    return "";
  }

  void leave(int64_t number) {
    const std::lock_guard<std::mutex> guard(lock_);
    Slot& slot = slots_[units_[number].slot];
    if (slot.holds == number) slot.used = false;
    wanted_.notify_all();
  }

  // Bytes read and nanoseconds that `enter` waited, since the beginning.
  std::string counts() {
    const std::lock_guard<std::mutex> guard(lock_);
    return std::to_string(read_bytes_) + " " + std::to_string(std::chrono::nanoseconds(waited_).count());
  }

  int64_t num_units() const { return static_cast<int64_t>(units_.size()); }

 private:
  void turn_to(int64_t number) {
    if (!units_[number].shares)
      asked_ = number;
    else
      next_ = std::lower_bound(order_.begin(), order_.end(), number) - order_.begin();
  }

  void start(int64_t number) {
    Slot& slot = slots_[units_[number].slot];
    slot.holds = -1;
    slot.loading = number;
    slot.taken = 0;
    slot.left = chunks_of(units_[number].nbytes);
    slot.fresh = false;
    slot.problem.clear();
    flying_.push_back(units_[number].slot);
  }

  // Begins what comes next, where its place is free; false where there is nothing to do now.
  bool start_next() {
    if (asked_ >= 0) {
      start(asked_);
      asked_ = -1;
      return true;
    }
    while (!order_.empty()) {
      const int64_t number = order_[next_];
      Slot& slot = slots_[units_[number].slot];
      if (slot.loading >= 0 || slot.used || slot.fresh || !problems_[number].empty()) return false;
      next_ = (next_ + 1) % order_.size();
      if (slot.holds != number) {
        start(number);
        return true;
      }
      slot.fresh = true;  // it is still there
    }
    return false;
  }

  void read_ahead() {
    std::unique_lock<std::mutex> guard(lock_);
    while (!ends_) {
      if (flying_.empty() && !start_next()) {
        wanted_.wait(guard);
        continue;
      }
      Slot& slot = slots_[flying_.front()];
      const Extent& unit = units_[slot.loading];
      const int64_t chunk = slot.taken++;
      if (slot.taken == chunks_of(unit.nbytes)) flying_.pop_front();
      guard.unlock();
      std::string problem = read(unit, chunk);
      guard.lock();
      if (!problem.empty()) slot.problem = std::move(problem);
      if (--slot.left == 0) arrive(slot);
    }
  }

  void arrive(Slot& slot) {
    const int64_t number = slot.loading;
    slot.loading = -1;
    if (slot.problem.empty()) {
      slot.holds = number;
      slot.fresh = true;
      read_bytes_ += units_[number].nbytes;
    } else {
      problems_[number] = slot.problem;
    }
    arrived_.notify_all();
    wanted_.notify_all();
  }

  std::string read(const Extent& unit, int64_t chunk) const {
    const int64_t first = chunk * kChunk, nbytes = std::min(kChunk, unit.nbytes - first);
    for (int64_t done = 0; done < nbytes;) {
      const int64_t got = pread(fd_, unit.place + first + done, nbytes - done, unit.offset + first + done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return path_ + " cannot be read: " + std::strerror(errno);
      done += got;
      if (got == 0 || (done < nbytes && done % kPage))
        return path_ + " ends within a layer: delete it, and it is written again when the model is loaded";
    }
    if (checksum_of(unit.place + first, nbytes) != static_cast<uint64_t>(sums_[unit.first_sum + chunk]))
      return path_ + " is damaged at byte " + std::to_string(unit.offset + first) +
             ": delete it, and it is written again when the model is loaded";
    return "";
  }

  const int fd_;
  const std::string path_;
  const Tensor memory_;
  const std::vector<Extent> units_;
  const std::vector<int64_t> sums_;
  std::vector<Slot> slots_;
  std::vector<std::string> problems_;  // of units that could not be read, until somebody wants them
  std::vector<int64_t> order_;         // units that share slots
  size_t next_ = 0;                    // in `order_`
  int64_t asked_ = -1;                 // a unit of its own slot that is wanted
  std::deque<int64_t> flying_;         // slots of which not every chunk is in a reader's hands
  bool ends_ = false;
  int64_t read_bytes_ = 0;
  std::chrono::steady_clock::duration waited_{};
  std::mutex lock_;
  std::condition_variable wanted_, arrived_;
  std::vector<std::thread> readers_;
};

std::mutex pagers_lock;
// Never destroyed: what a process leaves open at its end has threads in it.
std::map<int64_t, std::shared_ptr<Pager>>& pagers = *new std::map<int64_t, std::shared_ptr<Pager>>;
int64_t next_pager = 1;

std::shared_ptr<Pager> pager_of(int64_t number, int64_t unit) {
  const std::lock_guard<std::mutex> guard(pagers_lock);
  const auto found = pagers.find(number);
  STD_TORCH_CHECK(found != pagers.end(), "there is no pager ", number, ": the model was closed");
  STD_TORCH_CHECK(unit >= 0 && unit < found->second->num_units(), "the pager has no unit ", unit);
  return found->second;
}

// What both do is no computation, but has its place between computations, so it is recorded with them.
class Enter final : public Work {
 public:
  Enter(std::shared_ptr<Pager> pager, int64_t unit) : pager_(std::move(pager)), unit_(unit) {}
  void run(const Team& team, uint8_t*) const override {
    if (team.id == 0) problem_ = pager_->enter(unit_);
  }
  const std::string& problem() const override { return problem_; }
  int64_t cost() const override { return 0; }
  std::string name() const override { return "page_in " + std::to_string(unit_); }
  std::vector<const void**> pointers() override { return {}; }

 private:
  std::shared_ptr<Pager> pager_;
  int64_t unit_;
  mutable std::string problem_;  // the team's first thread writes it, all read it when they have met
};

class Leave final : public Work {
 public:
  Leave(std::shared_ptr<Pager> pager, int64_t unit) : pager_(std::move(pager)), unit_(unit) {}
  void run(const Team& team, uint8_t*) const override {
    if (team.id == 0) pager_->leave(unit_);
  }
  int64_t cost() const override { return 0; }
  std::string name() const override { return "page_out " + std::to_string(unit_); }
  std::vector<const void**> pointers() override { return {}; }

 private:
  std::shared_ptr<Pager> pager_;
  int64_t unit_;
};

}  // namespace

int64_t pager_chunk() { return kChunk; }

// The sum of each chunk of `data`, a unit: int64 [chunks].
void pager_sums(const Tensor& data, const Tensor& sums) {
  check_layout(data, "data", 1);
  check_type(data, "data", ScalarType::Byte);
  check_layout(sums, "sums", 1);
  check_type(sums, "sums", ScalarType::Long);
  const int64_t nbytes = data.size(0);
  STD_TORCH_CHECK(nbytes % kPage == 0, "data has ", nbytes, " bytes, which are no whole pages");
  check_size(sums, "sums", 0, chunks_of(nbytes));
  const auto* bytes = static_cast<const uint8_t*>(data.data_ptr());
  auto* to = static_cast<int64_t*>(sums.data_ptr());
  for (int64_t chunk = 0; chunk < chunks_of(nbytes); ++chunk)
    to[chunk] = static_cast<int64_t>(checksum_of(bytes + chunk * kChunk, std::min(kChunk, nbytes - chunk * kChunk)));
}

// Opens a pager over the file, which it owns from here on. units: int64 [n, 4] of offset and bytes in the file, where in
// `memory`, and the number of the slot; sums: int64, of all chunks of all units in their order.
int64_t pager_open(const Tensor& memory, const Tensor& units, const Tensor& sums, int64_t fd, std::string path) {
  check_layout(memory, "memory", 1);
  check_type(memory, "memory", ScalarType::Byte);
  check_layout(units, "units", 2);
  check_type(units, "units", ScalarType::Long);
  check_size(units, "units", 1, 4);
  check_layout(sums, "sums", 1);
  check_type(sums, "sums", ScalarType::Long);
  const auto* rows = static_cast<const int64_t*>(units.data_ptr());
  auto* base = static_cast<uint8_t*>(memory.data_ptr());
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(base) % kPage == 0, "memory does not begin with a page");
  std::vector<Extent> found;
  std::map<int64_t, int> residents;
  int64_t num_sums = 0, num_slots = 0;
  for (int64_t i = 0; i < units.size(0); ++i) {
    const int64_t* row = rows + 4 * i;
    for (int j = 0; j < 3; ++j) STD_TORCH_CHECK(row[j] >= 0 && row[j] % kPage == 0, "unit ", i, " is no whole pages");
    STD_TORCH_CHECK(row[1] > 0 && row[2] + row[1] <= memory.size(0), "unit ", i, " lies outside of the memory");
    STD_TORCH_CHECK(row[3] >= 0 && row[3] < units.size(0), "unit ", i, " has slot ", row[3]);
    found.push_back({row[0], row[1], base + row[2], row[3], num_sums, false});
    num_sums += chunks_of(row[1]);
    num_slots = std::max(num_slots, row[3] + 1);
    ++residents[row[3]];
  }
  check_size(sums, "sums", 0, num_sums);
  for (Extent& unit : found) unit.shares = residents[unit.slot] > 1;
  const auto* first = static_cast<const int64_t*>(sums.data_ptr());
  auto pager = std::make_shared<Pager>(static_cast<int>(fd), std::move(path), memory, std::move(found),
                                       std::vector<int64_t>(first, first + num_sums), num_slots);
  const std::lock_guard<std::mutex> guard(pagers_lock);
  pagers[next_pager] = std::move(pager);
  return next_pager++;
}

void pager_enter(int64_t number, int64_t unit) { launch(std::make_shared<Enter>(pager_of(number, unit), unit)); }

void pager_leave(int64_t number, int64_t unit) { launch(std::make_shared<Leave>(pager_of(number, unit), unit)); }

std::string pager_counts(int64_t number) { return pager_of(number, 0)->counts(); }

void pager_close(int64_t number) {
  std::shared_ptr<Pager> last;  // its threads end outside of the lock
  const std::lock_guard<std::mutex> guard(pagers_lock);
  const auto found = pagers.find(number);
  if (found == pagers.end()) return;
  last = std::move(found->second);
  pagers.erase(found);
}

}  // namespace pio
