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

// What every gradient is multiplied by so that all together have at most the allowed norm (torch's clip_grad_norm_).
float gradient_scale(const AdamPolyak& op, const AdamPolyakLoops& loops, int num_threads) {
  struct Piece {
    const float* g;
    int64_t n;
    double squares;
  };
  std::vector<Piece> pieces;
  for (int64_t i = 0; i < op.num_tensors; ++i) {
    for (int64_t first = 0; op.gradients[i] != 0 && first < op.sizes[i]; first += kChunk) {
      pieces.push_back({at<const float>(op.gradients[i], first), std::min(kChunk, op.sizes[i] - first), 0.0});
    }
  }
  parallel_for(int64_t(pieces.size()), num_threads,
               [&](int64_t i) { pieces[i].squares = loops.sum_of_squares(pieces[i].g, pieces[i].n); });
  double squares = 0;
  for (const Piece& piece : pieces) squares += piece.squares;
  const double scale = op.max_grad_norm / (std::sqrt(squares) + 1e-6);
  return float(scale > 1 ? 1 : scale);  // NaN stays NaN
}

}  // namespace

void adam_polyak(const AdamPolyak& op, int num_threads) {
  const AdamPolyakLoops& loops = PTR_FAST_SELECT_ISA(adam_polyak_loops);
  std::vector<AdamPolyakRun> runs;
  int64_t total = 0;
  for (int64_t i = 0; i < op.num_tensors; ++i) total += op.sizes[i];
  const int useful = int(std::clamp<int64_t>(total / kChunk, 1, num_threads));
  const float scale = op.max_grad_norm > 0 ? gradient_scale(op, loops, useful) : 1.0f;
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
    run.is_regularised = op.weight_decay > 0 || op.max_grad_norm > 0;
    run.gradient_scale = scale;
    run.decay = float(1 - op.lr * op.weight_decay);
    for (int64_t first = 0; first < op.sizes[i]; first += kChunk) {
      run.p = at<float>(op.parameters[i], first);
      run.g = at<const float>(op.gradients[i], first);
      run.m = at<float>(op.exp_avgs[i], first);
      run.v = at<float>(op.exp_avg_sqs[i], first);
      run.average = at<float>(op.averages[i], first);
      run.n = std::min(kChunk, op.sizes[i] - first);
      if (run.g || run.average) runs.push_back(run);
    }
  }
  parallel_for(int64_t(runs.size()), useful, [&](int64_t i) { (runs[i].g ? loops.update : loops.average)(runs[i]); });
}

}  // namespace ptr_fast
