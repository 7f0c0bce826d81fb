#include "bindings/cql_head_cuda.h"

#include "emulator.h"
#include "kernels/cql_head_launch.h"

namespace ptr_fast {
namespace {

// A Block that leaves out the barrier of one of its phases.
struct CarelessBlock {
  HostBlock& block;
  int careless, count = 0;

  template <class F>
  void phase(F&& f) {
    count++ == careless ? block.each_thread(f) : block.phase(f);
  }
  template <class F>
  void each_thread(F&& f) {
    block.each_thread(f);
  }
  template <class T>
  auto shared(const char* name, int size) {
    return block.shared<T>(name, size);
  }
  template <class Acc, class A, class B>
  void mma_m16n8k16_bf16(Acc&& acc, A&& a, B&& b) {
    block.mma_m16n8k16_bf16(acc, a, b);
  }
  template <class Acc, class A, class B>
  void mma_m16n8k8_tf32(Acc&& acc, A&& a, B&& b) {
    block.mma_m16n8k8_tf32(acc, a, b);
  }
  Index3 index() const { return block.index(); }
  int threads_of_cluster() const { return block.threads_of_cluster(); }
  int num_threads() const { return block.num_threads(); }
};

template <class Kernel>
struct Careless {
  static constexpr int kThreads = Kernel::kThreads;
  Kernel kernel;
  int careless;
  int64_t shared_bytes() const { return kernel.shared_bytes(); }
  void run(HostBlock& block) const {
    CarelessBlock without{block, careless};
    kernel.run(without);
  }
};

template <class Kernel>
constexpr bool has_phases = true;  // of which a barrier can be missed: the others have one phase
template <class Precision>
constexpr bool has_phases<CqlHeadPack<Precision>> = false;
template <>
constexpr bool has_phases<CqlHeadLogSumExp> = false;

// The binding of the product, with the seed of the order in which threads run where that has the stream.
const Emulated cql_head([](py::module_& module) {
  module.def("cql_head_packed_words",
             [](const py::dict& call) { return cql_head_plan(cql_head_call<CqlHeadCudaCall>(call)).words; });
  module.def("cql_head_forward", [](const py::dict& call, uint64_t seed) {
    cql_head_forward_on(cql_head_forward_call(call),
                        [&](const auto& kernel, Index3 grid) { emulate(kernel, grid, 1, seed); });
  });
  module.def("cql_head_forward_without_barrier", [](const py::dict& call, int phase, uint64_t seed) {
    cql_head_forward_on(cql_head_forward_call(call), [&](const auto& kernel, Index3 grid) {
      if constexpr (has_phases<std::decay_t<decltype(kernel)>>) {
        emulate(Careless<std::decay_t<decltype(kernel)>>{kernel, phase}, grid, 1, seed);
      } else {
        emulate(kernel, grid, 1, seed);
      }
    });
  });
  module.def("cql_head_forward_with_a_row_too_many", [](const py::dict& call, uint64_t seed) {
    cql_head_forward_on(cql_head_forward_call(call), [&](const auto& kernel, Index3 grid) {
      auto wrong = kernel;
      if constexpr (has_phases<decltype(wrong)>) ++wrong.num_rows;
      emulate(wrong, grid, 1, seed);
    });
  });
  module.def("cql_head_backward", [](const py::dict& call, uint64_t seed) {
    cql_head_backward_on(cql_head_backward_call(call),
                         [&](const auto& kernel, Index3 grid) { emulate(kernel, grid, 1, seed); });
  });
});

}  // namespace
}  // namespace ptr_fast
