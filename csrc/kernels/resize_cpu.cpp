#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "core/check.h"
#include "core/isa.h"
#include "kernels/resize.h"
#include "kernels/resize_simd.h"

namespace ptr_fast {
namespace {

constexpr int64_t kLargest = int64_t(1) << 20;
constexpr double kLobes = 3.0;
constexpr int64_t kLargestStrip = 64;

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return -kLobes <= x && x < kLobes ? sinc(x) * sinc(x / kLobes) : 0.0; }

// Memory for whole vectors: one that straddles two cache lines costs twice as much.
template <class T>
struct Vectors {
  struct alignas(64) Line {
    T values[64 / sizeof(T)];
  };
  std::vector<Line> lines;

  T* of_size(int64_t size) {
    lines.resize((size * sizeof(T) + sizeof(Line) - 1) / sizeof(Line));
    return lines.data()->values;
  }
};

// Weights of one result in units of 2^-22, and the first pixel that they belong to.
std::vector<int32_t> window(int64_t num_in, int64_t num_out, int64_t i, int64_t* first) {
  const double scale = double(num_in) / double(num_out), stretch = std::max(scale, 1.0), reach = kLobes * stretch;
  const double centre = (double(i) + 0.5) * scale, shrink = 1.0 / stretch;
  *first = std::max<int64_t>(int64_t(centre - reach + 0.5), 0);
  const int64_t last = std::min<int64_t>(int64_t(centre + reach + 0.5), num_in);
  std::vector<double> weights(last - *first);
  double total = 0.0;
  for (int64_t k = 0; k < last - *first; ++k) {
    weights[k] = lanczos((double(k + *first) - centre + 0.5) * shrink);
    total += weights[k];
  }
  std::vector<int32_t> whole(weights.size());
  for (size_t k = 0; k < weights.size(); ++k) {
    const double weight = (total != 0.0 ? weights[k] / total : weights[k]) * (1 << kResizeBits);
    whole[k] = int32_t(weight < 0.0 ? weight - 0.5 : weight + 0.5);
  }
  return whole;
}

int64_t rounded_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// aligned: the first of four neighbours is a multiple of four.
ResizeAxis make_axis(const ResizeLoops& loops, int64_t num_in, int64_t num_out, bool aligned) {
  ResizeAxis axis;
  for (int64_t i = 0; i < num_out; ++i) {
    int64_t first = 0;
    std::vector<int32_t> weights = window(num_in, num_out, i, &first);
    if (aligned) weights.insert(weights.begin(), first % 4, 0);
    if (aligned) first -= first % 4;
    weights.resize(rounded_up(int64_t(weights.size()), 4), 0);
    const int64_t count = int64_t(weights.size()) / 4, before = int64_t(axis.words.size());
    axis.windows.push_back({first, count, before});
    axis.words.resize(before + count * loops.num_words);
    for (int64_t k = 0; k < count; ++k) {
      loops.split_weights(weights.data() + 4 * k, axis.words.data() + before + k * loops.num_words);
    }
  }
  return axis;
}

int64_t checked(const char* name, int64_t size) {
  check(size > 0 && size <= kLargest, name, ": expected 1 to ", kLargest, " pixels, got ", size);
  return size;
}

}  // namespace

Resize::Resize(int64_t height_in_, int64_t width_in_, int64_t height_out_, int64_t width_out_)
    : height_in(checked("height", height_in_)),
      width_in(checked("width", width_in_)),
      height_out(checked("height", height_out_)),
      width_out(checked("width", width_out_)),
      loops_(PTR_FAST_SELECT_ISA(resize_loops)),
      rows_first_(height_in > height_out && height_in - height_out > 2 * (width_in - width_out)),
      columns_(make_axis(loops_, width_in, width_out, true)),
      rows_(make_axis(loops_, height_in, height_out, false)) {}

void Resize::run(const uint8_t* in, int64_t num_images, uint8_t* out) const {
  thread_local std::vector<uint8_t> between;
  const bool both = height_in != height_out && width_in != width_out;
  if (both) between.resize(3 * (rows_first_ ? height_out * width_in : height_in * width_out));
  for (int64_t i = 0; i < num_images; ++i, in += 3 * height_in * width_in, out += 3 * height_out * width_out) {
    if (!both) {
      if (width_in != width_out) {
        columns(in, height_in, out);
      } else {
        rows(in, 3 * width_in, out);
      }
    } else if (rows_first_) {
      rows(in, 3 * width_in, between.data());
      columns(between.data(), height_out, out);
    } else {
      columns(in, height_in, between.data());
      rows(between.data(), 3 * width_out, out);
    }
  }
}

void Resize::columns(const uint8_t* in, int64_t num_rows, uint8_t* out) const {
  thread_local Vectors<uint8_t> levels_buffer, rest_buffer, rows_buffer;
  thread_local Vectors<int32_t> quads_buffer;
  const int64_t strip = loops_.strip, bytes_in = 3 * width_in, bytes_out = 3 * width_out;
  const int64_t padded_out = rounded_up(bytes_out, 16), quad = 3 * strip;  // words of four pixels
  const int64_t whole = width_in / kResizePixels * kResizePixels;
  int32_t* const quads = quads_buffer.of_size(rounded_up(width_in, kResizePixels) / 4 * quad);
  uint8_t* const levels = levels_buffer.of_size(padded_out * strip);
  for (int64_t first = 0; first < num_rows; first += strip) {
    const uint8_t *rows[kLargestStrip], *rests[kLargestStrip];
    uint8_t* results[kLargestStrip];
    for (int64_t r = 0; r < strip; ++r) {
      rows[r] = in + bytes_in * std::min(first + r, num_rows - 1);
      results[r] = rows_buffer.of_size(padded_out * strip) + padded_out * r;
    }
    loops_.spread_columns(rows, whole, quads);
    if (whole != width_in) {  // pixels that are no whole block; what stands behind them meets weights of zero
      for (int64_t r = 0; r < strip; ++r) {
        uint8_t* const rest = rest_buffer.of_size(3 * kResizePixels * strip) + 3 * kResizePixels * r;
        std::memcpy(rest, rows[r] + 3 * whole, size_t(bytes_in - 3 * whole));
        rests[r] = rest;
      }
      loops_.spread_columns(rests, kResizePixels, quads + whole / 4 * quad);
    }
    for (int64_t x = 0; x < width_out; ++x) {
      const ResizeAxis::Window& w = columns_.windows[x];
      loops_.sum_columns(quads + w.first / 4 * quad, columns_.words.data() + w.words, w.count, levels + quad * x);
    }
    loops_.collect_rows(levels, padded_out, results);
    for (int64_t r = 0; r < std::min(strip, num_rows - first); ++r) {
      std::memcpy(out + bytes_out * (first + r), results[r], size_t(bytes_out));
    }
  }
}

void Resize::rows(const uint8_t* in, int64_t num_bytes, uint8_t* out) const {
  thread_local std::vector<const uint8_t*> rows;
  for (int64_t y = 0; y < height_out; ++y) {
    const ResizeAxis::Window& w = rows_.windows[y];
    rows.resize(4 * w.count);
    for (int64_t k = 0; k < 4 * w.count; ++k) rows[k] = in + num_bytes * std::min(w.first + k, height_in - 1);
    loops_.sum_rows(rows.data(), rows_.words.data() + w.words, w.count, num_bytes, out + num_bytes * y);
  }
}

}  // namespace ptr_fast
