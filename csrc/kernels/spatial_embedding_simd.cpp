#include "kernels/spatial_embedding_simd.h"

#include "core/simd.h"

namespace {

constexpr int kF = ptr_fast::kSpatialEmbeddingFeatures;
// Rows worked on together, so that a packed vector that was loaded is used for each: 3 x 8 sums fill 32 registers.
constexpr int kRows = kLanes == 16 ? 3 : 1;

void pack(const float* w, int64 R, int64 F, int64 padded_F, int64 row_stride, int64 lane_stride, float* packed) {
  for (int64 r = 0; r < R; ++r) {
    const float* row = w + r * row_stride;
    float* to = packed + r * padded_F * kLanes;
    for (int64 f = 0; f < F; ++f) {
      for (int lane = 0; lane < kLanes; ++lane) to[f * kLanes + lane] = row[lane * lane_stride + f];
    }
    for (int64 k = F * kLanes; k < padded_F * kLanes; ++k) to[k] = 0;
  }
}

template <int kM>
void contract_rows(const float* x, const float* packed, int64 R, int64 F, int64 padded_F, int64 m_stride,
                   int64 r_stride, float* out, int64 out_stride, int64 out_lane_stride) {
  for (int64 first = 0; first < F; first += kF) {
    Vec sum[kM][kF] = {};
    const float* w = packed + first * kLanes;
    for (int64 r = 0; r < R; ++r, w += padded_F * kLanes) {
      Vec v[kM];
      for (int m = 0; m < kM; ++m) v[m] = load<Vec>(x + m * m_stride + r * r_stride);
      for (int f = 0; f < kF; ++f) {
        const Vec k = load<Vec>(w + f * kLanes);
        for (int m = 0; m < kM; ++m) sum[m][f] += v[m] * k;
      }
    }
    const int64 count = F - first < kF ? F - first : kF;
    for (int m = 0; m < kM; ++m) {
      float values[kF][kLanes];
      for (int f = 0; f < kF; ++f) store(values[f], sum[m][f]);
      for (int lane = 0; lane < kLanes; ++lane) {
        float* to = out + m * out_stride + lane * out_lane_stride + first;
        for (int64 f = 0; f < count; ++f) to[f] = values[f][lane];
      }
    }
  }
}

void contract(const float* x, const float* packed, int64 M, int64 R, int64 F, int64 padded_F, int64 m_stride,
              int64 r_stride, float* out, int64 out_stride, int64 out_lane_stride) {
  int64 m = 0;
  for (; m + kRows <= M; m += kRows) {
    contract_rows<kRows>(x + m * m_stride, packed, R, F, padded_F, m_stride, r_stride, out + m * out_stride, out_stride,
                         out_lane_stride);
  }
  for (; m < M; ++m) {
    contract_rows<1>(x + m * m_stride, packed, R, F, padded_F, m_stride, r_stride, out + m * out_stride, out_stride,
                     out_lane_stride);
  }
}

template <int kB>
void expand_rows(const float* dout, const float* kernel, int64 P, int64 padded_F, int64 b_stride, int64 p_stride,
                 float* dx) {
  for (int64 first = 0; first < padded_F; first += kF) {
    Vec g[kB][kF];
    for (int b = 0; b < kB; ++b) {
      for (int f = 0; f < kF; ++f) g[b][f] = load<Vec>(dout + (b * padded_F + first + f) * kLanes);
    }
    const float* w = kernel + first * kLanes;
    for (int64 p = 0; p < P; ++p, w += padded_F * kLanes) {
      Vec sum[kB];
      for (int b = 0; b < kB; ++b) sum[b] = first ? load<Vec>(dx + b * b_stride + p * p_stride) : Vec{};
      for (int f = 0; f < kF; ++f) {
        const Vec k = load<Vec>(w + f * kLanes);
        for (int b = 0; b < kB; ++b) sum[b] += g[b][f] * k;
      }
      for (int b = 0; b < kB; ++b) store(dx + b * b_stride + p * p_stride, sum[b]);
    }
  }
}

void expand(const float* dout, const float* kernel, int64 B, int64 P, int64 padded_F, int64 b_stride, int64 p_stride,
            float* dx) {
  int64 b = 0;
  for (; b + kRows <= B; b += kRows) {
    expand_rows<kRows>(dout + b * padded_F * kLanes, kernel, P, padded_F, b_stride, p_stride, dx + b * b_stride);
  }
  for (; b < B; ++b) {
    expand_rows<1>(dout + b * padded_F * kLanes, kernel, P, padded_F, b_stride, p_stride, dx + b * b_stride);
  }
}

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const SpatialEmbeddingLoops PTR_FAST_JOIN(spatial_embedding_loops_, PTR_FAST_ISA) = {kLanes, pack, contract, expand};
}  // namespace ptr_fast
