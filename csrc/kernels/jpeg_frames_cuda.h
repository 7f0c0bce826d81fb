// Launches of the kernel in jpeg_frames_block.h.
#pragma once
#include <cstdint>

#include "kernels/jpeg_frames_cpu.h"

namespace ptr_fast {

// decode_jpeg_frames on a GPU: every pointer of ``pool``, and the others, are of its memory. stream: cudaStream_t as an
// integer. num_words, num_tables: elements of pool.words and pool.tables.
void decode_jpeg_frames_cuda(const JpegPool& pool, int64_t num_words, int64_t num_tables, const int64_t* index,
                             int64_t num_images, uint8_t* planes, uint32_t* status, int64_t stream);

}  // namespace ptr_fast
