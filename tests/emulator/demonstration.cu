// The demonstration's kernels on a GPU: compiled for all architectures by the tests, run where there is one.
#include "demonstration.h"

#include "core/launch.cuh"

using namespace ptr_fast;

extern "C" void reversed_share(const float* x, float* y, int rows, int columns, int64_t stream) {
  const int64_t size = int64_t(rows) * columns;
  launch(ReversedShare<Mistake::kNone>{{x, size}, {y, size}, columns}, {2 * rows, 1, 1}, stream, 2);
}

extern "C" void warp_product_bf16(const Bfloat16* a, const Bfloat16* b, float* c, int64_t stream) {
  launch(WarpProduct<Bfloat16>{{a, 256}, {b, 128}, {c, 128}}, {1, 1, 1}, stream);
}

extern "C" void warp_product_tf32(const float* a, const float* b, float* c, int64_t stream) {
  launch(WarpProduct<float>{{a, 128}, {b, 64}, {c, 128}}, {1, 1, 1}, stream);
}
