#include "bindings/cql_head_cuda.h"

#include "core/cuda_built.h"

namespace ptr_fast {
namespace {

int64_t packed_words(const py::dict& call) {
  check_cuda_built();
  if constexpr (kCudaBuilt) return cql_head_packed_words(cql_head_call<CqlHeadCudaCall>(call));
  return 0;
}

void forward(const py::dict& call, int64_t stream) {
  check_cuda_built();
  if constexpr (kCudaBuilt) cql_head_forward_cuda(cql_head_forward_call(call), stream);
}

void backward(const py::dict& call, int64_t stream) {
  check_cuda_built();
  if constexpr (kCudaBuilt) cql_head_backward_cuda(cql_head_backward_call(call), stream);
}

}  // namespace

void bind_cql_head_cuda(py::module_& module) {
  module.def("cql_head_cuda_packed_words", &packed_words, py::arg("call"));
  module.def("cql_head_cuda_forward", &forward, py::arg("call"), py::arg("stream"));
  module.def("cql_head_cuda_backward", &backward, py::arg("call"), py::arg("stream"));
}

}  // namespace ptr_fast
