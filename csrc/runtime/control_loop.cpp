#include "runtime/control_loop.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>

#include "core/check.h"

namespace ptr_fast {
namespace {

constexpr int kRingSteps = 4096;

std::chrono::steady_clock::time_point at(int64_t ns) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(ns));
}

void sleep_until(int64_t ns) {
  const timespec until{time_t(ns / 1'000'000'000), long(ns % 1'000'000'000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

int64_t nanoseconds(double seconds) { return int64_t(std::llround(seconds * 1e9)); }

}  // namespace

int64_t ControlLoop::now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

std::shared_ptr<ControlLoop> ControlLoop::create(LoopConfig config, SafetyLimits limits,
                                                 std::shared_ptr<Mailbox> frames, std::shared_ptr<Mailbox> states,
                                                 std::shared_ptr<Executor> executor, std::shared_ptr<Arm> arm) {
  return std::shared_ptr<ControlLoop>(new ControlLoop(config, std::move(limits), std::move(frames), std::move(states),
                                                      std::move(executor), std::move(arm)));
}

ControlLoop::ControlLoop(LoopConfig config, SafetyLimits limits, std::shared_ptr<Mailbox> frames,
                         std::shared_ptr<Mailbox> states, std::shared_ptr<Executor> executor, std::shared_ptr<Arm> arm)
    : config_(config),
      period_ns_(config.hz > 0 ? nanoseconds(1.0 / config.hz) : 0),
      filter_(std::move(limits)),
      frames_(std::move(frames)),
      states_(std::move(states)),
      executor_(std::move(executor)),
      arm_(std::move(arm)) {
  check(config.hz > 0 && config.hz <= 10'000, "loop: expected 0 < hz <= 10000, got ", config.hz);
  check(config.num_steps >= 0, "loop: num_steps must not be negative, got ", config.num_steps);
  check(config.policy_budget_s > 0 && config.policy_timeout_s >= config.policy_budget_s,
        "loop: expected 0 < policy_budget_s <= policy_timeout_s, got ", config.policy_budget_s, " and ",
        config.policy_timeout_s);
  check(config.watchdog_s * config.hz > 1, "loop: watchdog_s must be longer than the period of ", 1 / config.hz,
        " s, got ", config.watchdog_s);
  check(config.realtime_priority >= 0 && config.realtime_priority <= 99, "loop: realtime_priority: expected 0 to 99, got ",
        config.realtime_priority);
  check(config.record_frames >= 0 && config.record_frames * frames_->num_bytes() <= (int64_t(4) << 30),
        "loop: record_frames: expected at most 4 GiB of frames, got ", config.record_frames);
  check(filter_.num_axes() <= kMaxAxes, "loop: expected at most ", kMaxAxes, " axes, got ", filter_.num_axes());
  check(filter_.state_size() <= kMaxState, "loop: expected a state of at most ", kMaxState, ", got ",
        filter_.state_size());
  check(states_->num_bytes() == int64_t(sizeof(float)) * filter_.state_size(), "loop: the state mailbox holds ",
        states_->num_bytes(), " bytes, expected ", filter_.state_size(), " float32");
  ring_.resize(kRingSteps);
  recorded_.resize(config.record_frames);
  frame_ready_ = std::vector<std::atomic<bool>>(config.record_frames);
  for (size_t i = 0; i < recorded_.size(); ++i) {
    recorded_[i].resize(frames_->num_bytes());
    free_frames_.push_back(int32_t(i));
  }
}

int64_t ControlLoop::warm_up(int num_runs) {
  if (started_) throw std::runtime_error("control loop: warm_up() comes before start()");
  const Mailbox::Message *frame = frames_->read(), *state = states_->read();
  if (frame == nullptr || state == nullptr) throw std::runtime_error("control loop: no observation has arrived yet");
  int64_t last = 0;
  float action[kMaxAxes];
  std::memcpy(state_in_, state->data, states_->num_bytes());
  for (int i = 0; i < num_runs; ++i) {
    const int64_t begin = now_ns();
    executor_->run({frame->data, state_in_}, action);
    last = now_ns() - begin;
  }
  return last;
}

void ControlLoop::start() {
  if (frames_->written() == 0 || states_->written() == 0) {
    throw std::runtime_error("control loop: no observation has arrived yet");
  }
  if (started_.exchange(true)) throw std::runtime_error("control loop: it was started before");
  if (config_.lock_memory && mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
    note(text("memory is not locked: ", std::strerror(errno)));
  }
  const auto self = shared_from_this();
  std::thread([self] { self->run_arm(); }).detach();
  std::thread([self] { self->run_policy(); }).detach();
  std::thread([self] { self->run_loop(); }).detach();
}

void ControlLoop::request_stop(uint32_t reason, const std::string& message) {
  uint32_t none = 0;
  if (stop_reason_.compare_exchange_strong(none, reason)) {
    const std::lock_guard lock(text_mutex_);
    message_ = message;
  }
  stop_ = true;
  { const std::lock_guard lock(arm_mutex_); }
  arm_wake_.notify_all();
  { const std::lock_guard lock(policy_mutex_); }
  policy_wake_.notify_all();
  policy_done_.notify_all();
}

bool ControlLoop::wait(double timeout_s) {
  std::unique_lock lock(end_mutex_);
  const auto deadline = at(now_ns() + nanoseconds(timeout_s));
  if (!end_changed_.wait_until(lock, deadline, [&] { return loop_ended_.load(); })) return false;
  const auto last = at(now_ns() + nanoseconds(config_.watchdog_s));
  end_changed_.wait_until(lock, last, [&] { return arm_ended_.load(); });
  return true;
}

std::string ControlLoop::message() const {
  const std::lock_guard lock(text_mutex_);
  return message_;
}

std::vector<std::string> ControlLoop::notes() const {
  const std::lock_guard lock(text_mutex_);
  return notes_;
}

void ControlLoop::note(const std::string& text) {
  const std::lock_guard lock(text_mutex_);
  notes_.push_back(text);
}

void ControlLoop::prepare_thread() {
  if (config_.realtime_priority > 0) {
    const sched_param parameter{config_.realtime_priority};
    const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter);
    if (error != 0) note(text("no real-time priority: ", std::strerror(error)));
  }
  if (config_.cpu >= 0) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(config_.cpu, &cpus);
    const int error = pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    if (error != 0) note(text("not pinned to core ", config_.cpu, ": ", std::strerror(error)));
  }
}

void ControlLoop::run_loop() {
  prepare_thread();
  const int64_t begin = now_ns();
  filter_.start(begin);
  int64_t scheduled = begin;
  bool has_pending = false;
  StepRecord pending{};
  for (int64_t step = 0; !stop_ && (config_.num_steps == 0 || step < config_.num_steps); ++step) {
    scheduled += period_ns_;
    sleep_until(scheduled);
    const int64_t woke = now_ns();
    if (stop_) break;
    legs_[kJitter].record(woke - scheduled);
    if (has_pending) {
      collect_sent(&pending);
      push(pending);
    }
    StepRecord record{};
    record.step = step;
    record.scheduled_ns = scheduled;
    record.woke_ns = woke;
    record.frame_slot = -1;
    const Mailbox::Message* state = states_->read();
    record.state_captured_ns = state->captured_ns;
    std::memcpy(record.state, state->data, states_->num_bytes());
    const bool has_action = take_action(step, woke, &record);
    const int64_t now = now_ns();
    int64_t age = now - record.state_captured_ns;
    if (has_action) age = std::max(age, now - record.captured_ns);
    record.interventions = filter_.apply(has_action ? record.action : nullptr, record.state, age, now, record.command);
    record.filtered_ns = now_ns();
    if (const uint32_t stopped = filter_.stopped()) {
      const char* why = stopped & kStoppedNotFinite  ? "the policy's action or the robot's state is not finite"
                        : stopped & kStoppedMismatch ? "the first command is too far from where the arm is"
                                                     : "the observation is too old";
      request_stop(stopped, text("step ", step, ": ", why, " (age ", double(age) * 1e-6, " ms)"));
    } else {
      post_command(record);
      if (record.interventions & (kHeldStale | kHeldLate)) ++num_held_;
    }
    if (has_action) {
      legs_[kFrameAge].record(record.policy_in_ns - record.captured_ns);
      legs_[kPolicy].record(record.policy_out_ns - record.policy_in_ns);
      const int64_t policy = record.policy_in_ns >= woke ? record.policy_out_ns - record.policy_in_ns : 0;
      legs_[kOverhead].record(record.filtered_ns - woke - policy);
    }
    check_arm(record.filtered_ns);
    record.missed_deadline = record.filtered_ns > scheduled + period_ns_;
    if (record.missed_deadline) {
      // Steps whose time has passed are not made up for: the next one is the next on the grid.
      const int64_t late = (record.filtered_ns - scheduled) / period_ns_;
      num_missed_ += late;
      scheduled += (late - 1) * period_ns_;
    }
    pending = record;
    has_pending = true;
    ++num_steps_;
  }
  if (!stop_) sleep_until(scheduled + period_ns_);  // the last command has its time too
  request_stop(0, "");
  if (has_pending) {
    collect_sent(&pending);
    push(pending);
  }
  {
    const std::lock_guard lock(end_mutex_);
    loop_ended_ = true;
  }
  end_changed_.notify_all();
}

// Asks the policy and waits for its answer within the budget. An answer that came too late for its own step is taken now,
// as old as it is, while the policy looks at the newest observation.
bool ControlLoop::take_action(int64_t step, int64_t woke_ns, StepRecord* record) {
  std::unique_lock lock(policy_mutex_);
  const auto take = [&] {
    used_ = answered_;
    std::copy_n(answer_.action, filter_.num_axes(), record->action);
    record->policy_in_ns = answer_.in_ns;
    record->policy_out_ns = answer_.out_ns;
    record->captured_ns = answer_.captured_ns;
    record->frame_sequence = answer_.sequence;
    record->frame_slot = answer_.slot;
  };
  const bool was_late = answered_ != used_;
  if (was_late) take();
  if (asked_ == answered_) {
    ++asked_;
    asked_ns_ = woke_ns;
    std::memcpy(state_in_, record->state, states_->num_bytes());
    policy_wake_.notify_one();
  }
  if (was_late) return true;
  policy_done_.wait_until(lock, at(woke_ns + nanoseconds(config_.policy_budget_s)),
                          [&] { return answered_ == asked_ || stop_; });
  if (answered_ == asked_) {
    take();
    return true;
  }
  const double silent = double(now_ns() - asked_ns_) * 1e-9;
  lock.unlock();
  if (silent > config_.policy_timeout_s) {
    request_stop(kStoppedPolicy, text("step ", step, ": the policy has not answered for ", silent, " s"));
  }
  return false;
}

void ControlLoop::run_policy() {
  Answer answer{};
  float state[kMaxState];
  for (;;) {
    {
      std::unique_lock lock(policy_mutex_);
      policy_wake_.wait(lock, [&] { return asked_ != answered_ || stop_; });
      if (stop_) return;
      std::memcpy(state, state_in_, sizeof state);
    }
    const Mailbox::Message* frame = frames_->read();
    answer.captured_ns = frame->captured_ns;
    answer.sequence = frame->sequence;
    answer.in_ns = now_ns();
    try {
      executor_->run({frame->data, state}, answer.action);
    } catch (const std::exception& error) {
      request_stop(kStoppedPolicy, text("the policy failed: ", error.what()));
      return;
    }
    answer.out_ns = now_ns();
    answer.slot = -1;
    if (!recorded_.empty()) {
      const std::lock_guard lock(ring_mutex_);
      if (!free_frames_.empty()) {
        answer.slot = free_frames_.back();
        free_frames_.pop_back();
        frame_ready_[answer.slot].store(false, std::memory_order_relaxed);
      }
    }
    {
      const std::lock_guard lock(policy_mutex_);
      answer_ = answer;
      ++answered_;
    }
    policy_done_.notify_one();
    // After the answer is out: the command does not wait for the copy. drain() waits for it.
    if (answer.slot >= 0) {
      std::memcpy(recorded_[answer.slot].data(), frame->data, frames_->num_bytes());
      frame_ready_[answer.slot].store(true, std::memory_order_release);
    }
  }
}

void ControlLoop::post_command(const StepRecord& record) {
  {
    const std::lock_guard lock(arm_mutex_);
    std::copy_n(record.command, filter_.num_axes(), command_);
    command_step_ = record.step;
  }
  arm_wake_.notify_one();
}

void ControlLoop::collect_sent(StepRecord* record) {
  const std::lock_guard lock(arm_mutex_);
  if (sent_step_ != record->step) return;  // replaced by a newer command, or not sent yet
  record->sent_ns = sent_ns_;
  legs_[kSend].record(sent_ns_ - record->filtered_ns);
  if (record->captured_ns > 0) legs_[kCaptureToCommand].record(sent_ns_ - record->captured_ns);
}

void ControlLoop::check_arm(int64_t now) {
  const int64_t since = arm_busy_since_;
  if (since != 0 && now - since > nanoseconds(config_.watchdog_s)) {
    request_stop(kStoppedArm, text("the arm has not come back from a command for ", double(now - since) * 1e-9, " s"));
  }
}

void ControlLoop::run_arm() {
  float command[kMaxAxes], sent[kMaxAxes];
  int64_t done = -1;
  for (;;) {
    {
      std::unique_lock lock(arm_mutex_);
      const bool woken = arm_wake_.wait_for(lock, std::chrono::nanoseconds(nanoseconds(config_.watchdog_s)),
                                            [&] { return stop_ || command_step_ != done; });
      if (stop_) break;
      if (!woken) {
        lock.unlock();
        request_stop(kStoppedWatchdog, text("no command came for ", config_.watchdog_s, " s"));
        break;
      }
      std::copy_n(command_, filter_.num_axes(), command);
      done = command_step_;
    }
    int64_t sent_ns = 0;
    if (!config_.dry_run) {
      arm_busy_since_ = now_ns();
      try {
        arm_->send(command, sent);
      } catch (const std::exception& error) {
        request_stop(kStoppedArm, text("the arm failed: ", error.what()));
        break;
      }
      arm_busy_since_ = 0;
      sent_ns = now_ns();
    }
    const std::lock_guard lock(arm_mutex_);
    sent_step_ = config_.dry_run ? -1 : done;
    sent_ns_ = sent_ns;
  }
  try {
    arm_->stop();
    arm_stopped_ = true;
  } catch (const std::exception& error) {
    note(text("the arm's stop failed: ", error.what()));
  }
  {
    const std::lock_guard lock(end_mutex_);
    arm_ended_ = true;
  }
  end_changed_.notify_all();
}

void ControlLoop::push(const StepRecord& record) {
  const std::lock_guard lock(ring_mutex_);
  if (ring_end_ - ring_begin_ == kRingSteps) {
    ++num_unrecorded_;
    if (record.frame_slot >= 0) free_frames_.push_back(record.frame_slot);
    return;
  }
  if (record.frame_slot < 0 && !recorded_.empty() && record.captured_ns > 0) ++num_unrecorded_;
  ring_[ring_end_++ % kRingSteps] = record;
}

int ControlLoop::drain(StepRecord* out, int max_records) {
  const std::lock_guard lock(ring_mutex_);
  int taken = 0;
  while (taken < max_records && ring_begin_ < ring_end_) {
    const StepRecord& next = ring_[ring_begin_ % kRingSteps];
    if (next.frame_slot >= 0 && !frame_ready_[next.frame_slot].load(std::memory_order_acquire)) break;
    out[taken++] = next;
    ++ring_begin_;
  }
  return taken;
}

const uint8_t* ControlLoop::recorded_frame(int32_t slot) const {
  check(slot >= 0 && slot < int32_t(recorded_.size()), "loop: no recorded frame ", slot);
  return recorded_[slot].data();
}

void ControlLoop::release_frame(int32_t slot) {
  check(slot >= 0 && slot < int32_t(recorded_.size()), "loop: no recorded frame ", slot);
  const std::lock_guard lock(ring_mutex_);
  free_frames_.push_back(slot);
}

}  // namespace ptr_fast
