// out[b, c, f] = sum_p x[b, p, c] * kernel[c, p, f], and its gradients: see ptr_fast/kernels/spatial_embedding.
#pragma once
#include <cstdint>

namespace ptr_fast {

// B samples, P pixels, C channels, F features per channel. x and dx are [B, P, C] in memory (channels_last), kernel and
// dkernel [C, P, F], out and dout [B, C, F].
struct SpatialEmbeddingShape {
  int64_t B, P, C, F;
};

// Channels that are worked on together; C must be a multiple of it.
int64_t spatial_embedding_lanes();

void spatial_embedding_forward(const SpatialEmbeddingShape& shape, const float* x, const float* kernel, float* out,
                               int num_threads);

// dx or dkernel may be null.
void spatial_embedding_backward(const SpatialEmbeddingShape& shape, const float* dout, const float* x,
                                const float* kernel, float* dx, float* dkernel, int num_threads);

}  // namespace ptr_fast
