#include "emulator.h"

PYBIND11_MODULE(_emulator, module) {
  module.doc() = "The CUDA kernels of csrc/ on the host Block; built and imported by tests/emulated_kernels.py.";
  pybind11::register_exception<ptr_fast::BlockError>(module, "BlockError");
  for (const auto bind : ptr_fast::Emulated::all()) bind(module);
}
