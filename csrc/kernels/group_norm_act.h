// y = act(group_norm(x) * weight + bias + residual) on channels_last float32, and its gradients.
#pragma once
#include <cstdint>

namespace ptr_fast {

// B samples of P pixels of C channels in G groups; memory [B, P, C].
struct GroupNormShape {
  int64_t B, P, C, G;
};

// residual may be null. mean and rstd, [B, G], are kept for the backward pass.
struct GroupNormActForward {
  GroupNormShape shape;
  const float *x, *weight, *bias, *residual;
  float *y, *mean, *rstd;
  double eps;
  bool relu;
};

// y is the forward's output where it had a residual and an activation, else null: the mask of the activation is then
// recomputed from x. dresidual may be null: not wanted, or equal to dy (no activation). dweight and dbias are [C].
struct GroupNormActBackward {
  GroupNormShape shape;
  const float *dy, *x, *y, *weight, *bias, *mean, *rstd;
  float *dx, *dweight, *dbias, *dresidual;
  bool relu;
};

// Both give the same bits for any num_threads.
void group_norm_act_forward(const GroupNormActForward& op, int num_threads);
void group_norm_act_backward(const GroupNormActBackward& op, int num_threads);

}  // namespace ptr_fast
