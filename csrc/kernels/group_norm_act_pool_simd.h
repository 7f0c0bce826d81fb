// The inner loops of group_norm_act_pool over some rows of one sample, compiled once per instruction set. Pointers are
// to the sample's start; every row, window and index is as group_norm_act_pool.h says.
#pragma once
#include "kernels/group_norm_act_pool.h"
#include "kernels/group_norm_act_simd.h"

namespace ptr_fast {

struct GroupNormActPoolLoops {
  // Rows [first, end) of y = max over the window of relu(x * scale + shift); picked and index both or neither.
  void (*apply)(const PoolSize& size, int64_t first, int64_t end, const float* x, const float* scale,
                const float* shift, float* y, float* picked, uint8_t* index);

  // Rows [first, end) of norm.dx = dz * a - (norm.x * b + c), dz the sum of dy over the windows that picked the pixel.
  void (*gradient_apply)(const PoolSize& size, int64_t first, int64_t end, const float* dy, const uint8_t* index,
                         const GroupNormGradientApply& norm);
};

extern const GroupNormActPoolLoops group_norm_act_pool_loops_baseline;
extern const GroupNormActPoolLoops group_norm_act_pool_loops_avx2;
extern const GroupNormActPoolLoops group_norm_act_pool_loops_avx512;

}  // namespace ptr_fast
