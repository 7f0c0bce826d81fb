// Observation -> policy -> safety filter -> arm, at a fixed rate on an absolute clock; nothing here knows of Python.
//
// Note "Threads". The loop thread does a whole step by itself: it wakes on a grid of periods, whose phase follows the
// first camera's (runtime/phase_lock.h), takes the newest observation, runs the policy where a new chunk of actions is
// wanted (runtime/chunk_player.h), filters the action and sends the command; it waits for nothing but the deadline, and
// nothing in it allocates. One wake-up per step is what keeps it punctual on a busy machine. Where chunks are played by
// latency the policy runs in a thread of its own, on a copy of the observation, and the loop goes on with what it has.
// The guardian thread watches them: a policy or an arm call that takes too long, a loop that does not get to run, a
// stop from outside. The guardian alone brings the arm to rest, once, and no command follows.
//
// Note "Age". The safety filter judges the age of what an action was decided on. An entry of a chunk belongs to a later
// control period than its observation, so its age counts from there; and where an older chunk is played, the newest
// observation must be young too: an arm never moves on while its camera is frozen. An observation of several cameras is
// as old as the oldest of their frames.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/chunk_player.h"
#include "runtime/executor.h"
#include "runtime/latency_histogram.h"
#include "runtime/mailbox.h"
#include "runtime/observation_history.h"
#include "runtime/phase_lock.h"
#include "runtime/safety_filter.h"

namespace ptr_fast {

constexpr int kMaxAxes = 32;
constexpr int kMaxState = 64;

// Sends commands; throws std::exception where it cannot. stop() comes from another thread than send(), and may come
// while a send() blocks.
class Arm {
 public:
  virtual ~Arm() = default;
  virtual void send(const float* command, float* sent) = 0;
  virtual void stop() = 0;
};

struct LoopConfig {
  double hz;
  int64_t num_steps;        // 0: until stopped
  double policy_timeout_s;  // a policy call that takes longer: stop
  double watchdog_s;        // an arm call that takes longer, or a loop that did nothing for so long: stop
  bool dry_run;             // the arm gets no command
  int realtime_priority;    // SCHED_FIFO 1..99 of the loop's thread, one more of the guardian's; 0: as is
  int cpu;                  // both threads run on this core, -1: any
  bool lock_memory;         // mlockall
  int64_t record_frames;    // observations whose frames are kept for the recorder, 0: none are
  Play play;                // how chunks are played; see PlayConfig
  int64_t execute;
  double ensemble_decay;
};

// One step, with times of CLOCK_MONOTONIC in ns; 0 where it did not happen.
struct StepRecord {
  // captured: of the oldest of the newest frames, arrived and frame_sequence: of the first camera's. policy_in, _out:
  // of the answer that came in this step, where one did. decided: captured_ns of the step that asked for what is
  // played.
  int64_t step, scheduled_ns, woke_ns, captured_ns, arrived_ns, policy_in_ns, policy_out_ns, filtered_ns, sent_ns;
  int64_t frame_sequence, state_captured_ns, decided_ns;
  int64_t camera_captured_ns[kMaxCameras];
  uint32_t interventions;
  bool missed_deadline;
  int32_t frame_slot;  // of the recorder's frames, -1: none
  int32_t entry;       // of its chunk, 0 the first; -1: there was no action
  // command: let through by the filter, sent: what the arm says it took; 0 where there was none.
  float action[kMaxAxes], command[kMaxAxes], sent[kMaxAxes], state[kMaxState];
};

// Threads are detached and keep the loop alive: one that never comes back (a policy or arm that blocks for good) is
// left behind, and neither wait() nor the destructor hangs.
class ControlLoop : public std::enable_shared_from_this<ControlLoop> {
 public:
  enum Leg { kJitter, kFrameAge, kFrameWait, kPolicy, kOverhead, kSend, kCaptureToCommand, kNumLegs };

  using Mailboxes = std::vector<std::shared_ptr<Mailbox>>;

  // cameras: one mailbox of frames each, in the policy's order.
  static std::shared_ptr<ControlLoop> create(LoopConfig config, SafetyLimits limits, Mailboxes cameras,
                                             std::shared_ptr<Mailbox> states, std::shared_ptr<Executor> executor,
                                             std::shared_ptr<Arm> arm);
  ControlLoop(const ControlLoop&) = delete;

  // Runs the policy on the newest observation so often, before the arm is armed; returns the last duration, ns.
  // std::runtime_error where there is no observation yet.
  int64_t warm_up(int num_runs);
  // Arms and starts; once. std::runtime_error where there is no observation yet.
  void start();
  // Asks for a stop; the guardian stops the arm at once. From any thread; the first reason counts.
  void request_stop(uint32_t reason, const std::string& message);
  // True when the arm was brought to rest, or did not answer within the watchdog's time; false where the run goes on.
  // The loop's thread has ended by then too, unless a policy or arm call has not come back for the watchdog's time.
  bool wait(double timeout_s);

  bool running() const { return started_.load() && !guardian_ended_.load(); }
  uint32_t stop_reason() const { return stop_reason_.load(); }
  std::string message() const;
  bool arm_answered_stop() const { return arm_stopped_.load(); }
  std::vector<std::string> notes() const;
  const LatencyHistogram& leg(int which) const { return legs_[which]; }
  int64_t num_steps() const { return num_steps_.load(); }
  int64_t num_missed() const { return num_missed_.load(); }
  int64_t num_held() const { return num_held_.load(); }
  int64_t num_unrecorded() const { return num_unrecorded_.load(); }
  int64_t num_cameras() const { return int64_t(cameras_.size()); }
  int64_t frame_bytes(int64_t camera) const { return cameras_[camera]->num_bytes(); }

  // Takes up to max_records finished steps out of the ring. Recorded frames stay valid until release_frame(slot).
  int drain(StepRecord* out, int max_records);
  const uint8_t* recorded_frame(int32_t slot, int64_t camera) const;
  void release_frame(int32_t slot);

 private:
  ControlLoop(LoopConfig config, SafetyLimits limits, Mailboxes cameras, std::shared_ptr<Mailbox> states,
              std::shared_ptr<Executor> executor, std::shared_ptr<Arm> arm);
  enum class Stage : int { kIdle, kPolicy, kArm };
  // One question to the policy and its answer.
  struct Request {
    int64_t step, tick, captured_ns, oldest_ns, policy_in_ns, policy_out_ns;  // oldest: of frames and state
    int num_actions;
    std::vector<float> chunk;  // [H, A]
  };
  void check_config() const;
  bool has_observation() const;
  void run_loop();
  void run_step(int64_t step, int64_t tick, int64_t scheduled_ns, double pace, StepRecord* record);
  void look(StepRecord* record);
  void ask(int64_t tick, const StepRecord& record);
  bool answer(const ObservationView& observations);
  void take_answer(StepRecord* record);
  bool think(int64_t tick, StepRecord* record);
  void think_beside(int64_t tick, StepRecord* record);
  void run_policy();
  void act(int64_t tick, int64_t now, double pace, StepRecord* record);
  void send(StepRecord* record);
  void end_thread();
  void run_guardian();
  void check_stage(int64_t now);
  void bring_to_rest();
  void enter(Stage stage);
  void prepare_thread(const char* name, int priority);
  void note(const std::string& text);
  void record_step(StepRecord* record);

  const LoopConfig config_;
  const int64_t period_ns_;
  SafetyFilter filter_;
  PhaseLock phase_;
  const Mailboxes cameras_;
  const std::shared_ptr<Mailbox> states_;
  const std::shared_ptr<Executor> executor_;
  const std::shared_ptr<Arm> arm_;
  ChunkPlayer player_;
  ObservationHistory history_;
  const uint8_t* newest_[kMaxCameras] = {};  // frames of this step
  int64_t send_ns_ = 0;                      // mean duration of sending a command, of the last few

  // The policy's thread, where there is one: the request is the loop's while kFree or kAnswered, else the thread's.
  enum class Asked : int { kFree, kAsked, kAnswered };
  Request request_{};
  ObservationCopy asked_about_;
  std::atomic<Asked> asked_{Asked::kFree};
  std::atomic<int64_t> policy_since_{0};  // ns; 0: it waits
  std::mutex ask_mutex_;
  std::condition_variable ask_wake_;
  LatencyHistogram legs_[kNumLegs];
  std::atomic<int64_t> num_steps_{0}, num_missed_{0}, num_held_{0}, num_unrecorded_{0};
  std::atomic<uint32_t> stop_reason_{0};
  std::atomic<bool> started_{false}, stop_{false}, arm_stopped_{false}, guardian_ended_{false};
  std::atomic<int> num_threads_{0};  // of loop and policy
  mutable std::mutex text_mutex_;    // message_, notes_
  std::string message_;
  std::vector<std::string> notes_;

  // What the loop thread is in, and since when (ns).
  std::atomic<Stage> stage_{Stage::kIdle};
  std::atomic<int64_t> stage_since_{0};
  std::timed_mutex arm_mutex_;  // held while a command is sent
  bool is_armed_ = false;       // under arm_mutex_
  std::mutex guard_mutex_;
  std::condition_variable guard_wake_;

  // The recorder's ring.
  std::mutex ring_mutex_;
  std::vector<StepRecord> ring_;
  int64_t ring_begin_ = 0, ring_end_ = 0;
  std::vector<std::vector<uint8_t>> recorded_;
  std::vector<int32_t> free_frames_;

  std::mutex end_mutex_;
  std::condition_variable end_changed_;
};

}  // namespace ptr_fast
