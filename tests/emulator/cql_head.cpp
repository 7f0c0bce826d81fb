#include "bindings/cql_head_cuda.h"

#include "emulator.h"
#include "kernels/cql_head_launch.h"

namespace ptr_fast {
namespace {

// The binding of the product, with the seed of the order in which threads run where that has the stream.
const Emulated cql_head([](py::module_& module) {
  module.def("cql_head_packed_words", [](const py::dict& call) {
    return cql_head_plan(cql_head_call<CqlHeadCudaCall>(call)).words;
  });
  module.def("cql_head_forward", [](const py::dict& call, uint64_t seed) {
    cql_head_forward_on(cql_head_forward_call(call),
                        [&](const auto& kernel, Index3 grid) { emulate(kernel, grid, 1, seed); });
  });
  module.def("cql_head_backward", [](const py::dict& call, uint64_t seed) {
    cql_head_backward_on(cql_head_backward_call(call),
                         [&](const auto& kernel, Index3 grid) { emulate(kernel, grid, 1, seed); });
  });
});

}  // namespace
}  // namespace ptr_fast
