#include "kernels/jpeg_frames_cpu.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"

namespace ptr_fast {
namespace {

// The samples of a block that lie in its plane.
void store_block(const int32_t (&sums)[64], uint8_t* plane, int height, int width, int row, int column) {
  const int rows = std::min(8, height - row), columns = std::min(8, width - column);
  for (int y = 0; y < rows; ++y) {
    int32_t in[8];
    std::memcpy(in, sums + 8 * y, sizeof(in));
    const uint64_t samples = jpeg_rows_pass(in);
    uint8_t* const out = plane + int64_t(row + y) * width + column;
    for (int x = 0; x < columns; ++x) out[x] = uint8_t(samples >> (8 * x));
  }
}

void transform_columns(const int16_t (&coefficients)[64], int32_t (&sums)[64]) {
  for (int x = 0; x < 8; ++x) {
    int32_t in[8];
    for (int y = 0; y < 8; ++y) in[y] = coefficients[8 * y + x];
    const JpegRow out = jpeg_columns_pass(in);
    for (int y = 0; y < 8; ++y) sums[8 * y + x] = out.values[y];
  }
}

}  // namespace

uint32_t decode_jpeg_segment(const JpegLayout& layout, int segment, const uint32_t* words, int num_words,
                             const uint32_t* tables, JpegBits& bits, uint8_t* planes) {
  const auto word = [words](int i) { return words[i]; };
  bits.begin(num_words, word);
  int last_dc[3] = {0, 0, 0};
  const int first = segment * layout.mcus_per_segment;
  const int end = std::min(first + layout.mcus_per_segment, layout.num_mcus());
  for (int mcu = first; mcu < end; ++mcu) {
    for (int block = 0; block < layout.blocks_per_mcu(); ++block) {
      const int component = layout.component(block), kind = component == 0 ? 0 : 1;
      const uint32_t* const dc = tables + kind * kJpegHuffmanWords;
      const uint32_t* const ac = tables + (2 + kind) * kJpegHuffmanWords;
      const uint32_t* const quanta = tables + kJpegQuanta + 64 * component;
      int16_t coefficients[64] = {};
      const auto put = [&](int k, int value) {
        const int scaled = value * int(quanta[k] & 0xffff);
        coefficients[quanta[k] >> 16] = int16_t(scaled);
        return scaled < 0 ? -scaled : scaled;
      };
      const uint32_t status = jpeg_block(
          bits, word, [dc](uint32_t i) { return dc[i]; }, [ac](uint32_t i) { return ac[i]; }, last_dc[component], put);
      if (status != kJpegGood) return status;
      int32_t sums[64];
      transform_columns(coefficients, sums);
      store_block(sums, planes + layout.plane_begin(component), layout.plane_height(component),
                  layout.plane_width(component), layout.block_row(mcu, block), layout.block_column(mcu, block));
    }
    if (bits.is_past_the_end()) return kJpegOutOfData;
  }
  return kJpegGood;
}

void decode_jpeg_frames(const JpegPool& pool, const int64_t* index, int64_t num_images, uint8_t* planes,
                        uint32_t* status, int num_threads) {
  const int num_segments = pool.layout.num_segments();
  parallel_for(num_images, num_threads, [&](int64_t image) {
    const int64_t frame = std::clamp<int64_t>(index[image], 0, pool.num_frames - 1);
    const uint32_t* const tables = pool.tables + int64_t(pool.tables_of[frame]) * kJpegTableWords;
    for (int segment = 0; segment < num_segments; ++segment) {
      const int64_t* const begin = pool.segment_begin + frame * num_segments + segment;
      JpegBits bits;
      status[image * num_segments + segment] =
          decode_jpeg_segment(pool.layout, segment, pool.words + begin[0], int(begin[1] - begin[0]), tables, bits,
                              planes + image * pool.layout.frame_bytes());
    }
  });
}

}  // namespace ptr_fast
