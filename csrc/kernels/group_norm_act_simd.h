// The inner loops of group_norm_act over one sample: a dense matrix of `rows` x `cols` floats. Compiled once per
// instruction set. Sums over many rows are kept in double; at most kChunkRows rows are added up in float.
#pragma once
#include <cstdint>

namespace ptr_fast {

// Where the activation lets a gradient pass: y > 0 where y is set, else x * scale + shift > 0 where scale is set, else
// everywhere. y is a matrix like x; scale and shift have one value per column.
struct GroupNormActMask {
  const float *y = nullptr, *scale = nullptr, *shift = nullptr;
};

struct GroupNormActLoops {
  // sum[c] += sum of x[:, c]; sum_squares[c] += sum of x[:, c]^2
  void (*moments)(const float* x, int64_t rows, int64_t cols, double* sum, double* sum_squares);

  // y = act(x * scale + shift + residual); residual may be null
  void (*apply)(const float* x, const float* residual, const float* scale, const float* shift, int64_t rows,
                int64_t cols, bool relu, float* y);

  // dz = mask(dy); sum_dz[c] += sum of dz; sum_dz_x[c] += sum of dz * (x - center)
  void (*gradient_sums)(const float* dy, const GroupNormActMask& mask, const float* x, const float* center,
                        int64_t rows, int64_t cols, double* sum_dz, double* sum_dz_x);

  // dz = mask(dy), stored where dz_out is not null; dx = dz * a - (x * b + c)
  void (*gradient_apply)(const float* dy, const GroupNormActMask& mask, const float* x, const float* a, const float* b,
                         const float* c, int64_t rows, int64_t cols, float* dx, float* dz_out);
};

extern const GroupNormActLoops group_norm_act_loops_baseline;
extern const GroupNormActLoops group_norm_act_loops_avx2;
extern const GroupNormActLoops group_norm_act_loops_avx512;

}  // namespace ptr_fast
