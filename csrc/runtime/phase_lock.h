// Keeps the loop's steps soon after the frames: a small phase-locked loop.
//
// Note "Phase". A step acts on the newest frame; where frames come as often as steps, the phase between the two decides
// whether that frame has just come or is a whole period old. Every new frame tells how long before its step it came;
// the mean of that (over the last few, modulo the period of whichever of the two is faster) is led towards kPhase of
// that period, or further where frames scatter more, by making single intervals a little longer or shorter. So the
// steps follow a robot or camera whose own grid slips or whose clock is a little off. Where arrivals scatter too much,
// or do not keep the loop's time at all (30 frames for 20 steps), intervals are the period exactly.
//
// Note "Shorter intervals". An interval is never below kShortest of the period, and the safety filter takes as much off
// a command's displacement as off its time (SafetyFilter::apply): speed stays inside the limits.
#pragma once
#include <array>
#include <cstdint>

namespace ptr_fast {

class PhaseLock {
 public:
  static constexpr double kPhase = 0.2;      // of the period: from a frame's arrival to its step, at least
  static constexpr double kShortest = 0.96;  // of the loop's period: intervals
  static constexpr double kLongest = 1.1;

  explicit PhaseLock(int64_t period_ns) : period_ns_(period_ns) {}

  // The first step's time, from now on, for a frame that has come just before.
  int64_t first_step(int64_t arrived_ns, int64_t now_ns) const;

  // Time from this step to the next, for the newest frame of this step and its number (of all frames, from 1).
  int64_t interval(int64_t scheduled_ns, int64_t arrived_ns, int64_t sequence);

  // Whether arrivals keep the loop's time well enough to be followed.
  bool is_locked() const { return num_met_ >= kFewestMet && scatter_ <= kMostScatter; }

 private:
  static constexpr int kNumIntervals = 15, kFewestMet = 12;
  static constexpr double kMostScatter = 0.12;  // of the period: also what a clock that is 3 % off looks like

  void note_arrival(int64_t arrived_ns, int64_t sequence);
  double frame_period() const;

  const int64_t period_ns_;
  std::array<double, kNumIntervals> intervals_{};  // between frames, ns: the latest
  int64_t num_intervals_ = 0, arrived_ns_ = 0, sequence_ = 0;
  bool every_step_ = true;  // the faster of the two is the loop
  int64_t num_met_ = 0;     // frames in the two means
  double delay_ = 0;        // from arrival to step, ns
  double scatter_ = 0;      // about it, of the period
};

}  // namespace ptr_fast
