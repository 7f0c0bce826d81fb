#include "kernels/spatial_embedding.h"

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "core/isa.h"
#include "core/parallel.h"
#include "kernels/spatial_embedding_simd.h"

namespace ptr_fast {
namespace {

const SpatialEmbeddingLoops& loops() { return PTR_FAST_SELECT_ISA(spatial_embedding_loops); }

int64_t padded(int64_t F) {
  return (F + kSpatialEmbeddingFeatures - 1) / kSpatialEmbeddingFeatures * kSpatialEmbeddingFeatures;
}

// Channels do not meet: each group of them is one item, so the result has the same bits for any number of threads.
template <class Body>
void for_each_group(const SpatialEmbeddingShape& s, int num_threads, const Body& body) {
  const int64_t lanes = loops().lanes;
  check(s.C % lanes == 0, "spatial_embedding: expected a multiple of ", lanes, " channels, got ", s.C);
  const int useful = int(std::clamp<int64_t>(s.B * s.P * s.C * s.F / 262144, 1, num_threads));
  parallel_for(s.C / lanes, useful, [&](int64_t group) { body(group * lanes); });
}

}  // namespace

int64_t spatial_embedding_lanes() { return loops().lanes; }

void spatial_embedding_forward(const SpatialEmbeddingShape& s, const float* x, const float* kernel, float* out,
                               int num_threads) {
  const SpatialEmbeddingLoops& op = loops();
  const int64_t F8 = padded(s.F);
  for_each_group(s, num_threads, [&](int64_t c) {
    thread_local std::vector<float> packed;
    packed.resize(s.P * F8 * op.lanes);
    op.pack(kernel + c * s.P * s.F, s.P, s.F, F8, s.F, s.P * s.F, packed.data());
    op.contract(x + c, packed.data(), s.B, s.P, s.F, F8, s.P * s.C, s.C, out + c * s.F, s.C * s.F, s.F);
  });
}

void spatial_embedding_backward(const SpatialEmbeddingShape& s, const float* dout, const float* x, const float* kernel,
                                float* dx, float* dkernel, int num_threads) {
  const SpatialEmbeddingLoops& op = loops();
  const int64_t F8 = padded(s.F);
  for_each_group(s, num_threads, [&](int64_t c) {
    thread_local std::vector<float> packed, packed_dout;
    packed_dout.resize(s.B * F8 * op.lanes);
    op.pack(dout + c * s.F, s.B, s.F, F8, s.C * s.F, s.F, packed_dout.data());
    if (dx) {
      packed.resize(s.P * F8 * op.lanes);
      op.pack(kernel + c * s.P * s.F, s.P, s.F, F8, s.F, s.P * s.F, packed.data());
      op.expand(packed_dout.data(), packed.data(), s.B, s.P, F8, s.P * s.C, s.C, dx + c);
    }
    if (dkernel) {
      op.contract(x + c, packed_dout.data(), s.P, s.B, s.F, F8, s.C, s.P * s.C, dkernel + c * s.P * s.F, s.F,
                  s.P * s.F);
    }
  });
}

}  // namespace ptr_fast
