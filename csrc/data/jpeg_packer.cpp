#include "data/jpeg_packer.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"

namespace ptr_fast {
namespace {

std::string told(const JpegLayout& layout) {
  return text(layout.height, "x", layout.width, " of ", layout.num_components, " components, ", layout.horizontal, "x",
              layout.vertical, " pixels per colour sample, a restart after ", layout.mcus_per_segment, " of ",
              layout.num_mcus(), " MCUs");
}

}  // namespace

JpegFile JpegPacker::headers(const std::vector<ByteView>& files, int64_t number) const {
  JpegFile file;
  try {
    file = read_jpeg_headers(files[number].data, files[number].size);
  } catch (const std::invalid_argument& error) {
    check(false, "frame ", number, ": ", error.what());
  }
  const JpegLayout &got = file.layout, &want = layout_;
  const bool is_same = got.height == want.height && got.width == want.width &&
                       got.num_components == want.num_components && got.horizontal == want.horizontal &&
                       got.vertical == want.vertical && got.mcus_per_segment == want.mcus_per_segment;
  check(is_same, "frame ", number, ": expected ", told(want), "; got ", told(got));
  return file;
}

int64_t JpegPacker::max_words(const std::vector<ByteView>& files) const {
  int64_t total = 0;
  for (size_t i = 0; i < files.size(); ++i) total += max_jpeg_words(headers(files, int64_t(i)), files[i].size);
  return total;
}

uint8_t JpegPacker::set_of(const JpegFile& file, int64_t number) {
  std::vector<uint32_t> mine(kJpegTableWords);
  write_jpeg_tables(file, mine.data());
  const int64_t num_sets = int64_t(tables_.size()) / kJpegTableWords;
  for (int64_t set = 0; set < num_sets; ++set) {
    if (std::equal(mine.begin(), mine.end(), tables_.begin() + set * kJpegTableWords)) return uint8_t(set);
  }
  check(num_sets < kMaxSets, "frame ", number, ": expected at most ", kMaxSets,
        " different sets of quantisation and Huffman tables, got one more");
  tables_.insert(tables_.end(), mine.begin(), mine.end());
  return uint8_t(num_sets);
}

PackedFrames JpegPacker::pack(const std::vector<ByteView>& files, int num_threads) {
  const int64_t n = int64_t(files.size());
  const int num_segments = layout_.num_segments();
  std::vector<JpegFile> headers_of(n);
  std::vector<int64_t> begins(n + 1, 0), taken(n);
  PackedFrames packed;
  packed.tables_of.resize(n);
  packed.segment_ends.resize(n * num_segments);
  for (int64_t i = 0; i < n; ++i) {
    headers_of[i] = headers(files, i);
    packed.tables_of[i] = set_of(headers_of[i], i);
    begins[i + 1] = begins[i] + max_jpeg_words(headers_of[i], files[i].size);
  }
  std::vector<uint32_t>& words = packed.words;
  words.resize(begins[n]);
  parallel_for(n, num_threads, [&](int64_t i) {
    try {
      taken[i] = pack_jpeg(headers_of[i], files[i].data, files[i].size, words.data() + begins[i],
                           packed.segment_ends.data() + i * num_segments);
    } catch (const std::invalid_argument& error) {
      check(false, "frame ", i, ": ", error.what());
    }
  });
  int64_t end = 0;
  for (int64_t i = 0; i < n; ++i) {
    std::copy(words.begin() + begins[i], words.begin() + begins[i] + taken[i], words.begin() + end);
    for (int s = 0; s < num_segments; ++s) packed.segment_ends[i * num_segments + s] += end;
    end += taken[i];
  }
  words.resize(end);
  return packed;
}

}  // namespace ptr_fast
