// The Python signatures of group_norm_act_cuda.h, for the product and for the emulator of the tests.
//
// Tensors come as addresses, 0 for none; their shapes are the caller's word (ptr_fast/kernels/group_norm_act/cuda.py).
#pragma once
#include <pybind11/pybind11.h>

#include "kernels/group_norm_act_cuda.h"

namespace ptr_fast {

// ``Run``: a type whose object is called as run(op, stream).
template <class Run>
void def_group_norm_act_cuda(pybind11::module_& module) {
  namespace py = pybind11;
  using Address = uintptr_t;
  constexpr auto images = [](Address address) { return reinterpret_cast<void*>(address); };
  constexpr auto floats = [](Address address) { return reinterpret_cast<float*>(address); };
  constexpr auto bytes = [](Address address) { return reinterpret_cast<uint8_t*>(address); };
  constexpr auto words = [](Address address) { return reinterpret_cast<uint32_t*>(address); };

  py::class_<GroupNormCudaShape>(module, "GroupNormCudaShape", py::module_local())  // both modules have it
      .def(py::init([](bool bfloat16, int64_t images, int64_t height, int64_t width, int64_t channels, int64_t groups,
                       int64_t block_channels, int64_t block_pixels, int64_t cluster) {
        return GroupNormCudaShape{bfloat16, images,         height,       width,  channels,
                                  groups,   block_channels, block_pixels, cluster};
      }));
  module.def("group_norm_act_cuda_forward",
             [=](const GroupNormCudaShape& shape, Address x, Address residual, Address weight, Address bias,
                 Address residual_weight, Address residual_bias, Address y, Address moments, Address positive,
                 float eps, bool relu, int64_t stream) {
               Run{}(GroupNormActCudaForward{shape, images(x), images(residual), floats(weight), floats(bias),
                                             floats(residual_weight), floats(residual_bias), images(y), floats(moments),
                                             bytes(positive), eps, relu},
                     stream);
             });
  module.def("group_norm_act_cuda_backward",
             [=](const GroupNormCudaShape& shape, bool added, Address dy, Address x, Address residual, Address weight,
                 Address bias, Address residual_weight, Address moments, Address positive, Address dx,
                 Address dresidual, Address partial, bool relu, int64_t stream) {
               Run{}(GroupNormActCudaBackward{shape, added, images(dy), images(x), images(residual), floats(weight),
                                              floats(bias), floats(residual_weight), floats(moments), bytes(positive),
                                              images(dx), images(dresidual), floats(partial), relu},
                     stream);
             });
  module.def("group_norm_act_pool_cuda_forward",
             [=](const GroupNormCudaShape& shape, Address x, Address weight, Address bias, Address y, Address taps,
                 Address moments, float eps, int64_t stream) {
               Run{}(GroupNormActPoolCudaForward{shape, images(x), floats(weight), floats(bias), images(y), words(taps),
                                                 floats(moments), eps},
                     stream);
             });
  module.def("group_norm_act_pool_cuda_backward",
             [=](const GroupNormCudaShape& shape, Address dy, Address x, Address taps, Address weight, Address moments,
                 Address dx, Address partial, int64_t stream) {
               Run{}(GroupNormActPoolCudaBackward{shape, images(dy), images(x), words(taps), floats(weight),
                                                  floats(moments), images(dx), floats(partial)},
                     stream);
             });
}

}  // namespace ptr_fast
