// What a CUDA kernel is written on: a Block whose threads run phase after phase, on a GPU or on the host.
//
// A kernel is a plain struct of its arguments in a header without CUDA includes (csrc/kernels/<op>_block.h):
//
//   struct Scale {
//     static constexpr int kThreads = 256;                 // of a block; kMinBlocks = 2 asks for two blocks on an SM
//     Global<const float> x;
//     Global<float> y;
//     PTR_HOST_DEVICE int64_t shared_bytes() const { return shared_size<float>(kThreads); }
//     template <class Block>
//     PTR_DEVICE void run(Block& block) const {
//       auto row = block.template shared<float>("row", kThreads);
//       PerThread<float, Block> value(block);              // registers that live across phases
//       block.phase([&](Thread t) { row.set(t, t.index, x.at(t, block.index().x * kThreads + t.index)); });
//       block.phase([&](Thread t) { value[t] = row.at(t, kThreads - 1 - t.index); });
//       block.warp_sum(value);                             // between phases, in a fixed order
//       ...
//
// <op>.cu includes it with nvcc and launches it (core/launch.cuh). The emulator of the tests includes the same header
// with a C++ compiler and runs it on the host Block (core/block_host.h), which shuffles the order of threads and ranks,
// poisons memory, checks bounds and finds what one thread reads of another's without a barrier between them.
//
// The rules:
// - Threads do something inside phase(f), cluster_phase(f) and each_thread(f) alone. phase ends with a barrier of the
//   block, cluster_phase with one of the cluster, each_thread with none: it is for what touches registers only.
// - What is computed outside of them is uniform: the same for all blocks of a cluster. So block.index() is for phases,
//   block.cluster_index() for outside; without clusters they are the same and both may be used anywhere.
// - A variable outside of a phase that a phase writes is a PerThread or shared memory, never a plain local variable.
// - Vectors are 16 bytes: Vector<float> has 4 elements, Vector<Bfloat16> 8; their first element is at a multiple.
// - bulk_copy(...) moves whole rows of 16 bytes, outside of phases, or inside each_block(f), which runs once a block
//   where source or destination depend on the rank; copy_async(t, ...) moves one Vector of one thread inside a phase.
//   Neither has arrived before wait_bulk() (of the same stage, 0 to 3), which is also a barrier of the block.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"

#ifdef __CUDACC__
#define PTR_DEVICE __device__ __forceinline__
#define PTR_HOST_DEVICE __host__ __device__ __forceinline__
#define PTR_UNROLL _Pragma("unroll")
#else
#define PTR_DEVICE inline
#define PTR_HOST_DEVICE inline
#define PTR_UNROLL
#endif

namespace ptr_fast {

constexpr int kWarp = 32;
constexpr int kBulkStages = 4;

// One thread of a block; ``rank`` is of its block in the cluster.
struct Thread {
  int index;
  int rank;
  PTR_HOST_DEVICE int warp() const { return index / kWarp; }
  PTR_HOST_DEVICE int lane() const { return index % kWarp; }
};

struct Index3 {
  int x, y, z;
};

// N values that stay in registers where N and every index are known to the compiler (PTR_UNROLL before the loop).
template <class T, int N>
struct Registers {
  T values[N];
  PTR_HOST_DEVICE T& operator[](int i) { return values[i]; }
  PTR_HOST_DEVICE const T& operator[](int i) const { return values[i]; }
  PTR_HOST_DEVICE static constexpr int size() { return N; }
};

// 16 bytes, one load or store.
template <class T>
struct alignas(16) Vector : Registers<T, int(16 / sizeof(T))> {};

// Bytes that an array takes of the block's shared memory, a multiple of 128: kernels add them up in shared_bytes().
template <class T>
PTR_HOST_DEVICE constexpr int64_t shared_size(int64_t count) {
  return (count * int64_t(sizeof(T)) + 127) / 128 * 128;
}

template <class To, class From>
PTR_HOST_DEVICE To bits_of(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

PTR_HOST_DEVICE float to_float(float value) { return value; }
PTR_HOST_DEVICE float to_float(Bfloat16 value) { return bits_of<float>(uint32_t(value.bits) << 16); }

// Rounds to the nearest, halves to even, as PyTorch does.
template <class T>
PTR_HOST_DEVICE T from_float(float value);
template <>
PTR_HOST_DEVICE float from_float<float>(float value) {
  return value;
}
template <>
PTR_HOST_DEVICE Bfloat16 from_float<Bfloat16>(float value) {
#ifdef __CUDA_ARCH__
  Bfloat16 rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
  return rounded;
#else
  const uint32_t bits = bits_of<uint32_t>(value);
  if (value != value) return {uint16_t(0x7fff)};
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
#endif
}

// Two bfloat16 in one register, the first in the lower half, as mma takes them.
PTR_HOST_DEVICE uint32_t pack(Bfloat16 first, Bfloat16 second) {
  return uint32_t(first.bits) | uint32_t(second.bits) << 16;
}

// The nearest TF32 (10 bits of mantissa, halves away from zero) as the bits of a float.
PTR_HOST_DEVICE uint32_t to_tf32(float value) {
#ifdef __CUDA_ARCH__
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
  return rounded;
#else
  const uint32_t bits = bits_of<uint32_t>(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
#endif
}

struct Sum {
  PTR_HOST_DEVICE float operator()(float a, float b) const { return a + b; }
  template <class T, int N>
  PTR_HOST_DEVICE Registers<T, N> operator()(const Registers<T, N>& a, const Registers<T, N>& b) const {
    Registers<T, N> sum;
    PTR_UNROLL for (int i = 0; i < N; ++i) sum[i] = (*this)(a[i], b[i]);
    return sum;
  }
};

// A NaN stays a NaN.
struct Max {
  PTR_HOST_DEVICE float operator()(float a, float b) const { return a > b || a != a ? a : b; }
  template <class T, int N>
  PTR_HOST_DEVICE Registers<T, N> operator()(const Registers<T, N>& a, const Registers<T, N>& b) const {
    Registers<T, N> most;
    PTR_UNROLL for (int i = 0; i < N; ++i) most[i] = (*this)(a[i], b[i]);
    return most;
  }
};

}  // namespace ptr_fast

#ifdef __CUDACC__
#include "core/block_device.h"
#else
#include "core/block_host.h"
#endif
