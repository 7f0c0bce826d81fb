// What the products of cql_head round to, and its weights on their way to the tensor cores, on a Block (core/block.h).
//
// Note "Packed weights". Of a unit of k and 8 columns every lane of a warp needs 16 bytes: k from 4 t on (8 t on where
// they are bfloat16) of column g, with g = lane / 4, t = lane % 4. They lie in that order, so a warp reads 512 bytes in
// a row, from L2, once a block, and no shared memory is spent on weights. Activations are plain rows in shared memory,
// whose 16 bytes from the same k on are a lane's part of the other factor: the order of k within a unit is the same in
// both.
#pragma once
#include "core/block.h"

namespace ptr_fast {

constexpr int kCqlHeadMaxHidden = 4;
constexpr int kCqlHeadMaxAction = 16;  // one unit
constexpr int kCqlHeadMaxWidth = 256;

// Products of TF32: 11 significant bits, sums in float32.
struct CqlHeadTf32 {
  static constexpr int kPerWord = 1;
  static PTR_HOST_DEVICE uint32_t word(float value, float) { return to_tf32(value); }
  static PTR_HOST_DEVICE float value(uint32_t word, int) { return bits_of<float>(word); }

  template <class Block, class Acc, class A, class B>
  static PTR_DEVICE void mma(Block& block, Acc&& acc, A&& a, B&& b) {
    block.mma_m16n8k8_tf32(acc, a, b);
  }
};

// Products of bfloat16: 8 significant bits, sums in float32.
struct CqlHeadBf16 {
  static constexpr int kPerWord = 2;
  static PTR_HOST_DEVICE uint32_t word(float first, float second) {
    return pack(from_float<Bfloat16>(first), from_float<Bfloat16>(second));
  }
  static PTR_HOST_DEVICE float value(uint32_t word, int which) {
    return bits_of<float>(which == 0 ? word << 16 : word & 0xffff0000u);
  }

  template <class Block, class Acc, class A, class B>
  static PTR_DEVICE void mma(Block& block, Acc&& acc, A&& a, B&& b) {
    block.mma_m16n8k16_bf16(acc, a, b);
  }
};

constexpr int kCqlHeadUnitWords = 16;       // of one row: 64 bytes
constexpr int kCqlHeadFragmentWords = 128;  // of a unit and 8 columns: 16 bytes a lane

// One matrix of every head on its way to packed weights: element (k, n) of head e at e * head_stride + k * k_stride +
// n * n_stride. It fills ``num_units`` units and ``num_tiles`` tiles of 8 columns, its pads with zeros.
struct CqlHeadMatrix {
  Global<const float> from;
  int64_t head_stride, k_stride, n_stride;
  int num_k, num_n;
  int num_units, num_tiles;
  int64_t to;  // word of a head's packed weights
  int first;   // of its vectors among those of all matrices
};

template <class Precision>
struct CqlHeadPack {
  static constexpr int kThreads = 256;
  static constexpr int kMaxMatrices = 4 * kCqlHeadMaxHidden;

  CqlHeadMatrix matrices[kMaxMatrices];
  int num_matrices;
  int num_vectors;  // of 16 bytes, of all matrices of a head
  int64_t head_words;
  Global<uint32_t> packed;  // [E, head_words]

  PTR_HOST_DEVICE int64_t shared_bytes() const { return 0; }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    block.phase([&](Thread t) {
      const int vector = block.index().x * kThreads + t.index;
      if (vector >= num_vectors) return;
      int m = 0;
      while (m + 1 < num_matrices && vector >= matrices[m + 1].first) ++m;
      const CqlHeadMatrix& matrix = matrices[m];
      const int fragment = (vector - matrix.first) / kWarp, lane = (vector - matrix.first) % kWarp;
      const int unit = fragment / matrix.num_tiles, n = fragment % matrix.num_tiles * 8 + lane / 4;
      const int64_t head = block.index().y;
      const auto value = [&](int k) {
        if (k >= matrix.num_k || n >= matrix.num_n) return 0.0f;
        return matrix.from.load_nc(t, head * matrix.head_stride + k * matrix.k_stride + n * matrix.n_stride);
      };
      Vector<uint32_t> out;
      PTR_UNROLL for (int i = 0; i < 4; ++i) {
        const int k = (unit * kCqlHeadUnitWords + lane % 4 * 4 + i) * Precision::kPerWord;
        out[i] = Precision::word(value(k), Precision::kPerWord == 2 ? value(k + 1) : 0.0f);
      }
      packed.set_vector(t, head * head_words + matrix.to + int64_t(vector - matrix.first) * 4, out);
    });
  }
};

}  // namespace ptr_fast
