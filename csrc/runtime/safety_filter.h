// The one gate between a policy and an arm: whatever goes in, what comes out is inside the limits.
//
// Note "Every limit lets the arm stand still". A command moves an axis by a displacement: for a relative axis the
// command itself, for an absolute axis the command minus the last one. Each limit is an interval of displacements that
// contains 0, so their intersection is never empty and a clamped displacement lies between 0 and the wanted one. Two
// exceptions: braking is always allowed (the acceleration limit bounds gaining speed, not losing it), and a position
// outside the workspace box may only move towards it.
//
// Note "Commands in flight". A measured position is old, and lacks what was sent since, or a part of it. What was sent
// up to response_s before the state was captured, or later, may still come: the arm then ends anywhere between the
// position plus all such displacements downwards and the position plus all such upwards. A further command keeps both
// ends in the box; so whatever the latency is, an arm that does what it is told within response_s does not leave it.
// States come in the order in which they were captured.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ptr_fast {

// Why a command was changed (low bits) or why the arm was stopped (high bits). Python names them in the same order.
enum Intervention : uint32_t {
  kBounds = 1u << 0,
  kBox = 1u << 1,
  kStep = 1u << 2,
  kVelocity = 1u << 3,
  kAcceleration = 1u << 4,
  kRamp = 1u << 5,
  kHeldStale = 1u << 6,
  kHeldLate = 1u << 7,
  kStoppedStale = 1u << 16,
  kStoppedNotFinite = 1u << 17,
  kStoppedMismatch = 1u << 18,
  kStoppedWatchdog = 1u << 19,
  kStoppedPolicy = 1u << 20,
  kStoppedArm = 1u << 21,
  kStoppedOperator = 1u << 22,
};
constexpr uint32_t kStopMask = 0xffff0000u;

// One dimension of the command, in its own unit u. Infinity switches a limit off.
struct AxisLimits {
  bool relative;             // the command is a displacement from the measured position; else it is a position
  int position;              // where the state holds the measured position; -1: not measured
  double low, high;          // of the command, u
  double scale;              // of the command in the unit of the position: u of position per u of command
  double box_low, box_high;  // of the position that the command leads to, in its unit (needs a measured position)
  double max_step;           // displacement per command, u
  double max_velocity;       // u/s
  double max_acceleration;   // u/s^2
};

struct SafetyLimits {
  std::vector<AxisLimits> axes;
  int state_size;
  double period_s;  // between two commands
  // From the start on, the limits of a displacement (step, velocity, a relative axis' bounds) grow from 0 to full over
  // this time.
  double ramp_s;
  double response_s;          // the measured position has a command's whole effect so long after it was sent
  double hold_after_s;        // an observation older than this: stand still
  double stop_after_s;        // older than this: stop
  double max_start_mismatch;  // of an absolute axis' first command from its measured position, in the command's unit
};

class SafetyFilter {
 public:
  // std::invalid_argument where a limit would not let the arm stand still, or is no number.
  explicit SafetyFilter(SafetyLimits limits);

  int num_axes() const { return int(limits_.axes.size()); }
  int state_size() const { return limits_.state_size; }

  // Before the first command: now_ns is where the ramp begins; forgets an earlier stop.
  void start(int64_t now_ns);

  // Writes the command that may be sent for the wanted one. Returns interventions; one of kStopMask means that the arm
  // must stop now, and stays until start(). `wanted` may be null: there is none in time, stand still (kHeldLate).
  // Where has_command() is false afterwards, nothing may be sent. `pace`: of period_s that has passed since the last
  // command, in (0, 1]; where it is below 1, so much less of every displacement is let through.
  uint32_t apply(const float* wanted, const float* state, int64_t state_captured_ns, int64_t observation_age_ns,
                 int64_t now_ns, double pace, float* command);
  // False where the arm must stop; and before the first wanted command, when there is none yet to stand still at.
  bool has_command() const { return stopped_ == 0 && !first_; }

  // The last command reached the arm only now.
  void sent(int64_t now_ns);

  // Stops for a reason that was found elsewhere.
  void stop(uint32_t reason) { stopped_ |= reason & kStopMask; }
  uint32_t stopped() const { return stopped_; }

 private:
  // Displacements sent together, u: those upwards and those downwards of each axis.
  struct Sent {
    int64_t ns;
    std::vector<double> up, down;
  };
  void stand_still(float* command);
  void land(int64_t state_captured_ns);
  void take_off(int64_t now_ns, double dt);

  SafetyLimits limits_;
  std::vector<double> last_command_;   // of absolute axes
  std::vector<double> last_velocity_;  // u/s
  std::vector<Sent> in_flight_;        // a ring, oldest at begin_
  size_t begin_ = 0, num_in_flight_ = 0;
  Sent total_;                         // of all in flight
  bool first_ = true, moves_ = false;  // moves_: the last command does
  int64_t start_ns_ = 0;
  uint32_t stopped_ = 0;
};

}  // namespace ptr_fast
