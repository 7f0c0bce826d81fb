#include <algorithm>
#include <cmath>
#include <vector>

#include "core/isa.h"
#include "core/parallel.h"
#include "kernels/group_norm_act.h"
#include "kernels/group_norm_act_simd.h"

namespace ptr_fast {
namespace {

// A sample of P pixels of C channels is also one of P/2 pixels of 2C channels, and so on: with few channels the inner
// loops take several pixels as one row, so that their vectors are full.
struct Rows {
  explicit Rows(const GroupNormShape& shape) : rows(shape.P), cols(shape.C) {
    for (; cols < 64 && rows % 2 == 0; rows /= 2) cols *= 2, fold *= 2;
  }
  int64_t rows, cols, fold = 1;
};

// Per-channel values value(g, c), repeated once for every pixel of a row.
template <class F>
void fill_channels(std::vector<float>& out, const Rows& rows, const GroupNormShape& shape, const F& value) {
  out.resize(rows.cols);
  const int64_t D = shape.C / shape.G;
  for (int64_t g = 0; g < shape.G; ++g) {
    for (int64_t c = g * D; c < (g + 1) * D; ++c) out[c] = value(g, c);
  }
  for (int64_t k = shape.C; k < rows.cols; ++k) out[k] = out[k - shape.C];
}

// group_norm(x) * weight + bias = x * scale + shift, from the mean and rstd that the backward pass will see too.
void affine(const GroupNormShape& shape, const float* weight, const float* bias, const float* mean, const float* rstd,
            const Rows& rows, std::vector<float>& scale, std::vector<float>& shift) {
  fill_channels(scale, rows, shape, [&](int64_t g, int64_t c) { return weight[c] * rstd[g]; });
  fill_channels(shift, rows, shape,
                [&](int64_t g, int64_t c) { return float(bias[c] - double(mean[g]) * (double(weight[c]) * rstd[g])); });
}

// Sums per column of a row to sums per channel, in a fixed order.
void fold_columns(std::vector<double>& sums, int64_t C) {
  for (int64_t first = C; first < int64_t(sums.size()); first += C) {
    for (int64_t c = 0; c < C; ++c) sums[c] += sums[first + c];
  }
}

// Below this many elements the work is smaller than the cost of waking a thread.
int useful_threads(const GroupNormShape& shape, int num_threads) {
  const int64_t elements = shape.B * shape.P * shape.C;
  return int(std::clamp<int64_t>(elements / 32768, 1, num_threads));
}

}  // namespace

void group_norm_act_forward(const GroupNormActForward& op, int num_threads) {
  const auto [B, P, C, G] = op.shape;
  const GroupNormActLoops& loops = PTR_FAST_SELECT_ISA(group_norm_act_loops);
  const Rows rows(op.shape);
  const int64_t D = C / G;
  parallel_for(B, useful_threads(op.shape, num_threads), [&](int64_t n) {
    thread_local std::vector<double> sum, squares;
    thread_local std::vector<float> scale, shift;
    const int64_t at = n * P * C;
    sum.assign(rows.cols, 0.0);
    squares.assign(rows.cols, 0.0);
    loops.moments(op.x + at, rows.rows, rows.cols, sum.data(), squares.data());
    fold_columns(sum, C);
    fold_columns(squares, C);
    float* const mean = op.mean + n * G;
    float* const rstd = op.rstd + n * G;
    for (int64_t g = 0; g < G; ++g) {
      double total = 0, total_squares = 0;
      for (int64_t c = g * D; c < (g + 1) * D; ++c) total += sum[c], total_squares += squares[c];
      const double m = total / double(D * P);
      // std::max(NaN, 0) would be NaN or 0 by the order of its arguments: this order keeps NaN.
      const double variance = std::max(total_squares / double(D * P) - m * m, 0.0);
      mean[g] = float(m);
      rstd[g] = float(1.0 / std::sqrt(variance + op.eps));
    }
    affine(op.shape, op.weight, op.bias, mean, rstd, rows, scale, shift);
    loops.apply(op.x + at, op.residual ? op.residual + at : nullptr, scale.data(), shift.data(), rows.rows, rows.cols,
                op.relu, op.y + at);
  });
}

void group_norm_act_backward(const GroupNormActBackward& op, int num_threads) {
  const auto [B, P, C, G] = op.shape;
  const GroupNormActLoops& loops = PTR_FAST_SELECT_ISA(group_norm_act_loops);
  const Rows rows(op.shape);
  const int64_t D = C / G;
  // Per sample and channel: sum of dz, and of dz * normalised x. Added up over samples below, in a fixed order.
  std::vector<double> parts(B * 2 * C);
  parallel_for(B, useful_threads(op.shape, num_threads), [&](int64_t n) {
    thread_local std::vector<double> sum, sum_x;
    thread_local std::vector<float> center, b, c0, scale, shift, group_b, group_c;
    const int64_t at = n * P * C;
    const float* const mean = op.mean + n * G;
    const float* const rstd = op.rstd + n * G;
    sum.assign(rows.cols, 0.0);
    sum_x.assign(rows.cols, 0.0);
    fill_channels(center, rows, op.shape, [&](int64_t g, int64_t) { return mean[g]; });
    GroupNormActMask mask;
    if (op.relu && op.y) mask.y = op.y + at;
    affine(op.shape, op.weight, op.bias, mean, rstd, rows, scale, shift);
    if (op.relu && !op.y) {
      mask.scale = scale.data();
      mask.shift = shift.data();
    }
    loops.gradient_sums(op.dy + at, mask, op.x + at, center.data(), rows.rows, rows.cols, sum.data(), sum_x.data());
    fold_columns(sum, C);
    fold_columns(sum_x, C);
    // dx = rstd * (w dz - mean(w dz) - xhat * mean(w dz xhat)), the means over pixels and channels of a group, written
    // as dz * scale - (x * b + c)
    group_b.resize(G);
    group_c.resize(G);
    double* const part = parts.data() + n * 2 * C;
    for (int64_t g = 0; g < G; ++g) {
      double total_dz = 0, total_dz_x = 0;
      for (int64_t c = g * D; c < (g + 1) * D; ++c) {
        part[c] = sum[c];
        part[C + c] = sum_x[c] * rstd[g];
        total_dz += op.weight[c] * sum[c];
        total_dz_x += op.weight[c] * part[C + c];
      }
      const double scale_of_mean = double(rstd[g]) / double(D * P);
      const double slope = scale_of_mean * rstd[g] * total_dz_x;
      group_b[g] = float(slope);
      group_c[g] = float(scale_of_mean * total_dz - mean[g] * slope);
    }
    fill_channels(b, rows, op.shape, [&](int64_t g, int64_t) { return group_b[g]; });
    fill_channels(c0, rows, op.shape, [&](int64_t g, int64_t) { return group_c[g]; });
    loops.gradient_apply(op.dy + at, mask, op.x + at, scale.data(), b.data(), c0.data(), rows.rows, rows.cols,
                         op.dx + at, op.dresidual ? op.dresidual + at : nullptr);
  });
  std::vector<double> totals(2 * C, 0.0);
  for (int64_t n = 0; n < B; ++n) {
    for (int64_t k = 0; k < 2 * C; ++k) totals[k] += parts[n * 2 * C + k];
  }
  for (int64_t c = 0; c < C; ++c) {
    op.dbias[c] = float(totals[c]);
    op.dweight[c] = float(totals[C + c]);
  }
}

}  // namespace ptr_fast
