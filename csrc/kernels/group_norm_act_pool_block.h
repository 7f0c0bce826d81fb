// max_pool(relu(group_norm(x) * weight + bias)), 3x3, stride 2, SAME, and its gradient on a Block.
//
// Window (i, j) covers pixels (2 i - top + a, 2 j - left + b), a and b in 0..2; its tap is 3 a + b; top and left are 1
// where a size is odd. A block owns whole pairs of rows, and the windows that begin in them. ``taps`` [images, windows,
// num_channels / Vector]: the tap that won in every channel of a Vector, the first of equals, or kNoTap where the
// maximum is not positive: then the ReLU passes no gradient. Everything else as in group_norm_act_block.h.
#pragma once
#include "kernels/group_norm_slab_block.h"

namespace ptr_fast {

struct PoolSize {
  int height, width;  // pixels of an image

  PTR_HOST_DEVICE int out_height() const { return (height + 1) / 2; }
  PTR_HOST_DEVICE int out_width() const { return (width + 1) / 2; }
  PTR_HOST_DEVICE int num_windows() const { return out_height() * out_width(); }
  PTR_HOST_DEVICE int top() const { return height % 2; }
  PTR_HOST_DEVICE int left() const { return width % 2; }
  // Rows of a block's pixels, and of the windows that begin in them.
  PTR_DEVICE int first_row(Thread t, const Slab& slab) const { return slab.first_pixel(t) / width; }
  PTR_DEVICE int first_window(Thread t, const Slab& slab) const { return first_row(t, slab) / 2; }
  PTR_DEVICE int own_windows(Thread t, const Slab& slab) const { return (slab.own_pixels(t) / width + 1) / 2; }
};

// The taps of a Vector's channels in one word.
template <class T>
struct Taps {
  static constexpr int kBits = 32 / Vector<T>::size();
  static constexpr unsigned kNoTap = 15;

  PTR_DEVICE static unsigned of(uint32_t word, int channel) { return word >> channel * kBits & 15; }
  PTR_DEVICE static uint32_t word(unsigned tap, int channel) { return tap << channel * kBits; }
};

template <class T>
struct GroupNormActPoolForward {
  static constexpr int kThreads = Slab::kThreads;
  static constexpr int kMinBlocks = 2;
  static constexpr int kVector = Vector<T>::size();

  Slab slab;  // its pixels are whole pairs of rows
  PoolSize size;
  Global<const T> x;
  Global<const float> weight, bias;
  Global<T> y;
  Global<uint32_t> taps;  // of length 0 where nobody wants them
  Global<float> moments;
  float eps;

  PTR_HOST_DEVICE int64_t shared_bytes() const {
    return shared_size<T>(int64_t(slab.pixels + size.width) * slab.width) + Moments<int, 1>::shared_bytes(slab);
  }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    // Beside its own pixels a block holds a row of a neighbour's that its windows reach: the one behind, or before.
    const auto before = [&](Thread t) { return size.top() && t.rank > 0 ? size.width : 0; };
    const auto first = [&](Thread t) { return slab.first_pixel(t) - before(t); };
    const auto num = [&](Thread t) {
      const int end = slab.first_pixel(t) + slab.own_pixels(t);
      return end - first(t) + (!size.top() && end < slab.num_pixels ? size.width : 0);
    };
    const Shared<T> held = block.template shared<T>("x", (slab.pixels + size.width) * slab.width);
    Moments<Block, 1> found(block, slab);
    send_pixels(block, slab, slab.num_pixels, held, x, first, num);
    block.wait_bulk();
    found.find(block, {held}, before, eps, moments);

    const int64_t image = slab.image(block) * size.num_windows();
    const int first_channel = slab.first_channel(block);
    block.phase([&](Thread t) {
      const Lane<T> lane(t, slab);
      if (lane.idle()) return;
      const int channel = first_channel + lane.channel;
      const float mean = found.mean(t, 0, lane.group), rstd = found.rstd(t, 0, lane.group);
      auto scale = channel_values<kVector>(t, weight, channel);
      const auto shift = channel_values<kVector>(t, bias, channel);
      PTR_UNROLL for (int j = 0; j < kVector; ++j) scale[j] *= rstd;
      const int out_width = size.out_width(), first_window = size.first_window(t, slab) * out_width;
      for (int w = lane.pixel; w < size.own_windows(t, slab) * out_width; w += lane.step) {
        const int row = 2 * ((first_window + w) / out_width) - size.top();
        const int column = 2 * ((first_window + w) % out_width) - size.left();
        Registers<float, kVector> best;
        Registers<unsigned, kVector> tap;
        PTR_UNROLL for (int j = 0; j < kVector; ++j) best[j] = -INFINITY, tap[j] = 0;
        PTR_UNROLL for (int k = 0; k < 9; ++k) {
          const int r = row + k / 3, c = column + k % 3;
          if (r < 0 || r >= size.height || c < 0 || c >= size.width) continue;
          const int at = (r * size.width + c - first(t)) * slab.width + lane.channel;
          const auto value = to_floats<T>(held.at_vector(t, at));
          PTR_UNROLL for (int j = 0; j < kVector; ++j) {
            const float z = normalised(value[j], mean, scale[j], shift[j]);
            const bool better = z > best[j] || z != z;  // a NaN stays
            best[j] = better ? z : best[j];
            tap[j] = better ? k : tap[j];
          }
        }
        const int64_t place = (image + first_window + w) * slab.num_channels + channel;
        if (taps.length > 0) {
          uint32_t word = 0;
          PTR_UNROLL for (int j = 0; j < kVector; ++j) {
            word |= Taps<T>::word(best[j] <= 0.0f ? Taps<T>::kNoTap : tap[j], j);
          }
          taps.set(t, place / kVector, word);
        }
        PTR_UNROLL for (int j = 0; j < kVector; ++j) best[j] = best[j] <= 0.0f ? 0.0f : best[j];
        y.set_vector(t, place, from_floats<T>(best));
      }
    });
  }
};

// Every pixel collects from the windows that cover it, once for the sums and once for dx.
// ``partial`` [images, 2, num_channels]: dweight and dbias of every image.
template <class T>
struct GroupNormActPoolBackward {
  static constexpr int kThreads = Slab::kThreads;
  static constexpr int kMinBlocks = 2;
  static constexpr int kVector = Vector<T>::size();

  Slab slab;
  PoolSize size;
  Global<const T> dy, x;
  Global<const uint32_t> taps;
  Global<const float> weight, moments;
  Global<T> dx;
  Global<float> partial;

  PTR_HOST_DEVICE int64_t shared_bytes() const {
    return shared_size<T>(int64_t(slab.pixels) * slab.width) + shared_size<T>(int64_t(max_windows()) * slab.width) +
           shared_size<uint32_t>(int64_t(max_windows()) * (slab.width / kVector)) +
           ChannelSums<int, T, 2>::shared_bytes(slab) + GradientMeans<int, 1>::shared_bytes(slab);
  }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    const int out_width = size.out_width();
    // Windows that reach a block's pixels: those that begin there, and a row of a neighbour's before or behind.
    const auto first_window = [&](Thread t) {
      const int row = size.first_window(t, slab);
      return (!size.top() && row > 0 ? row - 1 : row) * out_width;
    };
    const auto num_windows = [&](Thread t) {
      const int end = size.first_window(t, slab) + size.own_windows(t, slab);
      return (size.top() && end < size.out_height() ? end + 1 : end) * out_width - first_window(t);
    };
    const auto first = [&](Thread t) { return slab.first_pixel(t); };
    const auto num = [&](Thread t) { return slab.own_pixels(t); };
    const Shared<T> own = block.template shared<T>("x", slab.pixels * slab.width);
    const Shared<T> gradients = block.template shared<T>("dy", max_windows() * slab.width);
    const Shared<uint32_t> winners = block.template shared<uint32_t>("taps", max_windows() * (slab.width / kVector));
    ChannelSums<Block, T, 2> sums(block, slab);
    GradientMeans<Block, 1> means(block, slab);
    send_pixels(block, slab, slab.num_pixels, own, x, first, num);
    send_pixels(block, slab, size.num_windows(), gradients, dy, first_window, num_windows);
    const int64_t image = slab.image(block);
    const int first_channel = slab.first_channel(block);
    const int64_t first_group = image * slab.num_groups() + first_channel / slab.group_channels;
    block.each_thread([&](Thread t) {
      const Lane<T> lane(t, slab);
      if (lane.idle()) return;
      const int64_t start = (image * size.num_windows() + first_window(t)) * slab.num_channels + first_channel;
      for (int w = lane.pixel; w < num_windows(t); w += lane.step) {
        const int64_t place = start + int64_t(w) * slab.num_channels + lane.channel;
        winners.set(t, w * lane.vectors + lane.vector, taps.load_nc(t, place / kVector));
      }
    });
    block.wait_bulk();

    // The gradient at a pixel of the block: of its window, then of those to the left, above and across.
    const auto collect = [&](Thread t, const Lane<T>& lane, int p) {
      const int row = (slab.first_pixel(t) + p) / size.width + size.top();
      const int column = (slab.first_pixel(t) + p) % size.width + size.left();
      Registers<float, kVector> dz{};
      PTR_UNROLL for (int k = 0; k < 4; ++k) {
        const int above = k / 2, left = k % 2;
        const int i = row / 2 - above, j = column / 2 - left;
        if ((above && row % 2 != 0) || (left && column % 2 != 0) || i < 0 || j < 0) continue;
        const unsigned tap = 3 * (row - 2 * i) + (column - 2 * j);
        const int w = i * out_width + j - first_window(t);
        const uint32_t word = winners.at(t, w * lane.vectors + lane.vector);
        const auto gradient = to_floats<T>(gradients.at_vector(t, w * slab.width + lane.channel));
        PTR_UNROLL for (int c = 0; c < kVector; ++c) dz[c] += Taps<T>::of(word, c) == tap ? gradient[c] : 0.0f;
      }
      return dz;
    };

    PerThread<Registers<Registers<float, kVector>, 2>, Block> lanes(block, Registers<Registers<float, kVector>, 2>{});
    block.phase([&](Thread t) {
      const Lane<T> lane(t, slab);
      if (lane.idle()) return;
      const float mean = moments.load_nc(t, (first_group + lane.group) * 2);
      auto& mine = lanes[t];
      for (int p = lane.pixel; p < slab.own_pixels(t); p += lane.step) {
        const auto dz = collect(t, lane, p);
        const auto value = to_floats<T>(own.at_vector(t, p * slab.width + lane.channel));
        PTR_UNROLL for (int j = 0; j < kVector; ++j) {
          mine[0][j] += dz[j];
          mine[1][j] += dz[j] * (value[j] - mean);
        }
      }
    });
    PTR_UNROLL for (int sum = 0; sum < 2; ++sum) {
      sums.add_up(block, sum, [&](Thread t) { return lanes[t][sum]; });
    }
    sums.finish(block, [&](Thread t, int sum, int channel, float total) {
      if (sum == 1) total *= moments.load_nc(t, (first_group + channel / slab.group_channels) * 2 + 1);
      partial.set(t, (image * 2 + 1 - sum) * slab.num_channels + first_channel + channel, total);
    });
    means.find(block, sums, {weight}, moments);
    block.phase([&](Thread t) {
      const Lane<T> lane(t, slab);
      if (lane.idle()) return;
      const float mean = moments.load_nc(t, (first_group + lane.group) * 2);
      const float rstd = moments.load_nc(t, (first_group + lane.group) * 2 + 1);
      auto scale = channel_values<kVector>(t, weight, first_channel + lane.channel);
      PTR_UNROLL for (int j = 0; j < kVector; ++j) scale[j] *= rstd;
      const float of_dz = means.of_dz(t, 0, lane.group), of_deviation = means.of_deviation(t, 0, lane.group);
      const int64_t start = (image * slab.num_pixels + slab.first_pixel(t)) * slab.num_channels + first_channel;
      for (int p = lane.pixel; p < slab.own_pixels(t); p += lane.step) {
        const auto dz = collect(t, lane, p);
        auto value = to_floats<T>(own.at_vector(t, p * slab.width + lane.channel));
        PTR_UNROLL for (int j = 0; j < kVector; ++j) {
          value[j] = dz[j] * scale[j] - of_dz - (value[j] - mean) * of_deviation;
        }
        dx.set_vector(t, start + int64_t(p) * slab.num_channels + lane.channel, from_floats<T>(value));
      }
    });
  }

 private:
  PTR_HOST_DEVICE int max_windows() const { return (slab.pixels / (2 * size.width) + 1) * size.out_width(); }
};

}  // namespace ptr_fast
