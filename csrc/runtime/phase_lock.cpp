#include "runtime/phase_lock.h"

#include <algorithm>
#include <cmath>

namespace ptr_fast {
namespace {

constexpr double kDelayGain = 0.25, kScatterGain = 0.125;  // of a new frame in the means
constexpr double kScatterRoom = 2.5;                       // scatters between the mean arrival and the step
constexpr double kCorrected = 0.5;                         // of the error, at the next step
constexpr double kManyFrames = 0.75;                       // of the loop's period: frames that come more often

// Modulo the period, nearest to 0.
double wrapped(double x, double period) { return x - period * std::round(x / period); }

}  // namespace

int64_t PhaseLock::first_step(int64_t arrived_ns, int64_t now_ns) const {
  const int64_t first = arrived_ns + std::llround(kPhase * double(period_ns_));
  const int64_t passed = std::max<int64_t>(now_ns - first, 0);
  return first + (passed + period_ns_ - 1) / period_ns_ * period_ns_;
}

int64_t PhaseLock::interval(int64_t scheduled_ns, int64_t arrived_ns, int64_t sequence) {
  const bool is_new = sequence != sequence_;
  if (is_new) note_arrival(arrived_ns, sequence);
  const double loop_period = double(period_ns_), frames = frame_period();
  const bool every_step = frames > kManyFrames * loop_period;
  const double period = every_step ? loop_period : frames;
  const double delay = double(scheduled_ns - arrived_ns);
  if (every_step != every_step_) num_met_ = 0;
  every_step_ = every_step;
  if (is_new) {
    if (num_met_++ == 0) delay_ = delay;
    const double off = wrapped(delay - delay_, period);
    scatter_ += std::max(kScatterGain, 1 / double(num_met_)) * (std::abs(off) / period - scatter_);
    delay_ = wrapped(delay_ + kDelayGain * off, period);
  }
  if (!is_locked()) return period_ns_;
  const double error = wrapped(delay_ - std::max(kPhase, kScatterRoom * scatter_) * period, period);
  const double shift = std::clamp(-kCorrected * error, (kShortest - 1) * loop_period, (kLongest - 1) * loop_period);
  delay_ += shift;
  return period_ns_ + std::llround(shift);
}

void PhaseLock::note_arrival(int64_t arrived_ns, int64_t sequence) {
  if (sequence_ != 0) {
    const auto place = size_t(num_intervals_++ % kNumIntervals);
    intervals_[place] = double(arrived_ns - arrived_ns_) / double(sequence - sequence_);
  }
  arrived_ns_ = arrived_ns;
  sequence_ = sequence;
}

// The median, which a few lost frames do not move; the loop's own period before there is any.
double PhaseLock::frame_period() const {
  if (num_intervals_ == 0) return double(period_ns_);
  std::array<double, kNumIntervals> sorted = intervals_;
  const auto end = sorted.begin() + std::min<int64_t>(num_intervals_, kNumIntervals);
  const auto middle = sorted.begin() + (end - sorted.begin()) / 2;
  std::nth_element(sorted.begin(), middle, end);
  return std::max(*middle, 1.0);
}

}  // namespace ptr_fast
