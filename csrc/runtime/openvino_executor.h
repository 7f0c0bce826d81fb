// A policy as an OpenVINO model behind the control loop's Executor: no Python, no GIL, no allocation of ours per call.
//
// OpenVINO is not linked. Its C library is opened by the path that Python found in the wheel, and the dozen functions
// used here are declared in the .cpp. Interface: openvino/c/openvino.h of OpenVINO 2023 and later.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/resize.h"
#include "runtime/control_loop.h"

namespace ptr_fast {

class OpenVinoExecutor final : public Executor {
 public:
  struct Size {
    int64_t height, width;
    int64_t bytes() const { return 3 * height * width; }
  };

  // model: ONNX bytes with inputs frame (uint8 of height and width), state (float32) and, optionally, task_id (int64
  // [1]), output action. Frames of the camera have another size, perhaps, and are resized. properties: key, value, key, value ... of the CPU device (at most eight pairs).
  // std::runtime_error where the library cannot be opened or refuses the model, std::invalid_argument where the model's
  // inputs or output have other sizes.
  OpenVinoExecutor(const std::string& library, const std::string& model, const std::vector<std::string>& properties,
                   Size camera, Size size, int64_t num_state, int64_t num_axes, int64_t task_slot);
  ~OpenVinoExecutor() override;
  OpenVinoExecutor(const OpenVinoExecutor&) = delete;

  bool run(const ObservationView& observation, float* action) override;
  void check_sizes(int64_t num_frame_bytes, int64_t num_state, int64_t num_axes) const override;

 private:
  struct Session;
  const Size camera_;
  const int64_t num_state_, num_axes_;
  std::optional<Resize> resize_;  // where the camera's frames have not the model's size
  std::unique_ptr<Session> session_;
};

}  // namespace ptr_fast
