#include "kernels/augment.h"

#include "bindings/bindings.h"

namespace ptr_fast {
namespace {

template <class T>
const T* dense(const char* name, const py::object& capsule, std::initializer_list<int64_t> shape) {
  const TensorView view = borrow(name, capsule);
  return view.require_cpu().require_shape(shape).require_dense().data<T>();
}

// jitter: none, or (apply, order, brightness, contrast, saturation, hue)
void run(const py::object& frames, const py::object& index, const py::object& offsets, int64_t padding,
         const py::object& jitter, const py::object& out, int num_threads) {
  check_threads(num_threads);
  const TensorView pool = borrow("frames", frames), result = borrow("out", out);
  pool.require_cpu().require_dense();
  const bool yuv420 = pool.ndim() == 3 && pool.size(1) % 3 == 0 && pool.size(2) % 2 == 0;
  check(yuv420 || (pool.ndim() == 4 && pool.size(3) == 3), "frames: expected [N, H, W, 3] or planes [N, 3 H / 2, W], ",
        "got ", pool.shape_text());
  check(result.ndim() == 4, "out: expected [B, H, W, 3], got ", result.shape_text());
  Augment op{};
  op.frames = pool.data<uint8_t>();
  op.yuv420 = yuv420;
  op.num_frames = pool.size(0);
  op.B = result.size(0);
  op.H = yuv420 ? pool.size(1) / 3 * 2 : pool.size(1);
  op.W = pool.size(2);
  result.require_cpu().require_shape({op.B, op.H, op.W, 3}).require_dense();
  op.bfloat16 = result.is<Bfloat16>();
  op.out = op.bfloat16 ? static_cast<void*>(result.data<Bfloat16>()) : result.data<float>();
  check(!index.is_none() || op.num_frames == op.B, "out: expected ", op.num_frames, " images, got ", op.B);
  if (!index.is_none()) op.index = dense<int64_t>("index", index, {op.B});
  if (!offsets.is_none()) op.offsets = dense<int64_t>("offsets", offsets, {op.B, 2});
  op.padding = padding;
  if (!jitter.is_none()) {
    const auto parts = jitter.cast<py::tuple>();
    check(parts.size() == 6, "jitter: expected 6 tensors, got ", parts.size());
    op.apply = dense<bool>("apply", parts[0], {op.B});
    op.order = dense<int64_t>("order", parts[1], {op.B, 4});
    op.brightness = dense<float>("brightness", parts[2], {op.B});
    op.contrast = dense<float>("contrast", parts[3], {op.B});
    op.saturation = dense<float>("saturation", parts[4], {op.B});
    op.hue = dense<float>("hue", parts[5], {op.B});
  }
  const py::gil_scoped_release release;
  augment(op, num_threads);
}

}  // namespace

void bind_augment(py::module_& module) {
  module.def("augment", &run, py::arg("frames"), py::arg("index"), py::arg("offsets"), py::arg("padding"),
             py::arg("jitter"), py::arg("out"), py::arg("num_threads"));
}

}  // namespace ptr_fast
