// NumPy arrays and byte buffers as arguments, borrowed and never converted.
#pragma once
#include <pybind11/numpy.h>

#include <string>

#include "bindings/bindings.h"

namespace ptr_fast {

template <class T>
using Dense = py::array_t<T, py::array::c_style>;

// The array itself, never a converted copy.
template <class T>
Dense<T> exactly(const char* name, const py::handle& object) {
  if (!py::isinstance<Dense<T>>(object)) {
    const std::string wanted = py::str(py::dtype::of<T>());
    std::string got = py::str(py::type::handle_of(object).attr("__name__"));
    if (py::hasattr(object, "dtype")) got = py::str(object.attr("dtype"));
    check(false, name, ": expected a contiguous array of ", wanted, ", got ", got);
  }
  return py::reinterpret_borrow<Dense<T>>(object);
}

}  // namespace ptr_fast
