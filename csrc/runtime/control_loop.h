// Observation -> policy -> safety filter -> arm, at a fixed rate on an absolute clock; nothing here knows of Python.
//
// Note "Three threads". The loop thread keeps the deadlines: it wakes at start + k * period, hands the newest observation
// to the policy thread, waits for the action no longer than the budget, filters it and hands the command to the arm
// thread. So neither a slow policy nor an arm that blocks can stop the clock: without an action in time the arm stands
// still, and where the arm does not come back, or no command came, within the watchdog's time, everything stops.
// No step allocates; a step waits for nothing but the deadline and the policy.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runtime/latency_histogram.h"
#include "runtime/mailbox.h"
#include "runtime/safety_filter.h"

namespace ptr_fast {

constexpr int kMaxAxes = 32;
constexpr int kMaxState = 64;

// What a policy sees: one frame and one state.
struct ObservationView {
  const uint8_t* frame;
  const float* state;
};

// Turns an observation into an action; throws std::exception where it cannot.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void run(const ObservationView& observation, float* action) = 0;
};

// Sends commands; throws std::exception where it cannot.
class Arm {
 public:
  virtual ~Arm() = default;
  virtual void send(const float* command, float* sent) = 0;
  virtual void stop() = 0;
};

struct LoopConfig {
  double hz;
  int64_t num_steps;          // 0: until stopped
  double policy_budget_s;     // wait for an action no longer than this after waking
  double policy_timeout_s;    // a policy that does not answer for this long: stop
  double watchdog_s;          // an arm call that takes longer, or no command for this long: stop
  bool dry_run;               // the arm gets no command
  int realtime_priority;      // SCHED_FIFO 1..99 of the loop thread, 0: as it is
  int cpu;                    // the loop thread runs on this core, -1: any
  bool lock_memory;           // mlockall
  int64_t record_frames;      // frames kept for the recorder, 0: none are
};

// One step, with times of CLOCK_MONOTONIC in ns; 0 where it did not happen.
struct StepRecord {
  int64_t step, scheduled_ns, woke_ns, captured_ns, policy_in_ns, policy_out_ns, filtered_ns, sent_ns;
  int64_t frame_sequence, state_captured_ns;
  uint32_t interventions;
  bool missed_deadline;
  int32_t frame_slot;         // of the recorder's frames, -1: none
  float action[kMaxAxes], command[kMaxAxes], state[kMaxState];
};

// Threads are detached and keep the loop alive: one that never comes back (a policy or arm that blocks for good) is left
// behind, and neither wait() nor the destructor hangs.
class ControlLoop : public std::enable_shared_from_this<ControlLoop> {
 public:
  enum Leg { kJitter, kFrameAge, kPolicy, kOverhead, kSend, kCaptureToCommand, kNumLegs };

  static std::shared_ptr<ControlLoop> create(LoopConfig config, SafetyLimits limits, std::shared_ptr<Mailbox> frames,
                                             std::shared_ptr<Mailbox> states, std::shared_ptr<Executor> executor,
                                             std::shared_ptr<Arm> arm);
  ControlLoop(const ControlLoop&) = delete;

  // Runs the policy on the newest observation so often, before the arm is armed; returns the last duration, ns.
  // std::runtime_error where there is no observation yet.
  int64_t warm_up(int num_runs);
  // Arms and starts; once. std::runtime_error where there is no observation yet.
  void start();
  // Asks for a stop; the arm's own thread stops the arm. From any thread; the first reason counts.
  void request_stop(uint32_t reason, const std::string& message);
  // True when the loop has ended and the arm has been stopped, or did not answer within the watchdog's time.
  bool wait(double timeout_s);

  bool running() const { return started_.load() && !loop_ended_.load(); }
  uint32_t stop_reason() const { return stop_reason_.load(); }
  std::string message() const;
  bool arm_answered_stop() const { return arm_stopped_.load(); }
  std::vector<std::string> notes() const;
  const LatencyHistogram& leg(int which) const { return legs_[which]; }
  const Mailbox& frames() const { return *frames_; }
  int64_t num_steps() const { return num_steps_.load(); }
  int64_t num_missed() const { return num_missed_.load(); }
  int64_t num_held() const { return num_held_.load(); }
  int64_t num_unrecorded() const { return num_unrecorded_.load(); }
  int64_t frame_bytes() const { return frames_->num_bytes(); }

  // Takes up to max_records finished steps out of the ring. Recorded frames stay valid until release_frame(slot).
  int drain(StepRecord* out, int max_records);
  const uint8_t* recorded_frame(int32_t slot) const;
  void release_frame(int32_t slot);

  static int64_t now_ns();

 private:
  ControlLoop(LoopConfig config, SafetyLimits limits, std::shared_ptr<Mailbox> frames, std::shared_ptr<Mailbox> states,
              std::shared_ptr<Executor> executor, std::shared_ptr<Arm> arm);
  void run_loop();
  void run_policy();
  void run_arm();
  void prepare_thread();
  void note(const std::string& text);
  bool take_action(int64_t step, int64_t woke_ns, StepRecord* record);
  void post_command(const StepRecord& record);
  void collect_sent(StepRecord* record);
  void check_arm(int64_t now);
  void push(const StepRecord& record);

  const LoopConfig config_;
  const int64_t period_ns_;
  SafetyFilter filter_;
  const std::shared_ptr<Mailbox> frames_, states_;
  const std::shared_ptr<Executor> executor_;
  const std::shared_ptr<Arm> arm_;
  LatencyHistogram legs_[kNumLegs];
  std::atomic<int64_t> num_steps_{0}, num_missed_{0}, num_held_{0}, num_unrecorded_{0};
  std::atomic<uint32_t> stop_reason_{0};
  std::atomic<bool> started_{false}, stop_{false}, arm_stopped_{false}, loop_ended_{false}, arm_ended_{false};
  mutable std::mutex text_mutex_;  // message_, notes_
  std::string message_;
  std::vector<std::string> notes_;

  // Between loop and policy thread.
  std::mutex policy_mutex_;
  std::condition_variable policy_wake_, policy_done_;
  int64_t asked_ = 0, answered_ = 0, used_ = 0;  // numbers of requests
  int64_t asked_ns_ = 0;
  float state_in_[kMaxState] = {};
  struct Answer {
    float action[kMaxAxes];
    int64_t in_ns, out_ns, captured_ns, sequence;
    int32_t slot;
  } answer_ = {};

  // Between loop and arm thread.
  std::mutex arm_mutex_;
  std::condition_variable arm_wake_;
  float command_[kMaxAxes] = {};
  int64_t command_step_ = -1, sent_step_ = -1, sent_ns_ = 0;
  std::atomic<int64_t> arm_busy_since_{0};

  // The recorder's ring.
  std::mutex ring_mutex_;
  std::vector<StepRecord> ring_;
  int64_t ring_begin_ = 0, ring_end_ = 0;
  std::vector<std::vector<uint8_t>> recorded_;
  std::vector<std::atomic<bool>> frame_ready_;
  std::vector<int32_t> free_frames_;

  std::mutex end_mutex_;
  std::condition_variable end_changed_;
};

}  // namespace ptr_fast
