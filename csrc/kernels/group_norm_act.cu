#include "core/launch.cuh"
#include "kernels/group_norm_act_launch.h"

namespace ptr_fast {

void group_norm_act_cuda(const GroupNormActCudaForward& op, int64_t stream) {
  with_kernel(op, [&](const auto& kernel, Index3 grid, int cluster) { launch(kernel, grid, stream, cluster); });
}

void group_norm_act_cuda(const GroupNormActCudaBackward& op, int64_t stream) {
  with_kernel(op, [&](const auto& kernel, Index3 grid, int cluster) { launch(kernel, grid, stream, cluster); });
}

}  // namespace ptr_fast
