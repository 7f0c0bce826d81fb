// The inner loops of adam_polyak over a run of n floats of one tensor. Compiled once per instruction set.
#pragma once
#include <cstdint>

namespace ptr_fast {

// p: parameter, m: exp_avg, v: exp_avg_sq, g: gradient, average: null where there is none.
struct AdamPolyakRun {
  float* p;
  const float* g;
  float* m;
  float* v;
  float* average;
  int64_t n;
  float one_minus_beta1, beta2, one_minus_beta2;
  float step_size, eps;  // p -= step_size * m / (sqrt(v) + eps): the corrections of the bias are in both
  float tau;
  bool is_regularised;          // whether the next two count
  float gradient_scale, decay;  // g <- g * gradient_scale, p <- p * decay, before all else
};

struct AdamPolyakLoops {
  // m, v, p, then average <- average + tau * (p - average)
  void (*update)(const AdamPolyakRun& run);

  // average alone
  void (*average)(const AdamPolyakRun& run);

  // Sum of squares of n floats, in float64 and in an order that is the same for every instruction set.
  double (*sum_of_squares)(const float* g, int64_t n);
};

extern const AdamPolyakLoops adam_polyak_loops_baseline;
extern const AdamPolyakLoops adam_polyak_loops_avx2;
extern const AdamPolyakLoops adam_polyak_loops_avx512;

}  // namespace ptr_fast
