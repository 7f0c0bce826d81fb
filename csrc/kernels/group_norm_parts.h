// What group_norm_act and group_norm_act_pool share on the CPU: how a sample is cut into rows and parts, statistics and
// coefficients of one norm.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "kernels/group_norm_act.h"
#include "kernels/group_norm_act_simd.h"

namespace ptr_fast {

// A sample of P pixels of C channels is also one of P/2 pixels of 2C channels, and so on: with few channels the inner
// loops take several pixels as one row, so that their vectors are full.
struct Rows {
  explicit Rows(const GroupNormShape& shape) : rows(shape.P), cols(shape.C) {
    for (; cols < 64 && rows % 2 == 0; rows /= 2) cols *= 2;
  }
  int64_t rows, cols;
};

// Items [first, end) of part `part` of `num_parts`.
struct Part {
  Part(int64_t num_items, int64_t part, int64_t num_parts)
      : first(num_items * part / num_parts), end(num_items * (part + 1) / num_parts) {}
  int64_t first, end;
};

// Parts of a sample, from its size alone, so that sums are the same for any number of threads.
inline int64_t parts_per_sample(const GroupNormShape& shape) {
  return std::clamp<int64_t>(shape.P * shape.C / 32768, 1, 16);
}

// Below this many elements the work is smaller than the cost of waking a thread.
inline int useful_threads(const GroupNormShape& shape, int num_threads) {
  return int(std::clamp<int64_t>(shape.B * shape.P * shape.C / 32768, 1, num_threads));
}

// Per sample: start(work, n), then sums(work, n, part) over all parts, then finish(work, n), then apply(work, n, part)
// over all parts. With many samples a thread takes whole samples, which stay in its cache from sums to apply; with few,
// their parts are spread over the threads.
template <class Work, class Start, class Sums, class Finish, class Apply>
void for_each_sample(const GroupNormShape& shape, int num_threads, const Start& start, const Sums& sums,
                     const Finish& finish, const Apply& apply) {
  const int64_t B = shape.B, parts = parts_per_sample(shape);
  const int threads = useful_threads(shape, num_threads);
  if (threads == 1 || parts == 1 || B >= 2 * threads) {
    parallel_for(B, threads, [&](int64_t n) {
      thread_local Work work;
      start(work, n);
      for (int64_t part = 0; part < parts; ++part) sums(work, n, part);
      finish(work, n);
      for (int64_t part = 0; part < parts; ++part) apply(work, n, part);
    });
    return;
  }
  std::vector<Work> works(B);
  for (int64_t n = 0; n < B; ++n) start(works[n], n);
  parallel_for(B * parts, threads, [&](int64_t i) { sums(works[i / parts], i / parts, i % parts); });
  for (int64_t n = 0; n < B; ++n) finish(works[n], n);
  parallel_for(B * parts, threads, [&](int64_t i) { apply(works[i / parts], i / parts, i % parts); });
}

// Adds up a [num_parts, cols] matrix of sums into its first C values, in a fixed order.
inline void fold_sums(double* sums, int64_t num_parts, int64_t cols, int64_t C) {
  for (int64_t first = C; first < num_parts * cols; first += C) {
    for (int64_t c = 0; c < C; ++c) sums[c] += sums[first + c];
  }
}

// Per-channel values value(g, c), repeated once for every pixel of a row.
template <class F>
void fill_channels(std::vector<float>& out, int64_t cols, const GroupNormShape& shape, const F& value) {
  out.resize(cols);
  const int64_t D = shape.C / shape.G;
  for (int64_t g = 0; g < shape.G; ++g) {
    for (int64_t c = g * D; c < (g + 1) * D; ++c) out[c] = value(g, c);
  }
  for (int64_t k = shape.C; k < cols; ++k) out[k] = out[k - shape.C];
}

// Sums of one norm in the forward pass, and group_norm(x) * weight + bias written as x * scale + shift.
struct Moments {
  void reset(int64_t num_parts, int64_t cols) {
    sum.assign(num_parts * cols, 0.0);
    squares.assign(num_parts * cols, 0.0);
  }

  // Writes mean and rstd of a sample.
  void finish(const GroupNormShape& shape, double eps, int64_t num_parts, int64_t cols, float* mean, float* rstd) {
    const int64_t D = shape.C / shape.G;
    fold_sums(sum.data(), num_parts, cols, shape.C);
    fold_sums(squares.data(), num_parts, cols, shape.C);
    for (int64_t g = 0; g < shape.G; ++g) {
      double total = 0, total_squares = 0;
      for (int64_t c = g * D; c < (g + 1) * D; ++c) total += sum[c], total_squares += squares[c];
      const double m = total / double(D * shape.P);
      // std::max(NaN, 0) would be NaN or 0 by the order of its arguments: this order keeps NaN.
      const double variance = std::max(total_squares / double(D * shape.P) - m * m, 0.0);
      mean[g] = float(m);
      rstd[g] = float(1.0 / std::sqrt(variance + eps));
    }
  }

  std::vector<double> sum, squares;
};

// From the mean and rstd that the backward pass will see too.
struct Affine {
  void set(const GroupNormShape& shape, const GroupNorm& norm, int64_t n, int64_t cols) {
    const float *mean = norm.mean + n * shape.G, *rstd = norm.rstd + n * shape.G;
    fill_channels(scale, cols, shape, [&](int64_t g, int64_t c) { return norm.weight[c] * rstd[g]; });
    fill_channels(shift, cols, shape, [&](int64_t g, int64_t c) {
      return float(norm.bias[c] - double(mean[g]) * (double(norm.weight[c]) * rstd[g]));
    });
  }

  std::vector<float> scale, shift;
};

// The backward pass of one norm: dx = dz * scale - (x * b + c).
struct Gradient {
  // part[c]: sum of dz times the normalised x, of this sample. sum_dz[c] and sum_dz_x[c] are already folded.
  void finish(const GroupNormShape& shape, const GroupNorm& norm, int64_t n, int64_t cols, const double* sum_dz,
              const double* sum_dz_x, double* part) {
    const int64_t C = shape.C, G = shape.G, D = C / G;
    const float *mean = norm.mean + n * G, *rstd = norm.rstd + n * G;
    group_b.resize(G);
    group_c.resize(G);
    // dx = rstd * (w dz - mean(w dz) - xhat * mean(w dz xhat)), the means over pixels and channels of a group
    for (int64_t g = 0; g < G; ++g) {
      double total_dz = 0, total_dz_x = 0;
      for (int64_t c = g * D; c < (g + 1) * D; ++c) {
        part[c] = sum_dz_x[c] * rstd[g];
        total_dz += norm.weight[c] * sum_dz[c];
        total_dz_x += norm.weight[c] * part[c];
      }
      const double scale_of_mean = double(rstd[g]) / double(D * shape.P);
      const double slope = scale_of_mean * rstd[g] * total_dz_x;
      group_b[g] = float(slope);
      group_c[g] = float(scale_of_mean * total_dz - mean[g] * slope);
    }
    fill_channels(b, cols, shape, [&](int64_t g, int64_t) { return group_b[g]; });
    fill_channels(c0, cols, shape, [&](int64_t g, int64_t) { return group_c[g]; });
    fill_channels(scale, cols, shape, [&](int64_t g, int64_t c) { return norm.weight[c] * rstd[g]; });
  }

  GroupNormGradientApply at(const GroupNorm& norm, int64_t offset) const {
    if (!norm.x) return {};
    return {norm.x + offset, scale.data(), b.data(), c0.data(), norm.dx + offset};
  }

  std::vector<float> scale, b, c0, group_b, group_c;
};

// Per-sample sums [B, C] added up over samples, in order.
inline void sum_samples(const double* parts, int64_t B, int64_t C, float* out) {
  std::vector<double> totals(parts, parts + C);
  for (int64_t n = 1; n < B; ++n) {
    for (int64_t c = 0; c < C; ++c) totals[c] += parts[n * C + c];
  }
  for (int64_t c = 0; c < C; ++c) out[c] = float(totals[c]);
}

}  // namespace ptr_fast
