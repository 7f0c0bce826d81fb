// Argument checks: one clear std::invalid_argument, which Python sees as ValueError.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace ptr_fast {

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// check(rows > 0, "rows must be positive, got ", rows)
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) throw std::invalid_argument(text(parts...));
}

}  // namespace ptr_fast
