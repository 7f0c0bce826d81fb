// A JPEG file as far as the decoder of kernels/jpeg_frames.h takes it: headers read and checked, segments found.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/jpeg_frames.h"

namespace ptr_fast {

// A table as the file has it: how many codes have each length from 1 to 16, and their symbols.
struct JpegHuffman {
  uint8_t counts[16];
  uint8_t symbols[256];

  int num_symbols() const {
    int total = 0;
    for (const uint8_t count : counts) total += count;
    return total;
  }
  friend bool operator==(const JpegHuffman&, const JpegHuffman&) = default;
};

// Headers of a file; ``layout`` without restart markers has one segment. Components are luma, Cb, Cr.
struct JpegFile {
  JpegLayout layout;
  JpegHuffman dc[2], ac[2];  // of luma, of both colours
  uint8_t quanta[3][64];     // of each component, in the order of the coefficients
  bool has_restart_markers;
  int64_t scan_header;  // byte at which the marker of the scan begins
  int64_t scan;         // byte at which its data begins
};

// Reads the headers of a baseline JPEG with one interleaved scan: grey, or YCbCr of 4:4:4, 4:2:2, 4:4:0 or 4:2:0.
//
// Throws std::invalid_argument with one sentence that says what else the file is.
JpegFile read_jpeg_headers(const uint8_t* data, int64_t size);

// A set of tables for the decoder, kJpegTableWords words.
void write_jpeg_tables(const JpegFile& file, uint32_t* tables);

// Words that the segments of a file can take at most.
inline int64_t max_jpeg_words(const JpegFile& file, int64_t size) {
  return (size - file.scan) / 4 + file.layout.num_segments();
}

// The segments of a file in the form of the note "packed frames", each decoded once to see that it can be.
//
// words: room for max_jpeg_words. ends: [num_segments], word behind each segment. Returns the words taken.
// Throws std::invalid_argument: the file is cut off, a segment is damaged, or more follows it than there should be.
int64_t pack_jpeg(const JpegFile& file, const uint8_t* data, int64_t size, uint32_t* words, int64_t* ends);

// Planes of a whole file, layout.frame_bytes() bytes; throws as pack_jpeg does.
void decode_jpeg_file(const JpegFile& file, const uint8_t* data, int64_t size, uint8_t* planes);

// The quantised coefficients of a file, 64 for each block in the order of the file; throws as pack_jpeg does.
std::vector<int16_t> read_jpeg_coefficients(const JpegFile& file, const uint8_t* data, int64_t size);

}  // namespace ptr_fast
