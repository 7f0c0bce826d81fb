#include "kernels/group_norm_act.h"

#include "bindings/bindings.h"
#include "kernels/group_norm_act_pool.h"

namespace ptr_fast {
namespace {

GroupNormShape shape_of(const TensorView& x, int64_t num_groups) {
  x.require_cpu().require_channels_last();
  const int64_t C = x.size(1);
  check(num_groups >= 1 && C % num_groups == 0, "num_groups: expected a divisor of the ", C, " channels, got ",
        num_groups);
  return {x.size(0), x.size(2) * x.size(3), C, num_groups};
}

// A channels_last tensor of this shape; null for None.
template <class T = float>
T* image(const char* name, const py::object& capsule, int64_t B, int64_t C, int64_t H, int64_t W) {
  if (capsule.is_none()) return nullptr;
  const TensorView view = borrow(name, capsule);
  view.require_cpu().require_shape({B, C, H, W}).require_channels_last();
  return view.data<T>();
}

float* image_like(const TensorView& x, const char* name, const py::object& capsule) {
  return image(name, capsule, x.size(0), x.size(1), x.size(2), x.size(3));
}

// A contiguous tensor of this shape; null for None.
template <class T = float>
T* dense(const char* name, const py::object& capsule, std::initializer_list<int64_t> shape) {
  if (capsule.is_none()) return nullptr;
  const TensorView view = borrow(name, capsule);
  view.require_cpu().require_shape(shape).require_dense();
  return view.data<T>();
}

// The tensors that the contract does not let be None.
template <class T>
T* needed(const char* name, T* pointer) {
  check(pointer != nullptr, name, ": expected a tensor, got None");
  return pointer;
}

uint8_t* bits(const py::object& capsule, const GroupNormShape& shape) {
  if (capsule.is_none()) return nullptr;
  check(shape.C % 16 == 0, "positive: expected a multiple of 16 channels, got ", shape.C);
  return dense<uint8_t>("positive", capsule, {shape.B * shape.P * shape.C / 8});
}

GroupNorm norm_of(const GroupNormShape& shape, const float* x, const py::object& weight, const py::object& bias,
                  float* statistics) {
  GroupNorm norm{};
  norm.x = x;
  norm.weight = needed("weight", dense("weight", weight, {shape.C}));
  norm.bias = needed("bias", dense("bias", bias, {shape.C}));
  norm.mean = statistics;
  norm.rstd = statistics + shape.B * shape.G;
  return norm;
}

// mean and rstd, [2, B, G]; with the shortcut's [4, B, G].
float* statistics_of(const GroupNormShape& shape, const py::object& statistics, bool two) {
  return needed("statistics", dense("statistics", statistics, {two ? 4 : 2, shape.B, shape.G}));
}

void forward(const py::object& x, const py::object& weight, const py::object& bias, const py::object& residual,
             const py::object& residual_weight, const py::object& residual_bias, const py::object& y,
             const py::object& positive, const py::object& statistics, int64_t num_groups, double eps, bool relu,
             int num_threads) {
  check_threads(num_threads);
  const TensorView view = borrow("x", x);
  const GroupNormShape shape = shape_of(view, num_groups);
  const bool two = !residual_weight.is_none();
  float* const kept = statistics_of(shape, statistics, two);
  GroupNormActForward op{};
  op.shape = shape;
  op.norm = norm_of(shape, view.data<float>(), weight, bias, kept);
  op.residual = image_like(view, "residual", residual);
  if (two) {
    op.shortcut =
        norm_of(shape, needed("residual", op.residual), residual_weight, residual_bias, kept + 2 * shape.B * shape.G);
  }
  op.y = needed("y", image_like(view, "y", y));
  op.positive = bits(positive, shape);
  op.eps = eps;
  op.relu = relu;
  const py::gil_scoped_release release;
  group_norm_act_forward(op, num_threads);
}

void backward(const py::object& dy, const py::object& x, const py::object& residual, const py::object& y,
              const py::object& positive, const py::object& weight, const py::object& bias,
              const py::object& residual_weight, const py::object& statistics, const py::object& dx,
              const py::object& dresidual, const py::object& dweight, const py::object& dbias,
              const py::object& dresidual_weight, const py::object& dresidual_bias, int64_t num_groups, bool relu,
              int num_threads) {
  check_threads(num_threads);
  const TensorView view = borrow("x", x);
  const GroupNormShape shape = shape_of(view, num_groups);
  const bool two = !residual_weight.is_none();
  float* const kept = statistics_of(shape, statistics, two);
  GroupNormActBackward op{};
  op.shape = shape;
  op.dy = needed("dy", image_like(view, "dy", dy));
  op.y = image_like(view, "y", y);
  op.positive = bits(positive, shape);
  op.norm = norm_of(shape, view.data<float>(), weight, bias, kept);
  op.norm.dx = needed("dx", image_like(view, "dx", dx));
  op.norm.dweight = needed("dweight", dense("dweight", dweight, {shape.C}));
  op.norm.dbias = needed("dbias", dense("dbias", dbias, {shape.C}));
  op.dresidual = image_like(view, "dresidual", dresidual);
  if (two) {
    const float* const from = needed("residual", image_like(view, "residual", residual));
    op.shortcut = norm_of(shape, from, residual_weight, bias, kept + 2 * shape.B * shape.G);
    op.shortcut.dx = needed("dresidual", op.dresidual);
    op.shortcut.dweight = needed("dresidual_weight", dense("dresidual_weight", dresidual_weight, {shape.C}));
    op.shortcut.dbias = needed("dresidual_bias", dense("dresidual_bias", dresidual_bias, {shape.C}));
    op.dresidual = nullptr;
  }
  op.relu = relu;
  const py::gil_scoped_release release;
  group_norm_act_backward(op, num_threads);
}

GroupNormActPool pool_of(const TensorView& x, const py::object& weight, const py::object& bias,
                         const py::object& picked, const py::object& index, const py::object& statistics,
                         int64_t num_groups) {
  GroupNormActPool op{};
  op.shape = shape_of(x, num_groups);
  op.size = {x.size(2), x.size(3), x.size(1)};
  op.norm = norm_of(op.shape, x.data<float>(), weight, bias, statistics_of(op.shape, statistics, false));
  op.picked = image("picked", picked, op.shape.B, op.shape.C, op.size.out_height(), op.size.out_width());
  op.index = image<uint8_t>("index", index, op.shape.B, op.shape.C, op.size.out_height(), op.size.out_width());
  check((op.picked == nullptr) == (op.index == nullptr), "picked and index: expected both or neither");
  return op;
}

void pool_forward(const py::object& x, const py::object& weight, const py::object& bias, const py::object& y,
                  const py::object& picked, const py::object& index, const py::object& statistics, int64_t num_groups,
                  double eps, int num_threads) {
  check_threads(num_threads);
  GroupNormActPool op = pool_of(borrow("x", x), weight, bias, picked, index, statistics, num_groups);
  op.y = needed("y", image("y", y, op.shape.B, op.shape.C, op.size.out_height(), op.size.out_width()));
  op.eps = eps;
  const py::gil_scoped_release release;
  group_norm_act_pool_forward(op, num_threads);
}

void pool_backward(const py::object& dy, const py::object& x, const py::object& picked, const py::object& index,
                   const py::object& weight, const py::object& bias, const py::object& statistics, const py::object& dx,
                   const py::object& dweight, const py::object& dbias, int64_t num_groups, int num_threads) {
  check_threads(num_threads);
  const TensorView view = borrow("x", x);
  GroupNormActPool op = pool_of(view, weight, bias, picked, index, statistics, num_groups);
  needed("picked", op.picked);
  op.dy = needed("dy", image("dy", dy, op.shape.B, op.shape.C, op.size.out_height(), op.size.out_width()));
  op.norm.dx = needed("dx", image_like(view, "dx", dx));
  op.norm.dweight = needed("dweight", dense("dweight", dweight, {op.shape.C}));
  op.norm.dbias = needed("dbias", dense("dbias", dbias, {op.shape.C}));
  const py::gil_scoped_release release;
  group_norm_act_pool_backward(op, num_threads);
}

}  // namespace

void bind_group_norm_act(py::module_& module) {
  using py::arg;
  module.def("group_norm_act_forward", &forward, arg("x"), arg("weight"), arg("bias"), arg("residual"),
             arg("residual_weight"), arg("residual_bias"), arg("y"), arg("positive"), arg("statistics"),
             arg("num_groups"), arg("eps"), arg("relu"), arg("num_threads"));
  module.def("group_norm_act_backward", &backward, arg("dy"), arg("x"), arg("residual"), arg("y"), arg("positive"),
             arg("weight"), arg("bias"), arg("residual_weight"), arg("statistics"), arg("dx"), arg("dresidual"),
             arg("dweight"), arg("dbias"), arg("dresidual_weight"), arg("dresidual_bias"), arg("num_groups"),
             arg("relu"), arg("num_threads"));
  module.def("group_norm_act_pool_forward", &pool_forward, arg("x"), arg("weight"), arg("bias"), arg("y"),
             arg("picked"), arg("index"), arg("statistics"), arg("num_groups"), arg("eps"), arg("num_threads"));
  module.def("group_norm_act_pool_backward", &pool_backward, arg("dy"), arg("x"), arg("picked"), arg("index"),
             arg("weight"), arg("bias"), arg("statistics"), arg("dx"), arg("dweight"), arg("dbias"), arg("num_groups"),
             arg("num_threads"));
}

}  // namespace ptr_fast
