// y = max_pool(relu(group_norm(x) * weight + bias)) on channels_last float32, 3x3 windows of stride 2 with SAME
// padding, and its gradients.
#pragma once
#include "kernels/group_norm_act.h"

namespace ptr_fast {

// H x W pixels become ceil(H / 2) x ceil(W / 2); an even axis is padded by (0, 1), an odd one by (1, 1).
struct PoolSize {
  int64_t H, W, C;
  int64_t out_height() const { return (H + 1) / 2; }
  int64_t out_width() const { return (W + 1) / 2; }
};

// Like y in shape: picked is the x that a maximum came from, index its place 0..8 in the window, row by row (the first
// of equal maxima), or 9 where y is not positive and no gradient passes. Forward: both or neither may be null.
struct GroupNormActPool {
  GroupNormShape shape;  // of x
  PoolSize size;
  GroupNorm norm;
  float *y, *picked;
  uint8_t* index;
  const float* dy;
  double eps;
};

// Both give the same bits for any num_threads.
void group_norm_act_pool_forward(const GroupNormActPool& op, int num_threads);
void group_norm_act_pool_backward(const GroupNormActPool& op, int num_threads);

}  // namespace ptr_fast
