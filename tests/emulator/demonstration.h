// A small kernel that uses all of a Block, and the mistakes that the emulator must find in it.
//
// Of every row of ``columns`` floats, one row per cluster of two blocks, each of which has half of it: the row
// reversed and divided by its sum.
#pragma once
#include "core/block.h"

namespace ptr_fast {

enum class Mistake {
  kNone,
  kNoBarrier,         // reads the reversed half before it is sure to be written
  kWrongIndex,        // one past the end of the shared half
  kWrongRow,          // both ranks write one place
  kNoWait,            // uses what was copied before it has arrived
  kNoClusterBarrier,  // reads the other block's sum in the phase in which it is written
  kEndsTooEarly,      // may end while the other block still reads
};

template <Mistake kMistake>
struct ReversedShare {
  static constexpr int kThreads = 64;
  Global<const float> x;
  Global<float> y;
  int columns;  // a multiple of 8, at most 2 kThreads

  PTR_HOST_DEVICE int64_t shared_bytes() const { return 2 * shared_size<float>(columns / 2) + shared_size<float>(1); }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    const int half = columns / 2;
    const int64_t row = int64_t(block.cluster_index().x) * columns;
    auto mine = block.template shared<float>("mine", half);
    auto reversed = block.template shared<float>("reversed", half);
    auto sum_of_rank = block.template shared<float>("sum_of_rank", 1);
    block.each_block([&](Thread t) { block.bulk_copy(mine, 0, x, row + t.rank * half, half); });
    if constexpr (kMistake != Mistake::kNoWait) block.wait_bulk();

    PerThread<float, Block> sum(block, 0.0f), value(block);
    const auto reverse = [&](Thread t) {
      if (t.index >= half) return;
      sum[t] = mine.at(t, t.index);
      reversed.set(t, half - 1 - t.index + (kMistake == Mistake::kWrongIndex), sum[t]);
    };
    if constexpr (kMistake == Mistake::kNoBarrier) {
      block.each_thread(reverse);
    } else {
      block.phase(reverse);
    }
    block.each_thread([&](Thread t) { value[t] = t.index < half ? reversed.at(t, t.index) : 0.0f; });
    block.block_sum(sum);
    const auto tell = [&](Thread t) {
      if (t.index == 0) sum_of_rank.set(t, 0, sum[t]);
    };
    if constexpr (kMistake == Mistake::kNoClusterBarrier) {
      block.cluster_phase([](Thread) {});
      block.phase(tell);
    } else {
      block.cluster_phase(tell);
    }
    const auto divide = [&](Thread t) {
      const float whole = sum_of_rank.of_rank(t, 0).at(t, 0) + sum_of_rank.of_rank(t, 1).at(t, 0);
      const int part = kMistake == Mistake::kWrongRow ? 0 : 1 - t.rank;
      if (t.index < half) y.set(t, row + part * half + t.index, value[t] / whole);
    };
    if constexpr (kMistake == Mistake::kEndsTooEarly) {
      block.phase(divide);
    } else {
      block.cluster_phase(divide);
    }
  }
};

// One warp: c = a b for 16 x 16 and 16 x 8 bfloat16, or 16 x 8 and 8 x 8 float32 as TF32; all row-major.
template <class T>
struct WarpProduct {
  static constexpr int kThreads = 32;
  static constexpr int kDepth = sizeof(T) == 2 ? 16 : 8;
  Global<const T> a, b;
  Global<float> c;

  PTR_HOST_DEVICE int64_t shared_bytes() const { return 0; }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    PerThread<Registers<uint32_t, 4>, Block> left(block);
    PerThread<Registers<uint32_t, 2>, Block> right(block);
    PerThread<Registers<float, 4>, Block> sum(block, Registers<float, 4>{});
    block.each_thread([&](Thread t) {
      const int row = t.lane() / 4, k = t.lane() % 4;
      PTR_UNROLL for (int i = 0; i < 4; ++i) left[t][i] = operand(t, a, row + 8 * (i % 2), k, i / 2, kDepth, 1);
      PTR_UNROLL for (int i = 0; i < 2; ++i) right[t][i] = operand(t, b, row, k, i, 1, 8);
    });
    if constexpr (sizeof(T) == 2) {
      block.mma_m16n8k16_bf16(sum, left, right);
    } else {
      block.mma_m16n8k8_tf32(sum, left, right);
    }
    block.each_thread([&](Thread t) {
      PTR_UNROLL for (int i = 0; i < 4; ++i) {
        c.set(t, (t.lane() / 4 + 8 * (i / 2)) * 8 + t.lane() % 4 * 2 + i % 2, sum[t][i]);
      }
    });
  }

 private:
  // Element (line, depth) of a matrix with these strides, at the depth that register ``i`` of lane ``k`` of four holds.
  static PTR_DEVICE uint32_t operand(Thread t, const Global<const T>& from, int line, int k, int i, int line_stride,
                                     int depth_stride) {
    if constexpr (sizeof(T) == 2) {
      const int depth = 2 * k + 8 * i;
      return pack(from.load_nc(t, line * line_stride + depth * depth_stride),
                  from.load_nc(t, line * line_stride + (depth + 1) * depth_stride));
    } else {
      return to_tf32(from.load_nc(t, line * line_stride + (k + 4 * i) * depth_stride));
    }
  }
};

}  // namespace ptr_fast
