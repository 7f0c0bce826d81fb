// The Block of core/block.h on a GPU: phases are code and __syncthreads, views of memory are pointers.
// Included by core/block.h where nvcc compiles.
#pragma once

namespace ptr_fast {
inline namespace on_device {

template <class T>
PTR_DEVICE Vector<T> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}

template <class T>
PTR_DEVICE void store_vector(T* to, const Vector<T>& value) {
  *reinterpret_cast<Vector<T>*>(to) = value;
}

// A buffer in the GPU's memory. ``length`` is what the host checks; the device takes it as true.
template <class T>
struct Global {
  using Value = std::remove_const_t<T>;
  T* data;
  int64_t length;

  PTR_DEVICE Value at(Thread, int64_t i) const { return data[i]; }
  PTR_DEVICE void set(Thread, int64_t i, Value value) const { data[i] = value; }
  PTR_DEVICE Vector<Value> at_vector(Thread, int64_t i) const {
    return load_vector(const_cast<const Value*>(data) + i);
  }
  PTR_DEVICE void set_vector(Thread, int64_t i, const Vector<Value>& value) const { store_vector(data + i, value); }
  // For what the whole launch only reads.
  PTR_DEVICE Value load_nc(Thread, int64_t i) const { return load_read_only(data + i); }
  PTR_DEVICE Vector<Value> load_nc_vector(Thread, int64_t i) const {
    const uint4 bits = __ldg(reinterpret_cast<const uint4*>(data + i));
    return bits_of<Vector<Value>>(bits);
  }

 private:
  static PTR_DEVICE Value load_read_only(const Value* from) {
    if constexpr (sizeof(Value) == 2) {
      return bits_of<Value>(__ldg(reinterpret_cast<const unsigned short*>(from)));
    } else if constexpr (sizeof(Value) == 4) {
      return bits_of<Value>(__ldg(reinterpret_cast<const unsigned*>(from)));
    } else {
      return *from;
    }
  }
};

// Part of a block's shared memory.
template <class T>
struct Shared {
  T* data;

  PTR_DEVICE T at(Thread, int i) const { return data[i]; }
  PTR_DEVICE void set(Thread, int i, T value) const { data[i] = value; }
  PTR_DEVICE Vector<T> at_vector(Thread, int i) const { return load_vector(data + i); }
  PTR_DEVICE void set_vector(Thread, int i, const Vector<T>& value) const { store_vector(data + i, value); }

  // The same part of another block of the cluster. There must be a cluster_phase before the first use in a kernel and
  // after the last one.
  PTR_DEVICE Shared of_rank(Thread, int rank) const {
#if __CUDA_ARCH__ >= 900
    uint64_t there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(reinterpret_cast<uint64_t>(data)), "r"(rank));
    return {reinterpret_cast<T*>(there)};
#else
    return *this;
#endif
  }
};

template <class T, class Block>
struct PerThread {
  T value;
  PTR_DEVICE explicit PerThread(const Block&) {}
  PTR_DEVICE PerThread(const Block&, const T& first) : value(first) {}
  PTR_DEVICE T& operator[](Thread) { return value; }
  PTR_DEVICE const T& operator[](Thread) const { return value; }
  PTR_DEVICE T& operator()(Thread) { return value; }
  PTR_DEVICE const T& operator()(Thread) const { return value; }
};

extern __shared__ __align__(128) unsigned char shared_memory[];

template <int kThreads>
class DeviceBlock {
 public:
  static PTR_DEVICE constexpr int num_threads() { return kThreads; }
  static PTR_DEVICE Index3 index() { return {int(blockIdx.x), int(blockIdx.y), int(blockIdx.z)}; }
  static PTR_DEVICE Index3 num_blocks() { return {int(gridDim.x), int(gridDim.y), int(gridDim.z)}; }
  PTR_DEVICE Index3 cluster_index() const {
    return {int(blockIdx.x) / cluster_size(), int(blockIdx.y), int(blockIdx.z)};
  }
  static PTR_DEVICE int cluster_size() {
#if __CUDA_ARCH__ >= 900
    int size;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
#else
    return 1;
#endif
  }

  template <class F>
  PTR_DEVICE void phase(F&& f) {
    f(thread());
    __syncthreads();
  }

  template <class F>
  PTR_DEVICE void cluster_phase(F&& f) {
    f(thread());
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
  }

  template <class F>
  PTR_DEVICE void each_thread(F&& f) {
    f(thread());
  }

  template <class F>
  PTR_DEVICE void each_block(F&& f) {
    f(thread());
  }

  template <class T>
  PTR_DEVICE Shared<T> shared(const char*, int count) {
    T* const data = reinterpret_cast<T*>(shared_memory + used_);
    used_ += int(shared_size<T>(count));
    return {data};
  }

  // ``count`` elements from ``global[first]`` to ``shared[at]``: multiples of 16 bytes all of them.
  template <class T, class U>
  PTR_DEVICE void bulk_copy(const Shared<T>& shared, int at, const Global<U>& global, int64_t first, int count,
                            int stage = 0) {
#if __CUDA_ARCH__ >= 900
    // What threads did with this memory comes before what the copy engine does with it.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    if (!barriers_made_) make_barriers();
    __syncthreads();
    if (threadIdx.x == 0) {
      const uint32_t barrier = barrier_of(stage);
      const uint32_t bytes = count * sizeof(T);
      asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                       address(shared.data + at)),
                   "l"(__cvta_generic_to_global(global.data + first)), "r"(bytes), "r"(barrier)
                   : "memory");
    }
    issued_ |= 1u << stage;
#else
    constexpr int kEach = 16 / sizeof(T);
    for (int i = threadIdx.x * kEach; i < count; i += kThreads * kEach) {
      copy_async(thread(), shared, at + i, global, first + i);
    }
#endif
  }

  // One Vector by one thread.
  template <class T, class U>
  PTR_DEVICE void copy_async(Thread, const Shared<T>& shared, int at, const Global<U>& global, int64_t first, int = 0) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address(shared.data + at)),
                 "l"(__cvta_generic_to_global(global.data + first))
                 : "memory");
  }

  // All that was sent at this stage is there, for every thread of the block.
  PTR_DEVICE void wait_bulk(int stage = 0) {
    asm volatile("cp.async.wait_all;" ::: "memory");
#if __CUDA_ARCH__ >= 900
    if (issued_ >> stage & 1) {
      const uint32_t barrier = barrier_of(stage);
      if (threadIdx.x == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
      const uint32_t parity = parities_ >> stage & 1;
      uint32_t done = 0;
      while (!done) {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
      }
      parities_ ^= 1u << stage;
      issued_ &= ~(1u << stage);
    }
#endif
    __syncthreads();
  }

  // Between phases: every thread of a warp gets the combination of its warp, always in the same order.
  template <class T, class F>
  PTR_DEVICE void warp_reduce(PerThread<T, DeviceBlock>& r, F combine) {
    PTR_UNROLL for (int step = kWarp / 2; step > 0; step /= 2) { r.value = combine(r.value, exchange(r.value, step)); }
  }

  // Between phases: every thread gets the combination of its block, always in the same order.
  template <class T, class F>
  PTR_DEVICE void block_reduce(PerThread<T, DeviceBlock>& r, F combine) {
    static_assert(sizeof(T) <= kReduceBytes);
    // Two halves in turn: one barrier is enough.
    __shared__ __align__(16) unsigned char parts[2][kReduceBytes * (kThreads / kWarp)];
    warp_reduce(r, combine);
    T* const mine = reinterpret_cast<T*>(parts[half_]);
    half_ ^= 1;
    if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = r.value;
    __syncthreads();
    T whole = mine[0];
    PTR_UNROLL for (int warp = 1; warp < kThreads / kWarp; ++warp) whole = combine(whole, mine[warp]);
    r.value = whole;
  }

  template <class T>
  PTR_DEVICE void warp_sum(PerThread<T, DeviceBlock>& r) {
    warp_reduce(r, Sum{});
  }
  template <class T>
  PTR_DEVICE void warp_max(PerThread<T, DeviceBlock>& r) {
    warp_reduce(r, Max{});
  }
  template <class T>
  PTR_DEVICE void block_sum(PerThread<T, DeviceBlock>& r) {
    block_reduce(r, Sum{});
  }
  template <class T>
  PTR_DEVICE void block_max(PerThread<T, DeviceBlock>& r) {
    block_reduce(r, Max{});
  }

  // Between phases: acc += a b of every warp. Each is a PerThread, or a callable of a Thread that returns its part:
  // acc Registers<float, 4>, a Registers<uint32_t, 4>, b Registers<uint32_t, 2>, in the layout of PTX's
  // mma.m16n8k16 (two bfloat16 a register) and mma.m16n8k8 (one TF32 a register).
  template <class Acc, class A, class B>
  PTR_DEVICE void mma_m16n8k16_bf16(Acc&& acc, A&& a, B&& b) {
    Registers<float, 4>& d = acc(thread());
    const Registers<uint32_t, 4> x = a(thread());
    const Registers<uint32_t, 2> y = b(thread());
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
  }
  template <class Acc, class A, class B>
  PTR_DEVICE void mma_m16n8k8_tf32(Acc&& acc, A&& a, B&& b) {
    Registers<float, 4>& d = acc(thread());
    const Registers<uint32_t, 4> x = a(thread());
    const Registers<uint32_t, 2> y = b(thread());
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
  }

 private:
  static constexpr int kReduceBytes = 32;

  static PTR_DEVICE Thread thread() {
#if __CUDA_ARCH__ >= 900
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return {int(threadIdx.x), rank};
#else
    return {int(threadIdx.x), 0};
#endif
  }

  static PTR_DEVICE uint32_t address(const void* shared) { return uint32_t(__cvta_generic_to_shared(shared)); }

  template <class T>
  static PTR_DEVICE T exchange(const T& value, int step) {
    static_assert(sizeof(T) % 4 == 0);
    Registers<uint32_t, int(sizeof(T) / 4)> words;
    memcpy(&words, &value, sizeof(T));
    PTR_UNROLL for (int i = 0; i < words.size(); ++i) words[i] = __shfl_xor_sync(~0u, words[i], step);
    T other;
    memcpy(&other, &words, sizeof(T));
    return other;
  }

  static PTR_DEVICE uint32_t barrier_of(int stage) {
    __shared__ uint64_t barriers[kBulkStages];
    return address(&barriers[stage]);
  }

  PTR_DEVICE void make_barriers() {
    if (threadIdx.x == 0) {
      PTR_UNROLL for (int stage = 0; stage < kBulkStages; ++stage) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier_of(stage)) : "memory");
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    barriers_made_ = true;
  }

  int used_ = 0;
  int half_ = 0;
  bool barriers_made_ = false;
  uint32_t issued_ = 0;    // bit of each stage: a bulk copy is under way
  uint32_t parities_ = 0;  // of each stage's barrier
};

}  // namespace on_device
}  // namespace ptr_fast
