// The inner loops of resize. Compiled once per instruction set.
#pragma once
#include <cstdint>

namespace ptr_fast {

constexpr std::int64_t kResizePixels = 16;  // that spread_columns takes at a time
constexpr int kResizeBits = 22;

// Neighbours are taken four at a time, with four weights.
struct ResizeLoops {
  // Rows of a strip, R below: those whose columns are resized together.
  std::int64_t strip;
  // Four weights of at most 24 bits with their sign to the num_words words that the loops take.
  std::int64_t num_words;
  void (*split_weights)(const std::int32_t* weights, std::int32_t* words);
  // R rows of `pixels` RGB pixels (a multiple of kResizePixels) to quads [pixels / 4, 3, R]: the levels of four pixels
  // side by side. The R quads are in an order that sum_columns knows.
  void (*spread_columns)(const std::uint8_t* const* rows, std::int64_t pixels, std::int32_t* quads);
  // One pixel of the result in all rows of a strip: `count` quads with their weights to levels [3, R].
  void (*sum_columns)(const std::int32_t* quads, const std::int32_t* words, std::int64_t count, std::uint8_t* levels);
  // Levels [bytes, R] to R rows of `bytes` (a multiple of 16).
  void (*collect_rows)(const std::uint8_t* levels, std::int64_t bytes, std::uint8_t* const* rows);
  // One row of the result, of `bytes` levels, from 4 * count rows.
  void (*sum_rows)(const std::uint8_t* const* rows, const std::int32_t* words, std::int64_t count, std::int64_t bytes,
                   std::uint8_t* out);
};

extern const ResizeLoops resize_loops_baseline;
extern const ResizeLoops resize_loops_avx2;
extern const ResizeLoops resize_loops_avx512;

}  // namespace ptr_fast
