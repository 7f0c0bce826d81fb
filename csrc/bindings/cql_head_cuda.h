// Calls of cql_head_cuda.h as Python makes them: a dictionary of sizes and of addresses on the device, 0 for none.
// The product (cql_head_cuda.cpp) and the emulator of the tests read the same one.
#pragma once
#include <string>

#include "bindings/bindings.h"
#include "kernels/cql_head_cuda.h"

namespace ptr_fast {

template <class T>
T* cql_head_address(const py::dict& call, const char* name) {
  return reinterpret_cast<T*>(call[name].cast<uintptr_t>());
}

// products: "tf32" or "bf16"; sizes: (E, B, K, A); layers: tuples in the order of CqlHeadCudaLayer.
template <class Call>
Call cql_head_call(const py::dict& call) {
  Call op{};
  const auto products = call["products"].cast<std::string>();
  check(products == "tf32" || products == "bf16", "products: expected tf32 or bf16, got ", products);
  op.products = products == "bf16" ? CqlHeadProducts::kBf16 : CqlHeadProducts::kTf32;
  const auto sizes = call["sizes"].cast<py::tuple>();
  check(sizes.size() == 4, "sizes: expected (E, B, K, A), got ", sizes.size(), " numbers");
  op.E = sizes[0].cast<int64_t>(), op.B = sizes[1].cast<int64_t>();
  op.K = sizes[2].cast<int64_t>(), op.A = sizes[3].cast<int64_t>();
  check(op.E >= 1 && op.E < 65536 && op.B >= 1 && op.K >= 1,
        "sizes: expected 1 to 65535 heads, states and actions, got ", op.E, ", ", op.B, " and ", op.K);
  for (const py::handle& item : call["layers"].cast<py::list>()) {
    const auto layer = item.cast<py::tuple>();
    check(layer.size() == 10, "layers: expected tuples of 10, got ", layer.size());
    const auto address = [&](int i) { return reinterpret_cast<float*>(layer[i].cast<uintptr_t>()); };
    const auto stride = [&](int i) { return layer[i].cast<int64_t>(); };
    op.layers.push_back({int(stride(0)), address(1), stride(2), stride(3), address(4), stride(5), address(6), stride(7),
                         address(8), address(9)});
  }
  check(op.layers.size() >= 2, "layers: expected two or more, got ", op.layers.size());
  op.actions = cql_head_address<const float>(call, "actions");
  op.log_weight = cql_head_address<const float>(call, "log_weight");
  op.packed = cql_head_address<uint32_t>(call, "packed");
  return op;
}

inline CqlHeadCudaForward cql_head_forward_call(const py::dict& call) {
  auto op = cql_head_call<CqlHeadCudaForward>(call);
  op.with_back = call["with_back"].cast<bool>();
  op.q = cql_head_address<float>(call, "q");
  op.lse = cql_head_address<float>(call, "lse");
  return op;
}

inline CqlHeadCudaBackward cql_head_backward_call(const py::dict& call) {
  auto op = cql_head_call<CqlHeadCudaBackward>(call);
  op.first_row = call["first_row"].cast<int64_t>(), op.num_rows = call["num_rows"].cast<int64_t>();
  check(op.first_row >= 0 && op.num_rows >= 1 && op.first_row + op.num_rows <= op.B * op.K,
        "num_rows: expected rows of the call's ", op.B * op.K, ", got ", op.num_rows, " from ", op.first_row);
  op.q = cql_head_address<const float>(call, "q"), op.lse = cql_head_address<const float>(call, "lse");
  op.dq = cql_head_address<const float>(call, "dq"), op.dlse = cql_head_address<const float>(call, "dlse");
  op.g = cql_head_address<float>(call, "g"), op.dactions = cql_head_address<float>(call, "dactions");
  return op;
}

}  // namespace ptr_fast
