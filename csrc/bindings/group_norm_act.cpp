#include "kernels/group_norm_act.h"

#include <memory>

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

// What the forward pass leaves for the backward pass beside the caller's tensors: mean and rstd, [2, B, G], with a
// second norm [4, B, G], and the bits of y > 0 where they are wanted. Two tensors less to allocate and to check.
struct Kept {
  Kept(const GroupNormShape& shape, bool two_norms, bool mask)
      : shape(shape),
        two_norms(two_norms),
        statistics(new float[(two_norms ? 4 : 2) * shape.B * shape.G]),
        positive(mask ? new uint8_t[shape.B * shape.P * shape.C / 8] : nullptr) {}

  float* second() const { return statistics.get() + 2 * shape.B * shape.G; }

  GroupNormShape shape;
  bool two_norms;
  std::unique_ptr<float[]> statistics;
  std::unique_ptr<uint8_t[]> positive;
};

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

std::unique_ptr<Kept> forward(const py::object& x, const py::object& weight, const py::object& bias,
                              const py::object& residual, const py::object& residual_weight,
                              const py::object& residual_bias, const py::object& y, bool keep_mask, int64_t num_groups,
                              double eps, bool relu, int num_threads) {
  check_threads(num_threads);
  const TensorView view = borrow("x", x);
  const GroupNormShape shape = shape_of(view, num_groups);
  check(!keep_mask || shape.C % 16 == 0, "keep_mask: expected a multiple of 16 channels, got ", shape.C);
  auto kept = std::make_unique<Kept>(shape, !residual_weight.is_none(), keep_mask);
  GroupNormActForward op{};
  op.shape = shape;
  op.norm = norm_of(shape, view.data<float>(), weight, bias, kept->statistics.get());
  op.residual = image_like(view, "residual", residual);
  if (kept->two_norms) {
    op.shortcut = norm_of(shape, needed("residual", op.residual), residual_weight, residual_bias, kept->second());
  }
  op.y = needed("y", image_like(view, "y", y));
  op.positive = kept->positive.get();
  op.eps = eps;
  op.relu = relu;
  const py::gil_scoped_release release;
  group_norm_act_forward(op, num_threads);
  return kept;
}

void backward(const Kept& kept, const py::object& dy, const py::object& x, const py::object& residual,
              const py::object& y, const py::object& weight, const py::object& bias, const py::object& residual_weight,
              const py::object& dx, const py::object& dresidual, const py::object& dweight, const py::object& dbias,
              const py::object& dresidual_weight, const py::object& dresidual_bias, bool relu, int num_threads) {
  check_threads(num_threads);
  const TensorView view = borrow("x", x);
  const GroupNormShape& shape = kept.shape;
  const GroupNormShape given = shape_of(view, shape.G);
  check(given.B == shape.B && given.P == shape.P && given.C == shape.C, "x: not of the forward pass's shape, got ",
        view.shape_text());
  check(kept.two_norms == !residual_weight.is_none(), "residual_weight: expected one where the forward pass had one");
  GroupNormActBackward op{};
  op.shape = shape;
  op.dy = needed("dy", image_like(view, "dy", dy));
  op.y = image_like(view, "y", y);
  op.positive = kept.positive.get();
  op.norm = norm_of(shape, view.data<float>(), weight, bias, kept.statistics.get());
  op.norm.dx = needed("dx", image_like(view, "dx", dx));
  op.norm.dweight = needed("dweight", dense("dweight", dweight, {shape.C}));
  op.norm.dbias = needed("dbias", dense("dbias", dbias, {shape.C}));
  op.dresidual = image_like(view, "dresidual", dresidual);
  if (kept.two_norms) {
    const float* const from = needed("residual", image_like(view, "residual", residual));
    op.shortcut = norm_of(shape, from, residual_weight, bias, kept.second());
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
  op.norm = norm_of(op.shape, x.data<float>(), weight, bias,
                    needed("statistics", dense("statistics", statistics, {2, op.shape.B, op.shape.G})));
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
  py::class_<Kept>(module, "GroupNormActKept");
  module.def("group_norm_act_forward", &forward, arg("x"), arg("weight"), arg("bias"), arg("residual"),
             arg("residual_weight"), arg("residual_bias"), arg("y"), arg("keep_mask"), arg("num_groups"), arg("eps"),
             arg("relu"), arg("num_threads"));
  module.def("group_norm_act_backward", &backward, arg("kept"), arg("dy"), arg("x"), arg("residual"), arg("y"),
             arg("weight"), arg("bias"), arg("residual_weight"), arg("dx"), arg("dresidual"), arg("dweight"),
             arg("dbias"), arg("dresidual_weight"), arg("dresidual_bias"), arg("relu"), arg("num_threads"));
  module.def("group_norm_act_pool_forward", &pool_forward, arg("x"), arg("weight"), arg("bias"), arg("y"),
             arg("picked"), arg("index"), arg("statistics"), arg("num_groups"), arg("eps"), arg("num_threads"));
  module.def("group_norm_act_pool_backward", &pool_backward, arg("dy"), arg("x"), arg("picked"), arg("index"),
             arg("weight"), arg("bias"), arg("statistics"), arg("dx"), arg("dweight"), arg("dbias"), arg("num_groups"),
             arg("num_threads"));
}

}  // namespace ptr_fast
