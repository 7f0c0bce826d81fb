// The inner loops of spatial_embedding over one group of `lanes` channels. Compiled once per instruction set.
//
// A packed tensor [R, F, lanes] has the channels of the group next to each other; F is a multiple of kFeatures.
#pragma once
#include <cstdint>

namespace ptr_fast {

constexpr int kSpatialEmbeddingFeatures = 8;

struct SpatialEmbeddingLoops {
  int64_t lanes;

  // packed[r, f, lane] = w[lane * lane_stride + r * row_stride + f] for f < F, 0 for F <= f < padded F
  void (*pack)(const float* w, int64_t R, int64_t F, int64_t padded_F, int64_t row_stride, int64_t lane_stride,
               float* packed);

  // out[m * out_stride + lane * out_lane_stride + f] = sum over r of x[m * m_stride + r * r_stride + lane] *
  // packed[r, f, lane]; r in order
  void (*contract)(const float* x, const float* packed, int64_t M, int64_t R, int64_t F, int64_t padded_F,
                   int64_t m_stride, int64_t r_stride, float* out, int64_t out_stride, int64_t out_lane_stride);

  // dx[b * b_stride + p * p_stride + lane] = sum over f of dout[b, f, lane] * kernel[p, f, lane], both packed
  void (*expand)(const float* dout, const float* kernel, int64_t B, int64_t P, int64_t padded_F, int64_t b_stride,
                 int64_t p_stride, float* dx);
};

extern const SpatialEmbeddingLoops spatial_embedding_loops_baseline;
extern const SpatialEmbeddingLoops spatial_embedding_loops_avx2;
extern const SpatialEmbeddingLoops spatial_embedding_loops_avx512;

}  // namespace ptr_fast
