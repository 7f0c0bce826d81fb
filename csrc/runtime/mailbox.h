// Newest wins: a writer never waits and a reader always gets the latest whole message; older ones are dropped, counted.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "core/check.h"
#include "core/clock.h"

namespace ptr_fast {

class Mailbox {
 public:
  struct Message {
    const uint8_t* data;              // valid until the next read
    int64_t captured_ns, arrived_ns;  // CLOCK_MONOTONIC; arrived: when it was written
    int64_t sequence;                 // 1 for the first message
  };

  explicit Mailbox(int64_t num_bytes) : num_bytes_(num_bytes) {
    check(num_bytes > 0 && num_bytes <= (int64_t(1) << 30), "mailbox: expected 1 byte to 1 GiB, got ", num_bytes);
    for (Slot& slot : slots_) slot.data.resize(num_bytes);
  }

  int64_t num_bytes() const { return num_bytes_; }

  void write(const uint8_t* data, int64_t captured_ns) {
    const std::lock_guard lock(writers_);
    Slot& slot = slots_[back_];
    std::memcpy(slot.data.data(), data, num_bytes_);
    slot.captured_ns = captured_ns;
    slot.arrived_ns = monotonic_ns();
    slot.sequence = written_ + 1;
    const uint32_t before = shared_.exchange(back_ | kFresh, std::memory_order_acq_rel);
    ++written_;  // now that a reader can see it
    if (before & kFresh) dropped_.fetch_add(1, std::memory_order_relaxed);
    back_ = before & kIndex;
  }

  // The newest message, or the one read last where there is no newer; null before the first. One reader.
  const Message* read() {
    if (shared_.load(std::memory_order_acquire) & kFresh) {
      front_ = shared_.exchange(front_, std::memory_order_acq_rel) & kIndex;
      const Slot& slot = slots_[front_];
      message_ = {slot.data.data(), slot.captured_ns, slot.arrived_ns, slot.sequence};
    }
    return message_.sequence == 0 ? nullptr : &message_;
  }

  // Messages that were replaced before anybody read them.
  int64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }
  int64_t written() const { return written_.load(std::memory_order_relaxed); }

 private:
  struct Slot {
    std::vector<uint8_t> data;
    int64_t captured_ns = 0, arrived_ns = 0, sequence = 0;
  };
  static constexpr uint32_t kFresh = 4, kIndex = 3;

  const int64_t num_bytes_;
  Slot slots_[3];
  uint32_t back_ = 0, front_ = 2;
  std::atomic<uint32_t> shared_{1};
  std::atomic<int64_t> written_{0}, dropped_{0};
  std::mutex writers_;
  Message message_{nullptr, 0, 0, 0};
};

}  // namespace ptr_fast
