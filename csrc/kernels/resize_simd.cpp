// Note "Exact sums of 22-bit weights". Processors multiply and add 8-bit or 16-bit numbers that stand side by side in
// one instruction, but a weight has 23 bits and a sign. So it is split into digits, each with a sign: three of 8 bits
// where four products of bytes are one instruction (VNNI), else two of 16 bits. The sums of all digits are kept, and
// shifted and added at the end: in 32-bit arithmetic this is the sum of the whole products, whatever overflowed on the
// way.
//
// Note "Parts of 16 bytes". Vectors are zipped and packed in parts of 16 bytes, as x86 does. Zipping four vectors of
// bytes makes four vectors of quads, which hold one byte of each; packing four vectors of sums undoes the order. A
// strip has as many rows as a vector has bytes: part p of a vector holds rows 16 p to 16 p + 15.
#include "kernels/resize_simd.h"

#include <cstddef>

#include "core/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

using ptr_fast::kResizeBits;
using ptr_fast::kResizePixels;
using std::int32_t;
using std::size_t;
using std::uint8_t;

constexpr int kBytes = PTR_FAST_VECTOR_BYTES;
constexpr int64 kStrip = kBytes;

typedef int32_t Words __attribute__((vector_size(kBytes)));
typedef uint8_t Bytes __attribute__((vector_size(kBytes)));
typedef uint8_t Part __attribute__((vector_size(16)));

template <class V>
inline V get(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
inline void put(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// zip_low, zip_high: bytes of both in turn, of the lower and of the upper halves of their parts. pack: words kept in 0
// to 255; a part of the result has one part of each. add_products: adds, per lane, two products of 16-bit numbers.
#if defined(__AVX512BW__)
inline Bytes zip_low(Bytes a, Bytes b) { return (Bytes)_mm512_unpacklo_epi8((__m512i)a, (__m512i)b); }
inline Bytes zip_high(Bytes a, Bytes b) { return (Bytes)_mm512_unpackhi_epi8((__m512i)a, (__m512i)b); }
inline Bytes pack(Words a, Words b, Words c, Words d) {
  return (Bytes)_mm512_packus_epi16(_mm512_packs_epi32((__m512i)a, (__m512i)b),
                                    _mm512_packs_epi32((__m512i)c, (__m512i)d));
}
inline Bytes join(const Part* p) {
  __m512i v = _mm512_castsi128_si512((__m128i)p[0]);
  v = _mm512_inserti32x4(v, (__m128i)p[1], 1);
  v = _mm512_inserti32x4(v, (__m128i)p[2], 2);
  return (Bytes)_mm512_inserti32x4(v, (__m128i)p[3], 3);
}
#elif defined(__AVX2__)
inline Words add_products(Words sum, Words a, Words b) {
  return sum + (Words)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
inline Bytes zip_low(Bytes a, Bytes b) { return (Bytes)_mm256_unpacklo_epi8((__m256i)a, (__m256i)b); }
inline Bytes zip_high(Bytes a, Bytes b) { return (Bytes)_mm256_unpackhi_epi8((__m256i)a, (__m256i)b); }
inline Bytes pack(Words a, Words b, Words c, Words d) {
  return (Bytes)_mm256_packus_epi16(_mm256_packs_epi32((__m256i)a, (__m256i)b),
                                    _mm256_packs_epi32((__m256i)c, (__m256i)d));
}
inline Bytes join(const Part* p) { return (Bytes)_mm256_set_m128i((__m128i)p[1], (__m128i)p[0]); }
#else
inline Bytes zip_low(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes zip_high(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
inline Bytes join(const Part* p) { return p[0]; }
#if defined(__SSE2__)
inline Words add_products(Words sum, Words a, Words b) { return sum + (Words)_mm_madd_epi16((__m128i)a, (__m128i)b); }
inline Bytes pack(Words a, Words b, Words c, Words d) {
  return (Bytes)_mm_packus_epi16(_mm_packs_epi32((__m128i)a, (__m128i)b), _mm_packs_epi32((__m128i)c, (__m128i)d));
}
#else
inline Words add_products(Words sum, Words a, Words b) {
  return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
}
inline Bytes pack(Words a, Words b, Words c, Words d) {
  const Words all[] = {a, b, c, d};
  Bytes out;
  for (int i = 0; i < 16; ++i) {
    const int32_t word = all[i / 4][i % 4];
    out[i] = uint8_t(word < 0 ? 0 : word > 255 ? 255 : word);
  }
  return out;
}
#endif
#endif

// Note "Parts of 16 bytes"
inline void zip_quads(Bytes a, Bytes b, Bytes c, Bytes d, Words quads[4]) {
  const Bytes ac_low = zip_low(a, c), bd_low = zip_low(b, d), ac_high = zip_high(a, c), bd_high = zip_high(b, d);
  quads[0] = (Words)zip_low(ac_low, bd_low);
  quads[1] = (Words)zip_high(ac_low, bd_low);
  quads[2] = (Words)zip_low(ac_high, bd_high);
  quads[3] = (Words)zip_high(ac_high, bd_high);
}

// The digits of four weights, the lowest first; note "Exact sums of 22-bit weights".
#if defined(__AVX512VNNI__)
constexpr int kDigits = 3, kWords = 3, kDigitBits = 8;
#else
constexpr int kDigits = 2, kWords = 4, kDigitBits = 16;  // words: of weights 0 and 2, then of 1 and 3
#endif

void split_weights(const int32_t* weights, int32_t* words) {
  for (int i = 0; i < kWords; ++i) words[i] = 0;
  for (int k = 0; k < 4; ++k) {
    int32_t rest = weights[k];
    for (int digit = 0; digit < kDigits; ++digit) {
      constexpr int32_t kHalf = 1 << (kDigitBits - 1), kMask = (1 << kDigitBits) - 1;
      const int32_t value = digit + 1 < kDigits ? ((rest + kHalf) & kMask) - kHalf : rest;
      rest = (rest - value) >> kDigitBits;
      const int word = kDigits == 3 ? digit : 2 * (k % 2) + digit, place = kDigits == 3 ? k : k / 2;
      words[word] |= int32_t(std::uint32_t(value & kMask) << (place * kDigitBits));
    }
  }
}

// Four vectors of sums side by side.
struct Sums {
  Words of[kDigits][4] = {};

  void add(const Words quads[4], const int32_t* words) {
#if defined(__AVX512VNNI__)
    for (int i = 0; i < 4; ++i) {
      for (int digit = 0; digit < kDigits; ++digit) {
        const __m512i weights = _mm512_set1_epi32(words[digit]);
        of[digit][i] = (Words)_mm512_dpbusd_epi32((__m512i)of[digit][i], (__m512i)quads[i], weights);
      }
    }
#else
    for (int odd = 0; odd < 2; ++odd) {
      for (int i = 0; i < 4; ++i) {
        const Words levels = (quads[i] >> (8 * odd)) & 0x00ff00ff;
        for (int digit = 0; digit < kDigits; ++digit) {
          of[digit][i] = add_products(of[digit][i], levels, Words{} + words[2 * odd + digit]);
        }
      }
    }
#endif
  }
  Bytes levels() const {
    Words sum[4];
    for (int i = 0; i < 4; ++i) {
      sum[i] = Words{} + (1 << (kResizeBits - 1));
      for (int digit = 0; digit < kDigits; ++digit) sum[i] += of[digit][i] << (digit * kDigitBits);
      sum[i] >>= kResizeBits;
    }
    return pack(sum[0], sum[1], sum[2], sum[3]);
  }
};

// Four rounds of zipping the first half with the second turn rows into columns, in each part.
inline void transpose(Bytes v[16]) {
  for (int round = 0; round < 4; ++round) {
    Bytes zipped[16];
    for (int i = 0; i < 8; ++i) {
      zipped[2 * i] = zip_low(v[i], v[i + 8]);
      zipped[2 * i + 1] = zip_high(v[i], v[i + 8]);
    }
    for (int i = 0; i < 16; ++i) v[i] = zipped[i];
  }
}

void spread_columns(const uint8_t* const* rows, int64 pixels, int32_t* quads) {
  for (int64 x = 0; x < pixels; x += kResizePixels) {
    Bytes columns[3 * kResizePixels];
    for (int third = 0; third < 3; ++third) {
      for (int r = 0; r < 16; ++r) {
        Part parts[kBytes / 16];
        for (int p = 0; p < kBytes / 16; ++p) parts[p] = get<Part>(rows[16 * p + r] + 3 * x + 16 * third);
        columns[16 * third + r] = join(parts);
      }
      transpose(columns + 16 * third);
    }
    for (int x4 = 0; x4 < kResizePixels; x4 += 4) {
      for (int c = 0; c < 3; ++c, quads += kStrip) {
        const Bytes* const first = columns + 3 * x4 + c;
        Words words[4];
        zip_quads(first[0], first[3], first[6], first[9], words);
        for (int i = 0; i < 4; ++i) put(quads + i * kLanes, words[i]);
      }
    }
  }
}

void sum_columns(const int32_t* quads, const int32_t* words, int64 count, uint8_t* levels) {
  for (int c = 0; c < 3; ++c) {
    Sums sums;
    const int32_t* p = quads + c * kStrip;
    for (int64 k = 0; k < count; ++k, p += 3 * kStrip) {
      Words four[4];
      for (int i = 0; i < 4; ++i) four[i] = get<Words>(p + i * kLanes);
      sums.add(four, words + kWords * k);
    }
    put(levels + c * kStrip, sums.levels());
  }
}

void collect_rows(const uint8_t* levels, int64 bytes, uint8_t* const* rows) {
  for (int64 x = 0; x < bytes; x += 16, levels += 16 * kStrip) {
    Bytes block[16];
    for (int i = 0; i < 16; ++i) block[i] = get<Bytes>(levels + kStrip * i);
    transpose(block);
    for (int r = 0; r < 16; ++r) {
      Part parts[kBytes / 16];
      put(parts, block[r]);
      for (int p = 0; p < kBytes / 16; ++p) put(rows[16 * p + r] + x, parts[p]);
    }
  }
}

// A vector of columns of a row of the result; load reads a vector of a row.
template <class Load>
inline Bytes sum_vector(const uint8_t* const* rows, const int32_t* words, int64 count, int64 x, const Load& load) {
  Sums sums;
  for (int64 k = 0; k < count; ++k, rows += 4) {
    Words four[4];
    zip_quads(load(rows[0] + x), load(rows[1] + x), load(rows[2] + x), load(rows[3] + x), four);
    sums.add(four, words + kWords * k);
  }
  return sums.levels();
}

void sum_rows(const uint8_t* const* rows, const int32_t* words, int64 count, int64 bytes, uint8_t* out) {
  int64 x = 0;
  for (; x + kBytes <= bytes; x += kBytes) {
    put(out + x, sum_vector(rows, words, count, x, [](const uint8_t* p) { return get<Bytes>(p); }));
  }
  if (x == bytes) return;
  const size_t rest = size_t(bytes - x);
  const auto load_rest = [rest](const uint8_t* p) {
    Bytes v = {};
    __builtin_memcpy(&v, p, rest);
    return v;
  };
  const Bytes last = sum_vector(rows, words, count, x, load_rest);
  __builtin_memcpy(out + x, &last, rest);
}

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const ResizeLoops PTR_FAST_JOIN(resize_loops_, PTR_FAST_ISA) = {
    kStrip, kWords, split_weights, spread_columns, sum_columns, collect_rows, sum_rows};
}  // namespace ptr_fast
