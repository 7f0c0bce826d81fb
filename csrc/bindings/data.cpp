#include "bindings/bindings.h"

namespace ptr_fast {

void bind_data(py::module_&) {}

}  // namespace ptr_fast
