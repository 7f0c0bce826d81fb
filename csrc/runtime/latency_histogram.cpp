#include "runtime/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace ptr_fast {

int LatencyHistogram::bucket_of(int64_t ns) {
  const auto value = uint64_t(std::max<int64_t>(ns, 0));
  constexpr uint64_t kLinear = uint64_t(1) << kSubBits;
  if (value < kLinear) return int(value);
  const int exponent = std::bit_width(value) - 1 - kSubBits;  // of the bucket's width
  return ((exponent + 1) << kSubBits) + int((value >> exponent) - kLinear);
}

int64_t LatencyHistogram::lower_bound(int bucket) {
  constexpr int kLinear = 1 << kSubBits;
  if (bucket < kLinear) return bucket;
  const int exponent = (bucket >> kSubBits) - 1;
  return (int64_t(kLinear) + (bucket & (kLinear - 1))) << exponent;
}

void LatencyHistogram::record(int64_t ns) {
  ns = std::max<int64_t>(ns, 0);
  counts_[bucket_of(ns)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(ns, std::memory_order_relaxed);
  if (ns > max_.load(std::memory_order_relaxed)) max_.store(ns, std::memory_order_relaxed);
  count_.fetch_add(1, std::memory_order_release);
}

void LatencyHistogram::reset() {
  for (auto& bucket : counts_) bucket.store(0, std::memory_order_relaxed);
  count_ = 0;
  sum_ = 0;
  max_ = 0;
}

double LatencyHistogram::mean() const {
  const int64_t n = count();
  return n == 0 ? 0.0 : double(sum_.load(std::memory_order_relaxed)) / double(n);
}

int64_t LatencyHistogram::percentile(double p) const {
  const int64_t n = count();
  if (n == 0) return 0;
  const auto wanted = std::max<int64_t>(1, int64_t(std::ceil(std::clamp(p, 0.0, 1.0) * double(n))));
  int64_t seen = 0;
  for (int bucket = 0; bucket < kNumBuckets; ++bucket) {
    seen += bucket_count(bucket);
    if (seen >= wanted) return std::min(lower_bound(bucket + 1) - 1, max());
  }
  return max();
}

}  // namespace ptr_fast
