// act(group_norm(x) * weight + bias + residual) and its gradient on a Block: one read and one write of every tensor.
//
// The residual may get a norm of its own first (Residual::kNorm). Images [images, num_pixels, num_channels];
// ``moments`` [images, groups, 2]: mean and rstd, with two norms [images, groups, 4]: then those of the residual.
// ``positive`` [images, num_pixels, num_channels / Vector]: bit j of a byte says that the gradient passes the ReLU at
// channel j of the Vector; a tensor of length 0 where nobody wants it.
#pragma once
#include "kernels/group_norm_slab_block.h"

namespace ptr_fast {

enum class Residual { kNone, kAdd, kNorm };

template <class T, Residual kResidual>
struct GroupNormActForward {
  static constexpr int kThreads = Slab::kThreads;
  static constexpr int kMinBlocks = 3;
  static constexpr int kNorms = kResidual == Residual::kNorm ? 2 : 1;

  Slab slab;
  Global<const T> x, residual;
  Global<const float> weight, bias, residual_weight, residual_bias;
  Global<T> y;
  Global<float> moments;
  Global<uint8_t> positive;
  float eps;
  bool relu;

  PTR_HOST_DEVICE int64_t shared_bytes() const {
    return kNorms * shared_size<T>(int64_t(slab.pixels) * slab.width) + Moments<int, kNorms>::shared_bytes(slab);
  }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    const int size = slab.pixels * slab.width;
    const Shared<T> own = block.template shared<T>("x", size);
    const auto first = [&](Thread t) { return slab.first_pixel(t); };
    const auto num = [&](Thread t) { return slab.own_pixels(t); };
    const auto none = [](Thread) { return 0; };
    if constexpr (kResidual == Residual::kNorm) {
      const Shared<T> theirs = block.template shared<T>("residual", size);
      Moments<Block, 2> found(block, slab);
      send_pixels(block, slab, slab.num_pixels, own, x, first, num);
      send_pixels(block, slab, slab.num_pixels, theirs, residual, first, num);
      block.wait_bulk();
      found.find(block, {own, theirs}, none, eps, moments);
      normalise(block, own, found, [&](Thread t, int at, int64_t) { return theirs.at_vector(t, at); });
    } else {
      Moments<Block, 1> found(block, slab);
      send_pixels(block, slab, slab.num_pixels, own, x, first, num);
      block.wait_bulk();
      found.find(block, {own}, none, eps, moments);
      normalise(block, own, found, [&](Thread t, int, int64_t place) { return residual.load_nc_vector(t, place); });
    }
  }

 private:
  template <class Block, class Found, class Other>
  PTR_DEVICE void normalise(Block& block, const Shared<T>& own, const Found& found, Other other) const {
    constexpr int kVector = Vector<T>::size();
    const int64_t image = slab.image(block) * slab.num_pixels;
    const int first_channel = slab.first_channel(block);
    block.phase([&](Thread t) {
      const Lane<T> lane(t, slab);
      if (lane.idle()) return;
      const int channel = first_channel + lane.channel;
      const float mean = found.mean(t, 0, lane.group), rstd = found.rstd(t, 0, lane.group);
      auto scale = channel_values<kVector>(t, weight, channel), shift = channel_values<kVector>(t, bias, channel);
      PTR_UNROLL for (int j = 0; j < kVector; ++j) scale[j] *= rstd;
      [[maybe_unused]] float other_mean = 0.0f;
      [[maybe_unused]] Registers<float, kVector> other_scale;
      if constexpr (kResidual == Residual::kNorm) {
        other_mean = found.mean(t, 1, lane.group);
        const float other_rstd = found.rstd(t, 1, lane.group);
        other_scale = channel_values<kVector>(t, residual_weight, channel);
        const auto other_shift = channel_values<kVector>(t, residual_bias, channel);
        PTR_UNROLL for (int j = 0; j < kVector; ++j) {
          other_scale[j] *= other_rstd;
          shift[j] += other_shift[j];
        }
      }
      for (int p = lane.pixel; p < slab.own_pixels(t); p += lane.step) {
        const int at = p * slab.width + lane.channel;
        const int64_t place = (image + slab.first_pixel(t) + p) * slab.num_channels + channel;
        auto value = to_floats<T>(own.at_vector(t, at));
        PTR_UNROLL for (int j = 0; j < kVector; ++j) value[j] = normalised(value[j], mean, scale[j], shift[j]);
        if constexpr (kResidual != Residual::kNone) {
          const auto added = to_floats<T>(other(t, at, place));
          PTR_UNROLL for (int j = 0; j < kVector; ++j) {
            value[j] += kResidual == Residual::kNorm ? (added[j] - other_mean) * other_scale[j] : added[j];
          }
          if (positive.length > 0) {
            unsigned bits = 0;
            PTR_UNROLL for (int j = 0; j < kVector; ++j) bits |= unsigned(!(value[j] <= 0.0f)) << j;
            positive.set(t, place / kVector, uint8_t(bits));
          }
        }
        if (relu) {
          PTR_UNROLL for (int j = 0; j < kVector; ++j) value[j] = value[j] <= 0.0f ? 0.0f : value[j];  // NaN stays
        }
        y.set_vector(t, place, from_floats<T>(value));
      }
    });
  }
};

// ``partial`` [images, sums, num_channels]: dweight and dbias of every image, with two norms then the residual's
// dweight; its dbias is the first one's. The mask of the ReLU is ``positive``; without a residual it is found again.
template <class T, Residual kResidual>
struct GroupNormActBackward {
  static constexpr int kThreads = Slab::kThreads;
  static constexpr int kMinBlocks = 2;
  static constexpr int kNorms = kResidual == Residual::kNorm ? 2 : 1;
  static constexpr int kSums = 1 + kNorms;
  static constexpr int kVector = Vector<T>::size();

  Slab slab;
  Global<const T> dy, x, residual;
  Global<const float> weight, bias, residual_weight;
  Global<const float> moments;
  Global<const uint8_t> positive;
  Global<T> dx, dresidual;
  Global<float> partial;
  bool relu;

  PTR_HOST_DEVICE int64_t shared_bytes() const {
    return (1 + kNorms) * shared_size<T>(int64_t(slab.pixels) * slab.width) +
           ChannelSums<int, T, kSums>::shared_bytes(slab) + GradientMeans<int, kNorms>::shared_bytes(slab);
  }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    const int size = slab.pixels * slab.width;
    const Shared<T> dz = block.template shared<T>("dz", size), own = block.template shared<T>("x", size);
    const auto first = [&](Thread t) { return slab.first_pixel(t); };
    const auto num = [&](Thread t) { return slab.own_pixels(t); };
    send_pixels(block, slab, slab.num_pixels, dz, dy, first, num);
    send_pixels(block, slab, slab.num_pixels, own, x, first, num);
    if constexpr (kResidual == Residual::kNorm) {
      const Shared<T> theirs = block.template shared<T>("residual", size);
      send_pixels(block, slab, slab.num_pixels, theirs, residual, first, num);
      gradients(block, dz, {own, theirs}, {weight, residual_weight}, {dx, dresidual});
    } else {
      gradients(block, dz, {own}, {weight}, {dx});
    }
  }

 private:
  template <class Block>
  PTR_DEVICE void gradients(Block& block, const Shared<T>& dz, const Shared<T> (&inputs)[kNorms],
                            const Global<const float> (&weights)[kNorms], const Global<T> (&outputs)[kNorms]) const {
    const int64_t image = slab.image(block);
    const int first_channel = slab.first_channel(block);
    const int64_t first_group = image * slab.num_groups() + first_channel / slab.group_channels;
    // Mean (0) and rstd (1) of the norms' groups, as the forward pass left them.
    const auto moment = [&](Thread t, int norm, int group, int which) {
      return moments.load_nc(t, (first_group + group) * 2 * kNorms + 2 * norm + which);
    };
    ChannelSums<Block, T, kSums> sums(block, slab);
    GradientMeans<Block, kNorms> means(block, slab);
    PerThread<Registers<Registers<float, kVector>, kSums>, Block> lanes(block,
                                                                        Registers<Registers<float, kVector>, kSums>{});
    block.wait_bulk();
    block.phase([&](Thread t) {
      const Lane<T> lane(t, slab);
      if (lane.idle()) return;
      const int channel = first_channel + lane.channel;
      Registers<float, kNorms> mean;
      PTR_UNROLL for (int norm = 0; norm < kNorms; ++norm) mean[norm] = moment(t, norm, lane.group, 0);
      [[maybe_unused]] Registers<float, kVector> scale, shift;
      if constexpr (kResidual == Residual::kNone) {
        scale = channel_values<kVector>(t, weight, channel), shift = channel_values<kVector>(t, bias, channel);
        PTR_UNROLL for (int j = 0; j < kVector; ++j) scale[j] *= moment(t, 0, lane.group, 1);
      }
      auto& mine = lanes[t];
      for (int p = lane.pixel; p < slab.own_pixels(t); p += lane.step) {
        const int at = p * slab.width + lane.channel;
        const int64_t place = (image * slab.num_pixels + slab.first_pixel(t) + p) * slab.num_channels + channel;
        auto gradient = to_floats<T>(dz.at_vector(t, at));
        auto value = to_floats<T>(inputs[0].at_vector(t, at));
        if (relu) {
          if constexpr (kResidual == Residual::kNone) {
            PTR_UNROLL for (int j = 0; j < kVector; ++j) {
              if (normalised(value[j], mean[0], scale[j], shift[j]) <= 0.0f) gradient[j] = 0.0f;
            }
          } else {
            const unsigned bits = positive.at(t, place / kVector);
            PTR_UNROLL for (int j = 0; j < kVector; ++j) gradient[j] = bits >> j & 1 ? gradient[j] : 0.0f;
          }
          const Vector<T> masked = from_floats<T>(gradient);
          dz.set_vector(t, at, masked);
          if constexpr (kResidual == Residual::kAdd) dresidual.set_vector(t, place, masked);
        }
        PTR_UNROLL for (int j = 0; j < kVector; ++j) {
          mine[0][j] += gradient[j];
          mine[1][j] += gradient[j] * (value[j] - mean[0]);
        }
        if constexpr (kNorms == 2) {
          value = to_floats<T>(inputs[1].at_vector(t, at));
          PTR_UNROLL for (int j = 0; j < kVector; ++j) mine[2][j] += gradient[j] * (value[j] - mean[1]);
        }
      }
    });
    PTR_UNROLL for (int sum = 0; sum < kSums; ++sum) {
      sums.add_up(block, sum, [&](Thread t) { return lanes[t][sum]; });
    }
    sums.finish(block, [&](Thread t, int sum, int channel, float total) {
      // dweight = rstd sum(dz (x - mean)), dbias = sum(dz), the residual's dweight.
      if (sum != 0) total *= moment(t, sum - 1, channel / slab.group_channels, 1);
      const int row = sum == 0 ? 1 : sum == 1 ? 0 : 2;
      partial.set(t, (image * kSums + row) * slab.num_channels + first_channel + channel, total);
    });
    means.find(block, sums, weights, moments);
    block.phase([&](Thread t) {
      const Lane<T> lane(t, slab);
      if (lane.idle()) return;
      PTR_UNROLL for (int norm = 0; norm < kNorms; ++norm) {
        const float mean = moment(t, norm, lane.group, 0), rstd = moment(t, norm, lane.group, 1);
        auto scale = channel_values<kVector>(t, weights[norm], first_channel + lane.channel);
        PTR_UNROLL for (int j = 0; j < kVector; ++j) scale[j] *= rstd;
        const float of_dz = means.of_dz(t, norm, lane.group), of_deviation = means.of_deviation(t, norm, lane.group);
        const int64_t start = (image * slab.num_pixels + slab.first_pixel(t)) * slab.num_channels + first_channel;
        for (int p = lane.pixel; p < slab.own_pixels(t); p += lane.step) {
          const int at = p * slab.width + lane.channel;
          const auto gradient = to_floats<T>(dz.at_vector(t, at));
          auto value = to_floats<T>(inputs[norm].at_vector(t, at));
          PTR_UNROLL for (int j = 0; j < kVector; ++j) {
            value[j] = gradient[j] * scale[j] - of_dz - (value[j] - mean) * of_deviation;
          }
          outputs[norm].set_vector(t, start + int64_t(p) * slab.num_channels + lane.channel, from_floats<T>(value));
        }
      }
    });
  }
};

}  // namespace ptr_fast
