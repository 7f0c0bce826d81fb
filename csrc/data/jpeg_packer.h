// Brings JPEG files of one layout into the form of the note "packed frames" (kernels/jpeg_frames.h).
#pragma once
#include <cstdint>
#include <vector>

#include "data/jpeg_file.h"

namespace ptr_fast {

struct ByteView {
  const uint8_t* data;
  int64_t size;
};

// What pack() makes of n files.
struct PackedFrames {
  std::vector<uint32_t> words;
  std::vector<int64_t> segment_ends;  // [n * num_segments], in words of this piece
  std::vector<uint8_t> tables_of;     // [n]
};

class JpegPacker {
 public:
  static constexpr int kMaxSets = 256;

  explicit JpegPacker(const JpegLayout& layout) : layout_(layout) {}

  // At least the words that pack() will take, from the headers alone: one or two of a hundred too many.
  int64_t max_words(const std::vector<ByteView>& files) const;

  // Throws std::invalid_argument that names the file by its number: it cannot be read, has another layout, or brings
  // more sets of tables than a pool can have. Every block of every file is decoded once to see that it can be.
  PackedFrames pack(const std::vector<ByteView>& files, int num_threads);

  // [num_sets * kJpegTableWords], of all files packed so far.
  const std::vector<uint32_t>& tables() const { return tables_; }
  const JpegLayout& layout() const { return layout_; }

 private:
  JpegFile headers(const std::vector<ByteView>& files, int64_t number) const;
  uint8_t set_of(const JpegFile& file, int64_t number);

  JpegLayout layout_;
  std::vector<uint32_t> tables_;
};

}  // namespace ptr_fast
