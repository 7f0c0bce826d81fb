#include "core/launch.cuh"
#include "kernels/jpeg_frames_block.h"
#include "kernels/jpeg_frames_cuda.h"

namespace ptr_fast {

void decode_jpeg_frames_cuda(const JpegPool& pool, int64_t num_words, int64_t num_tables, const int64_t* index,
                             int64_t num_images, uint8_t* planes, uint32_t* status, int64_t stream) {
  const int64_t num_segments = pool.layout.num_segments(), num_blocks = num_images * num_segments;
  check(num_blocks <= INT32_MAX, "jpeg_frames: expected at most 2^31 - 1 segments in one launch, got ", num_blocks);
  const JpegFrames kernel{
      pool.layout,
      {pool.words, num_words},
      {pool.segment_begin, pool.num_frames * num_segments + 1},
      {pool.tables_of, pool.num_frames},
      {pool.tables, num_tables},
      {index, num_images},
      {planes, num_images * pool.layout.frame_bytes()},
      {status, num_blocks},
      pool.num_frames,
  };
  launch(kernel, {int(num_blocks), 1, 1}, stream);
}

}  // namespace ptr_fast
