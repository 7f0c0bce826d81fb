#include "kernels/adam_polyak.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/isa.h"
#include "core/parallel.h"
#include "kernels/adam_polyak_simd.h"

namespace ptr_fast {
namespace {

// A piece of work for one thread. Where a tensor is cut depends on its size alone, so the result has the same bits for
// any number of threads.
constexpr int64_t kChunk = 1 << 15;

template <class T>
T* at(int64_t address, int64_t offset) {
  return address == 0 ? nullptr : reinterpret_cast<T*>(address) + offset;
}

}  // namespace

void adam_polyak(const AdamPolyak& op, int num_threads) {
  const AdamPolyakLoops& loops = PTR_FAST_SELECT_ISA(adam_polyak_loops);
  std::vector<AdamPolyakRun> runs;
  int64_t total = 0;
  for (int64_t i = 0; i < op.num_tensors; ++i) {
    AdamPolyakRun run{};
    if (op.gradients[i] != 0) {
      const double step = op.steps[i] += 1;
      // lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps), with one division
      const double root = std::sqrt(1 - std::pow(op.beta2, step));
      run.step_size = float(op.lr / (1 - std::pow(op.beta1, step)) * root);
      run.eps = float(op.eps * root);
    }
    run.one_minus_beta1 = float(1 - op.beta1);
    run.beta2 = float(op.beta2);
    run.one_minus_beta2 = float(1 - op.beta2);
    run.tau = float(op.tau);
    for (int64_t first = 0; first < op.sizes[i]; first += kChunk) {
      run.p = at<float>(op.parameters[i], first);
      run.g = at<const float>(op.gradients[i], first);
      run.m = at<float>(op.exp_avgs[i], first);
      run.v = at<float>(op.exp_avg_sqs[i], first);
      run.average = at<float>(op.averages[i], first);
      run.n = std::min(kChunk, op.sizes[i] - first);
      if (run.g || run.average) runs.push_back(run);
    }
    total += op.sizes[i];
  }
  const int useful = int(std::clamp<int64_t>(total / kChunk, 1, num_threads));
  parallel_for(int64_t(runs.size()), useful, [&](int64_t i) { (runs[i].g ? loops.update : loops.average)(runs[i]); });
}

}  // namespace ptr_fast
