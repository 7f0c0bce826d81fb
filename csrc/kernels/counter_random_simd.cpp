#include "kernels/counter_random.h"

namespace {

using ptr_fast::CounterRandom;
using ptr_fast::RandomKind;
using int64 = std::int64_t;
using uint32 = std::uint32_t;
using uint64 = std::uint64_t;

constexpr int kLanes = 16;  // Philox blocks side by side; the loops over lanes are what the compiler vectorises

struct Blocks {
  uint32 word[4][kLanes];
};

// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2 and section 4.3.
inline void philox(Blocks& c, uint32 k0, uint32 k1) {
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kLanes; ++i) {
      const uint64 a = uint64(0xD2511F53u) * c.word[0][i], b = uint64(0xCD9E8D57u) * c.word[2][i];
      c.word[0][i] = uint32(b >> 32) ^ c.word[1][i] ^ k0;
      c.word[1][i] = uint32(b);
      c.word[2][i] = uint32(a >> 32) ^ c.word[3][i] ^ k1;
      c.word[3][i] = uint32(a);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// Logarithm of a normal positive number; polynomial of the Cephes library (Moshier), error below 1 ulp.
inline float logarithm(float x) {
  const int bits = __builtin_bit_cast(int, x);
  const int exponent = (bits - 0x3f3504f3) >> 23;  // so that the mantissa lies in [sqrt(1/2), sqrt(2))
  const float t = __builtin_bit_cast(float, bits - (exponent << 23)) - 1.0f;
  const float e = float(exponent), z = t * t;
  float p = 7.0376836292e-2f;
  p = p * t - 1.1514610310e-1f;
  p = p * t + 1.1676998740e-1f;
  p = p * t - 1.2420140846e-1f;
  p = p * t + 1.4249322787e-1f;
  p = p * t - 1.6668057665e-1f;
  p = p * t + 2.0000714765e-1f;
  p = p * t - 2.4999993993e-1f;
  p = p * t + 3.3333331174e-1f;
  return (t + (t * z * p - 2.12194440e-4f * e - 0.5f * z)) + 0.693359375f * e;
}

// Box and Muller 1958: two independent normals from two words. The angle is a whole number of 2^-32 turns, so its
// quadrant and the rest are exact; polynomials as above.
inline void box_muller(uint32 radius_word, uint32 angle_word, float& first, float& second) {
  const float u = float(radius_word) * 0x1p-32f + 0x1p-33f;  // in (0, 1]
  const float radius = __builtin_sqrtf(-2.0f * logarithm(u));
  const uint32 quadrant = (angle_word + 0x20000000u) >> 30;
  const float x = float(int(angle_word - (quadrant << 30))) * (6.283185307179586f * 0x1p-32f);  // |x| <= pi / 4
  const float z = x * x;
  const float sine = x + x * z * ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f);
  const float cosine =
      1.0f - 0.5f * z + z * z * ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f);
  const bool swap = quadrant & 1;
  const float c = swap ? sine : cosine, s = swap ? cosine : sine;
  first = radius * ((quadrant + 1) & 2 ? -c : c);
  second = radius * (quadrant & 2 ? -s : s);
}

template <RandomKind kKind, class T>
void fill_kind(const CounterRandom& op) {
  T* const out = static_cast<T*>(op.out);
  const int64 blocks = (op.num_words + 3) / 4, total = op.num_samples * blocks;
  int64 sample = 0, block = 0;
  for (int64 begin = 0; begin < total; begin += kLanes) {
    const int count = total - begin < kLanes ? int(total - begin) : kLanes;
    Blocks c = {};
    int64 at[kLanes];
    int width[kLanes];
    for (int i = 0; i < count; ++i) {
      c.word[0][i] = op.step;
      c.word[1][i] = uint32(op.samples ? op.samples[sample] : op.first + sample * op.stride);
      c.word[2][i] = op.stream;
      c.word[3][i] = uint32(block);
      at[i] = sample * op.num_words + 4 * block;
      width[i] = op.num_words - 4 * block < 4 ? int(op.num_words - 4 * block) : 4;
      if (++block == blocks) block = 0, ++sample;
    }
    philox(c, op.key[0], op.key[1]);
    T value[4][kLanes];
    if constexpr (kKind == RandomKind::kNormal) {
      for (int j = 0; j < 4; j += 2) {
        for (int i = 0; i < kLanes; ++i) box_muller(c.word[j][i], c.word[j + 1][i], value[j][i], value[j + 1][i]);
      }
    } else {
      for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < kLanes; ++i) {
          value[j][i] = kKind == RandomKind::kBits ? T(c.word[j][i]) : T(float(c.word[j][i] >> 8) * 0x1p-24f);
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < width[i]; ++j) out[at[i] + j] = value[j][i];
    }
  }
}

void fill(const CounterRandom& op) {
  switch (op.kind) {
    case RandomKind::kBits:
      return fill_kind<RandomKind::kBits, int64>(op);
    case RandomKind::kUniform:
      return fill_kind<RandomKind::kUniform, float>(op);
    case RandomKind::kNormal:
      return fill_kind<RandomKind::kNormal, float>(op);
  }
}

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const CounterRandomLoops PTR_FAST_JOIN(counter_random_loops_, PTR_FAST_ISA) = {fill};
}  // namespace ptr_fast
