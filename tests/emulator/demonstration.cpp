#include "demonstration.h"

#include <string>

#include "emulator.h"

namespace ptr_fast {
namespace {

template <Mistake kMistake>
void reversed_share_with(const py::array& x, const py::array& y, uint64_t seed) {
  const ReversedShare<kMistake> kernel{global<const float>(x), global<float>(y), int(x.shape(1))};
  emulate(kernel, {int(2 * x.shape(0)), 1, 1}, 2, seed);
}

void reversed_share(const py::array& x, const py::array& y, uint64_t seed, const std::string& mistake) {
  if (mistake == "none") return reversed_share_with<Mistake::kNone>(x, y, seed);
  if (mistake == "no barrier") return reversed_share_with<Mistake::kNoBarrier>(x, y, seed);
  if (mistake == "wrong index") return reversed_share_with<Mistake::kWrongIndex>(x, y, seed);
  if (mistake == "wrong row") return reversed_share_with<Mistake::kWrongRow>(x, y, seed);
  if (mistake == "no wait") return reversed_share_with<Mistake::kNoWait>(x, y, seed);
  if (mistake == "no cluster barrier") return reversed_share_with<Mistake::kNoClusterBarrier>(x, y, seed);
  if (mistake == "ends too early") return reversed_share_with<Mistake::kEndsTooEarly>(x, y, seed);
  throw std::invalid_argument("unknown mistake " + mistake);
}

template <class T>
void warp_product(const py::array& a, const py::array& b, const py::array& c) {
  emulate(WarpProduct<T>{global<const T>(a), global<const T>(b), global<float>(c)}, {1, 1, 1}, 1, 0);
}

const Emulated demonstration([](py::module_& module) {
  module.def("reversed_share", &reversed_share);
  module.def("warp_product_bf16", &warp_product<Bfloat16>);
  module.def("warp_product_tf32", &warp_product<float>);
});

}  // namespace
}  // namespace ptr_fast
