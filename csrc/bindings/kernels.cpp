#include "bindings/bindings.h"
#include "kernels/group_norm_act.h"

namespace ptr_fast {
namespace {

GroupNormShape shape_of(const TensorView& x, int64_t num_groups) {
  x.require_cpu().require_channels_last();
  const int64_t C = x.size(1);
  check(num_groups >= 1 && C % num_groups == 0, "num_groups: expected a divisor of the ", C, " channels, got ",
        num_groups);
  return {x.size(0), x.size(2) * x.size(3), C, num_groups};
}

// A tensor of x's shape and layout.
template <class T = float>
T* image_like(const TensorView& x, const char* name, const py::object& capsule) {
  const TensorView view = borrow(name, capsule);
  view.require_cpu().require_shape({x.size(0), x.size(1), x.size(2), x.size(3)}).require_channels_last();
  return view.data<T>();
}

float* dense(const char* name, const py::object& capsule, std::initializer_list<int64_t> shape) {
  const TensorView view = borrow(name, capsule);
  view.require_cpu().require_shape(shape).require_dense();
  return view.data<float>();
}

void forward(const py::object& x, const py::object& weight, const py::object& bias, const py::object& residual,
             const py::object& y, const py::object& mean, const py::object& rstd, int64_t num_groups, double eps,
             bool relu, int num_threads) {
  check_threads(num_threads);
  const TensorView view = borrow("x", x);
  const GroupNormShape shape = shape_of(view, num_groups);
  GroupNormActForward op{};
  op.shape = shape;
  op.x = view.data<float>();
  op.weight = dense("weight", weight, {shape.C});
  op.bias = dense("bias", bias, {shape.C});
  op.residual = residual.is_none() ? nullptr : image_like(view, "residual", residual);
  op.y = image_like(view, "y", y);
  op.mean = dense("mean", mean, {shape.B, shape.G});
  op.rstd = dense("rstd", rstd, {shape.B, shape.G});
  op.eps = eps;
  op.relu = relu;
  const py::gil_scoped_release release;
  group_norm_act_forward(op, num_threads);
}

void backward(const py::object& dy, const py::object& x, const py::object& y, const py::object& weight,
              const py::object& bias, const py::object& mean, const py::object& rstd, const py::object& dx,
              const py::object& dweight, const py::object& dbias, const py::object& dresidual, int64_t num_groups,
              bool relu, int num_threads) {
  check_threads(num_threads);
  const TensorView view = borrow("x", x);
  const GroupNormShape shape = shape_of(view, num_groups);
  GroupNormActBackward op{};
  op.shape = shape;
  op.x = view.data<float>();
  op.dy = image_like(view, "dy", dy);
  op.y = y.is_none() ? nullptr : image_like(view, "y", y);
  op.weight = dense("weight", weight, {shape.C});
  op.bias = dense("bias", bias, {shape.C});
  op.mean = dense("mean", mean, {shape.B, shape.G});
  op.rstd = dense("rstd", rstd, {shape.B, shape.G});
  op.dx = image_like(view, "dx", dx);
  op.dweight = dense("dweight", dweight, {shape.C});
  op.dbias = dense("dbias", dbias, {shape.C});
  op.dresidual = dresidual.is_none() ? nullptr : image_like(view, "dresidual", dresidual);
  op.relu = relu;
  const py::gil_scoped_release release;
  group_norm_act_backward(op, num_threads);
}

}  // namespace

void bind_kernels(py::module_& module) {
  module.def("group_norm_act_forward", &forward, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("residual"),
             py::arg("y"), py::arg("mean"), py::arg("rstd"), py::arg("num_groups"), py::arg("eps"), py::arg("relu"),
             py::arg("num_threads"));
  module.def("group_norm_act_backward", &backward, py::arg("dy"), py::arg("x"), py::arg("y"), py::arg("weight"),
             py::arg("bias"), py::arg("mean"), py::arg("rstd"), py::arg("dx"), py::arg("dweight"), py::arg("dbias"),
             py::arg("dresidual"), py::arg("num_groups"), py::arg("relu"), py::arg("num_threads"));
}

}  // namespace ptr_fast
