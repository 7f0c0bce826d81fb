// The inner loops of group_norm_act over a dense matrix of `rows` x `cols` floats: a sample or a part of it. Compiled
// once per instruction set. Sums over many rows are kept in double; at most kChunkRows rows are added up in float.
#pragma once
#include <cstdint>

namespace ptr_fast {

struct GroupNormMatrix {
  int64_t rows, cols;
  int64_t ahead;  // elements from here to what will be read next: fetched while this is written; 0: nothing
};

// Where the activation lets a gradient pass: where its bit of `positive` is set, or where y > 0, or where
// x * scale + shift > 0; whichever is set, else everywhere. scale and shift have one value per column.
struct GroupNormActMask {
  const uint8_t* positive = nullptr;
  const float *y = nullptr, *scale = nullptr, *shift = nullptr;
};

// y = act(x * scale + shift + residual * residual_scale); residual or residual_scale (then 1) may be null; positive:
// null, or takes the bits of y > 0.
struct GroupNormApply {
  const float *x, *scale, *shift, *residual, *residual_scale;
  float* y;
  uint8_t* positive;
  bool relu;
};

// Of x, and of the shortcut where its x is set: sum_dz_x[c] += sum of dz * (x - center), with dz = mask(dy).
struct GroupNormGradientSums {
  const float *x, *center;
  double* sum_dz_x;
};

// Of x, and of the shortcut where its x is set: dx = dz * a - (x * b + c), with dz = mask(dy).
struct GroupNormGradientApply {
  const float *x, *a, *b, *c;
  float* dx;
};

struct GroupNormActLoops {
  // sum[c] += sum of x[:, c]; sum_squares[c] += sum of x[:, c]^2. beside: null, or a matrix like x that is not needed
  // yet, but will be: fetched meanwhile.
  void (*moments)(const GroupNormMatrix& size, const float* x, const float* beside, double* sum, double* sum_squares);

  void (*apply)(const GroupNormMatrix& size, const GroupNormApply& op);

  // also sum_dz[c] += sum of dz
  void (*gradient_sums)(const GroupNormMatrix& size, const float* dy, const GroupNormActMask& mask,
                        const GroupNormGradientSums& norm, const GroupNormGradientSums& shortcut, double* sum_dz);

  // also dz_out = dz, where it is not null
  void (*gradient_apply)(const GroupNormMatrix& size, const float* dy, const GroupNormActMask& mask,
                         const GroupNormGradientApply& norm, const GroupNormGradientApply& shortcut, float* dz_out);
};

extern const GroupNormActLoops group_norm_act_loops_baseline;
extern const GroupNormActLoops group_norm_act_loops_avx2;
extern const GroupNormActLoops group_norm_act_loops_avx512;

}  // namespace ptr_fast
