#include "kernels/spatial_embedding.h"

#include "bindings/bindings.h"

namespace ptr_fast {
namespace {

SpatialEmbeddingShape shape_of(const TensorView& x, const TensorView& kernel) {
  x.require_cpu().require_channels_last();
  check(kernel.ndim() == 3, "kernel: expected 3 axes [C, P, F], got shape ", kernel.shape_text());
  const SpatialEmbeddingShape shape{x.size(0), x.size(2) * x.size(3), x.size(1), kernel.size(2)};
  kernel.require_cpu().require_shape({shape.C, shape.P, shape.F}).require_dense();
  return shape;
}

float* dense(const char* name, const py::object& capsule, std::initializer_list<int64_t> shape) {
  const TensorView view = borrow(name, capsule);
  view.require_cpu().require_shape(shape).require_dense();
  return view.data<float>();
}

void forward(const py::object& x, const py::object& kernel, const py::object& out, int num_threads) {
  check_threads(num_threads);
  const TensorView x_view = borrow("x", x), kernel_view = borrow("kernel", kernel);
  const SpatialEmbeddingShape shape = shape_of(x_view, kernel_view);
  float* const to = dense("out", out, {shape.B, shape.C * shape.F});
  const float* const from = x_view.data<float>();
  const float* const weights = kernel_view.data<float>();
  const py::gil_scoped_release release;
  spatial_embedding_forward(shape, from, weights, to, num_threads);
}

void backward(const py::object& dout, const py::object& x, const py::object& kernel, const py::object& dx,
              const py::object& dkernel, int num_threads) {
  check_threads(num_threads);
  const TensorView x_view = borrow("x", x), kernel_view = borrow("kernel", kernel);
  const SpatialEmbeddingShape shape = shape_of(x_view, kernel_view);
  const float* const gradient = dense("dout", dout, {shape.B, shape.C * shape.F});
  float* dx_data = nullptr;
  if (!dx.is_none()) {
    const TensorView view = borrow("dx", dx);
    view.require_cpu().require_shape({x_view.size(0), x_view.size(1), x_view.size(2), x_view.size(3)});
    dx_data = view.require_channels_last().data<float>();
  }
  float* const dkernel_data = dkernel.is_none() ? nullptr : dense("dkernel", dkernel, {shape.C, shape.P, shape.F});
  const float* const from = x_view.data<float>();
  const float* const weights = kernel_view.data<float>();
  const py::gil_scoped_release release;
  spatial_embedding_backward(shape, gradient, from, weights, dx_data, dkernel_data, num_threads);
}

}  // namespace

void bind_spatial_embedding(py::module_& module) {
  module.def("spatial_embedding_lanes", &spatial_embedding_lanes);
  module.def("spatial_embedding_forward", &forward, py::arg("x"), py::arg("kernel"), py::arg("out"),
             py::arg("num_threads"));
  module.def("spatial_embedding_backward", &backward, py::arg("dout"), py::arg("x"), py::arg("kernel"), py::arg("dx"),
             py::arg("dkernel"), py::arg("num_threads"));
}

}  // namespace ptr_fast
