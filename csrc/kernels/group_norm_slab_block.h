// What the CUDA kernels that normalise share: the slab of a block, its copy into shared memory, its moments, its sums.
//
// A cluster of blocks owns ``width`` neighbouring channels (whole groups) of one image, each of its blocks ``pixels``
// neighbouring pixels of them, which stay in shared memory. A thread always meets the same Vector of channels, and
// every step-th pixel. Images are channels_last.
#pragma once
#include "core/block.h"

namespace ptr_fast {

struct Slab {
  static constexpr int kThreads = 256;

  int num_pixels;      // of an image
  int num_channels;    // of an image
  int group_channels;  // of a group, a multiple of a Vector's elements
  int width;           // channels of a block; the Vectors of a pixel are at most kThreads
  int pixels;          // of a block; every block of the cluster has at least one

  PTR_HOST_DEVICE int num_groups() const { return num_channels / group_channels; }
  PTR_HOST_DEVICE int block_groups() const { return width / group_channels; }
  PTR_HOST_DEVICE int64_t count() const { return int64_t(num_pixels) * group_channels; }

  template <class Block>
  PTR_DEVICE int64_t image(const Block& block) const {
    return block.cluster_index().x / (num_channels / width);
  }
  template <class Block>
  PTR_DEVICE int first_channel(const Block& block) const {
    return block.cluster_index().x % (num_channels / width) * width;
  }
  PTR_DEVICE int first_pixel(Thread t) const { return t.rank * pixels; }
  PTR_DEVICE int own_pixels(Thread t) const { return own_pixels(t.rank); }
  PTR_DEVICE int own_pixels(int rank) const {
    const int left = num_pixels - rank * pixels;
    return left < pixels ? left : pixels;
  }
};

// Where a thread stands in a slab of elements T: its first channel in the block, its first pixel, how far it strides.
template <class T>
struct Lane {
  static constexpr int kVector = Vector<T>::size();

  PTR_DEVICE Lane(Thread t, const Slab& slab)
      : vectors(slab.width / kVector),
        step(Slab::kThreads / vectors),
        pixel(t.index / vectors),
        vector(t.index - pixel * vectors),
        channel(vector * kVector),
        group(channel / slab.group_channels) {}
  // Threads that are left over where a pixel's Vectors do not divide their number.
  PTR_DEVICE bool idle() const { return pixel >= step; }

  int vectors;  // of a pixel
  int step;
  int pixel;
  int vector;
  int channel;
  int group;  // of the block's
};

template <class T>
PTR_DEVICE Registers<float, Vector<T>::size()> to_floats(const Vector<T>& values) {
  Registers<float, Vector<T>::size()> floats;
  PTR_UNROLL for (int j = 0; j < Vector<T>::size(); ++j) floats[j] = to_float(values[j]);
  return floats;
}

template <class T>
PTR_DEVICE Vector<T> from_floats(const Registers<float, Vector<T>::size()>& floats) {
  Vector<T> values;
  PTR_UNROLL for (int j = 0; j < Vector<T>::size(); ++j) values[j] = from_float<T>(floats[j]);
  return values;
}

// The elements of one Vector's channels in an array [num_channels].
template <int N>
PTR_DEVICE Registers<float, N> channel_values(Thread t, const Global<const float>& from, int first_channel) {
  Registers<float, N> values;
  PTR_UNROLL for (int j = 0; j < N; ++j) values[j] = from.load_nc(t, first_channel + j);
  return values;
}

// weight * (x - mean) * rstd + bias, for ``scale`` = rstd * weight; the mean goes first, so that one far from zero
// costs no digits. Forward and backward find the same value, so the same mask.
PTR_DEVICE float normalised(float x, float mean, float scale, float bias) { return (x - mean) * scale + bias; }

// Sends pixels [first(t), first(t) + num(t)) of ``from`` [images, num_pixels, num_channels] to the front of ``slab``.
template <class T, class Block, class First, class Num>
PTR_DEVICE void send_pixels(Block& block, const Slab& shape, int64_t num_pixels, const Shared<T>& slab,
                            const Global<const T>& from, First first, Num num) {
  const int64_t image = shape.image(block) * num_pixels * shape.num_channels + shape.first_channel(block);
  if (shape.width == shape.num_channels) {
    block.each_block([&](Thread t) {
      block.bulk_copy(slab, 0, from, image + int64_t(first(t)) * shape.num_channels, num(t) * shape.width);
    });
    return;
  }
  block.each_thread([&](Thread t) {
    const Lane<T> lane(t, shape);
    if (lane.idle()) return;
    const int64_t start = image + int64_t(first(t)) * shape.num_channels + lane.channel;
    for (int p = lane.pixel; p < num(t); p += lane.step) {
      block.copy_async(t, slab, p * shape.width + lane.channel, from, start + int64_t(p) * shape.num_channels);
    }
  });
}

// Mean and 1 / sqrt(variance + eps) of every group of kNorms slabs, float32, in two exact passes over shared memory; a
// cluster's blocks exchange means and sums of squares.
template <class Block, int kNorms>
class Moments {
 public:
  static PTR_HOST_DEVICE int64_t shared_bytes(const Slab& shape) {
    const int groups = kNorms * shape.block_groups();
    return shared_size<float>(kNorms * Slab::kThreads) + 2 * shared_size<float>(2 * groups);
  }

  PTR_DEVICE Moments(Block& block, const Slab& shape)
      : shape_(shape),
        scratch_(block.template shared<float>("scratch", kNorms * Slab::kThreads)),
        of_block_(block.template shared<float>("of_block", 2 * kNorms * shape.block_groups())),
        of_cluster_(block.template shared<float>("of_cluster", 2 * kNorms * shape.block_groups())) {}

  PTR_DEVICE float mean(Thread t, int norm, int group) const { return of_cluster_.at(t, 2 * place(norm, group)); }
  PTR_DEVICE float rstd(Thread t, int norm, int group) const { return of_cluster_.at(t, 2 * place(norm, group) + 1); }

  // ``slabs[norm]`` hold the block's own pixels from pixel ``skip(t)`` on. ``moments`` [images, groups, 2 kNorms].
  template <class T, class Skip>
  PTR_DEVICE void find(Block& block, const Shared<T> (&slabs)[kNorms], Skip skip, float eps,
                       const Global<float>& moments) {
    block.phase([&](Thread t) { add_up<T>(t, slabs, skip(t), [](int, float x) { return x; }); });
    sum_of_groups<T>(block, 0, [&](Thread t) { return float(shape_.own_pixels(t)) * shape_.group_channels; });
    block.phase([&](Thread t) {
      Registers<float, kNorms> mean;
      const Lane<T> lane(t, shape_);
      PTR_UNROLL for (int norm = 0; norm < kNorms; ++norm) {
        mean[norm] = lane.idle() ? 0.0f : of_block_.at(t, 2 * place(norm, lane.group));
      }
      add_up<T>(t, slabs, skip(t), [&](int norm, float x) { return (x - mean[norm]) * (x - mean[norm]); });
    });
    sum_of_groups<T>(block, 1, [](Thread) { return 1.0f; });
    block.cluster_phase([](Thread) {});
    const int64_t first_group =
        shape_.image(block) * shape_.num_groups() + shape_.first_channel(block) / shape_.group_channels;
    const int num_ranks = block.cluster_size();
    // The phase is one of the cluster: no block may end while another reads its sums.
    block.cluster_phase([&](Thread t) {
      for (int i = t.index; i < kNorms * shape_.block_groups(); i += Slab::kThreads) {
        merge(t, i, num_ranks, eps);
        if (t.rank != 0) continue;
        const int norm = i / shape_.block_groups(), group = i % shape_.block_groups();
        const int64_t column = (first_group + group) * 2 * kNorms + 2 * norm;
        moments.set(t, column, of_cluster_.at(t, 2 * i));
        moments.set(t, column + 1, of_cluster_.at(t, 2 * i + 1));
      }
    });
  }

 private:
  PTR_DEVICE int place(int norm, int group) const { return norm * shape_.block_groups() + group; }

  // Every thread's sum of ``of`` its elements, to a place where those of a group are neighbours.
  template <class T, class F>
  PTR_DEVICE void add_up(Thread t, const Shared<T> (&slabs)[kNorms], int skip, F of) {
    const Lane<T> lane(t, shape_);
    if (lane.idle()) return;
    const int each = shape_.group_channels / Lane<T>::kVector;  // Vectors of a group
    const int at = lane.group * lane.step * each + lane.pixel * each + (lane.vector - lane.group * each);
    PTR_UNROLL for (int norm = 0; norm < kNorms; ++norm) {
      Registers<float, Lane<T>::kVector> sums{};
      for (int p = lane.pixel; p < shape_.own_pixels(t); p += lane.step) {
        const auto x = to_floats<T>(slabs[norm].at_vector(t, (skip + p) * shape_.width + lane.channel));
        PTR_UNROLL for (int j = 0; j < Lane<T>::kVector; ++j) sums[j] += of(norm, x[j]);
      }
      float sum = 0.0f;
      PTR_UNROLL for (int j = 0; j < Lane<T>::kVector; ++j) sum += sums[j];
      scratch_.set(t, norm * Slab::kThreads + at, sum);
    }
  }

  // A warp for every group: the sum of its threads over ``divisor``, in a fixed order, to column ``column``.
  template <class T, class Divisor>
  PTR_DEVICE void sum_of_groups(Block& block, int column, Divisor divisor) {
    constexpr int kWarps = Slab::kThreads / kWarp;
    const int groups = shape_.block_groups(), vectors = shape_.width / Lane<T>::kVector;
    const int each = Slab::kThreads / vectors * (vectors / groups);  // threads of a group
    for (int first = 0; first < kNorms * groups; first += kWarps) {
      PerThread<float, Block> sum(block, 0.0f);
      block.each_thread([&](Thread t) {
        const int which = first + t.warp();
        if (which >= kNorms * groups) return;
        const int start = which / groups * Slab::kThreads + which % groups * each;
        for (int i = t.lane(); i < each; i += kWarp) sum[t] += scratch_.at(t, start + i);
      });
      block.warp_sum(sum);
      block.phase([&](Thread t) {
        const int which = first + t.warp();
        if (which < kNorms * groups && t.lane() == 0) of_block_.set(t, 2 * which + column, sum[t] / divisor(t));
      });
    }
  }

  // Chan's formula over the ranks of the cluster, in their order.
  PTR_DEVICE void merge(Thread t, int i, int num_ranks, float eps) {
    float mean = of_block_.at(t, 2 * i), squares = of_block_.at(t, 2 * i + 1);
    if (num_ranks > 1) {
      float sum = 0.0f;
      for (int rank = 0; rank < num_ranks; ++rank) {
        sum += of_block_.of_rank(t, rank).at(t, 2 * i) * shape_.own_pixels(rank);
      }
      mean = sum / shape_.num_pixels;
      squares = 0.0f;
      for (int rank = 0; rank < num_ranks; ++rank) {
        const auto theirs = of_block_.of_rank(t, rank);
        const float away = theirs.at(t, 2 * i) - mean;
        squares += theirs.at(t, 2 * i + 1) + away * away * (float(shape_.own_pixels(rank)) * shape_.group_channels);
      }
    }
    of_cluster_.set(t, 2 * i, mean);
    of_cluster_.set(t, 2 * i + 1, 1.0f / sqrtf(squares / float(shape_.count()) + eps));
  }

  const Slab& shape_;
  Shared<float> scratch_, of_block_, of_cluster_;
};

// Sums over the pixels of every channel: kSums of them, of the whole cluster, in a fixed order.
template <class Block, class T, int kSums>
class ChannelSums {
 public:
  static constexpr int kVector = Vector<T>::size();

  static PTR_HOST_DEVICE int64_t shared_bytes(const Slab& shape) {
    return shared_size<float>(Slab::kThreads * kVector) + 2 * shared_size<float>(kSums * shape.width);
  }

  PTR_DEVICE ChannelSums(Block& block, const Slab& shape)
      : shape_(shape),
        scratch_(block.template shared<float>("scratch", Slab::kThreads * kVector)),
        of_block_(block.template shared<float>("of_block", kSums * shape.width)),
        of_cluster_(block.template shared<float>("of_cluster", kSums * shape.width)) {}

  PTR_DEVICE float at(Thread t, int sum, int channel) const { return of_cluster_.at(t, sum * shape_.width + channel); }

  // The block's sums of what its threads have, Registers of a Vector's channels; one sum at a time, so that one part of
  // shared memory serves all.
  template <class Lanes>
  PTR_DEVICE void add_up(Block& block, int sum, Lanes lanes) {
    block.phase([&](Thread t) {
      const Lane<T> lane(t, shape_);
      if (lane.idle()) return;
      const Registers<float, kVector> values = lanes(t);
      PTR_UNROLL for (int j = 0; j < kVector; j += 4) {
        Vector<float> part;
        PTR_UNROLL for (int k = 0; k < 4; ++k) part[k] = values[j + k];
        scratch_.set_vector(t, lane.pixel * shape_.width + lane.channel + j, part);
      }
    });
    const int step = Slab::kThreads / (shape_.width / kVector);
    block.phase([&](Thread t) {
      for (int c = t.index; c < shape_.width; c += Slab::kThreads) {
        float total = 0.0f;
        for (int p = 0; p < step; ++p) total += scratch_.at(t, p * shape_.width + c);
        of_block_.set(t, sum * shape_.width + c, total);
      }
    });
  }

  // The cluster's sums; ``tell(t, sum, channel, total)`` is called once for each, by rank 0.
  template <class F>
  PTR_DEVICE void finish(Block& block, F tell) {
    block.cluster_phase([](Thread) {});
    const int num_ranks = block.cluster_size();
    block.cluster_phase([&](Thread t) {
      for (int i = t.index; i < kSums * shape_.width; i += Slab::kThreads) {
        float total = 0.0f;
        for (int rank = 0; rank < num_ranks; ++rank) total += of_block_.of_rank(t, rank).at(t, i);
        of_cluster_.set(t, i, total);
        if (t.rank == 0) tell(t, i / shape_.width, i % shape_.width, total);
      }
    });
  }

 private:
  const Slab& shape_;
  Shared<float> scratch_, of_block_, of_cluster_;
};

// The means of a group that its input gradient takes away:
// dx = rstd (w dz - mean(w dz) - xhat mean(w dz xhat)) = dz (rstd w) - of_dz - (x - mean) of_deviation.
template <class Block, int kNorms>
class GradientMeans {
 public:
  static PTR_HOST_DEVICE int64_t shared_bytes(const Slab& shape) {
    return shared_size<float>(2 * kNorms * shape.block_groups());
  }
  PTR_DEVICE GradientMeans(Block& block, const Slab& shape)
      : shape_(shape), means_(block.template shared<float>("means", 2 * kNorms * shape.block_groups())) {}

  PTR_DEVICE float of_dz(Thread t, int norm, int group) const { return means_.at(t, 2 * place(norm, group)); }
  PTR_DEVICE float of_deviation(Thread t, int norm, int group) const {
    return means_.at(t, 2 * place(norm, group) + 1);
  }

  // ``sums``: of dz, of dz times each norm's deviation. ``moments`` [images, groups, 2 kNorms].
  template <class Sums>
  PTR_DEVICE void find(Block& block, const Sums& sums, const Global<const float> (&weights)[kNorms],
                       const Global<const float>& moments) {
    constexpr int kWarps = Slab::kThreads / kWarp;
    const int groups = shape_.block_groups(), first_channel = shape_.first_channel(block);
    const int64_t first_group = shape_.image(block) * shape_.num_groups() + first_channel / shape_.group_channels;
    for (int first = 0; first < kNorms * groups; first += kWarps) {
      PerThread<Registers<float, 2>, Block> sum(block, Registers<float, 2>{});
      block.each_thread([&](Thread t) {
        const int which = first + t.warp();
        if (which >= kNorms * groups) return;
        const int norm = which / groups, start = which % groups * shape_.group_channels;
        for (int c = start + t.lane(); c < start + shape_.group_channels; c += kWarp) {
          float weight = weights[0].load_nc(t, first_channel + c);
          if constexpr (kNorms == 2) weight = norm ? weights[1].load_nc(t, first_channel + c) : weight;
          sum[t][0] += weight * sums.at(t, 0, c);
          sum[t][1] += weight * sums.at(t, 1 + norm, c);
        }
      });
      block.warp_sum(sum);
      block.phase([&](Thread t) {
        const int which = first + t.warp();
        if (which >= kNorms * groups || t.lane() != 0) return;
        const int norm = which / groups, group = which % groups;
        const float rstd = moments.load_nc(t, (first_group + group) * 2 * kNorms + 2 * norm + 1);
        const float share = rstd / float(shape_.count());
        means_.set(t, 2 * which, sum[t][0] * share);
        means_.set(t, 2 * which + 1, sum[t][1] * rstd * rstd * share);
      });
    }
  }

 private:
  PTR_DEVICE int place(int norm, int group) const { return norm * shape_.block_groups() + group; }

  const Slab& shape_;
  Shared<float> means_;
};

}  // namespace ptr_fast
