// What the files of the bindings share: tensors come in as DLPack capsules, and stay Python's.
#pragma once
#include <pybind11/pybind11.h>

#include <optional>

#include "core/dlpack.h"
#include "core/tensor_view.h"

namespace ptr_fast {

namespace py = pybind11;

inline TensorView borrow(const char* name, const py::object& capsule) {
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (managed == nullptr) throw py::error_already_set();
  return {name, managed->dl_tensor};
}

inline void check_threads(int num_threads) {
  check(num_threads >= 1 && num_threads <= 1024, "num_threads: expected 1 to 1024, got ", num_threads);
}

void bind_augment(py::module_& module);
void bind_group_norm_act(py::module_& module);
void bind_group_norm_act_cuda(py::module_& module);
void bind_adam_polyak(py::module_& module);
void bind_counter_random(py::module_& module);
void bind_cql_head(py::module_& module);
void bind_cql_head_cuda(py::module_& module);
void bind_resize(py::module_& module);
void bind_spatial_embedding(py::module_& module);
void bind_data(py::module_& module);
void bind_jpeg_frames(py::module_& module);
void bind_jpeg_frames_cuda(py::module_& module);
void bind_runtime(py::module_& module);

}  // namespace ptr_fast
