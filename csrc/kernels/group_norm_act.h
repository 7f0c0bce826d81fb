// y = act(group_norm(x) * weight + bias + residual) on channels_last float32, and its gradients. The residual may get a
// group norm of its own before the sum.
#pragma once
#include <cstdint>

namespace ptr_fast {

// B samples of P pixels of C channels in G groups; memory [B, P, C].
struct GroupNormShape {
  int64_t B, P, C, G;
};

// What one group norm is made of. mean and rstd, [B, G], are written by the forward pass and read by the backward pass;
// dx, dweight and dbias are written by the backward pass.
struct GroupNorm {
  const float *x, *weight, *bias;
  float *mean, *rstd;
  float *dx, *dweight, *dbias;
};

// residual is null, or added as it is. shortcut.x is null, or a residual that is normalised first. positive is null, or
// takes one bit per element, set where y > 0, in the order of memory; C must then be a multiple of 16.
struct GroupNormActForward {
  GroupNormShape shape;
  GroupNorm norm, shortcut;
  const float* residual;
  float* y;
  uint8_t* positive;
  double eps;
  bool relu;
};

// Where there is an activation, its mask is `positive`, or y > 0 where y is set, or else recomputed from x (no residual
// of any kind). dresidual takes the gradient of a plain residual; null: not wanted, or equal to dy (no activation).
struct GroupNormActBackward {
  GroupNormShape shape;
  GroupNorm norm, shortcut;
  const float *dy, *y;
  const uint8_t* positive;
  float* dresidual;
  bool relu;
};

// Both give the same bits for any num_threads.
void group_norm_act_forward(const GroupNormActForward& op, int num_threads);
void group_norm_act_backward(const GroupNormActBackward& op, int num_threads);

}  // namespace ptr_fast
