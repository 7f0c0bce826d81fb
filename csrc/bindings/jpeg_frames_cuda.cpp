#include "kernels/jpeg_frames_cuda.h"
#include "bindings/jpeg_layout.h"
#include "core/cuda_built.h"

namespace ptr_fast {
namespace {

template <class T>
T* address(const py::dict& call, const char* name) {
  return reinterpret_cast<T*>(call[name].cast<uintptr_t>());
}

// A dictionary of the layout, sizes, and addresses on the device.
void decode(const py::dict& call, int64_t stream) {
  check_cuda_built();
  const JpegPool pool{
      layout_of(call["layout"].cast<py::tuple>()),   address<const uint32_t>(call, "words"),
      address<const int64_t>(call, "segment_begin"), address<const uint8_t>(call, "tables_of"),
      address<const uint32_t>(call, "tables"),       call["num_frames"].cast<int64_t>(),
  };
  check(pool.num_frames >= 1, "num_frames: expected at least 1, got ", pool.num_frames);
  if constexpr (kCudaBuilt) {
    decode_jpeg_frames_cuda(pool, call["num_words"].cast<int64_t>(), call["num_table_words"].cast<int64_t>(),
                            address<const int64_t>(call, "index"), call["num_images"].cast<int64_t>(),
                            address<uint8_t>(call, "planes"), address<uint32_t>(call, "status"), stream);
  }
}

}  // namespace

void bind_jpeg_frames_cuda(py::module_& module) {
  module.def("jpeg_frames_cuda", &decode, py::arg("call"), py::arg("stream"));
}

}  // namespace ptr_fast
