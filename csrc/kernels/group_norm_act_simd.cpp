#include "kernels/group_norm_act_simd.h"

#include "core/simd.h"
#include "kernels/simd_bits.h"

namespace {

using ptr_fast::GroupNormActMask;
using ptr_fast::GroupNormApply;
using ptr_fast::GroupNormGradientApply;
using ptr_fast::GroupNormGradientSums;
using ptr_fast::GroupNormMatrix;

constexpr int64 kChunkRows = 64;
constexpr int64 kPanelColumns = 512;  // sums of so many columns at a time are kept in float, in the first-level cache

// Floats of a block of rows that is walked down tile by tile, so that what belongs to a column stays in registers.
// Measured: one stream is read best in pieces that the hardware prefetches (8 kB), several streams with many
// coefficients in deeper blocks (16 kB).
constexpr int64 kFlat = 2048, kDeep = 4096;

inline void prefetch(const float* p) { __builtin_prefetch(p, 0, 2); }

inline int64 smaller(int64 a, int64 b) { return a < b ? a : b; }

// Calls f(tile, first_column, first_row, end_row) over blocks of kFloats.
template <int64 kFloats, class F>
inline void for_each_block(int64 cols, int64 first_row, int64 end_row, const F& f) {
  const int64 step = cols <= 4 * kLanes ? kChunkRows : cols < kFloats ? smaller(kFloats / cols, kChunkRows) : 1;
  for (int64 first = first_row; first < end_row; first += step) {
    const int64 end = smaller(first + step, end_row);
    for_each_tile(cols, [&](auto tile, int64 c) { f(tile, c, first, end); });
  }
}

// Calls f(tile, first_column, first_row, end_row) in the order of memory, which is what writing likes best (measured:
// rows of 128 written as two columns of tiles cost 1.3 to 1.4 times as much). A row of one tile is walked down with its
// coefficients in registers, wider rows one after another. kWide: whether a tile of eight vectors is one.
template <bool kWide, class F>
inline void for_each_in_order(const GroupNormMatrix& size, const F& f) {
  if (kWide && size.cols == 8 * kLanes) return f(Tile<Vec, 8>{}, int64(0), int64(0), size.rows);
  const int64 step = size.cols <= 4 * kLanes ? size.rows : 1;
  for (int64 first = 0; first < size.rows; first += step) {
    for_each_tile(size.cols, [&](auto tile, int64 c) { f(tile, c, first, first + step); });
  }
}

// Calls f(first_column, num_columns, first_row, end_row): parts of which sums in float are exact enough.
template <class F>
inline void for_each_chunk(const GroupNormMatrix& size, const F& f) {
  for (int64 c = 0; c < size.cols; c += kPanelColumns) {
    for (int64 first = 0; first < size.rows; first += kChunkRows) {
      f(c, smaller(kPanelColumns, size.cols - c), first, smaller(first + kChunkRows, size.rows));
    }
  }
}

// The bits of a tile. A matrix with bits has a multiple of 16 columns, so it has no tile of less than a byte.
template <class T>
struct TileBits {
  void load(const std::uint8_t* bits, int64 element) {
    if constexpr (T::kWidth % 8 == 0) __builtin_memcpy(words, bits + element / 8, T::kWidth / 8);
  }
  void store(std::uint8_t* bits, int64 element) const {
    if constexpr (T::kWidth % 8 == 0) __builtin_memcpy(bits + element / 8, words, T::kWidth / 8);
  }
  void set(int u, unsigned lanes) { words[u * T::kStep / 64] |= std::uint64_t(lanes) << (u * T::kStep % 64); }
  unsigned of(int u) const { return unsigned(words[u * T::kStep / 64] >> (u * T::kStep % 64)); }

  std::uint64_t words[(T::kWidth + 63) / 64] = {};
};

// Each chunk is summed about a pivot close to its mean (the mean of the rows before it), so that the float sums of
// squares lose nothing where the mean is large beside the deviation; the totals about zero are exact enough in double.
void moments(const GroupNormMatrix& size, const float* x, const float* beside, double* sum, double* sum_squares) {
  for_each_chunk(size, [&](int64 panel, int64 num, int64 first, int64 end) {
    float pivot[kPanelColumns], d1[kPanelColumns], d2[kPanelColumns];
    const double per_row = first == 0 ? 0.0 : 1.0 / double(first);
    for (int64 j = 0; j < num; ++j) {
      pivot[j] = first == 0 ? x[panel + j] : float(sum[panel + j] * per_row);
      d1[j] = d2[j] = 0;
    }
    for_each_block<kFlat>(num, first, end, [&](auto tile, int64 c, int64 begin, int64 stop) {
      using T = decltype(tile);
      using V = typename T::V;
      V p[T::U], s1[T::U], s2[T::U];
      for (int u = 0; u < T::U; ++u) {
        p[u] = load<V>(pivot + c + u * T::kStep);
        s1[u] = load<V>(d1 + c + u * T::kStep);
        s2[u] = load<V>(d2 + c + u * T::kStep);
      }
      for (int64 r = begin; r < stop; ++r) {
        const int64 at = r * size.cols + panel + c;
        for (int u = 0; u < T::U; ++u) {
          if (beside) prefetch(beside + at + u * T::kStep);
          const V d = load<V>(x + at + u * T::kStep) - p[u];
          s1[u] += d;
          s2[u] += d * d;
        }
      }
      for (int u = 0; u < T::U; ++u) {
        store(d1 + c + u * T::kStep, s1[u]);
        store(d2 + c + u * T::kStep, s2[u]);
      }
    });
    const double n = double(end - first);
    for (int64 j = 0; j < num; ++j) {
      const double shift = pivot[j];
      sum[panel + j] += n * shift + double(d1[j]);
      sum_squares[panel + j] += double(d2[j]) + shift * (2.0 * double(d1[j]) + n * shift);
    }
  });
}

enum class Residual { kNone, kPlain, kScaled };

template <bool kRelu, Residual kResidual, bool kBits>
void apply_blocks(const GroupNormMatrix& size, const GroupNormApply& op) {
  for_each_in_order<kResidual != Residual::kScaled>(size, [&](auto tile, int64 c, int64 first, int64 end) {
    using T = decltype(tile);
    using V = typename T::V;
    V scale[T::U], shift[T::U], residual_scale[T::U];
    for (int u = 0; u < T::U; ++u) {
      scale[u] = load<V>(op.scale + c + u * T::kStep);
      shift[u] = load<V>(op.shift + c + u * T::kStep);
      if constexpr (kResidual == Residual::kScaled) residual_scale[u] = load<V>(op.residual_scale + c + u * T::kStep);
    }
    for (int64 r = first; r < end; ++r) {
      const int64 at = r * size.cols + c;
      TileBits<T> bits;
      for (int u = 0; u < T::U; ++u) {
        const int64 k = at + u * T::kStep;
        if (size.ahead) prefetch(op.x + k + size.ahead);
        V v = load<V>(op.x + k) * scale[u] + shift[u];
        if constexpr (kResidual == Residual::kPlain) v += load<V>(op.residual + k);
        if constexpr (kResidual == Residual::kScaled) {
          if (size.ahead) prefetch(op.residual + k + size.ahead);
          v += load<V>(op.residual + k) * residual_scale[u];
        }
        if constexpr (kBits) bits.set(u, bits_of(v));
        store<V>(op.y + k, kRelu ? relu(v) : v);
      }
      if constexpr (kBits) bits.store(op.positive, at);
    }
  });
}

void apply(const GroupNormMatrix& size, const GroupNormApply& op) {
  const auto with = [&]<bool kRelu, bool kBits>() {
    if (op.residual_scale) return apply_blocks<kRelu, Residual::kScaled, kBits>(size, op);
    if (op.residual) return apply_blocks<kRelu, Residual::kPlain, kBits>(size, op);
    return apply_blocks<kRelu, Residual::kNone, kBits>(size, op);
  };
  if (op.relu && op.positive) return with.template operator()<true, true>();
  if (op.relu) return with.template operator()<true, false>();
  with.template operator()<false, false>();
}

enum class Mask { kNone, kAffine, kOutput, kBits };

// dz of one tile of one row.
template <class T, Mask kMask>
struct MaskedTile {
  using V = typename T::V;

  MaskedTile(const GroupNormActMask& mask, int64 c) : by(mask) {
    if constexpr (kMask == Mask::kAffine) {
      for (int u = 0; u < T::U; ++u) {
        scale[u] = load<V>(by.scale + c + u * T::kStep);
        shift[u] = load<V>(by.shift + c + u * T::kStep);
      }
    }
  }

  void row(int64 at) {
    if constexpr (kMask == Mask::kBits) bits.load(by.positive, at);
  }

  V operator()(V dy, V x, int u, int64 element) const {
    if constexpr (kMask == Mask::kAffine) return mask(dy, x * scale[u] + shift[u]);
    if constexpr (kMask == Mask::kOutput) return mask(dy, load<V>(by.y + element));
    if constexpr (kMask == Mask::kBits) return keep(dy, bits.of(u));
    return dy;
  }

  const GroupNormActMask& by;
  V scale[T::U], shift[T::U];
  TileBits<T> bits;
};

template <class F>
inline void with_mask(const GroupNormActMask& by, const F& f) {
  if (by.positive) return f.template operator()<Mask::kBits>();
  if (by.y) return f.template operator()<Mask::kOutput>();
  if (by.scale) return f.template operator()<Mask::kAffine>();
  f.template operator()<Mask::kNone>();
}

template <Mask kMask, bool kTwo>
void gradient_sums_blocks(const GroupNormMatrix& size, const float* dy, const GroupNormActMask& by,
                          const GroupNormGradientSums& norm, const GroupNormGradientSums& shortcut, double* sum_dz) {
  for_each_block<kDeep>(size.cols, 0, size.rows, [&](auto tile, int64 c, int64 first, int64 end) {
    using T = decltype(tile);
    using V = typename T::V;
    MaskedTile<T, kMask> masked(by, c);
    V m[T::U], m2[T::U], s[T::U] = {}, s1[T::U] = {}, s2[T::U] = {};
    for (int u = 0; u < T::U; ++u) {
      m[u] = load<V>(norm.center + c + u * T::kStep);
      if constexpr (kTwo) m2[u] = load<V>(shortcut.center + c + u * T::kStep);
    }
    for (int64 r = first; r < end; ++r) {
      const int64 at = r * size.cols + c;
      masked.row(at);
      for (int u = 0; u < T::U; ++u) {
        const int64 k = at + u * T::kStep;
        const V v = load<V>(norm.x + k);
        const V dz = masked(load<V>(dy + k), v, u, k);
        s[u] += dz;
        s1[u] += dz * (v - m[u]);
        if constexpr (kTwo) s2[u] += dz * (load<V>(shortcut.x + k) - m2[u]);
      }
    }
    const auto add = [&](const V* sums, double* out) {
      float d[T::kWidth];
      for (int u = 0; u < T::U; ++u) store(d + u * T::kStep, sums[u]);
      for (int j = 0; j < T::kWidth; ++j) out[c + j] += double(d[j]);
    };
    add(s, sum_dz);
    add(s1, norm.sum_dz_x);
    if constexpr (kTwo) add(s2, shortcut.sum_dz_x);
  });
}

void gradient_sums(const GroupNormMatrix& size, const float* dy, const GroupNormActMask& by,
                   const GroupNormGradientSums& norm, const GroupNormGradientSums& shortcut, double* sum_dz) {
  with_mask(by, [&]<Mask kMask>() {
    const auto run = shortcut.x ? gradient_sums_blocks<kMask, true> : gradient_sums_blocks<kMask, false>;
    run(size, dy, by, norm, shortcut, sum_dz);
  });
}

template <class T>
struct Coefficients {
  using V = typename T::V;

  Coefficients(const GroupNormGradientApply& norm, int64 first) {
    for (int u = 0; u < T::U; ++u) {
      a[u] = load<V>(norm.a + first + u * T::kStep);
      b[u] = load<V>(norm.b + first + u * T::kStep);
      c[u] = load<V>(norm.c + first + u * T::kStep);
    }
  }

  V dx(V dz, V x, V scale, int u) const { return dz * scale - (x * b[u] + c[u]); }

  V a[T::U], b[T::U], c[T::U];
};

enum class Branch { kNone, kPlain, kNorm };

template <Mask kMask, Branch kBranch>
void gradient_apply_blocks(const GroupNormMatrix& size, const float* dy, const GroupNormActMask& by,
                           const GroupNormGradientApply& norm, const GroupNormGradientApply& shortcut, float* dz_out) {
  for_each_in_order<true>(size, [&](auto tile, int64 c, int64 first, int64 end) {
    using T = decltype(tile);
    using V = typename T::V;
    MaskedTile<T, kMask> masked(by, c);
    const Coefficients<T> of_x(norm, c), of_shortcut(kBranch == Branch::kNorm ? shortcut : norm, c);
    for (int64 r = first; r < end; ++r) {
      const int64 at = r * size.cols + c;
      masked.row(at);
      for (int u = 0; u < T::U; ++u) {
        const int64 k = at + u * T::kStep;
        if (size.ahead) {
          prefetch(norm.x + k + size.ahead);
          prefetch(dy + k + size.ahead);
          if constexpr (kMask == Mask::kOutput) prefetch(by.y + k + size.ahead);
          if constexpr (kBranch == Branch::kNorm) prefetch(shortcut.x + k + size.ahead);
        }
        const V v = load<V>(norm.x + k);
        const V dz = masked(load<V>(dy + k), v, u, k);
        if constexpr (kBranch == Branch::kPlain) store<V>(dz_out + k, dz);
        if constexpr (kBranch == Branch::kNorm) {
          store<V>(shortcut.dx + k, of_shortcut.dx(dz, load<V>(shortcut.x + k), of_shortcut.a[u], u));
        }
        // The mask's scale is weight * rstd, as a is: one register less.
        store<V>(norm.dx + k, of_x.dx(dz, v, kMask == Mask::kAffine ? masked.scale[u] : of_x.a[u], u));
      }
    }
  });
}

void gradient_apply(const GroupNormMatrix& size, const float* dy, const GroupNormActMask& by,
                    const GroupNormGradientApply& norm, const GroupNormGradientApply& shortcut, float* dz_out) {
  with_mask(by, [&]<Mask kMask>() {
    const auto run = shortcut.x ? gradient_apply_blocks<kMask, Branch::kNorm>
                     : dz_out   ? gradient_apply_blocks<kMask, Branch::kPlain>
                                : gradient_apply_blocks<kMask, Branch::kNone>;
    run(size, dy, by, norm, shortcut, dz_out);
  });
}

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const GroupNormActLoops PTR_FAST_JOIN(group_norm_act_loops_, PTR_FAST_ISA) = {moments, apply, gradient_sums,
                                                                              gradient_apply};
}  // namespace ptr_fast
