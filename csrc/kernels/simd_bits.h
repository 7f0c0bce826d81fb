// Masks of one bit per lane. For <op>_simd.cpp files, as core/simd.h.
#pragma once
#include "core/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

// Not v <= 0: where v is positive or NaN.
inline unsigned bits_of(Vec v) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_NLE_UQ);
#elif defined(__AVX2__)
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_setzero_ps(), _CMP_NLE_UQ)));
#else
  unsigned bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= unsigned(!(v[i] <= 0)) << i;
  return bits;
#endif
}
inline unsigned bits_of(float v) { return !(v <= 0); }

// v where the lane's bit is set, else 0; bits above the last lane are ignored.
inline Vec keep(Vec v, unsigned bits) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_mov_ps(__mmask16(bits), (__m512)v);
#else
  typedef std::int32_t Ints __attribute__((vector_size(PTR_FAST_VECTOR_BYTES)));
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = 1 << i;
  return (Vec)((Ints)v & (((Ints{} + int(bits)) & lane) != 0));
#endif
}
inline float keep(float v, unsigned bits) { return bits & 1 ? v : 0.0f; }

}  // namespace
