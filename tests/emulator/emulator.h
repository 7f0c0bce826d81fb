// What the files of the emulator share. Each op has a file <op>.cpp here that includes its kernels and says
//
//   static const ptr_fast::Emulated scale([](py::module_& module) { module.def("scale", ...); });
//
// The function takes NumPy arrays as global<T>(array), bfloat16 as arrays of uint16, and calls emulate(kernel, grid,
// cluster, seed).
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "core/block.h"

namespace ptr_fast {

namespace py = pybind11;

class Emulated {
 public:
  explicit Emulated(void (*bind)(py::module_&)) { all().push_back(bind); }
  static std::vector<void (*)(py::module_&)>& all() {
    static std::vector<void (*)(py::module_&)> binders;
    return binders;
  }
};

// A dense array as a kernel's buffer. std::invalid_argument for another type, or one that a kernel may not write.
template <class T>
Global<T> global(const py::array& array) {
  using Value = std::remove_const_t<T>;
  check(array.itemsize() == sizeof(Value), "emulator: expected elements of ", sizeof(Value), " bytes, got ",
        array.itemsize());
  check(array.flags() & py::array::c_style, "emulator: expected a dense array");
  check(std::is_const_v<T> || array.writeable(), "emulator: expected an array that may be written");
  return {static_cast<T*>(const_cast<void*>(array.data())), array.size()};
}

}  // namespace ptr_fast
