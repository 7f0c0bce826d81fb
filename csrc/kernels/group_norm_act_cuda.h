// group_norm_act and group_norm_act_pool on CUDA GPUs (csrc/kernels/group_norm_act.cu, group_norm_act_pool.cu).
//
// Pointers are of the device. Images are [images, height, width, channels], dense, of bfloat16 or float32, and begin at
// multiples of 16 bytes; what is kept of the forward pass is described in the kernels' headers (*_block.h).
#pragma once
#include <cstdint>

namespace ptr_fast {

// What ptr_fast/kernels/group_norm_act/blocks.py chooses, and the shape it chose it for.
struct GroupNormCudaShape {
  bool bfloat16;
  int64_t images, height, width, channels, groups;
  int64_t block_channels, block_pixels, cluster;
};

struct GroupNormActCudaForward {
  GroupNormCudaShape shape;
  const void *x, *residual;                                      // residual: null where there is none
  const float *weight, *bias, *residual_weight, *residual_bias;  // the latter null without a norm of its own
  void* y;
  float* moments;
  uint8_t* positive;  // null where nobody wants it
  float eps;
  bool relu;
};

struct GroupNormActCudaBackward {
  GroupNormCudaShape shape;
  bool added;                     // the forward pass had a residual
  const void *dy, *x, *residual;  // residual: null without a norm of its own
  const float *weight, *bias, *residual_weight, *moments;
  const uint8_t* positive;  // with ReLU and residual
  void *dx, *dresidual;     // dresidual: with ReLU and residual, or with a norm of its own
  float* partial;
  bool relu;
};

struct GroupNormActPoolCudaForward {
  GroupNormCudaShape shape;
  const void* x;
  const float *weight, *bias;
  void* y;
  uint32_t* taps;  // null where nobody wants them
  float* moments;
  float eps;
};

struct GroupNormActPoolCudaBackward {
  GroupNormCudaShape shape;
  const void *dy, *x;
  const uint32_t* taps;
  const float *weight, *moments;
  void* dx;
  float* partial;
};

// Throw std::invalid_argument for a shape or an address that the kernels do not take, std::runtime_error where a launch
// fails. ``stream``: cudaStream_t.
void group_norm_act_cuda(const GroupNormActCudaForward& op, int64_t stream);
void group_norm_act_cuda(const GroupNormActCudaBackward& op, int64_t stream);
void group_norm_act_cuda(const GroupNormActPoolCudaForward& op, int64_t stream);
void group_norm_act_cuda(const GroupNormActPoolCudaBackward& op, int64_t stream);

}  // namespace ptr_fast
