#include "runtime/openvino_executor.h"

#include <dlfcn.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <stdexcept>

#include "core/check.h"

namespace ptr_fast {
namespace {

// Opaque to us: ov_core_t, ov_model_t, ov_compiled_model_t, ov_infer_request_t, ov_tensor_t. Status 0 is success.
using Handle = void*;
using Status = int;

constexpr int kMaxProperties = 8;

struct Api {
  Status (*core_create)(Handle* core);
  Status (*read_model)(Handle core, const char* text, size_t size, Handle weights, Handle* model);
  Status (*compile_model)(Handle core, Handle model, const char* device, size_t num_arguments, Handle* compiled, ...);
  Status (*create_request)(Handle compiled, Handle* request);
  Status (*get_tensor)(Handle request, const char* name, Handle* tensor);
  Status (*infer)(Handle request);
  Status (*tensor_data)(Handle tensor, void** data);
  Status (*tensor_bytes)(Handle tensor, size_t* bytes);
  const char* (*last_error)();
  void (*core_free)(Handle);
  void (*model_free)(Handle);
  void (*compiled_free)(Handle);
  void (*request_free)(Handle);
  void (*tensor_free)(Handle);
};

template <typename Function>
void find(void* library, const char* name, Function* function) {
  void* symbol = dlsym(library, name);
  if (symbol == nullptr) throw std::runtime_error(text("OpenVINO's C library has no function ", name));
  *function = reinterpret_cast<Function>(symbol);
}

// The library stays open: its threads outlive any session.
Api open_api(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    throw std::runtime_error(text("OpenVINO's C library cannot be opened: ", why != nullptr ? why : path.c_str()));
  }
  Api api{};
  find(library, "ov_core_create", &api.core_create);
  find(library, "ov_core_read_model_from_memory_buffer", &api.read_model);
  find(library, "ov_core_compile_model", &api.compile_model);
  find(library, "ov_compiled_model_create_infer_request", &api.create_request);
  find(library, "ov_infer_request_get_tensor", &api.get_tensor);
  find(library, "ov_infer_request_infer", &api.infer);
  find(library, "ov_tensor_data", &api.tensor_data);
  find(library, "ov_tensor_get_byte_size", &api.tensor_bytes);
  find(library, "ov_get_last_err_msg", &api.last_error);
  find(library, "ov_core_free", &api.core_free);
  find(library, "ov_model_free", &api.model_free);
  find(library, "ov_compiled_model_free", &api.compiled_free);
  find(library, "ov_infer_request_free", &api.request_free);
  find(library, "ov_tensor_free", &api.tensor_free);
  return api;
}

}  // namespace

struct OpenVinoExecutor::Session {
  explicit Session(const std::string& library) : api(open_api(library)) {}
  ~Session() {
    for (Handle tensor : {state, task, action}) {
      if (tensor != nullptr) api.tensor_free(tensor);
    }
    for (Handle tensor : frames) api.tensor_free(tensor);
    if (request != nullptr) api.request_free(request);
    if (compiled != nullptr) api.compiled_free(compiled);
    if (model != nullptr) api.model_free(model);
    if (core != nullptr) api.core_free(core);
  }

  void require(Status status, const char* what) const {
    if (status == 0) return;
    const char* why = api.last_error();
    throw std::runtime_error(text("OpenVINO: ", what, " failed (", status, "): ", why != nullptr ? why : ""));
  }

  Handle tensor(const char* name, int64_t num_bytes) const {
    Handle out = nullptr;
    require(api.get_tensor(request, name, &out), name);
    size_t bytes = 0;
    const Status status = api.tensor_bytes(out, &bytes);
    if (status != 0 || static_cast<int64_t>(bytes) != num_bytes) {
      api.tensor_free(out);
      check(false, "model: expected ", num_bytes, " bytes of ", name, ", got ", bytes);
    }
    return out;
  }

  void* data(Handle of, const char* name) const {
    void* out = nullptr;
    require(api.tensor_data(of, &out), name);
    return out;
  }

  Api api;
  Handle core = nullptr, model = nullptr, compiled = nullptr, request = nullptr;
  Handle state = nullptr, task = nullptr, action = nullptr;
  std::vector<Handle> frames;  // of each camera
};

namespace {

PolicySizes sizes_of(const std::vector<OpenVinoExecutor::Camera>& cameras, OpenVinoExecutor::Shape shape) {
  PolicySizes sizes{{}, shape.num_observations, shape.num_state, shape.num_actions, shape.num_axes};
  for (const auto& camera : cameras) sizes.frame_bytes.push_back(camera.camera.bytes());
  return sizes;
}

}  // namespace

OpenVinoExecutor::OpenVinoExecutor(const std::string& library, const std::string& model,
                                   const std::vector<std::string>& properties, const std::vector<Camera>& cameras,
                                   Shape shape, int64_t task_slot)
    : Executor(sizes_of(cameras, shape)), cameras_(cameras) {
  check(properties.size() % 2 == 0 && properties.size() <= 2 * kMaxProperties, "properties: expected at most ",
        kMaxProperties, " pairs, got ", properties.size(), " strings");
  for (const Camera& each : cameras_) {
    auto& resize = resizes_.emplace_back();
    if (each.camera == each.model) continue;
    resize.emplace(each.camera.height, each.camera.width, each.model.height, each.model.width);
  }
  session_ = std::make_unique<Session>(library);
  Session& s = *session_;
  s.require(s.api.core_create(&s.core), "creating a core");
  s.require(s.api.read_model(s.core, model.data(), model.size(), nullptr, &s.model), "reading the model");
  std::array<const char*, 2 * kMaxProperties> p{};  // only the first properties.size() of them are read
  for (size_t i = 0; i < properties.size(); ++i) p[i] = properties[i].c_str();
  s.require(s.api.compile_model(s.core, s.model, "CPU", properties.size(), &s.compiled, p[0], p[1], p[2], p[3], p[4],
                                p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15]),
            "compiling the model");
  s.require(s.api.create_request(s.compiled, &s.request), "creating a request");
  for (const Camera& each : cameras_) {
    s.frames.push_back(s.tensor(each.input.c_str(), shape.num_observations * each.model.bytes()));
  }
  s.state = s.tensor("state", int64_t(sizeof(float)) * shape.num_observations * shape.num_state);
  s.action = s.tensor("action", int64_t(sizeof(float)) * shape.num_actions * shape.num_axes);
  Handle task = nullptr;
  if (s.api.get_tensor(s.request, "task_id", &task) == 0) {  // absent where the task is fixed
    s.api.tensor_free(task);
    s.task = s.tensor("task_id", sizeof(task_slot));
    std::memcpy(s.data(s.task, "task_id"), &task_slot, sizeof(task_slot));
  }
}

OpenVinoExecutor::~OpenVinoExecutor() = default;

int OpenVinoExecutor::run(const ObservationView& observations, float* chunk) {
  const Session& s = *session_;
  const PolicySizes& n = sizes();
  for (size_t i = 0; i < cameras_.size(); ++i) {
    auto* const frames = static_cast<uint8_t*>(s.data(s.frames[i], cameras_[i].input.c_str()));
    if (resizes_[i]) {
      resizes_[i]->run(observations.frames[i], n.num_observations, frames);
    } else {
      std::memcpy(frames, observations.frames[i], n.num_observations * n.frame_bytes[i]);
    }
  }
  std::memcpy(s.data(s.state, "state"), observations.state, sizeof(float) * n.num_observations * n.num_state);
  s.require(s.api.infer(s.request), "inference");
  std::memcpy(chunk, s.data(s.action, "action"), sizeof(float) * n.num_actions * n.num_axes);
  return int(n.num_actions);
}

}  // namespace ptr_fast
