// Gather, crop, colour jitter, scale to [0, 1] and cast: from stored 8-bit frames to what the nets take, in one pass.
#pragma once
#include <cstdint>

namespace ptr_fast {

// Image i of the result is frame index[i] of a pool [num_frames, H, W, 3], or frame i where index is null. yuv420: the
// frames are planes, 3 * H * W / 2 bytes each, H and W even (ptr_fast/kernels/augment/yuv420.py).
// offsets ([B, 2], row and column of the window in the frame padded by its repeated edge) and the jitter (apply null)
// may be missing. order is [B, 4]: 0 brightness, 1 contrast, 2 saturation, 3 hue. out is [B, H, W, 3], float or
// bfloat16. The definition is ptr_fast/kernels/augment/reference.py.
struct Augment {
  const std::uint8_t* frames;
  bool yuv420;
  std::int64_t num_frames, B, H, W;
  const std::int64_t* index;
  const std::int64_t* offsets;
  std::int64_t padding;
  const bool* apply;
  const std::int64_t* order;
  const float *brightness, *contrast, *saturation, *hue;
  void* out;
  bool bfloat16;
};

// Gives the same bits for any num_threads. std::invalid_argument for an index or an operation that does not exist.
void augment(const Augment& op, int num_threads);

}  // namespace ptr_fast
