#include <vector>

#include "core/isa.h"
#include "kernels/group_norm_act_pool.h"
#include "kernels/group_norm_act_pool_simd.h"
#include "kernels/group_norm_parts.h"

namespace ptr_fast {
namespace {

struct PoolForwardWork {
  Moments moments;
  Affine affine;
};

struct PoolBackwardWork {
  std::vector<double> sum_dz, sum_dz_x;
  std::vector<float> center;
  Affine affine;
  Gradient gradient;
};

}  // namespace

void group_norm_act_pool_forward(const GroupNormActPool& op, int num_threads) {
  const auto [B, P, C, G] = op.shape;
  const GroupNormActLoops& loops = PTR_FAST_SELECT_ISA(group_norm_act_loops);
  const GroupNormActPoolLoops& pool_loops = PTR_FAST_SELECT_ISA(group_norm_act_pool_loops);
  const Rows rows(op.shape);
  const int64_t parts = parts_per_sample(op.shape), sample = P * C;
  const int64_t out_height = op.size.out_height(), pooled = out_height * op.size.out_width() * C;
  const auto start = [&](PoolForwardWork& work, int64_t) { work.moments.reset(parts, rows.cols); };
  const auto sums = [&](PoolForwardWork& work, int64_t n, int64_t i) {
    const Part part(rows.rows, i, parts);
    loops.moments({part.end - part.first, rows.cols, 0}, op.norm.x + n * sample + part.first * rows.cols, nullptr,
                  work.moments.sum.data() + i * rows.cols, work.moments.squares.data() + i * rows.cols);
  };
  const auto finish = [&](PoolForwardWork& work, int64_t n) {
    work.moments.finish(op.shape, op.eps, parts, rows.cols, op.norm.mean + n * G, op.norm.rstd + n * G);
    work.affine.set(op.shape, op.norm, n, C);
  };
  const auto apply = [&](const PoolForwardWork& work, int64_t n, int64_t i) {
    const Part part(out_height, i, parts);
    pool_loops.apply(op.size, part.first, part.end, op.norm.x + n * sample, work.affine.scale.data(),
                     work.affine.shift.data(), op.y + n * pooled, op.picked ? op.picked + n * pooled : nullptr,
                     op.index ? op.index + n * pooled : nullptr);
  };
  for_each_sample<PoolForwardWork>(op.shape, num_threads, start, sums, finish, apply);
}

void group_norm_act_pool_backward(const GroupNormActPool& op, int num_threads) {
  const auto [B, P, C, G] = op.shape;
  const GroupNormActLoops& loops = PTR_FAST_SELECT_ISA(group_norm_act_loops);
  const GroupNormActPoolLoops& pool_loops = PTR_FAST_SELECT_ISA(group_norm_act_pool_loops);
  const int64_t out_height = op.size.out_height(), out_pixels = out_height * op.size.out_width();
  const Rows rows({B, out_pixels, C, G});
  const int64_t cols = rows.cols, parts = parts_per_sample(op.shape), sample = P * C, pooled = out_pixels * C;
  std::vector<double> dz(B * C), dz_x(B * C);
  const auto start = [&](PoolBackwardWork& work, int64_t n) {
    work.sum_dz.assign(parts * cols, 0.0);
    work.sum_dz_x.assign(parts * cols, 0.0);
    fill_channels(work.center, cols, op.shape, [&](int64_t g, int64_t) { return op.norm.mean[n * G + g]; });
    work.affine.set(op.shape, op.norm, n, cols);
  };
  // A gradient reaches only the pixels that were picked: the sums need nothing else.
  const auto sums = [&](PoolBackwardWork& work, int64_t n, int64_t i) {
    const Part part(rows.rows, i, parts);
    const int64_t at = n * pooled + part.first * cols;
    GroupNormActMask mask;
    mask.scale = work.affine.scale.data();
    mask.shift = work.affine.shift.data();
    loops.gradient_sums({part.end - part.first, cols, 0}, op.dy + at, mask,
                        {op.picked + at, work.center.data(), work.sum_dz_x.data() + i * cols}, {},
                        work.sum_dz.data() + i * cols);
  };
  const auto finish = [&](PoolBackwardWork& work, int64_t n) {
    fold_sums(work.sum_dz.data(), parts, cols, C);
    fold_sums(work.sum_dz_x.data(), parts, cols, C);
    std::copy_n(work.sum_dz.data(), C, dz.data() + n * C);
    work.gradient.finish(op.shape, op.norm, n, C, work.sum_dz.data(), work.sum_dz_x.data(), dz_x.data() + n * C);
  };
  const auto apply = [&](const PoolBackwardWork& work, int64_t n, int64_t i) {
    const Part part(op.size.H, i, parts);
    pool_loops.gradient_apply(op.size, part.first, part.end, op.dy + n * pooled, op.index + n * pooled,
                              work.gradient.at(op.norm, n * sample));
  };
  for_each_sample<PoolBackwardWork>(op.shape, num_threads, start, sums, finish, apply);
  sum_samples(dz.data(), B, C, op.norm.dbias);
  sum_samples(dz_x.data(), B, C, op.norm.dweight);
}

}  // namespace ptr_fast
