#include "bindings/jpeg_layout.h"
#include "emulator.h"
#include "kernels/jpeg_frames_block.h"

namespace ptr_fast {
namespace {

template <class Kernel>
void decode(const py::tuple& layout, const py::array& words, const py::array& segment_begin, const py::array& tables_of,
            const py::array& tables, const py::array& index, const py::array& planes, const py::array& status,
            uint64_t seed) {
  const Kernel kernel{layout_of(layout),
                      global<const uint32_t>(words),
                      global<const int64_t>(segment_begin),
                      global<const uint8_t>(tables_of),
                      global<const uint32_t>(tables),
                      global<const int64_t>(index),
                      global<uint8_t>(planes),
                      global<uint32_t>(status),
                      int64_t(tables_of.size())};
  emulate(kernel, {int(status.size()), 1, 1}, 1, seed);
}

const Emulated jpeg_frames([](py::module_& module) { module.def("jpeg_frames", &decode<JpegFrames>); });

}  // namespace
}  // namespace ptr_fast
