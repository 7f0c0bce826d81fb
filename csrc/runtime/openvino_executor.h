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
#include "runtime/executor.h"

namespace ptr_fast {

class OpenVinoExecutor final : public Executor {
 public:
  struct Size {
    int64_t height, width;
    int64_t bytes() const { return 3 * height * width; }
    bool operator==(const Size&) const = default;
  };
  // A camera: the model's input for its frames, the size of the frames, and the size that the model takes.
  struct Camera {
    std::string input;
    Size camera, model;
  };
  struct Shape {
    int64_t num_observations, num_state, num_actions, num_axes;  // T, S, H, A
  };

  // model: ONNX bytes with an input of frames per camera (uint8 [T, h, w, 3]), state (float32 [T, S]) and, optionally,
  // task_id (int64 [1]), output action (float32 [H, A]); where T or H is 1 their axes may be missing. Frames that have
  // another size than the model's are resized. properties: key, value, key, value ... of the CPU device (at most eight
  // pairs). std::runtime_error where the library cannot be opened or refuses the model, std::invalid_argument where the
  // model's inputs or output have other sizes.
  OpenVinoExecutor(const std::string& library, const std::string& model, const std::vector<std::string>& properties,
                   const std::vector<Camera>& cameras, Shape shape, int64_t task_slot);
  ~OpenVinoExecutor() override;
  OpenVinoExecutor(const OpenVinoExecutor&) = delete;

  int run(const ObservationView& observations, float* chunk) override;

 private:
  struct Session;
  const std::vector<Camera> cameras_;
  std::vector<std::optional<Resize>> resizes_;  // where a camera's frames have not the model's size
  std::unique_ptr<Session> session_;
};

}  // namespace ptr_fast
