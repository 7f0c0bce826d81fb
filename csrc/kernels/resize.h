// Antialiased Lanczos resize of 8-bit RGB images: one pass per axis, in Pillow's fixed-point arithmetic, bit for bit.
//
// A level of a result is (2^21 + sum of level * weight) >> 22, kept in 0 to 255, where the weights of a result's window
// are whole numbers that stand for units of 2^-22. Between the passes levels are 8-bit. Definition: ptr_fast/resize.py.
#pragma once
#include <cstdint>
#include <vector>

namespace ptr_fast {

struct ResizeLoops;

// One axis: result i is made of 4 * count neighbours from `first` on, with the words of their weights from `words` on.
struct ResizeAxis {
  struct Window {
    std::int64_t first, count, words;
  };
  std::vector<Window> windows;
  std::vector<std::int32_t> words;
};

// Everything that depends on the sizes alone, for the instruction set in use when it is made; run() may be called from
// several threads.
class Resize {
 public:
  // Sizes in pixels. std::invalid_argument where one is not positive or larger than 2^20.
  Resize(std::int64_t height_in, std::int64_t width_in, std::int64_t height_out, std::int64_t width_out);

  // num_images times [height_in, width_in, 3] to [height_out, width_out, 3], dense.
  void run(const std::uint8_t* in, std::int64_t num_images, std::uint8_t* out) const;

  const std::int64_t height_in, width_in, height_out, width_out;

 private:
  void columns(const std::uint8_t* in, std::int64_t num_rows, std::uint8_t* out) const;
  void rows(const std::uint8_t* in, std::int64_t num_bytes, std::uint8_t* out) const;

  const ResizeLoops& loops_;
  const bool rows_first_;
  const ResizeAxis columns_, rows_;
};

}  // namespace ptr_fast
