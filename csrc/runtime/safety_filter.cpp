#include "runtime/safety_filter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/check.h"

namespace ptr_fast {
namespace {

constexpr double kMaxResponseS = 3600;
constexpr double kMaxInFlight = 4096;  // commands; more are counted together, as long as the newest of them

// The float nearest to x that lies in [low, high].
float round_inside(double x, double low, double high) {
  float rounded = float(x);
  if (double(rounded) > high) rounded = std::nextafter(rounded, -INFINITY);
  if (double(rounded) < low) rounded = std::nextafter(rounded, INFINITY);
  return rounded;
}

// Narrows [low, high] to [a, b]; both contain 0.
struct Interval {
  double low = -INFINITY, high = INFINITY;

  // Notes the reason where the limit changes what is wanted.
  void limit(double a, double b, double wanted, uint32_t reason, uint32_t* interventions) {
    if (wanted < a || wanted > b) *interventions |= reason;
    low = std::max(low, a);
    high = std::min(high, b);
  }
};

}  // namespace

SafetyFilter::SafetyFilter(SafetyLimits limits) : limits_(std::move(limits)) {
  check(!limits_.axes.empty(), "safety: expected at least one axis");
  check(limits_.period_s > 0 && std::isfinite(limits_.period_s), "safety: period_s must be positive, got ",
        limits_.period_s);
  check(limits_.ramp_s >= 0 && std::isfinite(limits_.ramp_s), "safety: ramp_s must be finite and not negative, got ",
        limits_.ramp_s);
  check(limits_.response_s >= 0 && limits_.response_s <= kMaxResponseS, "safety: response_s: expected 0 to ",
        kMaxResponseS, ", got ", limits_.response_s);
  check(limits_.hold_after_s > 0 && limits_.stop_after_s >= limits_.hold_after_s,
        "safety: expected 0 < hold_after_s <= stop_after_s, got ", limits_.hold_after_s, " and ", limits_.stop_after_s);
  check(limits_.max_start_mismatch >= 0, "safety: max_start_mismatch must not be negative, got ",
        limits_.max_start_mismatch);
  for (size_t i = 0; i < limits_.axes.size(); ++i) {
    AxisLimits& axis = limits_.axes[i];
    check(axis.position >= -1 && axis.position < limits_.state_size, "safety: axis ", i, ": position ", axis.position,
          " is not in the state of ", limits_.state_size);
    check(axis.low < axis.high, "safety: axis ", i, ": low must be below high, got ", axis.low, " and ", axis.high);
    check(!axis.relative || (axis.low <= 0 && axis.high >= 0), "safety: axis ", i,
          ": a relative command needs low <= 0 <= high to stand still, got ", axis.low, " and ", axis.high);
    check(axis.scale > 0 && std::isfinite(axis.scale), "safety: axis ", i, ": scale must be positive, got ",
          axis.scale);
    check(axis.box_low < axis.box_high, "safety: axis ", i, ": box_low must be below box_high, got ", axis.box_low,
          " and ", axis.box_high);
    check(axis.position >= 0 || (std::isinf(axis.box_low) && std::isinf(axis.box_high)), "safety: axis ", i,
          ": a workspace box needs a measured position");
    check(axis.max_step > 0 && axis.max_velocity > 0 && axis.max_acceleration > 0, "safety: axis ", i,
          ": max_step, max_velocity and max_acceleration must be positive, got ", axis.max_step, ", ",
          axis.max_velocity, " and ", axis.max_acceleration);
    // Commands are floats: an absolute axis standing at a bound must stand at a float.
    axis.low = round_inside(axis.low, axis.low, INFINITY);
    axis.high = round_inside(axis.high, -INFINITY, axis.high);
    check(axis.low <= axis.high, "safety: axis ", i, ": no float lies between low and high, got ", axis.low, " and ",
          axis.high);
  }
  last_command_.resize(limits_.axes.size());
  last_velocity_.resize(limits_.axes.size());
  total_ = {0, std::vector<double>(limits_.axes.size()), std::vector<double>(limits_.axes.size())};
  // With a state that is older nothing moves, so nothing more takes off.
  const double longest_s = limits_.hold_after_s + limits_.response_s;
  in_flight_.assign(size_t(std::min(std::ceil(longest_s / limits_.period_s) + 2, kMaxInFlight)), total_);
}

void SafetyFilter::start(int64_t now_ns) {
  start_ns_ = now_ns;
  first_ = true;
  stopped_ = 0;
  num_in_flight_ = 0;
  std::fill(total_.up.begin(), total_.up.end(), 0.0);
  std::fill(total_.down.begin(), total_.down.end(), 0.0);
  std::fill(last_velocity_.begin(), last_velocity_.end(), 0.0);
}

void SafetyFilter::sent(int64_t now_ns) {
  if (moves_) in_flight_[(begin_ + num_in_flight_ - 1) % in_flight_.size()].ns = now_ns;
}

// Forgets what a state that was captured then has in it.
void SafetyFilter::land(int64_t state_captured_ns) {
  const int64_t since = state_captured_ns - std::llround(limits_.response_s * 1e9);
  for (; num_in_flight_ > 0 && in_flight_[begin_].ns < since; --num_in_flight_) {
    const Sent& landed = in_flight_[begin_];
    begin_ = (begin_ + 1) % in_flight_.size();
    for (int i = 0; i < num_axes(); ++i) {
      const bool is_last = num_in_flight_ == 1;  // then the sums are 0 exactly
      total_.up[i] = is_last ? 0.0 : std::max(total_.up[i] - landed.up[i], 0.0);
      total_.down[i] = is_last ? 0.0 : std::min(total_.down[i] - landed.down[i], 0.0);
    }
  }
}

// last_velocity_ is of the command that is sent now, dt s after the last.
void SafetyFilter::take_off(int64_t now_ns, double dt) {
  moves_ = std::any_of(last_velocity_.begin(), last_velocity_.end(), [](double v) { return v != 0; });
  if (!moves_) return;
  if (num_in_flight_ == in_flight_.size()) {  // the two oldest become one
    const Sent& oldest = in_flight_[begin_];
    begin_ = (begin_ + 1) % in_flight_.size();
    --num_in_flight_;
    for (int i = 0; i < num_axes(); ++i) {
      in_flight_[begin_].up[i] += oldest.up[i];
      in_flight_[begin_].down[i] += oldest.down[i];
    }
  }
  Sent& newest = in_flight_[(begin_ + num_in_flight_++) % in_flight_.size()];
  newest.ns = now_ns;
  for (int i = 0; i < num_axes(); ++i) {
    const double move = last_velocity_[i] * dt;
    total_.up[i] += newest.up[i] = std::max(move, 0.0);
    total_.down[i] += newest.down[i] = std::min(move, 0.0);
  }
}

uint32_t SafetyFilter::apply(const float* wanted, const float* state, int64_t state_captured_ns,
                             int64_t observation_age_ns, int64_t now_ns, double pace, float* command) {
  check(pace > 0 && pace <= 1, "safety: pace: expected 0 < pace <= 1, got ", pace);
  uint32_t interventions = 0;
  moves_ = false;
  for (int i = 0; i < limits_.state_size; ++i) {
    if (!std::isfinite(state[i])) stopped_ |= kStoppedNotFinite;
  }
  if (wanted != nullptr) {
    for (int i = 0; i < num_axes(); ++i) {
      if (!std::isfinite(wanted[i])) stopped_ |= kStoppedNotFinite;
    }
  }
  const double age = double(observation_age_ns) * 1e-9;
  if (age > limits_.stop_after_s) stopped_ |= kStoppedStale;
  if (first_ && wanted != nullptr && stopped_ == 0) {
    for (int i = 0; i < num_axes(); ++i) {
      const AxisLimits& axis = limits_.axes[i];
      if (axis.relative || axis.position < 0) continue;
      if (std::abs(double(wanted[i]) - state[axis.position] / axis.scale) > limits_.max_start_mismatch)
        stopped_ |= kStoppedMismatch;
    }
  }
  if (stopped_ != 0) return stopped_;
  if (wanted == nullptr || age > limits_.hold_after_s) {
    if (first_) start_ns_ = now_ns;  // as long as nothing may move, the ramp has not begun
    stand_still(command);
    return wanted == nullptr ? kHeldLate : kHeldStale;
  }
  land(state_captured_ns);
  const double ramp =
      limits_.ramp_s > 0 ? std::clamp(double(now_ns - start_ns_) * 1e-9 / limits_.ramp_s, 0.0, 1.0) : 1.0;
  const double dt = pace * limits_.period_s;
  for (int i = 0; i < num_axes(); ++i) {
    const AxisLimits& axis = limits_.axes[i];
    const bool measured = axis.position >= 0;
    // Where the axis is, in the command's unit; an absolute axis that is not measured begins where it is first told.
    const double position = measured ? double(state[axis.position]) / axis.scale : 0.0;
    double from = 0.0;
    if (!axis.relative) {
      from = !first_ ? last_command_[i] : measured ? position : std::clamp(double(wanted[i]), axis.low, axis.high);
      from = std::clamp(from, axis.low, axis.high);
    }
    const double move = double(wanted[i]) - from;
    Interval allowed;
    // The bounds of a displacement are speeds as well.
    const double low_bound = axis.relative ? pace * axis.low : axis.low - from;
    const double high_bound = axis.relative ? pace * axis.high : axis.high - from;
    allowed.limit(low_bound, high_bound, move, kBounds, &interventions);
    if (measured) {
      // Note "Commands in flight"; an absolute axis ends where it was last told to be.
      const double lowest = axis.relative ? position + total_.down[i] : from;
      const double highest = axis.relative ? position + total_.up[i] : from;
      // From outside the box only towards it: one end of the interval is then 0.
      const double down = axis.box_low / axis.scale - lowest, up = axis.box_high / axis.scale - highest;
      allowed.limit(std::min(down, 0.0), std::max(up, 0.0), move, kBox, &interventions);
    }
    const double step = pace * axis.max_step, velocity = axis.max_velocity * dt;
    allowed.limit(-step, step, move, kStep, &interventions);
    allowed.limit(-velocity, velocity, move, kVelocity, &interventions);
    if (ramp < 1.0) {
      // Where nothing else bounds a displacement, its own bounds do.
      const double most = axis.relative ? pace * std::max(-axis.low, axis.high) : INFINITY;
      const double least = ramp * std::min({step, velocity, most});
      if (std::isfinite(least))
        allowed.limit(-least, least, move, kRamp, &interventions);
      else if (ramp == 0.0)
        allowed.limit(0.0, 0.0, move, kRamp, &interventions);
    }
    if (std::isfinite(axis.max_acceleration)) {
      const double gain = axis.max_acceleration * dt, last = last_velocity_[i];
      allowed.limit(std::min(last - gain, 0.0) * dt, std::max(last + gain, 0.0) * dt, move, kAcceleration,
                    &interventions);
    }
    const double done = std::clamp(move, allowed.low, allowed.high);
    // Where `from` is not 0, from + (low - from) need not be low: the bounds hold exactly, not the sum.
    const double low = std::max(from + allowed.low, axis.low), high = std::min(from + allowed.high, axis.high);
    command[i] = round_inside(std::clamp(from + done, low, high), low, high);
    last_velocity_[i] = (double(command[i]) - from) / dt;
    last_command_[i] = command[i];
  }
  first_ = false;
  take_off(now_ns, dt);
  return interventions;
}

// Not before the first command: then nothing is sent (has_command).
void SafetyFilter::stand_still(float* command) {
  for (int i = 0; i < num_axes(); ++i) {
    command[i] = limits_.axes[i].relative || first_ ? 0.0f : float(last_command_[i]);
    last_velocity_[i] = 0.0;
  }
}

}  // namespace ptr_fast
