#include "kernels/group_norm_act_pool_simd.h"

#include "core/simd.h"
#include "kernels/simd_bits.h"

namespace {

using ptr_fast::GroupNormGradientApply;
using ptr_fast::PoolSize;

constexpr int kNoGradient = 9;

typedef std::int32_t IntVec __attribute__((vector_size(PTR_FAST_VECTOR_BYTES)));
typedef std::uint8_t ByteVec __attribute__((vector_size(kLanes)));

template <class V>
struct IntOf;
template <>
struct IntOf<Vec> {
  using type = IntVec;
};
template <>
struct IntOf<float> {
  using type = std::int32_t;
};

inline void store_bytes(std::uint8_t* p, IntVec v) {
  const ByteVec bytes = __builtin_convertvector(v, ByteVec);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}
inline void store_bytes(std::uint8_t* p, std::int32_t v) { *p = std::uint8_t(v); }

// One bit per column of a tile: whether its byte is k.
template <class T>
inline std::uint64_t equal_bits(const std::uint8_t* bytes, int k) {
#if defined(__AVX512BW__)
  if constexpr (T::kWidth == 64) {
    return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(bytes), _mm512_set1_epi8(char(k)));
  }
#endif
#if defined(__AVX2__)
  if constexpr (T::kWidth == 32) {
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    return unsigned(_mm256_movemask_epi8(_mm256_cmpeq_epi8(all, _mm256_set1_epi8(char(k)))));
  }
#endif
#if defined(__SSE2__)
  if constexpr (T::kWidth == 16) {
    const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    return unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_set1_epi8(char(k)))));
  }
#endif
  std::uint64_t bits = 0;
  for (int j = 0; j < T::kWidth; ++j) bits |= std::uint64_t(bytes[j] == k) << j;
  return bits;
}

// The pixels [first, end) of the window of an output pixel along one axis; start may lie outside.
struct Window {
  Window(int64 out, int64 size) : start(2 * out - size % 2), first(start < 0 ? 0 : start), end(start + 3) {
    if (end > size) end = size;
  }
  int64 start, first, end;
};

// The output pixels [first, end) whose windows hold a pixel along one axis.
struct Holders {
  Holders(int64 pixel, int64 size) {
    const int64 padded = pixel + size % 2, num_out = (size + 1) / 2;
    first = padded < 2 ? 0 : (padded - 1) / 2;
    end = padded / 2 + 1;
    if (end > num_out) end = num_out;
  }
  int64 first, end;
};

// x * scale + shift rises or falls with x by the sign of scale, so the maximum is found from x * sign.
template <bool kGradient>
void apply_rows(const PoolSize& size, int64 first, int64 end, const float* x, const float* scale, const float* shift,
                float* y, float* picked, std::uint8_t* index) {
  const int64 C = size.C, W = size.W, out_width = size.out_width();
  for_each_tile(C, [&](auto tile, int64 c) {
    using T = decltype(tile);
    using V = typename T::V;
    using I = typename IntOf<V>::type;
    constexpr V zero = {};
    V a[T::U], b[T::U], sign[T::U];
    for (int u = 0; u < T::U; ++u) {
      a[u] = load<V>(scale + c + u * T::kStep);
      b[u] = load<V>(shift + c + u * T::kStep);
      sign[u] = a[u] > zero ? splat<V>(1) : a[u] < zero ? splat<V>(-1) : zero;
    }
    for (int64 oh = first; oh < end; ++oh) {
      const Window rows(oh, size.H);
      for (int64 ow = 0; ow < out_width; ++ow) {
        const Window cols(ow, W);
        const float* const corner = x + (rows.first * W + cols.first) * C + c;
        V best[T::U];
        I place[T::U];
        for (int u = 0; u < T::U; ++u) {
          best[u] = load<V>(corner + u * T::kStep) * sign[u];
          place[u] = I{} + int((rows.first - rows.start) * 3 + cols.first - cols.start);
        }
        for (int64 h = rows.first; h < rows.end; ++h) {
          for (int64 w = cols.first; w < cols.end; ++w) {
            const float* const pixel = x + (h * W + w) * C + c;
            const I k = I{} + int((h - rows.start) * 3 + w - cols.start);
            for (int u = 0; u < T::U; ++u) {
              const V v = load<V>(pixel + u * T::kStep) * sign[u];
              if constexpr (kGradient) place[u] = v > best[u] ? k : place[u];
              best[u] = v > best[u] ? v : best[u];
            }
          }
        }
        const int64 out = (oh * out_width + ow) * C + c;
        for (int u = 0; u < T::U; ++u) {
          const int64 at = out + u * T::kStep;
          // Without a scale all are equal, and the first one is taken.
          const V from = sign[u] == zero ? load<V>(corner + u * T::kStep) : best[u] * sign[u];
          const V v = from * a[u] + b[u];
          store<V>(y + at, relu(v));
          if constexpr (kGradient) {
            store<V>(picked + at, from);
            store_bytes(index + at, v > zero ? place[u] : I{} + kNoGradient);
          }
        }
      }
    }
  });
}

void apply(const PoolSize& size, int64 first, int64 end, const float* x, const float* scale, const float* shift,
           float* y, float* picked, std::uint8_t* index) {
  const auto run = index ? apply_rows<true> : apply_rows<false>;
  run(size, first, end, x, scale, shift, y, picked, index);
}

void gradient_apply(const PoolSize& size, int64 first, int64 end, const float* dy, const std::uint8_t* index,
                    const GroupNormGradientApply& norm) {
  const int64 C = size.C, W = size.W, out_width = size.out_width();
  for_each_tile(C, [&](auto tile, int64 c) {
    using T = decltype(tile);
    using V = typename T::V;
    V a[T::U], b[T::U], c0[T::U];
    for (int u = 0; u < T::U; ++u) {
      a[u] = load<V>(norm.a + c + u * T::kStep);
      b[u] = load<V>(norm.b + c + u * T::kStep);
      c0[u] = load<V>(norm.c + c + u * T::kStep);
    }
    for (int64 h = first; h < end; ++h) {
      const Holders rows(h, size.H);
      for (int64 w = 0; w < W; ++w) {
        const Holders cols(w, W);
        V dz[T::U] = {};
        for (int64 oh = rows.first; oh < rows.end; ++oh) {
          for (int64 ow = cols.first; ow < cols.end; ++ow) {
            const int64 from = (oh * out_width + ow) * C + c;
            const int k = int((h - Window(oh, size.H).start) * 3 + w - Window(ow, W).start);
            const std::uint64_t bits = equal_bits<T>(index + from, k);
            for (int u = 0; u < T::U; ++u) {
              dz[u] += keep(load<V>(dy + from + u * T::kStep), unsigned(bits >> (u * T::kStep)));
            }
          }
        }
        const int64 at = (h * W + w) * C + c;
        for (int u = 0; u < T::U; ++u) {
          const V v = load<V>(norm.x + at + u * T::kStep);
          store<V>(norm.dx + at + u * T::kStep, dz[u] * a[u] - (v * b[u] + c0[u]));
        }
      }
    }
  });
}

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const GroupNormActPoolLoops PTR_FAST_JOIN(group_norm_act_pool_loops_, PTR_FAST_ISA) = {apply, gradient_apply};
}  // namespace ptr_fast
