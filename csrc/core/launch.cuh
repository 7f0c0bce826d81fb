// Starts a kernel that is written on a Block (core/block.h).
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>

#include "core/block.h"
#include "core/check.h"

namespace ptr_fast {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(text(what, ": ", cudaGetErrorString(error)));
}

template <class Kernel, class = void>
struct MinBlocks {
  static constexpr int value = 1;
};
template <class Kernel>
struct MinBlocks<Kernel, std::void_t<decltype(Kernel::kMinBlocks)>> {
  static constexpr int value = Kernel::kMinBlocks;
};

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, MinBlocks<Kernel>::value)
    on_grid(const __grid_constant__ Kernel kernel) {
  DeviceBlock<Kernel::kThreads> block;
  kernel.run(block);
}

// Blocks ``grid`` on ``stream`` (cudaStream_t as an integer), ``cluster`` of them along x together.
//
// Throws std::invalid_argument where the grid is not made of whole clusters, std::runtime_error with CUDA's message
// where the launch fails (a cluster on a GPU before compute capability 9.0, too much shared memory, no GPU).
template <class Kernel>
void launch(const Kernel& kernel, Index3 grid, int64_t stream, int cluster = 1) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  check(grid.x % cluster == 0, "launch: expected whole clusters of ", cluster, ", got ", grid.x, " blocks");
  const int64_t shared_bytes = kernel.shared_bytes();
  // More than 48 KB of a block must be asked for, and its static shared memory (barriers, parts of sums) counts too.
  if (shared_bytes > 47 * 1024) {
    check_cuda(cudaFuncSetAttribute(on_grid<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
               "shared memory of a kernel");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid.x, grid.y, grid.z);
  config.blockDim = dim3(Kernel::kThreads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = reinterpret_cast<cudaStream_t>(stream);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {unsigned(cluster), 1, 1};
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, on_grid<Kernel>, kernel), "launch of a kernel");
}

}  // namespace ptr_fast
