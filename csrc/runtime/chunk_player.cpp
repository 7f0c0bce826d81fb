#include "runtime/chunk_player.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.h"

namespace ptr_fast {

ChunkPlayer::ChunkPlayer(PlayConfig config, int64_t num_actions, int64_t num_axes)
    : config_(config), num_actions_(num_actions), num_axes_(num_axes), sums_(num_axes) {
  check(config.execute >= 0 && config.execute <= num_actions, "loop: execute: expected 0 to ", num_actions,
        ", the actions of a chunk, got ", config.execute);
  check(std::isfinite(config.decay) && std::abs(config.decay) <= 10, "loop: ensemble_decay: expected -10 to 10, got ",
        config.decay);
  check(config.play != Play::kLatency || num_actions > 1,
        "loop: play by latency needs chunks of 2 actions or more; the policy answers 1");
  chunks_.resize(config.play == Play::kEnsemble ? num_actions : 1);
  for (Chunk& chunk : chunks_) chunk.actions.resize(num_actions * num_axes);
}

bool ChunkPlayer::asks() const {
  if (!has_asked_) return true;
  const int64_t size = newest().size;
  if (config_.play == Play::kReceding) return next_ >= (config_.execute == 0 ? size : std::min(config_.execute, size));
  return next_ >= size || steps_since_ >= std::max<int64_t>(config_.execute, 1);
}

void ChunkPlayer::add(const float* chunk, int64_t num_actions, From from) {
  has_asked_ = true;
  if (num_actions == 0) {  // note "Nothing to play"; asked again in the next step
    steps_since_ = std::max<int64_t>(config_.execute, 1);
    return;
  }
  newest_ = (newest_ + 1) % int64_t(chunks_.size());
  Chunk& into = chunks_[newest_];
  std::memcpy(into.actions.data(), chunk, sizeof(float) * num_actions * num_axes_);
  into.size = num_actions;
  into.from = from;
  next_ = 0;
}

ChunkPlayer::Played ChunkPlayer::take(int64_t tick, int64_t reaches_ns, float* action) {
  ++steps_since_;
  if (config_.play == Play::kEnsemble) return take_mean(tick, action);
  const Chunk& chunk = newest();
  int64_t entry = next_;
  if (config_.play == Play::kLatency) {
    entry = std::llround(double(reaches_ns - chunk.from.captured_ns) / double(config_.period_ns));
    entry = std::max<int64_t>(entry, 0);
  }
  next_ = std::min(entry + 1, chunk.size);
  if (entry >= chunk.size) return {-1, {}};
  std::memcpy(action, chunk.actions.data() + entry * num_axes_, sizeof(float) * num_axes_);
  return {entry, chunk.from};
}

ChunkPlayer::Played ChunkPlayer::take_mean(int64_t tick, float* action) {
  std::fill(sums_.begin(), sums_.end(), 0.0);
  double total = 0.0, weight = 1.0;
  Played played{-1, {}};
  const int64_t count = int64_t(chunks_.size());
  const double next_weight = std::exp(-config_.decay);
  for (int64_t i = 1; i <= count; ++i) {  // the oldest first
    const Chunk& chunk = chunks_[(newest_ + i) % count];
    const int64_t entry = tick - chunk.from.tick;
    if (entry < 0 || entry >= chunk.size) continue;
    for (int64_t a = 0; a < num_axes_; ++a) sums_[a] += weight * double(chunk.actions[entry * num_axes_ + a]);
    total += weight;
    weight *= next_weight;
    played = {entry, chunk.from};
  }
  for (int64_t a = 0; played.entry >= 0 && a < num_axes_; ++a) action[a] = float(sums_[a] / total);
  return played;
}

}  // namespace ptr_fast
