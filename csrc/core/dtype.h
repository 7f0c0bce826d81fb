// Names of element types, and the DLPack code of each C++ type that a kernel may ask for.
#pragma once
#include <cstdint>
#include <string>

#include "core/check.h"
#include "core/dlpack.h"

namespace ptr_fast {

inline std::string dtype_name(const DLDataType& type) {
  static const char* const kinds[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  const std::string kind = type.code < 7 ? kinds[type.code] : text("code", int(type.code), "_");
  return type.code == kDLBool ? kind : kind + std::to_string(int(type.bits));
}

// Upper half of a float: only its bits, for kernels that do the rounding themselves.
struct Bfloat16 {
  uint16_t bits;
};

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DLDataType value{kDLFloat, 32, 1};
};
template <>
struct DTypeOf<double> {
  static constexpr DLDataType value{kDLFloat, 64, 1};
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DLDataType value{kDLUInt, 8, 1};
};
template <>
struct DTypeOf<bool> {
  static constexpr DLDataType value{kDLBool, 8, 1};
};
template <>
struct DTypeOf<Bfloat16> {
  static constexpr DLDataType value{kDLBfloat, 16, 1};
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DLDataType value{kDLInt, 64, 1};
};

inline bool operator==(const DLDataType& a, const DLDataType& b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

}  // namespace ptr_fast
