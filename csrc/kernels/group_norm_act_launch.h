// From the arguments of group_norm_act_cuda.h to a kernel, checked: what the GPU's launcher and the emulator share.
//
// with_kernel(op, launch) calls launch(kernel, grid, cluster).
#pragma once
#include "core/check.h"
#include "kernels/group_norm_act_block.h"
#include "kernels/group_norm_act_cuda.h"
#include "kernels/group_norm_act_pool_block.h"

namespace ptr_fast {

inline Slab slab_of(const GroupNormCudaShape& shape, bool pool) {
  const int64_t vector = shape.bfloat16 ? 8 : 4, pixels = shape.height * shape.width;
  check(shape.images >= 1 && pixels >= 1 && shape.channels >= 1, "group_norm_act: an empty image");
  check(shape.groups >= 1 && shape.channels % shape.groups == 0, "num_groups: expected a divisor of the ",
        shape.channels, " channels, got ", shape.groups);
  const int64_t group = shape.channels / shape.groups;
  check(group % vector == 0, "group_norm_act: expected a multiple of ", vector, " channels in a group, got ", group);
  check(shape.block_channels >= 1 && shape.block_channels % group == 0 && shape.channels % shape.block_channels == 0,
        "block_channels: expected whole groups of ", group, " that divide ", shape.channels, " channels, got ",
        shape.block_channels);
  check(shape.block_channels / vector <= Slab::kThreads,
        "block_channels: more than a block's threads: ", shape.block_channels);
  check(shape.cluster >= 1 && shape.cluster <= 8, "cluster: expected 1 to 8, got ", shape.cluster);
  check(shape.block_pixels * shape.cluster >= pixels && shape.block_pixels * (shape.cluster - 1) < pixels,
        "block_pixels: ", shape.cluster, " blocks of ", shape.block_pixels, " do not share ", pixels, " pixels");
  check(!pool || shape.block_pixels % (2 * shape.width) == 0, "block_pixels: expected whole pairs of rows of ",
        shape.width, ", got ", shape.block_pixels);
  check(pixels * shape.channels < int64_t(1) << 31, "group_norm_act: an image has ", pixels * shape.channels,
        " elements");
  check(shape.images * (shape.channels / shape.block_channels) * shape.cluster < int64_t(1) << 31,
        "group_norm_act: too many blocks");
  return {int(pixels), int(shape.channels), int(group), int(shape.block_channels), int(shape.block_pixels)};
}

// ``count`` elements for every image, none where the pointer is null.
template <class T, class P>
Global<T> images_of(const char* name, P* pointer, const GroupNormCudaShape& shape, int64_t count) {
  check(reinterpret_cast<uintptr_t>(pointer) % 16 == 0, name, ": expected an address that is a multiple of 16");
  return {static_cast<T*>(pointer), pointer == nullptr ? 0 : shape.images * count};
}

inline Global<const float> channels_of(const float* pointer, const GroupNormCudaShape& shape) {
  return {pointer, pointer == nullptr ? 0 : shape.channels};
}

inline Index3 grid_of(const GroupNormCudaShape& shape) {
  return {int(shape.images * (shape.channels / shape.block_channels) * shape.cluster), 1, 1};
}

template <class T, Residual kResidual, class Launch>
void with_kernel_of(const GroupNormActCudaForward& op, Launch launch) {
  const GroupNormCudaShape& s = op.shape;
  const int64_t size = s.height * s.width * s.channels;
  GroupNormActForward<T, kResidual> kernel{};
  kernel.slab = slab_of(s, false);
  kernel.x = images_of<const T>("x", op.x, s, size);
  kernel.residual = images_of<const T>("residual", op.residual, s, size);
  kernel.weight = channels_of(op.weight, s), kernel.bias = channels_of(op.bias, s);
  kernel.residual_weight = channels_of(op.residual_weight, s);
  kernel.residual_bias = channels_of(op.residual_bias, s);
  kernel.y = images_of<T>("y", op.y, s, size);
  kernel.moments = {op.moments, s.images * s.groups * 2 * kernel.kNorms};
  kernel.positive = {op.positive, op.positive == nullptr ? 0 : s.images * size / Vector<T>::size()};
  kernel.eps = op.eps;
  kernel.relu = op.relu;
  launch(kernel, grid_of(s), int(s.cluster));
}

template <class T, Residual kResidual, class Launch>
void with_kernel_of(const GroupNormActCudaBackward& op, Launch launch) {
  const GroupNormCudaShape& s = op.shape;
  const int64_t size = s.height * s.width * s.channels;
  GroupNormActBackward<T, kResidual> kernel{};
  kernel.slab = slab_of(s, false);
  kernel.dy = images_of<const T>("dy", op.dy, s, size);
  kernel.x = images_of<const T>("x", op.x, s, size);
  kernel.residual = images_of<const T>("residual", op.residual, s, size);
  kernel.weight = channels_of(op.weight, s), kernel.bias = channels_of(op.bias, s);
  kernel.residual_weight = channels_of(op.residual_weight, s);
  kernel.moments = {op.moments, s.images * s.groups * 2 * kernel.kNorms};
  kernel.positive = {op.positive, op.positive == nullptr ? 0 : s.images * size / Vector<T>::size()};
  kernel.dx = images_of<T>("dx", op.dx, s, size);
  kernel.dresidual = images_of<T>("dresidual", op.dresidual, s, size);
  kernel.partial = {op.partial, s.images * kernel.kSums * s.channels};
  kernel.relu = op.relu;
  check(kResidual == Residual::kNone || !op.relu || op.positive != nullptr, "positive: expected the forward pass's");
  launch(kernel, grid_of(s), int(s.cluster));
}

template <class T, Residual, class Launch>
void with_kernel_of(const GroupNormActPoolCudaForward& op, Launch launch) {
  const GroupNormCudaShape& s = op.shape;
  const PoolSize size{int(s.height), int(s.width)};
  GroupNormActPoolForward<T> kernel{};
  kernel.slab = slab_of(s, true);
  kernel.size = size;
  kernel.x = images_of<const T>("x", op.x, s, s.height * s.width * s.channels);
  kernel.weight = channels_of(op.weight, s), kernel.bias = channels_of(op.bias, s);
  kernel.y = images_of<T>("y", op.y, s, size.num_windows() * s.channels);
  kernel.taps = images_of<uint32_t>("taps", op.taps, s, size.num_windows() * (s.channels / Vector<T>::size()));
  kernel.moments = {op.moments, s.images * s.groups * 2};
  kernel.eps = op.eps;
  launch(kernel, grid_of(s), int(s.cluster));
}

template <class T, Residual, class Launch>
void with_kernel_of(const GroupNormActPoolCudaBackward& op, Launch launch) {
  const GroupNormCudaShape& s = op.shape;
  const PoolSize size{int(s.height), int(s.width)};
  GroupNormActPoolBackward<T> kernel{};
  kernel.slab = slab_of(s, true);
  kernel.size = size;
  kernel.dy = images_of<const T>("dy", op.dy, s, size.num_windows() * s.channels);
  kernel.x = images_of<const T>("x", op.x, s, s.height * s.width * s.channels);
  kernel.taps = images_of<const uint32_t>("taps", op.taps, s, size.num_windows() * (s.channels / Vector<T>::size()));
  kernel.weight = channels_of(op.weight, s);
  kernel.moments = {op.moments, s.images * s.groups * 2};
  kernel.dx = images_of<T>("dx", op.dx, s, s.height * s.width * s.channels);
  kernel.partial = {op.partial, s.images * 2 * s.channels};
  launch(kernel, grid_of(s), int(s.cluster));
}

inline Residual residual_of(const GroupNormActCudaForward& op) {
  return op.residual == nullptr ? Residual::kNone : op.residual_weight == nullptr ? Residual::kAdd : Residual::kNorm;
}
inline Residual residual_of(const GroupNormActCudaBackward& op) {
  return !op.added ? Residual::kNone : op.residual_weight == nullptr ? Residual::kAdd : Residual::kNorm;
}

template <class T, class Op, class Launch>
void with_kernel_of_type(const Op& op, Launch launch) {
  if constexpr (requires { residual_of(op); }) {
    if (residual_of(op) == Residual::kAdd) return with_kernel_of<T, Residual::kAdd>(op, launch);
    if (residual_of(op) == Residual::kNorm) return with_kernel_of<T, Residual::kNorm>(op, launch);
  }
  with_kernel_of<T, Residual::kNone>(op, launch);
}

template <class Op, class Launch>
void with_kernel(const Op& op, Launch launch) {
  if (op.shape.bfloat16) return with_kernel_of_type<Bfloat16>(op, launch);
  with_kernel_of_type<float>(op, launch);
}

}  // namespace ptr_fast
