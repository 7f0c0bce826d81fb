// The log-sum-exp of cql_head on a Block (core/block.h), of Q that is there already.
#pragma once
#include "core/block.h"

namespace ptr_fast {

// The log-sum-exp of Q + log_weight over the actions of a state, by a warp.
struct CqlHeadLogSumExp {
  static constexpr int kThreads = 256;
  static constexpr int kStates = kThreads / kWarp;

  int64_t num_all, num_states, num_samples;  // num_all: of heads times states
  Global<const float> q, log_weight;         // [E, B, K], [B, K]
  Global<float> lse;                         // [E, B]

  PTR_HOST_DEVICE int64_t shared_bytes() const { return 0; }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    PerThread<float, Block> top(block, -INFINITY), sum(block, 0.0f);
    block.each_thread(
        [&](Thread t) { each_logit(block, t, [&](float logit) { top[t] = logit > top[t] ? logit : top[t]; }); });
    block.warp_max(top);
    block.each_thread([&](Thread t) {
      // A state that has seen minus infinity alone, or plus infinity, counts from 0.
      if (top[t] == INFINITY || top[t] == -INFINITY) top[t] = 0.0f;
      each_logit(block, t, [&](float logit) { sum[t] += expf(logit - top[t]); });
    });
    block.warp_sum(sum);
    block.phase([&](Thread t) {
      const int64_t state = state_of(block, t);
      if (t.lane() == 0 && state < num_all) lse.set(t, state, sum[t] == 0.0f ? -INFINITY : top[t] + logf(sum[t]));
    });
  }

 private:
  template <class Block>
  PTR_DEVICE static int64_t state_of(const Block& block, Thread t) {
    return int64_t(block.index().x) * kStates + t.warp();
  }

  template <class Block, class F>
  PTR_DEVICE void each_logit(const Block& block, Thread t, F&& f) const {
    const int64_t state = state_of(block, t);
    if (state >= num_all) return;
    const int64_t weights = state % num_states * num_samples;
    for (int64_t k = t.lane(); k < num_samples; k += kWarp) {
      f(q.load_nc(t, state * num_samples + k) + log_weight.load_nc(t, weights + k));
    }
  }
};

}  // namespace ptr_fast
