// The last T observations of a loop, as a policy sees them. Before there are T, the first one stands for the older
// ones.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/executor.h"

namespace ptr_fast {

class ObservationHistory {
 public:
  explicit ObservationHistory(const PolicySizes& sizes)
      : sizes_(sizes), pointers_(sizes.frame_bytes.size()), state_(sizes.num_observations * sizes.num_state) {
    if (sizes_.num_observations == 1) return;
    for (const int64_t bytes : sizes_.frame_bytes) frames_.emplace_back(sizes_.num_observations * bytes);
    for (size_t i = 0; i < frames_.size(); ++i) pointers_[i] = frames_[i].data();
  }

  void clear() { is_empty_ = true; }

  // Where T is 1 the frames are not copied: the view is valid as long as they are.
  void add(const uint8_t* const* frames, const float* state) {
    const int64_t last = sizes_.num_observations - 1, num_copies = is_empty_ ? last + 1 : 1;
    is_empty_ = false;
    push(state_.data(), state, sizes_.num_state, last, num_copies);
    for (size_t i = 0; i < pointers_.size(); ++i) {
      if (last == 0) {
        pointers_[i] = frames[i];
      } else {
        push(frames_[i].data(), frames[i], sizes_.frame_bytes[i], last, num_copies);
      }
    }
  }

  ObservationView view() const { return {pointers_.data(), state_.data()}; }

 private:
  template <typename Value>
  static void push(Value* rows, const Value* newest, int64_t size, int64_t last, int64_t num_copies) {
    if (num_copies == 1) std::memmove(rows, rows + size, sizeof(Value) * last * size);
    for (int64_t i = 0; i < num_copies; ++i) std::memcpy(rows + (last - i) * size, newest, sizeof(Value) * size);
  }

  const PolicySizes sizes_;
  std::vector<std::vector<uint8_t>> frames_;  // [T] of each camera
  std::vector<const uint8_t*> pointers_;
  std::vector<float> state_;  // [T, S]
  bool is_empty_ = true;
};

// A copy of what a policy is asked about, for a thread of its own.
class ObservationCopy {
 public:
  explicit ObservationCopy(const PolicySizes& sizes) : state_(sizes.num_observations * sizes.num_state) {
    for (const int64_t bytes : sizes.frame_bytes) frames_.emplace_back(sizes.num_observations * bytes);
    for (const auto& frames : frames_) pointers_.push_back(frames.data());
  }

  void copy(const ObservationView& view) {
    std::memcpy(state_.data(), view.state, sizeof(float) * state_.size());
    for (size_t i = 0; i < frames_.size(); ++i) std::memcpy(frames_[i].data(), view.frames[i], frames_[i].size());
  }

  ObservationView view() const { return {pointers_.data(), state_.data()}; }

 private:
  std::vector<std::vector<uint8_t>> frames_;
  std::vector<const uint8_t*> pointers_;
  std::vector<float> state_;
};

}  // namespace ptr_fast
