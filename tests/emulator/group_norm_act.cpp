#include "bindings/group_norm_act_cuda.h"
#include "emulator.h"
#include "kernels/group_norm_act_launch.h"

namespace ptr_fast {
namespace {

int64_t last_shared_bytes = 0;

// The product's signatures, with the seed of the threads' order in place of the stream.
struct OnHost {
  template <class Op>
  void operator()(const Op& op, int64_t seed) const {
    with_kernel(op, [&](const auto& kernel, Index3 grid, int cluster) {
      last_shared_bytes = kernel.shared_bytes();
      emulate(kernel, grid, cluster, uint64_t(seed));
    });
  }
};

const Emulated group_norm_act([](py::module_& module) {
  def_group_norm_act_cuda<OnHost>(module);
  module.def("group_norm_act_shared_bytes", [] { return last_shared_bytes; });
});

}  // namespace
}  // namespace ptr_fast
