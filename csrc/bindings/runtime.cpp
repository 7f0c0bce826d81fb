#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/chunk_player.h"
#include "runtime/control_loop.h"
#include "runtime/cuda_graph_executor.h"
#include "runtime/latency_histogram.h"
#include "runtime/mailbox.h"
#include "runtime/openvino_executor.h"
#include "runtime/phase_lock.h"
#include "runtime/safety_filter.h"

namespace ptr_fast {
namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

// A Python object that threads of the loop may let go of.
std::shared_ptr<py::object> shared_object(py::object object) {
  return {new py::object(std::move(object)), [](py::object* held) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire acquire;
            delete held;
          }};
}

std::string last_line(const py::error_already_set& error) {
  const std::string whole = error.what();
  return whole.substr(0, whole.find('\n'));
}

void copy_floats(const char* what, const py::object& from, float* to, int64_t size) {
  const auto values = Floats::ensure(from);
  if (!values) {
    const py::object kind = py::type::of(from).attr("__name__");
    throw std::runtime_error(text(what, ": expected ", size, " numbers, got a ", std::string(py::str(kind))));
  }
  if (values.size() != size) {
    throw std::runtime_error(text(what, ": expected ", size, " numbers, got ", values.size()));
  }
  std::memcpy(to, values.data(), sizeof(float) * size);
}

// policy(frames: list of uint8 [T, H, W, 3], one per camera, state float32 [T, S]) -> actions [h, A] with 1 <= h <= H,
// or one action [A], or None where there is none in time; the arrays hold until the call returns.
class PythonExecutor final : public Executor {
 public:
  using Size = std::pair<int64_t, int64_t>;  // height, width

  PythonExecutor(py::object policy, const std::vector<Size>& frames, int64_t num_observations, int64_t num_state,
                 int64_t num_actions, int64_t num_axes)
      : Executor(sizes_of(frames, num_observations, num_state, num_actions, num_axes)),
        policy_(shared_object(std::move(policy))),
        frames_(frames) {}

  int run(const ObservationView& observations, float* chunk) override {
    const py::gil_scoped_acquire acquire;
    try {
      const PolicySizes& n = sizes();
      py::list frames;
      for (size_t i = 0; i < frames_.size(); ++i) {
        const auto [height, width] = frames_[i];
        frames.append(constant(py::array(py::dtype::of<uint8_t>(), {n.num_observations, height, width, int64_t(3)},
                                         observations.frames[i], py::none())));
      }
      const py::array_t<float> state({n.num_observations, n.num_state}, observations.state);
      const py::object answer = (*policy_)(frames, state);
      return answer.is_none() ? 0 : copy_chunk(answer, chunk);
    } catch (const py::error_already_set& error) {
      throw std::runtime_error(last_line(error));
    }
  }

 private:
  static PolicySizes sizes_of(const std::vector<Size>& frames, int64_t num_observations, int64_t num_state,
                              int64_t num_actions, int64_t num_axes) {
    PolicySizes sizes{{}, num_observations, num_state, num_actions, num_axes};
    for (const auto& [height, width] : frames) sizes.frame_bytes.push_back(3 * height * width);
    return sizes;
  }

  static py::array constant(py::array array) {
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
  }

  int copy_chunk(const py::object& answer, float* chunk) const {
    const auto values = Floats::ensure(answer);
    if (!values || values.ndim() < 2) {
      copy_floats("action", answer, chunk, sizes().num_axes);
      return 1;
    }
    const int64_t count = values.shape(0), axes = values.shape(1);
    if (values.ndim() != 2 || axes != sizes().num_axes || count < 1 || count > sizes().num_actions) {
      const py::object shape = py::cast<py::object>(values.attr("shape"));
      throw std::runtime_error(text("actions: expected 1 to ", sizes().num_actions, " of ", sizes().num_axes,
                                    " numbers, got the shape ", std::string(py::str(shape))));
    }
    std::memcpy(chunk, values.data(), sizeof(float) * values.size());
    return int(count);
  }

  std::shared_ptr<py::object> policy_;
  const std::vector<Size> frames_;
};

// arm.send(command float32 [A]) -> what was sent, or None; arm.stop().
class PythonArm final : public Arm {
 public:
  PythonArm(py::object arm, int64_t num_axes) : arm_(shared_object(std::move(arm))), axes_(num_axes) {}

  void send(const float* command, float* sent) override {
    const py::gil_scoped_acquire acquire;
    try {
      const py::object answer = arm_->attr("send")(py::array_t<float>(axes_, command));
      std::memcpy(sent, command, sizeof(float) * axes_);
      if (!answer.is_none()) copy_floats("sent", answer, sent, axes_);
    } catch (const py::error_already_set& error) {
      throw std::runtime_error(last_line(error));
    }
  }

  void stop() override {
    const py::gil_scoped_acquire acquire;
    try {
      arm_->attr("stop")();
    } catch (const py::error_already_set& error) {
      throw std::runtime_error(last_line(error));
    }
  }

 private:
  std::shared_ptr<py::object> arm_;
  int64_t axes_;
};

py::array_t<uint8_t, py::array::c_style> bytes_of(const py::object& object, int64_t num_bytes) {
  const auto array = py::array::ensure(object, py::array::c_style);
  check(array && array.nbytes() == num_bytes, "mailbox: expected a contiguous array of ", num_bytes, " bytes, got ",
        array ? array.nbytes() : -1);
  return py::array_t<uint8_t, py::array::c_style>(num_bytes, static_cast<const uint8_t*>(array.data()), array);
}

AxisLimits axis_of(const py::handle& item) {
  const auto get = [&](const char* name) { return py::cast<double>(item.attr(name)); };
  return {py::cast<bool>(item.attr("relative")),
          py::cast<int>(item.attr("position")),
          get("low"),
          get("high"),
          get("scale"),
          get("box_low"),
          get("box_high"),
          get("max_step"),
          get("max_velocity"),
          get("max_acceleration")};
}

SafetyLimits limits_of(const py::object& object) {
  SafetyLimits limits;
  for (const py::handle& item : object.attr("axes")) limits.axes.push_back(axis_of(item));
  limits.state_size = py::cast<int>(object.attr("state_size"));
  const auto get = [&](const char* name) { return py::cast<double>(object.attr(name)); };
  limits.period_s = get("period_s");
  limits.ramp_s = get("ramp_s");
  limits.response_s = get("response_s");
  limits.hold_after_s = get("hold_after_s");
  limits.stop_after_s = get("stop_after_s");
  limits.max_start_mismatch = get("max_start_mismatch");
  return limits;
}

Play play_of(const std::string& name) {
  if (name == "receding") return Play::kReceding;
  if (name == "ensemble") return Play::kEnsemble;
  check(name == "latency", "loop: play: expected receding, ensemble or latency, got ", name);
  return Play::kLatency;
}

LoopConfig config_of(const py::object& object) {
  LoopConfig config{};
  const auto get = [&](const char* name) { return object.attr(name); };
  config.hz = py::cast<double>(get("hz"));
  config.num_steps = py::cast<int64_t>(get("num_steps"));
  config.policy_timeout_s = py::cast<double>(get("policy_timeout_s"));
  config.watchdog_s = py::cast<double>(get("watchdog_s"));
  config.dry_run = py::cast<bool>(get("dry_run"));
  config.realtime_priority = py::cast<int>(get("realtime_priority"));
  config.cpu = py::cast<int>(get("cpu"));
  config.lock_memory = py::cast<bool>(get("lock_memory"));
  config.record_frames = py::cast<int64_t>(get("record_frames"));
  config.play = play_of(py::cast<std::string>(get("play")));
  config.execute = py::cast<int64_t>(get("execute"));
  config.ensemble_decay = py::cast<double>(get("ensemble_decay"));
  return config;
}

py::tuple apply(SafetyFilter& filter, const py::object& wanted, const Floats& state, int64_t age_ns, int64_t now_ns,
                int64_t state_age_ns, double pace) {
  check(state.size() == filter.state_size(), "state: expected ", filter.state_size(), " numbers, got ", state.size());
  const float* action = nullptr;
  Floats kept;
  if (!wanted.is_none()) {
    kept = Floats::ensure(wanted);
    if (!kept) throw py::error_already_set();
    check(kept.size() == filter.num_axes(), "wanted: expected ", filter.num_axes(), " numbers, got ", kept.size());
    action = kept.data();
  }
  py::array_t<float> command(filter.num_axes());
  const uint32_t interventions =
      filter.apply(action, state.data(), now_ns - state_age_ns, age_ns, now_ns, pace, command.mutable_data());
  return py::make_tuple(filter.has_command() ? py::object(command) : py::none(), interventions);
}

// Actions [h, A] of an executor, for frames of each camera and states [T, S]; None where there are none.
py::object run(Executor& executor, const std::vector<py::array_t<uint8_t, py::array::c_style>>& frames,
               const Floats& state) {
  const PolicySizes& n = executor.sizes();
  std::vector<int64_t> frame_bytes;
  std::vector<const uint8_t*> pointers;
  for (const auto& each : frames) {
    frame_bytes.push_back(each.size() / n.num_observations);
    pointers.push_back(each.data());
  }
  executor.check_fits(frame_bytes, state.size() / n.num_observations, n.num_axes);
  std::vector<float> chunk(n.num_actions * n.num_axes);
  const ObservationView view{pointers.data(), state.data()};
  int count = 0;
  {
    const py::gil_scoped_release release;
    count = executor.run(view, chunk.data());
  }
  if (count == 0) return py::none();
  return py::array_t<float>({int64_t(count), n.num_axes}, chunk.data());
}

py::array_t<StepRecord> drain(ControlLoop& loop, int max_records) {
  check(max_records >= 1 && max_records <= 65536, "max_records: expected 1 to 65536, got ", max_records);
  std::vector<StepRecord> records(max_records);
  const int taken = loop.drain(records.data(), max_records);
  return py::array_t<StepRecord>(taken, records.data());
}

py::dict histogram(const LatencyHistogram& leg) {
  std::vector<int64_t> bounds, counts;
  for (int bucket = 0; bucket < LatencyHistogram::kNumBuckets; ++bucket) {
    if (const int64_t count = leg.bucket_count(bucket)) {
      bounds.push_back(LatencyHistogram::lower_bound(bucket));
      counts.push_back(count);
    }
  }
  py::dict out;
  out["count"] = leg.count();
  out["mean_ns"] = leg.mean();
  for (const auto& [name, p] : {std::pair{"p50_ns", 0.5}, {"p95_ns", 0.95}, {"p99_ns", 0.99}, {"p999_ns", 0.999}}) {
    out[name] = leg.percentile(p);
  }
  out["max_ns"] = leg.max();
  out["bucket_begin_ns"] = py::array_t<int64_t>(bounds.size(), bounds.data());
  out["bucket_count"] = py::array_t<int64_t>(counts.size(), counts.data());
  return out;
}

}  // namespace

void bind_runtime(py::module_& module) {
  PYBIND11_NUMPY_DTYPE(StepRecord, step, scheduled_ns, woke_ns, captured_ns, arrived_ns, policy_in_ns, policy_out_ns,
                       filtered_ns, sent_ns, frame_sequence, state_captured_ns, decided_ns, camera_captured_ns,
                       interventions, missed_deadline, frame_slot, entry, action, command, sent, state);
  py::class_<SafetyFilter>(module, "SafetyFilter")
      .def(py::init([](const py::object& limits) { return SafetyFilter(limits_of(limits)); }), py::arg("limits"))
      .def("start", &SafetyFilter::start, py::arg("now_ns"))
      .def("apply", &apply, py::arg("wanted"), py::arg("state"), py::arg("observation_age_ns"), py::arg("now_ns"),
           py::arg("state_age_ns"), py::arg("pace"))
      .def("sent", &SafetyFilter::sent, py::arg("now_ns"))
      .def("stop", &SafetyFilter::stop, py::arg("reason"))
      .def_property_readonly("stopped", &SafetyFilter::stopped);
  py::class_<LatencyHistogram>(module, "LatencyHistogram")
      .def(py::init<>())
      .def("record", &LatencyHistogram::record, py::arg("ns"))
      .def("summary", &histogram);
  py::class_<Mailbox, std::shared_ptr<Mailbox>>(module, "Mailbox")
      .def(py::init<int64_t>(), py::arg("num_bytes"))
      .def(
          "write",
          [](Mailbox& mailbox, const py::object& message, int64_t captured_ns) {
            const auto bytes = bytes_of(message, mailbox.num_bytes());
            const uint8_t* data = bytes.data();
            const py::gil_scoped_release release;
            mailbox.write(data, captured_ns);
          },
          py::arg("message"), py::arg("captured_ns"))
      .def("read",
           [](Mailbox& mailbox) -> py::object {
             const Mailbox::Message* message = mailbox.read();
             if (message == nullptr) return py::none();
             return py::make_tuple(py::bytes(reinterpret_cast<const char*>(message->data), mailbox.num_bytes()),
                                   message->captured_ns, message->sequence);
           })
      .def_property_readonly("num_bytes", &Mailbox::num_bytes)
      .def_property_readonly("written", &Mailbox::written)
      .def_property_readonly("dropped", &Mailbox::dropped);
  py::class_<ChunkPlayer>(module, "ChunkPlayer")
      .def(py::init([](const std::string& play, int64_t execute, double decay, int64_t period_ns, int64_t num_actions,
                       int64_t num_axes) {
             return ChunkPlayer({play_of(play), execute, decay, period_ns}, num_actions, num_axes);
           }),
           py::arg("play"), py::arg("execute"), py::arg("decay"), py::arg("period_ns"), py::arg("num_actions"),
           py::arg("num_axes"))
      .def("asks", &ChunkPlayer::asks)
      .def("asked", &ChunkPlayer::asked)
      .def(
          "add",
          [](ChunkPlayer& player, const Floats& chunk, int64_t captured_ns, int64_t tick) {
            check(chunk.ndim() == 2 && chunk.shape(0) <= player.num_actions() && chunk.shape(1) == player.num_axes(),
                  "chunk: expected at most [", player.num_actions(), ", ", player.num_axes(), "]");
            player.add(chunk.data(), chunk.shape(0), {captured_ns, captured_ns, tick});
          },
          py::arg("chunk"), py::arg("captured_ns"), py::arg("tick"))
      .def(
          "take",
          [](ChunkPlayer& player, int64_t tick, int64_t reaches_ns) -> py::object {
            py::array_t<float> action(player.num_axes());
            const ChunkPlayer::Played played = player.take(tick, reaches_ns, action.mutable_data());
            if (played.entry < 0) return py::none();
            return py::make_tuple(played.entry, action);
          },
          py::arg("tick"), py::arg("reaches_ns"));
  py::class_<PhaseLock>(module, "PhaseLock")
      .def(py::init<int64_t>(), py::arg("period_ns"))
      .def("first_step", &PhaseLock::first_step, py::arg("arrived_ns"), py::arg("now_ns"))
      .def("interval", &PhaseLock::interval, py::arg("scheduled_ns"), py::arg("arrived_ns"), py::arg("sequence"))
      .def_property_readonly("is_locked", &PhaseLock::is_locked);
  py::class_<Executor, std::shared_ptr<Executor>>(module, "Executor")
      .def("run", &run, py::arg("frames"), py::arg("state"))
      .def_property_readonly("num_observations", [](const Executor& self) { return self.sizes().num_observations; })
      .def_property_readonly("num_actions", [](const Executor& self) { return self.sizes().num_actions; });
  py::class_<PythonExecutor, Executor, std::shared_ptr<PythonExecutor>>(module, "PythonExecutor")
      .def(py::init<py::object, std::vector<PythonExecutor::Size>, int64_t, int64_t, int64_t, int64_t>(),
           py::arg("policy"), py::arg("frames"), py::arg("num_observations"), py::arg("num_state"),
           py::arg("num_actions"), py::arg("num_axes"));
  using Size = std::pair<int64_t, int64_t>;
  py::class_<OpenVinoExecutor, Executor, std::shared_ptr<OpenVinoExecutor>>(module, "OpenVinoExecutor")
      .def(py::init([](const std::string& library, const py::bytes& model, const std::vector<std::string>& properties,
                       const std::vector<std::tuple<std::string, Size, Size>>& cameras, int64_t num_observations,
                       int64_t num_state, int64_t num_actions, int64_t num_axes, int64_t task_slot) {
             const std::string bytes = model;
             std::vector<OpenVinoExecutor::Camera> all;
             for (const auto& [input, camera, size] : cameras) {
               all.push_back({input, {camera.first, camera.second}, {size.first, size.second}});
             }
             const OpenVinoExecutor::Shape shape{num_observations, num_state, num_actions, num_axes};
             const py::gil_scoped_release release;
             return std::make_shared<OpenVinoExecutor>(library, bytes, properties, all, shape, task_slot);
           }),
           py::arg("library"), py::arg("model"), py::arg("properties"), py::arg("cameras"), py::arg("num_observations"),
           py::arg("num_state"), py::arg("num_actions"), py::arg("num_axes"), py::arg("task_slot"));
  py::class_<CudaGraphExecutor, Executor, std::shared_ptr<CudaGraphExecutor>>(module, "CudaGraphExecutor")
      .def(py::init([](py::object owner, const std::string& driver, int device, uintptr_t executable, uintptr_t stream,
                       const std::vector<uintptr_t>& frames, uintptr_t state, uintptr_t action,
                       const std::vector<int64_t>& frame_bytes, int64_t num_observations, int64_t num_state,
                       int64_t num_actions, int64_t num_axes) {
             CudaGraphExecutor::Buffers buffers{
                 {}, reinterpret_cast<float*>(state), reinterpret_cast<const float*>(action)};
             for (const uintptr_t each : frames) buffers.frames.push_back(reinterpret_cast<uint8_t*>(each));
             return std::make_shared<CudaGraphExecutor>(
                 shared_object(std::move(owner)), driver, CudaGraphExecutor::Graph{device, executable, stream}, buffers,
                 PolicySizes{frame_bytes, num_observations, num_state, num_actions, num_axes});
           }),
           py::arg("owner"), py::arg("driver"), py::arg("device"), py::arg("executable"), py::arg("stream"),
           py::arg("frames"), py::arg("state"), py::arg("action"), py::arg("frame_bytes"), py::arg("num_observations"),
           py::arg("num_state"), py::arg("num_actions"), py::arg("num_axes"));
  py::class_<Arm, std::shared_ptr<Arm>>(module, "Arm");
  py::class_<PythonArm, Arm, std::shared_ptr<PythonArm>>(module, "PythonArm")
      .def(py::init<py::object, int64_t>(), py::arg("arm"), py::arg("num_axes"));
  py::class_<ControlLoop, std::shared_ptr<ControlLoop>> loop(module, "ControlLoop");
  loop.def(py::init([](const py::object& config, const py::object& limits, ControlLoop::Mailboxes cameras,
                       std::shared_ptr<Mailbox> states, std::shared_ptr<Executor> executor, std::shared_ptr<Arm> arm) {
             return ControlLoop::create(config_of(config), limits_of(limits), std::move(cameras), std::move(states),
                                        std::move(executor), std::move(arm));
           }),
           py::arg("config"), py::arg("limits"), py::arg("cameras"), py::arg("states"), py::arg("executor"),
           py::arg("arm"))
      .def("warm_up", &ControlLoop::warm_up, py::arg("num_runs"), py::call_guard<py::gil_scoped_release>())
      .def("start", &ControlLoop::start, py::call_guard<py::gil_scoped_release>())
      .def("request_stop", &ControlLoop::request_stop, py::arg("reason"), py::arg("message"),
           py::call_guard<py::gil_scoped_release>())
      .def("wait", &ControlLoop::wait, py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>())
      .def("drain", &drain, py::arg("max_records"))
      .def(
          "recorded_frame",
          [](const ControlLoop& self, int32_t slot, int64_t camera) {
            const uint8_t* frame = self.recorded_frame(slot, camera);
            return py::array_t<uint8_t>(self.frame_bytes(camera), frame);
          },
          py::arg("slot"), py::arg("camera"))
      .def("release_frame", &ControlLoop::release_frame, py::arg("slot"))
      .def("legs",
           [](const ControlLoop& self) {
             py::dict legs;
             const char* names[] = {"jitter",   "frame_age", "frame_wait",        "policy",
                                    "overhead", "send",      "capture_to_command"};
             for (int leg = 0; leg < ControlLoop::kNumLegs; ++leg) legs[names[leg]] = histogram(self.leg(leg));
             return legs;
           })
      .def_property_readonly("running", &ControlLoop::running)
      .def_property_readonly("stop_reason", &ControlLoop::stop_reason)
      .def_property_readonly("message", &ControlLoop::message)
      .def_property_readonly("arm_answered_stop", &ControlLoop::arm_answered_stop)
      .def_property_readonly("notes", &ControlLoop::notes)
      .def_property_readonly("num_steps", &ControlLoop::num_steps)
      .def_property_readonly("num_missed", &ControlLoop::num_missed)
      .def_property_readonly("num_held", &ControlLoop::num_held)
      .def_property_readonly("num_unrecorded", &ControlLoop::num_unrecorded);
}

}  // namespace ptr_fast
