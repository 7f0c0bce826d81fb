#include "core/isa.h"

#include <atomic>
#include <cstdlib>

#include "core/check.h"

namespace ptr_fast {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};

bool available(Isa isa) {
#ifdef PTR_FAST_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::kAvx2) return avx2;
  if (isa == Isa::kAvx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vnni");
  }
#endif
  return isa == Isa::kBaseline;
}

Isa parse(const std::string& name) {
  for (int i = 0; i < 3; ++i) {
    if (name != kNames[i]) continue;
    check(available(Isa(i)), "instruction set '", name, "' is not available on this processor or in this build");
    return Isa(i);
  }
  check(false, "instruction set: expected baseline, avx2 or avx512, got '", name, "'");
  return Isa::kBaseline;
}

Isa best() {
  for (const Isa isa : {Isa::kAvx512, Isa::kAvx2}) {
    if (available(isa)) return isa;
  }
  return Isa::kBaseline;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> value = [] {
    const char* name = std::getenv("PTR_FAST_ISA");
    return name && *name ? parse(name) : best();
  }();
  return value;
}

}  // namespace

Isa isa() { return current().load(std::memory_order_relaxed); }
std::string isa_name() { return kNames[int(isa())]; }
void set_isa(const std::string& name) { current() = parse(name); }

}  // namespace ptr_fast
