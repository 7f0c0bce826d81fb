#include "kernels/resize.h"

#include <pybind11/numpy.h>

#include "bindings/bindings.h"

namespace ptr_fast {
namespace {

using Images = py::array_t<uint8_t, py::array::c_style>;

// [N, H, W, 3] to [N, h, w, 3]
Images run(const Resize& resize, const Images& images) {
  check(images.ndim() == 4 && images.shape(1) == resize.height_in && images.shape(2) == resize.width_in &&
            images.shape(3) == 3,
        "images: expected uint8 [N, ", resize.height_in, ", ", resize.width_in, ", 3]");
  Images out({images.shape(0), py::ssize_t(resize.height_out), py::ssize_t(resize.width_out), py::ssize_t(3)});
  uint8_t* const to = out.mutable_data();
  const py::gil_scoped_release release;
  resize.run(images.data(), images.shape(0), to);
  return out;
}

}  // namespace

void bind_resize(py::module_& module) {
  py::class_<Resize>(module, "Resize")
      .def(py::init<int64_t, int64_t, int64_t, int64_t>(), py::arg("height_in"), py::arg("width_in"),
           py::arg("height_out"), py::arg("width_out"))
      .def("run", &run, py::arg("images"));
}

}  // namespace ptr_fast
