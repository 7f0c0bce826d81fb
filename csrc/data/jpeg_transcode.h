// Writes a JPEG file anew with restart markers, from the same coefficients.
#pragma once
#include <cstdint>
#include <vector>

#include "data/jpeg_file.h"

namespace ptr_fast {

// Whether a file has the standard Huffman tables and a restart marker after every row of MCUs.
bool is_jpeg_restart(const JpegFile& file);

// The file with the standard Huffman tables (T.81, annex K.3) and a restart marker after every row of MCUs; the same
// coefficients and quantisation, so the same pixels in every decoder. All other markers stay; what follows the end of
// the file does not. A file that is so already comes back byte for byte.
//
// Throws std::invalid_argument with one sentence where the file is not one that jpeg_file.h reads.
std::vector<uint8_t> add_jpeg_restarts(const uint8_t* data, int64_t size);

}  // namespace ptr_fast
