#include "kernels/group_norm_act_block.h"

#include "emulator.h"
#include "kernels/group_norm_act_pool_block.h"

namespace ptr_fast {
namespace {

// A length of 0 where Python gives an empty array: a tensor that is not wanted.
using Array = const py::array&;

template <class T, Residual kResidual>
void forward(Array x, Array residual, Array weight, Array bias, Array residual_weight, Array residual_bias, Array y,
             Array moments, Array positive, const Slab& slab, int images, int cluster, float eps, bool relu,
             uint64_t seed) {
  const GroupNormActForward<T, kResidual> kernel{
      slab,
      global<const T>(x),
      global<const T>(residual),
      global<const float>(weight),
      global<const float>(bias),
      global<const float>(residual_weight),
      global<const float>(residual_bias),
      global<T>(y),
      global<float>(moments),
      global<uint8_t>(positive),
      eps,
      relu};
  emulate(kernel, {images * (slab.num_channels / slab.width) * cluster, 1, 1}, cluster, seed);
}

template <class T, Residual kResidual>
void backward(Array dy, Array x, Array residual, Array weight, Array bias, Array residual_weight, Array moments,
              Array positive, Array dx, Array dresidual, Array partial, const Slab& slab, int images, int cluster,
              bool relu, uint64_t seed) {
  const GroupNormActBackward<T, kResidual> kernel{slab,
                                                  global<const T>(dy),
                                                  global<const T>(x),
                                                  global<const T>(residual),
                                                  global<const float>(weight),
                                                  global<const float>(bias),
                                                  global<const float>(residual_weight),
                                                  global<const float>(moments),
                                                  global<const uint8_t>(positive),
                                                  global<T>(dx),
                                                  global<T>(dresidual),
                                                  global<float>(partial),
                                                  relu};
  emulate(kernel, {images * (slab.num_channels / slab.width) * cluster, 1, 1}, cluster, seed);
}

template <class T>
void pool_forward(Array x, Array weight, Array bias, Array y, Array taps, Array moments, const Slab& slab,
                  const PoolSize& size, int images, int cluster, float eps, uint64_t seed) {
  const GroupNormActPoolForward<T> kernel{slab,
                                          size,
                                          global<const T>(x),
                                          global<const float>(weight),
                                          global<const float>(bias),
                                          global<T>(y),
                                          global<uint32_t>(taps),
                                          global<float>(moments),
                                          eps};
  emulate(kernel, {images * (slab.num_channels / slab.width) * cluster, 1, 1}, cluster, seed);
}

template <class T>
void pool_backward(Array dy, Array x, Array taps, Array weight, Array moments, Array dx, Array partial,
                   const Slab& slab, const PoolSize& size, int images, int cluster, uint64_t seed) {
  const GroupNormActPoolBackward<T> kernel{slab,
                                           size,
                                           global<const T>(dy),
                                           global<const T>(x),
                                           global<const uint32_t>(taps),
                                           global<const float>(weight),
                                           global<const float>(moments),
                                           global<T>(dx),
                                           global<float>(partial)};
  emulate(kernel, {images * (slab.num_channels / slab.width) * cluster, 1, 1}, cluster, seed);
}

template <class T>
void bind(py::module_& module, const std::string& type) {
  module.def(("group_norm_act_forward_none_" + type).c_str(), &forward<T, Residual::kNone>);
  module.def(("group_norm_act_forward_add_" + type).c_str(), &forward<T, Residual::kAdd>);
  module.def(("group_norm_act_forward_norm_" + type).c_str(), &forward<T, Residual::kNorm>);
  module.def(("group_norm_act_backward_none_" + type).c_str(), &backward<T, Residual::kNone>);
  module.def(("group_norm_act_backward_add_" + type).c_str(), &backward<T, Residual::kAdd>);
  module.def(("group_norm_act_backward_norm_" + type).c_str(), &backward<T, Residual::kNorm>);
  module.def(("group_norm_act_pool_forward_" + type).c_str(), &pool_forward<T>);
  module.def(("group_norm_act_pool_backward_" + type).c_str(), &pool_backward<T>);
}

const Emulated group_norm_act([](py::module_& module) {
  py::class_<Slab>(module, "Slab")
      .def(py::init([](int num_pixels, int num_channels, int group_channels, int width, int pixels) {
        return Slab{num_pixels, num_channels, group_channels, width, pixels};
      }));
  py::class_<PoolSize>(module, "PoolSize").def(py::init([](int height, int width) {
    return PoolSize{height, width};
  }));
  bind<Bfloat16>(module, "bfloat16");
  bind<float>(module, "float32");
});

}  // namespace
}  // namespace ptr_fast
