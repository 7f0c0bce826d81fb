// The inner loops of cql_head: products of small matrices whose operands stay in the first two caches. Compiled once
// per instruction set. Column counts are multiples of `panel`, buffers are padded with zeros.
#pragma once
#include <cstdint>

namespace ptr_fast {

// out[r, :] = finish(init[r] + a1[r, :] @ w1 + a2[r, :] @ w2), with packed w1 [k1, cols] and w2 [k2, cols].
// finish: zero where mask[r, :] <= 0 if there is a mask, ReLU if wanted, else nothing.
struct CqlHeadProduct {
  int64_t rows, cols;
  const float* const* init;  // a pointer per row; null for 0
  const float *a1, *w1;
  int64_t lda1, k1;
  const float *a2, *w2;
  int64_t lda2, k2;
  const float* mask;
  int64_t ld_mask;
  bool relu;
  float* out;
  int64_t ld_out;
};

// c[i, :] += sum over r of x[r, i] * y[r, :], for num_x columns of x
struct CqlHeadOuter {
  int64_t rows, num_x, cols;
  const float *x, *y;
  int64_t ldx, ldy;
  float* c;
  int64_t ldc;
};

struct CqlHeadLoops {
  int64_t panel;

  // Columns [0, cols) of a [k, cols] matrix (element (i, j) at i * row_stride + j * col_stride) as panels [k, panel];
  // columns beyond cols are zeros.
  void (*pack)(const float* w, int64_t k, int64_t cols, int64_t row_stride, int64_t col_stride, float* packed);

  void (*product)(const CqlHeadProduct& op);
  void (*outer)(const CqlHeadOuter& op);

  // out[r] = sum of h[r, :] * w
  void (*dot)(const float* h, int64_t ld, int64_t rows, int64_t cols, const float* w, float* out);

  // d[r, :] = h[r, :] > 0 ? dq[r] * w : 0;  dw += sum over r of dq[r] * h[r, :], where dw is not null
  void (*dot_backward)(const float* h, int64_t ld, int64_t rows, int64_t cols, const float* w, const float* dq,
                       float* d, float* dw);

  // out += sum over r of d[r, :]
  void (*sum_rows)(const float* d, int64_t ld, int64_t rows, int64_t cols, float* out);
};

extern const CqlHeadLoops cql_head_loops_baseline;
extern const CqlHeadLoops cql_head_loops_avx2;
extern const CqlHeadLoops cql_head_loops_avx512;

}  // namespace ptr_fast
