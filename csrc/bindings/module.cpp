#include <string>

#include "bindings/bindings.h"
#include "build_info.h"
#include "core/isa.h"
#include "core/parallel.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace ptr_fast {

extern const char* const kCudaKernels;  // written by csrc/cuda_compiler.py

namespace {

py::dict build_info() {
  py::dict info;
  info["compiler"] = PTR_FAST_COMPILER;
  info["flags"] = PTR_FAST_FLAGS;
  info["isas"] = PTR_FAST_ISAS;
  info["isa"] = isa_name();
  info["cuda"] = PTR_FAST_CUDA_STATE;
  info["cuda_architectures"] = PTR_FAST_CUDA_ARCHITECTURES;
  info["cuda_kernels"] = kCudaKernels;
  return info;
}

// glibc maps every large block anew and gives it back when it is freed, so each activation of a net is paid for in page
// faults, step after step. With both thresholds out of the way the freed block is simply used again.
bool keep_freed_memory() {
#if defined(__GLIBC__)
  constexpr int kLargest = 1 << 30;
  return mallopt(M_MMAP_THRESHOLD, kLargest) == 1 && mallopt(M_TRIM_THRESHOLD, 2147483647) == 1;
#else
  return false;
#endif
}

}  // namespace
}  // namespace ptr_fast

PYBIND11_MODULE(_native, module) {
  using namespace ptr_fast;
  module.doc() = "The native floor of ptr_fast; imported by ptr_fast.native alone.";
  module.attr("interface") = 9;  // changes whenever a signature does; ptr_fast.native compares it with its own
  module.def("build_info", &build_info);
  module.def("set_isa", &set_isa, py::arg("name"));
  module.def("isa_name", &isa_name);
  module.def("pool_size", &pool_size);
  module.def("keep_freed_memory", &keep_freed_memory);
  bind_augment(module);
  bind_group_norm_act(module);
  bind_group_norm_act_cuda(module);
  bind_adam_polyak(module);
  bind_counter_random(module);
  bind_cql_head(module);
  bind_cql_head_cuda(module);
  bind_resize(module);
  bind_spatial_embedding(module);
  bind_data(module);
  bind_jpeg_frames(module);
  bind_jpeg_frames_cuda(module);
  bind_runtime(module);
}
