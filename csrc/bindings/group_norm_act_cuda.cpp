#include "bindings/group_norm_act_cuda.h"

#include "bindings/bindings.h"
#include "core/cuda_built.h"

namespace ptr_fast {
namespace {

struct OnDevice {
  template <class Op>
  void operator()(const Op& op, int64_t stream) const {
    check_cuda_built();
    if constexpr (kCudaBuilt) group_norm_act_cuda(op, stream);
  }
};

}  // namespace

void bind_group_norm_act_cuda(py::module_& module) { def_group_norm_act_cuda<OnDevice>(module); }

}  // namespace ptr_fast
