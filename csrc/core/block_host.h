// The Block of core/block.h on the host: one cluster after the other, the threads of a phase in a shuffled order.
//
// emulate(kernel, grid, cluster, seed) runs a whole launch in one thread of the host. It throws BlockError with the
// name of the memory, the element and the threads where a kernel reads or writes out of bounds, where two threads meet
// at one element without a barrier between them, where it uses what a copy has not brought yet, or where another
// block's shared memory is used before that block has begun or after it may have ended. Shared memory and registers
// begin as bytes 0xff: NaN as float and bfloat16, -1 as int. What it cannot find: errors in how the device Block uses
// the hardware's barriers and copies, and control flow between phases that is not uniform.
// Included by core/block.h where a C++ compiler compiles.
#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <type_traits>
#include <vector>

#include "core/access_log.h"

namespace ptr_fast {
inline namespace on_host {

// The one launch that runs; the emulator is for one thread of the host.
struct Launch {
  std::map<const void*, std::unique_ptr<AccessLog>> written;  // log of each Global that is not const
  int64_t number = 0;                                         // counts launches
  int32_t cluster = 0;
  uint32_t phase = 0, epoch = 0;

  Access by(Thread t) const { return {cluster, t.rank, t.index, phase, epoch}; }
};
inline Launch launch_now;

// A buffer that the caller owns; ``length`` elements.
template <class T>
struct Global {
  using Value = std::remove_const_t<T>;
  static constexpr int kVector = int(16 / sizeof(T));
  T* data = nullptr;
  int64_t length = 0;

  Global() = default;
  Global(T* data, int64_t length) : data(data), length(length) {}

  Value at(Thread t, int64_t i) const {
    log_read(t, i);
    return data[i];
  }
  void set(Thread t, int64_t i, Value value) const {
    log()->write(i, launch_now.by(t));
    data[i] = value;
  }
  Vector<Value> at_vector(Thread t, int64_t i) const {
    check_aligned(t, i);
    Vector<Value> value;
    for (int j = 0; j < kVector; ++j) value[j] = at(t, i + j);
    return value;
  }
  void set_vector(Thread t, int64_t i, const Vector<Value>& value) const {
    check_aligned(t, i);
    for (int j = 0; j < kVector; ++j) set(t, i + j, value[j]);
  }
  Value load_nc(Thread t, int64_t i) const {
    static_assert(std::is_const_v<T>, "load_nc is for what the whole launch only reads: Global<const T>");
    return at(t, i);
  }
  Vector<Value> load_nc_vector(Thread t, int64_t i) const {
    static_assert(std::is_const_v<T>, "load_nc_vector is for what the whole launch only reads: Global<const T>");
    return at_vector(t, i);
  }

  void log_read(Thread t, int64_t i) const {
    if constexpr (std::is_const_v<T>) {
      if (i < 0 || i >= length) {
        throw BlockError(text("global: thread ", t.index, " of rank ", t.rank, " of cluster ", launch_now.cluster,
                              " reads element ", i, " of ", length));
      }
    } else {
      log()->read(i, launch_now.by(t));
    }
  }
  void check_aligned(Thread t, int64_t i) const {
    if (reinterpret_cast<uintptr_t>(data + i) % 16 != 0) {
      throw BlockError(text("global: thread ", t.index, " moves 16 bytes at element ", i, ", which is not a multiple"));
    }
  }

 private:
  mutable AccessLog* log_ = nullptr;
  mutable int64_t launch_ = -1;

  AccessLog* log() const {
    if (launch_ != launch_now.number) {
      auto& log = launch_now.written[data];
      if (!log || log->size() < length) log = std::make_unique<AccessLog>("global", length);
      log_ = log.get();
      launch_ = launch_now.number;
    }
    return log_;
  }
};

// One array of shared memory in every block of a cluster.
template <class T>
struct SharedArrays {
  SharedArrays(const char* name, int count, int num_ranks) : name(name), count(count) {
    for (int rank = 0; rank < num_ranks; ++rank) {
      arrays.emplace_back(count / Global<T>::kVector + 1);
      std::memset(static_cast<void*>(arrays.back().data()), 0xff, arrays.back().size() * 16);
      logs.emplace_back(text("shared '", name, "'"), count);
    }
  }
  T* of(int rank) { return reinterpret_cast<T*>(arrays[rank].data()); }

  std::string name;
  int count;
  std::vector<std::vector<Vector<T>>> arrays;
  std::vector<AccessLog> logs;
};

template <class T>
struct Shared {
  static constexpr int kVector = Global<T>::kVector;
  std::shared_ptr<SharedArrays<T>> arrays;
  uint32_t* last_remote_epoch;  // of the block: where another rank's memory was used last
  int rank = -1;                // -1: the thread's own

  T at(Thread t, int i) const {
    log(t).read(i, launch_now.by(t));
    return arrays->of(owner(t))[i];
  }
  void set(Thread t, int i, T value) const {
    log(t).write(i, launch_now.by(t));
    arrays->of(owner(t))[i] = value;
  }
  Vector<T> at_vector(Thread t, int i) const {
    check_aligned(t, i);
    Vector<T> value;
    for (int j = 0; j < kVector; ++j) value[j] = at(t, i + j);
    return value;
  }
  void set_vector(Thread t, int i, const Vector<T>& value) const {
    check_aligned(t, i);
    for (int j = 0; j < kVector; ++j) set(t, i + j, value[j]);
  }
  Shared of_rank(Thread t, int other) const {
    if (other < 0 || other >= int(arrays->logs.size())) {
      throw BlockError(text("shared '", arrays->name, "': rank ", other, " of a cluster of ", arrays->logs.size()));
    }
    if (other != t.rank) {
      if (launch_now.epoch == 0) {
        throw BlockError(text("shared '", arrays->name, "': rank ", t.rank, " uses the memory of rank ", other,
                              " before a cluster_phase says that it has begun"));
      }
      *last_remote_epoch = launch_now.epoch;
    }
    return {arrays, last_remote_epoch, other};
  }

  int owner(Thread t) const { return rank < 0 ? t.rank : rank; }
  AccessLog& log(Thread t) const { return arrays->logs[owner(t)]; }
  void check_aligned(Thread t, int i) const {
    if (i % kVector != 0) {
      throw BlockError(text("shared '", arrays->name, "': thread ", t.index, " moves 16 bytes at element ", i,
                            ", which is not a multiple of ", kVector));
    }
  }
};

template <class T, class Block>
class PerThread {
 public:
  explicit PerThread(const Block& block) : num_threads_(block.num_threads()), values_(block.threads_of_cluster()) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::memset(static_cast<void*>(values_.data()), 0xff, values_.size() * sizeof(T));
  }
  PerThread(const Block& block, const T& first)
      : num_threads_(block.num_threads()), values_(block.threads_of_cluster(), first) {}
  T& operator[](Thread t) { return values_[t.rank * num_threads_ + t.index]; }
  const T& operator[](Thread t) const { return values_[t.rank * num_threads_ + t.index]; }
  T& operator()(Thread t) { return (*this)[t]; }
  const T& operator()(Thread t) const { return (*this)[t]; }

 private:
  int num_threads_;
  std::vector<T> values_;
};

class HostBlock {
 public:
  HostBlock(Index3 first, Index3 num_blocks, int num_threads, int num_ranks, uint64_t seed)
      : first_(first), num_blocks_(num_blocks), num_threads_(num_threads), num_ranks_(num_ranks), random_(seed) {
    order_.resize(threads_of_cluster());
    std::iota(order_.begin(), order_.end(), 0);
  }

  int num_threads() const { return num_threads_; }
  int cluster_size() const { return num_ranks_; }
  int threads_of_cluster() const { return num_threads_ * num_ranks_; }
  Index3 num_blocks() const { return num_blocks_; }
  Index3 cluster_index() const { return {first_.x / num_ranks_, first_.y, first_.z}; }
  Index3 index() const {
    if (rank_ < 0 && num_ranks_ > 1) {
      throw BlockError("block.index() outside of a phase: blocks of a cluster differ in it; use cluster_index()");
    }
    return {first_.x + std::max(rank_, 0), first_.y, first_.z};
  }

  template <class F>
  void phase(F&& f) {
    each_thread(f);
    barrier();
  }

  template <class F>
  void cluster_phase(F&& f) {
    each_thread(f);
    barrier();
    ++launch_now.epoch;
  }

  template <class F>
  void each_thread(F&& f) {
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random() % i]);
    for (const int which : order_) {
      rank_ = which / num_threads_;
      f(Thread{which % num_threads_, rank_});
    }
    rank_ = -1;
  }

  template <class F>
  void each_block(F&& f) {
    for (int rank = 0; rank < num_ranks_; ++rank) {
      rank_ = rank;
      f(Thread{0, rank});
    }
    rank_ = -1;
  }

  template <class T>
  Shared<T> shared(const char* name, int count) {
    used_ += shared_size<T>(count);
    return {std::make_shared<SharedArrays<T>>(name, count, num_ranks_), &last_remote_epoch_};
  }
  int64_t shared_bytes() const { return used_; }

  template <class T, class U>
  void bulk_copy(const Shared<T>& shared, int at, const Global<U>& global, int64_t first, int count, int stage = 0) {
    if (rank_ < 0 && num_ranks_ > 1) throw BlockError("bulk_copy in a cluster: only inside each_block");
    if (count % Shared<T>::kVector != 0) {
      throw BlockError(
          text("bulk_copy to shared '", shared.arrays->name, "': ", count, " elements are not a multiple of 16 bytes"));
    }
    const Thread t{0, std::max(rank_, 0)};
    for (int i = 0; i < count; i += Shared<T>::kVector) copy_async(t, shared, at + i, global, first + i, stage);
  }

  template <class T, class U>
  void copy_async(Thread t, const Shared<T>& shared, int at, const Global<U>& global, int64_t first, int stage = 0) {
    static_assert(std::is_same_v<T, std::remove_const_t<U>>);
    shared.check_aligned(t, at);
    global.check_aligned(t, first);
    Vector<T> value;
    for (int j = 0; j < Shared<T>::kVector; ++j) {
      global.log_read(t, first + j);
      shared.log(t).sent(at + j, launch_now.by(t));
      value[j] = global.data[first + j];
    }
    T* const to = shared.arrays->of(t.rank) + at;
    std::memset(static_cast<void*>(to), 0xff, 16);
    AccessLog* const log = &shared.log(t);
    auto keep = shared.arrays;
    under_way_[stage].push_back([=] {
      std::memcpy(static_cast<void*>(to), &value, 16);
      for (int j = 0; j < Shared<T>::kVector; ++j) log->arrived(at + j, launch_now.by(t));
      (void)keep;
    });
  }

  void wait_bulk(int stage = 0) {
    for (const auto& arrive : under_way_[stage]) arrive();
    under_way_[stage].clear();
    barrier();
  }

  template <class T, class F>
  void warp_reduce(PerThread<T, HostBlock>& r, F combine) {
    for_warps([&](int rank, int warp) {
      T values[kWarp], next[kWarp];
      for (int lane = 0; lane < kWarp; ++lane) values[lane] = r[thread(rank, warp, lane)];
      for (int step = kWarp / 2; step > 0; step /= 2) {
        for (int lane = 0; lane < kWarp; ++lane) next[lane] = combine(values[lane], values[lane ^ step]);
        std::copy(next, next + kWarp, values);
      }
      for (int lane = 0; lane < kWarp; ++lane) r[thread(rank, warp, lane)] = values[lane];
    });
  }

  template <class T, class F>
  void block_reduce(PerThread<T, HostBlock>& r, F combine) {
    warp_reduce(r, combine);
    for (int rank = 0; rank < num_ranks_; ++rank) {
      T whole = r[Thread{0, rank}];
      for (int warp = 1; warp < num_threads_ / kWarp; ++warp) whole = combine(whole, r[thread(rank, warp, 0)]);
      for (int i = 0; i < num_threads_; ++i) r[Thread{i, rank}] = whole;
    }
    barrier();
  }

  template <class T>
  void warp_sum(PerThread<T, HostBlock>& r) {
    warp_reduce(r, Sum{});
  }
  template <class T>
  void warp_max(PerThread<T, HostBlock>& r) {
    warp_reduce(r, Max{});
  }
  template <class T>
  void block_sum(PerThread<T, HostBlock>& r) {
    block_reduce(r, Sum{});
  }
  template <class T>
  void block_max(PerThread<T, HostBlock>& r) {
    block_reduce(r, Max{});
  }

  template <class Acc, class A, class B>
  void mma_m16n8k16_bf16(Acc&& acc, A&& a, B&& b) {
    const auto half = [](uint32_t bits, int which) {
      return double(bits_of<float>(which ? bits & 0xffff0000u : bits << 16));
    };
    for_warps([&](int rank, int warp) {
      double left[16][16], right[16][8];
      for (int lane = 0; lane < kWarp; ++lane) {
        const Thread t = thread(rank, warp, lane);
        const Registers<uint32_t, 4> x = a(t);
        const Registers<uint32_t, 2> y = b(t);
        for (int i = 0; i < 4; ++i) {
          const int row = lane / 4 + 8 * (i % 2), k = lane % 4 * 2 + 8 * (i / 2);
          for (int j = 0; j < 2; ++j) left[row][k + j] = half(x[i], j);
        }
        for (int i = 0; i < 2; ++i) {
          for (int j = 0; j < 2; ++j) right[lane % 4 * 2 + 8 * i + j][lane / 4] = half(y[i], j);
        }
      }
      add_product<16>(left, right, acc, rank, warp);
    });
  }

  template <class Acc, class A, class B>
  void mma_m16n8k8_tf32(Acc&& acc, A&& a, B&& b) {
    const auto value = [](uint32_t bits) { return double(bits_of<float>(bits & ~0x1fffu)); };
    for_warps([&](int rank, int warp) {
      double left[16][8], right[8][8];
      for (int lane = 0; lane < kWarp; ++lane) {
        const Thread t = thread(rank, warp, lane);
        const Registers<uint32_t, 4> x = a(t);
        const Registers<uint32_t, 2> y = b(t);
        for (int i = 0; i < 4; ++i) left[lane / 4 + 8 * (i % 2)][lane % 4 + 4 * (i / 2)] = value(x[i]);
        for (int i = 0; i < 2; ++i) right[lane % 4 + 4 * i][lane / 4] = value(y[i]);
      }
      add_product<8>(left, right, acc, rank, warp);
    });
  }

  // After the kernel: what only the end can tell.
  void finish(int64_t shared_bytes) const {
    for (const auto& copies : under_way_) {
      if (!copies.empty()) throw BlockError("the kernel ends while a copy is under way");
    }
    if (last_remote_epoch_ != 0 && last_remote_epoch_ == launch_now.epoch) {
      throw BlockError("another rank's shared memory is used after the last cluster_phase: that block may have ended");
    }
    if (used_ > shared_bytes) {
      throw BlockError(text("the kernel uses ", used_, " bytes of shared memory, shared_bytes() says ", shared_bytes));
    }
  }

 private:
  static Thread thread(int rank, int warp, int lane) { return {warp * kWarp + lane, rank}; }

  template <class F>
  void for_warps(F&& f) const {
    for (int rank = 0; rank < num_ranks_; ++rank) {
      for (int warp = 0; warp < num_threads_ / kWarp; ++warp) f(rank, warp);
    }
  }

  // Exact products, their sum and the accumulator rounded once; the hardware's order of summing is not documented.
  template <int kDepth, class Acc>
  static void add_product(double (&left)[16][kDepth], double (&right)[kDepth][8], Acc&& acc, int rank, int warp) {
    for (int lane = 0; lane < kWarp; ++lane) {
      Registers<float, 4>& d = acc(thread(rank, warp, lane));
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        double sum = d[i];
        for (int k = 0; k < kDepth; ++k) sum += left[row][k] * right[k][column];
        d[i] = float(sum);
      }
    }
  }

  void barrier() { ++launch_now.phase; }

  uint64_t random() {  // splitmix64
    uint64_t z = (random_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  const Index3 first_, num_blocks_;
  const int num_threads_, num_ranks_;
  uint64_t random_;
  std::vector<int> order_;
  int rank_ = -1;  // of the thread that runs; -1 between phases
  int64_t used_ = 0;
  uint32_t last_remote_epoch_ = 0;
  std::vector<std::function<void()>> under_way_[kBulkStages];
};

// A whole launch: ``grid`` blocks, ``cluster`` of them along x together, in an order that ``seed`` decides.
template <class Kernel>
void emulate(const Kernel& kernel, Index3 grid, int cluster, uint64_t seed) {
  static_assert(Kernel::kThreads % kWarp == 0);
  check(cluster >= 1 && grid.x % cluster == 0, "emulate: expected whole clusters of ", cluster, ", got ", grid.x);
  launch_now.written.clear();
  ++launch_now.number;
  std::vector<int> order(size_t(grid.x / cluster) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(order[i - 1], order[(seed >> 33) % i]);
  }
  for (const int which : order) {
    const int columns = grid.x / cluster;
    launch_now.cluster = which;
    launch_now.phase = launch_now.epoch = 0;
    const Index3 first{which % columns * cluster, which / columns % grid.y, which / columns / grid.y};
    HostBlock block(first, grid, Kernel::kThreads, cluster, seed + which);
    kernel.run(block);
    block.finish(kernel.shared_bytes());
  }
  launch_now.written.clear();
}

}  // namespace on_host
}  // namespace ptr_fast
