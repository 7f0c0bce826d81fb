// cql_head on CUDA GPUs: launches what cql_head_launch.h asks for.
#include "core/launch.cuh"
#include "kernels/cql_head_launch.h"

namespace ptr_fast {

int64_t cql_head_packed_words(const CqlHeadCudaCall& call) { return cql_head_plan(call).words; }

void cql_head_forward_cuda(const CqlHeadCudaForward& op, int64_t stream) {
  cql_head_forward_on(op, [&](const auto& kernel, Index3 grid) { launch(kernel, grid, stream); });
}

void cql_head_backward_cuda(const CqlHeadCudaBackward& op, int64_t stream) {
  cql_head_backward_on(op, [&](const auto& kernel, Index3 grid) { launch(kernel, grid, stream); });
}

}  // namespace ptr_fast
