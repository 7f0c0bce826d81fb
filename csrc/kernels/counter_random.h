// Random numbers that are a function of a key and a counter: Philox4x32-10.
#pragma once
#include <cstdint>

namespace ptr_fast {

enum class RandomKind { kBits = 0, kUniform = 1, kNormal = 2 };

// num_words numbers for each of num_samples samples: word w is lane w % 4 of Philox at the counter
// (step, sample, stream, w / 4). samples may be null: sample i is then first + i * stride.
// out is [num_samples, num_words]: int64 for kBits, float for the other kinds.
struct CounterRandom {
  RandomKind kind;
  std::uint32_t key[2], step, stream;
  const std::int64_t* samples;
  std::int64_t first, stride, num_samples, num_words;
  void* out;
};

struct CounterRandomLoops {
  void (*fill)(const CounterRandom& op);
};

extern const CounterRandomLoops counter_random_loops_baseline;
extern const CounterRandomLoops counter_random_loops_avx2;
extern const CounterRandomLoops counter_random_loops_avx512;

}  // namespace ptr_fast
