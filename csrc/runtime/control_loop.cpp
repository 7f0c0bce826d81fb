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
#include "core/clock.h"

namespace ptr_fast {
namespace {

constexpr int kRingSteps = 4096;
constexpr int kMeanOfSends = 8;

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

std::shared_ptr<ControlLoop> ControlLoop::create(LoopConfig config, SafetyLimits limits, Mailboxes cameras,
                                                 std::shared_ptr<Mailbox> states, std::shared_ptr<Executor> executor,
                                                 std::shared_ptr<Arm> arm) {
  return std::shared_ptr<ControlLoop>(new ControlLoop(config, std::move(limits), std::move(cameras), std::move(states),
                                                      std::move(executor), std::move(arm)));
}

ControlLoop::ControlLoop(LoopConfig config, SafetyLimits limits, Mailboxes cameras, std::shared_ptr<Mailbox> states,
                         std::shared_ptr<Executor> executor, std::shared_ptr<Arm> arm)
    : config_(config),
      period_ns_(config.hz > 0 ? nanoseconds(1.0 / config.hz) : 0),
      filter_(std::move(limits)),
      phase_(period_ns_),
      cameras_(std::move(cameras)),
      states_(std::move(states)),
      executor_(std::move(executor)),
      arm_(std::move(arm)),
      player_({config.play, config.execute, config.ensemble_decay, period_ns_}, executor_->sizes().num_actions,
              executor_->sizes().num_axes),
      history_(executor_->sizes()),
      asked_about_(executor_->sizes()) {
  check_config();
  const PolicySizes& sizes = executor_->sizes();
  request_.chunk.resize(sizes.num_actions * sizes.num_axes);
  ring_.resize(kRingSteps);
  recorded_.resize(config.record_frames);
  for (size_t i = 0; i < recorded_.size(); ++i) {
    for (const auto& camera : cameras_) recorded_[i].resize(recorded_[i].size() + camera->num_bytes());
    free_frames_.push_back(int32_t(i));
  }
}

void ControlLoop::check_config() const {
  check(config_.hz > 0 && config_.hz <= 10'000, "loop: expected 0 < hz <= 10000, got ", config_.hz);
  check(config_.num_steps >= 0, "loop: num_steps must not be negative, got ", config_.num_steps);
  check(config_.policy_timeout_s > 0, "loop: policy_timeout_s must be positive, got ", config_.policy_timeout_s);
  check(config_.watchdog_s * config_.hz > 1, "loop: watchdog_s must be longer than the period of ", 1 / config_.hz,
        " s, got ", config_.watchdog_s);
  check(config_.realtime_priority >= 0 && config_.realtime_priority <= 98,
        "loop: realtime_priority: expected 0 to 98, got ", config_.realtime_priority);
  check(filter_.num_axes() <= kMaxAxes, "loop: expected at most ", kMaxAxes, " axes, got ", filter_.num_axes());
  check(filter_.state_size() <= kMaxState, "loop: expected a state of at most ", kMaxState, ", got ",
        filter_.state_size());
  check(states_->num_bytes() == int64_t(sizeof(float)) * filter_.state_size(), "loop: the state mailbox holds ",
        states_->num_bytes(), " bytes, expected ", filter_.state_size(), " float32");
  std::vector<int64_t> frame_bytes;
  int64_t all_bytes = 0;
  for (const auto& camera : cameras_) {
    frame_bytes.push_back(camera->num_bytes());
    all_bytes += camera->num_bytes();
  }
  executor_->check_fits(frame_bytes, filter_.state_size(), filter_.num_axes());
  check(config_.record_frames >= 0 && config_.record_frames <= (int64_t(4) << 30) / all_bytes,
        "loop: record_frames: expected at most 4 GiB of frames, got ", config_.record_frames);
}

// The newest of everything, into the record and the history.
void ControlLoop::look(StepRecord* record) {
  for (size_t i = 0; i < cameras_.size(); ++i) {
    const Mailbox::Message* frame = cameras_[i]->read();
    newest_[i] = frame->data;
    record->camera_captured_ns[i] = frame->captured_ns;
    record->captured_ns = i == 0 ? frame->captured_ns : std::min(record->captured_ns, frame->captured_ns);
    if (i == 0) {
      record->arrived_ns = frame->arrived_ns;
      record->frame_sequence = frame->sequence;
    }
  }
  const Mailbox::Message* state = states_->read();
  record->state_captured_ns = state->captured_ns;
  std::memcpy(record->state, state->data, states_->num_bytes());
  history_.add(newest_, record->state);
}

bool ControlLoop::has_observation() const {
  const auto written = [](const auto& box) { return box->written() > 0; };
  return written(states_) && std::all_of(cameras_.begin(), cameras_.end(), written);
}

int64_t ControlLoop::warm_up(int num_runs) {
  if (started_) throw std::runtime_error("control loop: warm_up() comes before start()");
  if (!has_observation()) throw std::runtime_error("control loop: no observation has arrived yet");
  StepRecord record{};
  look(&record);
  int64_t last = 0;
  for (int i = 0; i < num_runs; ++i) {
    const int64_t begin = monotonic_ns();
    executor_->run(history_.view(), request_.chunk.data());
    last = monotonic_ns() - begin;
  }
  history_.clear();
  return last;
}

void ControlLoop::start() {
  if (!has_observation()) throw std::runtime_error("control loop: no observation has arrived yet");
  if (started_.exchange(true)) throw std::runtime_error("control loop: it was started before");
  if (config_.lock_memory && mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
    note(text("memory is not locked: ", std::strerror(errno)));
  }
  is_armed_ = true;
  stage_since_ = monotonic_ns();
  const auto self = shared_from_this();
  num_threads_ = config_.play == Play::kLatency ? 2 : 1;
  std::thread([self] { self->run_guardian(); }).detach();
  if (config_.play == Play::kLatency) std::thread([self] { self->run_policy(); }).detach();
  std::thread([self] { self->run_loop(); }).detach();
}

void ControlLoop::request_stop(uint32_t reason, const std::string& message) {
  {
    // The reason is there before anybody sees the stop: a run that ended never looks as if all steps were done.
    const std::lock_guard lock(text_mutex_);
    if (!stop_) {
      stop_reason_ = reason;
      message_ = message;
      stop_ = true;
    }
  }
  {
    const std::lock_guard lock(guard_mutex_);
  }
  guard_wake_.notify_all();
  {
    const std::lock_guard lock(ask_mutex_);
  }
  ask_wake_.notify_all();
}

bool ControlLoop::wait(double timeout_s) {
  std::unique_lock lock(end_mutex_);
  const auto deadline = at(monotonic_ns() + nanoseconds(timeout_s));
  if (!end_changed_.wait_until(lock, deadline, [&] { return guardian_ended_.load(); })) return false;
  // A thread that is still in a call of Python's when the interpreter goes away would take the process with it.
  const auto last = at(monotonic_ns() + nanoseconds(config_.watchdog_s));
  end_changed_.wait_until(lock, last, [&] { return num_threads_.load() == 0; });
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

void ControlLoop::prepare_thread(const char* name, int priority) {
  pthread_setname_np(pthread_self(), name);
  if (priority > 0) {
    const sched_param parameter{priority};
    const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameter);
    if (error != 0) note(text("no real-time priority for ", name, ": ", std::strerror(error)));
  }
  if (config_.cpu >= 0) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(config_.cpu, &cpus);
    const int error = pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    if (error != 0) note(text(name, " is not pinned to core ", config_.cpu, ": ", std::strerror(error)));
  }
}

void ControlLoop::enter(Stage stage) {
  stage_since_.store(monotonic_ns(), std::memory_order_relaxed);
  stage_.store(stage, std::memory_order_release);
}

void ControlLoop::run_loop() {
  prepare_thread("ptr-loop", config_.realtime_priority);
  const int64_t begin = monotonic_ns();
  filter_.start(begin);
  int64_t scheduled = phase_.first_step(cameras_[0]->read()->arrived_ns, begin), interval = period_ns_, missed = 0;
  for (int64_t step = 0; !stop_ && (config_.num_steps == 0 || step < config_.num_steps); ++step) {
    sleep_until(scheduled);
    if (stop_) break;
    StepRecord record{};
    run_step(step, step + missed, scheduled, std::min(double(interval) / double(period_ns_), 1.0), &record);
    enter(Stage::kIdle);
    interval = phase_.interval(scheduled, record.arrived_ns, record.frame_sequence);
    const int64_t passed = monotonic_ns() - scheduled, late = passed / period_ns_;
    if (late > 0) {
      // Steps whose time has passed are not made up for: the next one is the next on the grid.
      num_missed_ += late;
      missed += late;
      scheduled += late * period_ns_;
    }
    // A step that took its whole period has no time to give away.
    interval = std::max(interval, std::min(passed - late * period_ns_, period_ns_));
    scheduled += interval;
  }
  if (!stop_) sleep_until(scheduled);  // the last command has its time too
  request_stop(0, "");
  end_thread();
}

void ControlLoop::end_thread() {
  {
    const std::lock_guard lock(end_mutex_);
    --num_threads_;
  }
  end_changed_.notify_all();
}

void ControlLoop::run_step(int64_t step, int64_t tick, int64_t scheduled_ns, double pace, StepRecord* record) {
  record->step = step;
  record->scheduled_ns = scheduled_ns;
  record->woke_ns = monotonic_ns();
  record->frame_slot = record->entry = -1;
  legs_[kJitter].record(record->woke_ns - scheduled_ns);
  look(record);
  const int64_t begin = monotonic_ns();
  if (config_.play == Play::kLatency) {
    think_beside(tick, record);
  } else if (player_.asks() && !think(tick, record)) {
    return;
  }
  const int64_t thought = monotonic_ns();
  act(tick, thought, pace, record);
  legs_[kFrameAge].record(begin - record->captured_ns);
  legs_[kFrameWait].record(begin - record->arrived_ns);
  legs_[kOverhead].record(begin - record->woke_ns + record->filtered_ns - thought);
  record->missed_deadline = monotonic_ns() > scheduled_ns + period_ns_;
  ++num_steps_;
  record_step(record);
}

// A request about the newest observation.
void ControlLoop::ask(int64_t tick, const StepRecord& record) {
  player_.asked();
  request_.step = record.step;
  request_.tick = tick;
  request_.captured_ns = record.captured_ns;
  request_.oldest_ns = std::min(record.captured_ns, record.state_captured_ns);
}

// Fills in the request's answer; false where the policy failed, which stops the run.
bool ControlLoop::answer(const ObservationView& observations) {
  request_.policy_in_ns = monotonic_ns();
  try {
    request_.num_actions = executor_->run(observations, request_.chunk.data());
  } catch (const std::exception& error) {
    request_stop(kStoppedPolicy, text("step ", request_.step, ": the policy failed: ", error.what()));
    return false;
  }
  request_.policy_out_ns = monotonic_ns();
  return true;
}

void ControlLoop::take_answer(StepRecord* record) {
  record->policy_in_ns = request_.policy_in_ns;
  record->policy_out_ns = request_.policy_out_ns;
  legs_[kPolicy].record(request_.policy_out_ns - request_.policy_in_ns);
  player_.add(request_.chunk.data(), request_.num_actions, {request_.captured_ns, request_.oldest_ns, request_.tick});
}

bool ControlLoop::think(int64_t tick, StepRecord* record) {
  ask(tick, *record);
  enter(Stage::kPolicy);
  if (!answer(history_.view())) return false;
  take_answer(record);
  return true;
}

void ControlLoop::think_beside(int64_t tick, StepRecord* record) {
  if (asked_.load(std::memory_order_acquire) == Asked::kAnswered) {
    take_answer(record);
    asked_ = Asked::kFree;
  }
  if (asked_ != Asked::kFree || !player_.asks()) return;
  ask(tick, *record);
  asked_about_.copy(history_.view());
  {
    const std::lock_guard lock(ask_mutex_);
    asked_.store(Asked::kAsked, std::memory_order_release);
  }
  ask_wake_.notify_all();
}

// At normal priority and on any core: what it does is long, and the loop goes on meanwhile.
void ControlLoop::run_policy() {
  pthread_setname_np(pthread_self(), "ptr-policy");
  while (true) {
    {
      std::unique_lock lock(ask_mutex_);
      ask_wake_.wait(lock, [&] { return stop_.load() || asked_.load() == Asked::kAsked; });
    }
    if (stop_) break;
    policy_since_ = monotonic_ns();
    const bool is_answered = answer(asked_about_.view());
    policy_since_ = 0;
    if (!is_answered) break;
    asked_.store(Asked::kAnswered, std::memory_order_release);
  }
  end_thread();
}

// The action of this step through the filter to the arm.
void ControlLoop::act(int64_t tick, int64_t now, double pace, StepRecord* record) {
  const ChunkPlayer::Played played = player_.take(tick, now + send_ns_, record->action);
  const bool has_action = played.entry >= 0;
  record->entry = int32_t(played.entry);
  record->decided_ns = has_action ? played.from.captured_ns : record->captured_ns;
  int64_t age = now - std::min(record->captured_ns, record->state_captured_ns);
  if (has_action) age = std::max(age, now - played.from.oldest_ns - played.entry * period_ns_);
  record->interventions = filter_.apply(has_action ? record->action : nullptr, record->state, record->state_captured_ns,
                                        age, now, pace, record->command);
  record->filtered_ns = monotonic_ns();
  if (const uint32_t stopped = filter_.stopped()) {
    const char* why = stopped & kStoppedNotFinite  ? "the policy's action or the robot's state is not finite"
                      : stopped & kStoppedMismatch ? "the first command is too far from where the arm is"
                                                   : "the observation is too old";
    request_stop(stopped, text("step ", record->step, ": ", why, " (age ", double(age) * 1e-6, " ms)"));
    return;
  }
  if (record->interventions & (kHeldStale | kHeldLate)) ++num_held_;
  if (filter_.has_command()) send(record);
}

void ControlLoop::send(StepRecord* record) {
  if (config_.dry_run) return;
  enter(Stage::kArm);
  try {
    const std::lock_guard lock(arm_mutex_);
    if (!is_armed_) return;
    arm_->send(record->command, record->sent);
  } catch (const std::exception& error) {
    request_stop(kStoppedArm, text("step ", record->step, ": the arm failed: ", error.what()));
    return;
  }
  record->sent_ns = monotonic_ns();
  filter_.sent(record->sent_ns);
  const int64_t took = record->sent_ns - record->filtered_ns;
  send_ns_ = send_ns_ == 0 ? took : send_ns_ + (took - send_ns_) / kMeanOfSends;
  legs_[kSend].record(took);
  legs_[kCaptureToCommand].record(record->sent_ns - record->decided_ns);
}

void ControlLoop::run_guardian() {
  prepare_thread("ptr-guardian", config_.realtime_priority > 0 ? config_.realtime_priority + 1 : 0);
  const double shortest = std::min(config_.watchdog_s, config_.policy_timeout_s);
  const auto look = std::chrono::nanoseconds(nanoseconds(std::clamp(shortest / 10, 1e-3, 0.1)));
  while (!stop_) {
    {
      std::unique_lock lock(guard_mutex_);
      guard_wake_.wait_for(lock, look, [&] { return stop_.load(); });
    }
    if (!stop_) check_stage(monotonic_ns());
  }
  bring_to_rest();
  {
    const std::lock_guard lock(end_mutex_);
    guardian_ended_ = true;
  }
  end_changed_.notify_all();
}

void ControlLoop::check_stage(int64_t now) {
  const Stage stage = stage_.load(std::memory_order_acquire);
  const double seconds = double(now - stage_since_.load(std::memory_order_relaxed)) * 1e-9;
  const int64_t beside_since = policy_since_.load();
  const double beside = beside_since == 0 ? 0.0 : double(now - beside_since) * 1e-9;
  if (stage == Stage::kPolicy && seconds > config_.policy_timeout_s) {
    request_stop(kStoppedPolicy, text("the policy has not answered for ", seconds, " s"));
  } else if (beside > config_.policy_timeout_s) {
    request_stop(kStoppedPolicy, text("the policy has not answered for ", beside, " s"));
  } else if (stage == Stage::kArm && seconds > config_.watchdog_s) {
    request_stop(kStoppedArm, text("the arm has not come back from a command for ", seconds, " s"));
  } else if (stage == Stage::kIdle && seconds > config_.watchdog_s + double(period_ns_) * 1e-9) {
    request_stop(kStoppedWatchdog, text("the loop has not run for ", seconds, " s"));
  }
}

void ControlLoop::bring_to_rest() {
  {
    // No command follows the stop, unless one blocks: then the stop may be what makes it come back.
    const std::unique_lock lock(arm_mutex_, std::chrono::nanoseconds(nanoseconds(config_.watchdog_s)));
    if (lock.owns_lock()) is_armed_ = false;
  }
  struct Rest {
    std::mutex mutex;
    std::condition_variable done;
    bool ended = false;
    std::string error;
  };
  const auto rest = std::make_shared<Rest>();
  std::thread([rest, arm = arm_] {
    std::string error;
    try {
      arm->stop();
    } catch (const std::exception& failure) {
      error = failure.what();
    }
    const std::lock_guard lock(rest->mutex);
    rest->ended = true;
    rest->error = error;
    rest->done.notify_all();
  }).detach();
  std::unique_lock lock(rest->mutex);
  rest->done.wait_for(lock, std::chrono::nanoseconds(nanoseconds(config_.watchdog_s)), [&] { return rest->ended; });
  if (!rest->ended) note(text("the arm's stop has not come back for ", config_.watchdog_s, " s"));
  if (!rest->error.empty()) note(text("the arm's stop failed: ", rest->error));
  arm_stopped_ = rest->ended && rest->error.empty();
}

void ControlLoop::record_step(StepRecord* record) {
  if (!recorded_.empty()) {
    const std::lock_guard lock(ring_mutex_);
    if (!free_frames_.empty()) {
      record->frame_slot = free_frames_.back();
      free_frames_.pop_back();
    }
  }
  if (record->frame_slot >= 0) {
    uint8_t* into = recorded_[record->frame_slot].data();
    for (size_t i = 0; i < cameras_.size(); into += frame_bytes(int64_t(i)), ++i) {
      std::memcpy(into, newest_[i], cameras_[i]->num_bytes());
    }
  }
  const std::lock_guard lock(ring_mutex_);
  const bool is_full = ring_end_ - ring_begin_ == kRingSteps;
  if (is_full || (record->frame_slot < 0 && !recorded_.empty())) ++num_unrecorded_;
  if (!is_full) {
    ring_[ring_end_++ % kRingSteps] = *record;
  } else if (record->frame_slot >= 0) {
    free_frames_.push_back(record->frame_slot);
  }
}

int ControlLoop::drain(StepRecord* out, int max_records) {
  const std::lock_guard lock(ring_mutex_);
  int taken = 0;
  while (taken < max_records && ring_begin_ < ring_end_) out[taken++] = ring_[ring_begin_++ % kRingSteps];
  return taken;
}

const uint8_t* ControlLoop::recorded_frame(int32_t slot, int64_t camera) const {
  check(slot >= 0 && slot < int32_t(recorded_.size()), "loop: no recorded frame ", slot);
  check(camera >= 0 && camera < num_cameras(), "loop: no camera ", camera);
  const uint8_t* frame = recorded_[slot].data();
  for (int64_t i = 0; i < camera; ++i) frame += frame_bytes(i);
  return frame;
}

void ControlLoop::release_frame(int32_t slot) {
  check(slot >= 0 && slot < int32_t(recorded_.size()), "loop: no recorded frame ", slot);
  const std::lock_guard lock(ring_mutex_);
  free_frames_.push_back(slot);
}

}  // namespace ptr_fast
