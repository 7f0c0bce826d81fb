// The decoder of jpeg_frames.h as a kernel: one warp for each restart segment. Lane 0 reads the codes of an MCU, then
// all lanes transform its blocks: columns, then rows.
//
// Why so: codes are read one after the other, about 700 in a segment of 8 MCUs. With a warp each, the segments of 512
// frames of 128 x 128 (4096) are all on a GPU at once, and while one waits for a table another one computes; with a
// lane each they would be 128 warps that wait most of the time. benchmarks/NOTES.md has the arithmetic.
#pragma once
#include "core/block.h"
#include "kernels/jpeg_frames.h"

namespace ptr_fast {

struct JpegFrames {
  static constexpr int kThreads = kWarp;
  static constexpr int kMinBlocks = 24;
  static constexpr int kCoefficientStride = 80;  // of a block in shared memory: 4 blocks of a warp in different banks
  static constexpr int kSumStride = 72;

  JpegLayout layout;
  Global<const uint32_t> words;
  Global<const int64_t> segment_begin;  // [num_frames * num_segments + 1]
  Global<const uint8_t> tables_of;      // [num_frames]
  Global<const uint32_t> tables;        // [num_sets, kJpegTableWords]
  Global<const int64_t> index;          // [num_images], the nearest frame that exists is taken
  Global<uint8_t> planes;               // [num_images, frame_bytes]
  Global<uint32_t> status;              // [num_images, num_segments]
  int64_t num_frames;

  PTR_HOST_DEVICE int64_t shared_bytes() const {
    return shared_size<int16_t>(kJpegMaxBlocks * kCoefficientStride) +
           shared_size<int32_t>(kJpegMaxBlocks * kSumStride);
  }

  struct Reader {
    JpegBits bits;
    int64_t first_word;
    int64_t set;
    int last_dc[3];
    uint32_t status;
  };

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    auto coefficients = block.template shared<int16_t>("coefficients", kJpegMaxBlocks * kCoefficientStride);
    auto sums = block.template shared<int32_t>("sums", kJpegMaxBlocks * kSumStride);
    PerThread<Reader, Block> reader(block);
    const int num_segments = layout.num_segments();
    const int64_t image = block.index().x / num_segments;
    const int segment = block.index().x % num_segments;
    block.phase([&](Thread t) {
      clear(t, coefficients);
      if (t.index == 0) reader[t] = begin(t, image, segment);
    });
    const int first = segment * layout.mcus_per_segment;
    const int end =
        first + layout.mcus_per_segment < layout.num_mcus() ? first + layout.mcus_per_segment : layout.num_mcus();
    for (int mcu = first; mcu < end; ++mcu) {
      block.phase([&](Thread t) {
        if (t.index == 0) read(t, reader[t], coefficients);
      });
      block.phase([&](Thread t) { transform_columns(t, coefficients, sums); });
      block.phase([&](Thread t) {
        clear(t, coefficients);
        transform_rows(t, sums, image, mcu);
      });
    }
    block.phase([&](Thread t) {
      if (t.index == 0) status.set(t, image * num_segments + segment, reader[t].status);
    });
  }

 private:
  template <class Shared>
  PTR_DEVICE void clear(Thread t, const Shared& coefficients) const {
    constexpr int kVector = 8;
    const Vector<int16_t> zeros{};
    for (int i = t.index * kVector; i < layout.blocks_per_mcu() * kCoefficientStride; i += kThreads * kVector) {
      coefficients.set_vector(t, i, zeros);
    }
  }

  PTR_DEVICE Reader begin(Thread t, int64_t image, int segment) const {
    Reader reader;
    const int64_t wanted = index.load_nc(t, image);
    const int64_t frame = wanted < 0 ? 0 : wanted < num_frames ? wanted : num_frames - 1;
    const int64_t at = frame * layout.num_segments() + segment;
    reader.first_word = segment_begin.load_nc(t, at);
    reader.set = int64_t(tables_of.load_nc(t, frame)) * kJpegTableWords;
    reader.last_dc[0] = reader.last_dc[1] = reader.last_dc[2] = 0;
    reader.status = kJpegGood;
    const int64_t first = reader.first_word;
    reader.bits.begin(int(segment_begin.load_nc(t, at + 1) - first),
                      [&](int i) { return words.load_nc(t, first + i); });
    return reader;
  }

  // The blocks of the next MCU; none where one of the segment was bad.
  template <class Shared>
  PTR_DEVICE void read(Thread t, Reader& reader, const Shared& coefficients) const {
    const auto word = [&](int i) { return words.load_nc(t, reader.first_word + i); };
    JpegBits bits = reader.bits;
    for (int which = 0; which < layout.blocks_per_mcu() && reader.status == kJpegGood; ++which) {
      const int component = layout.component(which), kind = component == 0 ? 0 : 1;
      const int64_t dc = reader.set + kind * kJpegHuffmanWords, ac = dc + 2 * kJpegHuffmanWords;
      const int64_t quanta = reader.set + kJpegQuanta + 64 * component;
      int last_dc = component == 0 ? reader.last_dc[0] : component == 1 ? reader.last_dc[1] : reader.last_dc[2];
      reader.status = jpeg_block(
          bits, word, [&](uint32_t i) { return tables.load_nc(t, dc + i); },
          [&](uint32_t i) { return tables.load_nc(t, ac + i); }, last_dc,
          [&](int k, int value) {
            const uint32_t quantum = tables.load_nc(t, quanta + k);
            const int scaled = value * int(quantum & 0xffff);
            coefficients.set(t, which * kCoefficientStride + int(quantum >> 16), int16_t(scaled));
            return scaled < 0 ? -scaled : scaled;
          });
      if (component == 0) reader.last_dc[0] = last_dc;
      if (component == 1) reader.last_dc[1] = last_dc;
      if (component == 2) reader.last_dc[2] = last_dc;
    }
    reader.bits = bits;
    if (reader.status == kJpegGood && bits.is_past_the_end()) reader.status = kJpegOutOfData;
  }

  template <class Coefficients, class Sums>
  PTR_DEVICE void transform_columns(Thread t, const Coefficients& coefficients, const Sums& sums) const {
    for (int task = t.index; task < 8 * layout.blocks_per_mcu(); task += kThreads) {
      const int from = task / 8 * kCoefficientStride + task % 8, to = task / 8 * kSumStride + task % 8;
      int32_t in[8];
      PTR_UNROLL for (int y = 0; y < 8; ++y) in[y] = coefficients.at(t, from + 8 * y);
      const JpegRow out = jpeg_columns_pass(in);
      PTR_UNROLL for (int y = 0; y < 8; ++y) sums.set(t, to + 8 * y, out.values[y]);
    }
  }

  template <class Sums>
  PTR_DEVICE void transform_rows(Thread t, const Sums& sums, int64_t image, int mcu) const {
    for (int task = t.index; task < 8 * layout.blocks_per_mcu(); task += kThreads) {
      const int which = task / 8, y = task % 8, component = layout.component(which);
      const Vector<int32_t> left = sums.at_vector(t, which * kSumStride + 8 * y);
      const Vector<int32_t> right = sums.at_vector(t, which * kSumStride + 8 * y + 4);
      const int32_t in[8] = {left[0], left[1], left[2], left[3], right[0], right[1], right[2], right[3]};
      const uint64_t samples = jpeg_rows_pass(in);
      const int row = layout.block_row(mcu, which) + y, column = layout.block_column(mcu, which);
      const int width = layout.plane_width(component);
      if (row >= layout.plane_height(component)) continue;
      const int64_t at = image * layout.frame_bytes() + layout.plane_begin(component) + int64_t(row) * width + column;
      store(t, at, samples, width - column < 8 ? width - column : 8);
    }
  }

  PTR_DEVICE void store(Thread t, int64_t at, uint64_t samples, int count) const {
#ifdef __CUDA_ARCH__
    if (count == 8 && (reinterpret_cast<uint64_t>(planes.data + at) & 7) == 0) {
      *reinterpret_cast<uint64_t*>(planes.data + at) = samples;
      return;
    }
#endif
    for (int x = 0; x < count; ++x) planes.set(t, at + x, uint8_t(samples >> (8 * x)));
  }
};

}  // namespace ptr_fast
