// That the demonstration's kernels compile for a GPU too.
#include "demonstration.h"

#include "core/launch.cuh"

namespace ptr_fast {

void reversed_share(const float* x, float* y, int rows, int columns, int64_t stream) {
  const int64_t size = int64_t(rows) * columns;
  launch(ReversedShare<Mistake::kNone>{{x, size}, {y, size}, columns}, {2 * rows, 1, 1}, stream, 2);
}

void warp_products(const Bfloat16* a, const Bfloat16* b, const float* d, const float* e, float* c, int64_t stream) {
  launch(WarpProduct<Bfloat16>{{a, 256}, {b, 128}, {c, 128}}, {1, 1, 1}, stream);
  launch(WarpProduct<float>{{d, 128}, {e, 64}, {c, 128}}, {1, 1, 1}, stream);
}

}  // namespace ptr_fast
