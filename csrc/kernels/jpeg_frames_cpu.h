// The decoder of jpeg_frames.h on the host: one frame to its planes, many frames of a pool by threads.
#pragma once
#include <cstdint>

#include "kernels/jpeg_frames.h"

namespace ptr_fast {

// One segment of a frame to samples; ``planes`` is the whole frame, of layout.frame_bytes(). ``bits`` is left behind
// the last block. Where the status is not kJpegGood, what was not decoded is left as it was.
uint32_t decode_jpeg_segment(const JpegLayout& layout, int segment, const uint32_t* words, int num_words,
                             const uint32_t* tables, JpegBits& bits, uint8_t* planes);

// Frames of a pool, see the note "packed frames"; nothing of it is checked here.
struct JpegPool {
  JpegLayout layout;
  const uint32_t* words;
  const int64_t* segment_begin;  // [num_frames * num_segments + 1]
  const uint8_t* tables_of;      // [num_frames]
  const uint32_t* tables;        // [num_sets, kJpegTableWords]
  int64_t num_frames;
};

// planes[i] = frame index[i] of the pool (the nearest that exists), i < num_images; status[i * num_segments + s].
void decode_jpeg_frames(const JpegPool& pool, const int64_t* index, int64_t num_images, uint8_t* planes,
                        uint32_t* status, int num_threads);

}  // namespace ptr_fast
