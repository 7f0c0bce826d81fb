// Which instruction set the inner loops use: the best that this processor and this build have.
#pragma once
#include <string>

namespace ptr_fast {

enum class Isa { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

// The one in use. The environment variable PTR_FAST_ISA (baseline, avx2, avx512) sets it at the first call.
Isa isa();
std::string isa_name();

// Takes another one, for tests and comparisons; std::invalid_argument where the processor or the build lacks it.
void set_isa(const std::string& name);

// The variant of an op's inner loops for the instruction set in use.
#ifdef PTR_FAST_X86
#define PTR_FAST_SELECT_ISA(loops)                                \
  (::ptr_fast::isa() == ::ptr_fast::Isa::kAvx512 ? loops##_avx512 \
   : ::ptr_fast::isa() == ::ptr_fast::Isa::kAvx2 ? loops##_avx2   \
                                                 : loops##_baseline)
#else
#define PTR_FAST_SELECT_ISA(loops) (loops##_baseline)
#endif

}  // namespace ptr_fast
