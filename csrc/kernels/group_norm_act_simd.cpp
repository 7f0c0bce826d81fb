#include "kernels/group_norm_act_simd.h"

#include "core/simd.h"

namespace {

using ptr_fast::GroupNormActMask;

constexpr int64 kChunkRows = 64;

inline void prefetch(const float* p) { __builtin_prefetch(p, 0, 2); }

inline int64 smaller(int64 a, int64 b) { return a < b ? a : b; }

// Each chunk is summed about a pivot close to its mean (the mean of the rows before it), so that the float sums of
// squares lose nothing where the mean is large beside the deviation; the totals about zero are exact enough in double.
void moments(const float* x, int64 rows, int64 cols, double* sum, double* sum_squares) {
  for (int64 first = 0; first < rows; first += kChunkRows) {
    const int64 n = smaller(kChunkRows, rows - first);
    const float* chunk = x + first * cols;
    const double per_row = first == 0 ? 0.0 : 1.0 / double(first);
    for_each_tile(cols, [&](auto tile, int64 c) {
      using T = decltype(tile);
      using V = typename T::V;
      float pivot[T::kWidth], d1[T::kWidth], d2[T::kWidth];
      for (int j = 0; j < T::kWidth; ++j) pivot[j] = first == 0 ? chunk[c + j] : float(sum[c + j] * per_row);
      V p[T::U], s1[T::U] = {}, s2[T::U] = {};
      for (int u = 0; u < T::U; ++u) p[u] = load<V>(pivot + u * T::kStep);
      for (int64 r = 0; r < n; ++r) {
        const float* row = chunk + r * cols + c;
        for (int u = 0; u < T::U; ++u) {
          const V d = load<V>(row + u * T::kStep) - p[u];
          s1[u] += d;
          s2[u] += d * d;
        }
      }
      for (int u = 0; u < T::U; ++u) {
        store(d1 + u * T::kStep, s1[u]);
        store(d2 + u * T::kStep, s2[u]);
      }
      for (int j = 0; j < T::kWidth; ++j) {
        const double shift = pivot[j];
        sum[c + j] += double(n) * shift + double(d1[j]);
        sum_squares[c + j] += double(d2[j]) + shift * (2.0 * double(d1[j]) + double(n) * shift);
      }
    });
  }
}

template <bool kRelu, bool kResidual>
void apply_rows(const float* x, const float* residual, const float* scale, const float* shift, int64 rows, int64 cols,
                float* y) {
  for (int64 r = 0; r < rows; ++r) {
    const int64 row = r * cols;
    for_each_tile(cols, [&](auto tile, int64 c) {
      using T = decltype(tile);
      using V = typename T::V;
      for (int u = 0; u < T::U; ++u) {
        const int64 k = c + u * T::kStep;
        prefetch(x + row + k + rows * cols);
        V v = load<V>(x + row + k) * load<V>(scale + k) + load<V>(shift + k);
        if constexpr (kResidual) v += load<V>(residual + row + k);
        store<V>(y + row + k, kRelu ? relu(v) : v);
      }
    });
  }
}

void apply(const float* x, const float* residual, const float* scale, const float* shift, int64 rows, int64 cols,
           bool relu, float* y) {
  const auto run = relu ? (residual ? apply_rows<true, true> : apply_rows<true, false>)
                        : (residual ? apply_rows<false, true> : apply_rows<false, false>);
  run(x, residual, scale, shift, rows, cols, y);
}

// Where dy passes the activation: everywhere, where x * scale + shift > 0 (recomputed: cheaper than reading y), or
// where y > 0 (with a residual branch, which is not kept).
enum class Mask { kNone, kAffine, kOutput };

template <Mask kMask, class V>
inline V masked(const GroupNormActMask& by, V dy, V x, int64 element, int64 column) {
  if constexpr (kMask == Mask::kAffine) return mask(dy, x * load<V>(by.scale + column) + load<V>(by.shift + column));
  if constexpr (kMask == Mask::kOutput) return mask(dy, load<V>(by.y + element));
  return dy;
}

template <class F>
inline void with_mask(const GroupNormActMask& by, const F& f) {
  if (by.y) {
    f.template operator()<Mask::kOutput>();
  } else if (by.scale) {
    f.template operator()<Mask::kAffine>();
  } else {
    f.template operator()<Mask::kNone>();
  }
}

template <Mask kMask>
void gradient_sums_rows(const float* dy, const GroupNormActMask& by, const float* x, const float* center, int64 rows,
                        int64 cols, double* sum_dz, double* sum_dz_x) {
  for (int64 first = 0; first < rows; first += kChunkRows) {
    const int64 n = smaller(kChunkRows, rows - first);
    for_each_tile(cols, [&](auto tile, int64 c) {
      using T = decltype(tile);
      using V = typename T::V;
      V m[T::U], s1[T::U] = {}, s2[T::U] = {};
      for (int u = 0; u < T::U; ++u) m[u] = load<V>(center + c + u * T::kStep);
      for (int64 r = first; r < first + n; ++r) {
        for (int u = 0; u < T::U; ++u) {
          const int64 column = c + u * T::kStep, k = r * cols + column;
          const V v = load<V>(x + k);
          const V dz = masked<kMask>(by, load<V>(dy + k), v, k, column);
          s1[u] += dz;
          s2[u] += dz * (v - m[u]);
        }
      }
      float d1[T::kWidth], d2[T::kWidth];
      for (int u = 0; u < T::U; ++u) {
        store(d1 + u * T::kStep, s1[u]);
        store(d2 + u * T::kStep, s2[u]);
      }
      for (int j = 0; j < T::kWidth; ++j) {
        sum_dz[c + j] += double(d1[j]);
        sum_dz_x[c + j] += double(d2[j]);
      }
    });
  }
}

void gradient_sums(const float* dy, const GroupNormActMask& by, const float* x, const float* center, int64 rows,
                   int64 cols, double* sum_dz, double* sum_dz_x) {
  with_mask(by, [&]<Mask kMask>() { gradient_sums_rows<kMask>(dy, by, x, center, rows, cols, sum_dz, sum_dz_x); });
}

template <Mask kMask, bool kStore>
void gradient_apply_rows(const float* dy, const GroupNormActMask& by, const float* x, const float* a, const float* b,
                         const float* c, int64 rows, int64 cols, float* dx, float* dz_out) {
  for (int64 r = 0; r < rows; ++r) {
    const int64 row = r * cols;
    for_each_tile(cols, [&](auto tile, int64 first) {
      using T = decltype(tile);
      using V = typename T::V;
      for (int u = 0; u < T::U; ++u) {
        const int64 k = first + u * T::kStep;
        prefetch(x + row + k + rows * cols);
        prefetch(dy + row + k + rows * cols);
        if constexpr (kMask == Mask::kOutput) prefetch(by.y + row + k + rows * cols);
        const V v = load<V>(x + row + k);
        const V dz = masked<kMask>(by, load<V>(dy + row + k), v, row + k, k);
        if constexpr (kStore) store<V>(dz_out + row + k, dz);
        store<V>(dx + row + k, dz * load<V>(a + k) - (v * load<V>(b + k) + load<V>(c + k)));
      }
    });
  }
}

void gradient_apply(const float* dy, const GroupNormActMask& by, const float* x, const float* a, const float* b,
                    const float* c, int64 rows, int64 cols, float* dx, float* dz_out) {
  with_mask(by, [&]<Mask kMask>() {
    const auto run = dz_out ? gradient_apply_rows<kMask, true> : gradient_apply_rows<kMask, false>;
    run(dy, by, x, a, b, c, rows, cols, dx, dz_out);
  });
}

}  // namespace

#define PTR_FAST_JOIN_(a, b) a##b
#define PTR_FAST_JOIN(a, b) PTR_FAST_JOIN_(a, b)

namespace ptr_fast {
const GroupNormActLoops PTR_FAST_JOIN(group_norm_act_loops_, PTR_FAST_ISA) = {moments, apply, gradient_sums,
                                                                              gradient_apply};
}  // namespace ptr_fast
