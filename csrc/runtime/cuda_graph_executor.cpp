#include "runtime/cuda_graph_executor.h"

#include <dlfcn.h>

#include <cstring>
#include <stdexcept>
#include <utility>

#include "core/check.h"

namespace ptr_fast {

// Handles are opaque to us (CUcontext, CUgraphExec, CUstream); a CUdevice is an int; status 0 is success.
struct CudaGraphExecutor::Driver {
  using Status = int;

  Driver(const std::string& path, int device_index) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays open, as PyTorch's own does
    if (library == nullptr) {
      const char* why = dlerror();
      throw std::runtime_error(text("CUDA's driver cannot be opened: ", why != nullptr ? why : path.c_str()));
    }
    find(library, "cuInit", &init);
    find(library, "cuDeviceGet", &device_get);
    find(library, "cuDevicePrimaryCtxRetain", &context_retain);
    find(library, "cuDevicePrimaryCtxRelease_v2", &context_release);
    find(library, "cuCtxSetCurrent", &context_set);
    find(library, "cuGraphLaunch", &graph_launch);
    find(library, "cuStreamSynchronize", &stream_synchronize);
    find(library, "cuGetErrorString", &error_string);
    require(init(0), "beginning");
    require(device_get(&device, device_index), "finding the device");
    require(context_retain(&context, device), "taking the device");
  }
  ~Driver() {
    if (context != nullptr) context_release(device);
  }

  template <typename Function>
  static void find(void* library, const char* name, Function* function) {
    void* symbol = dlsym(library, name);
    if (symbol == nullptr) throw std::runtime_error(text("CUDA's driver has no function ", name));
    *function = reinterpret_cast<Function>(symbol);
  }

  void require(Status status, const char* what) const {
    if (status == 0) return;
    const char* why = nullptr;
    error_string(status, &why);
    throw std::runtime_error(text("CUDA: ", what, " failed (", status, "): ", why != nullptr ? why : "unknown error"));
  }

  Status (*init)(unsigned flags);
  Status (*device_get)(int* device, int index);
  Status (*context_retain)(void** context, int device);
  Status (*context_release)(int device);
  Status (*context_set)(void* context);
  Status (*graph_launch)(void* executable, void* stream);
  Status (*stream_synchronize)(void* stream);
  Status (*error_string)(Status status, const char** text);
  int device = 0;
  void* context = nullptr;  // the one that PyTorch uses too
};

CudaGraphExecutor::CudaGraphExecutor(std::shared_ptr<void> owner, const std::string& driver, const Graph& graph,
                                     const Buffers& buffers, PolicySizes sizes)
    : Executor(std::move(sizes)), owner_(std::move(owner)), graph_(graph), buffers_(buffers) {
  check(buffers_.frames.size() == this->sizes().frame_bytes.size(), "graph: expected frames of ",
        this->sizes().frame_bytes.size(), " cameras, got ", buffers_.frames.size());
  check(graph_.executable != 0, "graph: expected the handle of an executable graph, got 0");
  driver_ = std::make_unique<Driver>(driver, graph_.device);
}

CudaGraphExecutor::~CudaGraphExecutor() = default;

int CudaGraphExecutor::run(const ObservationView& observations, float* chunk) {
  const PolicySizes& n = sizes();
  for (size_t i = 0; i < buffers_.frames.size(); ++i) {
    std::memcpy(buffers_.frames[i], observations.frames[i], n.num_observations * n.frame_bytes[i]);
  }
  std::memcpy(buffers_.state, observations.state, sizeof(float) * n.num_observations * n.num_state);
  auto* const stream = reinterpret_cast<void*>(graph_.stream);
  // A thread of the loop has no context of its own accord, and the one that is current costs nothing to set.
  driver_->require(driver_->context_set(driver_->context), "using the device");
  driver_->require(driver_->graph_launch(reinterpret_cast<void*>(graph_.executable), stream), "launching the graph");
  driver_->require(driver_->stream_synchronize(stream), "acting");
  std::memcpy(chunk, buffers_.action, sizeof(float) * n.num_actions * n.num_axes);
  return int(n.num_actions);
}

}  // namespace ptr_fast
