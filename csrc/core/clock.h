// The one clock of the runtime: CLOCK_MONOTONIC, Python's time.monotonic_ns().
#pragma once
#include <time.h>

#include <cstdint>

namespace ptr_fast {

inline int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace ptr_fast
