// Baseline JPEG (ITU-T T.81), from entropy-coded segments to planes of samples: the one decoder, for the host and for a
// GPU. Nothing here allocates, calls a library or reads past what it is given, whatever the bytes are.
//
// Note "packed frames": a pool holds what differs between its frames. A frame is num_segments() segments of bits, each
// of mcus_per_segment MCUs and decodable by itself; a segment is whole 32-bit words, the first bit the highest one,
// without stuffed bytes and markers, filled up with zeros. Segment s of frame n is words[begin[n * S + s]] up to
// words[begin[n * S + s + 1]]. Its Huffman and quantisation tables are one of the pool's sets of kJpegTableWords words.
//
// Note "what equals libjpeg-turbo": the inverse transform is its default one, jidctint.c: the 8-point transform of
// Loeffler, Ligtenberg and Moschytz (1989) in integers, 13 bits of fraction, rounded to 2 bits of it after the columns
// and to whole numbers after the rows. Only where its parts are rounded matters for the bits, so each output is written
// here as its sum of products. libjpeg-turbo itself gives different bytes with and without SIMD where the coefficients
// are such as no image has: SIMD cuts sums to 16 bits between the passes and ends at 0 and 255, C wraps beyond +-512.
// Here sums are whole and end at 0 and 255, and a block whose coefficients sum up to more than kJpegLargestBlock is
// refused: an 8-bit image cannot reach a quarter of it, and up to there no sum exceeds 31 bits.
#pragma once
#include <cstdint>

#include "core/block.h"

namespace ptr_fast {

constexpr int kJpegFastBits = 9;          // of a Huffman code that one look-up decodes
constexpr int kJpegLargestBlock = 32767;  // sum of the sizes of a block's dequantised coefficients
constexpr int kJpegMaxBlocks = 6;         // of an MCU: 4 of luma, one of each colour
constexpr int kJpegMaxSide = 65500;       // pixels, libjpeg's JPEG_MAX_DIMENSION

// A Huffman table as words: by the next 9 bits, length << 8 | symbol of a code that is no longer (0: it is longer, or
// none); then for each length 10 to 16 the first 16 bits that no code of up to this length begins with, and what to add
// to a code for the place of its symbol; then the symbols.
constexpr int kJpegLimits = 1 << kJpegFastBits;
constexpr int kJpegOffsets = kJpegLimits + 8;
constexpr int kJpegSymbols = kJpegOffsets + 8;
constexpr int kJpegHuffmanWords = kJpegSymbols + 256;

// A set of tables: Huffman of luma's DC, colour's DC, luma's AC, colour's AC; then of each component, in the order of
// the coefficients, place in the block << 16 | quantum.
constexpr int kJpegQuanta = 4 * kJpegHuffmanWords;
constexpr int kJpegTableWords = kJpegQuanta + 3 * 64;

enum JpegStatus : uint32_t {
  kJpegGood = 0,
  kJpegBadCode = 1,    // a code that the table does not have, or a symbol that baseline JPEG does not have
  kJpegTooMany = 2,    // more than 64 coefficients in a block
  kJpegTooLarge = 3,   // see kJpegLargestBlock
  kJpegOutOfData = 4,  // the segment ends before its last block
};

// What all frames of a pool share.
struct JpegLayout {
  int height, width;   // pixels
  int num_components;  // 1 (luma) or 3 (luma, Cb, Cr)
  int horizontal;      // luma samples per colour sample along a row, 1 or 2
  int vertical;        // and along a column
  int mcus_per_segment;

  PTR_HOST_DEVICE int mcus_per_row() const { return (width + 8 * horizontal - 1) / (8 * horizontal); }
  PTR_HOST_DEVICE int num_mcus() const { return mcus_per_row() * ((height + 8 * vertical - 1) / (8 * vertical)); }
  PTR_HOST_DEVICE int num_segments() const { return (num_mcus() + mcus_per_segment - 1) / mcus_per_segment; }
  PTR_HOST_DEVICE int luma_blocks() const { return horizontal * vertical; }
  PTR_HOST_DEVICE int blocks_per_mcu() const { return luma_blocks() + num_components - 1; }
  PTR_HOST_DEVICE int component(int block) const { return block < luma_blocks() ? 0 : block - luma_blocks() + 1; }

  // Planes lie end to end, luma first; where both sides are even, 4:2:0 is I420.
  PTR_HOST_DEVICE int plane_height(int component) const {
    return component == 0 ? height : (height + vertical - 1) / vertical;
  }
  PTR_HOST_DEVICE int plane_width(int component) const {
    return component == 0 ? width : (width + horizontal - 1) / horizontal;
  }
  PTR_HOST_DEVICE int64_t plane_bytes(int component) const {
    return int64_t(plane_height(component)) * plane_width(component);
  }
  PTR_HOST_DEVICE int64_t plane_begin(int component) const {
    if (component == 0) return 0;
    return plane_bytes(0) + (component - 1) * plane_bytes(1);
  }
  PTR_HOST_DEVICE int64_t frame_bytes() const { return plane_bytes(0) + (num_components - 1) * plane_bytes(1); }

  // Row and column, in its plane, of the first sample of a block of an MCU.
  PTR_HOST_DEVICE int block_row(int mcu, int block) const {
    const int row = mcu / mcus_per_row();
    return 8 * (block < luma_blocks() ? row * vertical + block / horizontal : row);
  }
  PTR_HOST_DEVICE int block_column(int mcu, int block) const {
    const int column = mcu % mcus_per_row();
    return 8 * (block < luma_blocks() ? column * horizontal + block % horizontal : column);
  }
};

// Reads bits of a segment; behind its end come zeros. ``word(i)`` of begin() and skip() reads word i of the segment and
// is only asked for i < num_words.
struct JpegBits {
  uint32_t high, low;
  int bit;   // of the next one in ``high``
  int next;  // word behind ``low``
  int num_words;

  template <class Words>
  PTR_HOST_DEVICE void begin(int words, const Words& word) {
    num_words = words;
    high = words > 0 ? word(0) : 0;
    low = words > 1 ? word(1) : 0;
    bit = 0;
    next = 2;
  }
  PTR_HOST_DEVICE uint32_t window() const {
#ifdef __CUDA_ARCH__
    return __funnelshift_l(low, high, bit);
#else
    return uint32_t(((uint64_t(high) << 32 | low) << bit) >> 32);
#endif
  }
  // At most 32 bits.
  template <class Words>
  PTR_HOST_DEVICE void skip(int bits, const Words& word) {
    bit += bits;
    if (bit < 32) return;
    bit -= 32;
    high = low;
    low = next < num_words ? word(next) : 0;
    ++next;
  }
  PTR_HOST_DEVICE int64_t used() const { return int64_t(next - 2) * 32 + bit; }
  PTR_HOST_DEVICE bool is_past_the_end() const { return used() > int64_t(num_words) * 32; }
};

// length << 8 | symbol of the code at the beginning of ``window``; 0: there is none. ``table(i)`` reads a word.
template <class Table>
PTR_HOST_DEVICE uint32_t jpeg_symbol(uint32_t window, const Table& table) {
  const uint32_t found = table(window >> (32 - kJpegFastBits));
  if (found != 0) return found;
  for (int length = kJpegFastBits + 1; length <= 16; ++length) {
    const int at = length - kJpegFastBits - 1;
    if ((window >> 16) >= table(kJpegLimits + at)) continue;
    const uint32_t place = (window >> (32 - length)) + table(kJpegOffsets + at);
    return uint32_t(length) << 8 | (table(kJpegSymbols + (place & 255)) & 255);
  }
  return 0;
}

// The number of ``size`` bits (1 to 16) at the beginning of ``bits``: T.81, F.2.2.1 EXTEND.
PTR_HOST_DEVICE int jpeg_number(uint32_t bits, int size) {
  const int value = int(bits >> (32 - size));
  return bits >> 31 ? value : value - (1 << size) + 1;
}

// One block: ``put(k, value)`` gets each coefficient that may differ from 0, in the order of the file, k from 0 on, and
// returns the size that it has after dequantisation. ``last_dc`` is the component's.
template <class Words, class Dc, class Ac, class Put>
PTR_HOST_DEVICE uint32_t jpeg_block(JpegBits& bits, const Words& word, const Dc& dc, const Ac& ac, int& last_dc,
                                    const Put& put) {
  uint32_t window = bits.window();
  uint32_t found = jpeg_symbol(window, dc);
  int length = int(found >> 8), size = int(found & 255);
  if (found == 0 || size > 11) return kJpegBadCode;
  if (size > 0) last_dc += jpeg_number(window << length, size);
  if (last_dc > kJpegLargestBlock || last_dc < -kJpegLargestBlock) return kJpegTooLarge;
  bits.skip(length + size, word);
  int sum = put(0, last_dc);  // at most 65 coefficients of 11 bits times quanta of 8
  for (int k = 1; k < 64; ++k) {
    window = bits.window();
    found = jpeg_symbol(window, ac);
    if (found == 0) return kJpegBadCode;
    length = int(found >> 8);
    size = int(found & 15);
    const int zeros = int(found >> 4 & 15);
    bits.skip(length + size, word);
    if (size == 0) {
      if (zeros != 15) break;
      k += 15;
      continue;
    }
    if (size > 10) return kJpegBadCode;
    k += zeros;
    if (k > 63) return kJpegTooMany;
    sum += put(k, jpeg_number(window << length, size));
  }
  return sum > kJpegLargestBlock ? kJpegTooLarge : kJpegGood;
}

// Eight outputs of the inverse transform times 2^13, from eight inputs. Unsigned: what overflows on the way comes back.
struct JpegRow {
  int32_t values[8];
};

PTR_HOST_DEVICE JpegRow jpeg_transform(const int32_t (&in)[8]) {
  uint32_t x[8];
  PTR_UNROLL for (int i = 0; i < 8; ++i) x[i] = uint32_t(in[i]);
  const uint32_t sum = (x[0] + x[4]) << 13, difference = (x[0] - x[4]) << 13;
  const uint32_t outer = 10703u * x[2] + 4433u * x[6], inner = 4433u * x[2] - 10704u * x[6];
  const uint32_t even[4] = {sum + outer, difference + inner, difference - inner, sum - outer};
  const uint32_t odd[4] = {
      11363u * x[1] + 9633u * x[3] + 6437u * x[5] + 2260u * x[7],
      9633u * x[1] - 2259u * x[3] - 11362u * x[5] - 6436u * x[7],
      6437u * x[1] - 11362u * x[3] + 2261u * x[5] + 9633u * x[7],
      2260u * x[1] - 6436u * x[3] + 9633u * x[5] - 11363u * x[7],
  };
  JpegRow out;
  PTR_UNROLL for (int i = 0; i < 4; ++i) {
    out.values[i] = int32_t(even[i] + odd[i]);
    out.values[7 - i] = int32_t(even[i] - odd[i]);
  }
  return out;
}

// A column of coefficients to one of sums with 2 bits of fraction.
PTR_HOST_DEVICE JpegRow jpeg_columns_pass(const int32_t (&in)[8]) {
  JpegRow out = jpeg_transform(in);
  PTR_UNROLL for (int i = 0; i < 8; ++i) out.values[i] = int32_t(uint32_t(out.values[i]) + (1u << 10)) >> 11;
  return out;
}

// A row of such sums to eight samples, the first in the lowest byte.
PTR_HOST_DEVICE uint64_t jpeg_rows_pass(const int32_t (&in)[8]) {
  const JpegRow sums = jpeg_transform(in);
  uint32_t half[2] = {0, 0};
  PTR_UNROLL for (int i = 0; i < 8; ++i) {
    const int value = (int32_t(uint32_t(sums.values[i]) + (1u << 17)) >> 18) + 128;
    half[i / 4] |= uint32_t(value < 0 ? 0 : value > 255 ? 255 : value) << (8 * (i % 4));
  }
  return uint64_t(half[1]) << 32 | half[0];
}

}  // namespace ptr_fast
