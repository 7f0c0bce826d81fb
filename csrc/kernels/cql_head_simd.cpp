#include "kernels/cql_head_simd.h"

#include "core/simd.h"

namespace {

using ptr_fast::CqlHeadOuter;
using ptr_fast::CqlHeadProduct;

// A block of the result that fits the registers: kRows x 2 vectors, 24 of the 32 registers of AVX-512, 12 of 16 else.
constexpr int kRows = kLanes == 16 ? 12 : 6;
constexpr int64 kPanel = 2 * kLanes;

// Calls f<N>() for N = n, where n <= M.
template <int M, class F>
inline void with_constant(int64 n, const F& f) {
  if constexpr (M > 0) {
    if (n == M) {
      f.template operator()<M>();
    } else {
      with_constant<M - 1>(n, f);
    }
  }
}

template <int M>
inline void accumulate(Vec (&acc)[M][2], const float* a, int64 lda, int64 k, const float* w) {
  // Rows are addressed in fours, so that few registers hold all addresses.
  const float* p[(M + 3) / 4];
  for (int g = 0; g < (M + 3) / 4; ++g) p[g] = a + 4 * g * lda;
  for (int64 i = 0; i < k; ++i, w += kPanel) {
    const Vec w0 = load<Vec>(w), w1 = load<Vec>(w + kLanes);
    for (int m = 0; m < M; ++m) {
      const Vec x = splat<Vec>(p[m / 4][(m % 4) * lda + i]);
      acc[m][0] += x * w0;
      acc[m][1] += x * w1;
    }
  }
}

template <int M>
void product_block(const CqlHeadProduct& op, int64 r, int64 c) {
  Vec acc[M][2] = {};
  if (op.init) {
    for (int m = 0; m < M; ++m) {
      for (int u = 0; u < 2; ++u) acc[m][u] = load<Vec>(op.init[r + m] + c + u * kLanes);
    }
  }
  if (op.k1) accumulate<M>(acc, op.a1 + r * op.lda1, op.lda1, op.k1, op.w1 + c * op.k1);
  if (op.k2) accumulate<M>(acc, op.a2 + r * op.lda2, op.lda2, op.k2, op.w2 + c * op.k2);
  for (int m = 0; m < M; ++m) {
    for (int u = 0; u < 2; ++u) {
      Vec v = acc[m][u];
      if (op.mask) v = mask(v, load<Vec>(op.mask + (r + m) * op.ld_mask + c + u * kLanes));
      if (op.relu) v = relu(v);
      store(op.out + (r + m) * op.ld_out + c + u * kLanes, v);
    }
  }
}

void product(const CqlHeadProduct& op) {
  for (int64 c = 0; c < op.cols; c += kPanel) {
    int64 r = 0;
    for (; r + kRows <= op.rows; r += kRows) product_block<kRows>(op, r, c);
    with_constant<kRows - 1>(op.rows - r, [&]<int M>() { product_block<M>(op, r, c); });
  }
}

template <int M>
void outer_block(const CqlHeadOuter& op, int64 i, int64 c) {
  Vec acc[M][2];
  for (int m = 0; m < M; ++m) {
    for (int u = 0; u < 2; ++u) acc[m][u] = load<Vec>(op.c + (i + m) * op.ldc + c + u * kLanes);
  }
  const float* x = op.x + i;
  const float* y = op.y + c;
  for (int64 r = 0; r < op.rows; ++r, x += op.ldx, y += op.ldy) {
    const Vec y0 = load<Vec>(y), y1 = load<Vec>(y + kLanes);
    for (int m = 0; m < M; ++m) {
      const Vec v = splat<Vec>(x[m]);
      acc[m][0] += v * y0;
      acc[m][1] += v * y1;
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int u = 0; u < 2; ++u) store(op.c + (i + m) * op.ldc + c + u * kLanes, acc[m][u]);
  }
}

void outer(const CqlHeadOuter& op) {
  for (int64 c = 0; c < op.cols; c += kPanel) {
    int64 i = 0;
    for (; i + kRows <= op.num_x; i += kRows) outer_block<kRows>(op, i, c);
    with_constant<kRows - 1>(op.num_x - i, [&]<int M>() { outer_block<M>(op, i, c); });
  }
}

void pack(const float* w, int64 k, int64 cols, int64 row_stride, int64 col_stride, float* packed) {
  for (int64 c = 0; c < cols; c += kPanel) {
    const int64 n = cols - c < kPanel ? cols - c : kPanel;
    for (int64 i = 0; i < k; ++i, packed += kPanel) {
      const float* row = w + i * row_stride + c * col_stride;
      if (n == kPanel && col_stride == 1) {
        for (int u = 0; u < 2; ++u) store(packed + u * kLanes, load<Vec>(row + u * kLanes));
      } else {
        for (int64 j = 0; j < n; ++j) packed[j] = row[j * col_stride];
        for (int64 j = n; j < kPanel; ++j) packed[j] = 0.0f;
      }
    }
  }
}

void dot(const float* h, int64 ld, int64 rows, int64 cols, const float* w, float* out) {
  for (int64 r = 0; r < rows; ++r, h += ld) {
    Vec s0 = {}, s1 = {};
    for (int64 c = 0; c < cols; c += kPanel) {
      s0 += load<Vec>(h + c) * load<Vec>(w + c);
      s1 += load<Vec>(h + c + kLanes) * load<Vec>(w + c + kLanes);
    }
    const Vec s = s0 + s1;
    float total = 0.0f;
    for (int j = 0; j < kLanes; ++j) total += s[j];
    out[r] = total;
  }
}

void dot_backward(const float* h, int64 ld, int64 rows, int64 cols, const float* w, const float* dq, float* d,
                  float* dw) {
  for (int64 c = 0; c < cols; c += kPanel) {
    const Vec w0 = load<Vec>(w + c), w1 = load<Vec>(w + c + kLanes);
    Vec s0 = {}, s1 = {};
    for (int64 r = 0; r < rows; ++r) {
      const float* hr = h + r * ld + c;
      const Vec h0 = load<Vec>(hr), h1 = load<Vec>(hr + kLanes), g = splat<Vec>(dq[r]);
      store(d + r * ld + c, mask(g * w0, h0));
      store(d + r * ld + c + kLanes, mask(g * w1, h1));
      s0 += g * h0;
      s1 += g * h1;
    }
    if (dw) {
      store(dw + c, load<Vec>(dw + c) + s0);
      store(dw + c + kLanes, load<Vec>(dw + c + kLanes) + s1);
    }
  }
}

void sum_rows(const float* d, int64 ld, int64 rows, int64 cols, float* out) {
  for (int64 c = 0; c < cols; c += kPanel) {
    Vec s0 = load<Vec>(out + c), s1 = load<Vec>(out + c + kLanes);
    for (int64 r = 0; r < rows; ++r) {
      s0 += load<Vec>(d + r * ld + c);
      s1 += load<Vec>(d + r * ld + c + kLanes);
    }
    store(out + c, s0);
    store(out + c + kLanes, s1);
  }
}

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const CqlHeadLoops PTR_FAST_JOIN(cql_head_loops_, PTR_FAST_ISA) = {kPanel, pack,         product, outer,
                                                                   dot,    dot_backward, sum_rows};
}  // namespace ptr_fast
