// Adam and the average of the weights, one pass over many tensors: see ptr_fast/kernels/adam_polyak.
#pragma once
#include <cstdint>

namespace ptr_fast {

// Addresses of N tensors of float32, as integers; each has sizes[i] elements, dense, all in the same order.
struct AdamPolyak {
  int64_t num_tensors;
  const int64_t *parameters, *gradients, *exp_avgs, *exp_avg_sqs;  // gradients[i] == 0: the average alone
  const int64_t* averages;                                         // 0: no average
  const int64_t* sizes;
  float* steps;  // updates done so far, per tensor; counted up where there is a gradient
  double lr, beta1, beta2, eps, tau;
  double weight_decay;   // parameters shrink by lr * weight_decay before the step, where there is a gradient
  double max_grad_norm;  // 0: gradients are taken as they are
};

void adam_polyak(const AdamPolyak& op, int num_threads);

}  // namespace ptr_fast
