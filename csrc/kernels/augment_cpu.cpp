#include <algorithm>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "core/isa.h"
#include "core/parallel.h"
#include "kernels/augment.h"
#include "kernels/augment_simd.h"

namespace ptr_fast {
namespace {

// Below this many pixels a second thread costs more than it does.
constexpr int64_t kPixelsPerThread = 16 * 1024;

void check_arguments(const Augment& op) {
  for (int64_t i = 0; op.index && i < op.B; ++i) {
    check(op.index[i] >= 0 && op.index[i] < op.num_frames, "index: expected 0 to ", op.num_frames - 1, ", got ",
          op.index[i]);
  }
  for (int64_t i = 0; op.apply && i < 4 * op.B; ++i) {
    check(op.order[i] >= 0 && op.order[i] < 4, "order: expected operations 0 to 3, got ", op.order[i]);
  }
}

// Pixel (y, x) of the result is pixel (y + down, x + right) of the frame, or the nearest one that exists.
void crop(const uint8_t* frame, int64_t H, int64_t W, int64_t down, int64_t right, uint8_t* out) {
  right = std::clamp(right, -W, W);
  const int64_t first = std::max<int64_t>(-right, 0), last = std::min(W, W - right);  // columns that exist
  for (int64_t y = 0; y < H; ++y, out += 3 * W) {
    const uint8_t* const row = frame + 3 * W * std::clamp<int64_t>(y + down, 0, H - 1);
    for (int64_t x = 0; x < first; ++x) std::memcpy(out + 3 * x, row, 3);
    std::memcpy(out + 3 * first, row + 3 * (first + right), size_t(3 * (last - first)));
    for (int64_t x = last; x < W; ++x) std::memcpy(out + 3 * x, row + 3 * (W - 1), 3);
  }
}

}  // namespace

void augment(const Augment& op, int num_threads) {
  check_arguments(op);
  const AugmentLoops& loops = PTR_FAST_SELECT_ISA(augment_loops);
  const int64_t pixels = op.H * op.W, bytes = 3 * pixels;
  const int threads = int(std::clamp<int64_t>(op.B * pixels / kPixelsPerThread, 1, num_threads));
  parallel_for(op.B, threads, [&](int64_t i) {
    thread_local std::vector<uint8_t> decoded, cropped, jittered;
    thread_local std::vector<int16_t> rows;
    thread_local std::vector<float> planes;
    const uint8_t* image = op.frames + (op.yuv420 ? bytes / 2 : bytes) * (op.index ? op.index[i] : i);
    if (op.yuv420) {
      decoded.resize(bytes);
      rows.resize(4 * op.W);
      loops.decode_yuv420(image, op.H, op.W, rows.data(), decoded.data());
      image = decoded.data();
    }
    if (op.offsets) {
      const int64_t down = op.offsets[2 * i] - op.padding, right = op.offsets[2 * i + 1] - op.padding;
      if (down != 0 || right != 0) {
        cropped.resize(bytes);
        crop(image, op.H, op.W, down, right, cropped.data());
        image = cropped.data();
      }
    }
    if (op.apply && op.apply[i]) {
      const float strengths[] = {op.brightness[i], op.contrast[i], op.saturation[i], op.hue[i]};
      AugmentOperation operations[4];
      for (int k = 0; k < 4; ++k) {
        const int64_t kind = op.order[4 * i + k];
        operations[k] = {AugmentKind(kind), strengths[kind]};
      }
      planes.resize(3 * (pixels + kAugmentPad));
      jittered.resize(bytes);
      loops.jitter(image, pixels, operations, planes.data(), jittered.data());
      image = jittered.data();
    }
    if (op.bfloat16) {
      loops.scale_bfloat16(image, bytes, static_cast<uint16_t*>(op.out) + bytes * i);
    } else {
      loops.scale(image, bytes, static_cast<float*>(op.out) + bytes * i);
    }
  });
}

}  // namespace ptr_fast
