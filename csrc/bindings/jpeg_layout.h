// The layout of a pool of JPEG frames as Python has it: a tuple of the fields of JpegLayout.
#pragma once
#include "bindings/bindings.h"
#include "kernels/jpeg_frames.h"

namespace ptr_fast {

inline JpegLayout layout_of(const py::tuple& values) {
  check(values.size() == 6, "layout: expected 6 numbers, got ", values.size());
  JpegLayout layout{};
  int* const fields[] = {&layout.height,     &layout.width,    &layout.num_components,
                         &layout.horizontal, &layout.vertical, &layout.mcus_per_segment};
  for (int i = 0; i < 6; ++i) *fields[i] = py::cast<int>(values[i]);
  const auto is_side = [](int side) { return side >= 1 && side <= kJpegMaxSide; };
  const auto is_factor = [](int factor) { return factor == 1 || factor == 2; };
  check(is_side(layout.height) && is_side(layout.width) && (layout.num_components == 1 || layout.num_components == 3) &&
            is_factor(layout.horizontal) && is_factor(layout.vertical) && layout.mcus_per_segment >= 1,
        "layout: not one of a JPEG file that is read");
  return layout;
}

}  // namespace ptr_fast
