#include "kernels/cql_head.h"

#include <memory>
#include <vector>

#include "bindings/bindings.h"

namespace ptr_fast {
namespace {

const float* dense(const char* name, const py::handle& capsule, std::initializer_list<int64_t> shape) {
  const TensorView view = borrow(name, py::reinterpret_borrow<py::object>(capsule));
  view.require_cpu().require_shape(shape).require_dense();
  return view.data<float>();
}

float* dense_or_null(const char* name, const py::handle& capsule, std::initializer_list<int64_t> shape) {
  return capsule.is_none() ? nullptr : const_cast<float*>(dense(name, capsule, shape));
}

// One matrix per head; rows are dense, heads may lie any number of elements apart.
const float* matrices(const char* name, const py::handle& capsule, int64_t E, int64_t rows, int64_t cols,
                      int64_t& head_stride) {
  head_stride = 0;
  if (capsule.is_none()) return nullptr;
  const TensorView view = borrow(name, py::reinterpret_borrow<py::object>(capsule));
  view.require_cpu().require_shape({E, rows, cols}).require_stride(2, 1, "dense rows");
  view.require_stride(1, cols, "dense rows");
  head_stride = view.stride(0);
  return view.data<float>();
}

struct Sizes {
  int64_t E, B, K, A;
};

Sizes sizes_of(const py::handle& actions, const py::tuple& terms) {
  const TensorView view = borrow("actions", py::reinterpret_borrow<py::object>(actions));
  check(view.ndim() == 3, "actions: expected 3 axes [B, K, A], got shape ", view.shape_text());
  check(terms.size() >= 2, "state_terms: expected two or more, got ", terms.size());
  const TensorView first = borrow("state_terms", py::reinterpret_borrow<py::object>(terms[0]));
  check(first.ndim() == 3, "state_terms: expected 3 axes [E, B, H], got shape ", first.shape_text());
  const Sizes sizes{first.size(0), view.size(0), view.size(1), view.size(2)};
  check(sizes.E > 0 && sizes.B > 0 && sizes.K > 0 && sizes.A > 0, "actions: expected no empty axis, got shape ",
        view.shape_text());
  return sizes;
}

std::vector<CqlHeadLayer> layers_of(const Sizes& sizes, const py::tuple& terms, const py::tuple& action_weights,
                                    const py::tuple& hidden_weights) {
  const auto [E, B, K, A] = sizes;
  check(action_weights.size() == terms.size() && hidden_weights.size() + 1 == terms.size(),
        "cql_head: expected as many action_weights as state_terms and one hidden weight less");
  std::vector<CqlHeadLayer> layers;
  for (size_t i = 0; i < terms.size(); ++i) {
    CqlHeadLayer layer{};
    const TensorView term = borrow("state_terms", py::reinterpret_borrow<py::object>(terms[i]));
    check(term.ndim() == 3, "state_terms: expected 3 axes [E, B, H], got shape ", term.shape_text());
    layer.width = term.size(2);
    layer.shared_term = term.size(1) == 1;
    layer.term = dense("state_terms", terms[i], {E, layer.shared_term ? 1 : B, layer.width});
    layer.action = matrices("action_weights", action_weights[i], E, A, layer.width, layer.action_stride);
    if (i > 0) {
      layer.hidden =
          matrices("hidden_weights", hidden_weights[i - 1], E, layers[i - 1].width, layer.width, layer.hidden_stride);
      check(layer.hidden != nullptr, "hidden_weights: expected tensors, got None");
    }
    layers.push_back(layer);
  }
  check(layers.back().width == 1, "state_terms: expected one output of the last layer, got ", layers.back().width);
  return layers;
}

// Note "Kept or recomputed" of ptr_fast/kernels/cql_head: hidden layers of more bytes than this are not kept.
constexpr int64_t kMostKeptBytes = int64_t{32} << 20;

// The hidden layers of all rows, from the forward pass to the backward pass.
struct Kept {
  explicit Kept(int64_t size) : size(size), hidden(new float[size]) {}
  int64_t size;
  std::unique_ptr<float[]> hidden;
};

std::unique_ptr<Kept> forward(const py::tuple& terms, const py::tuple& action_weights, const py::tuple& hidden_weights,
                              const py::object& actions, const py::object& log_weight, const py::object& q,
                              const py::object& lse, bool keep, int num_threads) {
  check_threads(num_threads);
  const Sizes s = sizes_of(actions, terms);
  CqlHeadForward op{s.E,     s.B,     s.K,     s.A,     layers_of(s, terms, action_weights, hidden_weights),
                    nullptr, nullptr, nullptr, nullptr, nullptr};
  op.actions = dense("actions", actions, {s.B, s.K, s.A});
  op.log_weight = dense_or_null("log_weight", log_weight, {s.B, s.K});
  op.q = const_cast<float*>(dense("q", q, {s.E, s.B, s.K}));
  op.lse = dense_or_null("lse", lse, {s.E, s.B});
  check(!op.lse || op.log_weight, "lse: expected a log_weight with it");
  const py::gil_scoped_release release;
  const int64_t size = keep ? cql_head_hidden_size(s.E, s.B * s.K, op.layers) : 0;
  std::unique_ptr<Kept> kept;
  if (size > 0 && size * int64_t{sizeof(float)} <= kMostKeptBytes) kept = std::make_unique<Kept>(size);
  op.hidden = kept ? kept->hidden.get() : nullptr;
  cql_head_forward(op, num_threads);
  return kept;
}

void backward(const py::tuple& terms, const py::tuple& action_weights, const py::tuple& hidden_weights,
              const py::object& actions, const py::object& log_weight, const py::object& q, const py::object& lse,
              const Kept* kept, const py::object& dq, const py::object& dlse, const py::tuple& dterms,
              const py::tuple& daction_weights, const py::tuple& dhidden_weights, const py::object& dactions,
              int num_threads) {
  check_threads(num_threads);
  const Sizes s = sizes_of(actions, terms);
  CqlHeadBackward op{s.E,     s.B,     s.K,     s.A,     layers_of(s, terms, action_weights, hidden_weights),
                     nullptr, nullptr, nullptr, nullptr, nullptr,
                     nullptr, nullptr, nullptr};
  check(!kept || kept->size == cql_head_hidden_size(s.E, s.B * s.K, op.layers),
        "kept: expected what the forward pass kept with this instruction set and these shapes");
  op.hidden = kept ? kept->hidden.get() : nullptr;
  check(dterms.size() == terms.size() && daction_weights.size() == terms.size() &&
            dhidden_weights.size() == hidden_weights.size(),
        "cql_head: expected a gradient or None per tensor");
  for (size_t i = 0; i < op.layers.size(); ++i) {
    CqlHeadLayer& layer = op.layers[i];
    layer.dterm = dense_or_null("dstate_terms", dterms[i], {s.E, layer.shared_term ? 1 : s.B, layer.width});
    layer.daction = dense_or_null("daction_weights", daction_weights[i], {s.E, s.A, layer.width});
    check(!layer.daction || layer.action, "daction_weights: expected None where the layer sees no action");
    if (i > 0) {
      const int64_t before = op.layers[i - 1].width;
      layer.dhidden = dense_or_null("dhidden_weights", dhidden_weights[i - 1], {s.E, before, layer.width});
    }
  }
  op.actions = dense("actions", actions, {s.B, s.K, s.A});
  op.dq = dense_or_null("dq", dq, {s.E, s.B, s.K});
  op.dlse = dense_or_null("dlse", dlse, {s.E, s.B});
  if (op.dlse) {
    op.log_weight = dense("log_weight", log_weight, {s.B, s.K});
    op.q = dense("q", q, {s.E, s.B, s.K});
    op.lse = dense("lse", lse, {s.E, s.B});
  }
  op.dactions = dense_or_null("dactions", dactions, {s.B, s.K, s.A});
  const py::gil_scoped_release release;
  cql_head_backward(op, num_threads);
}

}  // namespace

void bind_cql_head(py::module_& module) {
  py::class_<Kept>(module, "CqlHeadKept", "Hidden layers that the forward pass of cql_head keeps.");
  module.def("cql_head_forward", &forward, py::arg("state_terms"), py::arg("action_weights"), py::arg("hidden_weights"),
             py::arg("actions"), py::arg("log_weight"), py::arg("q"), py::arg("lse"), py::arg("keep"),
             py::arg("num_threads"));
  module.def("cql_head_backward", &backward, py::arg("state_terms"), py::arg("action_weights"),
             py::arg("hidden_weights"), py::arg("actions"), py::arg("log_weight"), py::arg("q"), py::arg("lse"),
             py::arg("kept"), py::arg("dq"), py::arg("dlse"), py::arg("dstate_terms"), py::arg("daction_weights"),
             py::arg("dhidden_weights"), py::arg("dactions"), py::arg("num_threads"));
}

}  // namespace ptr_fast
