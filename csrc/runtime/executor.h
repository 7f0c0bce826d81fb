// A policy as the control loop sees it: the last observations in, a chunk of actions out.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "core/check.h"

namespace ptr_fast {

// The last T observations, the oldest first.
struct ObservationView {
  const uint8_t* const* frames;  // of each camera: T frames, one after the other
  const float* state;            // [T, S]
};

struct PolicySizes {
  std::vector<int64_t> frame_bytes;  // of one frame of each camera, as the camera gives it
  int64_t num_observations;          // T
  int64_t num_state;                 // S
  int64_t num_actions;               // H: most actions in one answer
  int64_t num_axes;                  // A
};

constexpr int kMaxCameras = 8;
constexpr int kMaxActions = 1024;
constexpr int kMaxObservations = 64;

class Executor {
 public:
  explicit Executor(PolicySizes sizes) : sizes_(std::move(sizes)) {
    check(!sizes_.frame_bytes.empty() && sizes_.frame_bytes.size() <= kMaxCameras, "policy: expected 1 to ",
          kMaxCameras, " cameras, got ", sizes_.frame_bytes.size());
    check(sizes_.num_actions >= 1 && sizes_.num_actions <= kMaxActions, "policy: num_actions: expected 1 to ",
          kMaxActions, ", got ", sizes_.num_actions);
    check(sizes_.num_observations >= 1 && sizes_.num_observations <= kMaxObservations,
          "policy: num_observations: expected 1 to ", kMaxObservations, ", got ", sizes_.num_observations);
  }
  virtual ~Executor() = default;

  // Writes up to H actions, [A] each, one after the other: the first belongs to the newest observation, the others to
  // the control periods after it. Returns how many; 0: there are none in time. Throws std::exception where it cannot go
  // on.
  virtual int run(const ObservationView& observations, float* chunk) = 0;

  const PolicySizes& sizes() const { return sizes_; }

  // std::invalid_argument where it was made for other sizes.
  void check_fits(const std::vector<int64_t>& frame_bytes, int64_t num_state, int64_t num_axes) const {
    check(frame_bytes.size() == sizes_.frame_bytes.size(), "frames: the policy takes ", sizes_.frame_bytes.size(),
          " cameras, got ", frame_bytes.size());
    for (size_t i = 0; i < frame_bytes.size(); ++i) {
      check(frame_bytes[i] == sizes_.frame_bytes[i], "frame: the policy takes ", sizes_.frame_bytes[i],
            " bytes of camera ", i, ", got ", frame_bytes[i]);
    }
    check(num_state == sizes_.num_state, "state: the policy takes ", sizes_.num_state, " numbers, got ", num_state);
    check(num_axes == sizes_.num_axes, "action: the policy has ", sizes_.num_axes, " numbers, expected were ",
          num_axes);
  }

 private:
  const PolicySizes sizes_;
};

}  // namespace ptr_fast
