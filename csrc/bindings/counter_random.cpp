#include "kernels/counter_random.h"

#include "bindings/bindings.h"
#include "core/isa.h"

namespace ptr_fast {
namespace {

void counter_random(int kind, uint64_t seed, uint32_t stream, uint32_t step, const py::object& samples, int64_t first,
                    int64_t stride, const py::object& out) {
  check(kind >= 0 && kind <= 2, "kind: expected 0 to 2, got ", kind);
  const TensorView view = borrow("out", out);
  view.require_cpu().require_dense();
  check(view.ndim() == 2, "out: expected 2 axes [B, words], got shape ", view.shape_text());
  CounterRandom op{};
  op.kind = RandomKind(kind);
  op.key[0] = uint32_t(seed);
  op.key[1] = uint32_t(seed >> 32);
  op.step = step;
  op.stream = stream;
  op.first = first;
  op.stride = stride;
  op.num_samples = view.size(0);
  op.num_words = view.size(1);
  op.out = op.kind == RandomKind::kBits ? static_cast<void*>(view.data<int64_t>()) : view.data<float>();
  if (!samples.is_none()) {
    const TensorView numbers = borrow("samples", samples);
    op.samples = numbers.require_cpu().require_shape({op.num_samples}).require_dense().data<int64_t>();
  }
  PTR_FAST_SELECT_ISA(counter_random_loops).fill(op);
}

}  // namespace

void bind_counter_random(py::module_& module) {
  module.def("counter_random", &counter_random, py::arg("kind"), py::arg("seed"), py::arg("stream"), py::arg("step"),
             py::arg("samples"), py::arg("first"), py::arg("stride"), py::arg("out"));
}

}  // namespace ptr_fast
