// Whether this build has the CUDA kernels. Included by csrc/bindings/*_cuda.cpp and csrc/runtime/cuda_*.cpp alone: only
// they are told (CMakeLists.txt), so that everything else is the same object with and without CUDA.
//
//   void forward(...) {
//     check_cuda_built();
//     if constexpr (kCudaBuilt) group_norm_act_forward(...);  // declared in kernels/group_norm_act_cuda.h
//   }
#pragma once
#include <stdexcept>

namespace ptr_fast {
namespace {

#ifdef PTR_FAST_CUDA
constexpr bool kCudaBuilt = true;
#else
constexpr bool kCudaBuilt = false;
#endif

// std::runtime_error where the module was built without CUDA.
[[maybe_unused]] void check_cuda_built() {
  if (!kCudaBuilt) throw std::runtime_error("ptr_fast._native was built without CUDA; `ptr-fast info` says why");
}

}  // namespace
}  // namespace ptr_fast
