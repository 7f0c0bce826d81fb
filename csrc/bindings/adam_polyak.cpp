#include "kernels/adam_polyak.h"

#include "bindings/bindings.h"

namespace ptr_fast {
namespace {

// Rows of `tables`: addresses of parameters, exp_avgs, exp_avg_sqs, averages, then numbers of elements.
void run(const py::object& tables, const py::object& gradients, const py::object& steps, double lr, double beta1,
         double beta2, double eps, double tau, int num_threads, double weight_decay, double max_grad_norm) {
  check_threads(num_threads);
  const TensorView view = borrow("tables", tables);
  check(view.ndim() == 2, "tables: expected shape [5, N], got ", view.shape_text());
  const int64_t n = view.size(1);
  view.require_cpu().require_shape({5, n}).require_dense();
  const int64_t* const rows = view.data<int64_t>();
  const TensorView gradient_view = borrow("gradients", gradients), step_view = borrow("steps", steps);
  gradient_view.require_cpu().require_shape({n}).require_dense();
  step_view.require_cpu().require_shape({n}).require_dense();
  AdamPolyak op{};
  op.num_tensors = n;
  op.parameters = rows;
  op.exp_avgs = rows + n;
  op.exp_avg_sqs = rows + 2 * n;
  op.averages = rows + 3 * n;
  op.sizes = rows + 4 * n;
  op.gradients = gradient_view.data<int64_t>();
  op.steps = step_view.data<float>();
  op.lr = lr;
  op.beta1 = beta1;
  op.beta2 = beta2;
  op.eps = eps;
  op.tau = tau;
  op.weight_decay = weight_decay;
  op.max_grad_norm = max_grad_norm;
  const py::gil_scoped_release release;
  adam_polyak(op, num_threads);
}

}  // namespace

void bind_adam_polyak(py::module_& module) {
  module.def("adam_polyak", &run, py::arg("tables"), py::arg("gradients"), py::arg("steps"), py::arg("lr"),
             py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("tau"), py::arg("num_threads"),
             py::arg("weight_decay") = 0.0, py::arg("max_grad_norm") = 0.0);
}

}  // namespace ptr_fast
