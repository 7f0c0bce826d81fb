// Which entry of which chunk of actions a step of the control loop plays.
//
// Note "Playing". A chunk is what a policy wants in the control period of its observation and in those after it.
// kReceding plays its entries one after the other and asks again after `execute` of them. kEnsemble asks at every
// `execute`-th step and plays the mean of what all chunks want in this period, weighted by exp(-decay * i), i = 0 for
// the oldest chunk (ACT: Zhao et al. 2023, Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware,
// algorithm 2; 0.01 there; below 0 the newest weigh most). kLatency plays the entry whose period is nearest to the
// moment when the command reaches the arm: entry j belongs to the time j periods after the observation was captured.
//
// Note "Nothing to play". Where a policy has no answer in time, the rest of what it answered before is played; after
// the last entry there is no action, and the arm stands still until there is one.
#pragma once
#include <cstdint>
#include <vector>

namespace ptr_fast {

enum class Play : int { kReceding, kEnsemble, kLatency };

struct PlayConfig {
  Play play;
  int64_t execute;  // steps between two requests at least; 0: all of a chunk in kReceding, else 1
  double decay;     // of the weights of kEnsemble
  int64_t period_ns;
};

class ChunkPlayer {
 public:
  // What a chunk was asked about: when the frames of the observation were captured, when the oldest of frames and
  // state, and the tick of the step.
  struct From {
    int64_t captured_ns, oldest_ns, tick;
  };
  // What a step plays: an entry of a chunk (of the newest one in kEnsemble); entry -1: nothing.
  struct Played {
    int64_t entry;
    From from;
  };

  // std::invalid_argument where the settings contradict each other. H: most actions in a chunk.
  ChunkPlayer(PlayConfig config, int64_t num_actions, int64_t num_axes);

  int64_t num_actions() const { return num_actions_; }
  int64_t num_axes() const { return num_axes_; }

  // Whether the policy is to be asked in this step. Ticks count control periods, those that were missed too.
  bool asks() const;
  void asked() { steps_since_ = 0; }

  // An answer of num_actions entries; 0: there is none.
  void add(const float* chunk, int64_t num_actions, From from);

  // The action of this step. reaches_ns: when its command reaches the arm.
  Played take(int64_t tick, int64_t reaches_ns, float* action);

 private:
  struct Chunk {
    std::vector<float> actions;
    int64_t size = 0;
    From from{};
  };
  Played take_mean(int64_t tick, float* action);
  const Chunk& newest() const { return chunks_[newest_]; }

  const PlayConfig config_;
  const int64_t num_actions_, num_axes_;
  std::vector<Chunk> chunks_;      // a ring: H of them in kEnsemble, else one
  std::vector<double> sums_;       // [A], of kEnsemble
  int64_t newest_ = 0, next_ = 0;  // next_: entry after the last one played
  int64_t steps_since_ = 0;        // steps played since the policy was asked
  bool has_asked_ = false;
};

}  // namespace ptr_fast
