// The inner loops of augment over one image of `pixels` pixels in RGB order. Compiled once per instruction set.
#pragma once
#include <cstdint>

namespace ptr_fast {

enum class AugmentKind { kBrightness = 0, kContrast = 1, kSaturation = 2, kHue = 3 };

// strength: shift in units of the full range, factor, factor, shift in turns.
struct AugmentOperation {
  AugmentKind kind;
  float strength;
};

struct AugmentLoops {
  // RGB pixels of YUV 4:2:0 planes; H and W even. rows holds 4 * W numbers.
  void (*decode_yuv420)(const std::uint8_t* planes, std::int64_t H, std::int64_t W, std::int16_t* rows,
                        std::uint8_t* out);
  // Four operations in their order, each followed by a clip, and the truncation to 8 bits. planes holds
  // 3 * (pixels rounded up to kAugmentPad) floats.
  void (*jitter)(const std::uint8_t* in, std::int64_t pixels, const AugmentOperation* operations, float* planes,
                 std::uint8_t* out);
  // out = in / 255
  void (*scale)(const std::uint8_t* in, std::int64_t count, float* out);
  void (*scale_bfloat16)(const std::uint8_t* in, std::int64_t count, std::uint16_t* out);
};

constexpr std::int64_t kAugmentPad = 16;

extern const AugmentLoops augment_loops_baseline;
extern const AugmentLoops augment_loops_avx2;
extern const AugmentLoops augment_loops_avx512;

}  // namespace ptr_fast
