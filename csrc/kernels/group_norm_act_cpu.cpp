#include <vector>

#include "core/isa.h"
#include "kernels/group_norm_act.h"
#include "kernels/group_norm_parts.h"

namespace ptr_fast {
namespace {

struct ForwardWork {
  Moments moments, shortcut_moments;
  Affine affine, shortcut_affine;
};

struct BackwardWork {
  std::vector<double> sum_dz, sum_dz_x, sum_dz_shortcut;
  std::vector<float> center, shortcut_center;
  Affine affine;
  Gradient gradient, shortcut_gradient;
};

// Elements from a place in a sample to the same place in the next one, which is fetched meanwhile.
int64_t next_sample(const GroupNormShape& shape) { return shape.B > 1 ? shape.P * shape.C : 0; }

}  // namespace

void group_norm_act_forward(const GroupNormActForward& op, int num_threads) {
  const auto [B, P, C, G] = op.shape;
  const GroupNormActLoops& loops = PTR_FAST_SELECT_ISA(group_norm_act_loops);
  const Rows rows(op.shape);
  const int64_t cols = rows.cols, parts = parts_per_sample(op.shape), sample = P * C, ahead = next_sample(op.shape);
  const GroupNorm &norm = op.norm, &shortcut = op.shortcut;

  const auto start = [&](ForwardWork& work, int64_t) {
    work.moments.reset(parts, cols);
    if (shortcut.x) work.shortcut_moments.reset(parts, cols);
  };
  const auto sums = [&](ForwardWork& work, int64_t n, int64_t i) {
    const Part part(rows.rows, i, parts);
    const GroupNormMatrix size{part.end - part.first, cols, 0};
    const int64_t at = n * sample + part.first * cols;
    const auto of = [&](const GroupNorm& norm, const float* beside, Moments& moments) {
      loops.moments(size, norm.x + at, beside, moments.sum.data() + i * cols, moments.squares.data() + i * cols);
    };
    of(norm, op.residual ? op.residual + at : nullptr, work.moments);
    if (shortcut.x) of(shortcut, nullptr, work.shortcut_moments);
  };
  const auto finish = [&](ForwardWork& work, int64_t n) {
    work.moments.finish(op.shape, op.eps, parts, cols, norm.mean + n * G, norm.rstd + n * G);
    work.affine.set(op.shape, norm, n, cols);
    if (!shortcut.x) return;
    work.shortcut_moments.finish(op.shape, op.eps, parts, cols, shortcut.mean + n * G, shortcut.rstd + n * G);
    work.shortcut_affine.set(op.shape, shortcut, n, cols);
    for (int64_t c = 0; c < cols; ++c) work.affine.shift[c] += work.shortcut_affine.shift[c];
  };
  const auto apply = [&](const ForwardWork& work, int64_t n, int64_t i) {
    const Part part(rows.rows, i, parts);
    const int64_t at = n * sample + part.first * cols;
    GroupNormApply a{};
    a.x = norm.x + at;
    a.scale = work.affine.scale.data();
    a.shift = work.affine.shift.data();
    if (shortcut.x) {
      a.residual = shortcut.x + at;
      a.residual_scale = work.shortcut_affine.scale.data();
    } else if (op.residual) {
      a.residual = op.residual + at;
    }
    a.y = op.y + at;
    a.positive = op.positive ? op.positive + at / 8 : nullptr;
    a.relu = op.relu;
    loops.apply({part.end - part.first, cols, ahead}, a);
  };
  for_each_sample<ForwardWork>(op.shape, num_threads, start, sums, finish, apply);
}

void group_norm_act_backward(const GroupNormActBackward& op, int num_threads) {
  const auto [B, P, C, G] = op.shape;
  const GroupNormActLoops& loops = PTR_FAST_SELECT_ISA(group_norm_act_loops);
  const Rows rows(op.shape);
  const int64_t cols = rows.cols, parts = parts_per_sample(op.shape), sample = P * C, ahead = next_sample(op.shape);
  const GroupNorm &norm = op.norm, &shortcut = op.shortcut;
  // Per sample and channel: sums of dz, and of dz times the normalised x and shortcut.
  std::vector<double> dz(B * C), dz_x(B * C), dz_shortcut(shortcut.x ? B * C : 0);

  const auto mask_at = [&](const BackwardWork& work, int64_t at) {
    GroupNormActMask mask;
    if (!op.relu) return mask;
    if (op.positive) {
      mask.positive = op.positive + at / 8;
    } else if (op.y) {
      mask.y = op.y + at;
    } else {
      mask.scale = work.affine.scale.data();
      mask.shift = work.affine.shift.data();
    }
    return mask;
  };
  const auto start = [&](BackwardWork& work, int64_t n) {
    work.sum_dz.assign(parts * cols, 0.0);
    work.sum_dz_x.assign(parts * cols, 0.0);
    if (shortcut.x) work.sum_dz_shortcut.assign(parts * cols, 0.0);
    const auto center = [&](const GroupNorm& norm, std::vector<float>& out) {
      fill_channels(out, cols, op.shape, [&](int64_t g, int64_t) { return norm.mean[n * G + g]; });
    };
    center(norm, work.center);
    if (shortcut.x) center(shortcut, work.shortcut_center);
    if (op.relu && !op.positive && !op.y) work.affine.set(op.shape, norm, n, cols);
  };
  const auto sums = [&](BackwardWork& work, int64_t n, int64_t i) {
    const Part part(rows.rows, i, parts);
    const int64_t at = n * sample + part.first * cols;
    GroupNormGradientSums of_x{norm.x + at, work.center.data(), work.sum_dz_x.data() + i * cols}, of_shortcut{};
    if (shortcut.x) {
      of_shortcut = {shortcut.x + at, work.shortcut_center.data(), work.sum_dz_shortcut.data() + i * cols};
    }
    loops.gradient_sums({part.end - part.first, cols, 0}, op.dy + at, mask_at(work, at), of_x, of_shortcut,
                        work.sum_dz.data() + i * cols);
  };
  const auto finish = [&](BackwardWork& work, int64_t n) {
    fold_sums(work.sum_dz.data(), parts, cols, C);
    fold_sums(work.sum_dz_x.data(), parts, cols, C);
    std::copy_n(work.sum_dz.data(), C, dz.data() + n * C);
    work.gradient.finish(op.shape, norm, n, cols, work.sum_dz.data(), work.sum_dz_x.data(), dz_x.data() + n * C);
    if (!shortcut.x) return;
    fold_sums(work.sum_dz_shortcut.data(), parts, cols, C);
    work.shortcut_gradient.finish(op.shape, shortcut, n, cols, work.sum_dz.data(), work.sum_dz_shortcut.data(),
                                  dz_shortcut.data() + n * C);
  };
  const auto apply = [&](const BackwardWork& work, int64_t n, int64_t i) {
    const Part part(rows.rows, i, parts);
    const int64_t at = n * sample + part.first * cols;
    loops.gradient_apply({part.end - part.first, cols, ahead}, op.dy + at, mask_at(work, at),
                         work.gradient.at(norm, at), work.shortcut_gradient.at(shortcut, at),
                         op.dresidual ? op.dresidual + at : nullptr);
  };
  for_each_sample<BackwardWork>(op.shape, num_threads, start, sums, finish, apply);
  sum_samples(dz.data(), B, C, norm.dbias);
  sum_samples(dz_x.data(), B, C, norm.dweight);
  if (!shortcut.x) return;
  std::copy_n(norm.dbias, C, shortcut.dbias);
  sum_samples(dz_shortcut.data(), B, C, shortcut.dweight);
}

}  // namespace ptr_fast
