// Colours are in units of 0 to 255, so a colour that no operation changes stays the whole number that it was.
//
// Note "Saturation and hue without a round trip" (ptr_fast/kernels/augment/planar.py): with V and m the largest and the
// smallest channel and C = V - m, a saturation factor f makes x to V - (V - x) * min(f, V / C), and a shift of hue
// makes a channel m + C * ramp(hue).
#include "kernels/augment_simd.h"

#include <cstddef>

#include "core/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

using ptr_fast::AugmentKind;
using ptr_fast::AugmentOperation;
using ptr_fast::kAugmentPad;
using std::int16_t;
using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

constexpr int64 kChunk = 256;  // pixels: three planes of a chunk are 3 kB
constexpr float kFull = 255.0f, kTiny = 1e-30f;

// One instruction each; of `a < b ? a : b` the compiler makes two, for the sake of NaN. (The forms of AVX-512 with a
// mask avoid a false warning of GCC 12 about the ones without.)
#if defined(__AVX512F__)
inline Vec minimum(Vec a, Vec b) { return (Vec)_mm512_maskz_min_ps(__mmask16(-1), (__m512)a, (__m512)b); }
inline Vec maximum(Vec a, Vec b) { return (Vec)_mm512_maskz_max_ps(__mmask16(-1), (__m512)a, (__m512)b); }
#elif defined(__AVX2__)
inline Vec minimum(Vec a, Vec b) { return (Vec)_mm256_min_ps((__m256)a, (__m256)b); }
inline Vec maximum(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
inline Vec minimum(Vec a, Vec b) { return (Vec)_mm_min_ps((__m128)a, (__m128)b); }
inline Vec maximum(Vec a, Vec b) { return (Vec)_mm_max_ps((__m128)a, (__m128)b); }
#else
inline Vec minimum(Vec a, Vec b) { return a < b ? a : b; }
inline Vec maximum(Vec a, Vec b) { return a > b ? a : b; }
#endif

inline Vec constant(float value) { return splat<Vec>(value); }
inline Vec clip(Vec x, float high) { return minimum(maximum(x, Vec{}), constant(high)); }

// What an operation needs: strength in the units of this file, and for the contrast what is added per channel.
struct Step {
  AugmentKind kind;
  float strength;
  float add[3];
};

inline void saturate(Vec& r, Vec& g, Vec& b, float factor) {
  const Vec value = maximum(maximum(r, g), b);
  const Vec chroma = maximum(value - minimum(minimum(r, g), b), constant(kTiny));  // black has V = C = 0 and stays
  const Vec scale = minimum(value / chroma, constant(factor));
  r = clip(value - (value - r) * scale, kFull);
  g = clip(value - (value - g) * scale, kFull);
  b = clip(value - (value - b) * scale, kFull);
}

// shift in sextants, in [0, 6)
inline void shift_hue(Vec& r, Vec& g, Vec& b, float shift) {
  const Vec value = maximum(maximum(r, g), b), low = minimum(minimum(r, g), b), chroma = value - low;
  // Hue in sextants, times chroma: 0 at red, 2 at green, 4 at blue.
  Vec hue = (r - g) + 4.0f * chroma;
  hue = g == value ? (b - r) + 2.0f * chroma : hue;
  hue = r == value ? g - b : hue;
  hue = hue / maximum(chroma, constant(kTiny)) + constant(shift);  // in [-1, 11); grey has C = 0 and stays
  hue = hue >= constant(6.0f) ? hue - 6.0f : hue;
  hue = hue < Vec{} ? hue + 6.0f : hue;
  const Vec red = hue - 3.0f, green = hue - 2.0f, blue = hue - 4.0f;
  r = low + chroma * clip(maximum(red, -red) - 1.0f, 1.0f);
  g = low + chroma * clip(2.0f - maximum(green, -green), 1.0f);
  b = low + chroma * clip(2.0f - maximum(blue, -blue), 1.0f);
}

// Whole vectors: may run past `pixels` into the padding. The steps are the same for all vectors, so their branches
// cost nothing, and the three colours stay in registers.
void run_steps(float* red, float* green, float* blue, int64 pixels, const Step* steps, int num_steps) {
  for (int64 i = 0; i < pixels; i += kLanes) {
    Vec r = load<Vec>(red + i), g = load<Vec>(green + i), b = load<Vec>(blue + i);
    for (int k = 0; k < num_steps; ++k) {
      const Step& step = steps[k];
      switch (step.kind) {
        case AugmentKind::kBrightness:
          r = clip(r + step.strength, kFull);
          g = clip(g + step.strength, kFull);
          b = clip(b + step.strength, kFull);
          break;
        case AugmentKind::kContrast:
          r = clip(r * step.strength + step.add[0], kFull);
          g = clip(g * step.strength + step.add[1], kFull);
          b = clip(b * step.strength + step.add[2], kFull);
          break;
        case AugmentKind::kSaturation:
          saturate(r, g, b, step.strength);
          break;
        case AugmentKind::kHue:
          shift_hue(r, g, b, step.strength);
          break;
      }
    }
    store(red + i, r);
    store(green + i, g);
    store(blue + i, b);
  }
}

// Adds a chunk to the sums per lane of a vector; the chunk itself is summed in float.
void add_up(const float* x, int64 count, double* sums) {
  Vec lanes = {};
  int64 i = 0;
  for (; i + kLanes <= count; i += kLanes) lanes += load<Vec>(x + i);
  for (int j = 0; j < kLanes; ++j) sums[j] += double(lanes[j]);
  for (; i < count; ++i) sums[0] += double(x[i]);
}

void unpack(const uint8_t* __restrict in, int64 pixels, float* __restrict red, float* __restrict green,
            float* __restrict blue) {
  for (int64 i = 0; i < pixels; ++i) {
    red[i] = float(in[3 * i]);
    green[i] = float(in[3 * i + 1]);
    blue[i] = float(in[3 * i + 2]);
  }
}

void pack(const float* __restrict red, const float* __restrict green, const float* __restrict blue, int64 pixels,
          uint8_t* __restrict out) {
  for (int64 i = 0; i < pixels; ++i) {
    out[3 * i] = uint8_t(int(red[i]));
    out[3 * i + 1] = uint8_t(int(green[i]));
    out[3 * i + 2] = uint8_t(int(blue[i]));
  }
}

void jitter(const uint8_t* in, int64 pixels, const AugmentOperation* operations, float* planes, uint8_t* out) {
  const int64 stride = (pixels + kAugmentPad - 1) / kAugmentPad * kAugmentPad;
  float *const red = planes, *const green = planes + stride, *const blue = planes + 2 * stride;
  for (int64 i = pixels; i < stride; ++i) red[i] = green[i] = blue[i] = 0.0f;
  Step steps[4];
  for (int k = 0; k < 4; ++k) {
    float strength = operations[k].strength;
    if (operations[k].kind == AugmentKind::kBrightness) strength *= kFull;
    if (operations[k].kind == AugmentKind::kHue) strength = 6.0f * (strength - __builtin_floorf(strength));
    steps[k] = {operations[k].kind, strength, {}};
  }
  // A contrast needs the mean of the whole image before it: all steps up to it run first.
  bool first = true;
  for (int begin = 0;;) {
    int end = first ? 0 : begin + 1;
    while (end < 4 && steps[end].kind != AugmentKind::kContrast) ++end;
    double sums[3][kLanes] = {};
    for (int64 at = 0; at < pixels; at += kChunk) {
      const int64 count = pixels - at < kChunk ? pixels - at : kChunk;
      if (first) unpack(in + 3 * at, count, red + at, green + at, blue + at);
      run_steps(red + at, green + at, blue + at, count, steps + begin, end - begin);
      if (end == 4) {
        pack(red + at, green + at, blue + at, count, out + 3 * at);
      } else {
        add_up(red + at, count, sums[0]);
        add_up(green + at, count, sums[1]);
        add_up(blue + at, count, sums[2]);
      }
    }
    if (end == 4) return;
    for (int c = 0; c < 3; ++c) {
      double total = 0;
      for (const double lane : sums[c]) total += lane;
      steps[end].add[c] = float(total / double(pixels) * (1.0 - double(steps[end].strength)));
    }
    begin = end;
    first = false;
  }
}

// One row of a colour difference, from its row of samples (`near`) and the next nearest one. sums holds width / 2 + 2.
void upsample_row(const uint8_t* __restrict near, const uint8_t* __restrict far, int64 width, int16_t* __restrict sums,
                  int16_t* __restrict out) {
  const int64 samples = width / 2;
  for (int64 i = 0; i < samples; ++i) sums[i + 1] = int16_t(3 * near[i] + far[i]);
  sums[0] = sums[1];
  sums[samples + 1] = sums[samples];
  for (int64 i = 0; i < samples; ++i) {
    out[2 * i] = int16_t(((3 * sums[i + 1] + sums[i] + 8) >> 4) - 128);
    out[2 * i + 1] = int16_t(((3 * sums[i + 1] + sums[i + 2] + 7) >> 4) - 128);
  }
}

inline uint8_t clip_byte(int x) { return uint8_t(x < 0 ? 0 : x > 255 ? 255 : x); }

void decode_yuv420(const uint8_t* planes, int64 H, int64 W, int16_t* rows, uint8_t* out) {
  const int64 samples = W / 2, last = H / 2 - 1;
  const uint8_t *const blue = planes + H * W, *const red = blue + (H / 2) * samples;
  int16_t *const cb = rows, *const cr = rows + W, *const sums = rows + 2 * W;
  for (int64 y = 0; y < H; ++y) {
    int64 next = (y >> 1) + (y & 1 ? 1 : -1);
    next = next < 0 ? 0 : next > last ? last : next;
    upsample_row(blue + (y >> 1) * samples, blue + next * samples, W, sums, cb);
    upsample_row(red + (y >> 1) * samples, red + next * samples, W, sums, cr);
    const uint8_t* __restrict luma = planes + y * W;
    uint8_t* __restrict pixel = out + 3 * y * W;
    for (int64 x = 0; x < W; ++x) {
      pixel[3 * x] = clip_byte(luma[x] + ((91881 * cr[x] + 32768) >> 16));
      pixel[3 * x + 1] = clip_byte(luma[x] + ((-22554 * cb[x] - 46802 * cr[x] + 32768) >> 16));
      pixel[3 * x + 2] = clip_byte(luma[x] + ((116130 * cb[x] + 32768) >> 16));
    }
  }
}

// kLanes bytes as floats.
inline Vec widen(const uint8_t* in) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
  return (Vec)_mm512_maskz_cvtepi32_ps(__mmask16(-1), _mm512_maskz_cvtepu8_epi32(__mmask16(-1), bytes));
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in))));
#else
  Vec out;
  for (int i = 0; i < kLanes; ++i) out[i] = float(in[i]);
  return out;
#endif
}

// x / 255, rounded once. A product with the inverse and one correction gives the same for all 256 values.
inline Vec scaled(Vec x) {
#if defined(__AVX512F__)
  const __m512 inverse = (__m512)constant(1.0f / kFull), quotient = (__m512)x * inverse;
  return (Vec)_mm512_fmadd_ps(_mm512_fnmadd_ps(quotient, (__m512)constant(kFull), (__m512)x), inverse, quotient);
#elif defined(__AVX2__)
  const __m256 inverse = (__m256)constant(1.0f / kFull), quotient = (__m256)x * inverse;
  return (Vec)_mm256_fmadd_ps(_mm256_fnmadd_ps(quotient, (__m256)constant(kFull), (__m256)x), inverse, quotient);
#else
  return x / kFull;
#endif
}

typedef uint32_t Bits __attribute__((vector_size(PTR_FAST_VECTOR_BYTES)));
typedef uint16_t Halves __attribute__((vector_size(PTR_FAST_VECTOR_BYTES / 2)));

inline void put(float* out, Vec x) { store(out, x); }
inline void put(uint16_t* out, Vec x) {  // bfloat16, to the nearest, ties to even
  const Bits bits = (Bits)x;
  const Halves halves = __builtin_convertvector((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, Halves);
  __builtin_memcpy(out, &halves, sizeof halves);
}

template <class T>
void scale_to(const uint8_t* in, int64 count, T* out) {
  int64 i = 0;
  for (; i + kLanes <= count; i += kLanes) put(out + i, scaled(widen(in + i)));
  if (i == count) return;
  uint8_t last[kLanes] = {};
  T result[kLanes];
  __builtin_memcpy(last, in + i, size_t(count - i));
  put(result, scaled(widen(last)));
  __builtin_memcpy(out + i, result, size_t(count - i) * sizeof(T));
}

void scale(const uint8_t* in, int64 count, float* out) { scale_to(in, count, out); }
void scale_bfloat16(const uint8_t* in, int64 count, uint16_t* out) { scale_to(in, count, out); }

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const AugmentLoops PTR_FAST_JOIN(augment_loops_, PTR_FAST_ISA) = {decode_yuv420, jitter, scale, scale_bfloat16};
}  // namespace ptr_fast
