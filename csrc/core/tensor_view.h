// A non-owning view of a tensor that Python allocated. Whoever made the DLPack capsule keeps the memory alive.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/check.h"
#include "core/dlpack.h"
#include "core/dtype.h"

namespace ptr_fast {

class TensorView {
 public:
  TensorView(const char* name, const DLTensor& tensor) : name_(name), tensor_(&tensor) {}

  const char* name() const { return name_; }
  int ndim() const { return tensor_->ndim; }
  int64_t size(int axis) const { return tensor_->shape[axis]; }

  int64_t numel() const {
    int64_t total = 1;
    for (int axis = 0; axis < ndim(); ++axis) total *= size(axis);
    return total;
  }

  std::string shape_text() const {
    std::string out = "[";
    for (int axis = 0; axis < ndim(); ++axis) out += (axis ? ", " : "") + std::to_string(size(axis));
    return out + "]";
  }

  const TensorView& require_cpu() const {
    const auto device = tensor_->device.device_type;
    check(device == kDLCPU || device == kDLCUDAHost, name_, ": expected a CPU tensor, got DLPack device type ", device);
    return *this;
  }

  const TensorView& require_shape(std::initializer_list<int64_t> shape) const {
    bool same = ndim() == int(shape.size());
    int axis = 0;
    for (const int64_t expected : shape) same = same && size(axis++) == expected;
    if (!same) {  // texts are made only for an error: this runs for every tensor of every call
      std::string wanted;
      for (const int64_t expected : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(expected);
      check(false, name_, ": expected shape [", wanted, "], got ", shape_text());
    }
    return *this;
  }

  const TensorView& require_dense() const {
    int64_t step = 1;
    for (int axis = ndim() - 1; axis >= 0; step *= size(axis--)) require_stride(axis, step, "a contiguous tensor");
    return *this;
  }

  // Shape [B, C, H, W] with the memory of [B, H, W, C].
  const TensorView& require_channels_last() const {
    if (ndim() != 4) check(false, name_, ": expected 4 axes [B, C, H, W], got shape ", shape_text());
    const int64_t C = size(1), H = size(2), W = size(3);
    const int64_t strides[] = {H * W * C, 1, W * C, C};
    for (int axis = 0; axis < 4; ++axis) require_stride(axis, strides[axis], "channels_last memory");
    return *this;
  }

  int64_t stride(int axis) const {
    if (tensor_->strides) return tensor_->strides[axis];
    int64_t stride = 1;
    for (int after = axis + 1; after < ndim(); ++after) stride *= size(after);
    return stride;
  }

  // The stride of an axis of size 1 says nothing and is not compared; without strides the tensor is row-major.
  const TensorView& require_stride(int axis, int64_t expected, const char* what) const {
    if (size(axis) == 1 || stride(axis) == expected || numel() == 0) return *this;
    check(false, name_, ": expected ", what, ", got stride ", stride(axis), " on axis ", axis, " of shape ",
          shape_text());
    return *this;
  }

  template <class T>
  bool is() const {
    return tensor_->dtype == DTypeOf<T>::value;
  }

  template <class T>
  T* data() const {
    if (!is<T>()) {
      check(false, name_, ": expected ", dtype_name(DTypeOf<T>::value), ", got ", dtype_name(tensor_->dtype));
    }
    return reinterpret_cast<T*>(static_cast<char*>(tensor_->data) + tensor_->byte_offset);
  }

 private:
  const char* name_;
  const DLTensor* tensor_;
};

}  // namespace ptr_fast
