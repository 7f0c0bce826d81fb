// Vectors of the compiler's own vector extension, and tiles of columns. For <op>_simd.cpp files only, which are
// compiled once per instruction set: everything here lives in an unnamed namespace, so that no two of them share a
// function.
#pragma once
#include <cstdint>

namespace {

using int64 = std::int64_t;

typedef float Vec __attribute__((vector_size(PTR_FAST_VECTOR_BYTES)));
constexpr int kLanes = PTR_FAST_VECTOR_BYTES / 4;

// Any alignment.
template <class V>
inline V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
inline void store(float* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class V>
inline V splat(float value) {
  return value - V{};  // not plus, which is an operation: -0 + 0 is 0
}

// max(v, 0) that keeps a NaN.
template <class V>
inline V relu(V v) {
  return v < splat<V>(0) ? splat<V>(0) : v;
}
// y <= 0 ? 0 : v, so that a NaN in y keeps v.
template <class V>
inline V mask(V v, V y) {
  return y <= splat<V>(0) ? splat<V>(0) : v;
}

// A tile: U vectors of type V side by side; width in columns.
template <class V_, int U_>
struct Tile {
  using V = V_;
  static constexpr int U = U_;
  static constexpr int kStep = sizeof(V) / 4;
  static constexpr int kWidth = kStep * U;
};

// Calls f(tile, first_column) over all columns: wide tiles, then single vectors, then single columns.
template <class F>
inline void for_each_tile(int64 cols, const F& f) {
  int64 c = 0;
  for (; c + 4 * kLanes <= cols; c += 4 * kLanes) f(Tile<Vec, 4>{}, c);
  for (; c + kLanes <= cols; c += kLanes) f(Tile<Vec, 1>{}, c);
  for (; c < cols; ++c) f(Tile<float, 1>{}, c);
}

}  // namespace
