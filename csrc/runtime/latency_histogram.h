// Durations by their logarithm: constant memory, constant time, percentiles within 1.6 %. One thread records, any
// reads.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>

namespace ptr_fast {

class LatencyHistogram {
 public:
  static constexpr int kSubBits = 6;  // 64 buckets per power of two: a bucket is 1.6 % wide
  static constexpr int kNumBuckets = (64 - kSubBits + 1) << kSubBits;

  void record(int64_t ns);
  void reset();

  int64_t count() const { return count_.load(std::memory_order_relaxed); }
  int64_t max() const { return max_.load(std::memory_order_relaxed); }
  double mean() const;
  // Smallest upper bound of a bucket below which a share p in [0, 1] of the durations lies, never above the largest.
  int64_t percentile(double p) const;
  int64_t bucket_count(int bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }

  static int bucket_of(int64_t ns);
  static int64_t lower_bound(int bucket);

 private:
  std::array<std::atomic<int64_t>, kNumBuckets> counts_{};
  std::atomic<int64_t> count_{0}, sum_{0}, max_{0};
};

}  // namespace ptr_fast
